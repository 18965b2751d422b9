//! What a former index knows of each address, to be taken over where the file's inode and time of change are still the
//! same: whose it is without reading the file, and the boot, which only the index knows.

use super::Index;
use super::owners::Holding;

/// A lease of a former index.
pub(super) struct Known {
    pub(super) holding: Holding,
    /// Its file changed last well before the index was last right. Otherwise it may have changed once more within the
    /// same tick of the clock, with the same time and inode (what git calls a racy entry), and is read again.
    pub(super) settled: bool,
}

pub(super) struct Former<'a> {
    index: Option<&'a mut Index>,
    /// The last 32 bits of each address, which few IPv6 addresses share, and which slot has its lease; sorted. The leases
    /// themselves stay in the file: 60,000 of them are megabytes.
    places: Vec<(u32, u32)>,
}

impl<'a> Former<'a> {
    /// Of an index; one that knows nothing of none, or of one that can't be read.
    pub(super) fn of(mut index: Option<&'a mut Index>) -> Self {
        let mut places = Vec::new();
        if let Some(index) = &mut index {
            places.reserve_exact(index.header.holdings as usize);
            let listed = index.header.owners().each(&mut index.pages, |slot, holding| {
                places.push((holding.number as u32, slot as u32));
            });
            if listed.is_err() {
                places.clear();
            }
        }
        places.sort_unstable();
        Self { index, places }
    }

    pub(super) fn find(&mut self, number: u128) -> Option<Known> {
        let index = self.index.as_mut()?;
        let from = self.places.partition_point(|(low, _)| *low < number as u32);
        let mut alike = self.places.get(from..)?.iter().take_while(|(low, _)| *low == number as u32);
        let table = index.header.owners();
        alike.find_map(|(_, slot)| {
            let at = table.at(u64::from(*slot));
            let slot = if index.header.is_small() { index.pages.read(at) } else { index.pages.look(at) };
            let holding = Holding::from_slot(&slot.ok()?)?;
            let settled = holding.identity.ctime < index.header.stamp;
            (holding.number == number).then_some(Known { holding, settled })
        })
    }
}
