//! Deleting a link so that the caller waits until it is gone, not until the kernel has freed it.
//!
//! RTM_DELLINK takes the link out of its namespace within a millisecond and tells everyone; then its *sender* blocks 10
//! to 20 ms while the kernel waits out RCU (`netdev_run_todo`, `rcu_barrier`). Threads, io_uring, requests without
//! acknowledgement and deleting the other end gain nothing: the wait is in the task that sent the message, and its
//! process doesn't end before it. So a child process sends it, and this one waits for the notification.
//!
//! The child runs no Rust code that could allocate, lock or panic: it is made by fork(2), possibly of a process with
//! threads (the tests), so only async-signal-safe system calls on memory prepared beforehand are allowed in it.

#![allow(unsafe_code)]

use super::netns::Namespace;
use super::socket::{Refusal, Socket, serialize};
use super::wait::{RTNLGRP_LINK, Woken, listening, readable};
use super::{LinuxKernel, links};
use crate::{KernelError, LinkId, Netns, Outcome};
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2, read};
use rtnetlink::LinkUnspec;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// The kernel needs a millisecond; a node that deletes a thousand links at once needs RTNL's turn first.
const PATIENCE: Duration = Duration::from_secs(10);

/// What happened to the helper's attempt.
enum Course {
    Gone,
    Refused(Errno),
    /// It ended without a word: killed, or done before the notification was read.
    Silent,
    Late,
}

/// Returns when the link has left its namespace. A link that is gone already is success.
pub(super) fn link(kernel: &mut LinuxKernel, link: LinkId) -> Outcome<()> {
    // With the container's namespace its links are gone.
    if link.netns == Netns::Container && kernel.container.is_none() {
        return Ok(());
    }
    reap(&mut kernel.helpers);
    let course = listening(kernel, link.netns, &[RTNLGRP_LINK], |kernel, events| {
        let Ok((pipe, helper)) = start(kernel, link) else {
            // No process to be had (a full pids cgroup), no descriptors: slower by itself.
            return Ok(Course::Silent);
        };
        kernel.helpers.push(helper);
        follow(kernel, link, events, &pipe)
    })?;
    match course {
        Course::Gone | Course::Refused(Errno::ENODEV) => Ok(()),
        Course::Refused(errno) => Err(refused(kernel.namespace(link.netns)?, link, Refusal::new(errno))),
        Course::Silent => directly(kernel.namespace(link.netns)?, link),
        Course::Late => match links::by_index(kernel.namespace(link.netns)?, link.index) {
            Err(KernelError::NotFound(_)) => Ok(()),
            Ok(info) => Err(KernelError::Timeout(format!(
                "link {:?} is still in {} although it was told to go; the kernel is busy, try again later",
                info.name, link.netns
            ))),
            Err(error) => Err(error),
        },
    }
}

/// In this process, at the kernel's pace.
fn directly(namespace: &mut Namespace, link: LinkId) -> Outcome<()> {
    match namespace.route.request(delete(link), 0) {
        Ok(_) => Ok(()),
        Err(refusal) if refusal.errno == Errno::ENODEV => Ok(()),
        Err(refusal) => Err(refused(namespace, link, refusal)),
    }
}

fn refused(namespace: &mut Namespace, link: LinkId, refusal: Refusal) -> KernelError {
    let name = links::name_of(namespace, link.index);
    refusal.into_error(format_args!("failed to delete {name:?} in {}", link.netns))
}

fn delete(link: LinkId) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelLink(LinkUnspec::new_with_index(link.index).build())
}

/// Waits for the notification, the helper's word, or its end, whichever is first.
fn follow(kernel: &mut LinuxKernel, link: LinkId, events: &mut Socket, pipe: &OwnedFd) -> Outcome<Course> {
    let deadline = Instant::now() + PATIENCE;
    // Not stopped by the deadline of the call: what undoes a call that took too long deletes links after it.
    let interrupted = || false;
    loop {
        let Woken::Readable(_, word) = readable(events.fd(), Some(pipe.as_fd()), deadline, interrupted)? else {
            return Ok(Course::Late);
        };
        // Notifications first: the helper that succeeded ends without a word after them.
        let mut gone = false;
        loop {
            match events.receive_now(|header, payload| {
                gone |= links::is_gone(header.message_type, payload, link.index);
            }) {
                Ok(()) => {}
                Err(refusal) if refusal.errno == Errno::EAGAIN => break,
                // ENOBUFS: the one that matters may be among the lost ones.
                Err(_) => {
                    let look = links::by_index(kernel.namespace(link.netns)?, link.index);
                    gone |= matches!(look, Err(KernelError::NotFound(_)));
                    break;
                }
            }
        }
        if gone {
            return Ok(Course::Gone);
        }
        if word {
            let mut errno = [0; 4];
            return Ok(match read(pipe, &mut errno) {
                Ok(4) => Course::Refused(Errno::from_raw(i32::from_ne_bytes(errno))),
                _ => Course::Silent,
            });
        }
    }
}

