//! ADD, DEL, CHECK and STATUS of one plugin, from the checked invocation to the text for stdout.

use crate::answer;
use crate::bindings::types;
use crate::collect;
use crate::confine::{self, Allowed};
use crate::deadline::Deadline;
use crate::engine;
use crate::guest;
use crate::imports;
use crate::native::{self, Found, NativeRunner, Orders, find};
use crate::privilege;
use crate::room;
use crate::session::{Given, Session, Subject};
use crate::store::Generation;
use crate::stores;
use crate::undo::{self, Fate};
use nix::errno::Errno;
use sandwire_cni::{CniResult, Command, Error, Invocation, IpConfig, NetworkConfig, Version, code};
use sandwire_kernel::linux::{LinuxKernel, Needs, OwnNetns, open_netns, open_own, same_netns};
use sandwire_kernel::{Kernel, KernelError, Netns};
use sandwire_policy::{Grant, Limits, entry, paths};
use sandwire_state::journal::{self, Attachment, Entry, Journal};
use serde::Serialize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the log has of a plugin whose DEL the host had to finish.
pub const FAILED_IN_DEL: &str = "failed in DEL, but nothing of the attachment is left";

/// A type that the active generation does not have.
pub(crate) fn unknown_plugin(plugin: &str) -> Error {
    Error {
        code: code::NOT_INSTALLED,
        msg: format!("plugin {plugin:?} is not installed for sandwire"),
        details: format!(
            "put its component into {}/{plugin}.wasm, give it a {} entry in {}, then run: sandwirectl apply",
            paths::PLUGINS,
            sandwire_policy::header(plugin),
            paths::POLICY
        ),
    }
}

/// Runs one verb but VERSION. `environment` is what native delegates get, `stdout` what gets ADD's result.
///
/// # Errors
/// The CNI error object to print.
pub fn run(
    call: &Invocation,
    plugin: &str,
    environment: &[(String, String)],
    stdout: BorrowedFd<'_>,
) -> Result<(), Error> {
    let generation = Generation::active();
    let grant = match &generation {
        Ok(generation) => generation.grant(plugin).and_then(|found| found.ok_or_else(|| unknown_plugin(plugin))),
        Err(error) => Err(error.clone()),
    };
    // DEL goes on without its plugin: the host knows what was done for the attachment.
    if call.command != Command::Del
        && let Err(error) = &grant
    {
        return Err(error.clone());
    }
    if call.command == Command::Status {
        can_be_kept(leases_of(generation.as_ref().ok(), call))?;
    }
    let limits = grant.as_ref().map(|grant| grant.limits.clone()).unwrap_or_default();
    let deadline = arm(&limits)?;
    let host = open_own().map_err(|e| Error::internal(e.to_string()))?;
    let needs_container = grant.as_ref().map_or(true, imports::needs_container);
    let container = container(call, &host, needs_container)?;
    // Only DEL comes here without one.
    let generation = generation.unwrap_or_else(Generation::unusable);
    let namespaces = (host, container);
    let mut session = open(call, plugin, generation, grant.as_ref().ok(), deadline, namespaces, environment)?;
    if call.command == Command::Gc {
        return collect::collect(session, &grant?, call, &journals(call, environment));
    }
    session.begin()?;
    match call.command {
        Command::Add => add(session, grant?, &call.config, stdout),
        Command::Del => del(session, grant, &call.config),
        _ => guest(session, grant?, call.command, &call.config).1.map(drop),
    }
}

/// What an ADD writes down: some hundred bytes for each step, and files of a block each.
const ROOM: (u64, u64) = (64 << 10, 4);

