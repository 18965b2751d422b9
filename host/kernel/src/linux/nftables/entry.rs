//! One thing in force: what a wanted rule comes to in our tables.
//!
//! A table has groups. A group is a counter, a map of the same name from a container's address or port to that counter,
//! and one rule that looks its packet up in the map. Adding a container is then adding one element, whatever else is
//! there: an element of a map of verdicts would cost more the more there are, because the kernel walks the map
//! to look for loops (`nft_lookup_validate`: 6 µs with one element, 165 with 5,000).
//! The counter says two things for nothing: how many packets the rule has acted on, and how many elements the map has
//! (NFTA_OBJ_USE), which otherwise takes a dump of all.

use super::attribute::Attribute;
use super::expression::name_bytes;
use super::holders::Subject;
use super::message::{Hook, KeyType, Place};
use crate::Mac;
use std::fmt;
use std::net::IpAddr;

/// Where the groups of one kind live.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) place: Place,
    pub(super) chain: &'static str,
    /// `None`: a gate jumps to it.
    pub(super) hook: Option<Hook>,
    /// Sets beside the maps of the groups and `owners`.
    pub(super) sets: &'static [(&'static str, KeyType)],
    pub(super) gates: &'static [Gate],
    /// How many objects a group is: a counter and a map, and for some a map of where to ([`Group::target`]).
    pub(super) group_use: u32,
}

/// A base chain beside the one of the groups, whose rules are always the same.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) chain: &'static str,
    pub(super) hook: Hook,
    pub(super) rules: fn() -> Vec<Vec<Attribute>>,
    /// How many of them jump to the chain of the groups.
    pub(super) jumps: u32,
}

/// The set of records: what each owner has, so that it is found without looking at anybody else's.
pub(super) const OWNERS: &str = "owners";
/// 16 bytes of network and attachment, the plugin, a number. The types are nft's nearest of these lengths.
pub(super) const OWNERS_KEY: KeyType = KeyType::IPV6.then(KeyType::MARK).then(KeyType::MARK);
/// A counter and a map: what most groups are.
pub(super) const GROUP_USE: u32 = 2;

impl Table {
    /// NFTA_TABLE_USE of the table without groups: the chains and the sets.
    pub(super) fn fixed_use(&self) -> u32 {
        2 + self.sets.len() as u32 + self.gates.len() as u32
    }

    /// NFTA_TABLE_USE with so many groups.
    pub(super) fn use_with(&self, groups: usize) -> u32 {
        self.fixed_use() + self.group_use * groups as u32
    }

    /// What jumps to the chain of the groups.
    pub(super) fn jumps(&self) -> u32 {
        self.gates.iter().map(|gate| gate.jumps).sum()
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) key: KeyType,
    /// What the map of [`target_of`] has as values, for groups with one.
    pub(super) target: Option<KeyType>,
    pub(super) rule: Expressions,
    /// Whether its rule goes before those of other groups.
    pub(super) first: bool,
}

/// The contents of NFTA_RULE_EXPRESSIONS, made when they are sent or compared: of the containers of a network only the first needs
/// them.
pub(super) struct Expressions(Box<dyn Fn() -> Vec<Attribute>>);

impl Expressions {
    pub(super) fn by(make: impl Fn() -> Vec<Attribute> + 'static) -> Self {
        Self(Box::new(make))
    }

    pub(super) fn get(&self) -> Vec<Attribute> {
        (self.0)()
    }
}

impl From<Vec<Attribute>> for Expressions {
    fn from(expressions: Vec<Attribute>) -> Self {
        Self::by(move || expressions.clone())
    }
}

impl fmt::Debug for Expressions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// The text form is what the record of it has as its comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// In a group of addresses: sources with the same excepted networks, or destinations within their bridges.
    Address {
        group: String,
        address: IpAddr,
    },
    Guard {
        port: String,
        mac: Mac,
    },
    /// In a group of ports of the node with the same conditions.
    Port {
        group: String,
        host_ip: Option<IpAddr>,
        protocol: Protocol,
        port: u16,
        to: IpAddr,
        to_port: u16,
    },
    /// In a group of the sources that a translated connection's answer would not find its way back from.
    Return {
        group: String,
        to: IpAddr,
        protocol: Protocol,
        port: u16,
    },
    /// In a group of one policy and one bridge.
    Forward {
        group: String,
        address: IpAddr,
    },
}

/// IPPROTO_*.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

