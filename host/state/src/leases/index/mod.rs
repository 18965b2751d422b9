//! An accelerator beside the lease files, so that taking, finding and giving back an address cost the same with none and
//! with 60,000 leases. The files are the truth: an index that may not agree with them is made again from them.
//!
//! When it agrees: after each change this store gives the lease directory a time of change that nobody else's change can
//! leave behind (`Directory::stamp`) and writes it into the header, last of all. Native host-local, an administrator and
//! a crash of ours between the change and that write all leave another time. An index of an earlier boot is not believed
//! either: its pages reached the disk in any order, or not at all.

mod blocks;
mod draft;
mod former;
mod owners;
mod pages;

pub(super) use owners::{Holding, OwnerHash};

use super::directory::{Content, Directory, Identity, shape};
use super::ranges::Span;
use crate::{Outcome, StateError};
use blocks::Block;
use draft::Draft;
use former::Former;
use nix::fcntl::OFlag;
use owners::Table;
use pages::{Pages, SLOT, Slot, field, slot_of};
use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The last character is the version of the form.
const MAGIC: [u8; 8] = *b"SWLEASE1";
/// The header has a page of its own, so that every table begins at a page.
const TABLES: u64 = 4096;
/// Behind the header: the path of the lease directory, to the first zero. For people who ask which directories there are
/// (the index's own name is a hash); nothing else depends on it.
const PLACE: u64 = SLOT as u64;
const FEWEST_BLOCKS: u64 = 64;
const FEWEST_HOLDINGS: u64 = 256;
/// About 8,000 leases.
const SMALL: u64 = 1 << 20;
/// 2^32 slots are more than any file here can be.
const MOST_SLOTS: u32 = 32;

#[derive(Debug, Clone, Copy)]
struct Header {
    device: u64,
    inode: u64,
    /// Time of change of the directory that this index agrees with; 0 for none.
    stamp: i64,
    boot: u64,
    blocks_used: u64,
    holdings: u64,
    block_slots: u64,
    holding_slots: u64,
}

impl Header {
    fn from_slot(slot: &Slot) -> Option<Self> {
        let word = |at| u64::from_le_bytes(field(slot, at));
        let slots = |at: usize| slot.get(at).filter(|log| u32::from(**log) <= MOST_SLOTS).map(|log| 1u64 << log);
        (field(slot, 0) == MAGIC).then_some(())?;
        let header = Self {
            device: word(8),
            inode: word(16),
            stamp: i64::from_le_bytes(field(slot, 24)),
            boot: word(32),
            blocks_used: word(40),
            holdings: word(48),
            block_slots: slots(56).filter(|n| *n >= FEWEST_BLOCKS)?,
            holding_slots: slots(57).filter(|n| *n >= FEWEST_HOLDINGS)?,
        };
        // Room is made for as many as it says: a damaged count must not ask for all the memory there is.
        let fits = header.blocks_used <= header.block_slots && header.holdings <= header.holding_slots;
        fits.then_some(header)
    }

    fn to_slot(self) -> Slot {
        slot_of(&[
            &MAGIC,
            &self.device.to_le_bytes(),
            &self.inode.to_le_bytes(),
            &self.stamp.to_le_bytes(),
            &self.boot.to_le_bytes(),
            &self.blocks_used.to_le_bytes(),
            &self.holdings.to_le_bytes(),
            &[self.block_slots.trailing_zeros() as u8, self.holding_slots.trailing_zeros() as u8],
        ])
    }

    /// The same with tables for this many blocks and leases, half of which stay free.
    fn with_room(self, blocks: usize, holdings: usize) -> Self {
        let slots = |used: usize, fewest: u64| (used as u64 * 2).next_power_of_two().max(fewest);
        Self { block_slots: slots(blocks, FEWEST_BLOCKS), holding_slots: slots(holdings, FEWEST_HOLDINGS), ..self }
    }

    /// Whether it may be in memory as a whole: a system call for each lease costs more than that, but 60,000 leases are
    /// eight megabytes.
    fn is_small(&self) -> bool {
        self.length() <= SMALL
    }

