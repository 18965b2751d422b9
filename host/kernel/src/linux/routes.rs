//! Routes of a namespace.

use super::attributes::{Attributes, ip_of};
use super::links;
use super::netns::Namespace;
use super::socket::{Received, Refusal, i32_at, u16_at, u32_at};
use crate::{KernelError, LinkId, Netns, Outcome, RouteInfo, RouteMode, RouteSpec};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `struct rtmsg` (linux/rtnetlink.h).
const RTMSG: usize = 12;
/// `struct rtnexthop`.
const RTNEXTHOP: usize = 8;
const RTM_NEWROUTE: u16 = 24;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;
const RTNH_F_ONLINK: u32 = 4;
const RT_TABLE_LOCAL: u32 = 255;
const RT_SCOPE_NOWHERE: u8 = 255;

fn destination(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

/// `scope` is what stands for `None`.
fn message(index: u32, route: &RouteSpec, scope: RouteScope) -> Outcome<RouteMessage> {
    // Host bits in an IPv4 destination are EINVAL (`fib_table_insert`).
    let dst = route.dst.trunc();
    let mut message = RouteMessage::default();
    message.header.address_family = super::addresses::family(&dst.addr());
    message.header.destination_prefix_length = dst.prefix_len();
    message.header.kind = RouteType::Unicast;
    message.header.scope = route.scope.map_or(scope, RouteScope::from);
    message.header.protocol = route.protocol.map_or(RouteProtocol::Boot, RouteProtocol::from);
    let attributes = &mut message.attributes;
    if dst.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(destination(dst.addr())));
    }
    match (dst, route.via) {
        (_, None) => {}
        (IpNet::V4(_), Some(IpAddr::V6(via))) => attributes.push(RouteAttribute::Via(RouteVia::Inet6(via))),
        (IpNet::V6(_), Some(IpAddr::V4(via))) => {
            return Err(KernelError::Invalid(format!("the IPv6 route to {dst} can't have the IPv4 gateway {via}")));
        }
        (_, Some(via)) => attributes.push(RouteAttribute::Gateway(destination(via))),
    }
    if let Some(src) = route.src {
        attributes.push(RouteAttribute::PrefSource(destination(src)));
    }
    match route.table.unwrap_or(RouteHeader::RT_TABLE_MAIN.into()) {
        table @ 0..=255 => message.header.table = table as u8,
        table => attributes.push(RouteAttribute::Table(table)),
    }
    if let Some(priority) = route.priority {
        attributes.push(RouteAttribute::Priority(priority));
    }
    let metrics: Vec<_> =
        [route.mtu.map(RouteMetric::Mtu), route.advmss.map(RouteMetric::Advmss)].into_iter().flatten().collect();
    if !metrics.is_empty() {
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    attributes.push(RouteAttribute::Oif(index));
    if route.onlink {
        message.header.flags.insert(RouteFlags::Onlink);
    }
    Ok(message)
}

/// An RTM_NEWROUTE and its flags.
pub(super) fn new(index: u32, route: &RouteSpec, mode: RouteMode) -> Outcome<(RouteNetlinkMessage, u16)> {
    // Scope says how far away the destination is; for IPv4 without a gateway that is "on this link".
    let scope = if route.via.is_none() && route.dst.addr().is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    let flags = match mode {
        RouteMode::Add => NLM_F_CREATE | NLM_F_EXCL,
        // As the reference's RouteAddEcmp. NLM_F_APPEND would put an IPv4 route behind the others to its destination,
        // where it is never used: what was attached last has the default route, there and here.
        RouteMode::Append => NLM_F_CREATE,
        RouteMode::Replace => NLM_F_CREATE | NLM_F_REPLACE,
    };
    Ok((RouteNetlinkMessage::NewRoute(message(index, route, scope)?), flags))
}

pub(super) fn add(namespace: &mut Namespace, index: u32, route: &RouteSpec, mode: RouteMode) -> Outcome<()> {
    let (message, flags) = new(index, route, mode)?;
    match namespace.route.request(message, flags) {
        Ok(_) => Ok(()),
        Err(refusal) => Err(not_added(namespace, index, route, refusal)),
    }
}

/// The error for a route that the kernel refused, with the reference's text (`ConfigureIface`).
pub(super) fn not_added(namespace: &mut Namespace, index: u32, route: &RouteSpec, refusal: Refusal) -> KernelError {
    let via = route.via.map_or("<nil>".to_owned(), |via| via.to_string());
    let name = links::name_of(namespace, index);
    let text = format!("failed to add route '{} via {via} dev {name}'", route.dst);
    // ENETUNREACH, EHOSTUNREACH: the gateway isn't on this link; ENETDOWN: the link is down; EACCES: it has no IPv6
    // (`fib6_nh_init`). So this can never work as it was asked for.
    match refusal.errno {
        Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN | Errno::EACCES => {
            KernelError::Invalid(format!("{text}: {refusal}"))
        }
        _ => refusal.into_error(text),
    }
}

