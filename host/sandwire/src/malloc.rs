//! malloc(3) and its kin out of our heap.
//!
//! Rust's objects do not come here; what does is the standard library's list of thread-local destructors, which wasmtime's first
//! guest begins, and what C functions of musl take for themselves (opendir(3)). For these few bytes musl's own malloc would ask
//! the kernel four times for memory and touch two new pages in every call. Replaced as musl wants it: all of them together
//! (`__malloc_replaced`); its posix_memalign and memalign call aligned_alloc.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;
use std::ptr::null_mut;

/// In front of each object. Its size is a multiple of what malloc(3) aligns to.
#[repr(C, align(16))]
struct Header {
    /// Bytes from the block's begin to the object's.
    before: usize,
    /// Bytes of the block.
    whole: usize,
}

const ALIGNMENT: usize = align_of::<Header>();

/// An object of this size; null and errno when there is no memory for it, or there can't be.
fn make(size: usize, alignment: usize) -> *mut c_void {
    let whole = size.checked_add(size_of::<Header>() + alignment - ALIGNMENT);
    let layout = whole.and_then(|whole| Layout::from_size_align(whole, ALIGNMENT).ok());
    // SAFETY: at least a header long.
    let block = layout.map_or(null_mut(), |layout| unsafe { crate::ALLOCATOR.alloc(layout) });
    if block.is_null() {
        nix::errno::Errno::ENOMEM.set();
        return null_mut();
    }
    let before = (block.addr() + size_of::<Header>()).next_multiple_of(alignment) - block.addr();
    let object = block.wrapping_add(before);
    // SAFETY: `before` has room for a header at least, and header and object lie within the block.
    unsafe { header_of(object).write(Header { before, whole: whole.unwrap_or_default() }) };
    object.cast()
}

fn header_of(object: *mut u8) -> *mut Header {
    object.wrapping_sub(size_of::<Header>()).cast()
}

#[cfg_attr(all(not(test), target_env = "musl"), unsafe(no_mangle))]
extern "C" fn malloc(size: usize) -> *mut c_void {
    make(size, ALIGNMENT)
}

#[cfg_attr(all(not(test), target_env = "musl"), unsafe(no_mangle))]
extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    let bytes = count.saturating_mul(size);
    let object = make(bytes, ALIGNMENT);
    if !object.is_null() {
        // SAFETY: that long. A block that is used again still has what was in it.
        unsafe { object.cast::<u8>().write_bytes(0, bytes) };
    }
    object
}

/// # Safety
/// `object` is null or of one of these functions, and not in use.
#[cfg_attr(all(not(test), target_env = "musl"), unsafe(no_mangle))]
unsafe extern "C" fn free(object: *mut c_void) {
    let object: *mut u8 = object.cast();
    if object.is_null() {
        return;
    }
    // SAFETY: `make` wrote it, and took a block of this layout.
    unsafe {
        let Header { before, whole } = header_of(object).read();
        crate::ALLOCATOR.dealloc(object.wrapping_sub(before), Layout::from_size_align_unchecked(whole, ALIGNMENT));
    }
}

/// # Safety
/// `object` is null or of one of these functions; it is in use by nobody else.
#[cfg_attr(all(not(test), target_env = "musl"), unsafe(no_mangle))]
unsafe extern "C" fn realloc(object: *mut c_void, size: usize) -> *mut c_void {
    let new = make(size, ALIGNMENT);
    if !object.is_null() && !new.is_null() {
        // SAFETY: the caller's promise; what is copied is in both.
        unsafe {
            let Header { before, whole } = header_of(object.cast()).read();
            new.cast::<u8>().copy_from_nonoverlapping(object.cast(), size.min(whole - before));
            free(object);
        }
    }
    new
}

#[cfg_attr(all(not(test), target_env = "musl"), unsafe(no_mangle))]
extern "C" fn aligned_alloc(alignment: usize, size: usize) -> *mut c_void {
    if !alignment.is_power_of_two() || alignment > isize::MAX as usize / 2 {
        nix::errno::Errno::EINVAL.set();
        return null_mut();
    }
    make(size, alignment.max(ALIGNMENT))
}

/// # Safety
/// `object` is of one of these functions.
#[cfg_attr(all(not(test), target_env = "musl"), unsafe(no_mangle))]
unsafe extern "C" fn malloc_usable_size(object: *mut c_void) -> usize {
    if object.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    let Header { before, whole } = unsafe { header_of(object.cast()).read() };
    whole - before
}

#[cfg(test)]
#[allow(clippy::undocumented_unsafe_blocks, reason = "each works on memory that the test has just made")]
mod tests {
    use super::*;

    #[test]
    fn objects_are_as_large_and_aligned_as_asked_for_and_keep_their_content() {
        for size in [0, 1, 15, 16, 17, 1000, 40_000, 300_000] {
            let mut object = malloc(size);
            unsafe { object.cast::<u8>().write_bytes(7, size) };
            assert!(object.addr().is_multiple_of(16));
            for larger in [size + 1, size * 2 + 100, size / 2, size] {
                object = unsafe { realloc(object, larger) };
                assert!(unsafe { malloc_usable_size(object) } >= larger);
                let kept = unsafe { std::slice::from_raw_parts(object.cast::<u8>(), size.min(size / 2)) };
                assert!(kept.iter().all(|byte| *byte == 7), "{size} {larger}");
            }
            unsafe { free(object) };
            let zeros = calloc(size, 3);
            assert!(unsafe { std::slice::from_raw_parts(zeros.cast::<u8>(), size * 3) }.iter().all(|byte| *byte == 0));
            unsafe { free(zeros) };
            for alignment in [1, 16, 64, 4096] {
                let object = aligned_alloc(alignment, size);
                assert!(object.addr().is_multiple_of(alignment.max(16)));
                unsafe { object.cast::<u8>().write_bytes(9, size) };
                unsafe { free(object) };
            }
        }
        unsafe { free(null_mut()) };
        unsafe { free(realloc(null_mut(), 10)) };
    }

    #[test]
    fn what_can_not_be_is_null_and_says_why() {
        assert!(
            malloc(usize::MAX).is_null()
                && calloc(usize::MAX, 2).is_null()
                && aligned_alloc(64, usize::MAX - 3).is_null()
        );
        assert_eq!(nix::errno::Errno::last(), nix::errno::Errno::ENOMEM);
        assert!(aligned_alloc(24, 8).is_null());
        assert_eq!(nix::errno::Errno::last(), nix::errno::Errno::EINVAL);
    }
}
