//! The socket for IP packets as they are: a client that has no address yet can't use one of IP's (packet(7)).

#![allow(unsafe_code)]

use super::{EVERYBODY, filter};
use crate::Mac;
use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Of the namespace that it was made in, whatever the thread is in later.
#[derive(Debug)]
pub(in crate::linux) struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Without a protocol it hears nothing until it is bound (`packet_create`).
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW, EAFNOSUPPORT without CONFIG_PACKET.
    pub(super) fn open() -> nix::Result<Self> {
        // SAFETY: takes numbers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        // SAFETY: the descriptor is new and nobody else's.
        let socket = Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })?;
        filter::attach(&socket).map(|()| Self(socket))
    }

    /// From here on it hears the link of this index, and no other.
    pub(super) fn bind(&self, index: i32) -> nix::Result<()> {
        let here = at(index, EVERYBODY);
        // SAFETY: the kernel reads a sockaddr_ll of the length that is said.
        let bound = unsafe { libc::bind(self.0.as_raw_fd(), (&raw const here).cast(), length_of(&here)) };
        Errno::result(bound).map(drop)
    }

    /// Sends a packet, IP's header first, to the neighbour that has this address. EAGAIN when it can't be taken at once.
    pub(super) fn send(&self, index: i32, mac: Mac, packet: &[u8]) -> nix::Result<()> {
        let there = at(index, mac);
        // SAFETY: the kernel reads the packet and a sockaddr_ll, each of the length that is said.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                libc::MSG_DONTWAIT,
                (&raw const there).cast(),
                length_of(&there),
            )
        };
        Errno::result(sent).map(drop)
    }

    /// One packet, cut off where `room` ends, and the neighbour it came from. EAGAIN when there is none.
    pub(super) fn receive<'a>(&self, room: &'a mut [u8]) -> nix::Result<(&'a [u8], Mac)> {
        let mut from = at(0, EVERYBODY);
        let mut length = length_of(&from);
        // SAFETY: the kernel writes at most as many bytes as `room` has, an address of at most `length` bytes, and its length.
        let received = unsafe {
            libc::recvfrom(
                self.0.as_raw_fd(),
                room.as_mut_ptr().cast(),
                room.len(),
                libc::MSG_DONTWAIT,
                (&raw mut from).cast(),
                &raw mut length,
            )
        };
        let bytes = usize::try_from(Errno::result(received)?).unwrap_or(0);
        let [a, b, c, d, e, f, ..] = from.sll_addr;
        Ok((room.get(..bytes).unwrap_or_default(), Mac([a, b, c, d, e, f])))
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn at(index: i32, mac: Mac) -> libc::sockaddr_ll {
    let [a, b, c, d, e, f] = mac.0;
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_IP as u16).to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [a, b, c, d, e, f, 0, 0],
    }
}

fn length_of(address: &libc::sockaddr_ll) -> libc::socklen_t {
    size_of_val(address) as libc::socklen_t
}
