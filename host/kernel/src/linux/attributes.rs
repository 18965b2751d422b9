//! Reading netlink attributes.
//!
//! Only what is asked for is looked at: a typed parser that stops at the first attribute it doesn't understand would
//! let one exotic link or route of the node stop every pod.

use super::socket::{i32_at, text_of, u16_at, u32_at};
use netlink_packet_core::NlasIterator;
use std::net::IpAddr;

/// The attributes of one object, or those nested in one of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Those that follow the fixed header of `header` bytes.
    pub(crate) fn after(payload: &'a [u8], header: usize) -> Self {
        Self(payload.get(header..).unwrap_or_default())
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        NlasIterator::new(self.0).map_while(Result::ok).filter_map(|nla| {
            let value = nla.into_inner().get(4..4 + nla.value_length())?;
            Some((nla.kind(), value))
        })
    }

    pub(crate) fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    pub(crate) fn nested(self, kind: u16) -> Option<Self> {
        self.get(kind).map(Self)
    }

    pub(crate) fn text(self, kind: u16) -> Option<String> {
        self.get(kind).map(text_of)
    }

    pub(crate) fn u8(self, kind: u16) -> Option<u8> {
        self.get(kind)?.first().copied()
    }

    pub(crate) fn u16(self, kind: u16) -> Option<u16> {
        u16_at(self.get(kind)?, 0)
    }

    pub(crate) fn u32(self, kind: u16) -> Option<u32> {
        u32_at(self.get(kind)?, 0)
    }

    pub(crate) fn i32(self, kind: u16) -> Option<i32> {
        i32_at(self.get(kind)?, 0)
    }

    pub(crate) fn ip(self, kind: u16) -> Option<IpAddr> {
        ip_of(self.get(kind)?)
    }
}

/// 4 or 16 bytes.
pub(crate) fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
        16 => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
        _ => None,
    }
}
