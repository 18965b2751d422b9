//! GC: what belongs to no listed attachment, strictly within one network, and while no other call of that network runs.
//!
//! Thousands of attachments may be stale at once (a runtime that lost its state, a node that was drained by force), and one
//! by one each costs what a DEL costs. So what many have in common is taken back for all of them together: calls to agents
//! first, so that nobody sends to an address that is given back; links in groups; rules in batches; addresses last, in one
//! pass over each store. What could not be taken back together stays in the journals for the sweep of its attachment,
//! which says why it can't.

use crate::deadline::Deadline;
use crate::published;
use crate::session::Session;
use crate::stores;
use crate::undo::{self, Fate};
use crate::verbs::{busy, forget_empty, guest, of_plugin};
use sandwire_cni::{Command, Error, Invocation, code};
use sandwire_kernel::{LinkId, Netns, PortForward};
use sandwire_policy::{Grant, paths};
use sandwire_state::journal::{Attachment, Entry, NetworkLock, Side, Summary, Undo};
use sandwire_state::{Owner, leases};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// More texts than anybody reads, when an agent is down for thousands.
const MOST_FAILURES: usize = 20;

/// Everything of this plugin in this network that belongs to no listed attachment, and what killed calls left of listed ones.
/// `journals`: where those of its network are.
pub(crate) fn collect(
    mut session: Box<Session>,
    grant: &Grant,
    call: &Invocation,
    journals: &Path,
) -> Result<(), Error> {
    let valid: Option<Vec<Owner>> = call
        .config
        .valid_attachments()?
        .map(|list| list.into_iter().map(|a| Owner::new(a.container_id, a.ifname)).collect());
    let network = call.config.name.clone();
    let lock = NetworkLock::take(journals, &network).map_err(|e| busy(&session.deadline, "network", &e))?;
    let mut failures = Failures::default();
    let known: Option<HashSet<&Owner>> = valid.as_ref().map(|valid| valid.iter().collect());
    let is_stale = |summary: &Summary| known.as_ref().is_some_and(|known| !known.contains(&summary.attachment.owner()));
    let top = session.subject.plugin.clone();
    let all = lock.attachments().map_err(|e| Error::internal(e.to_string()))?;
    let (stale, listed): (Vec<Summary>, Vec<Summary>) = all.into_iter().partition(is_stale);
    for attachment in listed.into_iter().filter(Summary::is_surely_left_over).map(|summary| summary.attachment) {
        finish_killed(&mut session, &lock, attachment, &top, &mut failures);
    }
    match valid {
        Some(valid) => session = collect_all(session, grant, call, &lock, valid, stale, &mut failures),
        // The runtime does not say what is valid (cnitool): what ended with an earlier boot is not, of the rest nothing may be
        // concluded.
        None => {
            session.turn_to_network();
            crate::log::note("info", "GC without cni.dev/valid-attachments: only what is certain to be left over goes");
            if let Err(error) = stores::reclaim_earlier_boots(&session.generation, &call.config) {
                failures.add(error);
            }
        }
    }
    session.finish();
    lock.remove_if_empty();
    failures.into_result(&network)
}

/// What is left of calls that were killed, for an attachment that is to stay. No call of this network runs now. In a
/// container that may be alive only a call that is told its namespace can undo anything.
fn finish_killed(
    session: &mut Session,
    lock: &NetworkLock,
    attachment: Attachment,
    plugin: &str,
    failures: &mut Failures,
) {
    match lock.journal(&attachment.owner()) {
        Ok(journal) => session.turn_to(attachment, journal),
        Err(error) => return failures.add(error.to_string()),
    }
    let ours = |entry: &Entry| of_plugin(entry, plugin) && !undo::is_in_container(&entry.undo);
    for fate in undo::sweep_left_over(session, ours) {
        match fate {
            // It is kept for the next call, as after a DEL: that its agent is down is no failure of collecting others.
            Fate::Later(text) | Fate::AgentDown(text) => crate::log::note("warn", &format!("kept for later: {text}")),
            fate => failures.add_fate(fate),
        }
    }
    forget_empty(session);
}

