//! The memory image: what every call would do alike is done once, by `sandwirectl apply`, and kept as memory.
//!
//! Before its plugin runs a call relocates its own tables, sets up the engine, decodes the tables of two compiled components, links and
//! starts them: 500 us of an ADD, with the same outcome for as long as program, components and policy are the same. So `sandwire prepare
//! DIRECTORY` does it once ([`writer`]), with all plugins of a generation, and writes its data and heap to `DIRECTORY/image`. A call
//! maps that file before it does anything else ([`loader`]) and goes on where the writer stopped: what it needs of it is
//! mapped, the rest never read.
//!
//! A memory has addresses in it, so all calls of one generation have program, data and heap at the same place, drawn at random when
//! the image is written. A call that finds no image, or one that is not of this very program or could have been written by others than
//! root, starts as it would without (`start`): slower, otherwise the same. The image is as trusted as compiled components are.

#![allow(unsafe_code)]

mod loader;
mod writer;

pub(crate) use writer::write;

use crate::heap;
use sandwire_runtime::prepared;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// A page.
const PAGE: usize = 4096;

/// Where a program is that has an image: from here on. No kernel places anything there by itself, whatever limit the stack has
/// (`mmap_base`; without a limit the first mappings are at a third of the addresses, 0x2aaa_aaaa_a000).
const LOWEST: usize = 0x100_0000_0000;
/// How far above it, less than this.
const SPREAD: usize = 0x2700_0000_0000;
/// At multiples of what one page of page tables maps: the kernel, which has aligned the program so too (`load_elf_binary`), then moves
/// its code by moving these pages instead of their entries one by one (`move_pgt_entry`). It leaves 20 million places.
const ALIGNMENT: usize = 2 << 20;

/// How far from the program's first byte the objects are that the writer made.
const ARENA: usize = 256 << 20;
/// Room for them.
const ARENA_ROOM: usize = 64 << 20;

/// The first bytes of the file; the last one is the format's.
const MAGIC: u64 = u64::from_ne_bytes(*b"sandwir\x01");

/// One part of the memory.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Segment {
    /// Bytes from the program's first.
    at: usize,
    /// Bytes, whole pages.
    length: usize,
    /// Where it is in the file.
    offset: usize,
    /// 0 for what nobody writes to.
    writable: usize,
}

const SEGMENTS: usize = 8;

/// How the file begins.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Header {
    magic: u64,
    /// Which program it is of.
    build: Build,
    /// Where the program's first byte was.
    base: usize,
    /// Bytes of the file: one that is not complete is none.
    length: usize,
    /// How many segments there are.
    count: usize,
    segments: [Segment; SEGMENTS],
}

/// The first 16 bytes of the linker's sum of the whole program (--build-id).
type Build = [u64; 2];

/// Where the first byte of this program is.
fn base() -> usize {
    unsafe extern "C" {
        static __ehdr_start: u8;
    }
    (&raw const __ehdr_start).addr()
}

/// The directory that the image was in, held open; -1 without one. The loader's to write.
#[unsafe(no_mangle)]
static SANDWIRE_DIRECTORY: AtomicI32 = AtomicI32::new(-1);

/// For a call that has an image: tells the runtime which directory it is of, and readies what the C library makes once in a process and
/// notes in its data.
pub(crate) fn found() {
    let number = SANDWIRE_DIRECTORY.load(Ordering::Relaxed);
    if number < 0 {
        return;
    }
    let mut key = 0;
    // SAFETY: a key that nobody uses, made for what making one does: musl gives the thread its room for values with the first one, and
    // who finds one in the image makes none.
    unsafe { libc::pthread_key_create(&raw mut key, None) };
    // SAFETY: opened by the loader for this, and asked for once.
    prepared::found(unsafe { OwnedFd::from_raw_fd(number) });
}

/// Whether this process is where one can be that has an image.
pub(crate) fn has_place() -> bool {
    (LOWEST..LOWEST + SPREAD).contains(&base())
}

/// From here on objects are made where an image has them. Only for a process that `has_place`.
pub(crate) fn begin() {
    // SAFETY: whoever has a place has this mapped as well, for nothing else (`loader::relocate`).
    unsafe { heap::keep(std::ptr::with_exposed_provenance_mut(base() + ARENA), ARENA_ROOM) };
}
