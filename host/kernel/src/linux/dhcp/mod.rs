//! A client's conversations with DHCP servers (RFC 2131).

#![allow(unsafe_code)]

mod frame;
mod message;

use super::create::random;
use super::socket::{Refusal, describe};
use super::wait::{Woken, readable};
use super::{LinuxKernel, links};
use crate::{DhcpAsk, DhcpLease, DhcpRequest, KernelError, LinkId, LinkInfo, Mac, Netns, Outcome, boot_time};
use message::{Answer, Kind, Said, code};
use nix::errno::Errno;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Between a message and its repetition. RFC 2131 (section 4.1) has 4 s and more, for whole buildings that get their current back; a
/// pod's first message may be lost because its bridge's port does not forward yet, and everybody waits for it.
const REPEATED: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// As the reference (`defaultLeaseTime`).
const LEASE_SECONDS: u32 = 3600;
const PACKET_BYTES: usize = 2048;
const EVERYBODY: Mac = Mac([0xff; 6]);

/// The socket that such messages go through.
#[derive(Debug)]
pub(super) enum Packets {
    /// Of the container's namespace, not bound yet.
    Ready(OwnedFd),
    /// There is none, and why.
    Missing(String),
}

impl Packets {
    /// In the namespace that this thread is in, for CAP_NET_RAW. Without a protocol it hears nothing until it is bound
    /// (`packet_create`).
    pub(super) fn open() -> Self {
        // SAFETY: takes numbers; the descriptor is new and nobody else's.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        match Errno::result(fd) {
            // SAFETY: as above.
            Ok(fd) => Self::Ready(unsafe { OwnedFd::from_raw_fd(fd) }),
            Err(errno) => Self::Missing(format!("could not open a packet socket: {}", describe(errno))),
        }
    }

    /// Nobody has asked for one.
    pub(super) fn unasked() -> Self {
        Self::Missing("packet sockets were not asked for when the namespace was opened".into())
    }
}

/// Asks for an address; the first one that is offered.
///
/// # Errors
/// `Timeout` when nobody answers in `patience`.
pub(super) fn discover(
    kernel: &mut LinuxKernel,
    link: LinkId,
    ask: &DhcpAsk,
    patience: Duration,
) -> Outcome<DhcpLease> {
    let talk = Talk::open(kernel, link, ask)?;
    let said = Said { broadcast: talk.needs_broadcast, ..talk.say(Kind::Discover, ask) };
    talk.until(&said, EVERYBODY, Ipv4Addr::BROADCAST, patience, |answer, via| {
        let server = answer.address_of(code::SERVER)?;
        let good = answer.kind == Kind::Offer && is_for_a_host(answer.address);
        good.then(|| lease(ask, server, answer, via, None))
    })
}

/// Asks for an address that was offered, or to keep one; none when it is refused.
///
/// # Errors
/// `Timeout` when nobody answers in `patience`: the server may have given it.
pub(super) fn request(
    kernel: &mut LinuxKernel,
    link: LinkId,
    held: &DhcpLease,
    how: DhcpRequest,
    patience: Duration,
) -> Outcome<Option<DhcpLease>> {
    let now = boot_time().map_err(|errno| Refusal::new(errno).into_error("could not tell the time"))?;
    let talk = Talk::open(kernel, link, &held.ask)?;
    let said = talk.say(Kind::Request, &held.ask);
    // RFC 2131, table 4.
    let (said, mac, to) = match how {
        DhcpRequest::Offered => {
            let said = Said {
                xid: held.xid,
                broadcast: talk.needs_broadcast,
                wants: Some(held.address),
                server: Some(held.server),
                ..said
            };
            (said, EVERYBODY, Ipv4Addr::BROADCAST)
        }
        DhcpRequest::Renew => (Said { has: held.address, ..said }, way_to(held), held.server),
        DhcpRequest::Rebind => (Said { has: held.address, ..said }, EVERYBODY, Ipv4Addr::BROADCAST),
    };
    talk.until(&said, mac, to, patience, |answer, via| {
        let server = answer.address_of(code::SERVER);
        if how != DhcpRequest::Rebind && server.is_some_and(|server| server != held.server) {
            return None;
        }
        match answer.kind {
            // Another address than the pod has is none that it could use.
            Kind::Ack if answer.address == held.address => {
                Some(Some(lease(&held.ask, server.unwrap_or(held.server), answer, via, Some(now))))
            }
            Kind::Ack | Kind::Nak => Some(None),
            _ => None,
        }
    })
}

