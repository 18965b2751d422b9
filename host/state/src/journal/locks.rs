//! Who may work on an attachment now: one call at a time, and none while GC has its network.
//!
//! One lock file per network serves both, so that nothing has to be made, and nothing can be left, per attachment: calls
//! hold it shared by flock(2) and GC alone; and a call holds one byte of it, at an offset hashed from the attachment, by an
//! open file description lock (fcntl(2), F_OFD_SETLKW). Both end with the last process that has the file open, also when
//! that is killed. A helper that is forked to live longer than the call has to close it.

use crate::{Outcome, Owner, StateError, lock, names};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, OFlag, fcntl};
use nix::sys::stat::fstat;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The lock of a network, shared or alone, until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    file: Flock<File>,
}

impl Lock {
    /// Waits for it. `root` is made when it is missing.
    pub(super) fn take(root: &Path, network: &str, how: FlockArg) -> Outcome<Self> {
        Self::take_file(root, &names::file_name(network), how)
    }

    /// The same of a network whose folder and lock are named so.
    pub(super) fn take_file(root: &Path, name: &str, how: FlockArg) -> Outcome<Self> {
        let folder = root.join("locks");
        let path = folder.join(name);
        let failed = |error| StateError::io("open the lock", &path, error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        loop {
            let file = match options.open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            let file = lock::flock(file, how, &path)?;
            // The last call of the network removed it while we waited: the next process locks another file.
            if fstat(&*file).map_err(|errno| failed(errno.into()))?.st_nlink > 0 {
                return Ok(Self { path, file });
            }
        }
    }

    /// Waits until no other call works on this attachment. Two attachments whose hashes meet wait for each other, once in
    /// 2^62.
    pub(super) fn attachment(&self, owner: &Owner) -> Outcome<()> {
        match fcntl(&*self.file, FcntlArg::F_OFD_SETLKW(&range_of(owner))) {
            Ok(_) => Ok(()),
            Err(Errno::EINTR) => Err(lock::busy_part(&self.path)),
            Err(errno) => Err(StateError::io("lock the attachment in", &self.path, errno)),
        }
    }

    /// The same without waiting; whether it was to be had.
    pub(super) fn attachment_now(&self, owner: &Owner) -> Outcome<bool> {
        match fcntl(&*self.file, FcntlArg::F_OFD_SETLK(&range_of(owner))) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(errno) => Err(StateError::io("lock the attachment in", &self.path, errno)),
        }
    }

    /// Removes the network's folder and this lock when no journal is left and no other call runs.
    pub(super) fn clear(self, folder: &Path) {
        // Only the holder of the whole lock may: a call that has it shared may be about to write its first line. When it
        // can't be had now, somebody else is there to do it.
        let alone = self.file.relock(FlockArg::LockExclusiveNonblock).is_ok();
        let empty = || match std::fs::remove_dir(folder) {
            Ok(()) => true,
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        if alone && empty() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// One byte of the file.
fn range_of(owner: &Owner) -> nix::libc::flock {
    let digest = names::digest(&[&owner.container_id, &owner.ifname]);
    let byte = digest.get(..16).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0) >> 2;
    nix::libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: byte as i64,
        l_len: 1,
        l_pid: 0,
    }
}
