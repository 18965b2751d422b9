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

    pub(super) fn of_image(image: &[u8], file: Option<File>) -> Self {
        let backing = file.map_or(Backing::Memory, Backing::File);
        let pages = image.chunks(PAGE as usize).map(<[u8]>::to_vec);
        Self { backing, cache: (0..).zip(pages).collect(), broken: false }
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

    /// `length` bytes from `at`, as they are now.
    pub(super) fn read_run(&mut self, at: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut run = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        match &self.backing {
            Backing::File(file) if !self.broken => file.read_exact_at(&mut run, at)?,
            _ => {
                for (number, chunk) in (at / PAGE..).zip(run.chunks_mut(PAGE as usize)) {
                    let page = self.page(number)?;
                    if let Some(part) = page.get(..chunk.len()) {
                        chunk.copy_from_slice(part);
                    }
                }
            }
        }
        Ok(run)
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
