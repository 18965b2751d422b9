//! An index that is being made. Its slots are written where they will lie, in the new file, and only which of them are
//! taken is kept here: a bit for each, where the tables of 60,000 leases are eight megabytes.

use super::blocks::{self, Block};
use super::owners::{Holding, Table};
use super::pages::{Pages, SLOT, Slot};
use super::{Header, PLACE, TABLES};
use std::collections::HashMap;
use std::io;

pub(super) struct Draft {
    pages: Pages,
    header: Header,
    blocks: HashMap<u128, Block>,
    holdings: Filling,
}

impl Draft {
    /// An empty one with room for what the header says; `pages` are all zeros.
    pub(super) fn new(pages: Pages, header: Header) -> Self {
        let holdings = Filling::new(header.owners());
        Self { pages, header: Header { blocks_used: 0, holdings: 0, ..header }, blocks: HashMap::new(), holdings }
    }

    /// Adds a lease.
    ///
    /// # Errors
    /// Of the file, or that there are more than room was made for.
    pub(super) fn add(&mut self, holding: &Holding) -> io::Result<()> {
        let number = holding.number >> 8;
        self.blocks.entry(number).or_insert(Block { number, taken: [0; 4] }).set((holding.number & 0xff) as u8, true);
        self.header.holdings += 1;
        self.holdings.put(&mut self.pages, holding.owner.home(self.header.holding_slots), &holding.to_slot())
    }

    /// Adds what is left, the header last.
    ///
    /// # Errors
    /// As `add`.
    pub(super) fn finish(mut self, place: &[u8]) -> io::Result<(Pages, Header)> {
        let capacity = self.header.block_slots;
        let mut filling = Filling::new(Table { start: TABLES, capacity });
        for block in self.blocks.values() {
            filling.put(&mut self.pages, blocks::home(block.number, capacity), &block.to_slot())?;
        }
        self.header.blocks_used = self.blocks.len() as u64;
        // One that does not fit is left out: it is not needed.
        if place.len() < (TABLES - PLACE) as usize {
            for (at, part) in (PLACE..).step_by(SLOT).zip(place.chunks(SLOT)) {
                self.pages.put(at, &super::pages::slot_of(&[part]))?;
            }
        }
        self.pages.put(0, &self.header.to_slot())?;
        Ok((self.pages, self.header))
    }
}

/// A table that only grows.
struct Filling {
    table: Table,
    /// A bit for each slot.
    taken: Vec<u64>,
}

impl Filling {
    fn new(table: Table) -> Self {
        Self { table, taken: vec![0; table.capacity.div_ceil(64) as usize] }
    }

    /// Into the first free slot from `home` on.
    fn put(&mut self, pages: &mut Pages, home: u64, slot: &Slot) -> io::Result<()> {
        for place in (home..home + self.table.capacity).map(|place| place & (self.table.capacity - 1)) {
            let bit = 1 << (place % 64);
            match self.taken.get_mut((place / 64) as usize) {
                Some(word) if *word & bit == 0 => {
                    *word |= bit;
                    return pages.put(self.table.at(place), slot);
                }
                _ => {}
            }
        }
        Err(Table::full())
    }
}
