//! Which addresses are taken: a bitmap for each run of 256 addresses that has or had a lease.
//!
//! Sixteen neighbouring runs lie beside each other, so that finding the one hole in a full /16 reads 16 pages.

use super::pages::{Pages, SLOT, Slot, field, slot_of};
use crate::leases::ranges::Span;
use std::io;

const GROUP: u64 = 16;

/// Addresses `number * 256` to `number * 256 + 255`; a bit is set when taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) number: u128,
    pub(super) taken: [u64; 4],
}

impl Block {
    pub(super) fn from_slot(slot: &Slot) -> Option<Self> {
        let word = |n: usize| u64::from_le_bytes(field(slot, 16 + 8 * n));
        (slot.get(48) == Some(&1))
            .then(|| Self { number: u128::from_le_bytes(field(slot, 0)), taken: [word(0), word(1), word(2), word(3)] })
    }

    pub(super) fn to_slot(self) -> Slot {
        let [a, b, c, d] = self.taken.map(u64::to_le_bytes);
        slot_of(&[&self.number.to_le_bytes(), &a, &b, &c, &d, &[1]])
    }

    pub(super) fn set(&mut self, address: u8, taken: bool) {
        if let Some(word) = self.taken.get_mut(usize::from(address / 64)) {
            let bit = 1 << (address % 64);
            *word = if taken { *word | bit } else { *word & !bit };
        }
    }

    /// The lowest free address from `from` on.
    pub(super) fn next_free(&self, from: u8) -> Option<u8> {
        let start = usize::from(from / 64);
        for (n, word) in self.taken.iter().enumerate().skip(start) {
            let below = if n == start { (1u64 << (from % 64)) - 1 } else { 0 };
            let bit = (!(word | below)).trailing_zeros();
            if bit < 64 {
                return u8::try_from(n as u32 * 64 + bit).ok();
            }
        }
        None
    }

    /// How many addresses of `span` are taken.
    pub(super) fn taken_in(&self, span: Span) -> u32 {
        let own = Span { first: self.number << 8, last: self.number << 8 | 0xff };
        let Some(part) = own.intersection(span) else { return 0 };
        let (first, last) = ((part.first & 0xff) as u32, (part.last & 0xff) as u32);
        (0u32..).step_by(64).zip(self.taken).map(|(base, word)| (word & bits(base, first, last)).count_ones()).sum()
    }
}

/// The bits of the word that begins at `base` that stand for `first` to `last`.
fn bits(base: u32, first: u32, last: u32) -> u64 {
    let (low, high) = (first.max(base), last.min(base + 63));
    if low > high { 0 } else { (u64::MAX >> (63 - (high - low))) << (low - base) }
}

/// Where the search for a block begins, in a table of `capacity` (a power of two, at least a group).
pub(super) fn home(number: u128, capacity: u64) -> u64 {
    // splitmix64's finaliser: neighbouring groups spread over the table.
    let group = number >> GROUP.trailing_zeros();
    let mut hash = (group as u64) ^ ((group >> 64) as u64).rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15;
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    (hash & (capacity - 1) & !(GROUP - 1)) | (number as u64 & (GROUP - 1))
}

/// The block and its place; or the place where it would go.
pub(super) fn find(pages: &mut Pages, start: u64, capacity: u64, number: u128) -> io::Result<(u64, Option<Block>)> {
    let home = home(number, capacity);
    for step in 0..capacity {
        let at = start + ((home + step) & (capacity - 1)) * SLOT as u64;
        match Block::from_slot(&pages.read(at)?) {
            Some(block) if block.number == number => return Ok((at, Some(block))),
            Some(_) => {}
            None => return Ok((at, None)),
        }
    }
    Err(io::Error::other("the index of leases is full"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_block_agrees_with_a_list(set in prop::collection::btree_set(any::<u8>(), 0..256), from: u8, first: u8, last: u8, number in 0u128..1 << 120) {
            let mut block = Block { number, taken: [0; 4] };
            for address in &set {
                block.set(*address, true);
            }
            prop_assert_eq!(Block::from_slot(&block.to_slot()), Some(block));
            prop_assert_eq!(block.next_free(from), (from..=255).find(|a| !set.contains(a)));
            let span = Span { first: number << 8 | u128::from(first.min(last)), last: number << 8 | u128::from(first.max(last)) };
            prop_assert_eq!(block.taken_in(span) as usize, set.range(first.min(last)..=first.max(last)).count());
            prop_assert_eq!(block.taken_in(Span { first: 0, last: u128::MAX }) as usize, set.len());
            for address in &set {
                block.set(*address, false);
            }
            prop_assert_eq!(block.taken, [0; 4]);
        }
    }
}
