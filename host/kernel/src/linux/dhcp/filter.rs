//! Which packets the socket hears: a pod's whole traffic would fill its buffer before the one that matters comes.
#![allow(unsafe_code)]

use super::frame::{CLIENT_PORT, FRAGMENT, UDP};
use libc::{sock_filter, sock_fprog};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, OwnedFd};

/// linux/filter.h: IPv4's packets of UDP, whole, to a client's port. Of a socket that gets no link header they begin with IP's.
fn program() -> [sock_filter; 9] {
    let step = |code: u32, k: u32, jt: u8, jf: u8| sock_filter { code: code as u16, jt, jf, k };
    let (byte, half) = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, libc::BPF_LD | libc::BPF_H | libc::BPF_ABS);
    let is = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let has = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    [
        step(byte, 9, 0, 0),
        step(is, UDP.into(), 0, 6),
        step(half, 6, 0, 0),
        step(has, FRAGMENT.into(), 4, 0),
        // The length of IP's header.
        step(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 0),
        step(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 2, 0, 0),
        step(is, CLIENT_PORT.into(), 0, 1),
        step(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ]
}

/// From here on it hears these alone.
pub(super) fn attach(socket: &OwnedFd) -> nix::Result<()> {
    let mut program = program();
    let filter = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let (fd, length) = (socket.as_raw_fd(), size_of::<sock_fprog>() as libc::socklen_t);
    // SAFETY: the kernel copies `len` instructions, which are there, and checks them (`sk_attach_filter`).
    let set =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, (&raw const filter).cast(), length) };
    Errno::result(set)?;
    // For good: whoever breaks out of the sandbox is to hear no more.
    let (yes, length) = (1_i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: the kernel reads a number.
    let locked =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, (&raw const yes).cast(), length) };
    Errno::result(locked).map(drop)
}