/// STATUS: whether an ADD could write its journal, and its leases.
fn can_be_kept(leases: Option<PathBuf>) -> Result<(), Error> {
    let leases = leases.as_deref().map(|path| (path, "leases"));
    for (path, what) in [(Path::new(paths::JOURNAL), "the journal")].into_iter().chain(leases) {
        room::look(path, ROOM).map_err(|lack| Error {
            code: code::NOT_AVAILABLE,
            msg: format!("{what} can't be written to {}: {lack}", path.display()),
            details: lack.remedy(),
        })?;
    }
    Ok(())
}

/// Below which directory a configuration's leases are, if its address manager is one of ours that keeps some.
fn leases_of(generation: Option<&Generation>, call: &Invocation) -> Option<PathBuf> {
    let (ipam, generation) = call.config.ipam_type.as_deref().zip(generation)?;
    let grant = generation.grant(ipam).ok()??;
    grant.imports.contains("leases").then(|| stores::roots(generation, &call.config, false).pop())?
}

fn arm(limits: &Limits) -> Result<Deadline, Error> {
    Deadline::arm(Duration::from_millis(limits.deadline_ms)).map_err(|e| Error {
        code: code::IO,
        msg: "could not arm the deadline".into(),
        details: e.to_string(),
    })
}

/// Opens the container's namespace, before anything is done. In DEL a namespace that is gone is no error
/// (specification, section DEL), nor what is none for a plugin that does not ask for it: host-local is also called by programs
/// that have no container (CNI_NETNS=/dev/null), and the reference leaves it to each plugin (`ns.CheckNetNS`).
fn container(call: &Invocation, host: &OwnNetns, needs_container: bool) -> Result<Option<OwnedFd>, Error> {
    if !matches!(call.command, Command::Add | Command::Del | Command::Check) {
        return Ok(None);
    }
    let Some(path) = &call.netns else { return Ok(None) };
    let fd = match open_netns(path) {
        Ok(fd) => fd,
        Err(_) if call.command == Command::Del => return Ok(None),
        Err(KernelError::NotFound(_) | KernelError::Invalid(_)) if !needs_container => return Ok(None),
        Err(error) => {
            return Err(Error {
                code: code::INTERNAL,
                msg: format!("failed to open netns {path:?}: {error}"),
                details: String::new(),
            });
        }
    };
    // The reference compares after its plugin ran; by then the host's own interfaces are reconfigured.
    if !call.netns_override && same_netns(host.as_fd(), fd.as_fd()).unwrap_or(false) {
        return Err(sandwire_cni::same_netns_error());
    }
    Ok(Some(fd))
}

fn open(
    call: &Invocation,
    plugin: &str,
    generation: Generation,
    grant: Option<&Grant>,
    deadline: Deadline,
    (host, container): (OwnNetns, Option<OwnedFd>),
    environment: &[(String, String)],
) -> Result<Box<Session>, Error> {
    let internal = |e: &dyn std::fmt::Display| Error::internal(e.to_string());
    let attachment = Attachment {
        network: call.config.name.clone(),
        container_id: call.container_id.clone(),
        ifname: call.ifname.clone(),
    };
    let needs_network = imports::reaches_network(grant);
    let journal = match call.command.has_attachment() {
        true => {
            let journals = journals(call, environment);
            Some(Journal::open(&journals, &attachment).map_err(|e| busy(&deadline, "attachment", &e))?)
        }
        false => None,
    };
    let path: Vec<PathBuf> = call.path.iter().map(PathBuf::from).collect();
    let orders = match grant {
        Some(grant) => orders(grant, call, &path, journal.as_ref())?,
        None => Orders::default(),
    };
    let native = match orders.are_none() {
        true => None,
        false => Some(NativeRunner::fork(orders, &path, environment)?),
    };
    let allowed = Allowed::of(grant, call, &generation, journal.as_ref(), native.is_some())?;
    // After that child, which would have copies of what is opened here.
    let kernel: Option<Box<dyn Kernel + Send>> = match needs_network {
        true => {
            let needs = Needs {
                all_sysctls: grant.is_none_or(Grant::reaches_all_sysctls),
                tap: allowed.tap,
                dhcp: allowed.dhcp,
                ..Needs::default()
            };
            let mut kernel =
                LinuxKernel::open_with(host, container.as_ref().map(AsFd::as_fd), needs).map_err(|e| internal(&e))?;
            kernel.set_interrupted(Deadline::interrupted);
            Some(Box::new(kernel))
        }
        false => None,
    };
    confine::files(&allowed)?;
    privilege::drop_to(needs_network, &allowed.needed)?;
    confine::calls(&allowed)?;
    let engine = engine::engine().map_err(|e| internal(&e))?;
    Deadline::watch(&engine);
    let prev_result = match call.config.prev_result() {
        Ok(result) => result,
        // A DEL must not fail for the shape of what an earlier ADD of another release answered.
        Err(_) if call.command == Command::Del => None,
        Err(error) => return Err(error),
    };
    let subject = Subject {
        verb: call.command,
        plugin: plugin.to_owned(),
        attachment,
        sandbox: call.netns.clone().unwrap_or_default(),
        args: call.args.clone(),
        path,
    };
    Ok(Box::new(Session::new(subject, prev_result, engine, generation, deadline, kernel, journal, native)))
}

