//! Addresses of links.

use super::attributes::Attributes;
use super::links;
use super::netns::Namespace;
use super::socket::{Received, Refusal, u32_at};
use crate::{AddressInfo, AddressSpec, KernelError, Outcome};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use std::net::{IpAddr, Ipv4Addr};

/// `struct ifaddrmsg` (linux/if_addr.h).
const IFADDRMSG: usize = 8;
const RTM_NEWADDR: u16 = 20;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;

/// NEWADDR may not change what is there.
pub(super) const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

pub(super) fn family(address: &IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// The typed builder of rtnetlink knows no peer; the rest is as there: IFA_LOCAL is ours, IFA_ADDRESS the other side's
/// or also ours, and IPv4 has a broadcast address where one fits.
pub(super) fn message(index: u32, spec: &AddressSpec) -> Outcome<AddressMessage> {
    let local = spec.address.addr();
    let prefix = spec.peer.map_or(spec.address.prefix_len(), |peer| peer.prefix_len());
    if spec.peer.is_some_and(|peer| peer.addr().is_ipv4() != local.is_ipv4()) {
        return Err(KernelError::Invalid(format!("address {} and its peer are of different families", spec.address)));
    }
    let mut message = AddressMessage::default();
    message.header.family = family(&local);
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.header.scope = AddressScope::from(spec.scope.unwrap_or(0));
    let attributes = &mut message.attributes;
    attributes.push(AddressAttribute::Local(local));
    attributes.push(AddressAttribute::Address(spec.peer.map_or(local, |peer| peer.addr())));
    if let IpAddr::V4(local) = local
        && spec.peer.is_none()
        && prefix < 31
    {
        let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        attributes.push(AddressAttribute::Broadcast(Ipv4Addr::from_bits(local.to_bits() | host_bits)));
    }
    let mut flags = AddressFlags::empty();
    flags.set(AddressFlags::Nodad, spec.no_dad && local.is_ipv6());
    flags.set(AddressFlags::Noprefixroute, spec.no_prefix_route);
    if !flags.is_empty() {
        attributes.push(AddressAttribute::Flags(flags));
    }
    if let Some(label) = &spec.label {
        attributes.push(AddressAttribute::Label(label.clone()));
    }
    if let Some(metric) = spec.metric {
        attributes.push(AddressAttribute::RoutePriority(metric));
    }
    Ok(message)
}

pub(super) fn add(namespace: &mut Namespace, index: u32, spec: &AddressSpec) -> Outcome<()> {
    let message = RouteNetlinkMessage::NewAddress(message(index, spec)?);
    match namespace.route.request(message, NEW) {
        Ok(_) => Ok(()),
        Err(refusal) => Err(not_added(namespace, index, spec, refusal)),
    }
}

/// The error for an address that the kernel refused, with the reference's text (`ConfigureIface`).
pub(super) fn not_added(namespace: &mut Namespace, index: u32, spec: &AddressSpec, refusal: Refusal) -> KernelError {
    let (name, address) = (links::name_of(namespace, index), spec.address);
    let text = format!("failed to add IP addr {address} to {name:?}");
    if refusal.errno == Errno::EEXIST
        && let Ok(present) = all(namespace, index)
        && !present.iter().any(|present| present.address == address)
    {
        // IPv6 compares addresses without their prefixes (`ipv6_add_addr`).
        return KernelError::Conflict(format!("{text}: it is there with another prefix length"));
    }
    refusal.into_error(text)
}

pub(super) fn remove(namespace: &mut Namespace, index: u32, address: IpNet) -> Outcome<()> {
    let mut message = AddressMessage::default();
    message.header.family = family(&address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(address.addr()));
    match namespace.route.request(RouteNetlinkMessage::DelAddress(message), 0) {
        Ok(_) => Ok(()),
        Err(refusal) => {
            let (name, netns) = (links::name_of(namespace, index), namespace.netns);
            Err(refusal.into_error(format_args!("could not remove address {address} of link {name:?} in {netns}")))
        }
    }
}

pub(super) fn all(namespace: &mut Namespace, index: u32) -> Outcome<Vec<AddressInfo>> {
    let netns = namespace.netns;
    let mut message = AddressMessage::default();
    message.header.index = index;
    let objects = namespace
        .route
        .dump_small(&RouteNetlinkMessage::GetAddress(message))
        .map_err(|refusal| refusal.into_error(format_args!("could not list addresses in {netns}")))?;
    // Kernels before 4.20 know no filter and answer with all links' addresses.
    let ours = objects.iter().filter(|object| u32_at(&object.payload, 4) == Some(index));
    Ok(ours.filter_map(parse).collect())
}

fn parse(received: &Received) -> Option<AddressInfo> {
    if received.kind != RTM_NEWADDR {
        return None;
    }
    let header = received.payload.get(..IFADDRMSG)?;
    let prefix = *header.get(1)?;
    let attributes = Attributes::after(&received.payload, IFADDRMSG);
    // IPv6 without a peer has only IFA_ADDRESS.
    let other = attributes.ip(IFA_ADDRESS);
    let local = attributes.ip(IFA_LOCAL).or(other)?;
    let flags = attributes.u32(IFA_FLAGS).or_else(|| header.get(2).map(|flags| u32::from(*flags)))?;
    let flags = AddressFlags::from_bits_retain(flags);
    Some(AddressInfo {
        address: IpNet::new(local, prefix).ok()?,
        peer: other.filter(|other| *other != local),
        scope: *header.get(3)?,
        tentative: flags.contains(AddressFlags::Tentative),
        dad_failed: flags.contains(AddressFlags::Dadfailed),
        permanent: flags.contains(AddressFlags::Permanent),
    })
}
