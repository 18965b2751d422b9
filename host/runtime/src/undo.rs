//! Takes operations back, from what the journal says of them. Data in, no guest involved.

use crate::endpoint::{self, Fault};
use crate::host_end;
use crate::published;
use crate::refusal::Refusal;
use crate::session::{Session, dhcp, netns, taking};
use sandwire_cni::Command;
use sandwire_kernel::{
    Kernel, KernelError, LinkChanges, LinkId, LinkInfo, Netns, PolicyRule, RouteMode, RouteSpec, Rule, RuleOwner,
    shared,
};
use sandwire_policy::{Endpoint, paths};
use sandwire_state::journal::{Attachment, Entry, Journal, Side, State, Undo};
use sandwire_state::{StateError, kv, leases};
use std::path::Path;

/// What became of an undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is undone, or there was nothing to undo.
    Undone,
    /// It can't be done now and is kept: the agent is down. The next call or `sandwirectl repair` does it.
    Later(String),
    /// The same, and who else is asked the same agent is asked in vain.
    AgentDown(String),
    /// It failed; something of ours may still be there.
    Failed(String),
}

/// Takes back every entry that `which` accepts, newest first, going on past failures; what is left, as text.
pub(crate) fn sweep(session: &mut Session, which: impl Fn(&Entry) -> bool) -> Vec<Fate> {
    let Some(journal) = session.journal() else { return Vec::new() };
    let mut entries: Vec<Entry> = journal.pending().into_iter().filter(|e| which(e)).cloned().collect();
    entries.reverse();
    let unfinished = journal.uncommitted().into_iter().map(|entry| entry.id).collect::<Vec<_>>();
    let mut left = Vec::new();
    let mut free = Vec::new();
    for entry in entries {
        let plugin = entry.plugin.rsplit('/').next().unwrap_or_default();
        let fate = match &entry.undo {
            Undo::ClearRules { .. } if session.subject.verb == Command::Add => rules_as_before(session, &entry),
            // The interface goes, or another plugin's ADD comes; until then its routes would be in front of others' again.
            Undo::RestoreRoute { name, .. }
                if *name == session.subject.attachment.ifname
                    && entry.state == State::Done
                    && !unfinished.contains(&entry.id) =>
            {
                Fate::Undone
            }
            // A gateway is reached by the routes before it: alone it would be refused, and given up.
            Undo::RestoreRoute { name, .. } if left.iter().any(|fate| matches!(fate, Fate::Failed(_))) => {
                Fate::Failed(format!("a route of link {name:?} waits for what failed"))
            }
            // In another container's namespace what is like it is not what was made.
            undo if is_in_container(undo) && !finds_its_namespace(undo) && session.was_elsewhere(&entry) => {
                Fate::Undone
            }
            undo => take_back(session, plugin, undo),
        };
        let Some(journal) = session.journal() else { break };
        let noted = match &fate {
            Fate::Undone => {
                free.extend(published::taken(&entry));
                journal.undone(entry.id)
            }
            Fate::Later(_) | Fate::AgentDown(_) | Fate::Failed(_) => journal.failed(entry.id),
        };
        if let Err(error) = noted {
            crate::log::note("error", &format!("the journal could not be written: {error}"));
        }
        if fate != Fate::Undone {
            left.push(fate);
        }
    }
    published::give_back(session, &free, None, &[]);
    left
}

/// What calls left that had it to do and did not come to it: operations of an ADD that was killed, and undos that could not
/// be done when they were to be. Only for who has the attachment's lock, before an operation of its own.
pub(crate) fn is_left_over(journal: &Journal) -> impl Fn(&Entry) -> bool + use<> {
    let unfinished: Vec<u64> = journal.uncommitted().into_iter().map(|entry| entry.id).collect();
    move |entry| entry.state == State::Failed || unfinished.contains(&entry.id)
}