/// Where a call's journal is. The call in which a native plugin is that called this process has the attachment's lock and journal,
/// and in it that the native plugin's DEL is to be run: what is done here is undone by that.
fn journals(call: &Invocation, environment: &[(String, String)]) -> PathBuf {
    // GC and STATUS are of none, whatever their environment says.
    let (container_id, ifname) = match call.command.has_attachment() {
        true => (call.container_id.as_str(), call.ifname.as_str()),
        false => ("", ""),
    };
    let name = native::name_of(container_id, ifname);
    let within = environment.iter().any(|(key, value)| key == native::WITHIN && *value == name);
    if within { stores::journal_within() } else { PathBuf::from(paths::JOURNAL) }
}

pub(crate) fn busy(deadline: &Deadline, of: &str, error: &sandwire_state::StateError) -> Error {
    match deadline.reason() {
        Some(reason) => Error {
            code: code::TRY_AGAIN,
            msg: format!("waiting for another call of this {of}: sandwire {reason}"),
            details: error.to_string(),
        },
        None => Error { code: code::IO, msg: "could not open the journal".into(), details: error.to_string() },
    }
}

/// Which native plugins may have to be executed: the configuration's address management, if it is not ours, and delegates
/// that a journal wants taken back. Known before privilege is dropped; nothing else is executed afterwards.
fn orders(grant: &Grant, call: &Invocation, path: &[PathBuf], journal: Option<&Journal>) -> Result<Orders, Error> {
    if grant.native_delegates.is_empty() {
        return Ok(Orders::default());
    }
    let is_native = |name: &&str| matches!(find(name, path), Ok(Found::Native(_)));
    let named = call.config.ipam_type.as_deref().filter(is_native);
    // GC meets the journals of the whole network. (A call of it that runs now may add some: they are not stale.)
    let network = match call.command {
        Command::Gc => journal::list(Path::new(paths::JOURNAL), Some(&call.config.name))
            .map_err(|e| Error::internal(e.to_string()))?,
        _ => Vec::new(),
    };
    let entries = journal.into_iter().flat_map(Journal::pending);
    let entries = entries.chain(network.iter().flat_map(|summary| &summary.pending));
    let known = network.iter().map(|summary| summary.attachment.container_id.clone());
    let containers = known.chain(std::iter::once(call.container_id.clone())).collect();
    Ok(Orders::of(grant, call.command, containers, named, entries))
}

