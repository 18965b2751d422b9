//! Making what an owner has exactly what it wants, in one transaction: look, plan, commit, and again when another
//! process was faster.
//!
//! Nothing is locked. What a plan takes for granted, the transaction itself checks: a thing that is added must not be
//! there (NLM_F_EXCL), a thing that is deleted must be (ENOENT), and a record is deleted with its element, so that DEL
//! of a container never takes the element of another that got its address meanwhile. What can't be checked like that
//! (that a map is empty) is bound to the generation that was looked at.

use super::attribute::Attribute;
use super::entry::{Entry, OWNERS, OWNERS_KEY, Record, Table, Wanted, target_of};
use super::expression::is_rule;
use super::message::{Message, Value};
use super::owner::Owner;
use super::seen;
use super::sweep::{drop_groups, sweep};
use super::wire::{Object, Wire, generation_of};
use crate::Outcome;
use crate::linux::create::random;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A lost race costs a few milliseconds, and of those who race one gets through each time: whoever loses by chance needs many
/// tries. With [`pause`] between them these are some seconds.
pub(super) const TRIES: usize = 200;
/// So often everything is tried in one transaction that depends on the generation; then step by step.
const BOUND_TRIES: usize = 3;

/// Under which label, and the comment for elements of it.
#[derive(Debug, Clone)]
pub(super) struct Label {
    pub(super) hash: String,
    pub(super) comment: String,
}

/// What becomes of a place that another owner has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// It is taken from them.
    Take,
    /// They keep it, and this owner goes without.
    Leave,
}

/// What an owner's rules have come to be.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Entries that went.
    pub(super) gone: Vec<Entry>,
    /// Whether some of them were another owner's.
    pub(super) taken: bool,
}

/// Makes what `owner` has under `label` (`None`: under all) exactly what is wanted in each table.
pub(super) fn settle(
    wire: &mut Wire,
    owner: Owner,
    label: Option<&Label>,
    tables: &[(&Table, Vec<Wanted>)],
    held: Held,
) -> Outcome<Settled> {
    let mut concerned = concerned(wire, owner, tables)?;
    let mut tries = 1;
    loop {
        let mut changes = Vec::new();
        // The oldest look's: what was looked at later can only be newer.
        let mut generation = concerned.iter().find_map(|(.., look)| look.as_ref()).and_then(|look| look.generation);
        let mut bound = false;
        let mut again = false;
        let mut touched = Vec::new();
        let mut settled = Settled::default();
        for (table, wanted, look) in &mut concerned {
            let look = look.take().map_or_else(|| Look::at(wire, table, owner, wanted), Ok)?;
            let plan = Plan::make(wire, table, look, (owner, label), wanted, held, tries <= BOUND_TRIES)?;
            generation = generation.or(plan.generation);
            bound |= plan.bound;
            again |= plan.again;
            changes.extend(plan.changes);
            touched.push((*table, plan.touched));
            settled.gone.extend(plan.gone);
            settled.taken |= plan.taken;
        }
        match wire.commit(&changes, generation.filter(|_| bound)) {
            Ok(()) if again => {}
            Ok(()) => {
                for (table, groups) in touched.into_iter().filter(|(_, groups)| !groups.is_empty()) {
                    sweep(wire, table, &groups)?;
                }
                return Ok(settled);
            }
            Err(failure) if failure.is_passing() && tries < TRIES => {}
            Err(failure) => return Err(failure.into_error()),
        }
        pause(tries);
        tries += 1;
    }
}

/// Sends what [`settle`] would, and has the kernel take it back. That another process was faster says nothing of what the
/// kernel can do.
pub(super) fn rehearse(wire: &mut Wire, owner: Owner, label: &Label, tables: &[(&Table, Vec<Wanted>)]) -> Outcome<()> {
    for (table, wanted) in tables.iter().filter(|(_, wanted)| !wanted.is_empty()) {
        let mut tries = 1;
        loop {
            let look = Look::at(wire, table, owner, wanted)?;
            let plan = Plan::make(wire, table, look, (owner, Some(label)), wanted, Held::Take, true)?;
            match wire.rehearse(&plan.changes) {
                Ok(()) => break,
                // ENOENT: a group that went since it was looked at; or there is no expression, chain type or family of this
                // name in the kernel, and no module to load for it.
                Err(failure) if (failure.is_passing() || failure.is_absence()) && tries < BOUND_TRIES => tries += 1,
                Err(failure) if failure.is_passing() && !failure.is_absence() => break,
                Err(failure) => return Err(failure.into_absence()),
            }
        }
    }
    Ok(())
}