/// Takes back what the stale attachments have, and lets the plugin collect what only it knows.
fn collect_all(
    mut session: Box<Session>,
    grant: &Grant,
    call: &Invocation,
    lock: &NetworkLock,
    valid: Vec<Owner>,
    stale: Vec<Summary>,
    failures: &mut Failures,
) -> Box<Session> {
    let network = &call.config.name;
    let top = session.subject.plugin.clone();
    let mut stale: Vec<Stale> = stale.into_iter().map(|summary| Stale::of(summary, &top)).collect();
    let pairs: Vec<(String, String)> = valid.iter().map(|o| (o.container_id.clone(), o.ifname.clone())).collect();

    call_agents(&mut session, &mut stale, failures);
    delete_links(&mut session, &mut stale);
    remove_rules(&mut session, network, &pairs, &mut stale);
    release_leases(&mut stale);
    for (number, one) in stale.iter().enumerate() {
        if Deadline::interrupted() {
            failures.add(format!("the time was over with {} attachments left for the next GC", stale.len() - number));
            break;
        }
        finish(&mut session, lock, one, failures);
    }

    session.turn_to_network();
    session.valid = Some(valid);
    let (mut session, answer) = guest(session, grant.clone(), Command::Gc, &call.config);
    if let Err(error) = answer {
        failures.add(error.to_string());
    }
    // Of attachments without a journal, too: one that a crash of the node's own tools, or somebody's hand, has removed.
    if grant.imports.contains("firewall")
        && let Some(kernel) = session.kernel_if_open()
        && let Err(error) = kernel.retain_rules(Netns::Host, network, &pairs)
    {
        failures.add(error.to_string());
    }
    collect_from_reference(&mut session, network, failures);
    session
}

/// Attachments without a journal that had a lease and are not listed: native plugins made them, and some of what those make
/// says of no network whose it is.
fn collect_from_reference(session: &mut Session, network: &str, failures: &mut Failures) {
    let mut freed = std::mem::take(&mut session.freed);
    // Some of it doesn't say of which interface it is either: while a container has another one it stays, until its DEL.
    let listed: HashSet<&str> = session.valid.iter().flatten().map(|owner| owner.container_id.as_str()).collect();
    freed.retain(|(owner, _)| !listed.contains(owner.container_id.as_str()));
    if freed.is_empty() {
        return;
    }
    let Some(kernel) = session.kernel_if_open() else { return };
    let gone: Vec<_> = freed.into_iter().map(|(owner, ip)| (owner.container_id, owner.ifname, ip)).collect();
    if let Err(error) = kernel.collect_reference(network, &gone) {
        failures.add(error.to_string());
    }
}

/// An attachment that the runtime no longer has.
struct Stale {
    attachment: Attachment,
    /// What this plugin and its delegates did, newest first, and is not taken back yet.
    entries: Vec<Entry>,
    /// Taken back.
    undone: BTreeSet<u64>,
    /// Can't be taken back now: not to be tried again in this call.
    kept: BTreeSet<u64>,
}

impl Stale {
    fn of(summary: Summary, plugin: &str) -> Self {
        let Summary { attachment, mut pending, .. } = summary;
        pending.retain(|entry| of_plugin(entry, plugin));
        pending.reverse();
        let nothing_to_do = pending.iter().filter(|entry| is_over(&entry.undo)).map(|entry| entry.id).collect();
        Self { attachment, entries: pending, undone: nothing_to_do, kept: BTreeSet::new() }
    }

    fn open(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !self.undone.contains(&entry.id) && !self.kept.contains(&entry.id))
    }
}

/// Whether there is nothing to be done for it in GC, which is told of no container's namespace.
fn is_over(undo: &Undo) -> bool {
    matches!(undo, Undo::Shared { .. }) || undo::goes_with_container(undo)
}

#[derive(Default)]
struct Failures {
    texts: Vec<String>,
    more: usize,
}

impl Failures {
    fn add(&mut self, text: String) {
        if self.texts.contains(&text) || self.texts.len() >= MOST_FAILURES {
            self.more += 1;
        } else {
            self.texts.push(text);
        }
    }

    fn add_fate(&mut self, fate: Fate) {
        match fate {
            Fate::Undone => {}
            Fate::Failed(text) | Fate::Later(text) | Fate::AgentDown(text) => self.add(text),
        }
    }

    fn into_result(mut self, network: &str) -> Result<(), Error> {
        if self.texts.is_empty() {
            return Ok(());
        }
        if self.more > 0 {
            self.texts.push(format!("and {} more like these", self.more));
        }
        Err(Error {
            code: code::INTERNAL,
            msg: format!("GC of network {network:?} could not remove everything"),
            details: self.texts.join("; "),
        })
    }
}

/// Each attachment has calls of its own. An agent that is down is asked once, not thousands of times.
fn call_agents(session: &mut Session, stale: &mut [Stale], failures: &mut Failures) {
    let mut down: BTreeSet<String> = BTreeSet::new();
    for one in stale {
        let calls: Vec<Entry> = one.open().filter(|e| matches!(e.undo, Undo::Call { .. })).cloned().collect();
        for entry in calls {
            let Undo::Call { endpoint, .. } = &entry.undo else { continue };
            if down.contains(endpoint) || Deadline::interrupted() {
                one.kept.insert(entry.id);
                continue;
            }
            let plugin = entry.plugin.rsplit('/').next().unwrap_or_default();
            match undo::take_back(session, plugin, &entry.undo) {
                Fate::Undone => {
                    one.undone.insert(entry.id);
                }
                fate => {
                    if let Fate::AgentDown(_) = fate {
                        down.insert(endpoint.clone());
                    }
                    one.kept.insert(entry.id);
                    failures.add_fate(fate);
                }
            }
        }
    }
}