/// Takes back what `is_left_over`, as far as `which` accepts it; what is left, as text. An ADD that succeeded since may have
/// done the same again: that is not taken away from it.
pub(crate) fn sweep_left_over(session: &mut Session, which: impl Fn(&Entry) -> bool) -> Vec<Fate> {
    let Some(journal) = session.journal() else { return Vec::new() };
    let is_left_over = is_left_over(journal);
    let pending: Vec<Entry> = journal.pending().into_iter().cloned().collect();
    let (left_over, standing): (Vec<Entry>, Vec<Entry>) = pending.into_iter().partition(is_left_over);
    let mut due = Vec::new();
    for entry in left_over.into_iter().filter(|entry| which(entry)) {
        if !standing.iter().any(|newer| newer.id > entry.id && covers(&newer.undo, &entry.undo)) {
            due.push(entry.id);
        } else if let Some(Err(error)) = session.journal().map(|journal| journal.undone(entry.id)) {
            crate::log::note("error", &format!("the journal could not be written: {error}"));
        }
    }
    sweep(session, |entry| due.contains(&entry.id))
}

/// Whether undoing `older` would take away what `newer` stands for.
fn covers(newer: &Undo, older: &Undo) -> bool {
    match (newer, older) {
        (
            Undo::ReleaseLease { directory: at, address: now },
            Undo::ReleaseLease { directory: former, address: then },
        ) => at == former && (then.is_none() || now == then),
        // All rules of a plugin for an attachment go at once.
        (Undo::ClearRules { side: at, plugin: now, .. }, Undo::ClearRules { side: former, plugin: then, .. }) => {
            (at, now) == (former, then)
        }
        _ => newer == older,
    }
}

/// Whether there is nothing to be done for it by who is told of no container: what was made in there goes with it, or with its
/// other end. A link of the node that was taken there comes back, if the kernel does not destroy it.
pub(crate) fn goes_with_container(undo: &Undo) -> bool {
    match undo {
        Undo::MoveLink { taken: Some(taken), .. } => !taken.lasting,
        undo => is_in_container(undo),
    }
}

/// Whether an undo is about something within the container.
pub(crate) fn is_in_container(undo: &Undo) -> bool {
    undo.side() == Some(Side::Container)
}

/// Whether an undo says itself where it was done: there is something to do for it also elsewhere, or without a container.
fn finds_its_namespace(undo: &Undo) -> bool {
    matches!(undo, Undo::MoveLink { taken: Some(_), .. } | Undo::ReleaseDhcp { .. })
}

/// Whose the rules of a plugin are.
pub(crate) fn rule_owner(attachment: &Attachment, plugin: &str) -> RuleOwner {
    let Attachment { network, container_id, ifname } = attachment.clone();
    RuleOwner { plugin: plugin.to_owned(), network, container_id, ifname }
}

/// The undo of rules in an ADD that failed: those under its label become what they were, and others of the same attachment
/// stay. An earlier ADD may have succeeded, and the runtime still counts on it; only DEL and GC clear all.
fn rules_as_before(session: &mut Session, entry: &Entry) -> Fate {
    let Undo::ClearRules { side, plugin, label, .. } = &entry.undo else { return Fate::Undone };
    let at = netns(*side);
    let before = session.journal().and_then(|journal| {
        let pending = journal.pending();
        let earlier = pending.into_iter().filter(|other| other.id < entry.id && other.state == State::Done);
        let mut same = earlier.filter_map(|other| match &other.undo {
            Undo::ClearRules { side: s, plugin: p, label: l, rules, .. } if (s, p, l) == (side, plugin, label) => {
                Some(rules)
            }
            _ => None,
        });
        same.next_back().cloned()
    });
    let rules = match before.map(serde_json::from_value::<Vec<Rule>>) {
        None => Vec::new(),
        Some(Ok(rules)) => rules,
        Some(Err(error)) => return Fate::Failed(format!("the journal has no firewall rules: {error}")),
    };
    let owner = rule_owner(&session.subject.attachment, plugin);
    match session.kernel_if_open() {
        Some(kernel) if at == Netns::Host || kernel.has_container() => {
            match kernel.apply_rules(at, &owner, label, &rules) {
                // A kernel that can't have rules has none.
                Err(KernelError::Unsupported(_)) if rules.is_empty() => Fate::Undone,
                outcome => fate("removing firewall rules", outcome.map(drop)),
            }
        }
        Some(_) => Fate::Undone,
        None => Fate::Failed("removing firewall rules: this call was opened without network namespaces".into()),
    }
}

