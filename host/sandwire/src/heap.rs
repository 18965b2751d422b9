//! The heap of a process that makes some thousand small objects and is gone after some milliseconds.
//!
//! Each object is cut off one room and goes back to the list of its size: some instructions, where an allocator that keeps
//! memory together for the next hour takes ten times as many, 60 us of an ADD. The room is part of the program (.bss), so
//! it costs no mapping, and the pages that a call needs are made in one go. What the room has no place for, what is large
//! and what other threads make is dlmalloc's. What a memory image has (`image`) was made in an arena of its own: it is used like
//! everything else, and what is given back of it is forgotten.

#![allow(unsafe_code)]

use dlmalloc::GlobalDlmalloc;
use libc::{MADV_POPULATE_WRITE, madvise};
use sandwire_blocks::{GRAIN, lists};
use sandwire_cni::Command;
use sandwire_runtime::prepared;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

const PAGE: usize = 4096;
/// Its own. A call needs some 260 KB; what lies idle in its lists can never be more than all of it.
const ROOM: usize = 512 << 10;
/// What an ADD of bridge with host-local needs of it, without a memory image and with one.
const OF_ADD: [usize; 2] = [66 * PAGE, 14 * PAGE];
/// What other verbs need, DEL until it has its helper made: a page that is there by then is a copy when it is written to.
const OF_OTHERS: [usize; 2] = [44 * PAGE, 13 * PAGE];
/// What lies between the program's data and the room at most, as the linker places them.
const DATA: usize = 8 * PAGE;
/// What they need of the stack, below the frame of `prepare`.
const STACK: usize = 7 * PAGE;

/// Up to here there is a list for each multiple of GRAIN, then four for each doubling.
const FINE: usize = 1024;
/// The largest block.
const LARGEST: usize = 32 << 10;
/// How many times as large as what is asked for a free block may be that is cut for it.
const LARGER: usize = 4;
const LISTS: usize = lists(FINE, LARGEST);

#[inline(always)]
fn list(size: usize) -> (usize, usize) {
    sandwire_blocks::list::<FINE>(size)
}

/// The size of the blocks in a list.
fn size_of_list(number: usize) -> usize {
    match number.checked_sub(FINE / GRAIN) {
        None => (number + 1) * GRAIN,
        Some(beyond) => (FINE << (beyond / 4)) / 4 * (5 + beyond % 4),
    }
}

/// The size of the largest blocks that are no larger than this, a multiple of GRAIN.
fn largest_within(size: usize) -> usize {
    match size {
        ..=FINE => size,
        _ => size & !((1 << (size.ilog2() - 2)) - 1),
    }
}

/// A block that nobody has: its first bytes say which is next.
struct Free {
    next: *mut Free,
}

/// One room and what is free in it.
struct Lists {
    /// From here on nothing was cut off yet.
    rest: *mut u8,
    end: *mut u8,
    free: [*mut Free; LISTS],
    /// Which lists may have blocks, the first in the lowest bit: set when a list gets its first, taken away by who looks for one there
    /// and finds none. A list that is emptied and filled in turns, as most are, so costs nothing here.
    filled: u128,
    /// Whether what is made now stands side by side, whatever is free elsewhere.
    together: bool,
}

impl Lists {
    /// # Safety
    /// `room` up to `room + length` must be memory that nobody else uses, aligned to GRAIN.
    const unsafe fn new(room: *mut u8, length: usize) -> Self {
        Self { rest: room, end: room.wrapping_add(length), free: [null_mut(); LISTS], filled: 0, together: false }
    }

    /// A block of this size at least; null when the room has no place for it.
    #[inline(always)]
    fn take(&mut self, size: usize) -> *mut u8 {
        let (list, whole) = list(size);
        match self.first_of(list) {
            block if block.is_null() => self.make(list, whole),
            block => block,
        }
    }

    /// One of which no list has any.
    #[inline(never)]
    fn make(&mut self, list: usize, whole: usize) -> *mut u8 {
        self.part(list, whole).unwrap_or_else(|| self.fresh(whole, GRAIN))
    }

