//! The network configuration on stdin: what every plugin has to know of it, and what only the protocol knows.

use crate::go_json::{self, Json, JsonError};
use crate::go_text::quote;
use crate::result::declared_version;
use crate::version::numbers;
use crate::{CniResult, Command, Error, Family, Result, Version, names};
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::fmt;

/// A network configuration whose name, version and type have been checked. The keys that belong to a plugin are read by it,
/// with [`NetworkConfig::decode`].
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkConfig {
    /// The network.
    pub name: String,
    /// The version that was asked for, and that the answer has to have.
    pub version: Version,
    /// Type of the plugin it was written for: the parent's when this is a delegate's call. May be empty.
    pub plugin_type: String,
    /// Type of the address manager; none when there is none.
    pub ipam_type: Option<String>,
    text: String,
    tree: Json,
}

/// An attachment that GC must leave alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, rename = "types.GCAttachment")]
pub struct Attachment {
    /// Container id.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Name of the interface in the container.
    pub ifname: String,
}

const PREV_RESULT: &str = "prevResult";

/// The names that Go gives to the reference's anonymous structs stand in its error messages.
#[derive(Default, Deserialize)]
#[serde(default, rename = "struct { Name string \"json:\\\"name\\\"\" }")]
struct Named {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename = "struct { CNIVersion string \"json:\\\"cniVersion\\\"\" }")]
struct Versioned {
    #[serde(rename = "cniVersion")]
    version: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename = "types.NetConf")]
struct Typed {
    r#type: String,
    ipam: Ipam,
}

#[derive(Default, Deserialize)]
#[serde(default, rename = "types.IPAM")]
struct Ipam {
    r#type: String,
}

impl NetworkConfig {
    /// Reads what came on stdin for a plugin that speaks every version.
    ///
    /// # Errors
    /// As [`NetworkConfig::parse_for`].
    pub fn parse(text: &[u8], command: Command) -> Result<Self> {
        Self::parse_for(text, command, &Version::ALL)
    }

