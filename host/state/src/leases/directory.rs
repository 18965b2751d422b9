//! The on-disk form, which native host-local reads and writes too (plugins/ipam/host-local/backend/disk/backend.go):
//! `lock`; per address a file named by its text, with `<container id>\r\n<interface>` and no newline at the end; and
//! `last_reserved_ip.<set>` with the text of the address that was given last.

use super::addresses::Addresses;
use super::ranges;
use crate::{Outcome, Owner, StateError, lock};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{LinkatFlags, UnlinkatFlags, linkat, unlinkat};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const CURSOR: &str = "last_reserved_ip.";
const LOCK: &str = "lock";

/// More than a container id and an interface name can be (an environment string is at most 128 KiB).
const MOST_CONTENT: u64 = 256 << 10;

/// How far before the present our stamps lie: further than a tick of the kernel's coarse clock (10 ms at HZ=100), with
/// which it stamps a directory's changes. So no later change, by whomever, can leave the same time behind.
const STAMP_AGE: Duration = Duration::from_millis(20);

/// The directory, locked against other processes, ours and native, until it is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    fd: OwnedFd,
    /// None on a read-only file system that has no lock file: nobody can change it either.
    _lock: Option<Flock<File>>,
}

/// What tells one lease file from a later one of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) inode: u64,
    /// Nanoseconds since 1970.
    pub(super) ctime: i64,
}

impl From<&FileStat> for Identity {
    fn from(stat: &FileStat) -> Self {
        Self { inode: stat.st_ino, ctime: nanoseconds(stat.st_ctime, stat.st_ctime_nsec) }
    }
}

/// What a lease file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// There is no such file.
    Missing,
    /// A crash of native host-local between creating and writing it (containernetworking/plugins#498), or a full disk.
    /// Counting it as taken is how pools run dry; it has no owner, so it is free.
    Empty,
    /// Somebody's.
    Owned(Owner),
    /// Named like an address but no readable file: taken, by whom can't be said.
    Unreadable,
}

impl Directory {
    /// Opens and locks it; none when it does not exist. With `create` it is made first.
    pub(super) fn open(path: &Path, create: bool) -> Outcome<Option<Self>> {
        loop {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let fd = match openat(AT_FDCWD, path, flags, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::ENOENT) if create => {
                    let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
                    made.map_err(|error| StateError::io("make the lease directory", path, error))?;
                    continue;
                }
                Err(Errno::ENOENT) => return Ok(None),
                Err(errno) => return Err(StateError::io("open the lease directory", path, errno)),
            };
            let lock_path = path.join(LOCK);
            let flags = OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
            let lock = match openat(&fd, LOCK, flags, Mode::from_bits_truncate(0o750)) {
                Ok(lock) => lock,
                Err(Errno::EROFS) if !create => return Ok(Some(Self { path: path.to_owned(), fd, _lock: None })),
                // The directory was removed since it was opened.
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(StateError::io("open the lock", &lock_path, errno)),
            };
            let lock = lock::flock(File::from(lock), FlockArg::LockExclusive, &lock_path)?;
            // Removed while we waited: the next process locks another file, so this lock excludes nobody.
            if fstat(&*lock).map_err(|errno| StateError::io("stat", &lock_path, errno))?.st_nlink == 0 {
                continue;
            }
            return Ok(Some(Self { path: path.to_owned(), fd, _lock: Some(lock) }));
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn io(&self, doing: &str, name: &str, errno: impl Into<std::io::Error>) -> StateError {
        StateError::io(doing, &self.path.join(name), errno)
    }

    /// Where it is and when it changed last: device, inode, nanoseconds since 1970.
    pub(super) fn version(&self) -> Outcome<(u64, u64, i64)> {
        let stat = fstat(&self.fd).map_err(|errno| self.io("stat", "", errno))?;
        Ok((stat.st_dev, stat.st_ino, nanoseconds(stat.st_mtime, stat.st_mtime_nsec)))
    }

    /// Gives the directory a time of change that differs from `former`, and that no later change can leave behind.
    /// None when it can't: not the owner, read-only, or a file system that keeps coarser times.
    pub(super) fn stamp(&self, former: i64) -> Option<i64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.checked_sub(STAMP_AGE)?;
        let mut stamp = i64::try_from(now.as_nanos()).ok()?;
        if stamp == former {
            stamp -= 1;
        }
        let time = TimeSpec::new(stamp / 1_000_000_000, stamp % 1_000_000_000);
        futimens(&self.fd, &TimeSpec::UTIME_OMIT, &time).ok()?;
        (self.version().ok()?.2 == stamp).then_some(stamp)
    }

