//! The few expressions that our rules are made of (linux/netfilter/nf_tables.h, `nft --debug=netlink`).

use super::attribute::{Attribute, bytes, contained, nest, number, text};
use crate::linux::attributes::Attributes;
use ipnet::IpNet;

/// Registers of 16 bytes beside each other, and parts of 4 bytes of them by the numbers that the kernel gives back
/// (`nft_dump_register`): a concatenation may run from one into the next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Register {
    /// Bytes 0 to 15.
    First = 1,
    /// Bytes 16 to 31.
    Second = 2,
    /// Bytes 4 to 7.
    SecondWord = 9,
    /// Bytes 8 to 11.
    ThirdWord = 10,
    /// Bytes 20 to 23.
    SixthWord = 13,
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
pub(super) const IPV4_DESTINATION: Field = Field { base: 1, offset: 16, length: 4 };
pub(super) const IPV6_DESTINATION: Field = Field { base: 1, offset: 24, length: 16 };
/// TCP, UDP and SCTP have it in the same place.
pub(super) const DESTINATION_PORT: Field = Field { base: 2, offset: 2, length: 2 };

const META_PROTOCOL: u32 = 1;
const META_MARK: u32 = 3;
const META_INPUT_NAME: u32 = 6;
const META_OUTPUT_NAME: u32 = 7;
const META_L4_PROTOCOL: u32 = 16;
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

fn compare_masked(value: u32, operation: u32, mask: u32) -> [Attribute; 2] {
    [masked(&mask.to_ne_bytes()), compare(operation, &value.to_ne_bytes())]
}

/// The first register's bits of `mask`, the others zero.
fn masked(mask: &[u8]) -> Attribute {
    bits(mask, &vec![0; mask.len()])
}

/// The first register's bits of `mask` kept, those of `flip` then changed.
fn bits(mask: &[u8], flip: &[u8]) -> Attribute {
    let register = Register::First as u32;
    let operands = [nest(4, vec![bytes(1, mask)]), nest(5, vec![bytes(1, flip)])];
    let operation = [number(1, register), number(2, register), number(3, mask.len() as u32)];
    expression("bitwise", [operation.to_vec(), operands.to_vec()].concat())
}

/// Bits of conntrack's status (IPS_DST_NAT) and of its state as nft has it (NF_CT_STATE_BIT).
pub(super) const STATUS_DNAT: u32 = 1 << 5;
pub(super) const STATE_ESTABLISHED_OR_RELATED: u32 = 1 << 1 | 1 << 2;

/// Goes on only if the connection's destination was translated.
pub(super) fn only_dnat() -> Vec<Attribute> {
    conntrack_bits(2, STATUS_DNAT, NOT_EQUAL)
}

/// Goes on only if the connection's destination was not translated.
pub(super) fn only_without_dnat() -> Vec<Attribute> {
    conntrack_bits(2, STATUS_DNAT, EQUAL)
}

/// Goes on only for answers and what belongs to a connection.
pub(super) fn only_established() -> Vec<Attribute> {
    conntrack_bits(0, STATE_ESTABLISHED_OR_RELATED, NOT_EQUAL)
}

fn conntrack_bits(key: u32, mask: u32, operation: u32) -> Vec<Attribute> {
    let mut all = vec![expression("ct", vec![number(2, key), number(1, Register::First as u32)])];
    all.extend(compare_masked(0, operation, mask));
    all
}

/// The port that the connection was first sent to, before it was translated.
pub(super) fn original_port(to: Register) -> Attribute {
    const PROTOCOL_DESTINATION: u32 = 12;
    const ORIGINAL: u8 = 0;
    let key = vec![number(2, PROTOCOL_DESTINATION), number(1, to as u32), bytes(3, &[ORIGINAL])];
    expression("ct", key)
}

/// TCP, UDP, SCTP as a number.
pub(super) fn l4_protocol(to: Register) -> Attribute {
    meta(META_L4_PROTOCOL, to)
}

/// Goes on only if the destination is an address of this machine.
pub(super) fn only_local_destination() -> [Attribute; 2] {
    const ADDRESS_TYPE: u32 = 3;
    const DESTINATION: u32 = 2;
    const RTN_LOCAL: u32 = 2;
    let register = number(1, Register::First as u32);
    [
        expression("fib", vec![register, number(2, ADDRESS_TYPE), number(3, DESTINATION)]),
        compare(EQUAL, &RTN_LOCAL.to_ne_bytes()),
    ]
}

/// Goes on only if the packet came in by this interface, or by another one.
pub(super) fn only_input(name: &str, is_it: bool) -> [Attribute; 2] {
    [meta(META_INPUT_NAME, Register::First), compare(equality(is_it), &name_bytes(name))]
}

/// The same for the interface that it leaves by.
pub(super) fn only_output(name: &str, is_it: bool) -> [Attribute; 2] {
    [meta(META_OUTPUT_NAME, Register::First), compare(equality(is_it), &name_bytes(name))]
}

fn equality(is_it: bool) -> u32 {
    if is_it { EQUAL } else { NOT_EQUAL }
}

