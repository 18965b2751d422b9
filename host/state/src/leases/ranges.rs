//! Arithmetic on addresses of both families: an IPv4 address is the number of its mapped IPv6 address.

use super::Range;
use crate::{Outcome, StateError};
use std::net::{IpAddr, Ipv6Addr};

/// The number of an address.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of a number. A mapped IPv6 address is its IPv4 one, as Go's `net.IP` prints it, so host-local's files too.
pub(super) fn address(number: u128) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(number)).to_canonical()
}

/// A run of numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u128,
    pub(super) last: u128,
}

impl Span {
    pub(super) fn contains(self, number: u128) -> bool {
        self.first <= number && number <= self.last
    }

    /// The part of it within `other`.
    pub(super) fn intersection(self, other: Self) -> Option<Self> {
        let both = Self { first: self.first.max(other.first), last: self.last.min(other.last) };
        (both.first <= both.last).then_some(both)
    }

    /// How many addresses, saturating (the whole of IPv6 is one more than fits).
    pub(super) fn size(self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }
}

/// The numbers of `ranges`, in their order.
pub(super) fn spans(ranges: &[Range]) -> Outcome<Vec<Span>> {
    ranges
        .iter()
        .map(|range| {
            let span = Span { first: number(range.first), last: number(range.last) };
            if address(span.first).is_ipv4() != address(span.last).is_ipv4() || span.first > span.last {
                return Err(StateError::Invalid(format!("{}-{} is no range of addresses", range.first, range.last)));
            }
            Ok(span)
        })
        .collect()
}

/// In which order to look: from the address after the cursor to the end of its range, through the following ranges, and
/// around to the cursor itself; from the first range's start when the cursor lies in none. This is the order of
/// `RangeIter.Next` in host-local's allocator.go.
pub(super) fn round(spans: &[Span], cursor: Option<u128>) -> Vec<Span> {
    let at = cursor.and_then(|cursor| Some((spans.iter().position(|span| span.contains(cursor))?, cursor)));
    let Some((index, cursor)) = at else { return spans.to_vec() };
    let (before, rest) = spans.split_at(index);
    let Some((own, after)) = rest.split_first() else { return spans.to_vec() };
    let mut order = Vec::with_capacity(spans.len() + 1);
    if cursor < own.last {
        order.push(Span { first: cursor + 1, last: own.last });
    }
    order.extend_from_slice(after);
    order.extend_from_slice(before);
    order.push(Span { first: own.first, last: cursor });
    order
}

/// `10.1.2.1-10.1.2.6,10.1.3.1-10.1.3.6`, as host-local's `RangeSet.String`.
pub(super) fn text(ranges: &[Range]) -> String {
    ranges.iter().map(|range| format!("{}-{}", range.first, range.last)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(first: u128, last: u128) -> Span {
        Span { first, last }
    }

    #[test]
    fn starts_after_the_cursor_and_ends_at_it() {
        let spans = [span(1, 3), span(10, 12)];
        for (cursor, wanted) in [
            (None, vec![span(1, 3), span(10, 12)]),
            (Some(5), vec![span(1, 3), span(10, 12)]),
            (Some(2), vec![span(3, 3), span(10, 12), span(1, 2)]),
            (Some(3), vec![span(10, 12), span(1, 3)]),
            (Some(12), vec![span(1, 3), span(10, 12)]),
            (Some(10), vec![span(11, 12), span(1, 3), span(10, 10)]),
        ] {
            assert_eq!(round(&spans, cursor), wanted, "{cursor:?}");
        }
    }

    #[test]
    fn a_range_is_of_one_family_and_ascending() {
        for (first, last) in [("10.0.0.2", "10.0.0.1"), ("10.0.0.1", "fd00::1"), ("::1", "10.0.0.1")] {
            let range = Range { first: first.parse().unwrap(), last: last.parse().unwrap() };
            assert!(matches!(spans(&[range]), Err(StateError::Invalid(_))), "{first} {last}");
        }
        let all =
            Range { first: "::".parse().unwrap(), last: "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap() };
        assert_eq!(spans(&[all]).unwrap().first().unwrap().size(), u128::MAX);
    }

    proptest! {
        #[test]
        fn a_round_sees_each_address_once(cursor in 0u128..60, lengths in prop::collection::vec(1u128..9, 1..5)) {
            let mut at = 1;
            let spans: Vec<Span> = lengths.iter().map(|length| { let s = span(at, at + length - 1); at += length + 1; s }).collect();
            let list = |spans: &[Span]| spans.iter().flat_map(|s| s.first..=s.last).collect::<Vec<_>>();
            let order = list(&round(&spans, Some(cursor)));
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, list(&spans));
            if spans.iter().any(|s| s.contains(cursor)) {
                prop_assert_eq!(order.last(), Some(&cursor));
            }
        }

        #[test]
        fn numbers_and_back(bits: u128, v4: u32) {
            let v6 = IpAddr::V6(Ipv6Addr::from_bits(bits)).to_canonical();
            prop_assert_eq!(address(number(v6)), v6);
            let v4 = IpAddr::V4(std::net::Ipv4Addr::from_bits(v4));
            prop_assert_eq!(address(number(v4)), v4);
        }
    }
}