/// A table where something is wanted, which was looked at already, or where the owner has something.
type Concerned<'a> = (&'a Table, &'a [Wanted], Option<Look>);

/// Which they are: one question tells of all. No other call for this attachment runs beside this one.
fn concerned<'a>(wire: &mut Wire, owner: Owner, tables: &'a [(&'a Table, Vec<Wanted>)]) -> Outcome<Vec<Concerned<'a>>> {
    let mut questions = Vec::new();
    for (table, wanted) in tables {
        match wanted.is_empty() {
            true => questions.push(table.place.get_element(OWNERS, &owner.slot(0))),
            false => Look::ask(&mut questions, table, owner, wanted),
        }
    }
    let mut answers = wire.ask(&questions)?.into_iter();
    let mut concerned: Vec<Concerned<'a>> = Vec::with_capacity(tables.len());
    for (table, wanted) in tables {
        let look = match wanted.is_empty() {
            true if answers.next().flatten().is_none() => continue,
            true => None,
            false => Some(Look::read(wire, &mut answers, table, owner, wanted)?),
        };
        concerned.push((*table, wanted.as_slice(), look));
    }
    Ok(concerned)
}

/// Lets others get through before try number `tries` + 1: of eight who fight for one place, one that tries again at once
/// each time loses twenty times in a row once in fifteen. The first tries wait for nothing, two who met by chance
/// won't meet again; later ones a random time of up to 32 ms.
pub(super) fn pause(tries: usize) {
    let Some(doubled) = tries.checked_sub(BOUND_TRIES) else { return };
    let most = 1_000_u64 << doubled.min(5);
    std::thread::sleep(Duration::from_micros(u64::from(random()) % most));
}

/// What stands in one table, as far as it matters to one owner.
struct Look {
    generation: Option<u32>,
    table_use: Option<u32>,
    /// Rules of the chain of the groups; `None` without the chain.
    rules: Option<u32>,
    /// The same of the gates.
    gates: Vec<Option<u32>>,
    /// Elements of the groups that are there.
    groups: BTreeMap<String, u32>,
    /// The comment of the element in each wanted entry's place.
    holders: Vec<Option<String>>,
    /// The same of each of its companions.
    companions: Vec<Vec<Option<String>>>,
    own: Vec<Record>,
}

impl Look {
    /// Everything in one question, except for an owner with more than one record.
    fn at(wire: &mut Wire, table: &Table, owner: Owner, wanted: &[Wanted]) -> Outcome<Self> {
        let mut questions = Vec::new();
        Self::ask(&mut questions, table, owner, wanted);
        let mut answers = wire.ask(&questions)?.into_iter();
        Self::read(wire, &mut answers, table, owner, wanted)
    }

    fn ask(questions: &mut Vec<Message>, table: &Table, owner: Owner, wanted: &[Wanted]) {
        let place = table.place;
        questions.extend([Message::generation(), place.get_table(), place.get_chain(table.chain)]);
        questions.extend(table.gates.iter().map(|gate| place.get_chain(gate.chain)));
        questions.extend(groups_of(wanted).into_iter().map(|name| place.get_counter(name)));
        questions.extend(wanted.iter().map(|w| place.get_element(w.entry.group(), &w.entry.key())));
        let companions = wanted.iter().flat_map(|w| w.entry.companions());
        questions.extend(companions.map(|c| place.get_element(&c.set, &c.key)));
        questions.extend((0..2).map(|slot| place.get_element(OWNERS, &owner.slot(slot))));
    }

    /// What was answered to [`Look::ask`]; no answer of what comes behind it is taken.
    fn read(
        wire: &mut Wire,
        answers: &mut impl Iterator<Item = Option<Object>>,
        table: &Table,
        owner: Owner,
        wanted: &[Wanted],
    ) -> Outcome<Self> {
        let mut next = || answers.next().flatten();
        let generation = generation_of(next().as_ref());
        let table_use = seen::table_use(next().as_ref());
        let rules = seen::chain_use(next().as_ref()).map(|uses| uses.saturating_sub(table.jumps()));
        let gates = table.gates.iter().map(|_| seen::chain_use(next().as_ref())).collect();
        let mut groups = BTreeMap::new();
        for name in groups_of(wanted) {
            groups.extend(seen::counter_use(next().as_ref()).map(|elements| (name.to_owned(), elements)));
        }
        let mut comment = || seen::element(next().as_ref()).map(|e| e.comment);
        let holders = wanted.iter().map(|_| comment()).collect();
        let companions = wanted.iter().map(|w| w.entry.companions().iter().map(|_| comment()).collect()).collect();
        let first = [next(), next()];
        let first = first.iter().map_while(|answer| seen::element(answer.as_ref()));
        let mut own: Vec<Record> = first.map(|element| Record::parse(element.comment)).collect();
        if own.len() == 2 {
            more_records(wire, table, owner, &mut own)?;
        }
        Ok(Self { generation, table_use, rules, gates, groups, holders, companions, own })
    }
}

/// The groups that something is wanted in, each once.
fn groups_of(wanted: &[Wanted]) -> BTreeSet<&str> {
    wanted.iter().map(|w| w.entry.group()).collect()
}

/// The records of an owner.
pub(super) fn records(wire: &mut Wire, table: &Table, owner: Owner) -> Outcome<Vec<Record>> {
    let mut records = Vec::new();
    more_records(wire, table, owner, &mut records)?;
    Ok(records)
}

fn more_records(wire: &mut Wire, table: &Table, owner: Owner, records: &mut Vec<Record>) -> Outcome<()> {
    const AT_ONCE: u32 = 4;
    loop {
        let start = records.len() as u32;
        let slots = start..start + AT_ONCE;
        let questions: Vec<Message> = slots.map(|slot| table.place.get_element(OWNERS, &owner.slot(slot))).collect();
        let found = wire.ask(&questions)?;
        let found = found.iter().map_while(|answer| seen::element(answer.as_ref()));
        records.extend(found.map(|element| Record::parse(element.comment)));
        if records.len() as u32 != start + AT_ONCE {
            return Ok(());
        }
    }
}

/// The changes for one table.
struct Plan {
    changes: Vec<Message>,
    generation: Option<u32>,
    /// Right only if nothing has changed since.
    bound: bool,
    /// Only the ground is cleared; the rest in another transaction.
    again: bool,
    /// Groups that lost elements and were left in place.
    touched: BTreeSet<String>,
    /// What is no longer there afterwards.
    gone: Vec<Entry>,
    /// Whether some of it was another owner's.
    taken: bool,
}

/// What becomes of the records.
struct Decision<'a> {
    added: Vec<&'a Wanted>,
    /// Of this owner or of another who had the same address or port.
    gone: Vec<Entry>,
    /// Records before and after, by owner.
    records: Vec<(Owner, Vec<Record>, Vec<Record>)>,
}

impl Plan {
    fn make(
        wire: &mut Wire,
        table: &Table,
        look: Look,
        (owner, label): (Owner, Option<&Label>),
        wanted: &[Wanted],
        held: Held,
        at_once: bool,
    ) -> Outcome<Self> {
        let mut plan = Self {
            changes: Vec::new(),
            generation: look.generation,
            bound: false,
            again: false,
            touched: BTreeSet::new(),
            gone: Vec::new(),
            taken: false,
        };
        if look.table_use.is_none() && wanted.is_empty() {
            return Ok(plan);
        }
        if look.table_use.is_some() && (look.rules.is_none() || look.gates.contains(&None)) {
            // Somebody has taken the chain out of our table: nothing in it works, and parts of it are in the way.
            plan.changes.push(table.place.delete_table());
            (plan.bound, plan.again) = (true, true);
            return Ok(plan);
        }
        // That a place is free has to be true when it is taken.
        plan.bound |= held == Held::Leave;
        let decision = decide(wire, table, (owner, label), wanted, held, &look)?;
        let mut groups = look.groups.clone();
        let removals = remove_elements(wire, table, &decision.gone, &mut groups)?;

        if !decision.added.is_empty() && look.table_use.is_none() {
            plan.make_table(table);
        }
        if !decision.added.is_empty() {
            plan.mend_gates(table, &look);
        }
        plan.make_groups(wire, table, &decision.added, &groups, &look)?;
        plan.changes.extend(removals);
        for wanted in &decision.added {
            let entry = &wanted.entry;
            let comment = label.map_or("", |l| l.comment.as_str());
            let counter = Value::Counter(entry.group());
            plan.changes.push(table.place.add_element(entry.group(), &entry.key(), counter, comment));
            for companion in entry.companions() {
                let value = companion.data.as_deref().map_or(Value::None, Value::Data);
                plan.changes.push(table.place.add_element(&companion.set, &companion.key, value, comment));
            }
        }
        for (owner, before, after) in &decision.records {
            plan.rewrite(table, *owner, before, after);
        }
        plan.bury(wire, table, &decision, &groups, look.table_use, at_once)?;
        plan.taken = decision.records.iter().any(|(of, before, after)| *of != owner && before != after);
        plan.gone = decision.gone;
        Ok(plan)
    }

    fn make_table(&mut self, table: &Table) {
        let place = table.place;
        self.changes.push(place.add_table());
        self.changes.push(match table.hook {
            Some(hook) => place.add_chain(table.chain, hook),
            None => place.add_inner_chain(table.chain),
        });
        self.changes.push(place.add_set(OWNERS, OWNERS_KEY));
        self.changes.extend(table.sets.iter().map(|(name, key)| place.add_set(name, *key)));
        for gate in table.gates {
            self.changes.push(place.add_chain(gate.chain, gate.hook));
            self.changes.extend((gate.rules)().into_iter().map(|rule| place.add_rule(gate.chain, rule, gate.chain)));
        }
    }

    /// Gates whose rules somebody has flushed.
    fn mend_gates(&mut self, table: &Table, look: &Look) {
        for (gate, seen) in table.gates.iter().zip(&look.gates) {
            let rules = (gate.rules)();
            if seen.is_some_and(|seen| seen != rules.len() as u32) {
                self.bound = true;
                self.changes.push(table.place.flush_chain(gate.chain));
                self.changes.extend(rules.into_iter().map(|rule| table.place.add_rule(gate.chain, rule, gate.chain)));
            }
        }
    }

    /// The groups that are missing, and rules of groups that somebody has flushed (`nft flush table`).
    fn make_groups(
        &mut self,
        wire: &mut Wire,
        table: &Table,
        added: &[&Wanted],
        groups: &BTreeMap<String, u32>,
        look: &Look,
    ) -> Outcome<()> {
        let place = table.place;
        let needed: BTreeMap<&str, &Wanted> = added.iter().map(|w| (w.entry.group(), *w)).collect();
        let complete = look.table_use.unwrap_or(0).saturating_sub(table.fixed_use()) / table.group_use;
        let flushed = look.rules.is_some_and(|rules| rules < complete);
        let present = if flushed && !needed.is_empty() { rules_of(wire, table)? } else { Vec::new() };
        for (name, wanted) in needed {
            let there = groups.contains_key(name);
            let group = &wanted.group;
            if !there {
                self.changes.extend([place.add_counter(name), place.add_counter_map(name, group.key)]);
                let target = group.target.map(|target| place.add_data_map(&target_of(name), group.key, target));
                self.changes.extend(target);
            }
            let lost = there && flushed && !present.iter().any(|(_, comment)| comment == name);
            if !there || lost {
                let rule = group.rule.get();
                self.changes.push(match group.first {
                    true => place.add_first_rule(table.chain, rule, Some(name)),
                    false => place.add_rule(table.chain, rule, name),
                });
            }
            self.bound |= lost;
        }
        Ok(())
    }

    fn rewrite(&mut self, table: &Table, owner: Owner, before: &[Record], after: &[Record]) {
        for slot in 0..before.len().max(after.len()) {
            let (old, new) = (before.get(slot), after.get(slot));
            if old == new {
                continue;
            }
            let key = owner.slot(slot as u32);
            self.changes.extend(old.map(|_| table.place.delete_element(OWNERS, &key)));
            self.changes.extend(new.map(|record| table.place.add_element(OWNERS, &key, Value::None, record.text())));
        }
    }

    /// Groups that lose their last element go in the same transaction, and the table with its last group.
    fn bury(
        &mut self,
        wire: &mut Wire,
        table: &Table,
        decision: &Decision<'_>,
        groups: &BTreeMap<String, u32>,
        table_use: Option<u32>,
        at_once: bool,
    ) -> Outcome<()> {
        let losing: BTreeSet<&str> = decision.gone.iter().map(Entry::group).collect();
        let is_empty = |name: &str| {
            groups.get(name) == Some(&0) && !decision.added.iter().any(|wanted| wanted.entry.group() == name)
        };
        let (dying, living): (BTreeSet<&str>, BTreeSet<&str>) =
            losing.into_iter().partition(|name| at_once && is_empty(name));
        self.touched.extend(living.into_iter().filter(|name| groups.contains_key(*name)).map(str::to_owned));
        if dying.is_empty() {
            return Ok(());
        }
        self.bound = true;
        if decision.added.is_empty() && table_use == Some(table.use_with(dying.len())) {
            self.changes = vec![table.place.delete_table()];
        } else {
            self.changes.extend(drop_groups(table, &rules_of(wire, table)?, &dying));
        }
        Ok(())
    }
}

/// Handle and comment of the rules of the base chain; the comment is the group's name.
pub(super) fn rules_of(wire: &mut Wire, table: &Table) -> Outcome<Vec<(u64, String)>> {
    let rules = wire.list(&table.place.list_rules(table.chain))?;
    Ok(rules.iter().filter_map(seen::rule).map(|rule| (rule.handle, rule.comment)).collect())
}

/// Whether the base chain has this group's rule as it should be.
pub(super) fn has_rule(wire: &mut Wire, table: &Table, name: &str, rule: &[Attribute]) -> Outcome<bool> {
    let rules = wire.list(&table.place.list_rules(table.chain))?;
    Ok(rules.iter().filter_map(seen::rule).any(|found| found.comment == name && is_rule(rule, found.expressions)))
}

fn decide<'a>(
    wire: &mut Wire,
    table: &Table,
    (owner, label): (Owner, Option<&Label>),
    wanted: &'a [Wanted],
    held: Held,
    look: &Look,
) -> Outcome<Decision<'a>> {
    let mut gone: Vec<Entry> = Vec::new();
    let mut after: Vec<Record> = Vec::new();
    let stands = |record: &Record, wanted: &Wanted, holder: &Option<String>| {
        record.entry.as_ref() == Some(&wanted.entry)
            && label.is_some_and(|l| l.hash == record.label && holder.as_ref() == Some(&l.comment))
    };
    let mut places = BTreeMap::new();
    for (wanted, holder) in wanted.iter().zip(&look.holders) {
        places.entry(wanted.entry.place()).or_insert((wanted, holder));
    }
    let mut standing = BTreeMap::new();
    for record in &look.own {
        let in_scope = label.is_none_or(|label| label.hash == record.label);
        let place = record.entry.as_ref().and_then(|entry| places.get(&entry.place()));
        let stays = place.map_or(!in_scope, |(wanted, holder)| stands(record, wanted, holder));
        if stays {
            standing.extend(record.entry.as_ref().map(|entry| (entry.place(), entry)));
            after.push(record.clone());
        } else {
            gone.extend(record.entry.clone());
        }
    }
    let mut added = Vec::new();
    let mut records: Vec<(Owner, Vec<Record>, Vec<Record>)> = Vec::new();
    for ((wanted, holder), companions) in wanted.iter().zip(&look.holders).zip(&look.companions) {
        if standing.get(&wanted.entry.place()) == Some(&&wanted.entry) {
            continue;
        }
        // In a group of another policy it is another place, which has the same companions.
        let mut in_the_way = std::iter::once(holder).chain(companions).flatten();
        let is_anothers = |comment: &String| {
            Owner::of_comment(comment) != Some(owner) && !gone.iter().any(|entry| entry.is_in_the_way_of(&wanted.entry))
        };
        if held == Held::Leave && in_the_way.clone().any(is_anothers) {
            continue;
        }
        added.push(wanted);
        for comment in in_the_way.by_ref() {
            if !gone.iter().any(|entry| entry.is_in_the_way_of(&wanted.entry)) {
                // The address or port was another's, who is gone without a DEL.
                let previous = Owner::of_comment(comment).filter(|previous| *previous != owner);
                gone.push(evict(wire, table, previous, &wanted.entry, &mut records)?);
            }
        }
    }
    if let Some(label) = label {
        after.extend(added.iter().map(|wanted| Record::new(&label.hash, &wanted.entry)));
    }
    records.push((owner, look.own.clone(), after));
    Ok(Decision { added, gone, records })
}