/// Takes one operation back.
pub(crate) fn take_back(session: &mut Session, plugin: &str, undo: &Undo) -> Fate {
    match undo {
        Undo::Shared { .. } => Fate::Undone,
        Undo::ReleaseLease { directory, address } => release(session, directory, *address),
        Undo::ReleaseDhcp { .. } => dhcp::give_back(session, undo),
        Undo::RemoveNote { plugin, scope, key } => remove_note(session, plugin, scope, key),
        Undo::Call { endpoint, method, path, headers, body, done } => {
            let call = endpoint::Call { method, path, headers, body };
            call_back(session, plugin, endpoint, &call, done)
        }
        Undo::Delegate { plugin, config, ifname } => {
            let subject = session.subject.clone();
            let deadline = session.deadline;
            // A server that does not answer would be waited for twice. With the configuration of its ADD it may know better.
            let is_it = |(failed, with): &(String, String)| failed == plugin && with == config;
            if subject.verb == Command::Del && session.failed_delegates.iter().any(is_it) {
                return Fate::Failed(format!("DEL of delegate {plugin:?} failed"));
            }
            match &mut session.native {
                Some(native) => {
                    match native.run(plugin, "DEL", (&subject.attachment.container_id, ifname), config, &deadline) {
                        Ok(_) => Fate::Undone,
                        Err(error) => Fate::Failed(format!("DEL of delegate {plugin:?}: {error}")),
                    }
                }
                None => Fate::Failed(format!(
                    "DEL of delegate {plugin:?}: no native plugin may be executed in this {}",
                    subject.verb
                )),
            }
        }
        _ => in_kernel(session, undo),
    }
}

fn fate(what: &str, outcome: Result<(), KernelError>) -> Fate {
    match outcome {
        Ok(()) | Err(KernelError::NotFound(_)) => Fate::Undone,
        Err(error) => Fate::Failed(format!("{what}: {error}")),
    }
}

/// Whether a link of the node, of which the journal has the name alone, is the attachment's.
fn is_ours_by_name(kernel: &mut (dyn Kernel + Send), attachment: &Attachment, info: &LinkInfo) -> bool {
    host_end::is_of(attachment, &info.name)
        || host_end::is_ifb_of(attachment, info)
        || kernel.veth_peer(info.id).is_ok_and(|peer| peer.id.netns == Netns::Container)
}

