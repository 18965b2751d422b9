//! The keys of the tuning plugin.

use sandwire_plugin::go_json::{Json, JsonError};
use sandwire_plugin::{Call, Failure, code, mac};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use std::fmt;

/// Where native tuning keeps what an interface was.
const DATA_DIR: &str = "/run/cni/tuning";

/// The network configuration as it stands.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", rename = "TuningConf")]
struct Keys {
    sysctl: Sysctls,
    mac: String,
    promisc: bool,
    mtu: i64,
    #[serde(rename = "txQLen")]
    tx_queue_length: Option<i64>,
    allmulti: Option<bool>,
    runtime_config: mac::Requested,
    args: Args,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Args {
    cni: Metadata,
}

/// `args.cni`: what stands there goes before everything else, `false`, 0 and "" too.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename = "IPAMArgs")]
struct Metadata {
    sysctl: Sysctls,
    mac: Option<String>,
    promisc: Option<bool>,
    mtu: Option<i64>,
    #[serde(rename = "txQLen")]
    tx_queue_length: Option<i64>,
    allmulti: Option<bool>,
}

/// Key and value of each entry, in the configuration's order and as often as they stand there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sysctls(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Sysctls {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Sysctls;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of sysctls")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sysctls, A::Error> {
                let mut all = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Option<String>>()? {
                    all.push((key, value.unwrap_or_default()));
                }
                Ok(Sysctls(all))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// What shall be, from all places that may say so.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) sysctls: Vec<(String, String)>,
    pub(crate) mac: Option<String>,
    pub(crate) promisc: bool,
    mtu: i64,
    tx_queue_length: Option<i64>,
    pub(crate) allmulti: Option<bool>,
}

impl Config {
    /// The configuration of a call.
    pub(crate) fn of(call: &Call) -> Result<Self, Failure> {
        let [argument] = call.args(["MAC"])?;
        Self::load(call.config_text(), argument)
    }

    /// The configuration of a network, and `MAC` of CNI_ARGS; errors have the reference's texts.
    pub(crate) fn load(text: &str, argument: Option<&str>) -> Result<Self, Failure> {
        let tree = Json::parse(text).map_err(undecodable)?;
        if repeats(&tree) {
            return Err(Failure::config("duplicated sysctl keys are not allowed"));
        }
        let keys: Keys = tree.decode().map_err(undecodable)?;
        let mut sysctls = keys.sysctl.0;
        let metadata = keys.args.cni;
        for (key, value) in metadata.sysctl.0 {
            match sysctls.iter_mut().find(|(other, _)| *other == key) {
                Some((_, other)) => *other = value,
                None => sysctls.push((key, value)),
            }
        }
        let asked = [keys.runtime_config.mac.as_str(), argument.unwrap_or_default(), keys.mac.as_str()];
        let asked = || asked.into_iter().find(|mac| !mac.is_empty()).unwrap_or_default().to_owned();
        let config = Self {
            sysctls,
            mac: Some(metadata.mac.unwrap_or_else(asked)).filter(|mac| !mac.is_empty()),
            promisc: metadata.promisc.unwrap_or(keys.promisc),
            mtu: metadata.mtu.unwrap_or(keys.mtu),
            tx_queue_length: metadata.tx_queue_length.or(keys.tx_queue_length),
            allmulti: metadata.allmulti.or(keys.allmulti),
        };
        config.mtu()?;
        config.tx_queue_length()?;
        Ok(config)
    }

    /// Whether there is more to do than sysctls.
    pub(crate) fn changes_the_link(&self) -> bool {
        self.mac.is_some() || self.promisc || self.mtu != 0 || self.allmulti.is_some() || self.tx_queue_length.is_some()
    }

    /// Bytes; 0 in the configuration is none.
    pub(crate) fn mtu(&self) -> Result<Option<u32>, Failure> {
        match u32::try_from(self.mtu) {
            Ok(0) => Ok(None),
            Ok(mtu) => Ok(Some(mtu)),
            Err(_) => Err(Failure::config(format!("invalid MTU {}", self.mtu))),
        }
    }

