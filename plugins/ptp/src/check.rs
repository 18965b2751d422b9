//! CHECK: both ends are there and belong together, with their addresses, routes and rules.

use crate::Ptp;
use crate::config::Config;
use crate::hops::{self, Hop};
use sandwire_plugin::host::{self, addresses, routes};
use sandwire_plugin::{
    Call, Check, CniResult, Failure, HostError, Interface, Link, LinkInfo, Netns, OrFail, masquerade, verify,
};

impl Check for Ptp {
    fn check(call: &Call) -> Result<(), Failure> {
        let config = Config::complete(call.config_text())?;
        config.ipam.check(call)?;
        let result = call.prev_result()?.ok_or_else(|| Failure::config("ptp: Required prevResult missing"))?;
        let (node, container) = (host::netns(), host::require_container()?);

        let (place, expected) = find(&result, call);
        let sandbox = expected.sandbox.as_deref().unwrap_or_default();
        if sandbox != call.sandbox() {
            return Err(Failure::internal(format!(
                "Sandbox in prevResult {sandbox} doesn't match configured netns: {}",
                call.sandbox()
            )));
        }
        let inside = container_interface(&container, &expected)?;
        // Addresses of other interfaces are other plugins' of the chain. An old result does not say whose they are.
        let mut own = result.clone();
        own.ips.retain(|ip| ip.interface.is_none_or(|of| of == place));
        verify::addresses(&container, &inside, call.ifname(), &own.ips)?;
        verify::routes(&container, &own.routes)?;

        let hops = hops::of(&own)?;
        hops_inside(&container, call.ifname(), &hops)?;
        let outside = host_interface(&result, &expected, &inside)?;
        hops_outside(&node, &outside, &hops)?;
        if config.ip_masq { masquerade::check(&node, &own.ips) } else { Ok(()) }
    }
}

/// The container's interface in the result, and its place; an empty one when it is not there.
fn find(result: &CniResult, call: &Call) -> (u32, Interface) {
    let is_it = |i: &Interface| i.name == call.ifname() && i.sandbox.as_deref() == Some(call.sandbox());
    let last = (0..).zip(&result.interfaces).filter(|(_, interface)| is_it(interface)).last();
    last.map_or_else(Default::default, |(place, interface)| (place, interface.clone()))
}

fn container_interface(container: &Netns, expected: &Interface) -> Result<Link, Failure> {
    let name = expected.name.as_str();
    let missing = || Failure::internal(["ptp: Container Interface name in prevResult: ", name, " not found"].concat());
    let link = container.link(name).map_err(|_| missing())?;
    let info = link.info().map_err(|_| missing())?;
    if info.kind != "veth" {
        return Err(Failure::internal(["Error: Container interface ", name, " not of type veth/p2p"].concat()));
    }
    if !verify::mac_matches(expected, &info) {
        let mac = expected.mac.as_deref().unwrap_or_default();
        return Err(Failure::internal(
            ["ptp: Interface ", name, " Mac ", mac, " doesn't match container Mac: ", &info.mac].concat(),
        ));
    }
    Ok(link)
}

/// The other end of the container's interface: it must be the one of the result.
fn host_interface(result: &CniResult, expected: &Interface, inside: &Link) -> Result<(Link, LinkInfo), Failure> {
    let context = || ["ptp: the host's end of interface ", &expected.name].concat();
    let link = inside.peer().or_fail(context())?;
    let info = link.info().or_fail(context())?;
    let mut listed = result.interfaces.iter().filter(|i| i.sandbox.is_none());
    let Some(listed) = listed.find(|interface| interface.name == info.name) else {
        return Err(Failure::internal([&context(), " is ", &info.name, ", which prevResult does not have"].concat()));
    };
    if !verify::mac_matches(listed, &info) {
        let mac = listed.mac.as_deref().unwrap_or_default();
        return Err(Failure::internal(
            ["ptp: Interface ", &info.name, " Mac ", mac, " doesn't match host Mac: ", &info.mac].concat(),
        ));
    }
    Ok((link, info))
}

/// The routes by which everything goes through the gateway.
fn hops_inside(container: &Netns, ifname: &str, hops: &[Hop]) -> Result<(), Failure> {
    let present = routes::get(container, Some(host::MAIN_TABLE)).or_fail("could not list the routes")?;
    for hop in hops {
        let (gateway, alone) = (hop.gateway.to_string(), hops::single(hop.gateway));
        if !present.iter().any(|entry| entry.route.dst == alone && entry.link == ifname) {
            return Err(Failure::internal(["ptp: no route to gateway ", &gateway, " by interface ", ifname].concat()));
        }
        let Some(network) = hop.network().map(|network| network.to_string()) else { continue };
        let is_it = |entry: &routes::Entry| entry.route.dst == network && entry.route.via.as_ref() == Some(&gateway);
        if !present.iter().any(is_it) {
            return Err(Failure::internal(["ptp: no route to ", &network, " by gateway ", &gateway].concat()));
        }
    }
    Ok(())
}

/// The gateways on the host's end, and the host's routes to the container.
fn hops_outside(node: &Netns, (link, info): &(Link, LinkInfo), hops: &[Hop]) -> Result<(), Failure> {
    let present = addresses::get(link).or_fail("Cannot obtain List of IP Addresses")?;
    for hop in hops {
        let gateway = hops::single(hop.gateway);
        if !present.iter().any(|address| address.cidr == gateway) {
            return Err(Failure::internal(
                ["ptp: Interface ", &info.name, " has no gateway address ", &gateway].concat(),
            ));
        }
        // By a question for one route: a node has one for each container.
        let address = hop.address.addr().to_string();
        let by = match routes::lookup(node, &address) {
            Ok(entry) => entry.link,
            Err(HostError::NotFound(_)) => "none".to_owned(),
            Err(error) => return Err(error).or_fail("could not look up a route of the host"),
        };
        if by != info.name {
            return Err(Failure::internal(
                ["ptp: the host's route to ", &address, " is not by interface ", &info.name, " but by ", &by].concat(),
            ));
        }
    }
    Ok(())
}