fn add(mut session: Box<Session>, grant: Grant, config: &NetworkConfig, stdout: BorrowedFd<'_>) -> Result<(), Error> {
    // What an earlier call left is taken back before anything new is made.
    report(&undo::sweep_left_over(&mut session, |_| true), "an earlier call that did not end");

    let before = session.newest_entry();
    // An address manager imports no namespace, and which addresses there are is its business.
    let is_ipam = config.ipam_type.as_deref() == Some(session.subject.plugin.as_str());
    let reaches_node = grant.imports.contains("host-netns");
    let may_state_any = grant.own_addresses || (is_ipam && !imports::imports_namespace(&grant));
    let (mut session, answer) = guest(session, grant, Command::Add, config);
    let finished = answer.and_then(|text| {
        let result = CniResult::parse(&text, Version::V110).map_err(|error| {
            Error::internal(format!("plugin {:?} returned no valid result: {error}", session.subject.plugin))
        })?;
        if !may_state_any && let Err(ip) = session.must_hold_result(reaches_node, &result) {
            return Err(not_held(&session.subject.plugin, &ip));
        }
        if session.gave_back {
            return Err(Error {
                code: code::POLICY_DENIED,
                msg: format!(
                    "plugin {:?} gave an address back after it had made routes or rules for it",
                    session.subject.plugin
                ),
                details: "somebody else may have the address by now; this is a bug of the plugin".into(),
            });
        }
        let text = result.to_json(config.version)?;
        if let Some(signal) = session.deadline.reason() {
            return Err(Error { code: code::DEADLINE, msg: format!("sandwire {signal}"), details: String::new() });
        }
        let netns = session.subject.sandbox.clone();
        if let Some(journal) = session.journal() {
            let facts = Facts { netns: &netns, result: &result };
            journal
                .commit(Some(&facts))
                .map_err(|e| Error::internal(format!("the journal could not be written: {e}")))?;
        }
        // Only now: who has a result has an attachment, also when the process is killed here. Whom none reaches takes the
        // attachment for failed.
        if !answer::is_taken(stdout) {
            return Ok(Some(text));
        }
        answer::deliver(stdout, &text, Deadline::interrupted).map(|()| None).map_err(undelivered)
    });
    let late = match finished {
        Ok(late) => late,
        Err(mut error) => {
            session.deadline.begin_undo();
            if let Some(journal) = session.journal() {
                journal.reopen();
            }
            let left = undo::sweep(&mut session, |entry| entry.id > before);
            forget_empty(&mut session);
            explain(&mut error, &left);
            return Err(error);
        }
    };
    session.end();
    // Who reads no more must not keep the next call for this attachment, a DEL, waiting.
    late.map_or(Ok(()), |text| answer::deliver(stdout, &text, || false).map_err(undelivered))
}

/// What the journal keeps of an ADD.
#[derive(Serialize)]
struct Facts<'a> {
    netns: &'a str,
    result: &'a CniResult,
}

fn undelivered(errno: Errno) -> Error {
    Error { code: code::IO, msg: "the result could not be written to stdout".into(), details: errno.desc().into() }
}

fn not_held(plugin: &str, ip: &IpConfig) -> Error {
    let gateway = ip.gateway.map(|gateway| format!(" with gateway {gateway}")).unwrap_or_default();
    Error {
        code: code::POLICY_DENIED,
        msg: format!(
            "plugin {plugin:?} says that the container has {}{gateway}, which address management did not give it",
            ip.address
        ),
        details: format!(
            "later plugins of the list would let that address's traffic through; a plugin that decides itself which addresses a pod has needs  {}",
            entry(plugin, "own_addresses = true")
        ),
    }
}