/// Takes `entry`'s place from whoever has it; the answer is the entry that stood there.
fn evict(
    wire: &mut Wire,
    table: &Table,
    previous: Option<Owner>,
    entry: &Entry,
    all: &mut Vec<(Owner, Vec<Record>, Vec<Record>)>,
) -> Outcome<Entry> {
    let Some(previous) = previous else { return Ok(entry.clone()) };
    if !all.iter().any(|(owner, ..)| *owner == previous) {
        let before = records(wire, table, previous)?;
        all.push((previous, before.clone(), before));
    }
    let mut found = None;
    for (_, _, after) in all.iter_mut().filter(|(owner, ..)| *owner == previous) {
        after.retain(|record| match &record.entry {
            Some(old) if old.is_in_the_way_of(entry) => {
                found = Some(old.clone());
                false
            }
            _ => true,
        });
    }
    Ok(found.unwrap_or_else(|| entry.clone()))
}

/// Deletes the elements of `gone` that are there. Afterwards `groups` has the groups of `gone` too, with the number
/// of elements that remain.
fn remove_elements(
    wire: &mut Wire,
    table: &Table,
    gone: &[Entry],
    groups: &mut BTreeMap<String, u32>,
) -> Outcome<Vec<Message>> {
    if gone.is_empty() {
        return Ok(Vec::new());
    }
    let place = table.place;
    let unknown: BTreeSet<&str> = gone.iter().map(Entry::group).filter(|name| !groups.contains_key(*name)).collect();
    let elements: Vec<(String, Vec<u8>, bool)> = gone
        .iter()
        .flat_map(|entry| {
            let companions = entry.companions().into_iter().map(|companion| (companion.set, companion.key, false));
            std::iter::once((entry.group().to_owned(), entry.key(), true)).chain(companions)
        })
        .collect();
    let mut questions: Vec<Message> = unknown.iter().map(|name| place.get_counter(name)).collect();
    questions.extend(elements.iter().map(|(set, key, _)| place.get_element(set, key)));
    let mut answers = wire.ask(&questions)?.into_iter();
    for name in unknown {
        let counted = seen::counter_use(answers.next().flatten().as_ref());
        groups.extend(counted.map(|elements| (name.to_owned(), elements)));
    }
    let mut changes = Vec::new();
    for ((set, key, counts), answer) in elements.into_iter().zip(answers) {
        if answer.is_none() {
            continue;
        }
        changes.push(place.delete_element(&set, &key));
        if let Some(elements) = groups.get_mut(&set).filter(|_| counts) {
            *elements = elements.saturating_sub(1);
        }
    }
    Ok(changes)
}
