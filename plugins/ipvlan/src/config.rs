//! The keys of the ipvlan plugin.

use sandwire_plugin::host::links::IpvlanMode;
use sandwire_plugin::{CniResult, Dns, Failure, Ipam, Netns, OrFail, master};
use serde::Deserialize;

/// The network configuration. Defaults are the reference's.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", rename = "NetConf")]
pub(crate) struct Config {
    pub(crate) master: String,
    mode: String,
    mtu: i64,
    pub(crate) link_in_container: bool,
    pub(crate) ipam: Ipam,
    pub(crate) dns: Dns,
}

impl Config {
    /// The configuration of a network; errors have the reference's texts.
    pub(crate) fn load(text: &str) -> Result<Self, Failure> {
        sandwire_plugin::parse(text).or_fail("failed to load netconf")
    }

    /// The mode, and how the kernel calls it.
    pub(crate) fn mode(&self) -> Result<(IpvlanMode, &'static str), Failure> {
        match self.mode.as_str() {
            "" | "l2" => Ok((IpvlanMode::L2, "l2")),
            "l3" => Ok((IpvlanMode::L3, "l3")),
            "l3s" => Ok((IpvlanMode::L3s, "l3s")),
            other => Err(Failure::config(format!("unknown ipvlan mode: {other:?}"))),
        }
    }

    /// Bytes; `None` is the master's. The kernel says what is too much: unlike a macvlan's it is not bound to the master's.
    pub(crate) fn mtu(&self) -> Result<Option<u32>, Failure> {
        match u32::try_from(self.mtu) {
            Ok(0) => Ok(None),
            Ok(mtu) => Ok(Some(mtu)),
            Err(_) => Err(Failure::config(format!("invalid MTU {}", self.mtu))),
        }
    }

    /// The name of the link to ride on: the configuration's; in a chain the one interface that there is; else that of the default
    /// route.
    pub(crate) fn master(&self, before: Option<&CniResult>, place: &Netns) -> Result<String, Failure> {
        if !self.master.is_empty() {
            return Ok(self.master.clone());
        }
        match before.map(|result| result.interfaces.as_slice()) {
            None => master::of_default_route(place),
            Some([only]) if !only.name.is_empty() => Ok(only.name.clone()),
            Some(_) => Err(Failure::config("chained master failure. PrevResult lacks a single named interface")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_is_the_references_defaults() {
        let config = Config::load("{}").unwrap();
        assert!(config.master.is_empty() && !config.link_in_container && !config.ipam.is_set());
        assert_eq!((config.mode().unwrap().1, config.mtu().unwrap()), ("l2", None));
    }

    #[test]
    fn errors_have_the_references_texts() {
        let config = Config::load(r#"{"mode":"L2","mtu":-1}"#).unwrap();
        assert_eq!(config.mode().unwrap_err().msg, "unknown ipvlan mode: \"L2\"");
        assert_eq!(config.mtu().unwrap_err().msg, "invalid MTU -1");
        assert!(Config::load(r#"{"mtu":"9000"}"#).unwrap_err().msg.starts_with("failed to load netconf: "));
    }
}
