//! Published ports that an ADD took from other attachments: whoever publishes a port last has it, because a pod that is gone without
//! a DEL must not keep it. When that ADD fails, or its attachment goes, one that lives and still publishes the port has it again.

use crate::session::Session;
use crate::undo::rule_owner;
use sandwire_kernel::{Kernel, Netns, PortForward, Rule};
use sandwire_policy::paths;
use sandwire_state::journal::{self, Attachment, Entry, Journal, Side, State, Summary, Undo};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// The ports that an operation published, if it took some, or may have (what was begun and has no end).
pub(crate) fn taken(entry: &Entry) -> Vec<PortForward> {
    match &entry.undo {
        Undo::ClearRules { side: Side::Host, taken, rules, .. } if *taken || entry.state != State::Done => ports(rules),
        _ => Vec::new(),
    }
}

/// Offers ports that are free again to those who want them by their journals. Whoever has one now keeps it. What can't be given back
/// is told, and no failure of who goes.
///
/// `network`: of which the caller has the lock alone, in GC. `going`: attachments that go, too.
pub(crate) fn give_back(session: &mut Session, free: &[PortForward], network: Option<&str>, going: &[Attachment]) {
    if free.is_empty() {
        return;
    }
    let own = session.subject.attachment.clone();
    let Some(kernel) = session.kernel_if_open() else { return };
    let is_wanted = |entry: &Entry| wants(entry, free);
    let others = journal::list(Path::new(paths::JOURNAL), None).unwrap_or_default().into_iter();
    let others = others.filter(|other| other.uncommitted == 0 && other.pending.iter().any(is_wanted));
    let others = others.filter(|other| other.attachment != own && !going.contains(&other.attachment));
    let others: Vec<Summary> = others.collect();
    if others.is_empty() {
        return;
    }
    let links = match kernel.links(Netns::Host) {
        Ok(links) => links.into_iter().map(|link| (link.id.index, link.name)).collect(),
        Err(_) => return,
    };
    for Summary { attachment: other, pending, .. } in others {
        let given = match network == Some(other.network.as_str()) {
            // No call of it runs: what was read is so still.
            true => offer(kernel, &other, &pending, free, &links),
            // Not while a call has it: a DEL of its own would leave what is made here. Who waits would wait for who waits.
            false => match Journal::open_now(Path::new(paths::JOURNAL), &other) {
                Ok(Some(journal)) => {
                    let entries: Vec<Entry> = journal.pending().into_iter().cloned().collect();
                    let offered = offer(kernel, &other, &entries, free, &links);
                    journal.remove_if_empty().map_err(|error| error.to_string()).and(offered)
                }
                Ok(None) => Err("another call has it now".into()),
                Err(error) => Err(error.to_string()),
            },
        };
        if let Err(why) = given {
            let Attachment { network, container_id, .. } = other;
            let text = format!(
                "container {container_id} of network {network:?} does not get its published port back: {why}; attach it again"
            );
            crate::log::note("error", &text);
        }
    }
}

/// Gives an attachment what it published, as far as it is free; nothing to one that is gone without a DEL.
fn offer(
    kernel: &mut (dyn Kernel + Send + 'static),
    attachment: &Attachment,
    entries: &[Entry],
    free: &[PortForward],
    links: &HashMap<u32, String>,
) -> Result<(), String> {
    let ends: Vec<(u32, &str)> = entries.iter().filter_map(|entry| entry.undo.node_link()).collect();
    if !ends.is_empty() && !ends.iter().any(|(index, name)| links.get(index).is_some_and(|link| link == name)) {
        return Ok(());
    }
    let mut seen = HashSet::new();
    // What a later ADD of it has made in the place of an earlier one's counts.
    for entry in entries.iter().rev() {
        let Undo::ClearRules { side: Side::Host, plugin, label, rules, .. } = &entry.undo else { continue };
        if !seen.insert((plugin, label)) || !wants(entry, free) {
            continue;
        }
        let owner = rule_owner(attachment, plugin);
        let rules: Vec<Rule> = serde_json::from_value(rules.clone()).map_err(|error| error.to_string())?;
        kernel.offer_rules(Netns::Host, &owner, label, &rules).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn wants(entry: &Entry, free: &[PortForward]) -> bool {
    let Undo::ClearRules { side: Side::Host, rules, .. } = &entry.undo else { return false };
    entry.state == State::Done && ports(rules).iter().any(|theirs| free.iter().any(|port| overlap(port, theirs)))
}

fn ports(rules: &Value) -> Vec<PortForward> {
    let rules: Vec<Rule> = serde_json::from_value(rules.clone()).unwrap_or_default();
    let port = |rule| if let Rule::ForwardPort(port) = rule { Some(port) } else { None };
    rules.into_iter().filter_map(port).collect()
}

/// Whether both can't have it. A port of one address and the same of all stand beside each other.
fn overlap(one: &PortForward, other: &PortForward) -> bool {
    one.protocol == other.protocol
        && one.host_port == other.host_port
        && one.host_ip == other.host_ip
        && one.to.is_ipv4() == other.to.is_ipv4()
}
