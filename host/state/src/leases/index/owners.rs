//! Who holds what: a slot per lease, found by the hash of its owner.

use super::pages::{Pages, SLOT, Slot, field, slot_of};
use crate::Owner;
use crate::leases::directory::Identity;
use sha2::{Digest, Sha256};
use std::io;

/// The first half of a SHA-256: a container id is the runtime's text, so collisions must not be makeable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::leases) struct OwnerHash([u8; 16]);

impl OwnerHash {
    /// Of an attachment; of a legacy lease when the interface is empty.
    pub(in crate::leases) fn of(container_id: &str, ifname: &str) -> Self {
        let id = container_id.trim();
        let digest = Sha256::new()
            .chain_update((id.len() as u64).to_le_bytes())
            .chain_update(id)
            .chain_update(ifname)
            .finalize();
        Self(field(&digest, 0))
    }

    /// Of this owner, and of the legacy lease that may be its.
    pub(in crate::leases) fn both(owner: &Owner) -> [Self; 2] {
        [Self::of(&owner.container_id, &owner.ifname), Self::of(&owner.container_id, "")]
    }

    /// Of a file that can't be read: nobody's.
    pub(in crate::leases) const UNKNOWN: Self = Self([0; 16]);

    /// Where the search for it begins, in a table of `capacity` (a power of two).
    pub(super) fn home(self, capacity: u64) -> u64 {
        u64::from_le_bytes(field(&self.0, 0)) & (capacity - 1)
    }
}

/// What the index knows of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::leases) struct Holding {
    pub(in crate::leases) owner: OwnerHash,
    pub(in crate::leases) number: u128,
    /// Hash of the boot that it was made in; 0 when this store didn't make it.
    pub(in crate::leases) boot: u64,
    pub(in crate::leases) identity: Identity,
    /// Of which range set, when this store made it.
    pub(in crate::leases) set: Option<u32>,
}

impl Holding {
    pub(super) fn from_slot(slot: &Slot) -> Option<Self> {
        let kind = slot.get(60).copied().unwrap_or(0);
        (kind != 0).then(|| Self {
            owner: OwnerHash(field(slot, 0)),
            number: u128::from_le_bytes(field(slot, 16)),
            boot: u64::from_le_bytes(field(slot, 32)),
            identity: Identity {
                inode: u64::from_le_bytes(field(slot, 40)),
                ctime: i64::from_le_bytes(field(slot, 48)),
            },
            set: (kind == 2).then(|| u32::from_le_bytes(field(slot, 56))),
        })
    }

    pub(super) fn to_slot(self) -> Slot {
        slot_of(&[
            &self.owner.0,
            &self.number.to_le_bytes(),
            &self.boot.to_le_bytes(),
            &self.identity.inode.to_le_bytes(),
            &self.identity.ctime.to_le_bytes(),
            &self.set.unwrap_or(0).to_le_bytes(),
            &[if self.set.is_some() { 2 } else { 1 }],
        ])
    }
}

/// An open-addressing table within the index: where it begins, and its slots (a power of two).
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    pub(super) start: u64,
    pub(super) capacity: u64,
}

impl Table {
    /// Where a slot is; they go round.
    pub(super) fn at(self, slot: u64) -> u64 {
        self.start + (slot & (self.capacity - 1)) * SLOT as u64
    }

    pub(super) fn full() -> io::Error {
        io::Error::other("the index of leases is full")
    }

    /// Every lease, with the slot it is in.
    pub(super) fn each(self, pages: &mut Pages, mut f: impl FnMut(u64, Holding)) -> io::Result<()> {
        let mut number = 0;
        pages.each(self.start, self.capacity * SLOT as u64, |slot| {
            if let Some(holding) = Holding::from_slot(slot) {
                f(number, holding);
            }
            number += 1;
        })
    }

    /// All that `owner` holds.
    pub(super) fn find(self, pages: &mut Pages, owner: OwnerHash) -> io::Result<Vec<Holding>> {
        let mut found = Vec::new();
        for step in 0..self.capacity {
            match Holding::from_slot(&pages.read(self.at(owner.home(self.capacity) + step))?) {
                Some(holding) if holding.owner == owner => found.push(holding),
                Some(_) => {}
                None => return Ok(found),
            }
        }
        Err(Self::full())
    }

    pub(super) fn insert(self, pages: &mut Pages, holding: &Holding) -> io::Result<()> {
        for step in 0..self.capacity {
            let at = self.at(holding.owner.home(self.capacity) + step);
            if Holding::from_slot(&pages.read(at)?).is_none() {
                return pages.write(at, &holding.to_slot());
            }
        }
        Err(Self::full())
    }

    /// Removes it and closes the gap (Knuth, The Art of Computer Programming 3, 6.4, algorithm R): no tombstones, so a
    /// table that changes for years stays as fast as a new one. Whether it was there.
    pub(super) fn remove(self, pages: &mut Pages, owner: OwnerHash, number: u128) -> io::Result<bool> {
        let home = owner.home(self.capacity);
        let mut gap = None;
        for step in 0..self.capacity {
            match Holding::from_slot(&pages.read(self.at(home + step))?) {
                Some(holding) if holding.owner == owner && holding.number == number => {
                    gap = Some(home + step);
                    break;
                }
                Some(_) => {}
                None => return Ok(false),
            }
        }
        let Some(mut gap) = gap else { return Ok(false) };
        let mask = self.capacity - 1;
        for next in gap + 1..gap + self.capacity {
            let Some(holding) = Holding::from_slot(&pages.read(self.at(next))?) else { break };
            // It may move when the gap lies between its home and where it is.
            let distance = next.wrapping_sub(holding.owner.home(self.capacity)) & mask;
            if distance >= next - gap {
                pages.write(self.at(gap), &holding.to_slot())?;
                gap = next;
            }
        }
        pages.write(self.at(gap), &[0; SLOT])?;
        Ok(true)
    }
}