pub(super) fn remove(namespace: &mut Namespace, index: u32, route: &RouteSpec) -> Outcome<()> {
    // Scope nowhere and protocol unspecified match any (`fib_table_delete`, `ip6_route_del`).
    let mut message = message(index, route, RouteScope::from(RT_SCOPE_NOWHERE))?;
    if route.protocol.is_none() {
        message.header.protocol = RouteProtocol::Unspec;
    }
    match namespace.route.request(RouteNetlinkMessage::DelRoute(message), 0) {
        Ok(_) => Ok(()),
        Err(refusal) => {
            let (name, netns) = (links::name_of(namespace, index), namespace.netns);
            Err(refusal.into_error(format_args!("could not remove the route to {} dev {name} in {netns}", route.dst)))
        }
    }
}

pub(super) fn all(namespace: &mut Namespace, table: Option<u32>) -> Outcome<Vec<RouteInfo>> {
    let netns = namespace.netns;
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        if let Some(table) = table {
            message.attributes.push(RouteAttribute::Table(table));
        }
        let objects = match namespace.route.dump(&RouteNetlinkMessage::GetRoute(message)) {
            Ok(objects) => objects,
            // ENOENT: nobody has put a route into this table yet. The others: a kernel without IPv6.
            Err(refusal) if matches!(refusal.errno, Errno::ENOENT | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP) => {
                continue;
            }
            Err(refusal) => return Err(refusal.into_error(format_args!("could not list the routes of {netns}"))),
        };
        let family = u8::from(family);
        for object in objects.iter().filter(|object| object.payload.first() == Some(&family)) {
            parse(netns, object, &mut routes);
        }
    }
    routes.retain(|info: &RouteInfo| match table {
        Some(_) => info.route.table == table,
        None => info.route.table != Some(RT_TABLE_LOCAL),
    });
    Ok(routes)
}

/// The route of an RTM_NEWROUTE, once for each of its next hops.
fn parse(netns: Netns, received: &Received, routes: &mut Vec<RouteInfo>) -> Option<()> {
    if received.kind != RTM_NEWROUTE {
        return None;
    }
    let [family, dst_len, _, _, table, protocol, scope, _] = *received.payload.first_chunk::<8>()?;
    let flags = u32_at(&received.payload, 8)?;
    let attributes = Attributes::after(&received.payload, RTMSG);
    let any = if family == libc::AF_INET as u8 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let metrics = attributes.nested(RTA_METRICS);
    let route = RouteSpec {
        dst: IpNet::new(attributes.ip(RTA_DST).unwrap_or(any), dst_len).ok()?,
        via: gateway(attributes),
        src: attributes.ip(RTA_PREFSRC),
        scope: Some(scope),
        table: Some(attributes.u32(RTA_TABLE).unwrap_or(table.into())),
        priority: attributes.u32(RTA_PRIORITY),
        mtu: metrics.and_then(|metrics| metrics.u32(RTAX_MTU)),
        advmss: metrics.and_then(|metrics| metrics.u32(RTAX_ADVMSS)),
        onlink: flags & RTNH_F_ONLINK != 0,
        protocol: Some(protocol),
    };
    let link = |index: Option<u32>| index.map(|index| LinkId { netns, index });
    let Some(mut hops) = attributes.get(RTA_MULTIPATH) else {
        routes.push(RouteInfo { route, link: link(attributes.u32(RTA_OIF)) });
        return Some(());
    };
    while let Some(length) = u16_at(hops, 0).map(usize::from).filter(|length| *length >= RTNEXTHOP) {
        let hop = hops.get(..length)?;
        let mut route = route.clone();
        route.via = gateway(Attributes::after(hop, RTNEXTHOP));
        route.onlink = hop.get(2).is_some_and(|flags| u32::from(*flags) & RTNH_F_ONLINK != 0);
        routes.push(RouteInfo { route, link: link(i32_at(hop, 4).map(i32::cast_unsigned)) });
        hops = hops.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(())
}

/// RTA_GATEWAY, or RTA_VIA (of another family, RFC 5549): its family in two bytes, then the address.
fn gateway(attributes: Attributes<'_>) -> Option<IpAddr> {
    attributes.ip(RTA_GATEWAY).or_else(|| ip_of(attributes.get(RTA_VIA)?.get(2..)?))
}

pub(super) fn lookup(namespace: &mut Namespace, target: IpAddr) -> Outcome<RouteInfo> {
    let netns = namespace.netns;
    let mut message = RouteMessage::default();
    message.header.address_family = super::addresses::family(&target);
    message.header.destination_prefix_length = if target.is_ipv4() { 32 } else { 128 };
    // Without it the answer for IPv4 says table main, whatever the table was; for IPv6 it is refused.
    message.header.flags.set(RouteFlags::LookupTable, target.is_ipv4());
    message.attributes.push(RouteAttribute::Destination(destination(target)));
    let unreachable = |text: String| KernelError::NotFound(format!("{netns} has no route to {target}: {text}"));
    let received = match namespace.route.request(RouteNetlinkMessage::GetRoute(message), 0) {
        Ok(received) => received,
        Err(refusal) if matches!(refusal.errno, Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ESRCH) => {
            return Err(unreachable(refusal.to_string()));
        }
        Err(refusal) => {
            return Err(refusal.into_error(format_args!("could not look up the route to {target} in {netns}")));
        }
    };
    let mut routes = Vec::new();
    for object in &received {
        parse(netns, object, &mut routes);
    }
    routes.pop().ok_or_else(|| unreachable("the kernel answered nothing".into()))
}
