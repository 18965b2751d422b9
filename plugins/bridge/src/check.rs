//! CHECK: bridge, port and container interface are there and belong together, with addresses, routes, gateways and rules.

use crate::config::Config;
use crate::vlan;
use crate::{Bridge, gateway};
use sandwire_plugin::host::bridging::{self, Vlan};
use sandwire_plugin::verify::{self, Place};
use sandwire_plugin::{
    Call, Check, CniResult, Failure, Interface, Link, Netns, OrFail, host, host::firewall, masquerade,
};

impl Check for Bridge {
    fn check(call: &Call) -> Result<(), Failure> {
        let config = Config::of(call)?;
        config.ipam.check(call)?;
        let mut result = call.require_prev_result()?;
        let (node, container) = (host::netns(), host::require_container()?);

        let (place, inside) = find(&result, |i| {
            i.name == call.ifname() && i.sandbox.as_deref() == Some(call.sandbox()) && i.name != config.bridge
        });
        // Addresses of other interfaces are other plugins' of the chain. An old result does not say whose they are.
        result.ips.retain(|ip| ip.interface.is_none_or(|of| of == place));
        let link = bridge(&node, &find(&result, |i| i.name == config.bridge).1, &config, &result)?;
        if serves_itself(&config) {
            gateways(&link, &config, &result)?;
        }
        let sandbox = inside.sandbox.as_deref().unwrap_or_default();
        if sandbox != call.sandbox() {
            return Err(Failure::internal(format!(
                "Sandbox in prevResult {sandbox} doesn't match configured netns: {}",
                call.sandbox()
            )));
        }
        let link = container_interface(&container, &inside)?;
        let port = port(&node, &result, &config, &inside, &link)?;
        if config.filters_vlans() {
            vlans(&config, &port)?;
            vlan_gateway(&node, &result, &config)?;
        }
        verify::addresses(&container, &link, call.ifname(), &result.ips)?;
        verify::routes(&container, &result.routes)?;
        if config.mac_spoof_check {
            spoof_check(&node, &port, &link)?;
        }
        if config.ip_masq { masquerade::check(&node, &result.ips) } else { Ok(()) }
    }
}

fn spoof_check(node: &Netns, port: &Link, inside: &Link) -> Result<(), Failure> {
    const CONTEXT: &str = "could not look at the rules of the MAC spoof check";
    let rules = firewall::open(node, "spoof-check").or_fail(CONTEXT)?;
    rules.spoof_check(port, &inside.info().or_fail(CONTEXT)?.mac);
    let missing = rules.verify().or_fail(CONTEXT)?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::internal(["rules of the MAC spoof check are missing: ", &missing.join("; ")].concat()))
}

/// The last interface that fits, and its place; without one an empty one, whose missing name is then the error.
fn find(result: &CniResult, fits: impl Fn(&Interface) -> bool) -> (u32, Interface) {
    let last = (0..).zip(&result.interfaces).filter(|(_, interface)| fits(interface)).last();
    last.map_or_else(Default::default, |(place, interface)| (place, interface.clone()))
}

/// Whether the gateways are on the bridge; those of a VLAN are on a port of it.
fn serves_itself(config: &Config) -> bool {
    config.is_gateway() && config.ipam.is_set() && config.vlan_id() == 0
}

fn gateways(bridge: &Link, config: &Config, result: &CniResult) -> Result<(), Failure> {
    let present = host::addresses::get(bridge).or_fail("Cannot obtain List of IP Addresses")?;
    for gateway in gateway::of(result) {
        let wanted = gateway.address.to_string();
        // With forceAddress whoever comes last has the bridge's only address of the family: another range of this pod, or another
        // network's pod.
        let is_it = |cidr: &str| match config.force_address {
            true => cidr.contains(':') == gateway.address.addr().is_ipv6() && !cidr.starts_with("fe80:"),
            false => cidr == wanted,
        };
        if !present.iter().any(|address| is_it(&address.cidr)) {
            return Err(Failure::internal(
                ["Bridge interface ", &config.bridge, " has no gateway address ", &wanted].concat(),
            ));
        }
    }
    Ok(())
}

fn mac(interface: &Interface) -> &str {
    interface.mac.as_deref().unwrap_or_default()
}

