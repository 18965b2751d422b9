//! One veth per container and no bridge: the host's end is the container's gateway, and the host routes to it.
//!
//! Keys and messages: containernetworking/plugins, plugins/main/ptp.

mod check;
mod config;
mod hops;

use config::Config;
use hops::Hop;
use sandwire_plugin::configure::{Duplicates, Plan};
use sandwire_plugin::host::{self, addresses, firewall, links, routes, shared, sysctl, wait};
use sandwire_plugin::{
    Address, Attachment, Call, CniResult, Failure, Gc, Interface, Link, Netns, NetworkCall, OrFail, OrGone, Plugin,
    Status, masquerade,
};

/// How long duplicate address detection may take (the reference's `dadSettleTimeout`).
const ADDRESSES_SETTLE_MS: u32 = 5000;

/// The container's interface among the interfaces of the result: host's end, interface.
const CONTAINER: u32 = 1;

struct Ptp;

sandwire_plugin::export!(Ptp: check, gc, status);

impl Plugin for Ptp {
    fn add(call: &Call) -> Result<CniResult, Failure> {
        let config = Config::complete(call.config_text())?;
        let (node, container) = (host::netns(), host::require_container()?);

        let mut result = config.ipam.add(call)?;
        for ip in &mut result.ips {
            ip.interface = Some(CONTAINER);
        }
        result.interfaces = vec![Interface::default(), Interface::new(call.ifname())];
        let hops = hops::of(&result)?;
        forward(&node, &hops)?;

        let device = |netns| links::Device::new(netns).mtu(config.mtu());
        let (outside, inside) = links::create_veth(&device(&node).up(), &device(&container).named(call.ifname()))?;
        let outside_info = outside.info()?;
        prepare(&node, &outside_info.name, &config, &hops)?;
        serve_inside(call, &config, &container, &inside, &result, &hops)?;
        serve_outside(&outside, &hops)?;
        if config.ip_masq {
            masquerade::apply(&node, &result.ips)?;
        }
        let interfaces = [outside_info.in_sandbox(""), inside.info()?.in_sandbox(call.sandbox())];
        Ok(result.with_interfaces(interfaces).with_dns(config.dns))
    }

    fn del(call: &Call) -> Result<(), Failure> {
        let config = Config::of_del(call);
        // Each is done whatever becomes of the others. The reference leaves the link when address management fails, and
        // the masquerading when the link is gone.
        let unlinked = detach(call);
        let released = config.ipam.del(call);
        let cleared = firewall::clear(&host::netns()).or_fail("failed to remove the firewall rules");
        unlinked.and(released).and(cleared)
    }
}

impl Status for Ptp {
    fn status(call: &NetworkCall) -> Result<(), Failure> {
        Config::complete(call.config_text())?.ipam.status(call)
    }
}

impl Gc for Ptp {
    fn gc(call: &NetworkCall, _: Option<&[Attachment]>) -> Result<(), Failure> {
        config::ipam(call.config_text()).gc(call)
    }
}

/// Lets the node forward the families of the addresses.
fn forward(node: &Netns, hops: &[Hop]) -> Result<(), Failure> {
    for (key, v4) in [("ipv4/ip_forward", true), ("ipv6/conf/all/forwarding", false)] {
        if hops.iter().any(|hop| hop.address.addr().is_ipv4() == v4) {
            shared::ensure_sysctl(node, key, "1").or_fail("Could not enable IP forwarding")?;
        }
    }
    Ok(())
}

/// What the host's end is to be before the container can send: the carrier is off until its interface is up.
fn prepare(node: &Netns, outside: &str, config: &Config, hops: &[Hop]) -> Result<(), Failure> {
    // The container could otherwise announce itself as the node's IPv6 router. Not fatal: a kernel may have no IPv6.
    let _ = sysctl::write(node, &["ipv6/conf/", outside, "/accept_ra"].concat(), "0");
    // Neighbours are asked for from the link-local address (ndisc_solicit), which would be tentative for a second or two:
    // until then the host could forward nothing to the container.
    if has_v6(hops) && !config.enable_dad {
        let _ = sysctl::write(node, &["ipv6/conf/", outside, "/accept_dad"].concat(), "0");
    }
    Ok(())
}

fn has_v6(hops: &[Hop]) -> bool {
    hops.iter().any(|hop| hop.address.addr().is_ipv6())
}

fn serve_inside(
    call: &Call,
    config: &Config,
    container: &Netns,
    inside: &Link,
    result: &CniResult,
    hops: &[Hop],
) -> Result<(), Failure> {
    let ifname = call.ifname();
    let (duplicates, accept_dad) = if config.enable_dad { (Duplicates::Probe, "1") } else { (Duplicates::Trust, "0") };
    let mut plan = Plan::of(ifname, result, duplicates)?;
    hops::point_to_point(&mut plan, hops);
    if !has_v6(hops) {
        return plan.apply(inside, ifname);
    }
    // Not fatal, as in the reference's bridge: a kernel without IPv6 has none of these keys.
    let _ = sysctl::write(container, &["ipv6/conf/", ifname, "/accept_dad"].concat(), accept_dad);
    if !config.enable_dad {
        return plan.apply(inside, ifname);
    }
    let _ = sysctl::write(container, &["ipv6/conf/", ifname, "/enhanced_dad"].concat(), "1");
    // A tentative address can't be the source of a route (ip6_route_info_create).
    let routes = std::mem::take(&mut plan.routes);
    plan.apply(inside, ifname)?;
    wait::addresses(inside, ADDRESSES_SETTLE_MS)
        .or_fail(["failed to settle addresses for \"", ifname, "\""].concat())?;
    Plan { routes, ..Plan::default() }.apply(inside, ifname)
}

/// Makes the host's end the container's gateway.
fn serve_outside(outside: &Link, hops: &[Hop]) -> Result<(), Failure> {
    for gateway in hops::gateways(hops) {
        // Nobody but the container could have it too, and the container's addresses have been probed for by now.
        addresses::add(outside, &Address::new(hops::single(gateway)).no_dad())
            .or_fail("failed to add IP addr to veth")?;
    }
    for hop in hops {
        // Before one that somebody left behind: the reference takes that for its own.
        routes::append(outside, &hop.back()).or_fail("failed to add route on host")?;
    }
    Ok(())
}

/// Removes the container's interface, and with it the host's end. The kernel has done it when the namespace is gone.
fn detach(call: &Call) -> Result<(), Failure> {
    let Some(container) = host::container() else { return Ok(()) };
    let context = || ["failed to delete \"", call.ifname(), "\""].concat();
    let Some(link) = container.link(call.ifname()).or_gone().or_fail(context())? else { return Ok(()) };
    links::remove(&link).or_gone().or_fail(context()).map(drop)
}