fn in_kernel(session: &mut Session, undo: &Undo) -> Fate {
    let attachment = session.subject.attachment.clone();
    let seen = undo.link().and_then(|(index, _)| session.seen_name(LinkId { netns: Netns::Container, index }));
    let Some(kernel) = session.kernel_if_open() else {
        return Fate::Failed(format!("{undo:?}: this call was opened without network namespaces"));
    };
    if let Undo::MoveLink { former_name, index, taken: Some(taken), .. } = undo {
        return taking::give_back(session, former_name, *index, taken);
    }
    let at = undo.side().map_or(Netns::Host, netns);
    if at == Netns::Container && !kernel.has_container() {
        // It went with its namespace.
        return Fate::Undone;
    }
    // A pod's namespace may be another one by now (a runtime that starts a sandbox again, at the same path), and each counts
    // from 1: what has the index there is some other attachment's. (The node's own are given once in a boot.)
    let mut kind = String::new();
    if let (Netns::Container, Some((index, name))) = (at, undo.link()) {
        let link = LinkId { netns: at, index };
        // Several settings of one link are asked for once; before a deletion it may have gone with its other end.
        let known = seen.filter(|_| !matches!(undo, Undo::DeleteLink { .. }));
        let present = known.map_or_else(
            || {
                let info = kernel.link_info(link)?;
                kind = info.kind;
                Ok(info.name)
            },
            Ok,
        );
        match present {
            Ok(present) if present == name => session.remember_name(link, name),
            Ok(_) | Err(KernelError::NotFound(_)) => return Fate::Undone,
            Err(error) => return Fate::Failed(format!("looking for link {name:?}: {error}")),
        }
    }
    let Some(kernel) = session.kernel_if_open() else {
        return Fate::Failed(format!("{undo:?}: this call was opened without network namespaces"));
    };
    match undo {
        Undo::DeleteLink { name, index: Some(index), .. } if at == Netns::Container => {
            let link = LinkId { netns: at, index: *index };
            let what = format!("deleting link {name:?}");
            match kind.as_str() == "vrf" && matches!(shared::is_vrf_in_use(kernel, link), Ok(true)) {
                // Another attachment of the pod is in it: whose DEL is the last takes it away.
                true => Fate::Undone,
                false => fate(&what, kernel.delete_link(link)),
            }
        }
        Undo::DeleteLink { name, index: Some(index), .. } => {
            // Mostly the plugin has removed it, by its other end; asking costs less than a helper that finds nothing.
            if let Err(error) = kernel.link_info(LinkId { netns: at, index: *index }) {
                return fate(&format!("looking for link {name:?}"), Err(error));
            }
            fate(&format!("deleting link {name:?}"), kernel.delete_link(LinkId { netns: at, index: *index }))
        }
        // The index was never learned: the process ended between the message and its answer. On the node a name alone may
        // be somebody else's by now: it is ours if it is a hash of the attachment, or a veth whose other end is in this
        // very container. (GC has no container to look into.)
        Undo::DeleteLink { name, index: None, .. } => {
            let info = match kernel.link_by_name(at, name) {
                Ok(info) => info,
                Err(error) => return fate(&format!("looking for link {name:?}"), Err(error)),
            };
            if info.kind == "vrf" && matches!(shared::is_vrf_in_use(kernel, info.id), Ok(true)) {
                return Fate::Undone;
            }
            let ours = at == Netns::Container || is_ours_by_name(kernel, &attachment, &info);
            if ours { fate(&format!("deleting link {name:?}"), kernel.delete_link(info.id)) } else { Fate::Undone }
        }
        // What a namespace had that is gone is no business of the one at its path now, for which others may have set it.
        Undo::RestoreSysctl { netns: Some(then), .. } | Undo::RemovePolicyRule { netns: Some(then), .. }
            if kernel.identity(at).is_some_and(|now| now != *then) =>
        {
            Fate::Undone
        }
        Undo::RestoreSysctl { key, wrote: Some(wrote), .. }
            if kernel.read_sysctl(at, key).is_ok_and(|present| present != *wrote) =>
        {
            Fate::Undone
        }
        Undo::RestoreSysctl { key, value, .. } => {
            fate(&format!("restoring sysctl {key}"), kernel.write_sysctl(at, key, value).map(|_| ()))
        }
        Undo::RestoreLink { index, name, up, mac, mtu, txqlen, promisc, allmulti, alias, renamed_from, .. } => {
            let changes = LinkChanges {
                up: *up,
                mac: mac.as_deref().and_then(|text| text.parse().ok()),
                mtu: *mtu,
                txqlen: *txqlen,
                promisc: *promisc,
                allmulti: *allmulti,
                alias: alias.clone(),
                group: None,
                name: renamed_from.clone(),
            };
            match kernel.change_link(LinkId { netns: at, index: *index }, &changes) {
                // Never possible again (an MTU, when the master's has become smaller). To fail for it would keep the
                // plugin that made the link from its DEL for ever.
                Err(KernelError::Invalid(text)) if at == Netns::Container => {
                    crate::log::note("warn", &format!("link {name:?} of the container can't be what it was: {text}"));
                    Fate::Undone
                }
                restored => fate(&format!("restoring link {name:?}"), restored),
            }
        }
        Undo::MoveLink { name, to, former_name, index, .. } => {
            let info = match kernel.link_by_name(at, name) {
                Ok(info) => info,
                Err(error) => return fate(&format!("looking for link {name:?}"), Err(error)),
            };
            // A guest may have removed it since, and given its name free: what bears it now would end up in the container.
            let ours = match index {
                Some(index) => info.id.index == *index,
                None => at == Netns::Container || is_ours_by_name(kernel, &attachment, &info),
            };
            match ours {
                true => {
                    let moved = kernel.move_link(info.id, netns(*to), former_name, None).map(|_| ());
                    session.forget_name(info.id);
                    fate(&format!("moving link {name:?} back"), moved)
                }
                false => Fate::Undone,
            }
        }
        Undo::SetMaster { index, name, master, .. } => fate(
            &format!("restoring the master of link {name:?}"),
            kernel.set_master(LinkId { netns: at, index: *index }, master.map(|index| LinkId { netns: at, index })),
        ),
        Undo::RemoveAddress { index, name, address, .. } => match address.parse() {
            Ok(address) => fate(
                &format!("removing address {address} from {name:?}"),
                kernel.remove_address(LinkId { netns: at, index: *index }, address),
            ),
            Err(_) => Fate::Failed(format!("the journal has no address: {address:?}")),
        },
        Undo::RemoveRoute { index, name, route, .. } => match serde_json::from_value::<RouteSpec>(route.clone()) {
            Ok(route) => fate(
                &format!("removing a route from {name:?}"),
                kernel.remove_route(LinkId { netns: at, index: *index }, &route),
            ),
            Err(error) => Fate::Failed(format!("the journal has no route: {error}")),
        },
        Undo::RestoreRoute { index, name, route, .. } => {
            let link = LinkId { netns: at, index: *index };
            match serde_json::from_value::<RouteSpec>(route.clone()) {
                // Not `Add`: of IPv6 the kernel refuses that when another link has one to the same destination.
                Ok(route) => match kernel.add_route(link, &route, RouteMode::Append) {
                    Ok(()) | Err(KernelError::Exists(_) | KernelError::NotFound(_)) => Fate::Undone,
                    // The link is down by now, or has no address. To fail for it would keep the plugin that made it from its DEL.
                    Err(KernelError::Invalid(text)) => {
                        crate::log::note(
                            "warn",
                            &format!("link {name:?} of the container can't get a route back: {text}"),
                        );
                        Fate::Undone
                    }
                    Err(error) => Fate::Failed(format!("giving link {name:?} its route back: {error}")),
                },
                Err(error) => Fate::Failed(format!("the journal has no route: {error}")),
            }
        }
        Undo::RemovePolicyRule { rule, .. } => match serde_json::from_value::<PolicyRule>(rule.clone()) {
            Ok(rule) => fate(&format!("removing {rule}"), kernel.remove_policy_rule(at, &rule)),
            Err(error) => Fate::Failed(format!("the journal has no policy rule: {error}")),
        },
        Undo::ClearLimits { index, name, output, input, .. } => fate(
            &format!("taking the bandwidth limits from {name:?}"),
            kernel.clear_limits(LinkId { netns: at, index: *index }, *output, *input),
        ),
        Undo::ClearRules { plugin, .. } => {
            fate("removing firewall rules", kernel.clear_rules(at, &rule_owner(&attachment, plugin)))
        }
        other => Fate::Failed(format!("{other:?} is not the kernel's to undo")),
    }
}