impl Protocol {
    pub(super) fn of(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|protocol| *protocol as u8 == number)
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|protocol| protocol.to_string() == name)
    }

    fn key(self) -> [u8; 4] {
        [self as u8, 0, 0, 0]
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// An element of another set that goes with an entry.
#[derive(Debug)]
pub(super) struct Companion {
    pub(super) set: String,
    pub(super) key: Vec<u8>,
    pub(super) data: Option<Vec<u8>>,
}

/// The map of where to, of a group of ports.
pub(super) fn target_of(group: &str) -> String {
    format!("{group}-to")
}

/// The only group of spoof checks.
pub(super) const GUARDED: &str = "guarded";
/// The set of (port, Ethernet source) that may pass.
pub(super) const ALLOWED: &str = "allowed";
/// How the groups of ports begin, of returns and of forwarding.
pub(super) const PORTS: [&str; 2] = ["ports", "hostip"];
pub(super) const RETURNS: [&str; 3] = ["hairpin", "loopback", "everyone"];
pub(super) const OPEN: &str = "open";
pub(super) const POLICED: [&str; 2] = ["ingress", "isolated"];

/// The sets of addresses whose traffic is let through, and of those that not everybody may talk to.
pub(super) fn forwarded(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "forwarded4" } else { "forwarded6" }
}

/// See [`forwarded`].
pub(super) fn policed(is_ipv4: bool) -> &'static str {
    if is_ipv4 { "policed4" } else { "policed6" }
}

impl Entry {
    pub(super) fn group(&self) -> &str {
        match self {
            Self::Address { group, .. }
            | Self::Port { group, .. }
            | Self::Return { group, .. }
            | Self::Forward { group, .. } => group,
            Self::Guard { .. } => GUARDED,
        }
    }

    /// The key in the map of the group. At most one entry of all owners has it.
    pub(super) fn key(&self) -> Vec<u8> {
        match self {
            Self::Address { address, .. } => address_bytes(*address),
            Self::Guard { port, .. } => name_bytes(port),
            Self::Port { host_ip, protocol, port, .. } => {
                let address = host_ip.map(address_bytes).unwrap_or_default();
                [&address[..], &protocol.key(), &port_bytes(*port)].concat()
            }
            Self::Return { to, protocol, port, .. } => {
                [&address_bytes(*to)[..], &protocol.key(), &port_bytes(*port)].concat()
            }
            Self::Forward { address, .. } => address_bytes(*address),
        }
    }

    /// Elements of other sets that go with it.
    pub(super) fn companions(&self) -> Vec<Companion> {
        match self {
            Self::Address { .. } | Self::Return { .. } => Vec::new(),
            Self::Guard { port, mac } => {
                let key = [&name_bytes(port)[..], &mac.0, &[0; 2]].concat();
                vec![Companion { set: ALLOWED.to_owned(), key, data: None }]
            }
            Self::Port { group, to, to_port, .. } => {
                let data = [&address_bytes(*to)[..], &port_bytes(*to_port)].concat();
                vec![Companion { set: target_of(group), key: self.key(), data: Some(data) }]
            }
            Self::Forward { group, address } => {
                let in_set = |set: &str| Companion { set: set.to_owned(), key: address_bytes(*address), data: None };
                let mut companions = vec![in_set(forwarded(*address))];
                if POLICED.iter().any(|policy| group.starts_with(policy)) {
                    companions.push(in_set(policed(address.is_ipv4())));
                }
                companions
            }
        }
    }

    pub(super) fn subject(&self) -> Subject {
        match self {
            Self::Address { address, .. } | Self::Forward { address, .. } => Subject::Address(*address),
            Self::Port { to, .. } | Self::Return { to, .. } => Subject::Address(*to),
            Self::Guard { port, .. } => Subject::Port(port.clone()),
        }
    }

    /// Where it stands, to look it up by: a pod may publish thousands of ports.
    pub(super) fn place(&self) -> (&str, Vec<u8>) {
        (self.group(), self.key())
    }

    pub(super) fn has_place_of(&self, other: &Self) -> bool {
        self.group() == other.group() && self.key() == other.key()
    }

