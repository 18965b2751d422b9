//! The keys of the bridge plugin.

use crate::vlan::{Trunk, Vlans};
use sandwire_plugin::{Call, Dns, Failure, Ipam, OrFail, mac};
use serde::Deserialize;

/// The network configuration. Defaults are the reference's.
#[derive(Debug, Deserialize)]
#[serde(default, rename_all = "camelCase", rename = "NetConf")]
pub(crate) struct Config {
    pub(crate) bridge: String,
    is_gateway: bool,
    pub(crate) is_default_gateway: bool,
    pub(crate) force_address: bool,
    pub(crate) ip_masq: bool,
    ip_masq_backend: Option<String>,
    mtu: i64,
    pub(crate) hairpin_mode: bool,
    pub(crate) promisc_mode: bool,
    vlan: i64,
    vlan_trunk: Option<Vec<Trunk>>,
    pub(crate) preserve_default_vlan: bool,
    #[serde(rename = "macspoofchk")]
    pub(crate) mac_spoof_check: bool,
    #[serde(rename = "enabledad")]
    pub(crate) enable_dad: bool,
    pub(crate) disable_container_interface: bool,
    pub(crate) port_isolation: bool,
    pub(crate) ipam: Ipam,
    #[serde(deserialize_with = "Dns::said")]
    pub(crate) dns: Option<Dns>,
    runtime_config: mac::Requested,
    args: mac::Metadata,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bridge: "cni0".into(),
            is_gateway: false,
            is_default_gateway: false,
            force_address: false,
            ip_masq: false,
            ip_masq_backend: None,
            mtu: 0,
            hairpin_mode: false,
            promisc_mode: false,
            vlan: 0,
            vlan_trunk: None,
            preserve_default_vlan: false,
            mac_spoof_check: false,
            enable_dad: false,
            disable_container_interface: false,
            port_isolation: false,
            ipam: Ipam::default(),
            dns: None,
            runtime_config: mac::Requested::default(),
            args: mac::Metadata::default(),
        }
    }
}

impl Config {
    /// The configuration of a call, with everything that can be told wrong before anything is done.
    pub(crate) fn of(call: &Call) -> Result<Self, Failure> {
        let config = Self::load(call.config_text())?;
        config.mac(call)?;
        if call.verb() == sandwire_plugin::Verb::Add {
            config.check_for_add()?;
        }
        Ok(config)
    }

    /// The configuration of a network; errors have the reference's texts.
    pub(crate) fn load(text: &str) -> Result<Self, Failure> {
        let config: Self = sandwire_plugin::parse(text).or_fail("failed to load netconf")?;
        if !(0..=4094).contains(&config.vlan) {
            return Err(Failure::config(format!("invalid VLAN ID {} (must be between 0 and 4094)", config.vlan)));
        }
        config.trunk()?;
        Ok(config)
    }

    pub(crate) fn check_for_add(&self) -> Result<(), Failure> {
        if self.ipam.is_set() && self.disable_container_interface {
            return Err(Failure::config("cannot use IPAM when DisableContainerInterface flag is set"));
        }
        if self.hairpin_mode && self.promisc_mode {
            return Err(Failure::config("cannot set hairpin mode and promiscuous mode at the same time"));
        }
        match self.ip_masq_backend.as_deref() {
            Some(backend) if self.ip_masq && !["iptables", "nftables"].contains(&backend) => {
                Err(Failure::config(format!("unknown ipmasq backend {backend:?}")))
            }
            _ => Ok(()),
        }
    }

    /// Whether the bridge has the gateways' addresses; `isDefaultGateway` means it too.
    pub(crate) fn is_gateway(&self) -> bool {
        self.is_gateway || self.is_default_gateway
    }

    /// Bytes; `None` (0 in the configuration) is the kernel's default.
    pub(crate) fn mtu(&self) -> Option<u32> {
        // More than any link can have is the kernel's to refuse.
        (self.mtu > 0).then(|| u32::try_from(self.mtu).unwrap_or(u32::MAX))
    }

    /// 0 is none.
    pub(crate) fn vlan_id(&self) -> u16 {
        u16::try_from(self.vlan).unwrap_or_default()
    }

    /// The VLANs of `vlanTrunk`.
    pub(crate) fn trunk(&self) -> Result<Vlans, Failure> {
        crate::vlan::trunk(self.vlan_trunk.as_deref().unwrap_or_default())
    }

    /// Whether the bridge must tell VLANs apart.
    pub(crate) fn filters_vlans(&self) -> bool {
        self.vlan != 0 || self.vlan_trunk.is_some()
    }

    /// The MAC that the container's interface shall have; `None`: the kernel picks one.
    pub(crate) fn mac<'a>(&'a self, call: &'a Call) -> Result<Option<&'a str>, Failure> {
        let [argument] = call.args(["MAC"])?;
        Ok(mac::choose(&self.runtime_config, &self.args, argument))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, Failure> {
        Config::load(text)
    }

    #[test]
    fn nothing_said_is_the_references_defaults() {
        let config = load("{}").unwrap();
        assert_eq!(config.bridge, "cni0");
        assert_eq!(
            (config.mtu(), config.vlan_id(), config.is_gateway(), config.filters_vlans()),
            (None, 0, false, false)
        );
        assert!(!config.ipam.is_set());
    }

    #[test]
    fn keys_match_without_case_and_null_is_absent() {
        let config = load(r#"{"ISGATEWAY":true,"ipmasq":true,"Bridge":"br7","ipMasqBackend":null,"macSpoofChk":true}"#);
        let config = config.unwrap();
        assert!(config.is_gateway() && config.ip_masq && config.mac_spoof_check);
        assert_eq!(config.bridge, "br7");
        config.check_for_add().unwrap();
    }

    #[test]
    fn the_default_gateway_is_a_gateway() {
        assert!(load(r#"{"isDefaultGateway":true}"#).unwrap().is_gateway());
    }

    #[test]
    fn errors_have_the_references_texts() {
        for (text, wanted) in [
            (r#"{"vlan":4095}"#, "invalid VLAN ID 4095 (must be between 0 and 4094)"),
            (r#"{"vlan":-1}"#, "invalid VLAN ID -1 (must be between 0 and 4094)"),
            (r#"{"vlanTrunk":[{"id":0}]}"#, "incorrect trunk id parameter"),
        ] {
            assert_eq!(load(text).unwrap_err().msg, wanted, "{text}");
        }
        assert!(load(r#"{"mtu":"1500"}"#).unwrap_err().msg.starts_with("failed to load netconf: "));
        for (text, wanted) in [
            (
                r#"{"ipam":{"type":"host-local"},"disableContainerInterface":true}"#,
                "cannot use IPAM when DisableContainerInterface flag is set",
            ),
            (
                r#"{"hairpinMode":true,"promiscMode":true}"#,
                "cannot set hairpin mode and promiscuous mode at the same time",
            ),
            (r#"{"ipMasq":true,"ipMasqBackend":"ebpf"}"#, "unknown ipmasq backend \"ebpf\""),
        ] {
            assert_eq!(load(text).unwrap().check_for_add().unwrap_err().msg, wanted, "{text}");
        }
        load(r#"{"ipMasqBackend":"ebpf"}"#).unwrap().check_for_add().unwrap();
        load(r#"{"ipMasq":true,"ipMasqBackend":"iptables"}"#).unwrap().check_for_add().unwrap();
    }
}