fn release(session: &Session, directory: &Path, address: Option<std::net::IpAddr>) -> Fate {
    let owner = session.subject.attachment.owner();
    let released = leases::Store::open(directory, Path::new(paths::LEASE_INDEX)).and_then(|mut store| match address {
        Some(address) => store.release_address(&owner, address).map(|_| ()),
        None => store.release(&owner).map(|_| ()),
    });
    match released {
        Ok(()) | Err(StateError::NotFound(_)) => Fate::Undone,
        Err(error) => Fate::Failed(format!("releasing leases in {}: {error}", directory.display())),
    }
}

fn remove_note(session: &Session, plugin: &str, scope: &str, key: &str) -> Fate {
    let attachment = &session.subject.attachment;
    let owner = attachment.owner();
    let owner = (scope == "attachment").then_some(&owner);
    match kv::Notes::open(Path::new(paths::NOTES), plugin, &attachment.network, owner).remove(key) {
        Ok(_) => Fate::Undone,
        Err(error) => Fate::Failed(format!("removing note {key:?}: {error}")),
    }
}

/// Sends the call that takes a call back. That the agent can't be reached is no failure: the call is kept.
pub(crate) fn call_back(session: &Session, plugin: &str, name: &str, call: &endpoint::Call<'_>, done: &[u16]) -> Fate {
    let endpoint: Option<Endpoint> = match session.generation.grant(plugin) {
        Ok(grant) => grant.and_then(|grant| grant.endpoints.get(name).cloned()),
        Err(_) => None,
    };
    let Some(endpoint) = endpoint else {
        return Fate::Later(format!("policy no longer gives plugin {plugin:?} the endpoint {name:?}"));
    };
    match endpoint::send(name, &endpoint, call, session.deadline.left().max(std::time::Duration::from_secs(2))) {
        Ok(reply) if (200..300).contains(&reply.status) && !speaks_to(call, &reply) => Fate::Later(format!(
            "what answers at agent {name:?} speaks no JSON: {} to {} {}",
            reply.status, call.method, call.path
        )),
        Ok(reply) if (200..300).contains(&reply.status) || done.contains(&reply.status) => Fate::Undone,
        Ok(reply) => Fate::Later(format!("agent {name:?} answered {} to {} {}", reply.status, call.method, call.path)),
        Err(Fault::Unreachable(text) | Fault::Timeout(text)) => Fate::AgentDown(text),
        Err(fault) => Fate::Later(fault.text().to_owned()),
    }
}

