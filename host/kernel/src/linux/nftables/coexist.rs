//! Other programs' chains that drop what is forwarded: iptables' FORWARD (Docker sets its policy to DROP, administrators
//! do) and firewalld's. The reference plugins insert a jump at the head of iptables' FORWARD; here is one rule that
//! accepts what `forward.rs` has marked, for all containers together.
//!
//! It is written as iptables' own tools write rules, or else they could no longer read their table. It comes with an ADD
//! and goes with the last container; a chain that isn't there is not made, for it drops nothing.

use super::attribute::Attribute;
use super::expression::{accept, counter, iptables_match, jump, only_mark};
use super::forward::{MARK, TABLE};
use super::message::{FAMILY_INET, FAMILY_IPV4, FAMILY_IPV6, Message, Place};
use super::seen;
use super::settle::{TRIES, pause};
use super::wire::{Wire, generation_of};
use crate::Outcome;

/// By which our rules are known; iptables shows it.
const COMMENT: &str = "sandwire: of containers";
const ADMIN_COMMENT: &str = "sandwire: admin overrides";
/// The reference's chain for an administrator's own rules, which go before what plugins accept.
const ADMIN: &str = "CNI-ADMIN";

struct Chain {
    place: Place,
    name: &'static str,
    is_iptables: bool,
}

const CHAINS: [Chain; 3] = [
    Chain { place: Place { family: FAMILY_IPV4, table: "filter" }, name: "FORWARD", is_iptables: true },
    Chain { place: Place { family: FAMILY_IPV6, table: "filter" }, name: "FORWARD", is_iptables: true },
    Chain { place: Place { family: FAMILY_INET, table: "firewalld" }, name: "filter_FORWARD", is_iptables: false },
];

impl Chain {
    fn accept(&self) -> Message {
        if !self.is_iptables {
            let mut rule = only_mark(MARK);
            rule.extend([counter(), accept()]);
            return self.place.add_first_rule(self.name, rule, Some(COMMENT));
        }
        // struct xt_mark_mtinfo1: mark, mask, invert; padded to XT_ALIGN.
        let mark = [&MARK.to_ne_bytes()[..], &MARK.to_ne_bytes(), &[0; 8]].concat();
        let rule = vec![comment(COMMENT), iptables_match("mark", 1, &mark), counter(), accept()];
        self.place.add_first_rule(self.name, rule, None)
    }

    fn jump_to_admin(&self) -> Message {
        self.place.add_first_rule(self.name, vec![comment(ADMIN_COMMENT), counter(), jump(ADMIN)], None)
    }
}

/// struct xt_comment_info.
fn comment(text: &str) -> Attribute {
    let mut info = text.as_bytes().to_vec();
    info.resize(256, 0);
    iptables_match("comment", 0, &info)
}

/// What there is of one chain.
struct Look<'a> {
    chain: &'a Chain,
    has_admin: bool,
    /// Handles of our rules: those that accept, and jumps to the administrator's chain.
    accepts: Vec<u64>,
    jumps: Vec<u64>,
    /// What somebody has made of such rules.
    changed: Vec<u64>,
}

/// The chains that are there; the generation; whether any container is to be let through.
fn look(wire: &mut Wire) -> Outcome<(Vec<Look<'static>>, Option<u32>, bool)> {
    const KNOWN: &[Chain] = &CHAINS;
    let mut questions = vec![Message::generation(), TABLE.place.get_table()];
    for chain in KNOWN {
        questions.extend([chain.place.get_chain(chain.name), chain.place.get_chain(ADMIN)]);
    }
    let mut answers = wire.ask(&questions)?.into_iter();
    let mut next = || answers.next().flatten();
    let generation = generation_of(next().as_ref());
    let is_needed = next().is_some();
    let mut looks = Vec::new();
    for chain in KNOWN {
        let (is_there, has_admin) = (next().is_some(), next().is_some());
        if is_there {
            looks.push(Look {
                chain,
                has_admin: has_admin && chain.is_iptables,
                accepts: Vec::new(),
                jumps: Vec::new(),
                changed: Vec::new(),
            });
        }
    }
    for look in &mut looks {
        let rules = wire.list(&look.chain.place.list_rules(look.chain.name))?;
        for rule in rules.iter().filter_map(seen::rule) {
            match rule.any_comment().as_str() {
                COMMENT if rule.is_accept() => look.accepts.push(rule.handle),
                ADMIN_COMMENT if rule.target().as_deref() == Some(ADMIN) => look.jumps.push(rule.handle),
                COMMENT | ADMIN_COMMENT => look.changed.push(rule.handle),
                _ => {}
            }
        }
    }
    Ok((looks, generation, is_needed))
}