/// The links whose name and index are still those that the journal has. Any other is left to the sweep.
fn delete_links(session: &mut Session, stale: &mut [Stale]) {
    let Some(kernel) = session.kernel_if_open() else { return };
    let wanted = stale.iter().flat_map(|one| one.open().filter(|entry| entry.undo.node_link().is_some())).count();
    // One is deleted by a helper, and nobody waits for RCU.
    if wanted < 2 {
        return;
    }
    let Ok(links) = kernel.links(Netns::Host) else { return };
    let present: HashMap<u32, String> = links.into_iter().map(|info| (info.id.index, info.name)).collect();
    let as_known = |entry: &Entry| {
        entry.undo.node_link().is_some_and(|(index, name)| present.get(&index).is_none_or(|present| present == name))
    };
    let doomed: Vec<LinkId> = stale
        .iter()
        .flat_map(|one| one.open().filter(|entry| as_known(entry)))
        .filter_map(|entry| Some(LinkId { netns: Netns::Host, index: entry.undo.node_link()?.0 }))
        .filter(|link| present.contains_key(&link.index))
        .collect();
    match kernel.delete_links(&doomed) {
        Ok(()) => note_undone(stale, as_known),
        Err(error) => crate::log::note("warn", &format!("GC goes on link by link: {error}")),
    }
}

fn remove_rules(session: &mut Session, network: &str, valid: &[(String, String)], stale: &mut [Stale]) {
    let has_rules = |entry: &Entry| matches!(entry.undo, Undo::ClearRules { side: Side::Host, .. });
    if !stale.iter().any(|one| one.open().any(has_rules)) {
        return;
    }
    let Some(kernel) = session.kernel_if_open() else { return };
    match kernel.retain_rules(Netns::Host, network, valid) {
        Ok(()) => {
            let open = stale.iter().flat_map(Stale::open);
            let free: Vec<PortForward> = open.flat_map(published::taken).collect();
            note_undone(stale, has_rules);
            let going: Vec<Attachment> = stale.iter().map(|one| one.attachment.clone()).collect();
            published::give_back(session, &free, Some(network), &going);
        }
        Err(error) => crate::log::note("warn", &format!("GC goes on with rules one by one: {error}")),
    }
}

fn release_leases(stale: &mut [Stale]) {
    let mut leases: BTreeMap<PathBuf, Vec<(Owner, Option<IpAddr>)>> = BTreeMap::new();
    for one in stale.iter() {
        let owner = one.attachment.owner();
        for entry in one.open() {
            if let Undo::ReleaseLease { directory, address } = &entry.undo {
                leases.entry(directory.clone()).or_default().push((owner.clone(), *address));
            }
        }
    }
    for (directory, of) in leases {
        let store = leases::Store::open(&directory, Path::new(paths::LEASE_INDEX));
        match store.and_then(|mut store| store.release_each(&of)) {
            Ok(_) => note_undone(
                stale,
                |entry| matches!(&entry.undo, Undo::ReleaseLease { directory: at, .. } if *at == directory),
            ),
            Err(error) => crate::log::note("warn", &format!("GC goes on lease by lease: {error}")),
        }
    }
}

fn note_undone(stale: &mut [Stale], which: impl Fn(&Entry) -> bool) {
    for one in stale {
        let ids: Vec<u64> = one.open().filter(|entry| which(entry)).map(|entry| entry.id).collect();
        one.undone.extend(ids);
    }
}

/// The journal of one attachment: what is taken back is struck out, the rest taken back now.
fn finish(session: &mut Session, lock: &NetworkLock, one: &Stale, failures: &mut Failures) {
    let journal = lock.journal(&one.attachment.owner()).and_then(|mut journal| {
        journal.undone_all(&one.undone)?;
        Ok(journal)
    });
    match journal {
        Ok(journal) => session.turn_to(one.attachment.clone(), journal),
        Err(error) => return failures.add(error.to_string()),
    }
    let open: BTreeSet<u64> = one.open().map(|entry| entry.id).collect();
    for fate in undo::sweep(session, |entry| open.contains(&entry.id)) {
        match fate {
            // Agents have been asked before. A link that is in a container still, which nobody lists, is no failure of ours.
            Fate::Later(text) => crate::log::note("warn", &format!("kept for later: {text}")),
            fate => failures.add_fate(fate),
        }
    }
    forget_empty(session);
}
