//! Which sizes blocks of memory have, in the allocators of the CNI binary and of plugins: both keep what is free in a list for each size,
//! and neither searches.

#![no_std]

/// All blocks begin at, and are, multiples of it.
pub const GRAIN: usize = 16;

/// How many lists there are for blocks up to `largest`; both are powers of two.
pub const fn lists(fine: usize, largest: usize) -> usize {
    fine / GRAIN + 4 * (largest / fine).ilog2() as usize
}

/// The number of a size's list, and the size of the blocks in it: up to `FINE` bytes a list for each multiple of [`GRAIN`], then four for each
/// doubling.
#[inline(always)]
pub fn list<const FINE: usize>(size: usize) -> (usize, usize) {
    if size <= FINE {
        let list = size.saturating_sub(1) / GRAIN;
        return (list, (list + 1) * GRAIN);
    }
    let power = (size - 1).ilog2();
    let step = 1_usize << (power - 2);
    let whole = size.next_multiple_of(step);
    let doublings = (power - FINE.ilog2()) as usize;
    (FINE / GRAIN + 4 * doublings + (whole - (1 << power)) / step - 1, whole)
}
