//! A client's conversations with DHCP servers (RFC 2131).

mod filter;
mod frame;
mod message;
mod packets;

use super::create::random;
use super::socket::{Refusal, describe};
use super::wait::{Woken, readable};
use super::{LinuxKernel, links};
use crate::{DhcpAsk, DhcpLease, DhcpRequest, KernelError, LinkId, LinkInfo, Mac, Netns, Outcome, boot_time};
use message::{Answer, Kind, Said, code};
use nix::errno::Errno;
use packets::PacketSocket;
use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
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
    /// Of the container's namespace, not bound yet; and when which conversation began.
    Ready(PacketSocket, Option<(u32, Instant)>),
    /// There is none, and why.
    Missing(Cow<'static, str>),
}

impl Packets {
    /// In the namespace that this thread is in, for CAP_NET_RAW.
    pub(super) fn open() -> Self {
        match PacketSocket::open() {
            Ok(socket) => Self::Ready(socket, None),
            Err(errno) => Self::Missing(
                format!(
                    "could not open a packet socket, for which DHCP needs CAP_NET_RAW and CONFIG_PACKET: {}",
                    describe(errno)
                )
                .into(),
            ),
        }
    }

    /// Nobody has asked for one.
    pub(super) fn unasked() -> Self {
        Self::Missing("packet sockets were not asked for when the namespace was opened".into())
    }
}

/// Asks for an address, this one if it can be; the first one that is offered.
///
/// # Errors
/// `Timeout` when nobody answers in `patience`.
pub(super) fn discover(
    kernel: &mut LinuxKernel,
    link: LinkId,
    ask: &DhcpAsk,
    wants: Option<Ipv4Addr>,
    patience: Duration,
) -> Outcome<DhcpLease> {
    let start = Instant::now();
    let talk = Talk::open(kernel, link, ask, start)?;
    let said = Said { broadcast: talk.needs_broadcast, wants, ..talk.say(Kind::Discover, ask) };
    let offer = talk.until(&said, &[EVERYBODY], Ipv4Addr::BROADCAST, patience, |answer, via| {
        let server = answer.address_of(code::SERVER)?;
        let good = answer.kind == Kind::Offer && is_for_a_host(answer.address);
        good.then(|| lease(ask, server, answer, via, None))
    })?;
    if let Packets::Ready(_, since) = &mut kernel.packets {
        *since = Some((offer.xid, start));
    }
    Ok(offer)
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
    let now = boot_time()?;
    // RFC 2131, section 3.1: who asks for what was offered goes on counting.
    let since = match &kernel.packets {
        Packets::Ready(_, Some((xid, start))) if *xid == held.xid && how == DhcpRequest::Offered => *start,
        _ => Instant::now(),
    };
    let talk = Talk::open(kernel, link, &held.ask, since)?;
    let said = talk.say(Kind::Request, &held.ask);
    let (to_server, to_all) = ([way_to(held), EVERYBODY], [EVERYBODY]);
    // RFC 2131, table 4.
    let (said, macs, to) = match how {
        DhcpRequest::Offered => {
            let said = Said {
                xid: held.xid,
                broadcast: talk.needs_broadcast,
                wants: Some(held.address),
                server: Some(held.server),
                ..said
            };
            (said, to_all.as_slice(), Ipv4Addr::BROADCAST)
        }
        DhcpRequest::Renew => (Said { has: held.address, ..said }, to_server.as_slice(), held.server),
        DhcpRequest::Rebind => (Said { has: held.address, ..said }, to_all.as_slice(), Ipv4Addr::BROADCAST),
    };
    talk.until(&said, macs, to, patience, |answer, via| {
        let server = answer.address_of(code::SERVER);
        let is_the_server = server == Some(held.server);
        match answer.kind {
            // Another address than was asked for is none that the pod could use.
            Kind::Ack if answer.address == held.address && (is_the_server || how == DhcpRequest::Rebind) => {
                let mut given = lease(&held.ask, server.unwrap_or(held.server), answer, via, Some(now));
                // Some say only what has changed.
                let kept = held.options.iter().filter(|old| given.options.iter().all(|new| new.code != old.code));
                given.options.extend(kept.cloned().collect::<Vec<_>>());
                // For no time at all is not given.
                Some(Some(given).filter(|given| given.seconds > 0))
            }
            // Everybody on the network hears who asks to keep an address, and could take it away so.
            Kind::Nak if is_the_server => Some(None),
            _ => None,
        }
    })
}

/// Gives an address back. Nobody answers that.
pub(super) fn release(kernel: &mut LinuxKernel, link: LinkId, held: &DhcpLease) -> Outcome<()> {
    let talk = Talk::open(kernel, link, &held.ask, Instant::now())?;
    let said = Said { has: held.address, server: Some(held.server), ..talk.say(Kind::Release, &held.ask) };
    let sent = [way_to(held), EVERYBODY].map(|mac| talk.send(&said, mac, held.server));
    match sent {
        [Err(errno), Err(_)] => Err(talk.failed("send", errno)),
        _ => Ok(()),
    }
}

/// The hardware address that led to the server. It may be another one by now (a bridge without one of its own has its lowest
/// port's): what has to arrive is sent to all as well, as the reference does.
fn way_to(held: &DhcpLease) -> Mac {
    <[u8; 6]>::try_from(held.via.as_slice()).map_or(EVERYBODY, Mac)
}

/// Whether a host can have it: not of 0.0.0.0/8, 127.0.0.0/8 and all from 224.0.0.0 on.
fn is_for_a_host(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    !(first == 0 || first == 127 || first >= 224)
}

