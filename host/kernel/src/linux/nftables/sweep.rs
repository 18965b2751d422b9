//! What is left when the last element goes: nothing.

use super::entry::{GROUP_USE, Table, target_of};
use super::message::Message;
use super::seen;
use super::settle::rules_of;
use super::wire::{Wire, generation_of};
use crate::Outcome;
use std::collections::BTreeSet;

/// Unlike a plan that has to be carried out, this may be given up.
const TRIES: usize = 20;

/// Deletes those of `groups` that have no element, and the table when no group is left.
///
/// Two containers that go at once both see the other's element when they plan; whoever commits last finds here that
/// there is none. Between the look and the deletion a container may come: the deletion is bound to the generation.
pub(super) fn sweep(wire: &mut Wire, table: &Table, groups: &BTreeSet<String>) -> Outcome<()> {
    let place = table.place;
    for _ in 0..TRIES {
        let mut questions = vec![Message::generation(), place.get_table()];
        questions.extend(groups.iter().map(|name| place.get_counter(name)));
        let mut answers = wire.ask(&questions)?.into_iter();
        let generation = generation_of(answers.next().flatten().as_ref());
        let Some(table_use) = seen::table_use(answers.next().flatten().as_ref()) else { return Ok(()) };
        let uses = answers.map(|answer| seen::counter_use(answer.as_ref()));
        let empty: BTreeSet<&str> = groups
            .iter()
            .zip(uses)
            .filter(|(_, elements)| *elements == Some(0))
            .map(|(name, _)| name.as_str())
            .collect();
        let changes = if table_use == table.use_with(empty.len()) {
            vec![place.delete_table()]
        } else if empty.is_empty() {
            return Ok(());
        } else {
            drop_groups(table, &rules_of(wire, table)?, &empty)
        };
        let Some(generation) = generation else { return Ok(()) };
        match wire.commit(&changes, Some(generation)) {
            Ok(()) => return Ok(()),
            Err(failure) if failure.is_passing() => {}
            Err(failure) => return Err(failure.into_error()),
        }
    }
    // Others keep changing the firewall; an empty group does no harm, and the next DEL or GC sweeps again.
    Ok(())
}

/// Deletes groups whose elements are gone. `rules`: handle and comment of the rules of the chain.
pub(super) fn drop_groups(table: &Table, rules: &[(u64, String)], names: &BTreeSet<&str>) -> Vec<Message> {
    let place = table.place;
    let mut changes: Vec<Message> = rules
        .iter()
        .filter(|(_, comment)| names.contains(comment.as_str()))
        .map(|(handle, _)| place.delete_rule(table.chain, *handle))
        .collect();
    for name in names {
        if table.group_use > GROUP_USE {
            changes.push(place.delete_set(&target_of(name)));
        }
        changes.extend([place.delete_set(name), place.delete_counter(name)]);
    }
    changes
}
