//! Bringing a link into service: as the reference's `ConfigureIface`, in one message exchange.

use super::LinuxKernel;
use super::socket::Request;
use super::{addresses, links, routes, sysctl};
use crate::{AddressSpec, KernelError, LinkId, Outcome, RouteMode, RouteSpec};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::LinkUnspec;

pub(super) fn apply(kernel: &mut LinuxKernel, link: LinkId, wanted: &[AddressSpec], hops: &[RouteSpec]) -> Outcome<()> {
    if wanted.iter().any(|spec| spec.address.addr().is_ipv6()) {
        enable_ipv6(kernel, link)?;
    }
    // Up after the addresses: it is at link-up that the kernel announces those that are there (arp_notify, ndisc_notify;
    // `inetdev_event`, `ndisc_netdev_event`), and makes their prefix routes. Up before the routes, whose gateways are
    // unreachable through a link that is down.
    let mut requests = Vec::with_capacity(wanted.len() + 1 + hops.len());
    for spec in wanted {
        let message = addresses::message(link.index, spec)?;
        requests.push(Request::new(RouteNetlinkMessage::NewAddress(message), addresses::NEW));
    }
    requests.push(Request::new(RouteNetlinkMessage::SetLink(LinkUnspec::new_with_index(link.index).up().build()), 0));
    for route in hops {
        let (message, flags) = routes::new(link.index, route, RouteMode::Append)?;
        requests.push(Request::new(message, flags));
    }
    let namespace = kernel.namespace(link.netns)?;
    let answers = namespace
        .route
        .batch(requests)
        .map_err(|refusal| refusal.into_error(format_args!("could not configure a link in {}", link.netns)))?;
    // The first refusal is the cause; later ones follow from it.
    for (number, answer) in answers.into_iter().enumerate() {
        let Err(refusal) = answer else { continue };
        let route = number.checked_sub(wanted.len() + 1).and_then(|number| hops.get(number));
        return Err(match (wanted.get(number), route) {
            (Some(spec), _) => addresses::not_added(namespace, link.index, spec, refusal),
            (None, Some(route)) => routes::not_added(namespace, link.index, route, refusal),
            (None, None) => {
                let name = links::name_of(namespace, link.index);
                refusal.into_error(format_args!("failed to set {name:?} UP"))
            }
        });
    }
    Ok(())
}

/// A container may start with IPv6 disabled (`net.ipv6.conf.default.disable_ipv6`), and then refuses its addresses
/// (EACCES). As the reference, also for `lo`; and addresses are to survive that the link goes down and up.
fn enable_ipv6(kernel: &mut LinuxKernel, link: LinkId) -> Outcome<()> {
    let name = links::by_index(kernel.namespace(link.netns)?, link.index)?.name;
    for interface in ["lo", name.as_str()] {
        let key = format!("ipv6/conf/{interface}/disable_ipv6");
        match sysctl::write(kernel, link.netns, &key, "0") {
            // What can't be read is left alone: an old kernel, or IPv6 not built in (the address then says so).
            Ok(_) | Err(KernelError::NotFound(_)) => {}
            Err(error) => return Err(error.context(format!("failed to enable IPv6 for interface {interface:?}"))),
        }
    }
    sysctl::set(kernel, link.netns, &format!("ipv6/conf/{name}/keep_addr_on_down"), "1")
        .map_err(|error| error.context(format!("failed to enable keep_addr_on_down for interface {name:?}")))?;
    Ok(())
}