    /// One of bytes that nobody has had; null when there are not so many.
    fn fresh(&mut self, whole: usize, align: usize) -> *mut u8 {
        let before = self.rest.align_offset(align);
        match before.checked_add(whole).filter(|all| *all <= self.left()) {
            None => null_mut(),
            Some(all) => {
                let block = self.rest.wrapping_add(before);
                self.rest = self.rest.wrapping_add(all);
                block
            }
        }
    }

    /// A block of any size and alignment; null when the room has no place for it. What is not small is never taken back.
    fn cut(&mut self, layout: Layout) -> *mut u8 {
        match (Heap::is_small(layout), self.together) {
            (true, false) => self.take(layout.size()),
            (true, true) => self.fresh(list(layout.size()).1, GRAIN),
            (false, _) => self.fresh(layout.size().next_multiple_of(GRAIN), layout.align().max(GRAIN)),
        }
    }

    /// The block that was given to this list last; null when there is none.
    #[inline(always)]
    fn first_of(&mut self, list: usize) -> *mut u8 {
        let Some(head) = self.free.get_mut(list) else { return null_mut() };
        let block = *head;
        if !block.is_null() {
            // SAFETY: only `give` puts blocks there, and it wrote what is next.
            *head = unsafe { (*block).next };
        }
        block.cast()
    }

    /// A block that is cut off a larger one: what was given back serves before a page that nobody has touched yet.
    fn part(&mut self, list: usize, whole: usize) -> Option<*mut u8> {
        let (number, block) = loop {
            let larger = self.filled.checked_shr(list as u32 + 1).filter(|larger| *larger != 0)?;
            let number = list + 1 + larger.trailing_zeros() as usize;
            if size_of_list(number) > LARGER * whole {
                return None;
            }
            match self.first_of(number) {
                block if block.is_null() => self.filled &= !(1 << number),
                block => break (number, block),
            }
        };
        let (mut at, mut left) = (block.wrapping_add(whole), size_of_list(number) - whole);
        while left > 0 {
            let size = largest_within(left);
            // SAFETY: of the block that was just taken from its list, behind what its new owner gets.
            unsafe { self.give(at, size) };
            (at, left) = (at.wrapping_add(size), left - size);
        }
        Some(block)
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// `block` must be of `take` for this size, and no longer in use.
    #[inline(always)]
    unsafe fn give(&mut self, block: *mut u8, size: usize) {
        let (list, _) = list(size);
        let block: *mut Free = block.cast();
        if let Some(head) = self.free.get_mut(list) {
            let next = std::mem::replace(head, block);
            // SAFETY: the block is not in use, and large and aligned enough for a pointer.
            unsafe { block.write(Free { next }) };
            if next.is_null() {
                self.filled |= 1 << list;
            }
        }
    }

    /// Whether a block is large enough for another size as it is, or can be made so because nothing was cut off after it.
    fn resize(&mut self, block: *mut u8, old: usize, new: usize) -> bool {
        let ((old_list, old_whole), (new_list, new_whole)) = (list(old), list(new));
        if old_list == new_list {
            return true;
        }
        let is_last = block.wrapping_add(old_whole) == self.rest;
        let fits = new_whole <= self.left() + old_whole;
        if is_last && fits {
            self.rest = block.wrapping_add(new_whole);
        }
        is_last && fits
    }

    fn left(&self) -> usize {
        self.end.addr() - self.rest.addr()
    }
}

#[repr(align(4096))]
struct Room(UnsafeCell<[u8; ROOM]>);
// SAFETY: only `Lists` hands out parts of it, each to one owner.
unsafe impl Sync for Room {}
static THE_ROOM: Room = Room(UnsafeCell::new([0; ROOM]));

/// Used by one thread only, see `Heap::is_owner`.
struct Owned(UnsafeCell<Lists>);
// SAFETY: as above.
unsafe impl Sync for Owned {}
// SAFETY: the room is nobody else's.
static THE_LISTS: Owned = Owned(UnsafeCell::new(unsafe { Lists::new(THE_ROOM.0.get().cast(), ROOM) }));

thread_local! {
    /// Nothing but an address that each thread has for itself.
    static MARK: u8 = const { 0 };
}
/// The first thread's.
static OWNER: AtomicPtr<u8> = AtomicPtr::new(null_mut());

/// Where this thread has what is its own.
pub(crate) fn thread() -> usize {
    MARK.try_with(|mark| (&raw const *mark).addr()).unwrap_or_default()
}

/// See the module.
pub(crate) struct Heap;

impl Heap {
    /// Whether this is the thread that made the process' first object: the lists are its alone. (Threads there are only in the
    /// service of a component that imports WASI.)
    #[inline(always)]
    fn is_owner() -> bool {
        let mark = MARK.try_with(|mark| (&raw const *mark).cast_mut()).unwrap_or(null_mut());
        OWNER.load(Ordering::Relaxed) == mark || Self::is_first(mark)
    }