/// IFNAMSIZ bytes.
pub(super) fn name_bytes(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// Sets bits of the packet's mark, which nobody outside of this machine sees.
pub(super) fn set_mark(bit: u32) -> Vec<Attribute> {
    change_mark(!bit, bit)
}

/// Takes them away.
pub(super) fn clear_mark(bit: u32) -> Vec<Attribute> {
    change_mark(!bit, 0)
}

fn change_mark(keep: u32, set: u32) -> Vec<Attribute> {
    let write = expression("meta", vec![number(2, META_MARK), number(3, Register::First as u32)]);
    vec![meta(META_MARK, Register::First), bits(&keep.to_ne_bytes(), &set.to_ne_bytes()), write]
}

/// Goes on only if the mark has this bit.
pub(super) fn only_mark(bit: u32) -> Vec<Attribute> {
    let mut all = vec![meta(META_MARK, Register::First)];
    all.extend(compare_masked(bit, EQUAL, bit));
    all
}

/// A match of iptables', as its own tools write it, so that they can still read the table that it is in.
pub(super) fn iptables_match(name: &str, revision: u32, info: &[u8]) -> Attribute {
    expression("match", vec![text(1, name), number(2, revision), bytes(3, info)])
}

/// A counter of the rule's own.
pub(super) fn counter() -> Attribute {
    expression("counter", Vec::new())
}

/// The name of the interface that the packet came in by.
pub(super) fn input_name(to: Register) -> Attribute {
    meta(META_INPUT_NAME, to)
}

/// In a table of family inet: only packets of this family (NFPROTO_IPV4, NFPROTO_IPV6).
pub(super) fn only_family(family: u8) -> [Attribute; 2] {
    [meta(META_PROTOCOL_FAMILY, Register::First), compare(EQUAL, &[family])]
}

/// In a table of family bridge: only frames with a packet of this family in them.
pub(super) fn only_packets(is_ipv4: bool) -> [Attribute; 2] {
    // ETH_P_IP, ETH_P_IPV6
    let kind: u16 = if is_ipv4 { 0x0800 } else { 0x86dd };
    [meta(META_PROTOCOL, Register::First), compare(EQUAL, &kind.to_be_bytes())]
}

pub(super) fn load(field: Field, to: Register) -> Attribute {
    let place = [number(2, field.base), number(3, field.offset), number(4, field.length)];
    expression("payload", [vec![number(1, to as u32)], place.to_vec()].concat())
}

/// Goes on only if the destination is outside of `net`. As nft does it: whole bytes are compared as they are.
pub(super) fn destination_outside(net: IpNet) -> Vec<Attribute> {
    within(net, IPV4_DESTINATION, IPV6_DESTINATION, false)
}

/// Goes on only if the destination is in `net`, or outside of it.
pub(super) fn only_destination(net: IpNet, is_in: bool) -> Vec<Attribute> {
    within(net, IPV4_DESTINATION, IPV6_DESTINATION, is_in)
}

/// The same for the source.
pub(super) fn only_source(net: IpNet, is_in: bool) -> Vec<Attribute> {
    within(net, IPV4_SOURCE, IPV6_SOURCE, is_in)
}

fn within(net: IpNet, v4: Field, v6: Field, is_in: bool) -> Vec<Attribute> {
    let (field, address, mask) = match net {
        IpNet::V4(net) => (v4, net.network().octets().to_vec(), net.netmask().octets().to_vec()),
        IpNet::V6(net) => (v6, net.network().octets().to_vec(), net.netmask().octets().to_vec()),
    };
    let whole = usize::from(net.prefix_len() / 8);
    match address.get(..whole) {
        Some(prefix) if whole > 0 && net.prefix_len().is_multiple_of(8) => {
            vec![load(Field { length: whole as u32, ..field }, Register::First), compare(equality(is_in), prefix)]
        }
        _ => vec![load(field, Register::First), masked(&mask), compare(equality(is_in), &address)],
    }
}

/// Goes on only if what begins in the first register is not in `set`.
pub(super) fn not_in(set: &str) -> Attribute {
    const INVERTED: u32 = 1;
    expression("lookup", vec![number(2, Register::First as u32), text(1, set), number(5, INVERTED)])
}

/// Goes on only if what begins in the first register is in `set`.
pub(super) fn only_in(set: &str) -> Attribute {
    expression("lookup", vec![number(2, Register::First as u32), text(1, set)])
}

/// Goes on only if what begins in the first register is a key of `map`; the value takes its place.
pub(super) fn translate(map: &str) -> Attribute {
    let register = Register::First as u32;
    expression("lookup", vec![number(2, register), text(1, map), number(3, register)])
}

/// The destination becomes the address in the first register and the port in `port`.
pub(super) fn dnat(family: u8, port: Register) -> Attribute {
    const DNAT: u32 = 1;
    let address = number(3, Register::First as u32);
    let kind = [number(1, DNAT), number(2, family.into())];
    expression("nat", [kind.to_vec(), vec![address, number(5, port as u32)]].concat())
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
    verdict(vec![number(1, 0)])
}

pub(super) fn accept() -> Attribute {
    verdict(vec![number(1, 1)])
}

/// Goes on in another chain and comes back.
pub(super) fn jump(chain: &str) -> Attribute {
    const JUMP: i32 = -3;
    verdict(vec![number(1, JUMP.cast_unsigned()), text(2, chain)])
}

fn verdict(contents: Vec<Attribute>) -> Attribute {
    expression("immediate", vec![number(1, 0), nest(2, vec![nest(2, contents)])])
}

/// Whether a rule that the kernel has is this one.
pub(super) fn is_rule(wanted: &[Attribute], seen: Option<Attributes<'_>>) -> bool {
    seen.is_some_and(|seen| seen.iter().count() == wanted.len() && contained(wanted, seen))
}
