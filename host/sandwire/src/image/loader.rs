//! What a call does first: it takes its data and heap from the image, and moves its code to where they expect it.
//!
//! This runs before the program is relocated, so nothing here may look up an address: no function that the compiler does not inline
//! (memcpy and memcmp among them, which it makes of loops and comparisons), no vtable, no panic. `start` passes what has to be
//! known. What goes wrong before the moves leaves a process that starts as without an image.

#![allow(unsafe_code)]

use super::{ALIGNMENT, ARENA, ARENA_ROOM, Build, Header, LOWEST, MAGIC, PAGE, SEGMENTS, SPREAD};
use core::arch::asm;
use core::mem::MaybeUninit;
use core::ptr::{with_exposed_provenance as at, with_exposed_provenance_mut as at_mut};
use libc::{Elf64_Ehdr, Elf64_Phdr, c_int};
use sandwire_runtime::prepared::{ACTIVE, IMAGE, PREPARE};

/// Where things are in this process; `start` fills it in.
#[repr(C)]
struct Places {
    /// The program's first byte.
    first: usize,
    /// The page that makes the moves, and stays.
    page: usize,
    /// Where a program begins that has to be relocated.
    fresh: usize,
    /// Where one begins that has its data from an image.
    ready: usize,
    /// The number of the generation's directory (`SANDWIRE_DIRECTORY`).
    directory: usize,
}

/// What `start` does after this.
#[repr(C)]
struct Plan {
    /// How many moves there are.
    count: usize,
    /// Where to jump to then.
    entry: usize,
    /// From where, how many bytes, to where.
    moves: [[usize; 3]; 4],
}

const READ_WRITE: c_int = libc::PROT_READ | libc::PROT_WRITE;
const NEW: c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
const OVER: c_int = libc::MAP_PRIVATE | libc::MAP_FIXED;
const OPEN: c_int = libc::O_RDONLY | libc::O_CLOEXEC;

/// # Safety
/// What the system call does to memory must be sound.
#[inline(always)]
unsafe fn call(number: i64, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let answer;
    // SAFETY: the caller's promise; the kernel keeps all registers but these (System V ABI for AMD64, A.2.1).
    unsafe {
        asm!(
            "syscall", inlateout("rax") number as isize => answer, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack),
        );
    }
    answer
}

/// Whether there is a mapping at `to` now.
///
/// # Safety
/// With MAP_FIXED nothing may be there that is used.
#[inline(always)]
unsafe fn map(to: usize, length: usize, access: c_int, how: c_int, (file, offset): (isize, usize)) -> bool {
    // SAFETY: the caller's promise. A kernel that does not know MAP_FIXED_NOREPLACE (before 4.17) takes the address for a wish.
    let answer =
        unsafe { call(libc::SYS_mmap, [to, length, access as usize, how as usize, file.cast_unsigned(), offset]) };
    answer.cast_unsigned() == to
}

#[inline(always)]
const fn down(address: usize) -> usize {
    address & !(PAGE - 1)
}

#[inline(always)]
const fn up(address: usize) -> usize {
    down(address + PAGE - 1)
}

/// The program's headers.
///
/// # Safety
/// A program of ours begins at `first`.
#[inline(always)]
unsafe fn headers(first: usize) -> &'static [Elf64_Phdr] {
    // SAFETY: the linker puts both into the first page, which is read-only.
    unsafe {
        let program: &Elf64_Ehdr = &*at(first);
        core::slice::from_raw_parts(at(first + program.e_phoff as usize), program.e_phnum as usize)
    }
}

