//! Reading netlink attributes.
//!
//! Only what is asked for is looked at: a typed parser that stops at the first attribute it doesn't understand would
//! let one exotic link or route of the node stop every pod.

use super::socket::{i32_at, text_of, u16_at, u32_at};
use std::net::IpAddr;

/// `struct nlattr`: length, kind (linux/netlink.h). A link has 45 of them: they are read through more often than anything else, and the
/// library's iterator, which checks each again at each question, took 4% of an ADD.
const HEADER: usize = 4;
const ALIGNMENT: usize = 4;
/// NLA_TYPE_MASK: without "nested" and "in network order".
const KIND: u16 = 0x3fff;

/// The attributes of one object, or those nested in one of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Those that follow the fixed header of `header` bytes.
    pub(crate) fn after(payload: &'a [u8], header: usize) -> Self {
        Self(payload.get(header..).unwrap_or_default())
    }

    /// What comes after one that is cut short is not looked at.
    pub(crate) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let [a, b, c, d] = *rest.first_chunk()?;
            let length = usize::from(u16::from_ne_bytes([a, b]));
            let value = rest.get(HEADER..length)?;
            rest = rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
            Some((u16::from_ne_bytes([c, d]) & KIND, value))
        })
    }

    pub(crate) fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    /// Those of kinds below `N`, by their kind, in one pass; of several of one kind the first.
    pub(crate) fn by_kind<const N: usize>(self) -> [Option<&'a [u8]>; N] {
        let mut found = [None; N];
        for (kind, value) in self.iter() {
            if let Some(place) = found.get_mut(usize::from(kind)) {
                place.get_or_insert(value);
            }
        }
        found
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

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::NlasIterator;
    use proptest::prelude::*;

    /// As the library reads them.
    fn reference(bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
        NlasIterator::new(bytes)
            .map_while(Result::ok)
            .filter_map(|nla| Some((nla.kind(), nla.into_inner().get(4..4 + nla.value_length())?.to_vec())))
            .collect()
    }

    fn ours(bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
        Attributes(bytes).iter().map(|(kind, value)| (kind, value.to_vec())).collect()
    }

    #[test]
    fn attributes_of_every_length_and_broken_ones() {
        let bytes = [5, 0, 1, 0, 7, 0, 0, 0, 4, 0, 2, 0x80, 8, 0, 3, 0x40, 1, 2, 3, 4];
        assert_eq!(ours(&bytes), [(1, vec![7]), (2, vec![]), (3, vec![1, 2, 3, 4])]);
        assert_eq!(ours(&bytes), reference(&bytes));
        // The last without its padding; a length beyond the end, one that is less than the header.
        assert_eq!(ours(&bytes[..5]), [(1, vec![7])]);
        assert_eq!(ours(&[9, 0, 1, 0, 7, 0, 0, 0]), []);
        assert_eq!(ours(&[4, 0, 1, 0, 3, 0, 2, 0]), [(1, vec![])]);
        assert_eq!(ours(&[4, 0, 1]), []);
    }

    proptest! {
        #[test]
        fn whole_attributes_are_read_as_the_library_reads_them(
            values in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..20)), 0..9),
        ) {
            let mut bytes = Vec::new();
            for (kind, value) in &values {
                bytes.extend_from_slice(&(value.len() as u16 + 4).to_ne_bytes());
                bytes.extend_from_slice(&kind.to_ne_bytes());
                bytes.extend_from_slice(value);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            prop_assert_eq!(ours(&bytes), reference(&bytes));
        }

        #[test]
        fn by_kind_is_the_same_as_one_by_one(bytes in prop::collection::vec(0_u8..9, 0..64)) {
            let attributes = Attributes(&bytes);
            let found = attributes.by_kind::<8>();
            for kind in 0..8 {
                prop_assert_eq!(found[usize::from(kind)], attributes.get(kind));
            }
        }

        #[test]
        fn anything_is_read_to_its_end(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(ours(&bytes).len() <= 16);
        }
    }
}
