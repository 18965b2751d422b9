//! The process from its first line to its end.
//!
//! Not the standard library's (`std::rt::lang_start`): that maps a stack and sets handlers for overflows, which `crash` replaces a
//! moment later, and takes them away again before the exit, fifteen system calls for every pod. What else it does is here:
//! descriptors that are closed, SIGPIPE.
#![allow(unsafe_code)]

use libc::{c_char, c_int};
use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use sandwire_cni::{Error, code};
use std::ffi::{CStr, OsStr};
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

/// Called by the C library, with what execve(2) was given.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code, reason = "the test runner has its own"))]
extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    // SAFETY: the C library passes `count` texts that end with a zero and that nobody changes.
    let argument = |n: usize| unsafe { CStr::from_ptr(*arguments.add(n)) };
    #[cfg(all(target_arch = "x86_64", target_env = "musl"))]
    {
        use super::image;
        if count == 3 && argument(1) == sandwire_runtime::prepared::PREPARE {
            if image::has_place() {
                image::begin();
            }
            let status = super::prepare(OsStr::from_bytes(argument(2).to_bytes()));
            // SAFETY: as below.
            unsafe { libc::_exit(status) }
        }
        image::found();
    }
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // A runtime that stops reading our answer is no reason to leave an attachment half made: EPIPE tells of it.
    // SAFETY: ignoring a signal runs no code of ours.
    let _ = unsafe { sigaction(Signal::SIGPIPE, &ignore) };
    let name = match count {
        // execve(2): "argv may be empty"; not since Linux 5.18.
        ..1 => OsStr::new(""),
        _ => OsStr::from_bytes(argument(0).to_bytes()),
    };
    let status = match open_closed_files() {
        Ok(()) => super::call(name),
        Err(error) => super::refuse(&error),
    };
    // SAFETY: ends the process. Nothing waits in a buffer: all is written with write(2), and stderr has none.
    unsafe { libc::_exit(status) }
}

/// Standard descriptors that whoever called has closed, or the next file that is opened would be the answer's.
///
/// # Errors
/// When /dev/null, which takes their place, can't be opened.
fn open_closed_files() -> Result<(), Error> {
    let mut files = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: three entries, and as many are named. It can fail for RLIMIT_NOFILE or memory: each is asked for then.
    let asked = unsafe { libc::poll(files.as_mut_ptr(), 3, 0) } >= 0;
    for file in &files {
        let closed = match asked {
            true => file.revents & libc::POLLNVAL != 0,
            // SAFETY: a question that changes nothing.
            false => (unsafe { libc::fcntl(file.fd, libc::F_GETFD) }) < 0,
        };
        // SAFETY: a text that ends with a zero. The lowest free number is taken, and those below are open by now.
        if closed && unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } != file.fd {
            return Err(Error {
                code: code::IO,
                msg: format!("descriptor {} is closed, and /dev/null could not be opened for it", file.fd),
                details: format!("{}; call it with stdin, stdout and stderr open", Errno::last().desc()),
            });
        }
    }
    Ok(())
}

/// Standard input without the standard library's buffer of 8 KB: it is read once, to its end.
pub(crate) fn stdin() -> impl Read {
    struct Stdin;
    impl Read for Stdin {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            // SAFETY: open since the process began, and never closed.
            let file = unsafe { BorrowedFd::borrow_raw(libc::STDIN_FILENO) };
            Ok(nix::unistd::read(file, buffer)?)
        }
    }
    Stdin
}