    /// Packets.
    pub(crate) fn tx_queue_length(&self) -> Result<Option<u32>, Failure> {
        let number = |length| {
            u32::try_from(length).map_err(|_| Failure::config(format!("invalid Transmit Queue Length {length}")))
        };
        self.tx_queue_length.map(number).transpose()
    }
}

fn undecodable(error: JsonError) -> Failure {
    Failure::new(code::DECODE, error.to_string()).context("failed to load netconf")
}

/// Whether a key of `sysctl` is there twice. A map would have the last one only, and which one that is nobody can see.
fn repeats(tree: &Json) -> bool {
    let Some(Json::Object(entries)) = tree.get("sysctl") else { return false };
    let mut keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    keys.iter().zip(keys.iter().skip(1)).any(|(a, b)| a == b)
}

/// `dataDir`, whatever the rest of the configuration is worth.
pub(crate) fn data_dir(text: &str) -> String {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Keys {
        data_dir: String,
    }
    match sandwire_plugin::parse::<Keys>(text) {
        Ok(keys) if !keys.data_dir.is_empty() => keys.data_dir,
        _ => DATA_DIR.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, argument: Option<&str>) -> Config {
        Config::load(text, argument).unwrap()
    }

    fn refused(text: &str) -> String {
        Config::load(text, None).unwrap_err().msg
    }

    #[test]
    fn nothing_said_is_nothing_to_do() {
        assert_eq!(load("{}", None), Config::default());
        assert_eq!(
            load(r#"{"sysctl":null,"args":{"cni":null},"allmulti":null,"txQLen":null}"#, None),
            Config::default()
        );
        assert!(!load("{}", None).changes_the_link());
        assert_eq!(data_dir("{}"), DATA_DIR);
        assert_eq!(data_dir(r#"{"DATADIR":"/run/cni/x","mtu":"no number"}"#), "/run/cni/x");
        assert_eq!(data_dir("no JSON"), DATA_DIR);
    }

    #[test]
    fn a_mac_by_metadata_then_runtime_then_arguments_then_configuration() {
        let mac = |text, argument| load(text, argument).mac.unwrap_or_default();
        let all = r#"{"mac":"4","runtimeConfig":{"mac":"2"},"args":{"cni":{"mac":"1"}}}"#;
        assert_eq!(mac(all, Some("3")), "1");
        assert_eq!(mac(r#"{"mac":"4","runtimeConfig":{"mac":"2"}}"#, Some("3")), "2");
        assert_eq!(mac(r#"{"mac":"4"}"#, Some("3")), "3");
        assert_eq!(mac(r#"{"mac":"4"}"#, Some("")), "4");
        assert_eq!(mac(r#"{"mac":"4","args":{"cni":{"mac":""}}}"#, Some("3")), "");
    }

    #[test]
    fn metadata_goes_before_the_configuration() {
        let config = load(
            r#"{"sysctl":{"a":"1","b":"2"},"promisc":true,"mtu":1400,"txQLen":5,"allmulti":true,
                "args":{"cni":{"sysctl":{"b":"3","c":"4"},"promisc":false,"mtu":0,"txQLen":0,"allmulti":false}}}"#,
            None,
        );
        let pairs: Vec<_> = config.sysctls.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("a", "1"), ("b", "3"), ("c", "4")]);
        assert_eq!((config.promisc, config.mtu().unwrap(), config.allmulti), (false, None, Some(false)));
        assert_eq!(config.tx_queue_length().unwrap(), Some(0));
        // The reference panics here.
        assert_eq!(load(r#"{"args":{"cni":{"sysctl":{"a":"1"}}}}"#, None).sysctls.len(), 1);
    }

    #[test]
    fn errors_have_the_references_texts() {
        assert_eq!(refused(r#"{"sysctl":{"a":"1","b":"2","a":"1"}}"#), "duplicated sysctl keys are not allowed");
        assert_eq!(
            refused(r#"{"sysctl":{"a":1}}"#),
            "failed to load netconf: json: cannot unmarshal number into Go struct field TuningConf.sysctl of type string"
        );
        assert_eq!(refused(r#"{"mtu":-1}"#), "invalid MTU -1");
        assert_eq!(refused(r#"{"txQLen":-1}"#), "invalid Transmit Queue Length -1");
    }
}
