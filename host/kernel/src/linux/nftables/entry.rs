//! One thing in force: what a wanted rule comes to in our tables.
//!
//! A table has groups. A group is a counter, a map of the same name from a container's address or port to that counter,
//! and one rule that looks its packet up in the map. Adding a container is then adding one element, whatever else is
//! there: an element of a map of verdicts would cost more the more there are, because the kernel walks the map
//! to look for loops (`nft_lookup_validate`: 6 µs with one element, 165 with 5,000).
//! The counter says two things for nothing: how many packets the rule has acted on, and how many elements the map has
//! (NFTA_OBJ_USE), which otherwise takes a dump of all.

use super::attribute::Attribute;
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
    pub(super) hook: Hook,
    /// Sets beside the maps of the groups and `owners`.
    pub(super) sets: &'static [(&'static str, KeyType)],
}

/// The set of records: what each owner has, so that it is found without looking at anybody else's.
pub(super) const OWNERS: &str = "owners";
/// 16 bytes of network and attachment, the plugin, a number. The types are nft's nearest of these lengths.
pub(super) const OWNERS_KEY: KeyType = KeyType::IPV6.then(KeyType::MARK).then(KeyType::MARK);
/// A counter and a map.
pub(super) const GROUP_USE: u32 = 2;

impl Table {
    /// NFTA_TABLE_USE of the table without groups: the chain and the sets.
    pub(super) fn fixed_use(&self) -> u32 {
        2 + self.sets.len() as u32
    }
}

/// See the head of this file.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) key: KeyType,
    /// The contents of NFTA_RULE_EXPRESSIONS.
    pub(super) rule: Vec<Attribute>,
}

/// The text form is what the record of it has as its comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// In a group of sources with the same excepted networks.
    Masquerade {
        group: String,
        source: IpAddr,
    },
    Guard {
        port: String,
        mac: Mac,
    },
}

/// The only group of spoof checks.
pub(super) const GUARDED: &str = "guarded";
/// The set of (port, Ethernet source) that may pass.
pub(super) const ALLOWED: &str = "allowed";

impl Entry {
    pub(super) fn group(&self) -> &str {
        match self {
            Self::Masquerade { group, .. } => group,
            Self::Guard { .. } => GUARDED,
        }
    }

    /// The key in the map of the group. At most one entry of all owners has it.
    pub(super) fn key(&self) -> Vec<u8> {
        match self {
            Self::Masquerade { source: IpAddr::V4(source), .. } => source.octets().to_vec(),
            Self::Masquerade { source: IpAddr::V6(source), .. } => source.octets().to_vec(),
            Self::Guard { port, .. } => interface(port),
        }
    }

    /// An element of another set that goes with it.
    pub(super) fn companion(&self) -> Option<(&'static str, Vec<u8>)> {
        match self {
            Self::Masquerade { .. } => None,
            Self::Guard { port, mac } => {
                let mut key = interface(port);
                key.extend_from_slice(&mac.0);
                key.extend_from_slice(&[0; 2]);
                Some((ALLOWED, key))
            }
        }
    }

    pub(super) fn subject(&self) -> Option<Subject> {
        Some(match self {
            Self::Masquerade { source, .. } => Subject::Address(*source),
            Self::Guard { port, .. } => Subject::Port(port.clone()),
        })
    }

    pub(super) fn has_place_of(&self, other: &Self) -> bool {
        self.group() == other.group() && self.key() == other.key()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let entry = match (words.next()?, words.next()?, words.next()) {
            (GUARDED, port, Some(mac)) => Self::Guard { port: port.to_owned(), mac: mac.parse().ok()? },
            (group, source, None) => Self::Masquerade { group: group.to_owned(), source: source.parse().ok()? },
            _ => return None,
        };
        words.next().is_none().then_some(entry)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masquerade { group, source } => write!(f, "{group} {source}"),
            Self::Guard { port, mac } => write!(f, "{GUARDED} {port} {mac}"),
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

/// IFNAMSIZ bytes.
fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
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

    #[test]
    fn records_are_read_as_written() {
        for entry in [
            Entry::Masquerade { group: "masq4-10.1.2.0/24".into(), source: "10.1.2.3".parse().unwrap() },
            Entry::Masquerade { group: "masq6".into(), source: "fd00::1".parse().unwrap() },
            Entry::Guard { port: "veth0".into(), mac: Mac([2, 0, 0, 0, 0, 1]) },
        ] {
            let record = Record::new("0a0b0c0d", &entry);
            assert_eq!(Record::parse(record.text().to_owned()), record);
        }
    }

    #[test]
    fn strange_records_are_of_nothing() {
        for text in ["", "x", "x y", "x y z", "x guarded veth0 0", "x guarded veth0 02:00:00:00:00:01 more"] {
            assert_eq!(Record::parse(text.to_owned()).entry, None, "{text}");
        }
    }
}
