//! GC: everything of a network whose attachment the runtime no longer lists.

use super::entry::{Entry, GROUP_USE, OWNERS, Record, Table, target_of};
use super::message::Message;
use super::owner::{Owner, attachment_hash, network_hash};
use super::seen::{self, Element};
use super::settle::{Held, rules_of, settle};
use super::sweep::sweep;
use super::wire::Wire;
use crate::Outcome;
use std::collections::BTreeSet;

/// Elements or records of one transaction: their messages, up to three of 150 bytes for a record, must fit into the
/// socket's send buffer (212,992 bytes by default).
const AT_ONCE: usize = 200;

/// Which attachments are stale.
#[derive(Debug)]
pub(super) struct Scope {
    network: [u8; 8],
    valid: BTreeSet<[u8; 8]>,
}

impl Scope {
    pub(super) fn new(network: &str, valid: &[(String, String)]) -> Self {
        let valid = valid.iter().map(|(container_id, ifname)| attachment_hash(container_id, ifname)).collect();
        Self { network: network_hash(network), valid }
    }

    pub(super) fn is_stale(&self, network: [u8; 8], attachment: [u8; 8]) -> bool {
        network == self.network && !self.valid.contains(&attachment)
    }
}

/// Removes what is stale from one of our tables; what it was.
pub(super) fn retain(wire: &mut Wire, table: &Table, scope: &Scope) -> Outcome<Vec<Entry>> {
    remove(wire, table, &|owner: &Owner| scope.is_stale(owner.network, owner.attachment))
}

/// Removes what `stale` owners have in one of our tables; what it was.
pub(super) fn remove(wire: &mut Wire, table: &Table, stale: &dyn Fn(&Owner) -> bool) -> Outcome<Vec<Entry>> {
    let place = table.place;
    let records = wire.list(&place.list_elements(OWNERS))?;
    let records: Vec<(Owner, Element)> = records
        .iter()
        .flat_map(seen::elements)
        .filter_map(|element| Some((Owner::of_slot(&element.key)?, element)))
        .filter(|(owner, _)| stale(owner))
        .collect();
    let gone = records.iter().filter_map(|(_, record)| Record::parse(record.comment.clone()).entry).collect();
    for some in records.chunks(AT_ONCE) {
        let changes: Vec<Message> = some.iter().flat_map(|(_, record)| removal(table, record)).collect();
        if wire.commit(&changes, None).is_ok() {
            continue;
        }
        // Something of it is gone already; one by one it is looked at before.
        for owner in some.iter().map(|(owner, _)| *owner).collect::<BTreeSet<_>>() {
            settle(wire, owner, None, &[(table, Vec::new())], Held::Take)?;
        }
    }
    // Elements without a record: somebody has flushed the set of records by hand.
    let groups: BTreeSet<String> = rules_of(wire, table)?.into_iter().map(|(_, group)| group).collect();
    let targets = groups.iter().filter(|_| table.group_use > GROUP_USE).map(|group| target_of(group));
    let sets = groups.iter().cloned().chain(targets).chain(table.sets.iter().map(|(name, _)| (*name).to_owned()));
    for set in sets {
        let set = set.as_str();
        let elements = wire.list(&place.list_elements(set))?;
        let orphans: Vec<Message> = elements
            .iter()
            .flat_map(seen::elements)
            .filter(|element| Owner::of_comment(&element.comment).as_ref().is_some_and(stale))
            .map(|element| place.delete_element(set, &element.key))
            .collect();
        for changes in orphans.chunks(AT_ONCE) {
            match wire.commit(changes, None) {
                // Gone meanwhile, or another's by now: the next GC looks again.
                Err(failure) if failure.is_passing() => {}
                other => other.map_err(super::wire::Failure::into_error)?,
            }
        }
    }
    if !groups.is_empty() {
        sweep(wire, table, &groups)?;
    }
    Ok(gone)
}

/// Deletes a record and what it is of.
fn removal(table: &Table, record: &Element) -> Vec<Message> {
    let place = table.place;
    let mut changes = vec![place.delete_element(OWNERS, &record.key)];
    if let Some(entry) = Record::parse(record.comment.clone()).entry {
        changes.push(place.delete_element(entry.group(), &entry.key()));
        changes.extend(entry.companions().iter().map(|other| place.delete_element(&other.set, &other.key)));
    }
    changes
}