fn bridge(node: &Netns, expected: &Interface, config: &Config, result: &CniResult) -> Result<Link, Failure> {
    let (link, info) = verify::interface(node, expected, Place::Host)?;
    if info.kind != "bridge" {
        return Err(Failure::internal(["Interface ", &expected.name, " does not have link type of bridge"].concat()));
    }
    // A gateway's address pins the MAC. Without one a bridge has the lowest of its ports', which come and go
    // (net/bridge/br_stp_if.c, br_stp_recalculate_bridge_id).
    let pinned = serves_itself(config) && gateway::of(result).next().is_some();
    if pinned && !verify::mac_matches(expected, &info) {
        return Err(Failure::internal(
            ["Bridge interface ", &expected.name, " Mac doesn't match: ", mac(expected)].concat(),
        ));
    }
    // Only if it is asked for: another network on the same bridge may have asked.
    if config.promisc_mode && info.fact("promisc") != Some("true") {
        return Err(Failure::internal(format!(
            "Bridge interface {} configured Promisc Mode true doesn't match current state: false",
            expected.name
        )));
    }
    if config.filters_vlans() && info.fact("bridge.vlan-filtering") != Some("true") {
        return Err(Failure::internal(["Bridge interface ", &expected.name, " does not filter VLANs"].concat()));
    }
    Ok(link)
}

fn container_interface(container: &Netns, expected: &Interface) -> Result<Link, Failure> {
    let (link, info) = verify::interface(container, expected, Place::Container)?;
    if info.kind != "veth" {
        return Err(Failure::internal(["Error: Container interface ", &info.name, " not of type veth"].concat()));
    }
    if !verify::mac_matches(expected, &info) {
        return Err(Failure::internal(
            ["Interface ", &expected.name, " Mac ", mac(expected), " doesn't match container Mac: ", &info.mac]
                .concat(),
        ));
    }
    Ok(link)
}

/// The one interface of the result that is the other end of the container's and a port of the bridge. Others are
/// somebody else's in the chain and may be anything.
fn port(node: &Netns, result: &CniResult, config: &Config, inside: &Interface, link: &Link) -> Result<Link, Failure> {
    let context = || ["Unable to obtain veth peer index for veth ", &inside.name].concat();
    let other_end = link.peer().or_fail(context())?;
    let peer = other_end.info().or_fail(context())?;
    let mut missing = None;
    for expected in &result.interfaces {
        if expected.name == config.bridge || expected.name == inside.name {
            continue;
        }
        let info = match verify::interface(node, expected, Place::Host) {
            Ok((_, info)) => info,
            Err(failure) => {
                missing.get_or_insert(failure);
                continue;
            }
        };
        if info.kind != "veth" || info.name != peer.name || info.master.as_deref() != Some(config.bridge.as_str()) {
            continue;
        }
        if verify::mac_matches(expected, &info) {
            return Ok(other_end);
        }
        return Err(Failure::internal(
            ["Interface ", &expected.name, " Mac doesn't match: ", mac(expected), " not found"].concat(),
        ));
    }
    Err(missing.unwrap_or_else(|| {
        Failure::internal(["CNI veth created for bridge ", &config.bridge, " was not found"].concat())
    }))
}

/// The VLANs of the container's port: what `vlan` and `vlanTrunk` say, and no other unless the default one was to stay.
fn vlans(config: &Config, port: &Link) -> Result<(), Failure> {
    match vlan::of_port(&[], config.vlan_id(), &config.trunk()?) {
        Some(wanted) => has_vlans(port, &wanted, !config.preserve_default_vlan),
        None => Ok(()),
    }
}

/// The gateway of the VLAN, if this ADD needed one. Its port may have more VLANs: the reference leaves it the bridge's
/// default one, and either uses what the other made.
fn vlan_gateway(node: &Netns, result: &CniResult, config: &Config) -> Result<(), Failure> {
    let name = [config.bridge.as_str(), ".", &config.vlan_id().to_string()].concat();
    let Some(expected) = result.interfaces.iter().find(|interface| interface.name == name) else { return Ok(()) };
    let (link, info) = verify::interface(node, expected, Place::Host)?;
    if !verify::mac_matches(expected, &info) {
        return Err(Failure::internal(
            ["Interface ", &name, " Mac doesn't match: ", mac(expected), " not found"].concat(),
        ));
    }
    let context = || ["Unable to obtain veth peer index for veth ", &name].concat();
    let port = link.peer().or_fail(context())?;
    if port.info().or_fail(context())?.master.as_deref() != Some(config.bridge.as_str()) {
        return Err(Failure::internal(["Interface ", &name, " is not connected to bridge ", &config.bridge].concat()));
    }
    has_vlans(&port, &[vlan::access(config.vlan_id())], false)
}

fn has_vlans(port: &Link, wanted: &[Vlan], exactly: bool) -> Result<(), Failure> {
    let name = port.info()?.name;
    let present = bridging::get_vlans(port).or_fail(["could not list the VLANs of port ", &name].concat())?;
    match vlan::difference(&present, wanted, exactly) {
        None => Ok(()),
        Some(difference) => Err(Failure::internal(format!(
            "VLAN {} of port {name} doesn't match: configured {}, current state {}",
            difference.id, difference.wanted, difference.present
        ))),
    }
}