    /// Makes the lease of `number`, whole or not at all; none when the name is taken.
    pub(super) fn create(&self, number: u128, owner: &Owner) -> Outcome<Option<Identity>> {
        let name = ranges::address(number).to_string();
        let failed = |error: std::io::Error| self.io("write the lease", &name, error);
        let flags = OFlag::O_WRONLY | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
        // The content is complete before the name exists, so a crash can't leave an empty lease.
        match openat(&self.fd, ".", flags, Mode::from_bits_truncate(0o600)) {
            Ok(file) => {
                let mut file = File::from(file);
                write_owner(&mut file, owner).map_err(failed)?;
                match self.give_name(&file, &name) {
                    Ok(()) => Ok(Some(Identity::from(&fstat(&file).map_err(|errno| failed(errno.into()))?))),
                    Err(Errno::EEXIST) => Ok(None),
                    // No /proc to link from, or a sandbox that sees a move between directories in it.
                    Err(Errno::ENOENT | Errno::EXDEV | Errno::EACCES) => self.create_by_name(&name, owner),
                    Err(errno) => Err(failed(errno.into())),
                }
            }
            // A file system without O_TMPFILE: NFS, overlayfs before Linux 6.1.
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT | Errno::EINVAL) => self.create_by_name(&name, owner),
            Err(errno) => Err(failed(errno.into())),
        }
    }

    fn give_name(&self, file: &File, name: &str) -> nix::Result<()> {
        // Since Linux 6.10 who has opened the file may; before, only with CAP_DAC_READ_SEARCH (`do_linkat`).
        match linkat(file, "", &self.fd, name, LinkatFlags::AT_EMPTY_PATH) {
            Err(Errno::ENOENT) => {
                let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
                linkat(AT_FDCWD, unnamed.as_str(), &self.fd, name, LinkatFlags::AT_SYMLINK_FOLLOW)
            }
            done => done,
        }
    }

    fn create_by_name(&self, name: &str, owner: &Owner) -> Outcome<Option<Identity>> {
        let temporary = format!(".tmp-{}", std::process::id());
        let failed = |error: std::io::Error| self.io("write the lease", name, error);
        let unlink = || unlinkat(&self.fd, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
        // Somebody who had our process number was killed between naming the lease and this: it is a second name of that
        // lease, and writing into it would take the lease away. The directory is locked, so nobody needs it any more.
        match unlink() {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(self.io("remove", &temporary, errno)),
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let file = openat(&self.fd, temporary.as_str(), flags, Mode::from_bits_truncate(0o600));
        let mut file = File::from(file.map_err(|errno| failed(errno.into()))?);
        let linked = write_owner(&mut file, owner).and_then(|()| {
            match linkat(&self.fd, temporary.as_str(), &self.fd, name, LinkatFlags::empty()) {
                Ok(()) => Ok(true),
                Err(Errno::EEXIST) => Ok(false),
                Err(errno) => Err(errno.into()),
            }
        });
        let unlinked = unlink();
        if !linked.map_err(failed)? {
            return Ok(None);
        }
        unlinked.map_err(|errno| self.io("remove", &temporary, errno))?;
        Ok(Some(Identity::from(&fstat(&file).map_err(|errno| failed(errno.into()))?)))
    }

    /// Removes the lease of `number`; not an error when it is gone.
    pub(super) fn remove(&self, number: u128) -> Outcome<()> {
        let name = ranges::address(number).to_string();
        match unlinkat(&self.fd, name.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(self.io("remove the lease", &name, errno)),
        }
    }

    /// What the lease file of `number` is; none when there is no such file.
    pub(super) fn stat(&self, number: u128) -> Option<FileStat> {
        fstatat(&self.fd, ranges::address(number).to_string().as_str(), AtFlags::AT_SYMLINK_NOFOLLOW).ok()
    }

    /// What the lease file of `number` says.
    pub(super) fn content(&self, number: u128) -> Content {
        // O_NONBLOCK: a fifo of that name must not hold us up.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = match openat(&self.fd, ranges::address(number).to_string().as_str(), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT) => return Content::Missing,
            Err(_) => return Content::Unreadable,
        };
        // A fifo reads as empty, and is not ours to remove.
        if !fstat(&file).is_ok_and(|stat| shape(&stat).0) {
            return Content::Unreadable;
        }
        let mut bytes = Vec::with_capacity(128);
        match file.take(MOST_CONTENT).read_to_end(&mut bytes) {
            Ok(_) => parse_owner(&String::from_utf8_lossy(&bytes)),
            Err(_) => Content::Unreadable,
        }
    }

    /// Every file named as host-local names an address.
    pub(super) fn addresses(&self) -> Outcome<Addresses> {
        let failed = |errno: Errno| self.io("list the lease directory", "", errno);
        let mut listing = nix::dir::Dir::openat(&self.fd, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        let mut found = Addresses::default();
        for entry in listing.as_mut().map_err(|errno| failed(*errno))?.iter() {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let Ok(address) = name.parse::<std::net::IpAddr>() else { continue };
            // Another spelling of an address is not the file that would stop anybody from taking it.
            if ranges::address(ranges::number(address)).to_string() == name {
                found.insert(address);
            }
        }
        Ok(found)
    }

    /// The number of each, in order, with what its file is.
    pub(super) fn scan(&self) -> Outcome<impl Iterator<Item = (u128, FileStat)>> {
        let numbers: Vec<u128> = self.addresses()?.numbers().collect();
        Ok(numbers.into_iter().filter_map(|number| Some((number, self.stat(number)?))))
    }

    /// The address that was given last from this set; none when there is none, or nothing readable: the scan then starts
    /// from the beginning, as the reference's does.
    pub(super) fn cursor(&self, set: u32) -> Option<u128> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = openat(&self.fd, format!("{CURSOR}{set}").as_str(), flags, Mode::empty()).ok()?;
        let mut text = [0; 64];
        let length = File::from(file).read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(text.get(..length)?).ok()?;
        Some(ranges::number(text.trim().parse().ok()?))
    }

    /// Moves the cursor. Written in place: a crash between the two steps leaves another address or none, which costs the
    /// order of one round and nothing else, and an overwritten block needs no room on a full disk.
    pub(super) fn set_cursor(&self, set: u32, number: u128) -> Outcome<()> {
        let name = format!("{CURSOR}{set}");
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let text = ranges::address(number).to_string();
        let write = || -> std::io::Result<()> {
            let file = File::from(openat(&self.fd, name.as_str(), flags, Mode::from_bits_truncate(0o600))?);
            file.write_all_at(text.as_bytes(), 0)?;
            if fstat(&file)?.st_size != i64::try_from(text.len()).unwrap_or(0) {
                file.set_len(text.len() as u64)?;
            }
            Ok(())
        };
        write().map_err(|error| self.io("write", &name, error))
    }
}