/// Forks the helper; the answer is the end of the pipe that it may write an errno to.
fn start(kernel: &mut LinuxKernel, link: LinkId) -> Result<(OwnedFd, Pid), ()> {
    let bytes = serialize(delete(link), NLM_F_REQUEST | NLM_F_ACK, 1);
    let null = kernel.null();
    // Never shared between two helpers, which would read each other's acknowledgements. In the container there is one
    // for the one link that a CNI call deletes there; a second link is deleted directly.
    let socket = kernel.namespace(link.netns).and_then(Namespace::take_delete).map_err(|_| ())?;
    let (pipe, word) = pipe2(OFlag::O_CLOEXEC).map_err(|_| ())?;
    let (socket_fd, word_fd) = (socket.fd().as_raw_fd(), word.as_raw_fd());
    let orders = Orders::new(null, vec![socket_fd, word_fd]);
    // SAFETY: `send_delete` makes async-signal-safe calls only, on memory that exists before the fork.
    let helper = unsafe { fork_with(&orders, || send_delete(socket_fd, word_fd, &bytes)) }.map_err(|_| ())?;
    Ok((pipe, helper))
}

/// Closes descriptors that are slow to close in a helper process, so that neither the caller nor its exit waits.
///
/// After a set element was deleted, closing the nfnetlink socket blocks 9 to 12 ms (the kernel waits out RCU for what
/// the transaction freed), and so does the exit of whoever has it open last. Meanwhile nobody of its namespace can change
/// rules or delete a link (`nft_rcv_nl_event` waits with `commit_mutex` held): that would be the next plugin of the
/// chain. So the `node`'s is closed when the kernel has freed it by itself (`nf_tables_trans_destroy_work`), and then nobody waits; the
/// `container`'s at once, for its namespace would stay with it.
pub(super) fn close_elsewhere(kernel: &mut LinuxKernel, node: Option<OwnedFd>, container: Option<OwnedFd>) {
    reap(&mut kernel.helpers);
    let at_once = container.as_ref().map(AsRawFd::as_raw_fd);
    let is_node = node.is_some();
    let slow: Vec<OwnedFd> = node.into_iter().chain(container).collect();
    if slow.is_empty() {
        return;
    }
    // Without pipe or process the descriptors are closed here, slowly, when `slow` goes out of scope.
    let Ok((over, open)) = pipe2(OFlag::O_CLOEXEC) else { return };
    let null = kernel.null();
    let over_fd = over.as_raw_fd();
    let orders = Orders::new(null, slow.iter().map(AsRawFd::as_raw_fd).chain([over_fd]).collect());
    let work = || {
        wait_for_end(over_fd);
        if let Some(fd) = at_once {
            // SAFETY: a plain system call; in this process nothing else owns it.
            unsafe { libc::close(fd) };
        }
        if is_node {
            rest();
        }
    };
    // SAFETY: `work` makes async-signal-safe calls only.
    if let Ok(helper) = unsafe { fork_with(&orders, work) } {
        kernel.helpers.push(helper);
    }
    // In this order: they close at once while the helper has them too, and it goes when the pipe is closed.
    drop(slow);
    drop(open);
}

/// Collects helpers that have ended, so that a program that lives long keeps no zombies.
fn reap(helpers: &mut Vec<Pid>) {
    helpers.retain(|pid| {
        let state = waitpid(*pid, Some(WaitPidFlag::WNOHANG));
        matches!(state, Ok(nix::sys::wait::WaitStatus::StillAlive))
    });
}

/// What a helper does before its work, prepared while allocating is allowed.
struct Orders {
    null: Option<RawFd>,
    /// In rising order, all above 2.
    keep: Vec<RawFd>,
}

impl Orders {
    fn new(null: Option<RawFd>, mut keep: Vec<RawFd>) -> Self {
        keep.retain(|fd| *fd > 2);
        keep.sort_unstable();
        keep.dedup();
        Self { null, keep }
    }