/// Which build a program is; none when its linker did not say.
///
/// # Safety
/// As `headers`.
#[inline(always)]
pub(super) unsafe fn build(first: usize) -> Option<Build> {
    /// A note's header and its owner's name, "GNU" and a zero (elf(5)).
    const BEFORE: usize = 16;
    const OWNER: u32 = u32::from_ne_bytes(*b"GNU\0");
    const NT_GNU_BUILD_ID: u32 = 3;
    // SAFETY: as for this function; notes lie in the read-only segment, and are read no further than they reach.
    unsafe {
        for header in headers(first) {
            if header.p_type != libc::PT_NOTE {
                continue;
            }
            let (mut note, end) = (first + header.p_vaddr as usize, first + (header.p_vaddr + header.p_memsz) as usize);
            while note + BEFORE + size_of::<Build>() <= end {
                let [name, length, kind, owner]: [u32; 4] = at::<[u32; 4]>(note).read_unaligned();
                if name == 4 && length as usize >= size_of::<Build>() && kind == NT_GNU_BUILD_ID && owner == OWNER {
                    return Some(at::<Build>(note + BEFORE).read_unaligned());
                }
                let padded = |bytes: u32| (bytes as usize).next_multiple_of(4);
                note += 12 + padded(name) + padded(length);
            }
        }
    }
    None
}

/// From where to where a program has what it writes to, as distances from its first byte, whole pages; and up to where it only
/// relocates it.
///
/// # Safety
/// As `headers`.
#[inline(always)]
pub(super) unsafe fn data(first: usize) -> (usize, usize, usize) {
    let (mut from, mut fixed, mut to) = (usize::MAX, 0, 0);
    // SAFETY: as for this function.
    for header in unsafe { headers(first) } {
        let end = (header.p_vaddr + header.p_memsz) as usize;
        if header.p_type == libc::PT_GNU_RELRO {
            fixed = down(end);
        }
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W != 0 {
            from = from.min(down(header.p_vaddr as usize));
            to = to.max(up(end));
        }
    }
    (from, fixed, to)
}

/// Called by `start`: the arguments as execve(2) has left them, and room for a plan. Whether there is one.
///
/// # Safety
/// Only for `start`.
#[unsafe(no_mangle)]
unsafe extern "C" fn sandwire_plan(stack: *mut usize, plan: &mut Plan, places: &Places) -> bool {
    // SAFETY: the kernel puts the number of arguments there, then pointers to as many texts that end with a zero.
    unsafe {
        if *stack == 3 && is_prepare(at(*stack.add(2))) {
            return relocate(stack, plan, places).is_some();
        }
        let directory = call(libc::SYS_open, [ACTIVE.as_ptr().addr(), (OPEN | libc::O_DIRECTORY) as usize, 0, 0, 0, 0]);
        if directory < 0 {
            return false;
        }
        let done = restore(stack, plan, places, directory).is_some();
        if !done {
            call(libc::SYS_close, [directory.cast_unsigned(), 0, 0, 0, 0, 0]);
        }
        done
    }
}

/// # Safety
/// The text ends with a zero.
#[inline(always)]
unsafe fn is_prepare(text: *const u8) -> bool {
    for (index, byte) in PREPARE.to_bytes_with_nul().iter().enumerate() {
        // SAFETY: no further than to the first difference, or the zero. Volatile: or a call of memcmp would be made of it.
        if unsafe { text.add(index).read_volatile() } != *byte {
            return false;
        }
    }
    true
}

/// For the one that writes the image: the whole program, unrelocated as it is, goes to a place where one with an image can be.
///
/// # Safety
/// As `sandwire_plan`.
unsafe fn relocate(stack: *mut usize, plan: &mut Plan, places: &Places) -> Option<()> {
    let mut random = 0_usize;
    // SAFETY: the kernel writes eight bytes. What is mapped is new, and what is copied is as long as the program's headers say;
    // it is not memcpy's, which can't be called yet.
    unsafe {
        let bytes = call(libc::SYS_getrandom, [(&raw mut random).addr(), size_of::<usize>(), 0, 0, 0, 0]);
        let new = LOWEST + random % SPREAD / ALIGNMENT * ALIGNMENT;
        let (from, _, to) = data(places.first);
        let mapped = bytes == size_of::<usize>().cast_signed()
            && map(new + from, to - from, READ_WRITE, NEW, (-1, 0))
            && map(new + ARENA, ARENA_ROOM, READ_WRITE, NEW, (-1, 0));
        if !mapped {
            return None;
        }
        for header in headers(places.first) {
            if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W != 0 {
                let begin = header.p_vaddr as usize;
                asm!(
                    "rep movsb", inout("rcx") header.p_filesz as usize => _, inout("rdi") new + begin => _,
                    inout("rsi") places.first + begin => _, options(nostack, preserves_flags),
                );
            }
        }
        move_to(new, stack, plan, places, places.fresh);
    }
    Some(())
}

