//! Both walls, each in a thread of its own: they are the thread's that raises them.
#![allow(unsafe_code)]

use super::*;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use std::fs;
use std::io::ErrorKind::PermissionDenied;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// With a directory that may be written to, and one that may not.
fn within(change: impl FnOnce(&mut Allowed) + Send, then: impl FnOnce(&Path, &Path) + Send) {
    let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for directory in [own.path(), other.path()] {
        fs::write(directory.join("old"), "content").unwrap();
    }
    let mut allowed =
        Allowed { writable: vec![own.path().into(), "/dev/null".into(), "/none".into()], ..Allowed::default() };
    change(&mut allowed);
    let confined = || {
        super::files(&allowed).unwrap();
        super::calls(&allowed).unwrap();
        then(own.path(), other.path());
    };
    std::thread::scope(|scope| scope.spawn(confined).join().unwrap());
}

/// On this machine the tests below are of something.
#[test]
fn this_kernel_has_both() {
    assert_eq!(possible(), (true, true));
}

#[test]
fn files_are_written_where_it_was_said_and_nowhere_else() {
    within(
        |_| (),
        |own, other| {
            fs::write(own.join("new"), "").unwrap();
            fs::rename(own.join("new"), own.join("newer")).unwrap();
            fs::hard_link(own.join("newer"), own.join("newest")).unwrap();
            fs::create_dir_all(own.join("a/b")).unwrap();
            fs::write(own.join("a/b/c"), "").unwrap();
            fs::remove_dir_all(own.join("a")).unwrap();
            fs::write(own.join("old"), "").unwrap();
            fs::write("/dev/null", "").unwrap();

            let refused = |done: std::io::Result<()>| assert_eq!(done.unwrap_err().kind(), PermissionDenied);
            assert_eq!(fs::read_to_string(other.join("old")).unwrap(), "content");
            refused(fs::write(other.join("new"), ""));
            refused(fs::write(other.join("old"), ""));
            refused(fs::OpenOptions::new().append(true).open(other.join("old")).map(drop));
            refused(fs::remove_file(other.join("old")));
            refused(fs::create_dir(other.join("a")));
            refused(fs::rename(other.join("old"), other.join("new")));
            refused(fs::hard_link(other.join("old"), other.join("new")));
            refused(fs::write("/proc/self/oom_score_adj", "0"));
            // Out of the directory by a link.
            refused(std::os::unix::fs::symlink(other.join("old"), own.join("way out")));
            assert!(
                fs::rename(other.join("old"), own.join("x")).is_err()
                    && fs::rename(own.join("old"), other.join("x")).is_err()
            );
        },
    );
}

#[test]
fn nothing_is_started_and_nobody_is_called_or_signalled() {
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    let child = Pid::from_raw(sleeper.id() as i32);
    within(
        |_| (),
        |_, other| {
            assert_eq!(Command::new("/bin/true").status().unwrap_err().kind(), PermissionDenied);
            for family in [AddressFamily::Unix, AddressFamily::Inet, AddressFamily::Inet6, AddressFamily::Packet] {
                assert_eq!(socket(family, SockType::Datagram, SockFlag::empty(), None).unwrap_err(), Errno::EPERM);
            }
            socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::empty(), None).unwrap();
            assert_eq!(kill(child, Signal::SIGKILL), Err(Errno::EPERM));
            assert_eq!(unshare(CloneFlags::CLONE_NEWUSER), Err(Errno::EPERM));
            assert_eq!(nix::sys::ptrace::attach(child), Err(Errno::EPERM));
            assert_eq!(
                fs::set_permissions(other.join("old"), PermissionsExt::from_mode(0o777)).unwrap_err().kind(),
                PermissionDenied
            );
            assert_eq!(
                std::os::unix::fs::chown(other.join("old"), Some(1), None).unwrap_err().kind(),
                PermissionDenied
            );
            for number in [
                libc::SYS_bpf,
                libc::SYS_execve,
                libc::SYS_io_uring_setup,
                libc::SYS_mount,
                libc::SYS_setns,
                libc::SYS_keyctl,
                libc::SYS_clone3,
            ] {
                // SAFETY: refused before it reads an argument; with none it would fail otherwise.
                let done = unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) };
                assert_eq!((done, Errno::last()), (-1, Errno::EPERM), "{number}");
            }
            // SAFETY: as above.
            let new_user = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD, 0, 0, 0, 0) };
            assert_eq!((new_user, Errno::last()), (-1, Errno::EPERM));
        },
    );
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

#[test]
fn a_call_that_needs_more_has_more() {
    within(
        |allowed| (allowed.tcp, allowed.unix, allowed.modes, allowed.signals) = (true, true, true, true),
        |_, other| {
            for family in [AddressFamily::Unix, AddressFamily::Inet, AddressFamily::Inet6] {
                socket(family, SockType::Datagram, SockFlag::empty(), None).unwrap();
            }
            assert_eq!(
                socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None).unwrap_err(),
                Errno::EPERM
            );
            fs::set_permissions(other.join("old"), PermissionsExt::from_mode(0o600)).unwrap();
            // SAFETY: the child makes async-signal-safe calls only.
            match unsafe { fork() }.unwrap() {
                ForkResult::Parent { child } => {
                    kill(child, Signal::SIGKILL).unwrap();
                    waitpid(child, None).unwrap();
                }
                // SAFETY: ends the child.
                ForkResult::Child => unsafe {
                    libc::pause();
                    libc::_exit(0)
                },
            }
            assert!(kill(Pid::from_raw(std::process::id() as i32), None).is_ok());
        },
    );
}
