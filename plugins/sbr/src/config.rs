//! The keys of the sbr plugin.

use sandwire_plugin::{Failure, OrFail};
use serde::Deserialize;
use std::net::IpAddr;

/// The network configuration. Defaults are the reference's.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", rename = "PluginConf")]
pub(crate) struct Config {
    table: Option<i64>,
    gateways: Vec<String>,
    pub(crate) add_source_hints: bool,
}

/// The gateway of each family, where the configuration names one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gateways {
    pub(crate) v4: Option<IpAddr>,
    pub(crate) v6: Option<IpAddr>,
}

impl Config {
    /// Errors have the reference's texts.
    pub(crate) fn load(text: &str) -> Result<Self, Failure> {
        sandwire_plugin::parse(text).or_fail("failed to parse network configuration")
    }

    /// The table that others fill; `None`: one that is free.
    pub(crate) fn table(&self) -> Result<Option<u32>, Failure> {
        let Some(table) = self.table else { return Ok(None) };
        match u32::try_from(table) {
            Ok(table) if table > 0 => Ok(Some(table)),
            _ => Err(Failure::config(format!("invalid table {table} (must be between 1 and 4294967295)"))),
        }
    }

    /// At most one of each family.
    pub(crate) fn gateways(&self) -> Result<Gateways, Failure> {
        if self.gateways.len() > 2 {
            return Err(Failure::config("gateways list cannot contain more than 2 entries (one IPv4, one IPv6)"));
        }
        let mut found = Gateways::default();
        for text in &self.gateways {
            let address: IpAddr = text
                .parse()
                .map_err(|_| Failure::config(["invalid static gateway IP address: ", text.as_str()].concat()))?;
            // Go's To4: ::ffff:10.0.0.1 is of IPv4.
            let address = address.to_canonical();
            let (family, of_family) = match address {
                IpAddr::V4(_) => ("IPv4", &mut found.v4),
                IpAddr::V6(_) => ("IPv6", &mut found.v6),
            };
            if let Some(first) = of_family.replace(address) {
                return Err(Failure::config(format!(
                    "gateways list contains multiple {family} addresses: {first} and {text}"
                )));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_references_texts() {
        for (text, wanted) in [
            (
                r#"{"gateways":["10.0.0.1","10.0.0.2"]}"#,
                "gateways list contains multiple IPv4 addresses: 10.0.0.1 and 10.0.0.2",
            ),
            (
                r#"{"gateways":["fd00::1","fd00::2"]}"#,
                "gateways list contains multiple IPv6 addresses: fd00::1 and fd00::2",
            ),
            (r#"{"gateways":["x"]}"#, "invalid static gateway IP address: x"),
            (
                r#"{"gateways":["10.0.0.1","fd00::1","10.0.0.2"]}"#,
                "gateways list cannot contain more than 2 entries (one IPv4, one IPv6)",
            ),
        ] {
            assert_eq!(Config::load(text).unwrap().gateways().unwrap_err().msg, wanted, "{text}");
        }
        for text in [r#"{"table":0}"#, r#"{"table":-1}"#, r#"{"table":4294967296}"#] {
            assert!(Config::load(text).unwrap().table().unwrap_err().msg.starts_with("invalid table "), "{text}");
        }
        assert!(
            Config::load(r#"{"table":"5"}"#).unwrap_err().msg.starts_with("failed to parse network configuration: ")
        );
    }

    #[test]
    fn keys_match_without_case() {
        let config = Config::load(r#"{"TABLE":7,"Gateways":["fd00::1","10.0.0.1"],"addsourcehints":true}"#).unwrap();
        let gateways = config.gateways().unwrap();
        assert_eq!(config.table().unwrap(), Some(7));
        assert_eq!(gateways, Gateways { v4: "10.0.0.1".parse().ok(), v6: "fd00::1".parse().ok() });
        assert!(config.add_source_hints);
    }
}