/// Our rules are in every chain that is there as long as a container needs them, and in none afterwards.
pub(super) fn settle(wire: &mut Wire) -> Outcome<()> {
    let mut tries = 1;
    loop {
        let (looks, generation, is_needed) = look(wire)?;
        let mut changes = Vec::new();
        for look in looks {
            let Look { chain, has_admin, accepts, jumps, changed } = look;
            changes.extend(changed.iter().map(|handle| chain.place.delete_rule(chain.name, *handle)));
            if !is_needed {
                changes.extend(accepts.iter().chain(&jumps).map(|handle| chain.place.delete_rule(chain.name, *handle)));
                continue;
            }
            // Each goes before all others: the jump is written last and stands first.
            let is_missing = accepts.is_empty();
            changes.extend(is_missing.then(|| chain.accept()));
            if has_admin && (is_missing || jumps.is_empty()) {
                changes.extend(jumps.iter().map(|handle| chain.place.delete_rule(chain.name, *handle)));
                changes.push(chain.jump_to_admin());
            }
        }
        match wire.commit(&changes, generation) {
            Ok(()) => return Ok(()),
            Err(failure) if failure.is_passing() && tries < TRIES => pause(tries),
            Err(failure) => return Err(failure.into_error()),
        }
        tries += 1;
    }
}

/// One rule of ours in a chain of others.
pub(super) struct Guest {
    pub(super) place: Place,
    pub(super) chain: &'static str,
    pub(super) comment: &'static str,
    pub(super) handle: u64,
}

/// All of them, whoever needs them; and the generation.
pub(super) fn guests(wire: &mut Wire) -> Outcome<(Vec<Guest>, Option<u32>)> {
    let (looks, generation, _) = look(wire)?;
    let guests = looks.into_iter().flat_map(|Look { chain, accepts, jumps, changed, .. }| {
        let guest = |comment| move |handle| Guest { place: chain.place, chain: chain.name, comment, handle };
        let accepts = accepts.into_iter().map(guest(COMMENT));
        let jumps = jumps.into_iter().map(guest(ADMIN_COMMENT));
        accepts.chain(jumps).chain(changed.into_iter().map(guest("sandwire:"))).collect::<Vec<_>>()
    });
    Ok((guests.collect(), generation))
}

/// Appends what is missing.
pub(super) fn verify(wire: &mut Wire, missing: &mut Vec<String>) -> Outcome<()> {
    for look in look(wire)?.0 {
        let Chain { place, name, .. } = look.chain;
        // An administrator's chain without rules has nothing to go first; native plugins make one on every node.
        if look.has_admin && look.jumps.is_empty() && !wire.list(&place.list_rules(ADMIN))?.is_empty() {
            missing.push(format!(
                "the rule \"{ADMIN_COMMENT}\" is missing from chain {name} of table {place}: what is let through no \
                 longer goes to {ADMIN} first"
            ));
        }
        if look.accepts.is_empty() {
            missing.push(format!(
                "the rule \"{COMMENT}\" is missing from chain {name} of table {place}, which may drop what is let through"
            ));
        }
    }
    Ok(())
}
