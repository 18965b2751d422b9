//! Standard output, which has the answer of a call and nothing else.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether ADD's result is out: whatever becomes of the process now, its caller has an attachment.
static DELIVERED: AtomicBool = AtomicBool::new(false);

/// Whether a result has been written, after which nothing else may be. Async-signal-safe.
pub fn is_delivered() -> bool {
    DELIVERED.load(Ordering::SeqCst)
}

/// Writes ADD's result.
///
/// # Errors
/// As [`print`].
pub(crate) fn deliver(stdout: BorrowedFd<'_>, text: &str, over: fn() -> bool) -> nix::Result<()> {
    print(stdout, text, over)?;
    DELIVERED.store(true, Ordering::SeqCst);
    Ok(())
}

/// Whether it takes a page now (pipe(7)): whoever reads it has not stopped reading. Also when nobody reads any more, which writing
/// finds out.
pub(crate) fn is_taken(stdout: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::new(stdout, PollFlags::POLLOUT)];
    poll(&mut asked, PollTimeout::ZERO) != Ok(0)
}

/// Writes an answer, in one write where the kernel takes it. `over`: asked whenever a signal interrupts it, whether to give up.
///
/// # Errors
/// EINTR when it was over; EPIPE when nobody reads; what the kernel says of other files.
pub fn print(stdout: BorrowedFd<'_>, text: &str, over: fn() -> bool) -> nix::Result<()> {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match write(stdout, rest) {
            Ok(0) => return Err(Errno::EIO),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) if !over() => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