/// Whether it is a regular file, and how many bytes it has.
pub(super) fn shape(stat: &FileStat) -> (bool, i64) {
    (SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG, stat.st_size)
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

fn write_owner(file: &mut File, owner: &Owner) -> std::io::Result<()> {
    file.write_all(format!("{}\r\n{}", owner.container_id.trim(), owner.ifname).as_bytes())
}

/// host-local compares the trimmed content; before its 0.8.3 there was no interface in it. Nothing but zeros is what some
/// file systems leave of a file that a power loss came before: its length is on the disk, its content is not.
fn parse_owner(content: &str) -> Content {
    match content.trim_matches(|c: char| c.is_whitespace() || c == '\0') {
        "" => Content::Empty,
        text => match text.split_once("\r\n") {
            Some((container_id, ifname)) => Content::Owned(Owner::new(container_id, ifname)),
            None => Content::Owned(Owner::new(text, "")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_of_every_release() {
        for (text, wanted) in [
            ("", Content::Empty),
            (" \r\n", Content::Empty),
            ("\0\0\0\0", Content::Empty),
            ("abc\r\neth0", Content::Owned(Owner::new("abc", "eth0"))),
            ("abc\r\neth0\n", Content::Owned(Owner::new("abc", "eth0"))),
            ("abc", Content::Owned(Owner::new("abc", ""))),
            ("abc\n", Content::Owned(Owner::new("abc", ""))),
        ] {
            assert_eq!(parse_owner(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_second_name_of_a_lease_is_not_written_into() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path(), true).unwrap().unwrap();
        let first = ranges::number("10.0.0.1".parse().unwrap());
        directory.create(first, &Owner::new("a", "eth0")).unwrap().unwrap();
        let own = format!(".tmp-{}", std::process::id());
        std::fs::hard_link(temporary.path().join("10.0.0.1"), temporary.path().join(own)).unwrap();
        directory.create_by_name("10.0.0.2", &Owner::new("b", "eth0")).unwrap().unwrap();
        assert_eq!(directory.content(first), Content::Owned(Owner::new("a", "eth0")));
        let mut names: Vec<_> = std::fs::read_dir(temporary.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["10.0.0.1", "10.0.0.2", "lock"]);
    }

    #[test]
    fn a_stamp_is_older_than_any_later_change() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path(), true).unwrap().unwrap();
        let mut former = 0;
        for n in 0..200 {
            let stamp = directory.stamp(former).unwrap();
            assert_ne!(stamp, former);
            assert_eq!(directory.version().unwrap().2, stamp);
            std::fs::write(temporary.path().join(n.to_string()), "").unwrap();
            assert!(directory.version().unwrap().2 > stamp);
            former = stamp;
        }
    }
}