/// What an answer gives, or offers when there is no time from which it counts (RFC 2131, sections 3.3 and 4.4.5; T2 is 85 % as in
/// the reference, not 7/8).
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
    socket: &'a PacketSocket,
    interrupted: fn() -> bool,
    since: Instant,
    index: i32,
    name: String,
    mac: Mac,
    mtu: usize,
    /// An ipvlan hears what is sent to all, or to an address that it has (`ipvlan_addr_lookup`): no answer to one that it does
    /// not have yet.
    needs_broadcast: bool,
    xid: u32,
}

impl<'a> Talk<'a> {
    fn open(kernel: &'a mut LinuxKernel, link: LinkId, ask: &DhcpAsk, since: Instant) -> Outcome<Self> {
        message::check(ask)?;
        if link.netns != Netns::Container {
            return Err(KernelError::unsupported("ask for addresses of the node's interfaces"));
        }
        let info: LinkInfo = links::by_index(kernel.namespace(link.netns)?, link.index)?;
        let Some(mac) = info.mac else {
            return Err(KernelError::Invalid(format!("link {:?} has no Ethernet address: DHCP needs one", info.name)));
        };
        let socket = match &kernel.packets {
            Packets::Ready(socket, _) => socket,
            Packets::Missing(why) => return Err(KernelError::Unsupported(why.to_string())),
        };
        let talk = Self {
            socket,
            interrupted: kernel.interrupted,
            since,
            index: i32::try_from(link.index).unwrap_or(0),
            name: info.name,
            mac,
            mtu: usize::try_from(info.mtu).unwrap_or(usize::MAX),
            needs_broadcast: info.kind == "ipvlan",
            xid: random(),
        };
        socket.bind(talk.index).map_err(|errno| talk.failed("listen", errno))?;
        Ok(talk)
    }

    fn say<'b>(&self, kind: Kind, ask: &'b DhcpAsk) -> Said<'b> {
        let (xid, mac) = (self.xid, self.mac);
        // Without IP's and UDP's headers; the least that everybody has to take (RFC 2132, section 9.10).
        let largest = u16::try_from(self.mtu.saturating_sub(frame::HEADER_BYTES)).unwrap_or(u16::MAX).clamp(576, 1472);
        Said { kind, xid, mac, largest, broadcast: false, has: Ipv4Addr::UNSPECIFIED, wants: None, server: None, ask }
    }

    fn failed(&self, what: &str, errno: Errno) -> KernelError {
        Refusal::new(errno).into_error(format!("could not {what} for DHCP on link {:?}", self.name))
    }

    fn send(&self, said: &Said<'_>, mac: Mac, to: Ipv4Addr) -> nix::Result<()> {
        let seconds = u16::try_from(self.since.elapsed().as_secs()).unwrap_or(u16::MAX);
        let packet = frame::packet(said.has, to, &said.bytes(seconds)).filter(|packet| packet.len() <= self.mtu);
        let packet = packet.ok_or(Errno::EMSGSIZE)?;
        self.socket.send(self.index, mac, &packet)
    }

    /// Says something to one of these after the other, again and again, until `hear` makes something of an answer.
    fn until<T>(
        &self,
        said: &Said<'_>,
        macs: &[Mac],
        to: Ipv4Addr,
        patience: Duration,
        mut hear: impl FnMut(&Answer, Mac) -> Option<T>,
    ) -> Outcome<T> {
        let start = Instant::now();
        let end = start + patience;
        let mut repeated = REPEATED.iter();
        let mut pause = Duration::ZERO;
        let mut was_sent = false;
        // Who was asked may do it, though nobody hears of it.
        let then = |was_sent: bool, error: KernelError| if was_sent { error.half_done() } else { error };
        for mac in macs.iter().cycle() {
            let now = Instant::now();
            match self.send(said, *mac, to) {
                Ok(()) => was_sent = true,
                // What it can't take now it may take later: a link without a carrier drops it (`noop_enqueue`).
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => {}
                Err(errno) => return Err(then(was_sent, self.failed("send", errno))),
            }
            pause = repeated.next().copied().unwrap_or(pause);
            // Pods that start together must not ask together for ever.
            let next = now + pause.mul_f32(0.9 + f32::from(random() as u8) / 1280.0);
            loop {
                let woken = readable(self.socket.as_fd(), None, next.min(end), self.interrupted);
                if woken.map_err(|error| then(was_sent, error))? == Woken::Late {
                    break;
                }
                if let Some((answer, via)) = self.receive().map_err(|error| then(was_sent, error))?
                    && answer.xid == said.xid
                    && answer.mac == self.mac
                    && let Some(heard) = hear(&answer, via)
                {
                    return Ok(heard);
                }
            }
            if (self.interrupted)() || Instant::now() >= end {
                break;
            }
        }
        Err(KernelError::Timeout(format!(
            "no DHCP server answered on link {:?} in {:.1} s: there is none on the network that it leads to, or none that has an address for it",
            self.name,
            start.elapsed().as_secs_f32()
        )))
    }

    /// One packet; none if it is nobody's answer.
    fn receive(&self) -> Outcome<Option<(Answer, Mac)>> {
        let mut room = [0_u8; PACKET_BYTES];
        let (packet, via) = match self.socket.receive(&mut room) {
            Ok(received) => received,
            // The link went down, or somebody took the packet.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => return Ok(None),
            Err(errno) => return Err(self.failed("listen", errno)),
        };
        Ok(frame::message(packet).and_then(Answer::parse).map(|answer| (answer, via)))
    }
}
