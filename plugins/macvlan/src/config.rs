//! The keys of the macvlan plugin.

use sandwire_plugin::host::links::MacvlanMode;
use sandwire_plugin::{Call, Dns, Failure, Ipam, OrFail, mac, master};
use serde::Deserialize;

/// The network configuration. Defaults are the reference's.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", rename = "NetConf")]
pub(crate) struct Config {
    pub(crate) master: String,
    mode: String,
    pub(crate) mtu: i64,
    mac: String,
    pub(crate) link_in_container: bool,
    #[serde(rename = "bcqueuelen")]
    pub(crate) broadcast_queue: u32,
    #[serde(rename = "enabledad")]
    pub(crate) enable_dad: bool,
    pub(crate) ipam: Ipam,
    pub(crate) dns: Dns,
    runtime_config: mac::Requested,
}

impl Config {
    /// The configuration of a network; errors have the reference's texts.
    pub(crate) fn load(text: &str) -> Result<Self, Failure> {
        sandwire_plugin::parse(text).or_fail("failed to load netconf")
    }

    /// The mode, and how CHECK calls it.
    pub(crate) fn mode(&self) -> Result<(MacvlanMode, &'static str), Failure> {
        match self.mode.as_str() {
            "" | "bridge" => Ok((MacvlanMode::Bridge, "bridge")),
            "private" => Ok((MacvlanMode::Private, "private")),
            "vepa" => Ok((MacvlanMode::Vepa, "vepa")),
            "passthru" => Ok((MacvlanMode::Passthru, "passthru")),
            other => Err(Failure::config(format!("unknown macvlan mode: {other:?}"))),
        }
    }

    /// Bytes, at most the master's; `None` (0 in the configuration) is the master's own.
    pub(crate) fn mtu(&self, master: u32) -> Result<Option<u32>, Failure> {
        master::mtu(self.mtu, master)
    }

    /// The MAC that the interface shall have: by `runtimeConfig.mac`, then `MAC` of CNI_ARGS, then `mac`. `None`: the
    /// kernel picks one.
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
        assert!(config.master.is_empty() && !config.link_in_container && !config.ipam.is_set());
        assert_eq!(config.mode().unwrap().1, "bridge");
        assert_eq!(config.mtu(1500).unwrap(), None);
        assert_eq!((config.broadcast_queue, config.mac.as_str()), (0, ""));
    }

    #[test]
    fn errors_have_the_references_texts() {
        let config = Config::load(r#"{"mode":"source","mtu":1501}"#).unwrap();
        assert_eq!(config.mode().unwrap_err().msg, "unknown macvlan mode: \"source\"");
        assert_eq!(config.mtu(1500).unwrap_err().msg, "invalid MTU 1501, must be [0, master MTU(1500)]");
        assert_eq!(config.mtu(1501).unwrap(), Some(1501));
        let negative = Config::load(r#"{"mtu":-1}"#).unwrap();
        assert_eq!(negative.mtu(1500).unwrap_err().msg, "invalid MTU -1, must be [0, master MTU(1500)]");
    }
}
