//! Attachments by their journals.

use super::{Finding, Kind, Options, PATIENCE, Remedy, in_time, journal_of};
use crate::deadline::Deadline;
use crate::engine;
use crate::native::{NativeRunner, Orders};
use crate::session::{Session, Subject, taking};
use crate::store::Generation;
use crate::undo::{self, Fate};
use crate::verbs::{forget_empty, of_plugin};
use sandwire_cni::Command;
use sandwire_kernel::linux::{LinuxKernel, open_netns};
use sandwire_kernel::{Kernel, KernelError, LinkInfo, Netns};
use sandwire_policy::paths;
use sandwire_state::journal::{self, Attachment, Entry, Journal, State, Summary, Undo};
use sandwire_state::{Outcome, StateError};
use serde_json::Value;
use std::path::Path;

pub(super) fn mend(options: &Options) -> Outcome<Vec<Finding>> {
    let summaries = journal::list(Path::new(paths::JOURNAL), None)?;
    // A node without attachments needs no privilege to say so.
    let links = if summaries.is_empty() { Vec::new() } else { host_links()? };
    let mut findings = Vec::new();
    for summary in summaries {
        if summary.damaged > 0 {
            findings.push(damaged(options, &summary)?);
        }
        if summary.is_surely_left_over() || is_gone(&summary.pending, netns_of(summary.facts.values()), &links) {
            findings.extend(one(options, &summary.attachment)?);
        }
    }
    Ok(findings)
}

/// A journal with lines that can't be read. As long as anything else is in it, its attachment may be in use.
fn damaged(options: &Options, summary: &Summary) -> Outcome<Finding> {
    let attachment = &summary.attachment;
    let path = journal::path(Path::new(paths::JOURNAL), attachment);
    let lines = format!(
        "{} lines of its journal can't be read (damage, or a later release's): what they speak of is not undone by the host",
        summary.damaged
    );
    let finding = |text, remedy| Ok(Finding::about(Kind::Damaged, attachment, text, remedy));
    if !summary.pending.is_empty() {
        let text = format!(
            "{lines}; DEL takes the rest back, and the next repair removes the journal ({}) after it",
            path.display()
        );
        return finding(text, Remedy::Told);
    }
    let text = format!("{lines}; nothing else is left in {}: a DEL has ended", path.display());
    if options.dry_run && summary.ends_with_del {
        return finding(text, Remedy::WouldMend);
    }
    match in_time(|| journal_of(attachment))? {
        // What can't be read may be all that an ADD did: of a later release, which this one was put in the place of.
        Ok(journal) if !journal.ends_with_del() => {
            let text = format!("{lines}; nothing else is in {}: when its container is gone, remove it", path.display());
            finding(text, Remedy::Told)
        }
        Ok(journal) => match journal.remove_if_unreadable()? {
            true => finding(text, Remedy::Mended),
            false => finding(format!("{lines}; it was attached again meanwhile"), Remedy::Told),
        },
        Err(busy) => Ok(busy),
    }
}

pub(super) fn host_links() -> Outcome<Vec<LinkInfo>> {
    let links = LinuxKernel::open(None).and_then(|mut kernel| kernel.links(Netns::Host));
    links.map_err(|error| StateError::Other(error.to_string()))
}

/// One attachment, under its lock: it is looked at again, because a call may have ended since.
fn one(options: &Options, attachment: &Attachment) -> Outcome<Vec<Finding>> {
    let io = |error: std::io::Error| StateError::Other(format!("could not set a time limit: {error}"));
    let deadline = Deadline::arm(PATIENCE).map_err(io)?;
    let findings = match journal_of(attachment) {
        Ok(Ok(journal)) => locked(options, attachment, journal, deadline),
        Ok(Err(busy)) => Ok(vec![busy]),
        Err(error) => Err(error),
    };
    deadline.disarm();
    findings
}

