//! Making an interface a member, with what the kernel takes from it then.

use sandwire_plugin::host::{addresses, links, routes};
use sandwire_plugin::{Address, Failure, HostRoute, Link, Netns, OrFail};

/// `RT_TABLE_MAIN`, linux/rtnetlink.h.
const MAIN: u32 = 254;

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
        routes::get(container, Some(MAIN)).or_fail(["failed getting all routes for ", ifname].concat())?;
    // Neither of the link nor of the node: those the kernel makes again.
    present.retain(|entry| entry.link == ifname && entry.route.scope.unwrap_or(0) == 0);

    links::set_master(&link, Some(vrf)).or_fail(format!("could not set vrf {name} as master of {ifname}"))?;

    let after = global_addresses(&link).or_fail("failed getting global ipv6 addresses after slaving interface")?;
    for address in before.into_iter().filter(|before| after.iter().all(|after| after.cidr != before.cidr)) {
        // It was found to be nobody else's before, if that was asked for; the reference waits here until it is asked again.
        let text = address.cidr.clone();
        addresses::add(&link, &address.no_dad())
            .or_fail(format!("could not restore address {text} to {ifname} @ {name}"))?;
    }
    for entry in present {
        let text = entry.route.dst.clone();
        let route = HostRoute { table: Some(table), ..entry.route };
        routes::replace(&link, &route).or_fail(format!("could not add route '{text}'"))?;
    }
    Ok(())
}

fn global_addresses(link: &Link) -> Result<Vec<Address>, sandwire_plugin::HostError> {
    let mut all = addresses::get(link)?;
    let scope =
        |address: &Address| address.extra.iter().find(|(key, _)| key == "scope").map(|(_, scope)| scope.clone());
    all.retain(|address| address.cidr.contains(':') && scope(address).is_none_or(|scope| scope == "0"));
    Ok(all)
}
