//! DHCP messages as bytes (RFC 2131, section 2; options: RFC 2132, 3396).
//!
//! What is parsed comes from whoever is on the pod's network.

use crate::{DhcpAsk, DhcpOption, KernelError, Mac, Outcome};
use std::net::Ipv4Addr;

/// Options of the protocol itself.
pub(super) mod code {
    pub(crate) const PAD: u8 = 0;
    pub(crate) const REQUESTED_ADDRESS: u8 = 50;
    pub(crate) const LEASE_SECONDS: u8 = 51;
    pub(crate) const OVERLOAD: u8 = 52;
    pub(crate) const MESSAGE: u8 = 53;
    pub(crate) const SERVER: u8 = 54;
    pub(crate) const ASKED: u8 = 55;
    pub(crate) const LARGEST: u8 = 57;
    pub(crate) const RENEW_SECONDS: u8 = 58;
    pub(crate) const REBIND_SECONDS: u8 = 59;
    pub(crate) const CLIENT: u8 = 61;
    pub(crate) const END: u8 = 255;
}

/// What a message is (option 53).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Ack = 5,
    Nak = 6,
    Release = 7,
}

impl Kind {
    fn of(value: &[u8]) -> Option<Self> {
        match value {
            [2] => Some(Self::Offer),
            [5] => Some(Self::Ack),
            [6] => Some(Self::Nak),
            // The others are what clients say, and DHCPINFORM's answers.
            _ => None,
        }
    }
}

const BOOTREQUEST: u8 = 1;
const BOOTREPLY: u8 = 2;
const ETHERNET: u8 = 1;
const MAC_BYTES: u8 = 6;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const BROADCAST: u16 = 0x8000;
/// Where the cookie begins.
const FIXED_BYTES: usize = 236;
/// Some relays drop what is shorter than BOOTP's message (RFC 1542, section 2.1).
const LEAST_BYTES: usize = 300;
/// Of all options that a client sends: more than fits into a frame no server would get whole.
const MOST_SENT_BYTES: usize = 1000;

/// What a client says.
#[derive(Debug, Clone)]
pub(super) struct Said<'a> {
    pub(super) kind: Kind,
    /// Number of the conversation.
    pub(super) xid: u32,
    pub(super) mac: Mac,
    /// How many bytes the answer may have.
    pub(super) largest: u16,
    /// Whether the answer has to be broadcast.
    pub(super) broadcast: bool,
    /// The address that the client has; 0.0.0.0 for none.
    pub(super) has: Ipv4Addr,
    /// The address that it wants.
    pub(super) wants: Option<Ipv4Addr>,
    /// The server that is meant.
    pub(super) server: Option<Ipv4Addr>,
    pub(super) ask: &'a DhcpAsk,
}

/// Refuses what is the protocol's own to say, and what is too long.
pub(super) fn check(ask: &DhcpAsk) -> Outcome<()> {
    let own = [
        code::PAD,
        code::REQUESTED_ADDRESS,
        code::LEASE_SECONDS,
        code::OVERLOAD,
        code::MESSAGE,
        code::SERVER,
        code::ASKED,
        code::LARGEST,
        code::END,
    ];
    if let Some(option) = ask.send.iter().find(|option| own.contains(&option.code)) {
        return Err(KernelError::Invalid(format!("DHCP option {} is not for a plugin to send", option.code)));
    }
    let is_said_twice = |at: usize, code: u8| ask.send.iter().take(at).any(|option| option.code == code);
    // A server would put the two together (RFC 3396).
    if let Some((_, option)) = ask.send.iter().enumerate().find(|(at, option)| is_said_twice(*at, option.code)) {
        return Err(KernelError::Invalid(format!("DHCP option {} is to be sent twice", option.code)));
    }
    if let Some(option) = ask.send.iter().find(|option| option.value.len() > usize::from(u8::MAX)) {
        return Err(KernelError::Invalid(format!(
            "DHCP option {} has {} bytes, and can have {}",
            option.code,
            option.value.len(),
            u8::MAX
        )));
    }
    let all: usize = ask.send.iter().map(|option| option.value.len() + 2).sum::<usize>() + ask.ask.len();
    match all > MOST_SENT_BYTES || ask.ask.len() > usize::from(u8::MAX) {
        true => Err(KernelError::Invalid(format!(
            "DHCP options of {all} bytes in all are to be sent, and {MOST_SENT_BYTES} can be"
        ))),
        false => Ok(()),
    }
}

