//! The memory of a plugin: made for a process that lives for one call, and so never given back to the host.
//!
//! The standard library's allocator for this target (dlmalloc) merges what is freed and looks for the best fit: a third of all
//! instructions of a plugin, for a hundred objects that are all gone a millisecond later. Here an object is the next bytes of the memory, or
//! one of the same size that was freed before.
//!
//! A plugin that wants another one sets `default-features = false` and its own `#[global_allocator]`.

#![allow(unsafe_code)]

use sandwire_blocks::{GRAIN, lists};
use std::alloc::Layout;

/// Up to here there is a list for each multiple of GRAIN, then four for each doubling.
const FINE: usize = 512;
/// The largest block: all that a 32-bit memory can have.
const LARGEST: usize = 1 << 31;
const LISTS: usize = lists(FINE, LARGEST);

#[inline(always)]
fn list(size: usize) -> (usize, usize) {
    sandwire_blocks::list::<FINE>(size)
}

/// What is free. Addresses are numbers here: 0 is none.
pub(crate) struct Memory {
    /// From here on nothing was made yet, up to `end`.
    next: usize,
    end: usize,
    /// The last block of each list that was freed; its first bytes say which was before it.
    freed: [usize; LISTS],
}

impl Memory {
    pub(crate) const fn new() -> Self {
        Self { next: 0, end: 0, freed: [0; LISTS] }
    }

    /// A block; 0 when there is no more memory. `grow` gives this many bytes at least: from where to where.
    ///
    /// # Safety
    /// What `grow` gives is memory that nobody else uses, aligned to GRAIN.
    #[inline(always)]
    pub(crate) unsafe fn take(&mut self, layout: Layout, grow: impl FnMut(usize) -> Option<(usize, usize)>) -> usize {
        let (list, whole) = list(layout.size().min(LARGEST));
        match self.freed.get_mut(list) {
            Some(head) if *head != 0 && *head & (layout.align() - 1) == 0 => {
                let block = *head;
                // SAFETY: only `give` puts blocks there, and wrote this.
                *head = unsafe { std::ptr::with_exposed_provenance::<usize>(block).read() };
                block
            }
            _ if layout.size() > LARGEST => 0,
            _ => self.cut(whole, layout.align().max(GRAIN) - 1, grow),
        }
    }

    /// `odd`: the bits that the address of a block may not have.
    fn cut(&mut self, whole: usize, odd: usize, mut grow: impl FnMut(usize) -> Option<(usize, usize)>) -> usize {
        loop {
            let block = self.next.wrapping_add(odd) & !odd;
            // There is none until `end` says so; an address that wraps is before `next`.
            if self.end != 0 && block >= self.next && block <= self.end && whole <= self.end - block {
                self.next = block + whole;
                return block;
            }
            let Some((from, to)) = whole.checked_add(odd).and_then(&mut grow) else { return 0 };
            // What is left of the part before is lost, unless this continues it.
            if from != self.end {
                self.next = from;
            }
            self.end = to;
        }
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// It is of `take`, for this layout, and no longer in use.
    #[inline(always)]
    pub(crate) unsafe fn give(&mut self, block: usize, layout: Layout) {
        let (list, whole) = list(layout.size());
        if block + whole == self.next {
            self.next = block;
            return;
        }
        if let Some(head) = self.freed.get_mut(list) {
            // SAFETY: the block is not in use, and large and aligned enough for a number.
            unsafe { std::ptr::with_exposed_provenance_mut::<usize>(block).write(*head) };
            *head = block;
        }
    }

    /// Whether a block is large enough for another size as it is, or can be made so because it is the last one.
    pub(crate) fn resize(&mut self, block: usize, old: usize, new: usize) -> bool {
        if new > LARGEST {
            return false;
        }
        let ((old_list, old_whole), (new_list, new_whole)) = (list(old), list(new));
        if old_list == new_list {
            return true;
        }
        let fits = block + old_whole == self.next && new_whole <= self.end - block;
        if fits {
            self.next = block + new_whole;
        }
        fits
    }
}

#[cfg(all(target_arch = "wasm32", feature = "allocator"))]
mod global {
    use super::{GRAIN, Memory};
    use core::arch::wasm32::memory_grow;
    use std::alloc::{GlobalAlloc, Layout};
    use std::cell::UnsafeCell;
    use std::ptr::with_exposed_provenance_mut;

    const PAGE: usize = 64 << 10;

    struct Global(UnsafeCell<Memory>);
    // SAFETY: a component of this target has one thread.
    unsafe impl Sync for Global {}

    #[global_allocator]
    static GLOBAL: Global = Global(UnsafeCell::new(Memory::new()));

    /// What is there from the start and nobody's. A target with a C library has none: `malloc` takes it.
    #[cfg(target_os = "unknown")]
    fn there() -> (usize, usize) {
        unsafe extern "C" {
            /// Behind all that the program has in its memory when it starts (wasm-ld).
            static __heap_base: u8;
            /// Where that memory ends.
            static __heap_end: u8;
        }
        ((&raw const __heap_base).addr().next_multiple_of(GRAIN), (&raw const __heap_end).addr())
    }

    #[cfg(not(target_os = "unknown"))]
    const fn there() -> (usize, usize) {
        (GRAIN, GRAIN)
    }