/// Whether an answer fits its call. A page with status 200 to a call in JSON comes from something else on the agent's
/// port, while the agent is down: the attachment would stay in the agent for ever.
fn speaks_to(call: &endpoint::Call<'_>, reply: &endpoint::Reply) -> bool {
    let json = |value: &str| value.to_ascii_lowercase().starts_with("application/json");
    let asked = call.headers.iter().any(|(key, value)| key.eq_ignore_ascii_case("content-type") && json(value));
    let text = reply.body.trim();
    !asked || text.is_empty() || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// The text of a refusal, for reports.
impl From<Refusal> for Fate {
    fn from(refusal: Refusal) -> Self {
        Self::Failed(refusal.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_operation_covers() {
        let lease = |directory: &str, address: Option<&str>| Undo::ReleaseLease {
            directory: directory.into(),
            address: address.map(|text| text.parse().unwrap()),
        };
        let rules = |side, plugin: &str, label: &str| Undo::ClearRules {
            side,
            plugin: plugin.into(),
            label: label.into(),
            rules: serde_json::Value::Null,
            taken: false,
        };
        let call = |body: &str| Undo::Call {
            endpoint: "bagpipe".into(),
            method: "POST".into(),
            path: "/detach_localport".into(),
            headers: Vec::new(),
            body: body.into(),
            done: vec![400],
        };
        for (newer, older, wanted) in [
            (lease("/a", Some("10.0.0.1")), lease("/a", Some("10.0.0.1")), true),
            (lease("/a", Some("10.0.0.1")), lease("/a", None), true),
            (lease("/a", Some("10.0.0.1")), lease("/a", Some("10.0.0.2")), false),
            (lease("/a", Some("10.0.0.1")), lease("/b", Some("10.0.0.1")), false),
            (rules(Side::Host, "bridge", "a"), rules(Side::Host, "bridge", "b"), true),
            (rules(Side::Host, "bridge", "a"), rules(Side::Container, "bridge", "a"), false),
            (rules(Side::Host, "bridge", "a"), rules(Side::Host, "bagpipe", "a"), false),
            (call("x"), call("x"), true),
            (call("x"), call("y"), false),
        ] {
            assert_eq!(covers(&newer, &older), wanted, "{newer:?} {older:?}");
        }
    }
}
