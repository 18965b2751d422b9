//! CHECK: whether what is wanted is there, looked at and not assumed.

use super::entry::{OWNERS, Table, Wanted};
use super::expression::is_rule;
use super::owner::Owner;
use super::seen;
use super::settle::{Label, has_rule, records};
use super::wire::Wire;
use crate::Outcome;

/// Appends what is missing or wrong to `missing`.
pub(super) fn verify(
    wire: &mut Wire,
    table: &Table,
    owner: Owner,
    label: &Label,
    wanted: &[Wanted],
    missing: &mut Vec<String>,
) -> Outcome<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let place = table.place;
    let records = records(wire, table, owner)?;
    for Wanted { entry, group, meaning } in wanted {
        let mut questions = vec![place.get_element(entry.group(), &entry.key())];
        let companions = entry.companions();
        questions.extend(companions.iter().map(|other| place.get_element(&other.set, &other.key)));
        let answers = wire.ask(&questions)?;
        let holder = answers.first().and_then(|answer| seen::element(answer.as_ref()));
        let map = &group.name;
        match holder {
            None => missing.push(format!("{meaning}: the element is missing from map {map} of table {place}")),
            Some(holder) if Owner::of_comment(&holder.comment) != Some(owner) => missing.push(format!(
                "{meaning}: the element in map {map} of table {place} is another attachment's ({})",
                holder.comment
            )),
            Some(_) => {}
        }
        for (companion, answer) in companions.iter().zip(answers.iter().skip(1)) {
            let set = &companion.set;
            match seen::element(answer.as_ref()) {
                None => missing.push(format!("{meaning}: the element is missing from set {set} of table {place}")),
                Some(seen) if seen.data != companion.data => {
                    missing.push(format!("{meaning}: the element in map {set} of table {place} leads elsewhere"));
                }
                Some(_) => {}
            }
        }
        let recorded =
            |record: &super::entry::Record| record.label == label.hash && record.entry.as_ref() == Some(entry);
        if !records.iter().any(recorded) {
            missing.push(format!("{meaning}: its record is missing from set {OWNERS} of table {place}"));
        }
        if !has_rule(wire, table, map, &group.rule.get())? {
            missing.push(format!(
                "{meaning}: the rule of map {map} is missing from chain {} of table {place}, or was changed",
                table.chain
            ));
        }
    }
    for gate in table.gates {
        let rules = wire.list(&place.list_rules(gate.chain))?;
        let seen: Vec<_> = rules.iter().filter_map(seen::rule).collect();
        let wanted = (gate.rules)();
        if seen.len() != wanted.len() || !wanted.iter().zip(&seen).all(|(rule, seen)| is_rule(rule, seen.expressions)) {
            missing.push(format!("the rules of chain {} of table {place} are not as they were made", gate.chain));
        }
    }
    Ok(())
}