fn del(session: Box<Session>, grant: Result<Grant, Error>, config: &NetworkConfig) -> Result<(), Error> {
    let (mut session, answer) = match grant {
        Ok(grant) => guest(session, grant, Command::Del, config),
        Err(error) => (session, Err(error)),
    };
    session.deadline.begin_undo();
    let top = session.subject.plugin.clone();
    let uncommitted = session.stale_uncommitted();
    let ipam_was_known = session.has_delegate(config.ipam_type.as_deref());
    let left = undo::sweep(&mut session, |entry| of_plugin(entry, &top) || uncommitted.contains(&entry.id));
    let failed: Vec<String> = left
        .iter()
        .filter_map(|fate| match fate {
            Fate::Failed(text) => Some(text.clone()),
            _ => None,
        })
        .collect();
    report(&left, "DEL");
    let outcome = match answer {
        // What the delegate says of itself, with its own code: the runtime knows it from there.
        Err(error)
            if !failed.is_empty() && !session.failed_delegates.is_empty() && session.only_delegates_are_left(&top) =>
        {
            Err(error)
        }
        _ if !failed.is_empty() => Err(Error {
            code: code::INTERNAL,
            msg: format!("DEL of {} could not remove everything", session.subject.attachment.container_id),
            details: format!("still there: {}; call DEL again when the cause is gone", failed.join("; ")),
        }),
        Ok(_) => Ok(()),
        // The plugin failed. What the journal knew is gone; what it did not know (made by another release, by the native
        // plugin, before a reboot) decides whether anything is left to be done.
        Err(error) => match still_there(&mut session, config, ipam_was_known) {
            None => {
                crate::log::note("warn", &format!("plugin {top:?} {FAILED_IN_DEL}: {error}"));
                Ok(())
            }
            Some(what) => Err(Error { details: join(&error.details, &format!("still there: {what}")), ..error }),
        },
    };
    forget_empty(&mut session);
    session.end();
    outcome
}

fn join(a: &str, b: &str) -> String {
    if a.is_empty() { b.to_owned() } else { format!("{a}; {b}") }
}

