//! Netlink attributes to be sent, as a tree: written for the kernel, and compared with what it gives back.

use crate::linux::attributes::Attributes;

const NESTED: u16 = 1 << 15;

/// One attribute.
#[derive(Debug, Clone)]
pub(super) struct Attribute {
    kind: u16,
    value: Value,
}

#[derive(Debug, Clone)]
enum Value {
    Bytes(Vec<u8>),
    Nest(Vec<Attribute>),
}

pub(super) fn bytes(kind: u16, value: &[u8]) -> Attribute {
    Attribute { kind, value: Value::Bytes(value.to_vec()) }
}

/// A string with its final zero.
pub(super) fn text(kind: u16, value: &str) -> Attribute {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    Attribute { kind, value: Value::Bytes(bytes) }
}

pub(super) fn number(kind: u16, value: u32) -> Attribute {
    bytes(kind, &value.to_be_bytes())
}

pub(super) fn number64(kind: u16, value: u64) -> Attribute {
    bytes(kind, &value.to_be_bytes())
}

pub(super) fn nest(kind: u16, value: Vec<Attribute>) -> Attribute {
    Attribute { kind, value: Value::Nest(value) }
}

/// Appends them, each padded to a multiple of four bytes.
pub(super) fn write(attributes: &[Attribute], out: &mut Vec<u8>) {
    for attribute in attributes {
        let start = out.len();
        let nested = if matches!(attribute.value, Value::Nest(_)) { NESTED } else { 0 };
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&(attribute.kind | nested).to_ne_bytes());
        match &attribute.value {
            Value::Bytes(bytes) => out.extend_from_slice(bytes),
            Value::Nest(inner) => write(inner, out),
        }
        // Far below 64 KiB: the longest is the rule, whose length is limited by its makers.
        let length = out.len().wrapping_sub(start) as u16;
        if let Some(room) = out.get_mut(start..).and_then(|a| a.first_chunk_mut()) {
            *room = length.to_ne_bytes();
        }
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

/// Whether `seen` has everything that was sent, with the same values. The kernel's dumps have more than was sent: what
/// it filled in with defaults.
pub(super) fn contained(sent: &[Attribute], seen: Attributes<'_>) -> bool {
    sent.iter().enumerate().all(|(index, attribute)| {
        let before = sent.iter().take(index).filter(|other| other.kind == attribute.kind).count();
        let value = seen.iter().filter(|(kind, _)| *kind == attribute.kind).nth(before).map(|(_, value)| value);
        match (&attribute.value, value) {
            (Value::Bytes(bytes), Some(value)) => bytes == value,
            (Value::Nest(inner), Some(value)) => contained(inner, Attributes::after(value, 0)),
            (Value::Nest(inner), None) => inner.is_empty(),
            (Value::Bytes(_), None) => false,
        }
    })
}
