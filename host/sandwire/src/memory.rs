//! memcpy, memmove, memset and memcmp.
//!
//! musl's begin every copy with `rep movsq` or byte by byte, 25 ns for the ten bytes of a name, and compare byte by byte; a
//! call does thousands of both, 0.1 ms of an ADD. Here what is short, and nearly everything is, is a few loads and as many stores
//! that may overlap each other: of what is short all is read before anything is written, so one function serves memcpy and memmove.
//!
//! Nothing here may be a loop that copies or fills: the compiler would make a call of memcpy of it.

#![allow(unsafe_code)]

use core::arch::asm;
use core::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set1_epi8};

/// # Safety
/// As many bytes as `T` has can be read there.
#[inline(always)]
unsafe fn load<T: Copy>(from: *const u8) -> T {
    // SAFETY: the caller's promise; any bytes are a `T` here.
    unsafe { from.cast::<T>().read_unaligned() }
}

/// # Safety
/// As many bytes as `T` has can be written there.
#[inline(always)]
unsafe fn store<T: Copy>(to: *mut u8, value: T) {
    // SAFETY: the caller's promise.
    unsafe { to.cast::<T>().write_unaligned(value) }
}

/// Copies `n` bytes by their first and last `T`, which overlap unless there are two whole ones.
///
/// # Safety
/// As `memmove`; `n` is the size of one `T` at least and of two at most.
#[inline(always)]
unsafe fn ends<T: Copy>(to: *mut u8, from: *const u8, n: usize) {
    // SAFETY: both lie within `n` bytes.
    unsafe {
        let last = n - size_of::<T>();
        let (a, b): (T, T) = (load(from), load(from.add(last)));
        store(to, a);
        store(to.add(last), b);
    }
}

/// memmove, to be a whole function under both names: a jump from one to the other would cost as much as a short copy.
///
/// # Safety
/// As `memmove`.
#[inline(always)]
unsafe fn copy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // SAFETY: each case copies what its bounds say.
    unsafe {
        match n {
            0 => {}
            1..4 => {
                let (a, b, c): (u8, u8, u8) = (load(from), load(from.add(n / 2)), load(from.add(n - 1)));
                store(to, a);
                store(to.add(n / 2), b);
                store(to.add(n - 1), c);
            }
            4..8 => ends::<u32>(to, from, n),
            8..=16 => ends::<u64>(to, from, n),
            17..=32 => ends::<__m128i>(to, from, n),
            33..=64 => {
                let (a, b): (__m128i, __m128i) = (load(from), load(from.add(16)));
                let (y, z): (__m128i, __m128i) = (load(from.add(n - 32)), load(from.add(n - 16)));
                store(to, a);
                store(to.add(16), b);
                store(to.add(n - 32), y);
                store(to.add(n - 16), z);
            }
            _ => long(to, from, n),
        }
    }
    to
}

/// # Safety
/// As `memmove`, for more than 64 bytes.
#[inline(never)]
unsafe fn long(to: *mut u8, from: *const u8, n: usize) {
    // SAFETY: all that is read and written lies within `n` bytes, and no byte is written before it was read: the last 32, or the
    // first, are read at once and written at the end, the others go in the direction in which what is written lies behind what
    // is still to be read.
    unsafe {
        if to.addr().wrapping_sub(from.addr()) >= n {
            let (y, z): (__m128i, __m128i) = (load(from.add(n - 32)), load(from.add(n - 16)));
            if n < MICROCODE {
                asm!(
                    "2:",
                    "movups {a}, [{from}]",
                    "movups {b}, [{from} + 16]",
                    "movups [{to}], {a}",
                    "movups [{to} + 16], {b}",
                    "add {from}, 32",
                    "add {to}, 32",
                    "cmp {from}, {end}",
                    "jb 2b",
                    a = out(xmm_reg) _, b = out(xmm_reg) _, end = in(reg) from.add(n - 32),
                    from = inout(reg) from => _, to = inout(reg) to => _,
                    options(nostack),
                );
            } else {
                asm!("rep movsq", inout("rcx") n / 8 => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags));
            }
            store(to.add(n - 32), y);
            store(to.add(n - 16), z);
        } else {
            let (a, b): (__m128i, __m128i) = (load(from), load(from.add(16)));
            asm!(
                "2:",
                "movups {y}, [{from} + {rest} - 32]",
                "movups {z}, [{from} + {rest} - 16]",
                "movups [{to} + {rest} - 32], {y}",
                "movups [{to} + {rest} - 16], {z}",
                "sub {rest}, 32",
                "cmp {rest}, 32",
                "ja 2b",
                y = out(xmm_reg) _, z = out(xmm_reg) _, rest = inout(reg) n => _,
                from = in(reg) from, to = in(reg) to,
                options(nostack),
            );
            store(to, a);
            store(to.add(16), b);
        }
    }
}

