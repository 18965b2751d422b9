//! The bytes of an index: slots of 64 bytes, in a file or, when no file can be had, in memory for this one operation.
//!
//! pread and pwrite rather than mmap: a file that somebody truncates would end a mapping process by SIGBUS.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

pub(super) const SLOT: usize = 64;
pub(super) type Slot = [u8; SLOT];

const PAGE: u64 = 4096;
/// What is read at once of a table.
const RUN: u64 = 64 << 10;

#[derive(Debug)]
enum Backing {
    File(File),
    Memory,
}

#[derive(Debug)]
pub(super) struct Pages {
    backing: Backing,
    /// What was read; for memory, all there is.
    cache: BTreeMap<u64, Vec<u8>>,
    /// A write failed (a full disk): what the file says is no longer to be believed.
    pub(super) broken: bool,
}

impl Pages {
    pub(super) fn of_file(file: File) -> Self {
        Self { backing: Backing::File(file), cache: BTreeMap::new(), broken: false }
    }

    /// Of zeros, in memory.
    pub(super) fn in_memory() -> Self {
        Self { backing: Backing::Memory, cache: BTreeMap::new(), broken: false }
    }

    /// What was made in memory, in a file of zeros, page by page.
    ///
    /// # Errors
    /// The file's: a full disk.
    pub(super) fn into_file(self, file: File) -> io::Result<Self> {
        for (number, page) in &self.cache {
            file.write_all_at(page, number * PAGE)?;
        }
        Ok(Self { backing: Backing::File(file), ..self })
    }

    /// Whether the next operation will find what was written.
    pub(super) fn in_file(&self) -> bool {
        matches!(self.backing, Backing::File(_)) && !self.broken
    }

    fn page(&mut self, number: u64) -> io::Result<&mut Vec<u8>> {
        use std::collections::btree_map::Entry;
        match self.cache.entry(number) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let mut page = vec![0; PAGE as usize];
                if let Backing::File(file) = &self.backing {
                    file.read_exact_at(&mut page, number * PAGE)?;
                }
                Ok(unknown.insert(page))
            }
        }
    }

    /// The slot at byte `at`, a multiple of its size.
    pub(super) fn read(&mut self, at: u64) -> io::Result<Slot> {
        Ok(field(self.page(at / PAGE)?, (at % PAGE) as usize))
    }

    pub(super) fn write(&mut self, at: u64, slot: &Slot) -> io::Result<()> {
        let start = (at % PAGE) as usize;
        if let Some(place) = self.page(at / PAGE)?.get_mut(start..start + SLOT) {
            place.copy_from_slice(slot);
        }
        if let Backing::File(file) = &self.backing
            && file.write_all_at(slot, at).is_err()
        {
            self.broken = true;
        }
        Ok(())
    }

    /// As `read`, for one of very many: keeps nothing of a file in memory.
    pub(super) fn look(&mut self, at: u64) -> io::Result<Slot> {
        match &self.backing {
            Backing::File(file) if !self.broken => {
                let mut slot = [0; SLOT];
                file.read_exact_at(&mut slot, at)?;
                Ok(slot)
            }
            _ => self.read(at),
        }
    }

    /// As `write`, for one of very many, and of a page that was not read yet: keeps nothing of a file in memory.
    ///
    /// # Errors
    /// The file's: a full disk.
    pub(super) fn put(&mut self, at: u64, slot: &Slot) -> io::Result<()> {
        match &self.backing {
            Backing::File(file) => file.write_all_at(slot, at),
            Backing::Memory => self.write(at, slot),
        }
    }

    /// Every slot of the `length` bytes from `at`, in order.
    pub(super) fn each(&mut self, at: u64, length: u64, mut f: impl FnMut(&Slot)) -> io::Result<()> {
        let mut run = Vec::new();
        for start in (at..at + length).step_by(RUN as usize) {
            let run_length = RUN.min(at + length - start);
            match &self.backing {
                Backing::File(file) if !self.broken => {
                    run.resize(run_length as usize, 0);
                    file.read_exact_at(&mut run, start)?;
                    run.as_chunks::<SLOT>().0.iter().for_each(&mut f);
                }
                _ => {
                    for at in (start..start + run_length).step_by(SLOT) {
                        f(&self.read(at)?);
                    }
                }
            }
        }
        Ok(())
    }
}

/// `N` bytes from `at`; zeros where there are none.
pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(<[u8]>::first_chunk::<N>).copied().unwrap_or([0; N])
}

/// A slot of these parts, zeros after them.
pub(super) fn slot_of(parts: &[&[u8]]) -> Slot {
    let mut slot = [0; SLOT];
    for (place, byte) in slot.iter_mut().zip(parts.iter().flat_map(|part| part.iter())) {
        *place = *byte;
    }
    slot
}
