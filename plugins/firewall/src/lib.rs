//! Lets a container's traffic through what the node's firewall drops, and keeps other networks out: a plugin of a chain,
//! behind one that gave the container its addresses.
//!
//! Keys and messages: containernetworking/plugins, plugins/meta/firewall. Its backends, iptables and firewalld, are both
//! this: nftables in tables of Sandwire's, and one rule in the chain of either that would drop what is let through.

mod config;

use config::{Config, IngressPolicy};
use sandwire_plugin::host::{self, firewall};
use sandwire_plugin::{Call, Check, CniResult, Failure, Link, Netns, NetworkCall, OrFail, Plugin, Status};

/// Under which the rules of an attachment stand.
const LABEL: &str = "forward";

struct Firewall;

sandwire_plugin::export!(Firewall: check, status);

impl Plugin for Firewall {
    fn add(call: &Call) -> Result<CniResult, Failure> {
        let config = Config::load(call.config_text())?;
        let result = prev_result(call)?;
        rules(&host::netns(), &config, &result)?.commit().or_fail("failed to let the container's traffic through")?;
        Ok(result)
    }

    /// Whatever the configuration says by now.
    fn del(_: &Call) -> Result<(), Failure> {
        firewall::clear(&host::netns()).or_fail("failed to remove the firewall rules")
    }
}

impl Check for Firewall {
    fn check(call: &Call) -> Result<(), Failure> {
        let config = Config::load(call.config_text())?;
        let result = prev_result(call)?;
        let rules = rules(&host::netns(), &config, &result)?;
        let missing = rules.verify().or_fail("could not look at the firewall rules")?;
        if missing.is_empty() {
            return Ok(());
        }
        Err(Failure::internal(["firewall rules are missing: ", &missing.join("; ")].concat()))
    }
}

impl Status for Firewall {
    fn status(call: &NetworkCall) -> Result<(), Failure> {
        Config::load(call.config_text()).map(drop)
    }
}

fn prev_result(call: &Call) -> Result<CniResult, Failure> {
    call.prev_result()?.ok_or_else(|| Failure::config("missing prevResult from earlier plugin"))
}

fn rules(node: &Netns, config: &Config, result: &CniResult) -> Result<firewall::Ruleset, Failure> {
    let bridge = bridge(node, config, result)?;
    let ingress = match config.ingress_policy {
        IngressPolicy::Open => firewall::Ingress::Open,
        IngressPolicy::SameBridge => firewall::Ingress::SameBridge,
        IngressPolicy::Isolated => firewall::Ingress::Isolated,
    };
    let rules = firewall::open(node, LABEL).or_fail("failed to let the container's traffic through")?;
    for ip in &result.ips {
        rules.forward(&ip.address.addr().to_string(), ingress, bridge.as_ref());
    }
    Ok(rules)
}

/// The bridge that limits who may start traffic: the first interface of the result.
fn bridge(node: &Netns, config: &Config, result: &CniResult) -> Result<Option<Link>, Failure> {
    if config.ingress_policy == IngressPolicy::Open {
        return Ok(None);
    }
    let Some(interface) = result.interfaces.first() else {
        return Err(Failure::config(format!(
            "interface needs to be set for ingress policy {:?}, make sure to chain \"firewall\" plugin with \"bridge\"",
            config.ingress_policy.name()
        )));
    };
    if interface.name.is_empty() {
        return Err(Failure::config("got empty bridge name"));
    }
    let context = ["ingress policy \"", config.ingress_policy.name(), "\""].concat();
    node.link(&interface.name).or_fail(context).map(Some)
}