/// Gives an address back. Nobody answers that.
pub(super) fn release(kernel: &mut LinuxKernel, link: LinkId, held: &DhcpLease) -> Outcome<()> {
    let talk = Talk::open(kernel, link, &held.ask)?;
    let said = Said { has: held.address, server: Some(held.server), ..talk.say(Kind::Release, &held.ask) };
    talk.send(&said, way_to(held), held.server, 0).map_err(|errno| talk.failed("send", errno))
}

/// The hardware address that leads to the server.
fn way_to(held: &DhcpLease) -> Mac {
    <[u8; 6]>::try_from(held.via.as_slice()).map_or(EVERYBODY, Mac)
}

/// Whether a host can have it.
fn is_for_a_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast())
}

/// What an answer gives, or offers when there is no time from which it counts (RFC 2131, sections 3.3 and 4.4.5).
fn lease(ask: &DhcpAsk, server: Ipv4Addr, answer: &Answer, via: Mac, from: Option<u64>) -> DhcpLease {
    let seconds = answer.seconds_of(code::LEASE_SECONDS).unwrap_or(LEASE_SECONDS);
    let part = |percent: u64| u32::try_from(u64::from(seconds) * percent / 100).unwrap_or(u32::MAX);
    let rebind = answer.seconds_of(code::REBIND_SECONDS).filter(|at| *at <= seconds).unwrap_or(part(85));
    let renew = answer.seconds_of(code::RENEW_SECONDS).filter(|at| *at <= rebind).unwrap_or(part(50).min(rebind));
    DhcpLease {
        ask: ask.clone(),
        address: answer.address,
        server,
        via: via.0.to_vec(),
        xid: answer.xid,
        obtained: from.unwrap_or(0),
        seconds: if from.is_some() { seconds } else { 0 },
        renew,
        rebind,
        options: answer.options.clone(),
    }
}

/// One conversation.
struct Talk<'a> {
    socket: &'a OwnedFd,
    interrupted: fn() -> bool,
    index: i32,
    name: String,
    mac: Mac,
    /// An ipvlan hears what is sent to all, or to an address that it has (`ipvlan_addr_lookup`): no answer to one that it does
    /// not have yet.
    needs_broadcast: bool,
    xid: u32,
}

impl<'a> Talk<'a> {
    fn open(kernel: &'a mut LinuxKernel, link: LinkId, ask: &DhcpAsk) -> Outcome<Self> {
        message::check(ask)?;
        if link.netns != Netns::Container {
            return Err(KernelError::unsupported("ask for addresses of the node's interfaces"));
        }
        let info: LinkInfo = links::by_index(kernel.namespace(link.netns)?, link.index)?;
        let Some(mac) = info.mac else {
            return Err(KernelError::Invalid(format!("link {:?} has no Ethernet address: DHCP needs one", info.name)));
        };
        let socket = match &kernel.packets {
            Packets::Ready(socket) => socket,
            Packets::Missing(why) => return Err(KernelError::Unsupported(why.clone())),
        };
        let talk = Self {
            socket,
            interrupted: kernel.interrupted,
            index: i32::try_from(link.index).unwrap_or(0),
            name: info.name,
            mac,
            needs_broadcast: info.kind == "ipvlan",
            xid: random(),
        };
        talk.bind()?;
        Ok(talk)
    }

