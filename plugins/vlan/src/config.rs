//! The keys of the vlan plugin.

use sandwire_plugin::{Dns, Failure, Ipam, OrFail, master};
use serde::Deserialize;

/// IEEE 802.1Q has 12 bits, of which 4095 is reserved.
const LAST: i64 = 4094;

/// The network configuration. Defaults are the reference's.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", rename = "NetConf")]
pub(crate) struct Config {
    pub(crate) master: String,
    #[serde(rename = "vlanId")]
    vlan: i64,
    mtu: i64,
    pub(crate) link_in_container: bool,
    pub(crate) ipam: Ipam,
    pub(crate) dns: Dns,
}

impl Config {
    /// The configuration of a network as DEL needs it; errors have the reference's texts.
    pub(crate) fn load(text: &str) -> Result<Self, Failure> {
        sandwire_plugin::parse(text).or_fail("failed to load netconf")
    }

    /// The master's name and the VLAN's id.
    pub(crate) fn identity(&self) -> Result<(&str, u16), Failure> {
        if self.master.is_empty() {
            return Err(Failure::config(
                "\"master\" field is required. It specifies the host interface name to create the VLAN for",
            ));
        }
        match u16::try_from(self.vlan) {
            Ok(vlan) if self.vlan <= LAST => Ok((&self.master, vlan)),
            _ => Err(Failure::config(format!("invalid VLAN ID {} (must be between 0 and 4095 inclusive)", self.vlan))),
        }
    }

    /// Bytes, at most the master's; `None` is the master's own.
    pub(crate) fn mtu(&self, master: u32) -> Result<Option<u32>, Failure> {
        master::mtu(self.mtu, master)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_references_texts() {
        for (text, wanted) in [
            ("{}", "\"master\" field is required. It specifies the host interface name to create the VLAN for"),
            (r#"{"master":"m0","vlanId":4095}"#, "invalid VLAN ID 4095 (must be between 0 and 4095 inclusive)"),
            (r#"{"master":"m0","vlanId":-1}"#, "invalid VLAN ID -1 (must be between 0 and 4095 inclusive)"),
            (r#"{"master":"m0","vlanId":65541}"#, "invalid VLAN ID 65541 (must be between 0 and 4095 inclusive)"),
        ] {
            assert_eq!(Config::load(text).unwrap().identity().unwrap_err().msg, wanted, "{text}");
        }
        assert!(Config::load(r#"{"vlanId":"5"}"#).unwrap_err().msg.starts_with("failed to load netconf: "));
    }

    #[test]
    fn keys_match_without_case() {
        let config = Config::load(r#"{"MASTER":"m0","vlanid":4094,"ipam":null}"#).unwrap();
        assert_eq!(config.identity().unwrap(), ("m0", 4094));
        assert!(!config.ipam.is_set() && !config.link_in_container);
    }
}
