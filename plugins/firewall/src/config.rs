//! The keys of the firewall plugin.

use sandwire_plugin::{Failure, OrFail};
use serde::Deserialize;

/// The reference's default, and the only chain of an administrator that is looked for.
const ADMIN_CHAIN: &str = "CNI-ADMIN";
/// The zone of firewalld that accepts everything.
const ZONE: &str = "trusted";

/// The network configuration. Defaults are the reference's.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", rename = "FirewallNetConf")]
struct Keys {
    backend: String,
    iptables_admin_chain_name: String,
    firewalld_zone: String,
    ingress_policy: String,
}

/// What is wanted.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) ingress_policy: IngressPolicy,
}

/// Who may start traffic to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IngressPolicy {
    Open,
    SameBridge,
    Isolated,
}

impl IngressPolicy {
    /// As the configuration has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::SameBridge => "same-bridge",
            Self::Isolated => "isolated",
        }
    }
}

impl Config {
    /// The configuration of a network; errors have the reference's texts.
    pub(crate) fn load(text: &str) -> Result<Self, Failure> {
        let keys: Keys = sandwire_plugin::parse(text).or_fail("failed to load netconf")?;
        let ingress_policy = match keys.ingress_policy.as_str() {
            "" | "open" => IngressPolicy::Open,
            "same-bridge" => IngressPolicy::SameBridge,
            "isolated" => IngressPolicy::Isolated,
            other => return Err(Failure::config(format!("unknown ingress policy: {other:?}"))),
        };
        // What an administrator has in that chain drops what plugins would let through: better no container than one
        // past it. With firewalld the reference makes no use of it.
        let admin = keys.iptables_admin_chain_name.as_str();
        if keys.backend != "firewalld" && !["", ADMIN_CHAIN].contains(&admin) {
            return Err(Failure::config(format!(
                "iptablesAdminChainName {admin:?} can't be used: only the rules of chain {ADMIN_CHAIN} go before what is \
                 let through here; jump there from it, and leave the key out"
            )));
        }
        // Another zone would let less through than is let through here; without firewalld there are no zones.
        let zone = keys.firewalld_zone.as_str();
        if keys.backend == "firewalld" && !["", ZONE].contains(&zone) {
            return Err(Failure::config(format!(
                "firewalldZone {zone:?} can't be used: containers' traffic is let through as that of zone {ZONE:?}; leave \
                 the key out, and limit it by firewalld's policies or in chain {ADMIN_CHAIN}"
            )));
        }
        Ok(Self { ingress_policy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(rest: &str) -> Result<IngressPolicy, String> {
        let config = Config::load(&format!(r#"{{"cniVersion":"1.0.0"{rest}}}"#));
        config.map(|config| config.ingress_policy).map_err(|failure| failure.msg)
    }

    #[test]
    fn every_backend_is_this_one() {
        for backend in ["", "iptables", "firewalld", "nftables"] {
            assert_eq!(load(&format!(r#","backend":"{backend}""#)), Ok(IngressPolicy::Open));
        }
    }

    #[test]
    fn policies() {
        assert_eq!(load(r#","ingressPolicy":"open""#), Ok(IngressPolicy::Open));
        assert_eq!(load(r#","IngressPolicy":"same-bridge""#), Ok(IngressPolicy::SameBridge));
        assert_eq!(load(r#","ingressPolicy":"isolated""#), Ok(IngressPolicy::Isolated));
        assert_eq!(load(r#","ingressPolicy":"closed""#), Err("unknown ingress policy: \"closed\"".into()));
    }

    #[test]
    fn what_would_let_more_through_is_refused() {
        assert!(load(r#","iptablesAdminChainName":"MINE""#).is_err());
        assert!(load(r#","iptablesAdminChainName":"MINE","backend":"firewalld""#).is_ok());
        assert!(load(r#","firewalldZone":"internal""#).is_ok());
        assert!(load(r#","firewalldZone":"internal","backend":"firewalld""#).is_err());
    }
}
