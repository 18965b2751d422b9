//! The keys of the ptp plugin.

use sandwire_plugin::{Call, Dns, Failure, Ipam, OrFail};
use serde::Deserialize;

/// The network configuration. Defaults are the reference's.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", rename = "NetConf")]
pub(crate) struct Config {
    pub(crate) ip_masq: bool,
    ip_masq_backend: Option<String>,
    mtu: i64,
    #[serde(rename = "enabledad")]
    pub(crate) enable_dad: bool,
    pub(crate) ipam: Ipam,
    #[serde(deserialize_with = "Dns::said")]
    pub(crate) dns: Option<Dns>,
}

impl Config {
    /// # Errors
    /// Code 6 when it can't be read.
    pub(crate) fn load(text: &str) -> Result<Self, Failure> {
        sandwire_plugin::parse(text).or_fail("failed to load netconf")
    }

    /// The same with what ADD and STATUS need.
    ///
    /// # Errors
    /// The reference's texts.
    pub(crate) fn complete(text: &str) -> Result<Self, Failure> {
        let config = Self::load(text)?;
        config.ipam.require("ptp")?;
        match config.ip_masq_backend.as_deref() {
            Some(backend) if config.ip_masq && !["iptables", "nftables"].contains(&backend) => {
                Err(Failure::config(format!("unknown ipmasq backend {backend:?}")))
            }
            _ => Ok(config),
        }
    }

    /// What of it DEL and GC need: a configuration that was broken since ADD must not keep the address.
    pub(crate) fn of_del(call: &Call) -> Self {
        Self { ipam: ipam(call.config_text()), ..Self::default() }
    }

    /// Bytes; `None` (0 in the configuration) is the kernel's default.
    pub(crate) fn mtu(&self) -> Option<u32> {
        // More than any link can have is the kernel's to refuse.
        (self.mtu > 0).then(|| u32::try_from(self.mtu).unwrap_or(u32::MAX))
    }
}

/// The address manager alone, whatever the rest is.
pub(crate) fn ipam(text: &str) -> Ipam {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Addressing {
        ipam: Ipam,
    }
    sandwire_plugin::parse::<Addressing>(text).unwrap_or_default().ipam
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_match_without_case_and_null_is_absent() {
        let text =
            r#"{"IPMASQ": true, "ipmasqbackend": null, "MTU": 1400, "EnableDAD": true, "ipam": {"TYPE": "static"}}"#;
        let config = Config::complete(text).unwrap();
        assert!(config.ip_masq && config.enable_dad && config.ipam.is_set());
        assert_eq!(config.mtu(), Some(1400));
        let config = Config::complete(r#"{"ipam": {"type": "static"}}"#).unwrap();
        assert_eq!((config.ip_masq, config.mtu(), config.enable_dad), (false, None, false));
    }

    #[test]
    fn errors_have_the_references_texts() {
        for (text, wanted) in [
            ("{}", "no plugin name provided"),
            (
                r#"{"ipam": {"type": "static"}, "ipMasq": true, "ipMasqBackend": "ebpf"}"#,
                "unknown ipmasq backend \"ebpf\"",
            ),
        ] {
            assert_eq!(Config::complete(text).unwrap_err().msg, wanted, "{text}");
        }
        assert!(Config::load(r#"{"mtu": "1500"}"#).unwrap_err().msg.starts_with("failed to load netconf: "));
        Config::complete(r#"{"ipam": {"type": "static"}, "ipMasqBackend": "ebpf"}"#).unwrap();
    }

    #[test]
    fn del_needs_the_address_manager_alone() {
        assert_eq!(ipam(r#"{"mtu": "many", "ipam": {"type": "host-local"}}"#).plugin, "host-local");
        for nothing in ["", "{}", r#"{"ipam": 3}"#] {
            assert!(!ipam(nothing).is_set(), "{nothing}");
        }
    }
}
