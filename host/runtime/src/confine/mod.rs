//! The second wall: what the kernel refuses to this process from before a component is mapped.
//!
//! Without a capability it is still a process of root's: it could write root's files (a line in /etc/cron.d is the node), start
//! programs, ask the container runtime through its socket for a privileged pod, and signal every daemon. Who has broken out of the
//! WebAssembly sandbox finds that it can't: Landlock lets it write only where a call keeps its state, and start nothing;
//! seccomp leaves the system calls that a call makes. Both last until the process ends, and hold for the helpers it forks.
//!
//! A kernel that lacks one of them (Landlock is of Linux 5.13) is no reason to attach no pods; `sandwirectl doctor` says it.

mod allowed;
mod calls;
mod files;

pub(crate) use allowed::Allowed;

use nix::errno::Errno;
use sandwire_cni::{Error, code};

/// Shuts the files that are not to be written, and programs. Needs CAP_SYS_ADMIN or no_new_privs (landlock(7)).
///
/// # Errors
/// Code `IO`: the call must not go on with more than it needs.
pub(crate) fn files(allowed: &Allowed) -> Result<(), Error> {
    unless_missing("Landlock", files::shut(allowed))
}

/// Shuts the system calls that no call makes. Needs no_new_privs (seccomp(2)).
///
/// # Errors
/// As `files`.
pub(crate) fn calls(allowed: &Allowed) -> Result<(), Error> {
    unless_missing("seccomp", calls::shut(allowed))
}

/// Makes what `calls` needs, for calls that begin with this process' memory.
pub(crate) fn ready() {
    calls::ready();
}

fn unless_missing(what: &str, done: nix::Result<()>) -> Result<(), Error> {
    match done {
        // Not compiled in; not among `lsm=` of the command line.
        Ok(()) | Err(Errno::ENOSYS | Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(Error {
            code: code::IO,
            msg: format!("could not confine this process: {what}"),
            details: format!("{}; no component runs without it", errno.desc()),
        }),
    }
}

/// Which of the two this kernel has: Landlock, seccomp.
pub fn possible() -> (bool, bool) {
    (files::version().is_ok(), calls::is_possible())
}

#[cfg(test)]
mod tests;
