//! Why state could not be read or changed.

use std::path::Path;

/// One case per different reaction of a caller, as `error` in `wit/types.wit`. Each text names the object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The object is not there.
    #[error("{0}")]
    NotFound(String),
    /// Exactly this is there already, and it is this owner's.
    #[error("{0}")]
    Exists(String),
    /// Something there contradicts the request: another's lease, another value.
    #[error("{0}")]
    Conflict(String),
    /// The arguments can never work.
    #[error("{0}")]
    Invalid(String),
    /// Locked by another call until this one's deadline; CNI code 11.
    #[error("{0}")]
    Busy(String),
    /// A pool is used up.
    #[error("{0}")]
    Exhausted(String),
    /// Anything else: what the kernel said of which file.
    #[error("{0}")]
    Other(String),
}

impl StateError {
    /// A failed system call on `path`, with what to do about the ones an operator meets.
    pub(crate) fn io(doing: &str, path: &Path, error: impl Into<std::io::Error>) -> Self {
        let error = error.into();
        let remedy = match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => "; make room on that file system",
            Some(libc::EROFS) => "; that file system is mounted read-only",
            Some(libc::EACCES | libc::EPERM) if !nix::unistd::geteuid().is_root() => "; only root can: run it as root",
            Some(libc::EACCES | libc::EPERM) => {
                "; it must be root's, and one of the directories that a call may write to (data_dirs of the plugin's policy)"
            }
            _ => "",
        };
        Self::Other(format!("could not {doing} {}: {error}{remedy}", path.display()))
    }
}