    #[cold]
    fn is_first(mark: *mut u8) -> bool {
        // Nobody but the first thread can be here before it was.
        OWNER.compare_exchange(null_mut(), mark, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The lists.
    ///
    /// # Safety
    /// Only for the owner, and not for longer than one operation on them.
    #[allow(clippy::mut_from_ref, reason = "the owner's alone, for one operation")]
    unsafe fn lists() -> &'static mut Lists {
        // SAFETY: the caller is the only thread that has them, and operations on them do not nest.
        unsafe { &mut *THE_LISTS.0.get() }
    }

    #[inline(always)]
    fn is_in_room(block: *mut u8) -> bool {
        block.addr().wrapping_sub(THE_ROOM.0.get().addr()) < ROOM
    }

    /// A block that is not of the room: of the arena, as long as one is written, or of dlmalloc.
    ///
    /// # Safety
    /// As `GlobalAlloc::alloc`.
    #[cold]
    #[inline(never)]
    unsafe fn other(layout: Layout) -> *mut u8 {
        if ARENA.is_filled.load(Ordering::Relaxed) {
            // SAFETY: only the first thread keeps objects.
            return unsafe { &mut *ARENA.lists.0.get() }.cut(layout);
        }
        // SAFETY: the same contract.
        unsafe { GlobalDlmalloc.alloc(layout) }
    }

    /// Takes back a block that is not of the room.
    ///
    /// # Safety
    /// As `GlobalAlloc::dealloc`.
    #[cold]
    #[inline(never)]
    unsafe fn give_other(block: *mut u8, layout: Layout) {
        if !ARENA.has(block) {
            // SAFETY: then dlmalloc made it.
            return unsafe { GlobalDlmalloc.dealloc(block, layout) };
        }
        if ARENA.is_filled.load(Ordering::Relaxed) && Self::is_small(layout) {
            // SAFETY: only the first thread keeps objects; `cut` took it from there, for this layout.
            unsafe { (*ARENA.lists.0.get()).give(block, layout.size()) };
        }
    }

    #[inline(always)]
    fn is_small(layout: Layout) -> bool {
        layout.size() <= LARGEST && layout.align() <= GRAIN
    }
}

// SAFETY: blocks of the room are as large and aligned as `list` says, which is never less than asked for, and belong to one owner
// until they are given back; all others are dlmalloc's, from beginning to end.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if Self::is_small(layout) && Self::is_owner() {
            // SAFETY: asked just now.
            let block = unsafe { Self::lists() }.take(layout.size());
            if !block.is_null() {
                return block;
            }
        }
        // SAFETY: the same contract.
        unsafe { Self::other(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !Self::is_in_room(block) {
            // SAFETY: the same contract.
            return unsafe { Self::give_other(block, layout) };
        }
        // What another thread gives back is lost: it may not touch the lists.
        if Self::is_owner() {
            // SAFETY: it is of the room, so `take` made it, for this layout.
            unsafe { Self::lists().give(block, layout.size()) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let is_in_room = Self::is_in_room(block);
        if !is_in_room && !ARENA.has(block) {
            // SAFETY: the same contract, and dlmalloc made it.
            return unsafe { GlobalDlmalloc.realloc(block, layout, size) };
        }
        let may_fit = is_in_room && size <= LARGEST && Self::is_owner();
        // SAFETY: asked just before.
        if may_fit && unsafe { Self::lists() }.resize(block, layout.size(), size) {
            return block;
        }
        // SAFETY: the caller promises that this size is valid with this alignment.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: both are that long, and different blocks.
            unsafe { new.copy_from_nonoverlapping(block, layout.size().min(size)) };
            // SAFETY: nobody uses the old one any more.
            unsafe { self.dealloc(block, layout) };
        }
        new
    }
}

/// The objects of a memory image.
struct Arena {
    from: AtomicUsize,
    length: AtomicUsize,
    /// Whether objects are made there: in the process that writes the image.
    is_filled: AtomicBool,
    lists: Owned,
}
static ARENA: Arena = Arena {
    from: AtomicUsize::new(0),
    length: AtomicUsize::new(0),
    is_filled: AtomicBool::new(false),
    // SAFETY: an empty room.
    lists: Owned(UnsafeCell::new(unsafe { Lists::new(null_mut(), 0) })),
};

impl Arena {
    fn has(&self, block: *mut u8) -> bool {
        block.addr().wrapping_sub(self.from.load(Ordering::Relaxed)) < self.length.load(Ordering::Relaxed)
    }
}

/// From here on every object is made in these bytes, which are the caller's to map, until `kept` says how many there are. Only for the
/// first thread, before it makes anything.
///
/// # Safety
/// Nobody else uses them.
pub(crate) unsafe fn keep(room: *mut u8, length: usize) {
    /// No thread's mark.
    const NOBODY: usize = 1;
    // SAFETY: the caller's promise, and there is no other thread.
    unsafe { *ARENA.lists.0.get() = Lists::new(room, length) };
    ARENA.from.store(room.expose_provenance(), Ordering::Relaxed);
    ARENA.length.store(length, Ordering::Relaxed);
    ARENA.is_filled.store(true, Ordering::Relaxed);
    OWNER.store(std::ptr::without_provenance_mut(NOBODY), Ordering::Relaxed);
}

/// Whether what is made from here on, until it is said that it is over, has pages of its own: a call writes to it, and each page it writes to
/// is copied.
pub(crate) fn together(on: bool) {
    // SAFETY: only the first thread keeps objects.
    let lists = unsafe { &mut *ARENA.lists.0.get() };
    lists.together = on;
    lists.fresh(0, PAGE);
}

/// How many bytes of them there are objects in. The room is as if this process had never made one.
pub(crate) fn kept() -> usize {
    // SAFETY: only the first thread keeps objects.
    let end = unsafe { (*ARENA.lists.0.get()).rest };
    let length = end.addr().saturating_sub(ARENA.from.load(Ordering::Relaxed));
    // SAFETY: as above. What nobody may have any more needs no lists.
    unsafe { *ARENA.lists.0.get() = Lists::new(null_mut(), 0) };
    ARENA.length.store(length, Ordering::Relaxed);
    ARENA.is_filled.store(false, Ordering::Relaxed);
    OWNER.store(null_mut(), Ordering::Relaxed);
    length
}

/// Makes the pages of the heap and the stack that a call needs, in one go each: a page that is made when it is first touched
/// costs 3 us in a virtual machine, a third of it for the fault alone. A kernel older than 5.14 refuses the advice, and each page is a fault.
pub(crate) fn prepare(verb: Command) {
    let [without, with] = if verb == Command::Add { OF_ADD } else { OF_OTHERS };
    let room = THE_ROOM.0.get().addr();
    // What lies before the room is the program's other data, and of an image each page is copied when it is written to.
    let data = THE_LISTS.0.get().addr() & !(PAGE - 1);
    let (from, to) = match prepared::is_ready() {
        true if room.wrapping_sub(data) <= DATA => (data, room + with),
        true => (room, room + with),
        false => (room, room + without),
    };
    let here = 0_u8;
    let below = (&raw const here).addr().wrapping_sub(STACK) & !(PAGE - 1);
    // SAFETY: the advice changes no content. Room and data are ours; the kernel gives every program 128 KB of stack below its first
    // frame (`setup_arg_pages`), and where that should not be so it refuses the advice.
    let _ = unsafe {
        madvise(std::ptr::without_provenance_mut(from), to - from, MADV_POPULATE_WRITE);
        madvise(std::ptr::without_provenance_mut(below), STACK, MADV_POPULATE_WRITE)
    };
}

#[cfg(test)]
#[allow(clippy::undocumented_unsafe_blocks, reason = "each works on memory that the test has just made")]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_blocks_that_are_large_enough_for_all_its_sizes() {
        let mut before = (0, GRAIN);
        for size in 0..=LARGEST {
            let (number, whole) = list(size);
            assert!(number < LISTS && whole >= size && whole.is_multiple_of(GRAIN), "{size}: {number}, {whole}");
            assert!(whole <= (size + GRAIN).max(size + size / 4), "{size} wastes: {whole}");
            assert_eq!(size_of_list(number), whole);
            // One number, one size; both only grow.
            assert!((number, whole) == before || (number == before.0 + 1 && whole > before.1), "{size}");
            before = (number, whole);
        }
        assert_eq!(before, (LISTS - 1, LARGEST));
    }

