//! Stands in for the crate `memchr` (`[patch.crates-io]` in Cargo.toml), with what `object`, `serde_json` and `wast` call of it.
//!
//! That one asks the processor, before its first search, which instructions it has: up to a dozen `cpuid`. In a virtual machine
//! each is a trap into the hypervisor of 1 to 2 us, and of 9 in a nested one: 77 us of a whole ADD, to search twelve names of
//! sections of an ELF file. wasmtime's feature `std` turns the question on (`object/std`, `memchr/std`), so no choice of features
//! turns it off. What is searched here is short.

#![no_std]
#![forbid(unsafe_code)]

use core::iter::Enumerate;
use core::slice::Iter;

/// Where `needle` is first.
#[inline]
pub fn memchr(needle: u8, haystack: &[u8]) -> Option<usize> {
    haystack.iter().position(|byte| *byte == needle)
}

/// Where the first of two is.
#[inline]
pub fn memchr2(one: u8, other: u8, haystack: &[u8]) -> Option<usize> {
    haystack.iter().position(|byte| *byte == one || *byte == other)
}

/// Where `needle` is last.
#[inline]
pub fn memrchr(needle: u8, haystack: &[u8]) -> Option<usize> {
    haystack.iter().rposition(|byte| *byte == needle)
}

/// Everywhere that `needle` is.
#[inline]
pub fn memchr_iter(needle: u8, haystack: &[u8]) -> Memchr<'_> {
    Memchr::new(needle, haystack)
}

/// See `memchr_iter`.
#[derive(Debug, Clone)]
pub struct Memchr<'h> {
    needle: u8,
    rest: Enumerate<Iter<'h, u8>>,
}

impl<'h> Memchr<'h> {
    /// The same.
    #[inline]
    pub fn new(needle: u8, haystack: &'h [u8]) -> Self {
        Self { needle, rest: haystack.iter().enumerate() }
    }
}

impl Iterator for Memchr<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        self.rest.find(|(_, byte)| **byte == self.needle).map(|(at, _)| at)
    }
}

impl DoubleEndedIterator for Memchr<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<usize> {
        self.rest.rfind(|(_, byte)| **byte == self.needle).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn finds_what_is_there_and_nothing_else() {
        let text = b"a\nbc\n\0d";
        assert_eq!((memchr(b'\n', text), memrchr(b'\n', text)), (Some(1), Some(4)));
        assert_eq!((memchr(b'x', text), memrchr(b'x', text), memchr(b'a', b"")), (None, None, None));
        assert_eq!((memchr2(b'\0', b'c', text), memchr2(b'x', b'y', text)), (Some(3), None));
        assert_eq!(memchr_iter(b'\n', text).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(memchr_iter(b'\n', text).rev().collect::<Vec<_>>(), [4, 1]);
        assert_eq!((memchr_iter(b'\n', text).count(), Memchr::new(b'x', text).next()), (2, None));
    }
}