    /// Leaves the session and everything that somebody else waits for the end of: runtimes read a plugin's stdout
    /// until nobody has it open, and a lock file's lock lasts as long as any copy of its descriptor.
    ///
    /// # Safety
    /// For a child after fork(2): async-signal-safe.
    unsafe fn follow(&self) {
        // SAFETY: plain system calls on numbers; in this process nothing else owns any of the descriptors.
        unsafe {
            libc::setsid();
            for fd in 0..3 {
                match self.null {
                    Some(null) => libc::dup2(null, fd),
                    None => libc::close(fd),
                };
            }
            let mut from = 3;
            for fd in &self.keep {
                close_between(from, *fd);
                from = *fd + 1;
            }
            close_between(from, RawFd::MAX);
        }
    }
}

/// Closes `from..to`.
///
/// # Safety
/// As [`Orders::follow`].
unsafe fn close_between(from: RawFd, to: RawFd) {
    /// Without close_range(2) (before Linux 5.9): more than a CNI plugin is ever started with.
    const HIGHEST: RawFd = 1024;
    if from >= to {
        return;
    }
    // SAFETY: plain system calls on numbers.
    unsafe {
        if libc::syscall(libc::SYS_close_range, from, to - 1, 0) != 0 {
            for fd in from..to.min(HIGHEST) {
                libc::close(fd);
            }
        }
    }
}

/// Forks a helper that follows `orders`, does `work` and ends. All signals are blocked in it: handlers of this process
/// must not run there, and a terminal's interrupt must not stop it half-way.
///
/// # Safety
/// `work` must be async-signal-safe: no allocation, no lock, no panic.
unsafe fn fork_with(orders: &Orders, work: impl FnOnce()) -> Result<Pid, Errno> {
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    // SAFETY: the child makes async-signal-safe calls only, and ends by _exit(2), which runs no destructors.
    let forked = unsafe { fork() };
    if let Ok(ForkResult::Child) = forked {
        // SAFETY: as above, and by this function's own condition.
        unsafe {
            orders.follow();
            work();
            libc::_exit(0);
        }
    }
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    match forked? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => Err(Errno::ECHILD),
    }
}

/// The helper's work: RTM_DELLINK, and its errno into the pipe if it fails. Success is told by nobody: when the kernel
/// is done the caller may be gone, and writing to it would be SIGPIPE.
fn send_delete(socket: RawFd, word: RawFd, bytes: &[u8]) {
    let mut answer = [0u8; 512];
    let mut errno;
    // SAFETY: `bytes` and `answer` are valid for their lengths; plain system calls otherwise.
    unsafe {
        errno = if libc::send(socket, bytes.as_ptr().cast(), bytes.len(), 0) < 0 { Errno::last_raw() } else { 0 };
        if errno == 0 {
            let length = receive_from_kernel(socket, &mut answer);
            errno = if length < 0 { Errno::last_raw() } else { acknowledged(&answer, length.unsigned_abs()) };
        }
        if errno != 0 {
            let told = errno.to_ne_bytes();
            libc::write(word, told.as_ptr().cast(), told.len());
        }
    }
}

/// As recv(2), without what a process sent (`socket.rs`).
fn receive_from_kernel(socket: RawFd, answer: &mut [u8; 512]) -> isize {
    loop {
        // SAFETY: all zeros is a sockaddr_nl; `answer` and `from` are valid for their lengths.
        let (length, sender) = unsafe {
            let mut from: libc::sockaddr_nl = std::mem::zeroed();
            let mut size = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
            let to = answer.as_mut_ptr().cast();
            (libc::recvfrom(socket, to, answer.len(), 0, (&raw mut from).cast(), &raw mut size), from.nl_pid)
        };
        if length < 0 || sender == 0 {
            return length;
        }
    }
}

/// errno of an NLMSG_ERROR, 0 for success.
fn acknowledged(answer: &[u8; 512], length: usize) -> i32 {
    let code = answer.get(16..20).and_then(|bytes| bytes.first_chunk::<4>());
    match code {
        Some(code) if length >= 20 => i32::from_ne_bytes(*code).wrapping_neg(),
        _ => libc::EIO,
    }
}

/// Some grace periods of RCU, on a node with work to do.
fn rest() {
    let time = libc::timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    // SAFETY: the kernel reads `time`; nobody wants to know what is left of it.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
}

/// Until the other end of the pipe is closed.
fn wait_for_end(over: RawFd) {
    let mut byte = 0u8;
    // SAFETY: one byte of our stack.
    unsafe { while libc::read(over, (&raw mut byte).cast(), 1) > 0 {} }
}