/// From here on the processor's own copying is faster, whose beginning takes it some 30 steps.
const MICROCODE: usize = 2048;

/// # Safety
/// `n` bytes can be read at `from` and written at `to`; they may overlap.
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { copy(to, from, n) }
}

/// # Safety
/// `n` bytes can be read at `from` and written at `to`.
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller promises more than is asked for.
    unsafe { copy(to, from, n) }
}

/// # Safety
/// `n` bytes can be written at `to`.
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, n: usize) -> *mut u8 {
    // The lowest byte counts (C, 7.26.6.1).
    let word = u64::from(byte as u8) * 0x0101_0101_0101_0101;
    // SAFETY: each case fills what its bounds say, by overlapping stores from both ends.
    unsafe {
        match n {
            0 => {}
            1..4 => {
                store(to, word as u8);
                store(to.add(n / 2), word as u8);
                store(to.add(n - 1), word as u8);
            }
            4..8 => {
                store(to, word as u32);
                store(to.add(n - 4), word as u32);
            }
            8..=16 => {
                store(to, word);
                store(to.add(n - 8), word);
            }
            17..=32 => {
                let wide = _mm_set1_epi8(byte as i8);
                store(to, wide);
                store(to.add(n - 16), wide);
            }
            33..=64 => {
                let wide = [_mm_set1_epi8(byte as i8); 2];
                store(to, wide);
                store(to.add(n - 32), wide);
            }
            _ => {
                asm!("rep stosq", inout("rcx") n / 8 => _, inout("rdi") to => _, in("rax") word, options(nostack, preserves_flags));
                store(to.add(n - 8), word);
            }
        }
    }
    to
}

/// The difference of the first bytes that differ among 16, if any do.
///
/// # Safety
/// 16 bytes can be read at both.
#[inline(always)]
unsafe fn differ(a: *const u8, b: *const u8) -> Option<i32> {
    // SAFETY: the caller's promise; the index of a difference is below 16.
    unsafe {
        let same = _mm_movemask_epi8(_mm_cmpeq_epi8(load(a), load(b)));
        if same == 0xffff {
            return None;
        }
        let at = (!same).trailing_zeros() as usize;
        Some(i32::from(load::<u8>(a.add(at))) - i32::from(load::<u8>(b.add(at))))
    }
}

/// -1, 0 or 1; the first byte in memory counts most, so numbers are swapped before.
fn order<T: Ord>(a: T, b: T) -> i32 {
    a.cmp(&b) as i32
}

