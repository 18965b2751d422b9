//! The keys of the portmap plugin.

use crate::conditions;
use sandwire_plugin::host::firewall::Protocol;
use sandwire_plugin::{Failure, OrFail};
use serde::Deserialize;
use std::net::IpAddr;

/// The network configuration. Defaults are the reference's.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", rename = "PortMapConf")]
struct Keys {
    backend: Option<String>,
    snat: Option<bool>,
    masq_all: bool,
    mark_masq_bit: Option<i64>,
    external_set_mark_chain: Option<String>,
    #[serde(rename = "conditionsV4")]
    conditions_v4: Option<Vec<String>>,
    #[serde(rename = "conditionsV6")]
    conditions_v6: Option<Vec<String>>,
    runtime_config: RuntimeConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RuntimeConfig {
    port_mappings: Option<Vec<Entry>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", rename = "PortMapEntry")]
struct Entry {
    host_port: i64,
    container_port: i64,
    protocol: String,
    #[serde(rename = "hostIP")]
    host_ip: String,
}

/// What is wanted.
#[derive(Debug)]
pub(crate) struct Config {
    /// Whether hairpin and loopback traffic is masqueraded.
    pub(crate) snat: bool,
    /// Whether everybody's is.
    pub(crate) masq_all: bool,
    conditions_v4: Vec<String>,
    conditions_v6: Vec<String>,
    mappings: Vec<Mapping>,
}

/// A port of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) host_port: u16,
    pub(crate) container_port: u16,
    pub(crate) protocol: Protocol,
    /// `None`: of every address.
    pub(crate) host_ip: Option<IpAddr>,
    /// The family that it is of, if of one only: an unspecified address stands for all of its family.
    is_ipv4: Option<bool>,
}

impl Mapping {
    fn of(entry: &Entry) -> Result<Self, Failure> {
        let port = |number: i64| u16::try_from(number).ok().filter(|port| *port > 0);
        let container_port = port(entry.container_port).ok_or_else(|| {
            Failure::config(["Invalid container port number: ", &entry.container_port.to_string()].concat())
        })?;
        let host_port = port(entry.host_port)
            .ok_or_else(|| Failure::config(["Invalid host port number: ", &entry.host_port.to_string()].concat()))?;
        let protocol = match entry.protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => {
                return Err(Failure::config(format!(
                    "unknown protocol {:?} of host port {host_port}: tcp, udp and sctp have ports",
                    entry.protocol
                )));
            }
        };
        let address = match entry.host_ip.as_str() {
            "" => None,
            text => Some(
                text.parse::<IpAddr>()
                    .map_err(|_| Failure::config(format!("hostIP {text:?} of host port {host_port} is no address")))?,
            ),
        };
        let address = address.map(|address| address.to_canonical());
        Ok(Self {
            host_port,
            container_port,
            protocol,
            host_ip: address.filter(|address| !address.is_unspecified()),
            is_ipv4: address.map(|address| address.is_ipv4()),
        })
    }

    /// Whether it is for containers' addresses of this family.
    pub(crate) fn is_of(&self, is_ipv4: bool) -> bool {
        self.is_ipv4.is_none_or(|own| own == is_ipv4)
    }

    /// Whether a packet may be meant by both.
    fn has_place_of(&self, other: &Self) -> bool {
        (self.host_port, self.protocol, self.host_ip) == (other.host_port, other.protocol, other.host_ip)
            && (self.is_ipv4.is_none() || other.is_ipv4.is_none() || self.is_ipv4 == other.is_ipv4)
    }
}

impl Config {
    /// The configuration of a network; errors have the reference's texts.
    pub(crate) fn load(text: &str) -> Result<Self, Failure> {
        let keys: Keys = sandwire_plugin::parse(text).or_fail("failed to parse network configuration")?;
        if keys.mark_masq_bit.is_some() && keys.external_set_mark_chain.is_some() {
            return Err(Failure::config("Cannot specify externalSetMarkChain and markMasqBit"));
        }
        if keys.mark_masq_bit.is_some_and(|bit| !(0..=31).contains(&bit)) {
            return Err(Failure::config("MasqMarkBit must be between 0 and 31"));
        }
        check_backend(&keys)?;
        let mut mappings: Vec<Mapping> = Vec::new();
        for entry in keys.runtime_config.port_mappings.iter().flatten() {
            let mapping = Mapping::of(entry)?;
            // The reference's rules are tried in order: the first one has it.
            if !mappings.iter().any(|other| other.has_place_of(&mapping)) {
                mappings.push(mapping);
            }
        }
        let config = Self {
            snat: keys.snat.unwrap_or(true),
            masq_all: keys.masq_all,
            conditions_v4: keys.conditions_v4.unwrap_or_default(),
            conditions_v6: keys.conditions_v6.unwrap_or_default(),
            mappings,
        };
        config.conditions(true)?;
        config.conditions(false)?;
        Ok(config)
    }