/// # Safety
/// As `sandwire_plan`.
unsafe fn restore(stack: *mut usize, plan: &mut Plan, places: &Places, directory: isize) -> Option<()> {
    // SAFETY: a text that ends with a zero.
    let image = unsafe {
        let flags = OPEN | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        call(libc::SYS_openat, [directory.cast_unsigned(), IMAGE.as_ptr().addr(), flags as usize, 0, 0, 0])
    };
    // Of the first three none may be taken: the caller has closed it, and `process` opens /dev/null for it.
    let done = match directory > libc::STDERR_FILENO as isize && image > libc::STDERR_FILENO as isize {
        // SAFETY: as for this function.
        true => unsafe { restore_from(image, stack, plan, places, directory) },
        false => None,
    };
    if image >= 0 {
        // SAFETY: opened here, and what is mapped stays.
        unsafe { call(libc::SYS_close, [image.cast_unsigned(), 0, 0, 0, 0, 0]) };
    }
    done
}

/// How many bytes an open file of this kind has, if only root could have written them.
#[inline(always)]
fn trusted(file: isize, kind: libc::mode_t) -> Option<usize> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel fills it in, or says that it did not.
    let stat = unsafe {
        match call(libc::SYS_fstat, [file.cast_unsigned(), stat.as_mut_ptr().addr(), 0, 0, 0, 0]) {
            0 => stat.assume_init_ref(),
            _ => return None,
        }
    };
    let roots = stat.st_mode & libc::S_IFMT == kind && stat.st_uid == 0 && stat.st_mode & 0o022 == 0;
    roots.then_some(stat.st_size.cast_unsigned() as usize)
}

/// # Safety
/// As `sandwire_plan`.
unsafe fn restore_from(
    image: isize,
    stack: *mut usize,
    plan: &mut Plan,
    places: &Places,
    directory: isize,
) -> Option<()> {
    let mut header = MaybeUninit::<Header>::uninit();
    // SAFETY: the kernel fills the header in, or says that it did not, and any bytes are one. Only root could have written the file, the
    // whole of it was written by `writer` of this very build, and what it has is mapped where nothing else is.
    unsafe {
        trusted(directory, libc::S_IFDIR)?;
        let length = trusted(image, libc::S_IFREG)?;
        let read =
            call(libc::SYS_pread64, [image.cast_unsigned(), header.as_mut_ptr().addr(), size_of::<Header>(), 0, 0, 0]);
        if read != size_of::<Header>().cast_signed() {
            return None;
        }
        let header = header.assume_init_ref();
        let [first, second] = build(places.first)?;
        let [its_first, its_second] = header.build;
        if header.magic != MAGIC || header.length != length || first != its_first || second != its_second {
            return None;
        }
        let new = header.base;
        let (from, _, to) = data(places.first);
        if !map(new + from, to - from, READ_WRITE, NEW, (-1, 0)) {
            return None;
        }
        let mut segment = (&raw const header.segments).cast::<super::Segment>();
        let mut left = header.count.min(SEGMENTS);
        while left > 0 {
            let part = &*segment;
            let access = if part.writable == 0 { libc::PROT_READ } else { READ_WRITE };
            let how = if part.at < ARENA { OVER } else { libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE };
            if !map(new + part.at, part.length, access, how, (image, part.offset)) {
                return None;
            }
            (segment, left) = (segment.add(1), left - 1);
        }
        let number: *mut i32 = at_mut(places.directory - places.first + new);
        number.write(directory as i32);
        move_to(new, stack, plan, places, places.ready);
    }
    Some(())
}

