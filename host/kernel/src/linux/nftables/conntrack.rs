//! `conntrack.flush`: connections that were first sent to a port are forgotten, so that what is sent next is looked at
//! anew. A UDP client that never pauses would otherwise go on talking to a container that is gone.
//!
//! ctnetlink (linux/netfilter/nfnetlink_conntrack.h) on the same kind of socket as nf_tables.

use super::attribute::{Attribute, bytes, nest};
use super::entry::Protocol;
use super::message::{FAMILY_IPV4, FAMILY_IPV6, Message};
use super::wire::Wire;
use crate::linux::attributes::{Attributes, ip_of};
use crate::{KernelError, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// CTA_*.
const TUPLE_ORIGINAL: u16 = 1;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
/// CTA_TUPLE_* and CTA_PROTO_*.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;
/// Which parts of the tuple count: CTA_FILTER_F_CTA_PROTO_NUM, CTA_FILTER_F_CTA_PROTO_DST_PORT.
const BY_PROTOCOL: u32 = 1 << 3;
const BY_PORT: u32 = 1 << 5;

/// Forgets connections of `protocol` that were first sent to one of `ports`, of `destination` or of any address; how many of
/// each.
pub(super) fn flush(
    wire: &mut Wire,
    protocol: Protocol,
    destination: Option<IpAddr>,
    ports: &BTreeSet<u16>,
) -> Outcome<BTreeMap<u16, u32>> {
    let mut forgotten = BTreeMap::new();
    if ports.is_empty() {
        return Ok(forgotten);
    }
    for family in [FAMILY_IPV4, FAMILY_IPV6] {
        if destination.is_some_and(|ip| ip.is_ipv4() != (family == FAMILY_IPV4)) {
            continue;
        }
        // The kernel looks through all, which takes milliseconds, and answers with these (since 5.8). It filters by a
        // tuple of one family only, and by one port: of many ports the protocol's are asked for, once.
        let mut tuple = vec![bytes(PROTOCOL_NUMBER, &[protocol as u8])];
        let mut flags = BY_PROTOCOL;
        if let (Some(port), 1) = (ports.first(), ports.len()) {
            tuple.push(bytes(DESTINATION_PORT, &port.to_be_bytes()));
            flags |= BY_PORT;
        }
        let tuple = nest(TUPLE_PROTOCOL, tuple);
        let filter = nest(FILTER, vec![bytes(1, &flags.to_ne_bytes()), bytes(2, &0_u32.to_ne_bytes())]);
        let question = Message::list_connections(family, vec![nest(TUPLE_ORIGINAL, vec![tuple]), filter]);
        let port =
            |attributes: Attributes<'_>| port_of(attributes, protocol, destination).filter(|port| ports.contains(port));
        for connection in wire.list_of(&question, |connection| port(connection.attributes()).is_some())? {
            let attributes = connection.attributes();
            let Some(port) = port(attributes) else { continue };
            match wire.order(&Message::forget_connection(family, identity(attributes))) {
                Ok(()) => *forgotten.entry(port).or_default() += 1,
                // It ended by itself.
                Err(KernelError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(forgotten)
}

/// The port that a connection was first sent to, if it is of this protocol and address: an older kernel, which knows no filter,
/// answers with all.
fn port_of(connection: Attributes<'_>, protocol: Protocol, destination: Option<IpAddr>) -> Option<u16> {
    let tuple = connection.nested(TUPLE_ORIGINAL)?;
    let of = tuple.nested(TUPLE_PROTOCOL)?;
    // CTA_IP_V4_DST, CTA_IP_V6_DST
    let address = tuple.nested(TUPLE_IP).and_then(|ip| ip_of(ip.get(2).or_else(|| ip.get(4))?));
    let port = u16::from_be_bytes(of.get(DESTINATION_PORT)?.try_into().ok()?);
    let is_it = of.u8(PROTOCOL_NUMBER) == Some(protocol as u8) && (destination.is_none() || destination == address);
    is_it.then_some(port)
}

/// The tuple, the zone and the id: of another connection with the same tuple the id is another.
fn identity(connection: Attributes<'_>) -> Vec<Attribute> {
    let mut identity = Vec::new();
    if let Some(tuple) = connection.nested(TUPLE_ORIGINAL) {
        let parts = tuple.iter().map(|(kind, part)| match kind {
            TUPLE_IP | TUPLE_PROTOCOL => {
                nest(kind, Attributes::after(part, 0).iter().map(|(kind, value)| bytes(kind, value)).collect())
            }
            _ => bytes(kind, part),
        });
        identity.push(nest(TUPLE_ORIGINAL, parts.collect()));
    }
    for kind in [ZONE, ID] {
        identity.extend(connection.get(kind).map(|value| bytes(kind, value)));
    }
    identity
}
