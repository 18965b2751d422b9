//! The routes of the interface, in a table for each of its addresses.

use crate::config::Config;
use crate::{from, single};
use sandwire_plugin::host::{
    self,
    routes::{self, Entry},
};
use sandwire_plugin::{Failure, HostRoute, IpConfig, Link, Netns, OrFail, log};
use std::net::IpAddr;

/// The first table that may be ours.
const FIRST: u32 = 100;
/// `RT_SCOPE_LINK`.
const LINK: u8 = 253;

/// Gives each address a table, a rule that leads there and the routes of the interface, and takes these from the main table.
pub(crate) fn divert(netns: &Netns, ifname: &str, ips: &[&IpConfig], config: &Config) -> Result<(), Failure> {
    // Before anything is changed: the namespace is locked until the end of the call.
    let mut table = routes::reserve_table(netns, FIRST).or_fail("Failed to list all rules")?;
    let link = netns.link(ifname).or_fail(["Cannot find network interface ", ifname].concat())?;
    let mut present = routes::get(netns, Some(host::MAIN_TABLE)).or_fail("Unable to list routes")?;
    present.retain(|entry| entry.link == ifname);
    let gateways = config.gateways()?;

    for (place, ip) in ips.iter().enumerate() {
        if place > 0 {
            // Tables of different addresses are different.
            table = routes::reserve_table(netns, table.saturating_add(1)).or_fail("Failed to list all rules")?;
        }
        routes::add_rule(netns, &from(&single(ip), table)).or_fail("Failed to add rule")?;
        let (named, everything) = match ip.address.addr() {
            IpAddr::V4(_) => (gateways.v4, "0.0.0.0/0"),
            IpAddr::V6(_) => (gateways.v6, "::/0"),
        };
        // An earlier plugin may have taken the default route away.
        if let Some(gateway) = named.or(ip.gateway) {
            let default = HostRoute { table: Some(table), ..HostRoute::new(everything).via(gateway.to_string()) };
            routes::add(&link, &default).or_fail(format!("Failed to add default route to {gateway}"))?;
        }
        for entry in present.iter().filter(|entry| concerns(ip, &entry.route)) {
            let copy = HostRoute { table: Some(table), ..entry.route.clone() };
            routes::replace(&link, &copy).or_fail("Failed to readd route")?;
        }
    }
    match config.add_source_hints {
        true => hint(&link, ips, &present),
        // Only now: addresses of one subnet need them for their gateways. Those by a gateway first, for who gives them back
        // begins at the other end, and a gateway has to be reached.
        false => {
            let (by_gateway, direct): (Vec<_>, Vec<_>) = present.iter().partition(|entry| entry.route.via.is_some());
            for entry in by_gateway.into_iter().chain(direct) {
                routes::remove(&link, &entry.route).or_fail("Failed to delete route")?;
            }
        }
    }
    Ok(())
}

/// Whether a route is to be copied for an address: it speaks of its network, or of no address at all.
fn concerns(ip: &IpConfig, route: &HostRoute) -> bool {
    let within = |text: &Option<String>| {
        text.as_deref()
            .and_then(|text| text.parse::<IpAddr>().ok())
            .is_some_and(|address| ip.address.contains(&address))
    };
    within(&route.src) || within(&route.via) || (route.src.is_none() && route.via.is_none())
}

/// Leaves the subnets in the main table, by the address that they are reached from: for what names no source. The reference
/// goes on past what fails.
fn hint(link: &Link, ips: &[&IpConfig], present: &[Entry]) {
    for ip in ips {
        let subnet = HostRoute {
            src: Some(ip.address.addr().to_string()),
            table: Some(host::MAIN_TABLE),
            scope: Some(LINK),
            ..HostRoute::new(ip.address.trunc().to_string())
        };
        if let Err(error) = routes::replace(link, &subnet) {
            log!(Warn, "could not add the route to {} to the main table: {error}", ip.address.trunc());
        }
    }
    for entry in present.iter().filter(|entry| entry.route.scope != Some(LINK)) {
        if let Err(error) = routes::remove(link, &entry.route) {
            log!(Warn, "could not remove the route to {} from the main table: {error}", entry.route.dst);
        }
    }
}
