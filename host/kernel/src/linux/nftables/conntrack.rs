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
/// CTA_FILTER_F_CTA_PROTO_NUM and CTA_FILTER_F_CTA_PROTO_DST_PORT: which parts of the tuple count.
const FILTER_FLAGS: u32 = 1 << 3 | 1 << 5;

/// Forgets connections of `protocol` that were first sent to `port`, of `destination` or of any address; how many.
pub(super) fn flush(wire: &mut Wire, protocol: Protocol, destination: Option<IpAddr>, port: u16) -> Outcome<u32> {
    let mut forgotten = 0;
    for family in [FAMILY_IPV4, FAMILY_IPV6] {
        if destination.is_some_and(|ip| ip.is_ipv4() != (family == FAMILY_IPV4)) {
            continue;
        }
        // The kernel looks through all, which takes milliseconds, and answers with these (since 5.8). It filters by a
        // tuple of one family only.
        let tuple = nest(
            TUPLE_PROTOCOL,
            vec![bytes(PROTOCOL_NUMBER, &[protocol as u8]), bytes(DESTINATION_PORT, &port.to_be_bytes())],
        );
        let filter = nest(FILTER, vec![bytes(1, &FILTER_FLAGS.to_ne_bytes()), bytes(2, &0_u32.to_ne_bytes())]);
        let question = Message::list_connections(family, vec![nest(TUPLE_ORIGINAL, vec![tuple]), filter]);
        for connection in wire.list(&question)? {
            let attributes = connection.attributes();
            if !is_it(attributes, protocol, destination, port) {
                continue;
            }
            match wire.order(&Message::forget_connection(family, identity(attributes))) {
                Ok(()) => forgotten += 1,
                // It ended by itself.
                Err(KernelError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(forgotten)
}

/// Whether a connection is what was asked for: an older kernel, which knows no filter, answers with all.
fn is_it(connection: Attributes<'_>, protocol: Protocol, destination: Option<IpAddr>, port: u16) -> bool {
    let Some(tuple) = connection.nested(TUPLE_ORIGINAL) else { return false };
    let Some(of) = tuple.nested(TUPLE_PROTOCOL) else { return false };
    // CTA_IP_V4_DST, CTA_IP_V6_DST
    let address = tuple.nested(TUPLE_IP).and_then(|ip| ip_of(ip.get(2).or_else(|| ip.get(4))?));
    of.u8(PROTOCOL_NUMBER) == Some(protocol as u8)
        && of.get(DESTINATION_PORT) == Some(&port.to_be_bytes()[..])
        && (destination.is_none() || destination == address)
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