/// # Safety
/// `n` bytes can be read at both.
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: what is read lies within `n` bytes. The last part overlaps what was equal before.
    unsafe {
        let numbers = |at: usize| (load::<u64>(a.add(at)).swap_bytes(), load::<u64>(b.add(at)).swap_bytes());
        let halves = |at: usize| (load::<u32>(a.add(at)).swap_bytes(), load::<u32>(b.add(at)).swap_bytes());
        match n {
            0 => 0,
            1..4 => {
                // The middle one of two is the last.
                let number = |(a, b, c): (u8, u8, u8)| i32::from(a) << 16 | i32::from(b) << 8 | i32::from(c);
                let three = |of: *const u8| number((load(of), load(of.add(n / 2)), load(of.add(n - 1))));
                three(a) - three(b)
            }
            4..8 => {
                let (first, last) = (halves(0), halves(n - 4));
                let (a, b) = if first.0 == first.1 { last } else { first };
                order(a, b)
            }
            8..16 => {
                let (first, last) = (numbers(0), numbers(n - 8));
                let (a, b) = if first.0 == first.1 { last } else { first };
                order(a, b)
            }
            _ => {
                let mut at = 0;
                while at < n - 16 {
                    if let Some(difference) = differ(a.add(at), b.add(at)) {
                        return difference;
                    }
                    at += 16;
                }
                differ(a.add(n - 16), b.add(n - 16)).unwrap_or(0)
            }
        }
    }
}

/// # Safety
/// As memcmp, of which it says only whether it is 0.
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the same.
    unsafe { memcmp(a, b, n) }
}

#[cfg(test)]
#[allow(clippy::undocumented_unsafe_blocks, reason = "each works on memory that the test has just made")]
mod tests {
    use super::*;

    /// Around every boundary between two cases, and long ones of each remainder.
    fn lengths() -> impl Iterator<Item = usize> {
        (0..300).chain(MICROCODE - 10..MICROCODE + 10).chain(4090..4110)
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|n| (n * 7 + n / 256) as u8).collect()
    }

    #[test]
    fn copies_are_exact_wherever_they_overlap() {
        for n in lengths() {
            for shift in [0, 1, 3, 7, 8, 9, 16, 31, 64, 100, 200, 5000] {
                for backward in [false, true] {
                    let (from, to) = if backward { (64, 64 + shift) } else { (64 + shift, 64) };
                    let mut ours = pattern(64 + 5000 + 4200 + 64);
                    let mut theirs = ours.clone();
                    theirs.copy_within(from..from + n, to);
                    let start = ours.as_mut_ptr();
                    let answer = unsafe { memmove(start.add(to), start.add(from), n) };
                    assert!(ours == theirs, "{n} bytes from {from} to {to}");
                    assert_eq!(answer, unsafe { start.add(to) });
                    if shift >= n {
                        let mut copied = pattern(theirs.len());
                        let start = copied.as_mut_ptr();
                        unsafe { memcpy(start.add(to), start.add(from), n) };
                        assert!(copied == theirs, "{n} bytes from {from} to {to}, memcpy");
                    }
                }
            }
        }
    }

    #[test]
    fn fills_are_exact() {
        for n in lengths() {
            for byte in [0, 1, 0x7f, 0xff, 0x1a5] {
                let mut ours = pattern(n + 64);
                let mut theirs = ours.clone();
                theirs[32..32 + n].fill(byte as u8);
                unsafe { memset(ours.as_mut_ptr().add(32), byte, n) };
                assert!(ours == theirs, "{n} times {byte}");
            }
        }
    }

    #[test]
    fn comparisons_say_which_differs_first() {
        for n in lengths().filter(|n| *n < 4100) {
            let a = pattern(n);
            assert_eq!(unsafe { memcmp(a.as_ptr(), a.clone().as_ptr(), n) }, 0, "{n}");
            for at in (0..n).filter(|at| n < 300 || at % 97 == 0 || n - at < 20) {
                for other in [0, 0x40, 0x80, 0xff] {
                    let mut b = a.clone();
                    b[at] = other;
                    // What comes after does not count.
                    if let Some(next) = b.get_mut(at + 1) {
                        *next = !*next;
                    }
                    let ours = unsafe { memcmp(a.as_ptr(), b.as_ptr(), n) };
                    assert_eq!(ours.signum(), a.cmp(&b) as i32, "{n} bytes, {other} at {at}");
                    assert_eq!(unsafe { bcmp(a.as_ptr(), b.as_ptr(), n) } == 0, a == b);
                }
            }
        }
    }
}
