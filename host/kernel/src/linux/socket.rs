//! A small blocking netlink socket: several messages in one `sendmsg`, one answer each.
//!
//! rtnetlink's own connection needs an async runtime and sends one message at a time (60 to 80 µs a process on a path
//! that takes 1 ms in all), so only its typed messages are used here.

use super::attributes::Attributes;
use crate::{KernelError, Outcome};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP,
    NLMSG_OVERRUN, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Epochs and signals don't interrupt a host call that blocks in the kernel, so the socket has its own limit.
const TIMEOUT_SECONDS: i64 = 10;
/// More than a single link or an acknowledgement has (`if_nlmsg_size`).
const RECEIVE_BYTES: usize = 8 << 10;
/// The kernel fills dump answers up to 32 KiB when the reader offers as much, and its first piece, which it makes before it
/// knows the reader, up to the largest object (`netlink_dump`: max_recvmsg_len, min_dump_alloc): a bridge's port with
/// hundreds of VLANs, a route with hundreds of hops.
const DUMP_BYTES: usize = 32 << 10;
/// Messages of one batch: their acknowledgements must fit into the socket's receive buffer (212,992 bytes by default,
/// of which each takes about 900).
const BATCH: usize = 100;
/// As the reference (`netlinksafe`): an interrupted dump is repeated this often, then taken as it is.
const DUMP_TRIES: usize = 5;
/// `NLMSGERR_ATTR_MSG` of the extended acknowledgement (linux/netlink.h).
const NLMSGERR_ATTR_MSG: u16 = 1;
const HEADER_BYTES: usize = 16;
/// The port number of what the kernel sends (netlink(7), `nl_pid`).
const KERNEL: u32 = 0;

/// One message of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) message: RouteNetlinkMessage,
    /// NLM_F_CREATE, NLM_F_EXCL and the like; REQUEST and ACK are added.
    pub(crate) flags: u16,
}

impl Request {
    pub(crate) fn new(message: RouteNetlinkMessage, flags: u16) -> Self {
        Self { message, flags }
    }
}

/// The kernel's refusal of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) errno: Errno,
    /// Extended acknowledgement, "" when the kernel gave none.
    pub(crate) text: String,
    /// It is no answer of the kernel's: that was lost, and what was asked may have been done.
    pub(crate) unheard: bool,
}

impl Refusal {
    pub(crate) fn new(errno: Errno) -> Self {
        Self { errno, text: String::new(), unheard: false }
    }

    /// Of a receive that failed.
    fn unheard(errno: Errno) -> Self {
        Self { unheard: true, ..Self::new(errno) }
    }

    /// The error with what was attempted before it.
    pub(crate) fn into_error(self, what: impl fmt::Display) -> KernelError {
        let kind = if self.unheard { KernelError::Unheard } else { error_of(self.errno) };
        kind(format!("{what}: {self}"))
    }
}

impl fmt::Display for Refusal {
    /// In Go's wording, which operators know from the reference plugins: "file exists (EEXIST)".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?}", describe(self.errno), self.errno)?;
        if !self.text.is_empty() {
            write!(f, "; the kernel says: {}", self.text)?;
        }
        if self.unheard {
            f.write_str("; the kernel's answer was lost")?;
        }
        f.write_str(")")
    }
}

/// errno's text as Go writes it, in lower case.
pub(crate) fn describe(errno: Errno) -> String {
    let text = errno.desc();
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    }
}

/// Which reaction an errno calls for.
pub(crate) fn error_of(errno: Errno) -> fn(String) -> KernelError {
    match errno {
        Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::EADDRNOTAVAIL | Errno::ENXIO => KernelError::NotFound,
        Errno::EEXIST => KernelError::Exists,
        Errno::EINVAL | Errno::ERANGE | Errno::EMSGSIZE | Errno::E2BIG | Errno::ENAMETOOLONG => KernelError::Invalid,
        Errno::EPERM | Errno::EACCES => KernelError::Denied,
        Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT | Errno::ENOSYS => KernelError::Unsupported,
        Errno::EBUSY => KernelError::Busy,
        Errno::EAGAIN | Errno::ETIMEDOUT => KernelError::Timeout,
        _ => KernelError::Other,
    }
}

/// One message that the kernel sent: its type and what follows the header.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) kind: u16,
    pub(crate) payload: Vec<u8>,
}

/// What one message of a batch got: the data before its acknowledgement, or the refusal.
pub(crate) type Answer = Result<Vec<Received>, Refusal>;

/// A netlink socket, which belongs for ever to the namespace that it was opened in.
#[derive(Debug)]
pub(crate) struct Socket {
    inner: netlink_sys::Socket,
    bound: bool,
    sequence: u32,
    /// Bytes that the next datagram may have.
    room: usize,
}

