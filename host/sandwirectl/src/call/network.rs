//! A network configuration as a runtime reads it.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::path::Path;

/// One network: its plugins in order.
#[derive(Debug)]
pub(crate) struct Network {
    /// `name`.
    pub(crate) name: String,
    /// `cniVersion`; none when the configuration has none.
    pub(super) version: Option<String>,
    /// Plugin objects as they stand.
    pub(crate) plugins: Vec<Value>,
    /// The text of the file.
    pub(crate) text: Vec<u8>,
}

impl Network {
    /// Reads a file of either kind.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
        let network = Self::parse(&text).with_context(|| format!("{} is no network configuration", path.display()))?;
        Ok(Self { text, ..network })
    }

    fn parse(text: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(text).context("no JSON")?;
        let word = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let name = word("name").filter(|name| !name.is_empty()).context("\"name\" is missing")?;
        let plugins = match (value.get("plugins"), value.get("type")) {
            (Some(Value::Array(plugins)), _) => plugins.clone(),
            (None, Some(_)) => vec![value.clone()],
            _ => bail!("neither \"type\" nor a list of \"plugins\" is there"),
        };
        ensure!(!plugins.is_empty(), "\"plugins\" is empty");
        for plugin in &plugins {
            let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
            ensure!(!kind.is_empty() && !kind.contains('/'), "a plugin without a usable \"type\"");
        }
        // libcni takes the newest of `cniVersions` that it knows; the keys may stand beside each other.
        let several =
            value.get("cniVersions").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let version = word("cniVersion").into_iter().chain(several.map(str::to_owned)).max_by_key(|text| numbers(text));
        Ok(Self { name, version, plugins, text: Vec::new() })
    }

    /// What one plugin is given on standard input.
    pub(super) fn request(&self, plugin: &Value, result: Option<&Value>, offered: Option<&Value>) -> Value {
        let mut config = plugin.as_object().cloned().unwrap_or_default();
        config.insert("name".into(), self.name.clone().into());
        if let Some(version) = &self.version {
            config.insert("cniVersion".into(), version.clone().into());
        }
        if let Some(result) = result {
            config.insert("prevResult".into(), result.clone());
        }
        // Only what the plugin says it can use (CONVENTIONS.md, "capabilities").
        let wants = |name: &str| plugin.get("capabilities").and_then(|all| all.get(name)) == Some(&Value::Bool(true));
        let offered = offered.and_then(Value::as_object).into_iter().flatten();
        let offered: Map<String, Value> =
            offered.filter(|(name, _)| wants(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
        if !offered.is_empty() {
            config.insert("runtimeConfig".into(), offered.into());
        }
        Value::Object(config)
    }

    /// The types of its plugins, and of the address managers that their "ipam" names.
    pub(crate) fn types(&self) -> Vec<String> {
        let of = |value: &Value| {
            let kind = member(value, "type").and_then(Value::as_str);
            kind.filter(|kind| !kind.is_empty()).map(str::to_owned)
        };
        self.plugins.iter().flat_map(|plugin| [of(plugin), member(plugin, "ipam").and_then(of)]).flatten().collect()
    }

    /// Whether a plugin says that it can use what a runtime offers under this name.
    pub(crate) fn wants(&self, capability: &str) -> bool {
        let of =
            |plugin: &Value| plugin.get("capabilities").and_then(|all| all.get(capability)) == Some(&Value::Bool(true));
        self.plugins.iter().any(of)
    }

    /// Whether the network's version is at least `major.minor`.
    pub(crate) fn at_least(&self, major: u64, minor: u64) -> bool {
        self.version.as_deref().is_some_and(|version| numbers(version) >= vec![major, minor])
    }
}

/// A member as plugins read it, without regard to case.
pub(crate) fn member<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.as_object()?.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
}

fn numbers(version: &str) -> Vec<u64> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_are_what_libcni_makes() {
        let text = br#"{"cniVersion":"0.4.0","name":"n","plugins":[{"type":"a","capabilities":{"ips":true,"mac":false}},{"type":"b"}]}"#;
        let network = Network::parse(text).unwrap();
        let offered = json!({"ips": ["10.0.0.1"], "mac": "x"});
        let request = network.request(&network.plugins[0], None, Some(&offered));
        assert_eq!(
            request,
            json!({"cniVersion": "0.4.0", "name": "n", "type": "a", "capabilities": {"ips": true, "mac": false}, "runtimeConfig": {"ips": ["10.0.0.1"]}})
        );
        let request = network.request(&network.plugins[1], Some(&json!({"ips": []})), Some(&offered));
        assert_eq!(request, json!({"cniVersion": "0.4.0", "name": "n", "type": "b", "prevResult": {"ips": []}}));
    }

    #[test]
    fn a_single_plugin_without_a_version_stays_without() {
        let network = Network::parse(br#"{"name":"mynet","type":"bagpipe","mtu":"1500"}"#).unwrap();
        let request = network.request(&network.plugins[0], None, None);
        assert_eq!(request, json!({"name": "mynet", "type": "bagpipe", "mtu": "1500"}));
        assert!(!network.at_least(0, 1));
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (versions, at_least) in
            [(r#""0.3.1""#, false), (r#""0.4.0""#, true), (r#""0.10.0""#, true), (r#""1.1.0""#, true)]
        {
            let text = format!(r#"{{"cniVersions":["0.1.0",{versions}],"name":"n","type":"a"}}"#);
            assert_eq!(Network::parse(text.as_bytes()).unwrap().at_least(0, 4), at_least, "{versions}");
        }
    }

    #[test]
    fn what_is_no_configuration() {
        for (text, why) in [
            ("[]", "\"name\" is missing"),
            (r#"{"name":"n"}"#, "neither"),
            (r#"{"name":"n","plugins":[]}"#, "is empty"),
            (r#"{"name":"n","type":"../x"}"#, "usable \"type\""),
            ("{", "no JSON"),
        ] {
            let error = Network::parse(text.as_bytes()).unwrap_err();
            assert!(format!("{error:#}").contains(why), "{text}: {error:#}");
        }
    }
}
