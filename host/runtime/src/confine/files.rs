//! Landlock (linux/landlock.h): writing only below some directories, and nothing executed. What may be read stays as it is:
//! the host's functions read in many places, and what is read leaves a process that has no sockets but netlink only by its result.
#![allow(unsafe_code)]

use super::Allowed;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_BLOCK: u64 = 1 << 11;
const MAKE_SYM: u64 = 1 << 12;
/// Links and renames to another directory (version 2); refused where it is not handled.
const REFER: u64 = 1 << 13;
/// Since version 3.
const TRUNCATE: u64 = 1 << 14;

/// Since version 6.
const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
const SCOPE_SIGNAL: u64 = 1 << 1;

const OF_A_FILE: u64 = WRITE_FILE | TRUNCATE;
const OF_A_DIRECTORY: u64 = OF_A_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG;
const ALL: u64 = OF_A_DIRECTORY | EXECUTE | MAKE_CHAR | MAKE_SOCK | MAKE_FIFO | MAKE_BLOCK | MAKE_SYM | REFER;

/// `struct landlock_ruleset_attr`; an older kernel takes the longer one if what it does not know is 0.
#[repr(C)]
struct Ruleset {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`
#[repr(C, packed)]
struct Beneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// The version of the kernel's Landlock, from 1 on.
///
/// # Errors
/// ENOSYS or EOPNOTSUPP without.
pub(super) fn version() -> nix::Result<i64> {
    // SAFETY: with this flag the call reads no memory.
    let version = Errno::result(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<Ruleset>(), 0, CREATE_RULESET_VERSION)
    });
    // A node that is a container itself may have it shut by its own seccomp filter.
    version.map_err(|errno| if errno == Errno::EPERM { Errno::ENOSYS } else { errno })
}

/// For this thread and what it starts, for good.
pub(super) fn shut(allowed: &Allowed) -> nix::Result<()> {
    let version = version()?;
    let mut handled = ALL;
    if version < 3 {
        handled &= !TRUNCATE;
    }
    if version < 2 {
        handled &= !REFER;
    }
    let mut scoped = 0;
    if version >= 6 {
        scoped = SCOPE_ABSTRACT_UNIX_SOCKET | if allowed.signals { 0 } else { SCOPE_SIGNAL };
    }
    let attributes = Ruleset { handled_access_fs: handled, handled_access_net: 0, scoped };
    // SAFETY: the kernel reads as many bytes as the structure has.
    let ruleset = Errno::result(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size_of::<Ruleset>(), 0)
    })?;
    // SAFETY: a new descriptor, closed on exec, that nobody else has.
    let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset as i32) };
    for path in &allowed.writable {
        allow(&ruleset, path, handled)?;
    }
    // SAFETY: takes no memory.
    Errno::result(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) }).map(drop)
}

fn allow(ruleset: &OwnedFd, path: &Path, handled: u64) -> nix::Result<()> {
    // What can't be opened, mostly because it is not there, gets no permission: who needs it says which file it is, and why.
    let Ok(place) = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) else { return Ok(()) };
    let is_directory = fstat(&place)?.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
    let access = handled & if is_directory { OF_A_DIRECTORY } else { OF_A_FILE };
    let rule = Beneath { allowed_access: access, parent_fd: place.as_raw_fd() };
    // SAFETY: the kernel reads as many bytes as the structure has.
    let added = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), RULE_PATH_BENEATH, &raw const rule, 0)
    };
    Errno::result(added).map(drop)
}