impl Socket {
    /// A NETLINK_ROUTE socket, opened in the current namespace of this thread.
    pub(crate) fn open() -> Outcome<Self> {
        Self::open_protocol(NETLINK_ROUTE)
    }

    /// The same of another protocol.
    pub(crate) fn open_protocol(protocol: isize) -> Outcome<Self> {
        Self::try_open(protocol).map_err(|errno| Refusal::new(errno).into_error("could not open a netlink socket"))
    }

    fn try_open(protocol: isize) -> Result<Self, Errno> {
        let io = |e: std::io::Error| errno_of(&e);
        let inner = netlink_sys::Socket::new(protocol).map_err(io)?;
        inner.set_ext_ack(true).map_err(io)?;
        inner.set_cap_ack(true).map_err(io)?;
        // Without it the kernel ignores filters of dumps (table of routes, link of addresses) and answers with all.
        inner.set_netlink_get_strict_chk(true).map_err(io)?;
        let limit = TimeVal::new(TIMEOUT_SECONDS, 0);
        setsockopt(&inner, sockopt::ReceiveTimeout, &limit)?;
        setsockopt(&inner, sockopt::SendTimeout, &limit)?;
        Ok(Self { inner, bound: false, sequence: 0, room: RECEIVE_BYTES })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.inner.as_fd()
    }