fn locked(options: &Options, attachment: &Attachment, journal: Journal, deadline: Deadline) -> Outcome<Vec<Finding>> {
    let entries: Vec<Entry> = journal.pending().into_iter().cloned().collect();
    let netns = netns_of(journal.facts().values()).map(str::to_owned);
    let gone = is_gone(&entries, netns.as_deref(), &host_links()?);
    let is_left_over = undo::is_left_over(&journal);
    let left_over: Vec<&Entry> = entries.iter().filter(|entry| is_left_over(entry)).collect();
    let (kind, text, due) = if gone {
        let text = "its namespace and the node's end of its interface are gone, and there was no DEL";
        (Kind::Gone, text.to_owned(), entries.len())
    } else if left_over.iter().any(|entry| entry.state != State::Failed) {
        (Kind::Unfinished, format!("an ADD that was killed left {}", list(&left_over)), left_over.len())
    } else {
        (Kind::Kept, format!("could not be undone when it was to be: {}", list(&left_over)), left_over.len())
    };
    if due == 0 {
        journal.remove_if_empty()?;
        return Ok(Vec::new());
    }
    if options.dry_run {
        return Ok(vec![Finding::about(kind, attachment, text, Remedy::WouldMend)]);
    }
    let mut session = match session(attachment, journal, deadline) {
        Ok(session) => session,
        Err(why) => {
            return Ok(vec![Finding::about(kind, attachment, format!("{text}; not mended: {why}"), Remedy::Left)]);
        }
    };
    deadline.begin_undo();
    let mut left = Vec::new();
    for top in tops(&entries) {
        session.subject.plugin.clone_from(&top);
        session.native = native(options, &session, &entries, &top, netns.as_deref());
        let of_top = |entry: &Entry| of_plugin(entry, &top);
        left.extend(match gone {
            true => undo::sweep(&mut session, of_top),
            // In a container that may be alive: only its runtime knows the way there.
            false => {
                undo::sweep_left_over(&mut session, |entry| of_top(entry) && !undo::goes_with_container(&entry.undo))
            }
        });
    }
    let inside = session.journal().map_or(0, |journal| {
        let is_left_over = undo::is_left_over(journal);
        journal
            .pending()
            .into_iter()
            .filter(|entry| is_left_over(entry) && undo::goes_with_container(&entry.undo))
            .count()
    });
    forget_empty(&mut session);
    session.finish();
    let mut why: Vec<String> = left.into_iter().filter_map(reason).collect();
    if inside > 0 && !gone {
        why.push(format!(
            "{inside} changes within the container are its runtime's DEL to take back, or GC's when it is gone"
        ));
    }
    Ok(vec![match why.is_empty() {
        true => Finding::about(kind, attachment, text, Remedy::Mended),
        false => Finding::about(kind, attachment, format!("{text}; still there: {}", why.join("; ")), Remedy::Left),
    }])
}

fn reason(fate: Fate) -> Option<String> {
    match fate {
        Fate::Undone => None,
        Fate::Later(text) | Fate::AgentDown(text) | Fate::Failed(text) => Some(text),
    }
}

fn session(attachment: &Attachment, journal: Journal, deadline: Deadline) -> Result<Box<Session>, String> {
    let engine = engine::engine().map_err(|error| format!("{error:#}"))?;
    let generation = Generation::active().map_err(|error| error.to_string())?;
    let mut kernel = LinuxKernel::open(None).map_err(|error| error.to_string())?;
    kernel.set_interrupted(Deadline::interrupted);
    let subject = Subject {
        verb: Command::Del,
        plugin: String::new(),
        attachment: attachment.clone(),
        sandbox: String::new(),
        args: Vec::new(),
        path: Vec::new(),
    };
    Ok(Box::new(Session::new(subject, None, engine, generation, deadline, Some(Box::new(kernel)), Some(journal), None)))
}

/// The plugins that the runtime called, the newest first: a list is taken down in the order opposite to the one in which it
/// was put up.
fn tops(entries: &[Entry]) -> Vec<String> {
    let mut tops: Vec<String> = Vec::new();
    for entry in entries.iter().rev() {
        let top = entry.plugin.split('/').next().unwrap_or_default();
        if !tops.iter().any(|known| known == top) {
            tops.push(top.to_owned());
        }
    }
    tops
}

