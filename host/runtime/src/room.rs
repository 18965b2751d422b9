//! Whether there is room for what a call writes down before it does anything.

use nix::errno::Errno;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use std::path::{Path, PathBuf};

/// Why a directory, or one that is yet to be made, can't be written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// Nothing above it is there.
    Missing,
    /// This is in its way.
    NoDirectory(PathBuf),
    /// This can't be written: a mount, or rights.
    ReadOnly(PathBuf, Errno),
    /// The file system of this one is full.
    Full(PathBuf),
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("nothing above it is there"),
            Self::NoDirectory(path) => write!(f, "{} is no directory", path.display()),
            Self::ReadOnly(path, errno) => write!(f, "{}: {}", path.display(), errno.desc()),
            Self::Full(path) => write!(f, "the file system of {} is full", path.display()),
        }
    }
}

impl Lack {
    /// What to do.
    pub fn remedy(&self) -> String {
        match self {
            Self::Missing => "mount the file system it belongs to".into(),
            Self::NoDirectory(path) => format!("look at it, then: rm {}", path.display()),
            Self::ReadOnly(path, _) => {
                format!("look at its mount with  findmnt -T {}  and mount it writable", path.display())
            }
            Self::Full(path) => format!("make room: df -h {0}; df -i {0}", path.display()),
        }
    }
}

/// Whether calls can write in `path`; a directory that is not there yet is made in the nearest that is. `bytes`, `files`: below which
/// its file system counts as full.
///
/// # Errors
/// What it lacks.
pub fn look(path: &Path, (bytes, files): (u64, u64)) -> Result<(), Lack> {
    let there = path.ancestors().find(|above| above.exists()).ok_or(Lack::Missing)?;
    if !there.is_dir() {
        return Err(Lack::NoDirectory(there.to_owned()));
    }
    // access(2) asks the mount too, which modes say nothing of.
    access(there, AccessFlags::W_OK).map_err(|errno| Lack::ReadOnly(there.to_owned(), errno))?;
    let is_full = statvfs(there).is_ok_and(|found| {
        let free = found.blocks_free().saturating_mul(found.fragment_size());
        (found.blocks() > 0 && free < bytes) || (found.files() > 0 && found.files_free() < files)
    });
    if is_full { Err(Lack::Full(there.to_owned())) } else { Ok(()) }
}