    fn room(length: usize) -> (Vec<u128>, Lists) {
        let mut room = vec![0_u128; length / GRAIN];
        // SAFETY: the vector outlives the lists in each test.
        let lists = unsafe { Lists::new(room.as_mut_ptr().cast(), length) };
        (room, lists)
    }

    #[test]
    fn blocks_do_not_overlap_and_come_again() {
        let (_room, mut lists) = room(4096);
        let sizes = [1, 16, 17, 100, 1024, 1025, 0];
        let blocks: Vec<*mut u8> = sizes.iter().map(|size| lists.take(*size)).collect();
        for (index, block) in blocks.iter().enumerate() {
            let end = block.addr() + list(sizes[index]).1;
            assert!(blocks.get(index + 1).is_none_or(|next| next.addr() == end));
            assert!(block.addr().is_multiple_of(GRAIN));
        }
        for (size, block) in sizes.iter().zip(&blocks) {
            unsafe { lists.give(*block, *size) };
        }
        // The last one that was given is the first that is taken.
        assert_eq!(lists.take(0), blocks[6]);
        assert_eq!(lists.take(12), blocks[1]);
        assert_eq!(lists.take(112), blocks[3]);
    }

    #[test]
    fn a_room_that_is_full_has_still_what_was_given_back() {
        let (_room, mut lists) = room(256);
        let block = lists.take(200);
        assert!(lists.take(200).is_null());
        unsafe { lists.give(block, 200) };
        assert_eq!(lists.take(193), block);
        assert!(!lists.take(48).is_null() && lists.take(1).is_null());
    }