/// Whether an entry was made for a plugin or for one of its delegates.
pub(crate) fn of_plugin(entry: &Entry, top: &str) -> bool {
    entry.plugin.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// After a failed DEL of the guest: an interface that is still in the container is something of ours; when there is none, leases
/// are released by the host itself. (As long as the container has the address nobody else may get it.)
fn still_there(session: &mut Session, config: &NetworkConfig, ipam_was_known: bool) -> Option<String> {
    if let Some(what) = still_inside(session) {
        return Some(what);
    }
    let attachment = session.subject.attachment.clone();
    if let Some(ipam) = config.ipam_type.as_deref() {
        // What it keeps is where only it can look. The sweep has run its DEL if our ADD had run its ADD.
        let is_released = ipam_was_known || session.released_delegates.iter().any(|released| released == ipam);
        // Never asked, with its container there: nothing that a plugin of this boot did is left but what is looked for below.
        let was_asked = session.failed_delegates.iter().any(|(failed, _)| failed == ipam);
        let may_have = was_asked || !session.kernel_if_open().is_some_and(|kernel| kernel.has_container());
        if !is_released && may_have && matches!(find(ipam, &session.subject.path), Ok(Found::Native(_))) {
            return Some(format!("what address manager {ipam:?} has given"));
        }
        if let Err(still) = stores::release(&session.generation, config, &attachment.owner()) {
            return Some(still);
        }
    }
    None
}

/// What is in the container under the attachment's name.
fn still_inside(session: &mut Session) -> Option<String> {
    // Another plugin of the chain made it (this one's own entries are swept by now): its DEL comes next.
    if session.has_links() {
        return None;
    }
    let ifname = session.subject.attachment.ifname.clone();
    let kernel = session.kernel_if_open()?;
    if !kernel.has_container() {
        return None;
    }
    match kernel.link_by_name(Netns::Container, &ifname) {
        Err(KernelError::NotFound(_)) => None,
        Ok(info) if info.loopback => None,
        Ok(info) => Some(format!("interface {:?} in the container", info.name)),
        Err(error) => Some(error.to_string()),
    }
}

fn explain(error: &mut Error, left: &[Fate]) {
    let texts: Vec<&str> = left
        .iter()
        .map(|fate| match fate {
            Fate::Failed(text) | Fate::Later(text) | Fate::AgentDown(text) => text.as_str(),
            Fate::Undone => "",
        })
        .filter(|text| !text.is_empty())
        .collect();
    if !texts.is_empty() {
        error.details = join(&error.details, &format!("not undone yet, kept for DEL: {}", texts.join("; ")));
    }
}

fn report(left: &[Fate], when: &str) {
    for fate in left {
        match fate {
            Fate::Failed(text) => crate::log::note("error", &format!("{when}: {text}")),
            Fate::Later(text) | Fate::AgentDown(text) => {
                crate::log::note("warn", &format!("{when}: kept for later: {text}"))
            }
            Fate::Undone => {}
        }
    }
}

pub(crate) fn forget_empty(session: &mut Session) {
    if let Some(journal) = session.take_journal()
        && let Err(error) = journal.remove_if_empty()
    {
        crate::log::note("warn", &format!("the journal could not be removed: {error}"));
    }
}

/// Calls the export of a verb in one component: the top plugin's or a delegate's. ADD's answer is the result's text.
pub(crate) fn guest(
    mut session: Box<Session>,
    grant: Grant,
    verb: Command,
    config: &NetworkConfig,
) -> (Box<Session>, Result<String, Error>) {
    let parents = std::mem::replace(&mut session.given, Given::of(config));
    let (mut session, answer) = called(session, grant, verb);
    session.given = parents;
    (session, answer)
}

/// With what is given now.
fn called(session: Box<Session>, grant: Grant, verb: Command) -> (Box<Session>, Result<String, Error>) {
    let attachment = &session.subject.attachment;
    let config = || session.given.text().to_owned();
    let request = || types::Request {
        container_id: attachment.container_id.clone(),
        ifname: attachment.ifname.clone(),
        sandbox: session.subject.sandbox.clone(),
        args: session.subject.args.clone(),
        config: config(),
        prev_result: session.prev_result.as_ref().and_then(|result| result.to_json(Version::V110).ok()),
        extra: Vec::new(),
    };
    let network = || types::NetworkRequest { config: config(), extra: Vec::new() };
    let plugin = grant.plugin.clone();
    match verb {
        Command::Add => {
            let parameters = (request(),);
            let (session, answer) = guest::call::<_, String>(session, grant, "attach", "add", parameters);
            (session, answer.and_then(|text| text.ok_or_else(|| incomplete(&plugin))))
        }
        Command::Del => {
            let parameters = (request(),);
            let (session, answer) = guest::call::<_, ()>(session, grant, "attach", "del", parameters);
            (session, answer.and_then(|done| done.map(|()| String::new()).ok_or_else(|| incomplete(&plugin))))
        }
        Command::Check => {
            let parameters = (request(),);
            optional(guest::call::<_, ()>(session, grant, "check", "check", parameters))
        }
        Command::Gc => {
            let valid = session.valid.clone().map(|owners| {
                owners
                    .into_iter()
                    .map(|owner| types::Attachment { container_id: owner.container_id, ifname: owner.ifname })
                    .collect::<Vec<_>>()
            });
            let parameters = (network(), valid);
            optional(guest::call::<_, ()>(session, grant, "gc", "gc", parameters))
        }
        Command::Status | Command::Version => {
            let parameters = (network(),);
            optional(guest::call::<_, ()>(session, grant, "status", "status", parameters))
        }
    }
}

/// A plugin without CHECK, GC or STATUS of its own has nothing to say to it.
fn optional(answer: (Box<Session>, Result<Option<()>, Error>)) -> (Box<Session>, Result<String, Error>) {
    (answer.0, answer.1.map(|_| String::new()))
}

fn incomplete(plugin: &str) -> Error {
    Error {
        code: code::GUEST_TRAPPED,
        msg: format!("plugin {plugin:?} does not export sandwire:cni/attach"),
        details: "it is no CNI plugin for this release; run: sandwirectl inspect on its .wasm file".into(),
    }
}
