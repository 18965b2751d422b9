//! CHECK: bridge, port and container interface are there and belong together, with addresses and routes.

use crate::Bridge;
use crate::config::Config;
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
        port(&node, &result, &config, &inside, &link)?;
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
fn port(node: &Netns, result: &CniResult, config: &Config, inside: &Interface, link: &Link) -> Result<(), Failure> {
    let peer = link
        .peer()
        .and_then(|peer| peer.info())
        .or_fail(["Unable to obtain veth peer index for veth ", &inside.name].concat())?;
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
            return Ok(());
        }
        return Err(Failure::internal(
            ["Interface ", &expected.name, " Mac doesn't match: ", mac(expected), " not found"].concat(),
        ));
    }
    Err(missing.unwrap_or_else(|| {
        Failure::internal(["CNI veth created for bridge ", &config.bridge, " was not found"].concat())
    }))
}
