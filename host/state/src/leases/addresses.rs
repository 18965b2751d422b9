//! A set of addresses that lie beside each other, as the files of a pool do: a bitmap for each run of 256 that has one.
//! 60,000 neighbours are 20 kilobytes; a list of their numbers is a megabyte, and half as much again while it grows.

use super::ranges;
use std::collections::BTreeMap;
use std::net::IpAddr;

#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// By the number of the run: the number of an address without its last eight bits.
    runs: BTreeMap<u128, [u128; 2]>,
    count: usize,
}

impl Addresses {
    pub(super) fn insert(&mut self, address: IpAddr) {
        let number = ranges::number(address);
        let [low, high] = self.runs.entry(number >> 8).or_default();
        let half = if number & 0x80 == 0 { low } else { high };
        let bit = 1 << (number & 0x7f);
        self.count += usize::from(*half & bit == 0);
        *half |= bit;
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// How many runs of 256 have one.
    pub(super) fn runs(&self) -> usize {
        self.runs.len()
    }

    /// The number of each, in order.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u128> {
        self.runs.iter().flat_map(|(run, halves)| {
            let taken =
                move |low: &u128| halves.get((low >> 7) as usize).is_some_and(|half| half >> (low & 0x7f) & 1 == 1);
            (0..256).filter(taken).map(move |low| run << 8 | low)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_list(v4 in prop::collection::vec(0u32..2000, 0..300), v6 in prop::collection::vec(any::<u128>(), 0..20)) {
            let addresses: Vec<IpAddr> =
                v4.into_iter().map(|n| IpAddr::V4(n.into())).chain(v6.into_iter().map(|n| IpAddr::V6(n.into()))).collect();
            let mut set = Addresses::default();
            for address in &addresses {
                set.insert(*address);
            }
            let mut list: Vec<u128> = addresses.iter().map(|address| ranges::number(*address)).collect();
            list.sort_unstable();
            list.dedup();
            prop_assert_eq!(set.numbers().collect::<Vec<_>>(), list.clone());
            prop_assert_eq!(set.len(), list.len());
            prop_assert_eq!(set.runs(), list.chunk_by(|a, b| a >> 8 == b >> 8).count());
        }
    }
}