impl Said<'_> {
    /// The message, `seconds` after the client began.
    pub(super) fn bytes(&self, seconds: u16) -> Vec<u8> {
        let flags = if self.broadcast { BROADCAST } else { 0 };
        let mut bytes = vec![BOOTREQUEST, ETHERNET, MAC_BYTES, 0];
        bytes.extend(self.xid.to_be_bytes());
        bytes.extend(seconds.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
        bytes.extend(self.has.octets());
        // Of the server: the client's next address, the next server, the relay.
        bytes.extend([0; 12]);
        bytes.extend(self.mac.0);
        bytes.resize(FIXED_BYTES, 0);
        bytes.extend(COOKIE);
        let mut put = |code: u8, value: &[u8]| {
            // Nothing here is longer (`check`).
            bytes.extend([code, u8::try_from(value.len()).unwrap_or(0)]);
            bytes.extend(value.iter().take(usize::from(u8::MAX)));
        };
        put(code::MESSAGE, &[self.kind as u8]);
        // One without a byte is none (RFC 2132, section 9.14): all clients that say so would be one.
        let send = self.ask.send.iter().filter(|option| option.code != code::CLIENT || !option.value.is_empty());
        if !send.clone().any(|option| option.code == code::CLIENT) {
            put(code::CLIENT, &self.ask.client);
        }
        if let Some(address) = self.wants {
            put(code::REQUESTED_ADDRESS, &address.octets());
        }
        if let Some(server) = self.server {
            put(code::SERVER, &server.octets());
        }
        // Of RFC 2131, table 5: who gives an address back says who it is, and nothing else.
        if self.kind != Kind::Release {
            put(code::LARGEST, &self.largest.to_be_bytes());
            if !self.ask.ask.is_empty() {
                put(code::ASKED, &self.ask.ask);
            }
        }
        for option in send {
            if self.kind != Kind::Release || option.code == code::CLIENT {
                put(option.code, &option.value);
            }
        }
        bytes.push(code::END);
        bytes.resize(bytes.len().max(LEAST_BYTES), code::PAD);
        bytes
    }
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) kind: Kind,
    pub(super) xid: u32,
    /// The client's address.
    pub(super) address: Ipv4Addr,
    pub(super) mac: Mac,
    pub(super) options: Vec<DhcpOption>,
}

impl Answer {
    /// None of what is no answer of a DHCP server.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (fixed, options) = bytes.split_at_checked(FIXED_BYTES)?;
        let options = options.strip_prefix(&COOKIE)?;
        if fixed.first() != Some(&BOOTREPLY) {
            return None;
        }
        let at = |from: usize| fixed.get(from..from + 4).and_then(|four| <[u8; 4]>::try_from(four).ok());
        let mac = fixed.get(28..34).and_then(|six| <[u8; 6]>::try_from(six).ok())?;
        let mut found = Vec::new();
        gather(options, &mut found);
        // The fields of a boot server's name and of a file's name may have options, too.
        let overload = value(&found, code::OVERLOAD).and_then(|value| value.first().copied()).unwrap_or(0);
        if overload & 1 != 0 {
            gather(fixed.get(108..236)?, &mut found);
        }
        if overload & 2 != 0 {
            gather(fixed.get(44..108)?, &mut found);
        }
        Some(Self {
            kind: Kind::of(value(&found, code::MESSAGE)?)?,
            xid: u32::from_be_bytes(at(4)?),
            address: at(16)?.into(),
            mac: Mac(mac),
            options: found,
        })
    }

    /// An option that is one address.
    pub(super) fn address_of(&self, code: u8) -> Option<Ipv4Addr> {
        value(&self.options, code).and_then(|value| <[u8; 4]>::try_from(value).ok()).map(Ipv4Addr::from)
    }

    /// An option that is a number of seconds.
    pub(super) fn seconds_of(&self, code: u8) -> Option<u32> {
        value(&self.options, code).and_then(|value| value.try_into().ok()).map(u32::from_be_bytes)
    }
}

fn value(options: &[DhcpOption], code: u8) -> Option<&[u8]> {
    options.iter().find(|option| option.code == code).map(|option| option.value.as_slice())
}

/// The options of one field, up to its end or to one that is cut off. What stands in several pieces is one (RFC 3396).
fn gather(mut bytes: &[u8], into: &mut Vec<DhcpOption>) {
    while let Some((&code, rest)) = bytes.split_first() {
        match code {
            code::PAD => bytes = rest,
            code::END => return,
            code => {
                let Some((&length, rest)) = rest.split_first() else { return };
                let Some((value, rest)) = rest.split_at_checked(usize::from(length)) else { return };
                match into.iter_mut().find(|option| option.code == code) {
                    Some(option) => option.value.extend(value),
                    None => into.push(DhcpOption { code, value: value.to_vec() }),
                }
                bytes = rest;
            }
        }
    }
}

#[cfg(test)]
mod tests;