    #[test]
    fn what_was_given_back_is_cut_for_smaller_ones() {
        let (_room, mut lists) = room(8192);
        let block = lists.take(4096);
        let guard = lists.take(16);
        assert_eq!(guard.addr(), block.addr() + 4096);
        unsafe { lists.give(block, 4096) };
        // Not for one that is far smaller: then the room's rest.
        assert_eq!(lists.take(1008).addr(), guard.addr() + 16);
        let first = lists.take(1040);
        assert_eq!(first, block);
        // 2816 are left: a block of 2560, and one of 256.
        assert_eq!(lists.take(2560).addr(), block.addr() + 1280);
        assert_eq!(lists.take(250).addr(), block.addr() + 1280 + 2560);
        assert!(lists.free.iter().all(|head| head.is_null()));
    }

    #[test]
    fn what_an_image_has_is_as_large_and_aligned_as_asked_for() {
        let (_room, mut lists) = room(128 << 10);
        let mut end = lists.rest.addr();
        for (size, align) in [(40, 8), (10, 64), (LARGEST, 16), (LARGEST + 1, 1), (1, 4096), (100, 16)] {
            let layout = Layout::from_size_align(size, align).unwrap();
            let block = lists.cut(layout);
            assert!(block.addr() >= end && block.addr().is_multiple_of(align), "{size} {align}");
            end = block.addr() + size;
            assert!(end <= lists.end.addr());
            // What is small comes again, what is not never.
            if Heap::is_small(layout) && size < LARGEST {
                unsafe { lists.give(block, size) };
                assert_eq!(lists.cut(layout), block);
            }
        }
        assert!(lists.cut(Layout::from_size_align(128 << 10, 1).unwrap()).is_null());
        assert!(lists.cut(Layout::from_size_align(usize::MAX >> 1, 1).unwrap()).is_null());
    }

