//! Ports of the node that lead to a container: a plugin of a chain, behind one that gave the container its addresses.
//!
//! Keys and messages: containernetworking/plugins, plugins/meta/portmap. Its backends, iptables and nftables, are both this:
//! elements of nftables maps in tables of Sandwire's.

mod conditions;
mod config;

use config::{Config, Mapping};
use sandwire_plugin::host::{self, conntrack, firewall, routes, shared};
use sandwire_plugin::{Call, Check, CniResult, Failure, IpNet, Netns, NetworkCall, OrFail, Plugin, Status, log};
use std::net::IpAddr;

/// Under which the rules of an attachment stand.
const LABEL: &str = "ports";

struct Portmap;

sandwire_plugin::export!(Portmap: check, status);

impl Plugin for Portmap {
    fn add(call: &Call) -> Result<CniResult, Failure> {
        const CONTEXT: &str = "failed to parse config";
        let config = Config::load(call.config_text()).or_fail(CONTEXT)?;
        let Some(result) = call.prev_result().or_fail(CONTEXT)? else {
            return Err(Failure::config("must be called as chained plugin"));
        };
        if config.mappings().is_empty() {
            return Ok(result);
        }
        let node = host::netns();
        let addresses = addresses(&result, call.ifname());
        let rules = rules(&node, &config, &addresses)?;
        rules.commit().or_fail("unable to set up the rules for port mappings")?;
        forget_connections(&node, &config);
        if config.snat {
            for address in addresses.iter().map(IpNet::addr).filter(IpAddr::is_ipv4) {
                route_loopback(&node, address)?;
            }
        }
        Ok(result)
    }

    /// Whatever the configuration says by now: the mappings may be gone from it, or it may be broken.
    fn del(_: &Call) -> Result<(), Failure> {
        firewall::clear(&host::netns()).or_fail("failed to remove the rules for port mappings")
    }
}

impl Check for Portmap {
    fn check(call: &Call) -> Result<(), Failure> {
        let config = Config::load(call.config_text())?;
        let result = call.require_prev_result()?;
        if config.mappings().is_empty() {
            return Ok(());
        }
        let rules = rules(&host::netns(), &config, &addresses(&result, call.ifname()))?;
        let missing = rules.verify().or_fail("could not look at the rules for port mappings")?;
        if missing.is_empty() {
            return Ok(());
        }
        Err(Failure::internal(["missing hostport rules: ", &missing.join("; ")].concat()))
    }
}

impl Status for Portmap {
    fn status(call: &NetworkCall) -> Result<(), Failure> {
        Config::load(call.config_text()).map(drop)
    }
}

/// The first address of each family that is the container's: of its interface, or of none that the result names.
fn addresses(result: &CniResult, ifname: &str) -> Vec<IpNet> {
    let mut found: Vec<IpNet> = Vec::new();
    for ip in &result.ips {
        let interface = ip.interface.and_then(|index| result.interfaces.get(index as usize));
        let is_elsewhere =
            interface.is_some_and(|i| i.name != ifname || i.sandbox.as_deref().unwrap_or_default().is_empty());
        let is_ipv4 = |net: &IpNet| net.addr().is_ipv4();
        if !is_elsewhere && !found.iter().any(|other| is_ipv4(other) == is_ipv4(&ip.address)) {
            found.push(ip.address);
        }
    }
    found
}

fn rules(node: &Netns, config: &Config, addresses: &[IpNet]) -> Result<firewall::Ruleset, Failure> {
    let rules = firewall::open(node, LABEL).or_fail("unable to set up the rules for port mappings")?;
    for address in addresses {
        let is_ipv4 = address.addr().is_ipv4();
        let mut extra = config.conditions(is_ipv4)?;
        let mut put = |key: &str, value: String| extra.push((key.to_owned(), value));
        match config.masq_all {
            true => put("masquerade-all", "true".into()),
            // The neighbours of a container reach the node's port by the network that its answers would go straight into.
            false => put("masquerade-from", address.trunc().to_string()),
        }
        for mapping in config.mappings().iter().filter(|mapping| mapping.is_of(is_ipv4)) {
            rules.forward_port(&forward(mapping, address.addr(), config.snat, &extra));
        }
    }
    Ok(rules)
}

fn forward(mapping: &Mapping, to: IpAddr, masquerade: bool, extra: &[(String, String)]) -> firewall::PortForward {
    firewall::PortForward {
        protocol: mapping.protocol,
        host_ip: mapping.host_ip.map(|ip| ip.to_string()),
        host_port: mapping.host_port,
        to: to.to_string(),
        to_port: mapping.container_port,
        masquerade,
        extra: extra.to_vec(),
    }
}

/// UDP that was sent to the port before goes on to where it went: a client that never pauses would not notice the rules.
fn forget_connections(node: &Netns, config: &Config) {
    for mapping in config.mappings().iter().filter(|mapping| mapping.protocol == firewall::Protocol::Udp) {
        if let Err(error) = conntrack::flush(node, mapping.protocol, None, mapping.host_port) {
            // As in the reference, no reason to fail: the rules are in force.
            log!(Warn, "failed to delete stale UDP conntrack entries of port {}: {error:?}", mapping.host_port);
        }
    }
}

/// The kernel takes packets from and to 127.0.0.1 for martians on every link but `lo`.
fn route_loopback(node: &Netns, address: IpAddr) -> Result<(), Failure> {
    let Ok(route) = routes::lookup(node, &address.to_string()) else { return Ok(()) };
    shared::ensure_sysctl(node, &["ipv4/conf/", &route.link, "/route_localnet"].concat(), "1")
        .or_fail("unable to enable route_localnet")
}