    fn owners(&self) -> Table {
        Table { start: TABLES + self.block_slots * SLOT as u64, capacity: self.holding_slots }
    }

    fn length(&self) -> u64 {
        TABLES + (self.block_slots + self.holding_slots) * SLOT as u64
    }
}

/// The index of one lease directory, for one operation under the directory's lock.
#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    header: Header,
    pages: Pages,
    /// Whether this operation made it from the files: then it can't be wrong.
    pub(super) fresh: bool,
}

impl Index {
    /// The index at `path` if it agrees with `directory`, else one made from the files. `boot` is the hash of the current
    /// boot, 0 when unknown.
    pub(super) fn open(path: &Path, directory: &Directory, boot: u64) -> Outcome<Self> {
        let (device, inode, changed) = directory.version()?;
        // Not by the device: its number may be another after a reboot (device mapper, btrfs), and then no lease would be
        // known to be of an earlier boot. What is taken over is compared file by file.
        let former = Self::load(path).filter(|index| index.header.inode == inode);
        match former {
            Some(index)
                if (index.header.device, index.header.stamp) == (device, changed)
                    && index.header.boot == boot
                    && boot != 0 =>
            {
                Ok(index)
            }
            mut former => Self::build(path, directory, boot, former.as_mut()),
        }
    }

    /// Makes it again from the files.
    pub(super) fn rebuild(&mut self, directory: &Directory) -> Outcome<()> {
        let (path, boot) = (self.path.clone(), self.header.boot);
        *self = Self::build(&path, directory, boot, Some(self))?;
        Ok(())
    }

