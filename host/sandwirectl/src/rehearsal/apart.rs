//! A process of its own for the rehearsal: the first one of new namespaces. When it ends the kernel ends all that it started, and
//! takes away what they made (pid_namespaces(7)).

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Uid, getpid};
use std::ffi::OsStr;
use std::fs;
use std::process::Command;

/// Tells the second process that it is the second.
const APART: &str = "SANDWIRECTL_TRY_APART";

/// Whether this process is the first of its namespaces, and was started to be that.
pub(super) fn is_apart() -> bool {
    getpid().as_raw() == 1 && std::env::var_os(APART).as_deref() == Some(OsStr::new("1"))
}

/// Nothing of a rehearsal outlives the command that began it.
pub(super) fn end_with_parent() -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("could not be tied to the process that started this one")
}

/// Runs this very command again in new namespaces. Whether all was well.
///
/// # Errors
/// When this machine does not let its users have namespaces.
pub(super) fn run() -> Result<bool> {
    namespaces()?;
    let mut child = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env(APART, "1")
        .spawn()
        .context("could not start a process in the new namespaces")?;
    // From the terminal these are for the command that runs there: a server is stopped just so, and the rehearsal goes on.
    let mut terminal = SigSet::empty();
    terminal.add(Signal::SIGINT);
    terminal.add(Signal::SIGQUIT);
    terminal.thread_block().context("could not block signals")?;
    let status = child.wait().context("could not wait for the process in the new namespaces")?;
    Ok(status.success())
}

fn namespaces() -> Result<()> {
    let (user, group) = (Uid::effective(), Gid::effective());
    let rest = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
    match unshare(rest | CloneFlags::CLONE_NEWUSER) {
        Ok(()) => map(user, group).map_err(|error| refused(&format!("{error:#}"))),
        // Root needs no user namespace, where there are none to have.
        Err(errno) => match unshare(rest) {
            Ok(()) => Ok(()),
            Err(_) if [Errno::EPERM, Errno::ENOSPC, Errno::EUSERS, Errno::EINVAL].contains(&errno) => {
                Err(refused(errno.desc()))
            }
            Err(_) => Err(errno).context("could not make namespaces"),
        },
    }
}

fn refused(why: &str) -> anyhow::Error {
    anyhow!(
        "this machine does not let its users make namespaces: {why}\nallow it:  sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000  (on Ubuntu: kernel.apparmor_restrict_unprivileged_userns=0); or run it with CAP_SYS_ADMIN"
    )
}

fn map(user: Uid, group: Gid) -> Result<()> {
    let write = |file: &str, text: &str| {
        fs::write(format!("/proc/self/{file}"), text).with_context(|| format!("could not write /proc/self/{file}"))
    };
    // Without setgroups a group could be given up, and with it a "no" that a file's mode has for that group.
    for (file, text) in
        [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {user} 1")), ("gid_map", format!("0 {group} 1"))]
    {
        write(file, &text)?;
    }
    Ok(())
}
