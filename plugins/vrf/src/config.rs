//! The keys of the vrf plugin.

use sandwire_plugin::{Failure, OrFail};
use serde::Deserialize;

/// The network configuration. Defaults are the reference's.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename = "VRFNetConf")]
pub(crate) struct Config {
    /// Of the VRF.
    #[serde(rename = "vrfname")]
    pub(crate) name: String,
    /// Its routing table; 0: one that no other VRF of the container has.
    pub(crate) table: u32,
}

impl Config {
    /// Errors have the reference's texts.
    pub(crate) fn load(text: &str) -> Result<Self, Failure> {
        let config: Self = sandwire_plugin::parse(text).or_fail("failed to load netconf")?;
        match config.name.is_empty() {
            true => Err(Failure::config("configuration is expected to have a valid vrf name")),
            false => Ok(config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_references_texts() {
        for text in ["{}", r#"{"vrfname":""}"#, r#"{"vrfname":null}"#] {
            let error = Config::load(text).unwrap_err();
            assert_eq!(error.msg, "configuration is expected to have a valid vrf name", "{text}");
        }
        assert!(Config::load(r#"{"vrfname":"a","table":-1}"#).unwrap_err().msg.starts_with("failed to load netconf: "));
    }

    #[test]
    fn keys_match_without_case() {
        let config = Config::load(r#"{"vrfName":"blue","TABLE":7}"#).unwrap();
        assert_eq!((config.name.as_str(), config.table), ("blue", 7));
    }
}