    fn load(path: &Path) -> Option<Self> {
        let flags = OFlag::O_NOFOLLOW.bits();
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).ok()?;
        let metadata = file.metadata().ok()?;
        // Who else can write it can make us give an address twice.
        let ours = metadata.uid() == nix::unistd::geteuid().as_raw() && metadata.mode() & 0o022 == 0;
        let mut pages = Pages::of_file(file);
        let header = Header::from_slot(&pages.read(0).ok()?)?;
        (ours && metadata.is_file() && metadata.len() == header.length()).then(|| Self {
            path: path.to_owned(),
            header,
            pages,
            fresh: false,
        })
    }

    fn build(path: &Path, directory: &Directory, boot: u64, former: Option<&mut Self>) -> Outcome<Self> {
        let (device, inode, changed) = directory.version()?;
        let addresses = directory.addresses()?;
        let mut former = Former::of(former);
        let header =
            Header { device, inode, stamp: 0, boot, blocks_used: 0, holdings: 0, block_slots: 0, holding_slots: 0 };
        let header = header.with_room(addresses.runs(), addresses.len());
        let place = directory.path().as_os_str().as_bytes();
        let mut index = Self::write(path, header, place, |draft| {
            let mut leases = addresses.numbers().filter_map(|number| holding(directory, number, &mut former));
            leases.try_for_each(|lease| draft.add(&lease))
        })?;
        index.fresh = true;
        // Somebody who doesn't take the lock was at work meanwhile: right for this operation, not for the next.
        if directory.version()?.2 == changed {
            index.seal(directory);
        }
        Ok(index)
    }

    /// A new index of what `fill` adds, in the place of the old one; in memory when no file can be had, and then `fill`
    /// is called once more.
    fn write(
        path: &Path,
        header: Header,
        place: &[u8],
        mut fill: impl FnMut(&mut Draft) -> io::Result<()>,
    ) -> Outcome<Self> {
        let mut draw = |pages| {
            let mut draft = Draft::new(pages, header);
            fill(&mut draft)?;
            draft.finish(place)
        };
        let (pages, header) = replace(path, |file| {
            file.set_len(header.length())?;
            if !header.is_small() {
                return draw(Pages::of_file(file));
            }
            let (pages, header) = draw(Pages::in_memory())?;
            Ok((pages.into_file(file)?, header))
        })
        .or_else(|_| draw(Pages::in_memory()))
        .map_err(|error| StateError::io("build", path, error))?;
        Ok(Self { path: path.to_owned(), header, pages, fresh: false })
    }

    /// The same with larger tables.
    fn grown(&mut self) -> Outcome<Self> {
        let place = self.place().unwrap_or_default();
        let table = self.header.owners();
        let (mut blocks, mut count) = (HashSet::new(), 0);
        let counted = table.each(&mut self.pages, |_, holding| {
            blocks.insert(holding.number >> 8);
            count += 1;
        });
        counted.map_err(|error| self.unreadable(error))?;
        let header = self.header.with_room(blocks.len(), count);
        let grown = Self::write(&self.path, header, &place, |draft| {
            let mut added = Ok(());
            table.each(&mut self.pages, |_, holding| {
                if added.is_ok() {
                    added = draft.add(&holding);
                }
            })?;
            added
        })?;
        Ok(Self { fresh: self.fresh, ..grown })
    }

    /// Says that the index agrees with the directory as it is now. The last step of every operation that changed
    /// something; without it the next operation makes the index again.
    pub(super) fn seal(&mut self, directory: &Directory) {
        if !self.pages.in_file() {
            return;
        }
        if let Some(stamp) = directory.stamp(self.header.stamp) {
            self.header.stamp = stamp;
            // A failed write leaves the old stamp, which agrees with nothing.
            let _ = self.pages.write(0, &self.header.to_slot());
        }
    }

    /// The lowest free address of `span` that is not in `skip`.
    pub(super) fn next_free(&mut self, span: Span, skip: &BTreeSet<u128>) -> Outcome<Option<u128>> {
        let mut from = span.first;
        loop {
            let block = self.block(from >> 8).map_err(|error| self.unreadable(error))?.1;
            match block.map_or(Some((from & 0xff) as u8), |block| block.next_free((from & 0xff) as u8)) {
                Some(low) => {
                    let number = from & !0xff | u128::from(low);
                    if number > span.last {
                        return Ok(None);
                    }
                    if !skip.contains(&number) {
                        return Ok(Some(number));
                    }
                    from = number;
                }
                None => from |= 0xff,
            }
            if from >= span.last {
                return Ok(None);
            }
            from += 1;
        }
    }

    /// How many addresses of `spans` are taken.
    pub(super) fn taken_in(&mut self, spans: &[Span]) -> Outcome<u64> {
        let mut taken = 0;
        let count = |slot: &Slot| {
            let block = Block::from_slot(slot);
            taken += block.map_or(0, |block| spans.iter().map(|span| u64::from(block.taken_in(*span))).sum::<u64>());
        };
        let counted = self.pages.each(TABLES, self.header.block_slots * SLOT as u64, count);
        counted.map_err(|error| self.unreadable(error))?;
        Ok(taken)
    }

    /// What this owner holds.
    pub(super) fn held_by(&mut self, owner: OwnerHash) -> Outcome<Vec<Holding>> {
        self.header.owners().find(&mut self.pages, owner).map_err(|error| self.unreadable(error))
    }

    /// Every lease.
    pub(super) fn holdings(&mut self) -> Outcome<Vec<Holding>> {
        let mut holdings = Vec::with_capacity(self.header.holdings as usize);
        let listed = self.header.owners().each(&mut self.pages, |_, holding| holdings.push(holding));
        listed.map_err(|error| self.unreadable(error))?;
        Ok(holdings)
    }

    /// A lease was made. Never an error: the file is there, and an index that could not be changed is made again.
    pub(super) fn take(&mut self, holding: &Holding) {
        let crowded = |used: u64, slots: u64| (used + 1) * 10 > slots * 7;
        if crowded(self.header.holdings, self.header.holding_slots)
            || crowded(self.header.blocks_used, self.header.block_slots)
        {
            match self.grown() {
                Ok(grown) => *self = grown,
                Err(_) => self.pages.broken = true,
            }
        }
        let table = self.header.owners();
        if self.mark(holding.number, true).and_then(|()| table.insert(&mut self.pages, holding)).is_err() {
            self.pages.broken = true;
        }
        self.header.holdings += 1;
    }

    /// A lease is gone. Never an error, as `take`.
    pub(super) fn give(&mut self, owner: OwnerHash, number: u128) {
        match self.header.owners().remove(&mut self.pages, owner, number) {
            Ok(true) => self.header.holdings = self.header.holdings.saturating_sub(1),
            Ok(false) => {}
            Err(_) => self.pages.broken = true,
        }
        if self.mark(number, false).is_err() {
            self.pages.broken = true;
        }
    }

    /// Sets or clears the bit of an address.
    pub(super) fn mark(&mut self, number: u128, taken: bool) -> io::Result<()> {
        let (at, block) = self.block(number >> 8)?;
        if block.is_none() {
            self.header.blocks_used += 1;
        }
        let mut block = block.unwrap_or(Block { number: number >> 8, taken: [0; 4] });
        block.set((number & 0xff) as u8, taken);
        self.pages.write(at, &block.to_slot())
    }

    /// The path of the lease directory, as it was when the index was made; empty when it is not known.
    fn place(&mut self) -> io::Result<Vec<u8>> {
        let mut place = Vec::new();
        for at in (PLACE..TABLES).step_by(SLOT) {
            let slot = self.pages.read(at)?;
            let text = slot.split(|byte| *byte == 0).next().unwrap_or_default();
            place.extend_from_slice(text);
            if text.len() < SLOT {
                break;
            }
        }
        Ok(place)
    }

    fn block(&mut self, number: u128) -> io::Result<(u64, Option<Block>)> {
        blocks::find(&mut self.pages, TABLES, self.header.block_slots, number)
    }

    fn unreadable(&self, error: io::Error) -> StateError {
        let text =
            format!("could not read {}: {error}; it can be removed, and is then made again", self.path.display());
        StateError::Other(text)
    }
}