    /// The ports.
    pub(crate) fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// What the host has to look at beside the port.
    pub(crate) fn conditions(&self, is_ipv4: bool) -> Result<Vec<(String, String)>, Failure> {
        match is_ipv4 {
            true => conditions::read("conditionsV4", &self.conditions_v4, is_ipv4),
            false => conditions::read("conditionsV6", &self.conditions_v6, is_ipv4),
        }
    }
}

/// Both backends are this one; what the reference refuses is refused.
fn check_backend(keys: &Keys) -> Result<(), Failure> {
    const IPTABLES: &str = "iptables";
    const NFTABLES: &str = "nftables";
    let (mut of_iptables, mut of_nftables) = (Vec::new(), Vec::new());
    if keys.external_set_mark_chain.is_some() {
        of_iptables.push("externalSetMarkChain");
    }
    for (key, list) in [("conditionsV4", &keys.conditions_v4), ("conditionsV6", &keys.conditions_v6)] {
        match list.iter().flatten().next().and_then(|first| first.chars().next()) {
            None => {}
            Some('-' | '!') => of_iptables.push(key),
            Some(_) => of_nftables.push(key),
        }
    }
    // Without the key the reference takes what the node has.
    let default = if of_nftables.is_empty() { IPTABLES } else { NFTABLES };
    let backend = keys.backend.as_deref().unwrap_or(default);
    let (wrong, options) = if backend == IPTABLES { (NFTABLES, of_nftables) } else { (IPTABLES, of_iptables) };
    if !options.is_empty() {
        return Err(Failure::config(format!(
            "{backend} backend was requested but configuration contains {wrong}-specific options [{}]",
            options.join(" ")
        )));
    }
    if backend != IPTABLES && backend != NFTABLES {
        return Err(Failure::config(format!("unrecognized backend {backend:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(text: &str) -> String {
        Config::load(text).unwrap_err().msg
    }

    fn mappings(list: &str) -> Vec<Mapping> {
        Config::load(&format!(r#"{{"runtimeConfig":{{"portMappings":{list}}}}}"#)).unwrap().mappings
    }

    #[test]
    fn defaults_are_the_references() {
        let config = Config::load("{}").unwrap();
        assert!(config.snat && !config.masq_all && config.mappings.is_empty());
    }

    #[test]
    fn keys_match_as_in_go() {
        let list = mappings(r#"[{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":""}]"#);
        assert_eq!((list[0].host_port, list[0].container_port, list[0].host_ip), (8080, 80, None));
    }

    #[test]
    fn the_first_of_two_for_one_port_has_it() {
        let list = mappings(
            r#"[{"hostPort":80,"containerPort":1,"protocol":"tcp"},{"hostPort":80,"containerPort":2,"protocol":"TCP"},
                {"hostPort":80,"containerPort":3,"protocol":"udp"},{"hostPort":80,"containerPort":4,"protocol":"tcp","hostIP":"192.0.2.1"},
                {"hostPort":81,"containerPort":5,"protocol":"tcp","hostIP":"0.0.0.0"},{"hostPort":81,"containerPort":6,"protocol":"tcp","hostIP":"::"}]"#,
        );
        assert_eq!(list.iter().map(|m| m.container_port).collect::<Vec<_>>(), [1, 3, 4, 5, 6]);
        assert!(list[3].is_of(true) && !list[3].is_of(false) && list[3].host_ip.is_none());
    }

    #[test]
    fn options_of_the_wrong_backend() {
        assert_eq!(
            fails(
                r#"{"backend":"nftables","externalSetMarkChain":"KUBE-MARK-MASQ","conditionsV4":["-d","192.0.2.1"]}"#
            ),
            "nftables backend was requested but configuration contains iptables-specific options [externalSetMarkChain conditionsV4]"
        );
        assert_eq!(
            fails(r#"{"backend":"iptables","conditionsV6":["ip6","daddr","fd00::1"]}"#),
            "iptables backend was requested but configuration contains nftables-specific options [conditionsV6]"
        );
        assert_eq!(fails(r#"{"backend":"ipvs"}"#), "unrecognized backend \"ipvs\"");
        assert!(Config::load(r#"{"conditionsV4":["ip","daddr","192.0.2.1"]}"#).is_ok());
    }
}