/// Plans the moves of what nobody writes to: constants, and code but for one page. The kernel's note of where the program's headers are
/// (`AT_PHDR`), by which the C library finds everything else, says where they will be.
///
/// # Safety
/// As `sandwire_plan`; data is at `new` already.
unsafe fn move_to(new: usize, stack: *mut usize, plan: &mut Plan, places: &Places, entry: usize) {
    let moved = |address: usize| address - places.first + new;
    // SAFETY: after the arguments come the environment and pairs of numbers, each with a zero at its end (System V ABI for AMD64, 3.4.3);
    // the plan has room for as many moves as there are segments that are not written to, and one more.
    unsafe {
        let mut word = stack.add(*stack + 2);
        while *word != 0 {
            word = word.add(1);
        }
        word = word.add(1);
        while *word != 0 {
            if *word == libc::AT_PHDR as usize {
                *word.add(1) = moved(*word.add(1));
            }
            word = word.add(2);
        }
        let mut next = (&raw mut plan.moves).cast::<[usize; 3]>();
        plan.count = 0;
        for header in headers(places.first) {
            if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
                continue;
            }
            let begin = places.first + header.p_vaddr as usize;
            let (begin, end) = (down(begin), up(begin + header.p_memsz as usize));
            let middle =
                if places.page >= begin && places.page < end { (places.page, places.page + PAGE) } else { (end, end) };
            for (from, to) in [(begin, middle.0), (middle.1, end)] {
                if from < to && plan.count < 4 {
                    next.write([from, to - from, moved(from)]);
                    next = next.add(1);
                    plan.count += 1;
                }
            }
        }
    }
    plan.entry = moved(entry);
}

#[cfg(test)]
#[allow(clippy::undocumented_unsafe_blocks, reason = "this program's own headers are read")]
mod tests {
    use super::*;
    use crate::image::base;

    static CONSTANT: &str = "never written to";
    static mut WRITTEN: u8 = 1;

    #[test]
    fn the_program_knows_which_build_it_is_and_where_its_data_is() {
        let words = unsafe { build(base()) };
        // A test's linker may give none.
        assert!(words.is_none_or(|words| words != [0, 0]));
        let (from, fixed, to) = unsafe { data(base()) };
        assert!([from, fixed, to].iter().all(|at| at.is_multiple_of(PAGE)) && from < fixed && fixed < to);
        let distance = |address: usize| address - base();
        assert!((fixed..to).contains(&distance((&raw const WRITTEN).addr())));
        assert!(distance(CONSTANT.as_ptr().addr()) < from);
        // Where what is only relocated is, if it has a segment of its own.
        assert!((from..fixed).contains(&distance((&raw const CONSTANT).addr())));
    }

    #[test]
    fn only_one_argument_asks_for_an_image() {
        for (text, wanted) in
            [(c"prepare", true), (c"prepar", false), (c"prepared", false), (c"", false), (c"Prepare", false)]
        {
            assert_eq!(unsafe { is_prepare(text.as_ptr().cast()) }, wanted, "{text:?}");
        }
    }

    #[test]
    fn only_roots_files_are_trusted() {
        use std::os::fd::AsRawFd;
        use std::os::unix::fs::PermissionsExt;
        let directory = std::env::temp_dir().join(format!("sandwire-image-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("image");
        std::fs::write(&path, [0; 100]).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let size = |kind| trusted(file.as_raw_fd() as isize, kind);
        for (mode, wanted) in [(0o600, Some(100)), (0o644, Some(100)), (0o620, None), (0o602, None)] {
            file.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(size(libc::S_IFREG), wanted, "{mode:o}");
            assert_eq!(size(libc::S_IFDIR), None);
        }
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&path, Some(1), None).unwrap();
        assert_eq!((size(libc::S_IFREG), trusted(-1, libc::S_IFREG)), (None, None));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