/// What runs native delegates, if one has something to take back here.
fn native(
    options: &Options,
    session: &Session,
    entries: &[Entry],
    top: &str,
    netns: Option<&str>,
) -> Option<NativeRunner> {
    let wanted = entries.iter().any(|entry| of_plugin(entry, top) && matches!(entry.undo, Undo::Delegate { .. }));
    let grant = wanted.then(|| session.generation.grant(top).ok().flatten()).flatten()?;
    let path: Vec<String> = options.path.iter().map(|folder| folder.display().to_string()).collect();
    let environment = [
        ("CNI_CONTAINERID", session.subject.attachment.container_id.clone()),
        ("CNI_NETNS", netns.unwrap_or_default().to_owned()),
        ("CNI_PATH", path.join(":")),
        ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
    ];
    let environment: Vec<(String, String)> =
        environment.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let containers = std::iter::once(session.subject.attachment.container_id.clone()).collect();
    let orders =
        Orders::of(&grant, Command::Del, containers, None, entries.iter().filter(|entry| of_plugin(entry, top)));
    NativeRunner::fork(orders, &options.path, &environment).ok()
}

/// The namespace's path, as the runtime named it at ADD.
pub(super) fn netns_of<'a>(facts: impl IntoIterator<Item = &'a Value>) -> Option<&'a str> {
    facts.into_iter().find_map(|facts| facts.get("netns")?.as_str()).filter(|path| !path.is_empty())
}

/// Whether nothing of an attachment can be in use any more: the path of its namespace leads to none, and every link that it
/// had on the node is gone, or one that it had taken from the node is there again, as the kernel puts it there. Both, because a
/// path may be another mount namespace's, and a link may be deleted by hand.
/// Without such a link (loopback, an address manager by itself) the host can't tell. An IFB says nothing: it outlives the
/// container whose bandwidth it limited.
fn is_gone(entries: &[Entry], netns: Option<&str>, links: &[LinkInfo]) -> bool {
    let made: Vec<(u32, &str)> = entries
        .iter()
        .filter_map(|entry| entry.undo.node_link())
        .filter(|(index, _)| !links.iter().any(|link| link.id.index == *index && link.kind == "ifb"))
        .collect();
    let is_there = |(index, name): &(u32, &str)| links.iter().any(|link| link.id.index == *index && link.name == *name);
    let was_taken = |entry: &Entry, link: &LinkInfo| matches!(&entry.undo, Undo::MoveLink { taken: Some(taken), .. } if taking::is_its_hardware(taken, link));
    let came_back = entries.iter().any(|entry| links.iter().any(|link| was_taken(entry, link)));
    let is_gone = came_back || (!made.is_empty() && !made.iter().any(is_there));
    let no_namespace = |path: &str| matches!(open_netns(path), Err(KernelError::NotFound(_) | KernelError::Invalid(_)));
    is_gone && netns.is_some_and(no_namespace)
}

/// Operations for people, each kind once.
pub(super) fn list(entries: &[&Entry]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for entry in entries {
        let text = match &entry.undo {
            Undo::DeleteLink { name, .. } => format!("link {name}"),
            Undo::RestoreSysctl { key, .. } => format!("sysctl {key}"),
            Undo::RestoreLink { name, .. } | Undo::MoveLink { name, .. } | Undo::SetMaster { name, .. } => {
                format!("a change of link {name}")
            }
            Undo::RemoveAddress { address, name, .. } => format!("address {address} of {name}"),
            Undo::RestoreRoute { name, .. } => format!("the routes of {name}"),
            Undo::RemovePolicyRule { .. } => "a policy rule".into(),
            Undo::RemoveRoute { name, .. } => format!("a route by {name}"),
            Undo::ClearLimits { name, .. } => format!("the bandwidth limits of {name}"),
            Undo::ReleaseLease { address: Some(address), .. } => format!("the lease of {address}"),
            Undo::ReleaseLease { directory, .. } => format!("a lease in {}", directory.display()),
            Undo::ReleaseDhcp { lease, .. } => {
                let address = lease.get("address").and_then(Value::as_str).unwrap_or("an address");
                format!("the lease of {address} of a DHCP server")
            }
            Undo::ClearRules { .. } => "firewall rules".to_owned(),
            Undo::Call { endpoint, path, .. } => format!("a call to agent {endpoint:?} ({path})"),
            Undo::Delegate { plugin, .. } => format!("what delegate {plugin:?} did"),
            Undo::RemoveNote { key, .. } => format!("note {key:?}"),
            Undo::Shared { .. } => continue,
        };
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.is_empty() {
        true => "a record in the journal".to_owned(),
        false => texts.join(", "),
    }
}
