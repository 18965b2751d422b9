//! The keys of the tap plugin.

use sandwire_plugin::{Call, Dns, Failure, Ipam, OrFail, mac};
use serde::Deserialize;

/// The network configuration. Defaults are the reference's.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", rename = "NetConf")]
pub(crate) struct Config {
    pub(crate) multi_queue: bool,
    mtu: i64,
    mac: String,
    /// Of a user and of a group that may open it.
    pub(crate) owner: Option<u32>,
    pub(crate) group: Option<u32>,
    selinux_context: String,
    /// In the container.
    pub(crate) bridge: String,
    pub(crate) ipam: Ipam,
    pub(crate) dns: Dns,
    runtime_config: mac::Requested,
}

impl Config {
    /// The configuration of a network; errors have the reference's texts.
    pub(crate) fn load(text: &str) -> Result<Self, Failure> {
        sandwire_plugin::parse(text).or_fail("failed to load netconf")
    }

    /// What ADD would refuse.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        // The label is that of the process which makes the device: here of one that serves every plugin.
        if !self.selinux_context.is_empty() {
            return Err(Failure::config(
                "\"selinuxContext\" is not supported: leave it out, or use the native tap plugin for this network",
            ));
        }
        self.mtu().map(drop)
    }

    /// Bytes; `None` (0 in the configuration) is the kernel's 1500.
    pub(crate) fn mtu(&self) -> Result<Option<u32>, Failure> {
        match u32::try_from(self.mtu) {
            Ok(0) => Ok(None),
            Ok(mtu) => Ok(Some(mtu)),
            Err(_) => Err(Failure::config(format!("invalid MTU {}", self.mtu))),
        }
    }

    /// The MAC that the interface shall have; `None`: the kernel picks one.
    pub(crate) fn mac<'a>(&'a self, call: &'a Call) -> Result<Option<&'a str>, Failure> {
        mac::of_interface(call, &self.runtime_config, &self.mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_is_the_references_defaults() {
        let config = Config::load("{}").unwrap();
        assert!(!config.multi_queue && config.bridge.is_empty() && !config.ipam.is_set());
        assert_eq!((config.mtu().unwrap(), config.owner, config.group), (None, None, None));
        config.check().unwrap();
    }

    #[test]
    fn keys_match_without_case() {
        let config =
            Config::load(r#"{"multiqueue":true,"OWNER":0,"group":7,"MTU":1400,"selinuxcontext":"a"}"#).unwrap();
        assert!(config.multi_queue);
        assert_eq!((config.owner, config.group, config.mtu().unwrap()), (Some(0), Some(7), Some(1400)));
        assert!(config.check().unwrap_err().msg.starts_with("\"selinuxContext\" is not supported"));
    }

    #[test]
    fn what_can_never_be() {
        for text in [r#"{"owner":-1}"#, r#"{"group":4294967296}"#, r#"{"mtu":"1500"}"#] {
            assert!(Config::load(text).unwrap_err().msg.starts_with("failed to load netconf: "), "{text}");
        }
        assert_eq!(Config::load(r#"{"mtu":-1}"#).unwrap().check().unwrap_err().msg, "invalid MTU -1");
    }
}
