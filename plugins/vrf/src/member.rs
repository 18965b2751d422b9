//! Making an interface a member, with what the kernel takes from it then.

use sandwire_plugin::host::routes::Entry;
use sandwire_plugin::host::{self, addresses, links, routes};
use sandwire_plugin::{Address, Failure, HostError, HostRoute, Link, Netns, OrFail};

/// Makes `ifname` a member of the VRF of this name and table.
///
/// The kernel sets it down and up for that (`cycle_netdev`): routes by a gateway are lost, and global addresses of IPv6 unless
/// `keep_addr_on_down` is set.
pub(crate) fn add(container: &Netns, vrf: &Link, (name, table): (&str, u32), ifname: &str) -> Result<(), Failure> {
    let link = container.link(ifname).or_fail(["could not get link by name ", ifname].concat())?;
    if let Some(master) = link.info()?.master {
        return Err(Failure::internal(["interface ", ifname, " has already a master set: ", &master].concat()));
    }
    let before = global_addresses(&link).or_fail("failed getting global ipv6 addresses before slaving interface")?;
    let mut present =
        routes::get(container, Some(host::MAIN_TABLE)).or_fail(["failed getting all routes for ", ifname].concat())?;
    // Not those that the kernel makes again by itself.
    present.retain(|entry| {
        entry.link == ifname && entry.route.scope.unwrap_or(0) == 0 && !entry.route.dst.starts_with("fe80:")
    });

    links::set_master(&link, Some(vrf)).or_fail(format!("could not set vrf {name} as master of {ifname}"))?;

    let after = global_addresses(&link).or_fail("failed getting global ipv6 addresses after slaving interface")?;
    for address in before.into_iter().filter(|before| after.iter().all(|after| after.cidr != before.cidr)) {
        // It was found to be nobody else's before, if that was asked for; the reference waits here until it is asked again.
        let text = address.cidr.clone();
        addresses::add(&link, &address.no_dad())
            .or_fail(format!("could not restore address {text} to {ifname} @ {name}"))?;
    }
    // To replace one that the kernel has made again would take another member's: of IPv6 it compares destination and metric, not
    // the link (`fib6_add_rt2node`), and all have fe80::/64.
    let there = routes::get(container, Some(table)).or_fail(["failed getting all routes for ", name].concat())?;
    let is_there = |wanted: &Entry| {
        there.iter().any(|entry| {
            (&entry.link, &entry.route.dst, &entry.route.via) == (&wanted.link, &wanted.route.dst, &wanted.route.via)
        })
    };
    present.retain(|entry| !is_there(entry));
    for entry in present {
        let text = entry.route.dst.clone();
        let route = HostRoute { table: Some(table), ..entry.route };
        // One without a gateway the kernel makes by itself, if only in a moment; another member's it must not replace.
        let added = match route.via {
            Some(_) => routes::replace(&link, &route),
            None => match routes::append(&link, &route) {
                Err(HostError::Exists(_)) => Ok(()),
                added => added,
            },
        };
        added.or_fail(format!("could not add route '{text}'"))?;
    }
    Ok(())
}

fn global_addresses(link: &Link) -> Result<Vec<Address>, HostError> {
    let mut all = addresses::get(link)?;
    let scope =
        |address: &Address| address.extra.iter().find(|(key, _)| key == "scope").map(|(_, scope)| scope.clone());
    all.retain(|address| address.cidr.contains(':') && scope(address).is_none_or(|scope| scope == "0"));
    Ok(all)
}
