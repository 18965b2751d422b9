//! Whose rules there are, and taking those of some away: for an operator's `repair`, which knows who may have any.

use super::entry::{Entry, GUARDED, OWNERS, Record, Table, subject_of_key};
use super::owner::{Owner, attachment_hash, network_hash};
use super::retain::remove;
use super::seen::{self, Element};
use super::settle::rules_of;
use super::wire::Wire;
use crate::{Outcome, RuleHolder};
use std::collections::BTreeMap;
use std::net::IpAddr;

impl RuleHolder {
    /// Whether it is this attachment, of whatever plugin.
    pub fn is(&self, network: &str, container_id: &str, ifname: &str) -> bool {
        self.network == network_hash(network) && self.attachment == attachment_hash(container_id, ifname)
    }

    fn owns(&self, owner: &Owner) -> bool {
        (self.network, self.attachment) == (owner.network, owner.attachment)
    }
}

/// By network and attachment.
pub(super) type Found = BTreeMap<([u8; 8], [u8; 8]), RuleHolder>;

fn holder<'f>(found: &'f mut Found, owner: &Owner) -> &'f mut RuleHolder {
    let (network, attachment) = (owner.network, owner.attachment);
    let new = || RuleHolder { network, attachment, text: String::new(), addresses: Vec::new(), ports: Vec::new() };
    found.entry((network, attachment)).or_insert_with(new)
}

/// Adds who has something in one of our tables.
pub(super) fn list(wire: &mut Wire, table: &Table, found: &mut Found) -> Outcome<()> {
    let place = table.place;
    for object in wire.list(&place.list_elements(OWNERS))? {
        for element in seen::elements(&object) {
            let Some(owner) = Owner::of_slot(&element.key) else { continue };
            holder(found, &owner).add(Record::parse(element.comment).entry.map(|entry| entry.subject()));
        }
    }
    for (_, group) in rules_of(wire, table)? {
        for object in wire.list(&place.list_elements(&group))? {
            for Element { key, comment, .. } in seen::elements(&object) {
                let Some(owner) = Owner::of_comment(&comment) else { continue };
                let holder = holder(found, &owner);
                holder.add(subject_of_key(&key, group == GUARDED));
                if let Some((_, text)) = comment.split_once(", ") {
                    text.clone_into(&mut holder.text);
                }
            }
        }
    }
    Ok(())
}

/// What an element is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    Address(IpAddr),
    Port(String),
}

impl RuleHolder {
    fn add(&mut self, subject: Option<Subject>) {
        match subject {
            Some(Subject::Address(address)) if !self.addresses.contains(&address) => self.addresses.push(address),
            Some(Subject::Port(port)) if !self.ports.contains(&port) => self.ports.push(port),
            _ => {}
        }
    }
}

/// Removes all that these have in one of our tables; what it was.
pub(super) fn clear(wire: &mut Wire, table: &Table, holders: &[RuleHolder]) -> Outcome<Vec<Entry>> {
    remove(wire, table, &|owner: &Owner| holders.iter().any(|holder| holder.owns(owner)))
}