/// The lease directories that have an index in `root`, as far as the indexes say, sorted.
pub(super) fn places(root: &Path) -> Outcome<Vec<PathBuf>> {
    let failed = |error| StateError::io("list the indexes in", root, error);
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut places = Vec::new();
    for entry in entries {
        let Some(mut index) = Index::load(&entry.map_err(failed)?.path()) else { continue };
        let place = PathBuf::from(OsString::from_vec(index.place().unwrap_or_default()));
        if place.is_absolute() {
            places.push(place);
        }
    }
    places.sort_unstable();
    places.dedup();
    Ok(places)
}

/// What is behind an address's file; none when it is no lease.
fn holding(directory: &Directory, number: u128, former: &mut Former) -> Option<Holding> {
    let stat = directory.stat(number)?;
    let identity = Identity::from(&stat);
    let unknown = Holding { owner: OwnerHash::UNKNOWN, number, boot: 0, identity, set: None };
    match shape(&stat) {
        (true, 0) => return None,
        (false, _) => return Some(unknown),
        (true, _) => {}
    }
    let known = former.find(number).filter(|known| known.holding.identity == identity);
    if let Some(known) = known.as_ref().filter(|known| known.settled) {
        return Some(known.holding);
    }
    match directory.content(number) {
        Content::Missing | Content::Empty => None,
        Content::Unreadable => Some(unknown),
        Content::Owned(owner) => {
            let owner = OwnerHash::of(&owner.container_id, &owner.ifname);
            let same = known.map(|known| known.holding).filter(|holding| holding.owner == owner);
            Some(same.unwrap_or(Holding { owner, ..unknown }))
        }
    }
}

/// Lets `fill` write a new file beside `path` and renames it there, so that a crash leaves the old one, with what only
/// it knows: the boots. Nobody else does so at the same time: the lease directory is locked.
fn replace<T>(path: &Path, fill: impl FnOnce(File) -> io::Result<T>) -> io::Result<T> {
    let temporary = path.with_extension("new");
    let create = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        options.open(&temporary)
    };
    let file = create().or_else(|error| match (error.kind(), path.parent()) {
        (io::ErrorKind::NotFound, Some(parent)) => {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            create()
        }
        _ => Err(error),
    })?;
    let filled = fill(file).and_then(|filled| std::fs::rename(&temporary, path).map(|()| filled));
    if filled.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    filled
}