    #[test]
    fn what_stands_together_leaves_out_what_is_free() {
        let (_room, mut lists) = room(16 << 10);
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        let before = lists.cut(layout(100));
        unsafe { lists.give(before, 100) };
        lists.together = true;
        let blocks = [40, 100, 5000].map(|size| lists.cut(layout(size)));
        assert_eq!(blocks.map(|block| block.addr() - before.addr()), [112, 160, 272]);
        lists.together = false;
        assert_eq!(lists.cut(layout(100)), before);
    }

    #[test]
    fn no_two_blocks_share_a_byte_whatever_is_asked_for() {
        let length = 256 << 10;
        let (whole, mut lists) = room(length);
        let start = whole.as_ptr().addr();
        let mut held: std::collections::BTreeMap<usize, (usize, *mut u8)> = std::collections::BTreeMap::new();
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % below
        };
        for turn in 0..200_000 {
            let give_back = held.len() > 150 || random(3) == 0;
            if give_back && !held.is_empty() {
                let at = *held.keys().nth(random(held.len())).unwrap();
                let (size, block) = held.remove(&at).unwrap();
                unsafe { lists.give(block, size) };
                continue;
            }
            let size = [40, 300, 3000, LARGEST][random(4)].min(random(LARGEST) + 1);
            let block = lists.take(size);
            if block.is_null() {
                continue;
            }
            let (from, to) = (block.addr() - start, block.addr() - start + size);
            assert!(to <= length && from.is_multiple_of(GRAIN), "{turn}");
            let before = held.range(..=from).next_back().is_none_or(|(at, (size, _))| at + size <= from);
            let after = held.range(from..).next().is_none_or(|(at, _)| to <= *at);
            assert!(before && after, "{turn}: {size} bytes at {from}");
            unsafe { block.write_bytes(0xaa, size) };
            held.insert(from, (size, block));
        }
        // No block is in a list that has no bit.
        for list in 0..LISTS {
            assert!(lists.filled >> list & 1 == 1 || lists.free[list].is_null(), "{list}");
        }
    }

    #[test]
    fn the_last_block_grows_and_shrinks_in_place() {
        let (_room, mut lists) = room(4096);
        let block = lists.take(100);
        assert!(lists.resize(block, 100, 112) && lists.resize(block, 112, 4096) && !lists.resize(block, 4096, 4097));
        assert!(lists.take(1).is_null());
        assert!(lists.resize(block, 4096, 32));
        let next = lists.take(1);
        assert_eq!(next.addr(), block.addr() + 32);
        assert!(!lists.resize(block, 32, 33) && lists.resize(block, 17, 32));
    }

    #[test]
    fn another_thread_neither_takes_from_the_room_nor_gives_back() {
        let other = std::thread::spawn(|| {
            // The room's end, where no test comes.
            let block = unsafe { THE_ROOM.0.get().cast::<u8>().add(ROOM - 64) };
            unsafe { block.write_bytes(7, 64) };
            let (old, new) = (Layout::from_size_align(64, 16).unwrap(), Layout::from_size_align(100, 16).unwrap());
            let moved = unsafe { Heap.realloc(block, old, new.size()) };
            assert!(!moved.is_null() && !Heap::is_in_room(moved));
            let bytes = |of: *mut u8| unsafe { of.cast::<[u8; 64]>().read() };
            assert_eq!(bytes(moved), [7; 64]);
            unsafe { Heap.dealloc(moved, new) };
            // What is given back begins with the address of the next.
            assert_eq!(bytes(block), [7; 64]);
        });
        other.join().unwrap();
    }

    #[test]
    fn large_and_aligned_objects_are_not_of_the_room() {
        for layout in [Layout::from_size_align(LARGEST + 1, 1).unwrap(), Layout::from_size_align(64, 64).unwrap()] {
            let block = unsafe { Heap.alloc(layout) };
            assert!(!block.is_null() && !Heap::is_in_room(block) && block.addr().is_multiple_of(layout.align()));
            unsafe { Heap.dealloc(block, layout) };
        }
    }
}