    fn say<'b>(&self, kind: Kind, ask: &'b DhcpAsk) -> Said<'b> {
        let (xid, mac) = (self.xid, self.mac);
        Said { kind, xid, mac, broadcast: false, has: Ipv4Addr::UNSPECIFIED, wants: None, server: None, ask }
    }

    fn at(&self, mac: Mac) -> libc::sockaddr_ll {
        let [a, b, c, d, e, f] = mac.0;
        libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_IP as u16).to_be(),
            sll_ifindex: self.index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [a, b, c, d, e, f, 0, 0],
        }
    }

    /// From here on it hears the link.
    fn bind(&self) -> Outcome<()> {
        let here = self.at(EVERYBODY);
        // SAFETY: the kernel reads a sockaddr_ll of the length that is said.
        let bound = unsafe { libc::bind(self.socket.as_raw_fd(), (&raw const here).cast(), length_of(&here)) };
        Errno::result(bound).map(drop).map_err(|errno| self.failed("listen", errno))
    }

    fn failed(&self, what: &str, errno: Errno) -> KernelError {
        Refusal::new(errno).into_error(format!("could not {what} for DHCP on link {:?}", self.name))
    }

    fn send(&self, said: &Said<'_>, mac: Mac, to: Ipv4Addr, seconds: u16) -> nix::Result<()> {
        let packet = frame::packet(said.has, to, &said.bytes(seconds)).ok_or(Errno::EMSGSIZE)?;
        let there = self.at(mac);
        // SAFETY: the kernel reads the packet and a sockaddr_ll, each of the length that is said.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                libc::MSG_DONTWAIT,
                (&raw const there).cast(),
                length_of(&there),
            )
        };
        Errno::result(sent).map(drop)
    }

    /// Says something, again and again, until `hear` makes something of an answer.
    fn until<T>(
        &self,
        said: &Said<'_>,
        mac: Mac,
        to: Ipv4Addr,
        patience: Duration,
        mut hear: impl FnMut(&Answer, Mac) -> Option<T>,
    ) -> Outcome<T> {
        let start = Instant::now();
        let end = start + patience;
        let mut repeated = REPEATED.iter();
        let mut pause = Duration::ZERO;
        loop {
            let now = Instant::now();
            let seconds = u16::try_from((now - start).as_secs()).unwrap_or(u16::MAX);
            match self.send(said, mac, to, seconds) {
                // What it can't take now it may take later: a link without a carrier drops it (`noop_enqueue`).
                Ok(()) | Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => {}
                Err(errno) => return Err(self.failed("send", errno)),
            }
            pause = repeated.next().copied().unwrap_or(pause);
            // Pods that start together must not ask together for ever.
            let next = now + pause.mul_f32(0.9 + f32::from(random() as u8) / 1280.0);
            while let Woken::Readable(..) = readable(self.socket.as_fd(), None, next.min(end), self.interrupted)? {
                if let Some((answer, via)) = self.receive()?
                    && answer.xid == said.xid
                    && answer.mac == self.mac
                    && let Some(heard) = hear(&answer, via)
                {
                    return Ok(heard);
                }
            }
            if (self.interrupted)() || Instant::now() >= end {
                return Err(KernelError::Timeout(format!(
                    "no DHCP server answered on link {:?} in {:.1} s",
                    self.name,
                    start.elapsed().as_secs_f32()
                )));
            }
        }
    }

    /// One packet; none if it is nobody's answer.
    fn receive(&self) -> Outcome<Option<(Answer, Mac)>> {
        let mut packet = [0_u8; PACKET_BYTES];
        let mut from = self.at(EVERYBODY);
        let mut length = length_of(&from);
        // SAFETY: the kernel writes at most as many bytes as `packet` has, an address of at most `length` bytes, and its length.
        let received = unsafe {
            libc::recvfrom(
                self.socket.as_raw_fd(),
                packet.as_mut_ptr().cast(),
                packet.len(),
                libc::MSG_DONTWAIT,
                (&raw mut from).cast(),
                &raw mut length,
            )
        };
        let received = match Errno::result(received) {
            Ok(bytes) => usize::try_from(bytes).unwrap_or(0),
            // The link went down, or somebody took the packet.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => return Ok(None),
            Err(errno) => return Err(self.failed("listen", errno)),
        };
        let [a, b, c, d, e, f, ..] = from.sll_addr;
        let answer = packet.get(..received).and_then(frame::message).and_then(Answer::parse);
        Ok(answer.map(|answer| (answer, Mac([a, b, c, d, e, f]))))
    }
}

fn length_of(address: &libc::sockaddr_ll) -> libc::socklen_t {
    size_of_val(address) as libc::socklen_t
}