    /// Sends all in order and returns their answers in the same order. The kernel works through the whole batch: a
    /// refused message doesn't stop the ones after it (`netlink_rcv_skb`).
    pub(crate) fn batch(&mut self, requests: Vec<Request>) -> Result<Vec<Answer>, Refusal> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let mut bytes = Vec::new();
            let first = self.sequence.wrapping_add(1);
            let mut count = 0;
            for request in requests.by_ref().take(BATCH) {
                self.sequence = self.sequence.wrapping_add(1);
                append(&mut bytes, request.message, request.flags | NLM_F_REQUEST | NLM_F_ACK, self.sequence);
                count += 1;
            }
            self.send(&bytes)?;
            self.collect(first, count, &mut answers)?;
        }
        Ok(answers)
    }

    /// One message.
    pub(crate) fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> Answer {
        self.batch(vec![Request::new(message, flags)])?.pop().unwrap_or_else(|| Err(Refusal::new(Errno::EIO)))
    }

    /// One object. The kernel answers with it or with a refusal (`rtnl_getlink`): an acknowledgement after it would be one more
    /// datagram to make and to fetch.
    pub(crate) fn get(&mut self, message: RouteNetlinkMessage) -> Result<Received, Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.send(&serialize(message, NLM_F_REQUEST, sequence))?;
        let mut answer = None;
        while answer.is_none() {
            self.receive(|header, payload| {
                if header.sequence_number != sequence || header.message_type == NLMSG_NOOP || answer.is_some() {
                    return;
                }
                answer = Some(match header.message_type {
                    NLMSG_ERROR | NLMSG_DONE => Err(verdict(header, payload).unwrap_or(Refusal::new(Errno::EIO))),
                    kind => Ok(Received { kind, payload: payload.to_vec() }),
                });
            })?;
        }
        answer.unwrap_or(Err(Refusal::new(Errno::EIO)))
    }

    /// All objects that match `message`, again when the kernel says that they changed meanwhile.
    pub(crate) fn dump(&mut self, message: &RouteNetlinkMessage) -> Result<Vec<Received>, Refusal> {
        self.room = self.room.max(DUMP_BYTES);
        self.dump_small(message)
    }

    /// The same of objects of some hundred bytes, mostly few: without the larger buffer.
    pub(crate) fn dump_small(&mut self, message: &RouteNetlinkMessage) -> Result<Vec<Received>, Refusal> {
        let mut tries = 1;
        loop {
            let (objects, interrupted) = self.dump_once(message.clone())?;
            if !interrupted || tries >= DUMP_TRIES {
                return Ok(objects);
            }
            tries += 1;
        }
    }

    /// A dump that is asked for by a message of this type with these bytes after its header.
    pub(crate) fn dump_of(&mut self, kind: u16, payload: &[u8]) -> Result<Vec<Received>, Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = (HEADER_BYTES + payload.len()) as u32;
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
        bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(payload);
        self.room = self.room.max(DUMP_BYTES);
        self.send(&bytes)?;
        self.dumped(self.sequence).map(|(objects, _)| objects)
    }

    fn dump_once(&mut self, message: RouteNetlinkMessage) -> Result<(Vec<Received>, bool), Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        append(&mut bytes, message, NLM_F_REQUEST | NLM_F_DUMP, self.sequence);
        self.send(&bytes)?;
        self.dumped(self.sequence)
    }

    /// The answer to a dump: the objects, and whether they changed meanwhile.
    fn dumped(&mut self, sequence: u32) -> Result<(Vec<Received>, bool), Refusal> {
        let mut objects = Vec::new();
        let mut interrupted = false;
        let mut refusal = None;
        let mut done = false;
        while !done {
            self.receive(|header, payload| {
                if header.sequence_number != sequence {
                    return;
                }
                interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                match header.message_type {
                    NLMSG_NOOP => {}
                    NLMSG_DONE | NLMSG_ERROR => {
                        refusal = verdict(header, payload);
                        done = true;
                    }
                    kind => objects.push(Received { kind, payload: payload.to_vec() }),
                }
            })?;
        }
        refusal.map_or(Ok((objects, interrupted)), Err)
    }

    fn collect(&mut self, first: u32, count: u32, answers: &mut Vec<Answer>) -> Result<(), Refusal> {
        let mut pending: Vec<Received> = Vec::new();
        let mut answered = 0;
        while answered < count {
            self.receive(|header, payload| {
                // Of another batch, which was given up: its answers are nobody's.
                if header.sequence_number != first.wrapping_add(answered) {
                    return;
                }
                match header.message_type {
                    NLMSG_NOOP => {}
                    NLMSG_ERROR | NLMSG_DONE => {
                        let data = std::mem::take(&mut pending);
                        answers.push(verdict(header, payload).map_or(Ok(data), Err));
                        answered += 1;
                    }
                    kind => pending.push(Received { kind, payload: payload.to_vec() }),
                }
            })?;
        }
        Ok(())
    }

    /// Sends a batch, whatever its size.
    pub(crate) fn send(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let mut has_room = false;
        loop {
            match send(self.inner.as_raw_fd(), bytes, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                // More than the socket's send buffer (`netlink_sendmsg`), 212,992 bytes by default: a transaction of a
                // pod with hundreds of ports, which must not be cut in two.
                Err(Errno::EMSGSIZE) if !has_room => {
                    has_room = true;
                    setsockopt(&self.inner, sockopt::SndBufForce, &bytes.len()).map_err(Refusal::new)?;
                }
                Err(errno) => return Err(Refusal::new(errno)),
            }
        }
    }

    /// One datagram, message by message. ENOBUFS (answers were lost) is an error here: what was lost can't be known.
    pub(crate) fn receive(&mut self, each: impl FnMut(&NetlinkHeader, &[u8])) -> Result<(), Refusal> {
        self.receive_with(MsgFlags::empty(), each)
    }

    /// As `receive`, but EAGAIN instead of waiting.
    pub(crate) fn receive_now(&mut self, each: impl FnMut(&NetlinkHeader, &[u8])) -> Result<(), Refusal> {
        self.receive_with(MsgFlags::MSG_DONTWAIT, each)
    }

    fn receive_with(&mut self, flags: MsgFlags, mut each: impl FnMut(&NetlinkHeader, &[u8])) -> Result<(), Refusal> {
        // Not kept: the sockets of both namespaces take turns with the same memory.
        let mut buffer = Vec::with_capacity(self.room);
        let length = loop {
            buffer.clear();
            let received = self.inner.recv_from(&mut buffer, (flags | MsgFlags::MSG_TRUNC).bits());
            match received.map_err(|e| errno_of(&e)) {
                Ok((length, sender)) if sender.port_number() == KERNEL => break length,
                // A process: whoever has CAP_NET_ADMIN in a container may send to any socket of its namespace
                // (`netlink_allowed`), and could answer in the kernel's stead.
                Ok(_) => {}
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Refusal::unheard(errno)),
            }
        };
        let Some(datagram) = buffer.get(..length) else {
            // A single object larger than the buffer; the reader has MSG_TRUNC to learn how large it was, and the next try
            // on this socket fits.
            self.room = length.next_power_of_two();
            let text = format!("an answer of {length} bytes");
            return Err(Refusal { text, ..Refusal::unheard(Errno::EMSGSIZE) });
        };
        // A dump of many objects: from now on in few large pieces. Most are of one or two.
        if length > RECEIVE_BYTES / 4 {
            self.room = self.room.max(DUMP_BYTES);
        }
        let mut rest = datagram;
        while let Some(header) = parse_header(rest) {
            let length = header.length as usize;
            let Some(payload) = rest.get(HEADER_BYTES..length) else { break };
            if header.message_type == NLMSG_OVERRUN {
                return Err(Refusal::unheard(Errno::ENOBUFS));
            }
            each(&header, payload);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }

    /// Joins a multicast group (RTNLGRP_*): from now on its notifications queue here.
    pub(crate) fn join(&mut self, group: u32) -> Result<(), Refusal> {
        // A socket without a port number has number 0, as the kernel has: it would take the kernel's own
        // notifications for its own echo and skip them (`do_one_broadcast`).
        if !self.bound {
            self.inner.bind(&SocketAddr::new(0, 0)).map_err(|e| Refusal::new(errno_of(&e)))?;
            self.bound = true;
        }
        self.inner.add_membership(group).map_err(|e| Refusal::new(errno_of(&e)))
    }

    /// Leaves it.
    pub(crate) fn leave(&mut self, group: u32) -> Result<(), Refusal> {
        self.inner.drop_membership(group).map_err(|e| Refusal::new(errno_of(&e)))
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// The bytes of one message, for whoever must send it without allocating.
pub(crate) fn serialize(message: RouteNetlinkMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(&mut bytes, message, flags, sequence);
    bytes
}

fn append(bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    if let Some(room) = bytes.get_mut(start..) {
        message.serialize(room);
    }
}

fn parse_header(bytes: &[u8]) -> Option<NetlinkHeader> {
    let mut header = NetlinkHeader::default();
    header.length = u32_at(bytes, 0)?;
    header.message_type = u16_at(bytes, 4)?;
    header.flags = u16_at(bytes, 6)?;
    header.sequence_number = u32_at(bytes, 8)?;
    header.port_number = u32_at(bytes, 12)?;
    (header.length as usize >= HEADER_BYTES).then_some(header)
}

/// The refusal in an NLMSG_ERROR or NLMSG_DONE, `None` for success.
pub(crate) fn verdict(header: &NetlinkHeader, payload: &[u8]) -> Option<Refusal> {
    // NLMSG_DONE of a dump has an error number too when the dump broke off.
    let code = i32_at(payload, 0).unwrap_or(0);
    if code == 0 {
        return None;
    }
    let mut tlvs = 4;
    if header.message_type == NLMSG_ERROR {
        let original = u32_at(payload, 4).unwrap_or(HEADER_BYTES as u32) as usize;
        tlvs += if header.flags & NLM_F_CAPPED != 0 { HEADER_BYTES } else { original.next_multiple_of(4) };
    }
    let text = Attributes::after(payload, tlvs).text(NLMSGERR_ATTR_MSG).unwrap_or_default();
    Some(Refusal { text, ..Refusal::new(Errno::from_raw(code.saturating_neg())) })
}

/// A string attribute without its final zero.
pub(crate) fn text_of(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_a_process_sends_is_not_the_kernels() {
        let in_a_namespace = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let by_name = |name: &str| crate::linux::links::get_by_name(name);
            let mut socket = Socket::open().unwrap();
            socket.get(by_name("lo")).unwrap();
            let mut address = SocketAddr::new(0, 0);
            socket.inner.get_address(&mut address).unwrap();
            let forger = netlink_sys::Socket::new(NETLINK_ROUTE).unwrap();
            for sequence in 2..4 {
                let RouteNetlinkMessage::GetLink(link) = by_name("forged") else { panic!("no question for a link") };
                let forged = serialize(RouteNetlinkMessage::NewLink(link), 0, sequence);
                forger.send_to(&forged, &address, 0).unwrap();
            }
            let index = |received: &Received| u32_at(&received.payload, 4);
            assert_eq!(index(&socket.get(by_name("lo")).unwrap()), Some(1));
            let answer = socket.request(by_name("lo"), 0).unwrap();
            assert_eq!(answer.iter().map(index).collect::<Vec<_>>(), [Some(1)]);
        };
        std::thread::scope(|scope| scope.spawn(in_a_namespace).join().unwrap());
    }

    #[test]
    fn errno_in_the_words_of_go() {
        assert_eq!(describe(Errno::EEXIST), "file exists");
        assert_eq!(Refusal::new(Errno::ENODEV).to_string(), "no such device (ENODEV)");
    }

    #[test]
    fn extended_acknowledgement_after_capped_and_whole_original() {
        let text = [12u8, 0, 1, 0, b'n', b'o', b' ', b'w', b'a', b'y', b'!', 0];
        let original = {
            let mut bytes = vec![0u8; 28];
            bytes[0] = 28;
            bytes
        };
        let header = |flags| {
            let mut header = NetlinkHeader::default();
            header.message_type = NLMSG_ERROR;
            header.flags = flags;
            header
        };
        let mut whole = (-22i32).to_ne_bytes().to_vec();
        whole.extend_from_slice(&original);
        whole.extend_from_slice(&text);
        let mut capped = (-22i32).to_ne_bytes().to_vec();
        capped.extend_from_slice(&original[..16]);
        capped.extend_from_slice(&text);
        for (flags, payload) in [(0, whole), (NLM_F_CAPPED, capped)] {
            let refusal = verdict(&header(flags), &payload).unwrap();
            assert_eq!((refusal.errno, refusal.text.as_str()), (Errno::EINVAL, "no way!"));
        }
    }
}
