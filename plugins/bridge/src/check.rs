//! CHECK: bridge, port and container interface are there and belong together, with addresses and routes.

use crate::Bridge;
use crate::config::Config;
use crate::vlan;
use sandwire_plugin::host::bridging::{self, Vlan};
use sandwire_plugin::verify::{self, Place};
use sandwire_plugin::{Call, Check, CniResult, Failure, Interface, Link, Netns, OrFail, host};

impl Check for Bridge {
    fn check(call: &Call) -> Result<(), Failure> {
        let config = Config::of(call)?;
        config.ipam.check(call)?;
        let result = call.require_prev_result()?;
        let (node, container) = (host::netns(), host::require_container()?);

        let inside = find(&result, |i| {
            i.name == call.ifname() && i.sandbox.as_deref() == Some(call.sandbox()) && i.name != config.bridge
        });
        bridge(&node, &find(&result, |i| i.name == config.bridge), &config)?;
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
        verify::routes(&container, &result.routes)
    }
}

/// The last interface that fits; without one an empty one, whose missing name is then the error.
fn find(result: &CniResult, fits: impl Fn(&Interface) -> bool) -> Interface {
    result.interfaces.iter().rev().find(|interface| fits(interface)).cloned().unwrap_or_default()
}

fn mac(interface: &Interface) -> &str {
    interface.mac.as_deref().unwrap_or_default()
}

fn bridge(node: &Netns, expected: &Interface, config: &Config) -> Result<(), Failure> {
    let (_, info) = verify::interface(node, expected, Place::Host)?;
    if info.kind != "bridge" {
        return Err(Failure::internal(["Interface ", &expected.name, " does not have link type of bridge"].concat()));
    }
    if !verify::mac_matches(expected, &info) {
        return Err(Failure::internal(
            ["Bridge interface ", &expected.name, " Mac doesn't match: ", mac(expected)].concat(),
        ));
    }
    let promisc = info.fact("promisc") == Some("true");
    if promisc != config.promisc_mode {
        return Err(Failure::internal(format!(
            "Bridge interface {} configured Promisc Mode {} doesn't match current state: {promisc}",
            expected.name, config.promisc_mode
        )));
    }
    if config.filters_vlans() && info.fact("bridge.vlan-filtering") != Some("true") {
        return Err(Failure::internal(["Bridge interface ", &expected.name, " does not filter VLANs"].concat()));
    }
    Ok(())
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
    let port = link.peer().or_fail(context())?;
    let peer = port.info().or_fail(context())?;
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
            return Ok(port);
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