    /// Whether both can't be there: they have one place, or a companion in one place.
    pub(super) fn is_in_the_way_of(&self, other: &Self) -> bool {
        let others = other.companions();
        let meet = |one: &Companion| others.iter().any(|other| (&one.set, &one.key) == (&other.set, &other.key));
        self.has_place_of(other) || self.companions().iter().any(meet)
    }

    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let (group, rest) = words.split_first()?;
        let is_of = |kinds: &[&str]| kinds.iter().any(|kind| group.starts_with(kind));
        let group = (*group).to_owned();
        match rest {
            [port, mac] if group == GUARDED => Some(Self::Guard { port: (*port).to_owned(), mac: mac.parse().ok()? }),
            [address] if is_of(&[OPEN]) || is_of(&POLICED) => {
                Some(Self::Forward { group, address: address.parse().ok()? })
            }
            [address] => Some(Self::Address { group, address: address.parse().ok()? }),
            [to, protocol, port] if is_of(&RETURNS) => Some(Self::Return {
                group,
                to: to.parse().ok()?,
                protocol: Protocol::parse(protocol)?,
                port: port.parse().ok()?,
            }),
            [host_ip @ .., protocol, port, to, to_port] if is_of(&PORTS) && host_ip.len() < 2 => Some(Self::Port {
                group,
                host_ip: host_ip.first().map(|text| text.parse()).transpose().ok()?,
                protocol: Protocol::parse(protocol)?,
                port: port.parse().ok()?,
                to: to.parse().ok()?,
                to_port: to_port.parse().ok()?,
            }),
            _ => None,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { group, address } => write!(f, "{group} {address}"),
            Self::Guard { port, mac } => write!(f, "{GUARDED} {port} {mac}"),
            Self::Port { group, host_ip, protocol, port, to, to_port } => {
                write!(f, "{group} ")?;
                if let Some(host_ip) = host_ip {
                    write!(f, "{host_ip} ")?;
                }
                write!(f, "{protocol} {port} {to} {to_port}")
            }
            Self::Return { group, to, protocol, port } => write!(f, "{group} {to} {protocol} {port}"),
            Self::Forward { group, address } => write!(f, "{group} {address}"),
        }
    }
}

/// What the element of a group with this key is about: an address of its length, or the name of a port.
pub(super) fn subject_of_key(key: &[u8], is_port: bool) -> Option<Subject> {
    match (key.len(), is_port) {
        (4, false) => key.first_chunk().map(|bytes: &[u8; 4]| Subject::Address(IpAddr::from(*bytes))),
        (16, false) => key.first_chunk().map(|bytes: &[u8; 16]| Subject::Address(IpAddr::from(*bytes))),
        (16, true) => Some(Subject::Port(crate::linux::socket::text_of(key))),
        _ => None,
    }
}

fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Each part of a concatenation begins at a multiple of four bytes.
fn port_bytes(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// A record of an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// [`super::owner::label_hash`].
    pub(super) label: String,
    /// `None`: nothing that this release has written.
    pub(super) entry: Option<Entry>,
    text: String,
}

impl Record {
    pub(super) fn new(label: &str, entry: &Entry) -> Self {
        Self { label: label.to_owned(), entry: Some(entry.clone()), text: format!("{label} {entry}") }
    }

    pub(super) fn parse(text: String) -> Self {
        let (label, entry) = text.split_once(' ').unwrap_or_default();
        Self { label: label.to_owned(), entry: Entry::parse(entry), text }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// An entry that is wanted, with what it takes to make it.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) entry: Entry,
    pub(super) group: Group,
    /// For `verify`.
    pub(super) meaning: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host_ip: Option<&str>, to: &str) -> Entry {
        Entry::Port {
            group: if host_ip.is_some() { "hostip6-0a0b0c0d0e0f".into() } else { "ports4".into() },
            host_ip: host_ip.map(|text| text.parse().unwrap()),
            protocol: Protocol::Udp,
            port: 65535,
            to: to.parse().unwrap(),
            to_port: 65535,
        }
    }

    #[test]
    fn records_are_read_as_written() {
        for entry in [
            Entry::Address { group: "masq4-10.1.2.0/24".into(), address: "10.1.2.3".parse().unwrap() },
            Entry::Address { group: "masq6".into(), address: "fd00::1".parse().unwrap() },
            Entry::Guard { port: "veth0".into(), mac: Mac([2, 0, 0, 0, 0, 1]) },
            port(None, "10.1.2.3"),
            port(Some("2001:db8:1111:2222:3333:4444:5555:6666"), "fd00:1111:2222:3333:4444:5555:6666:7777"),
            Entry::Return {
                group: "hairpin6-fd00_1111_2222_3333_4444_5555_6666_7777/128".into(),
                to: "fd00:1111:2222:3333:4444:5555:6666:7777".parse().unwrap(),
                protocol: Protocol::Sctp,
                port: 65535,
            },
            Entry::Forward { group: "ingress4-cni0".into(), address: "10.1.2.3".parse().unwrap() },
            Entry::Forward { group: "open6".into(), address: "fd00::1".parse().unwrap() },
        ] {
            let record = Record::new("0a0b0c0d", &entry);
            assert_eq!(Record::parse(record.text().to_owned()), record);
            assert!(record.text().len() < super::super::message::COMMENT_MAX, "{}", record.text());
        }
    }

    #[test]
    fn strange_records_are_of_nothing() {
        for text in ["", "x", "x y", "x y z", "x guarded veth0 0", "x guarded veth0 02:00:00:00:00:01 more"] {
            assert_eq!(Record::parse(text.to_owned()).entry, None, "{text}");
        }
    }
}
