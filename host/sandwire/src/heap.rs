//! The heap's first room, made in one go.

#![allow(unsafe_code)]

use nix::libc::{MADV_POPULATE_WRITE, madvise};

const PAGE: usize = 4096;
/// What a call needs of it.
const ROOM: usize = 44 * PAGE;

/// Makes the heap grow once and not five times, by pages that are there: a page that is made when it is first touched costs 2
/// to 4 us in a virtual machine, for the fault alone; one of many that are made together a fifth of that (mm/gup.c,
/// `faultin_page_range`). A kernel older than 5.14 refuses the advice, and each page is a fault as before.
pub(crate) fn prepare() {
    let mut room: Vec<u8> = Vec::with_capacity(ROOM + PAGE);
    let start = room.as_mut_ptr();
    let first = start.wrapping_add(start.align_offset(PAGE));
    // SAFETY: ROOM bytes from there on lie in `room`, and the advice changes no content.
    let _ = unsafe { madvise(first.cast(), ROOM, MADV_POPULATE_WRITE) };
}