    /// Reads what came on stdin for a plugin that speaks `supported`, checking in the reference's order.
    ///
    /// # Errors
    /// Code 6, `error unmarshall network config: ...`, when it is no object or a value does not fit; code 7 for the
    /// name; code 1 for a version that is not supported, or too old for the command.
    pub fn parse_for(text: &[u8], command: Command, supported: &[Version]) -> Result<Self> {
        let text = String::from_utf8_lossy(text).into_owned();
        let unmarshal = |error: JsonError| Error::decode(format!("error unmarshall network config: {error}"));
        let tree = Json::parse(&text).map_err(unmarshal)?;
        let Named { name } = only(&tree, &["name"]).decode().map_err(unmarshal)?;
        names::check_network_name(&name)?;
        let Versioned { version } = only(&tree, &["cniVersion"])
            .decode()
            .map_err(|error| Error::decode(format!("decoding version from network config: {error}")))?;
        allows(&version, command, supported)?;
        let version = Version::check(&version, supported)?;
        let Typed { r#type, ipam } = only(&tree, &["type", "ipam"]).decode().map_err(unmarshal)?;
        let ipam_type = Some(ipam.r#type).filter(|ipam| !ipam.is_empty());
        Ok(Self { name, version, plugin_type: r#type, ipam_type, text, tree })
    }

    /// The text as it came, but for bytes that are not UTF-8: what a native delegate gets.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All of it.
    pub fn tree(&self) -> &Json {
        &self.tree
    }

    /// Reads it as a plugin's own type, by Go's rules.
    ///
    /// # Errors
    /// What does not fit; each reference plugin puts words of its own before it ("failed to load netconf: ").
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, JsonError> {
        self.tree.clone().decode()
    }

    /// The text without prevResult, every other byte of a value as it came: a guest gets prevResult apart, in the newest
    /// shape.
    pub fn without_prev_result(&self) -> String {
        // Cut out of the text and not written anew from the tree: numbers must not change, nor equal keys vanish.
        let keep = |text: &str| -> serde_json::Result<String> {
            let Members(members) = serde_json::from_str(text)?;
            let mut kept = Vec::with_capacity(members.len());
            for (key, value) in members {
                if !go_json::eq_fold(&key, PREV_RESULT) {
                    kept.push(format!("{}:{}", serde_json::to_string(&key)?, value.get()));
                }
            }
            Ok(format!("{{{}}}", kept.join(",")))
        };
        match self.tree.get(PREV_RESULT) {
            None => self.text.clone(),
            // The text has been an object since it was parsed.
            Some(_) => keep(&self.text).unwrap_or_default(),
        }
    }

    /// prevResult in the newest shape; none when the configuration has none.
    ///
    /// # Errors
    /// Code 6, `could not parse prevResult: ...`: it is no result, or of another family of versions than the configuration.
    pub fn prev_result(&self) -> Result<Option<CniResult>> {
        let raw = match self.tree.get(PREV_RESULT) {
            None | Some(Json::Null) => return Ok(None),
            Some(raw) => raw,
        };
        let parse = || {
            if let Some(text) = declared_version(raw)?
                && Version::parse(text).map(Version::family) != Some(self.version.family())
            {
                // As Go prints the list of each type's versions; the oldest one's begins with "".
                let supported = match self.version.family() {
                    Family::V02x => "[ 0.1.0 0.2.0]",
                    Family::V04x => "[0.3.0 0.3.1 0.4.0]",
                    Family::V1x => "[1.0.0 1.1.0]",
                };
                let text = quote(text);
                return Err(Error::decode(format!(
                    "result type supports {supported} but unmarshalled CNIVersion is {text}"
                )));
            }
            CniResult::from_tree(raw.clone(), self.version)
        };
        parse().map(Some).map_err(|error| error.context("could not parse prevResult"))
    }

    /// prevResult where a plugin can't do without, as in CHECK.
    ///
    /// # Errors
    /// Code 7, `required prevResult missing`; those of [`NetworkConfig::prev_result`].
    pub fn required_prev_result(&self) -> Result<CniResult> {
        self.prev_result()?.ok_or_else(|| Error::invalid_config("required prevResult missing"))
    }

    /// The attachments that GC must leave alone. None when the runtime did not say, which is not permission to collect:
    /// `null` and `[]` are, since CRI-O sends null for a network without pods.
    ///
    /// # Errors
    /// Code 6 when it is no list of attachments.
    pub fn valid_attachments(&self) -> Result<Option<Vec<Attachment>>> {
        // The second name is the draft's, which libcni goes on sending (containernetworking/cni#1101).
        ["cni.dev/valid-attachments", "cni.dev/attachments"]
            .iter()
            .find_map(|key| self.tree.get(key).map(|value| (key, value)))
            .map(|(key, value)| value.clone().decode().map_err(|error| Error::from(error).context(key)))
            .transpose()
    }
}

/// The members with these keys alone, so that reading one of them doesn't copy the others.
fn only(tree: &Json, keys: &[&str]) -> Json {
    match tree {
        Json::Object(members) => {
            let wanted = members.iter().filter(|(key, _)| keys.iter().any(|wanted| go_json::eq_fold(key, wanted)));
            Json::Object(wanted.cloned().collect())
        }
        Json::Array(_) => Json::Array(Vec::new()),
        other => other.clone(),
    }
}

/// Whether `command` exists in the declared version. The reference compares numbers here, before it looks the version up.
fn allows(declared: &str, command: Command, supported: &[Version]) -> Result<()> {
    let since = match command {
        Command::Check => Version::V040,
        Command::Gc | Command::Status => Version::V110,
        Command::Add | Command::Del | Command::Version => return Ok(()),
    };
    let declared = numbers(declared)?;
    if declared < numbers(since.as_str())? {
        return Err(Error::incompatible_version(format!("config version does not allow {command}")));
    }
    for version in supported {
        if numbers(version.as_str())? >= declared {
            return Ok(());
        }
    }
    Err(Error::incompatible_version(format!("plugin version does not allow {command}")))
}

/// An object's members with the text of their values.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

#[cfg(test)]
mod tests;
