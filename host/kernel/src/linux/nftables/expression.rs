//! The few expressions that our rules are made of (linux/netfilter/nf_tables.h, `nft --debug=netlink`).

use super::attribute::{Attribute, bytes, contained, nest, number, text};
use crate::linux::attributes::Attributes;
use ipnet::IpNet;

/// 16 bytes each, beside each other: a concatenation may run from one into the next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Register {
    First = 1,
    Second = 2,
}

/// A part of the packet: base (0 link layer, 1 network layer), offset and length in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    base: u32,
    offset: u32,
    length: u32,
}

pub(super) const ETHER_SOURCE: Field = Field { base: 0, offset: 6, length: 6 };
pub(super) const IPV4_SOURCE: Field = Field { base: 1, offset: 12, length: 4 };
pub(super) const IPV6_SOURCE: Field = Field { base: 1, offset: 8, length: 16 };
const IPV4_DESTINATION: Field = Field { base: 1, offset: 16, length: 4 };
const IPV6_DESTINATION: Field = Field { base: 1, offset: 24, length: 16 };

const META_INPUT_NAME: u32 = 6;
const META_PROTOCOL_FAMILY: u32 = 15;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

fn expression(name: &str, data: Vec<Attribute>) -> Attribute {
    nest(1, vec![text(1, name), nest(2, data)])
}

fn meta(key: u32, to: Register) -> Attribute {
    expression("meta", vec![number(2, key), number(1, to as u32)])
}

fn compare(operation: u32, value: &[u8]) -> Attribute {
    let data = nest(3, vec![bytes(1, value)]);
    expression("cmp", vec![number(1, Register::First as u32), number(2, operation), data])
}

/// The name of the interface that the packet came in by.
pub(super) fn input_name(to: Register) -> Attribute {
    meta(META_INPUT_NAME, to)
}

/// In a table of family inet: only packets of this family (NFPROTO_IPV4, NFPROTO_IPV6).
pub(super) fn only_family(family: u8) -> [Attribute; 2] {
    [meta(META_PROTOCOL_FAMILY, Register::First), compare(EQUAL, &[family])]
}

pub(super) fn load(field: Field, to: Register) -> Attribute {
    let place = [number(2, field.base), number(3, field.offset), number(4, field.length)];
    expression("payload", [vec![number(1, to as u32)], place.to_vec()].concat())
}

/// Goes on only if the destination is outside of `net`. As nft does it: whole bytes are compared as they are.
pub(super) fn destination_outside(net: IpNet) -> Vec<Attribute> {
    let (field, address, mask) = match net {
        IpNet::V4(net) => (IPV4_DESTINATION, net.network().octets().to_vec(), net.netmask().octets().to_vec()),
        IpNet::V6(net) => (IPV6_DESTINATION, net.network().octets().to_vec(), net.netmask().octets().to_vec()),
    };
    let whole = usize::from(net.prefix_len() / 8);
    match address.get(..whole) {
        Some(prefix) if whole > 0 && net.prefix_len().is_multiple_of(8) => {
            vec![load(Field { length: whole as u32, ..field }, Register::First), compare(NOT_EQUAL, prefix)]
        }
        _ => {
            let register = Register::First as u32;
            let zero = vec![0; mask.len()];
            let operands = [nest(4, vec![bytes(1, &mask)]), nest(5, vec![bytes(1, &zero)])];
            let operation = [number(1, register), number(2, register), number(3, mask.len() as u32)];
            let masked = expression("bitwise", [operation.to_vec(), operands.to_vec()].concat());
            vec![load(field, Register::First), masked, compare(NOT_EQUAL, &address)]
        }
    }
}

/// Goes on only if what begins in the first register is not in `set`.
pub(super) fn not_in(set: &str) -> Attribute {
    const INVERTED: u32 = 1;
    expression("lookup", vec![number(2, Register::First as u32), text(1, set), number(5, INVERTED)])
}

/// Goes on only if the first register is a key of `map`, and counts in the counter that is its value.
pub(super) fn count_by(map: &str) -> Attribute {
    expression("objref", vec![number(3, Register::First as u32), text(4, map)])
}

/// The source becomes the address of the interface that the packet leaves by.
pub(super) fn masquerade() -> Attribute {
    expression("masq", Vec::new())
}

pub(super) fn drop_packet() -> Attribute {
    const DROP: u32 = 0;
    let verdict = nest(2, vec![number(1, DROP)]);
    expression("immediate", vec![number(1, 0), nest(2, vec![verdict])])
}

/// Whether a rule that the kernel has is this one.
pub(super) fn is_rule(wanted: &[Attribute], seen: Option<Attributes<'_>>) -> bool {
    seen.is_some_and(|seen| seen.iter().count() == wanted.len() && contained(wanted, seen))
}