    /// First what is there, then new pages, which the host maps with zeros, and which are the asker's alone.
    fn grow(is_first: bool, bytes: usize) -> Option<(usize, usize)> {
        let (from, to) = there();
        if is_first && to.checked_sub(from).is_some_and(|there| there >= bytes) {
            return Some((from, to));
        }
        let pages = bytes.div_ceil(PAGE);
        let before = memory_grow::<0>(pages);
        if before == usize::MAX {
            return None;
        }
        // The last page of 4 GiB would end at 0.
        Some((before * PAGE, (before + pages).checked_mul(PAGE)?))
    }

    // SAFETY: blocks are as large and aligned as asked for (`Memory`), and only one operation is in it at a time: there is one thread,
    // and none of them allocates.
    unsafe impl GlobalAlloc for Global {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: as above.
            let memory = unsafe { &mut *self.0.get() };
            let mut is_first = memory.end == 0;
            // SAFETY: as above.
            let block = unsafe { memory.take(layout, |bytes| grow(std::mem::take(&mut is_first), bytes)) };
            with_exposed_provenance_mut(block)
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: as above; the caller gives back what `alloc` gave.
            unsafe { (*self.0.get()).give(block.addr(), layout) };
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            // SAFETY: as above.
            if unsafe { (*self.0.get()).resize(block.addr(), layout.size(), size) } {
                return block;
            }
            // SAFETY: the caller promises that this size is valid with this alignment; both are that long, and different blocks, the
            // old one of which nobody uses any more.
            unsafe {
                let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
                if !new.is_null() {
                    new.copy_from_nonoverlapping(block, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                new
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::undocumented_unsafe_blocks, reason = "each works on memory that the test has just made")]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn lists_have_blocks_that_are_large_enough_for_all_their_sizes() {
        let mut before = (0, GRAIN);
        for size in (0..100_000).chain([LARGEST - 1, LARGEST]) {
            let (number, whole) = list(size);
            assert!(number < LISTS && whole >= size && whole.is_multiple_of(GRAIN), "{size}: {number}, {whole}");
            assert!(whole <= (size + GRAIN).max(size + size / 4), "{size} wastes: {whole}");
            assert!(number >= before.0 && whole >= before.1, "{size}");
            before = (number, whole);
        }
        assert_eq!(before, (LISTS - 1, LARGEST));
    }

    #[test]
    fn no_two_blocks_share_a_byte_whatever_is_asked_for() {
        let length = 4 << 20;
        let room = vec![0_u128; length / GRAIN];
        let start = room.as_ptr().expose_provenance();
        // Some parts continue the one before, others leave a gap, and at last there is none.
        let mut given = start;
        let mut parts = 0;
        let mut memory = Memory::new();
        let mut held: BTreeMap<usize, Layout> = BTreeMap::new();
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % below
        };
        let mut refused = 0;
        for turn in 0..100_000 {
            match random(5) {
                0 | 1 if !held.is_empty() => {
                    let at = *held.keys().nth(random(held.len())).unwrap();
                    let layout = held.remove(&at).unwrap();
                    unsafe { memory.give(at, layout) };
                }
                2 if !held.is_empty() => {
                    let at = *held.keys().nth(random(held.len())).unwrap();
                    let new = layout(random(3000), held[&at].align());
                    if memory.resize(at, held[&at].size(), new.size()) {
                        held.insert(at, new);
                    }
                }
                _ => {
                    let size = [30, 400, 3000, 40_000][random(4)];
                    let wanted = layout(random(size) + 1, 1 << random(7));
                    let block = unsafe {
                        memory.take(wanted, |bytes| {
                            parts += 1;
                            let from = given + if parts % 3 == 0 { 4096 } else { 0 };
                            let to = from + bytes.next_multiple_of(64 << 10);
                            (to <= start + length).then(|| {
                                given = to;
                                (from, to)
                            })
                        })
                    };
                    if block == 0 {
                        refused += 1;
                        continue;
                    }
                    assert!(block.is_multiple_of(wanted.align()) && block.is_multiple_of(GRAIN), "{turn}");
                    assert!(block >= start && block + wanted.size() <= start + length, "{turn}");
                    held.insert(block, wanted);
                }
            }
            let ends: Vec<(usize, usize)> = held.iter().map(|(at, layout)| (*at, at + layout.size())).collect();
            if turn % 50 == 0 {
                assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{turn}");
            }
        }
        assert!(parts > 5 && refused > 0, "{parts} parts, {refused} refused");
    }

    #[test]
    fn what_is_freed_comes_again_and_what_grows_at_the_end_stays() {
        let room = vec![0_u128; 4096];
        let start = room.as_ptr().expose_provenance();
        let mut memory = Memory::new();
        let grow = |_| Some((start, start + 65536));
        let first = unsafe { memory.take(layout(100, 8), grow) };
        let second = unsafe { memory.take(layout(10, 1), grow) };
        assert_eq!((first, second), (start, start + 112));
        assert!(!memory.resize(first, 100, 113) && memory.resize(first, 100, 112));
        unsafe { memory.give(first, layout(112, 8)) };
        assert_eq!(unsafe { memory.take(layout(97, 8), grow) }, first);
        assert!(memory.resize(second, 10, 5000));
        let third = unsafe { memory.take(layout(1, 1), grow) };
        assert_eq!(third, second + list(5000).1);
        // The last one leaves nothing behind.
        unsafe { memory.give(third, layout(1, 1)) };
        assert_eq!(unsafe { memory.take(layout(60, 4), grow) }, third);
        let refused = |_| None;
        assert_eq!(unsafe { memory.take(layout(60_000, 4), refused) }, 0);
        assert_eq!(unsafe { memory.take(layout(LARGEST + 1, 1), refused) }, 0);
    }
}
