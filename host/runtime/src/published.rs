//! Published ports that an ADD took from other attachments: whoever publishes a port last has it, because a pod that is gone without
//! a DEL must not keep it. When that ADD fails, or its attachment goes, the one before has its port again.

use crate::session::Session;
use sandwire_kernel::{Netns, PortForward, Rule, RuleOwner};
use sandwire_policy::paths;
use sandwire_state::journal::{self, Attachment, Entry, Side, State, Summary, Undo};
use serde_json::Value;
use std::path::Path;

/// Of the node's rules that an entry speaks of, if it took ports with them.
pub(crate) fn taken(undo: &Undo) -> Option<&Value> {
    match undo {
        Undo::ClearRules { side: Side::Host, taken: true, rules, .. } => Some(rules),
        _ => None,
    }
}

/// Gives ports that are free again to those who still want them by their journals: rules as written there. What can't be given
/// back is told, and no failure of who goes.
///
/// `going`: attachments that go, too.
pub(crate) fn give_back(session: &mut Session, free: &[Value], going: &[Attachment]) {
    if free.is_empty() {
        return;
    }
    let ports: Vec<PortForward> = free.iter().flat_map(ports).collect();
    let own = session.subject.attachment.clone();
    let Ok(mut others) = journal::list(Path::new(paths::JOURNAL), None) else { return };
    others.retain(|summary| {
        summary.uncommitted == 0 && summary.attachment != own && !going.contains(&summary.attachment)
    });
    let mut wanted: Vec<(bool, RuleOwner, &str, Vec<Rule>)> =
        others.iter().flat_map(|summary| claims(summary, &ports)).collect();
    // Of several the one that came last, as it had it before.
    wanted.sort_by_key(|(took, ..)| *took);
    let Some(kernel) = session.kernel_if_open() else { return };
    for (_, owner, label, rules) in wanted {
        if let Err(error) = kernel.apply_rules(Netns::Host, &owner, label, &rules) {
            let (id, network) = (&owner.container_id, &owner.network);
            let text = format!("container {id} of network {network:?} does not get its published port back: {error}");
            crate::log::note("error", &text);
        }
    }
}

/// What an attachment has in its journal that publishes one of these ports; whether it took it itself.
fn claims<'a>(
    summary: &'a Summary,
    free: &[PortForward],
) -> impl Iterator<Item = (bool, RuleOwner, &'a str, Vec<Rule>)> {
    summary.pending.iter().filter_map(move |entry: &Entry| {
        let Undo::ClearRules { side: Side::Host, plugin, label, rules, taken } = &entry.undo else { return None };
        let is_one = |theirs: &PortForward| free.iter().any(|port| overlap(port, theirs));
        if entry.state != State::Done || !ports(rules).iter().any(is_one) {
            return None;
        }
        let owner = RuleOwner {
            plugin: plugin.clone(),
            network: summary.attachment.network.clone(),
            container_id: summary.attachment.container_id.clone(),
            ifname: summary.attachment.ifname.clone(),
        };
        Some((*taken, owner, label.as_str(), serde_json::from_value(rules.clone()).ok()?))
    })
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
