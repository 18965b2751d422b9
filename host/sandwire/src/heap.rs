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
mod tests;
