//! Waiting for another process, without polling.

use crate::{Outcome, StateError};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::path::Path;

/// flock(2), blocking. A signal ends the wait: that is how the call's deadline reaches it (SIGALRM with a handler
/// installed without SA_RESTART, from a timer that repeats, since one that fires just before the wait begins is lost).
pub(crate) fn flock(file: File, how: FlockArg, path: &Path) -> Outcome<Flock<File>> {
    Flock::lock(file, how).map_err(|(_, errno)| match errno {
        Errno::EINTR => busy(path),
        errno => StateError::io("lock", path, errno),
    })
}

/// The text of a wait that a signal ended.
pub(crate) fn busy(path: &Path) -> StateError {
    StateError::Busy(format!("another call held {} until this one's deadline; try again later", path.display()))
}
