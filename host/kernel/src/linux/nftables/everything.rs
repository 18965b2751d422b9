//! All that is ours at once: for a node that goes back to other plugins, which know nothing of it.

use super::coexist::{self, Guest};
use super::entry::{Entry, OWNERS, Record};
use super::message::Message;
use super::settle::{TRIES, pause};
use super::wire::Wire;
use super::{TABLES, ports, seen};
use crate::{FirewallObject, Outcome};

struct All {
    objects: Vec<FirewallObject>,
    removal: Vec<Message>,
    generation: Option<u32>,
}

impl All {
    fn look(wire: &mut Wire) -> Outcome<Self> {
        // The generation is that of before everything: what is looked at later can only be newer.
        let (guests, generation) = coexist::guests(wire)?;
        let mut all = Self { objects: Vec::new(), removal: Vec::new(), generation };
        let there = wire.ask(&TABLES.map(|table| table.place.get_table()))?;
        for (table, _) in TABLES.into_iter().zip(there).filter(|(_, there)| there.is_some()) {
            let (family, name) = (table.place.family_name(), table.place.table);
            all.objects.push(FirewallObject { family, table: name, rule: None });
            all.removal.push(table.place.delete_table());
        }
        for Guest { place, chain, comment, handle } in guests {
            let rule = Some((chain, comment));
            all.objects.push(FirewallObject { family: place.family_name(), table: place.table, rule });
            all.removal.push(place.delete_rule(chain, handle));
        }
        Ok(all)
    }
}

pub(super) fn list(wire: &mut Wire) -> Outcome<Vec<FirewallObject>> {
    Ok(All::look(wire)?.objects)
}

/// What was removed; and the ports that led to containers.
pub(super) fn remove(wire: &mut Wire) -> Outcome<(Vec<FirewallObject>, Vec<Entry>)> {
    let mut tries = 1;
    loop {
        let records = wire.list(&ports::TABLE.place.list_elements(OWNERS))?;
        let records = records.iter().flat_map(seen::elements);
        let gone = records.filter_map(|element| Record::parse(element.comment).entry).collect();
        let All { objects, removal, generation } = All::look(wire)?;
        // Bound to what was looked at: what is told is what went.
        match wire.commit(&removal, generation) {
            Ok(()) => return Ok((objects, gone)),
            Err(failure) if failure.is_passing() && tries < TRIES => pause(tries),
            Err(failure) => return Err(failure.into_error()),
        }
        tries += 1;
    }
}
