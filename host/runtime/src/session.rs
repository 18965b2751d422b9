//! One CNI call: whose it is, what it may reach, and [`Session::perform`], the only way by which a guest changes the node.
//!
//! A session outlives the guests that run in it: an in-process delegate gets the same one, so that its operations are in
//! the same journal and are undone together with its parent's.

pub(crate) mod dhcp;
mod forgotten;
mod given;
mod place;
mod reach;
pub(crate) mod routing;
pub(crate) mod taking;

pub(crate) use given::Given;
pub(crate) use reach::is_shared;

use crate::deadline::Deadline;
use crate::native::NativeRunner;
use crate::refusal::{Answer, Refusal};
use crate::store::Generation;
use ipnet::IpNet;
use sandwire_cni::{CniResult, Command};
use sandwire_kernel::{Kernel, LinkId, LinkInfo, Netns, Outcome};
use sandwire_state::journal::{Attachment, Entry, Journal, Side, State, Undo};
use std::cell::Cell;
use std::net::IpAddr;
use wasmtime::Engine;

/// What a call is about, from the environment and the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// ADD, DEL ...
    pub(crate) verb: Command,
    /// The plugin the runtime called; delegates have their own name.
    pub(crate) plugin: String,
    /// Whose. Empty container id and interface in GC and STATUS.
    pub(crate) attachment: Attachment,
    /// CNI_NETNS as it was given: text for results, never opened again.
    pub(crate) sandbox: String,
    /// CNI_ARGS, split.
    pub(crate) args: Vec<(String, String)>,
    /// CNI_PATH, split.
    pub(crate) path: Vec<std::path::PathBuf>,
}

/// See the module.
pub(crate) struct Session {
    /// What the call is about.
    pub(crate) subject: Subject,
    /// prevResult in the newest shape.
    pub(crate) prev_result: Option<CniResult>,
    /// The sandbox.
    pub(crate) engine: Engine,
    /// The compiled plugins and grants that this call sees.
    pub(crate) generation: Generation,
    /// When the call has to be over.
    pub(crate) deadline: Deadline,
    /// The child that may execute native delegates; none when no such delegate is named.
    pub(crate) native: Option<NativeRunner>,
    /// What the plugin that runs now was called with.
    pub(crate) given: Given,
    /// How deep in delegation.
    pub(crate) depth: usize,
    /// How many delegates have run.
    pub(crate) delegated: usize,
    /// How many firewall rules its guests have asked for.
    pub(crate) ruled: usize,
    /// How many shared links this call has made: those stay.
    pub(crate) shared_links: usize,
    /// Native delegates whose DEL this call has run in vain, each with its configuration.
    pub(crate) failed_delegates: Vec<(String, String)>,
    /// Those whose DEL succeeded.
    pub(crate) released_delegates: Vec<String>,
    /// The owners to keep, in GC.
    pub(crate) valid: Option<Vec<sandwire_state::Owner>>,
    /// Whose leases GC has given back, and of which addresses.
    pub(crate) freed: Vec<(sandwire_state::Owner, IpAddr)>,
    kernel: Option<Box<dyn Kernel + Send>>,
    journal: Option<Journal>,
    /// Links that this call made, both ends of a veth.
    created: Vec<LinkId>,
    /// Links of the node that a plugin, by its name, has found by their hardware.
    found: Vec<(String, LinkId)>,
    /// Names of links that were seen.
    names: Vec<(LinkId, String)>,
    /// Shared links that this call has made sure of, as they were then.
    ensured: Vec<LinkInfo>,
    /// Intents of this call.
    intended: usize,
    /// Addresses that the attachment holds: what it may have routes and rules for in the host's namespace.
    held: Vec<IpAddr>,
    /// Whether there is a route or a rule for one of them.
    relied_on_held: Cell<bool>,
    /// Whether some were given back after that: somebody else may have them by now.
    pub(crate) gave_back: bool,
    /// The same with their prefixes, as address management gave them.
    given_nets: Vec<IpNet>,
    /// Gateways of those addresses, with their prefixes: what the host may be on the attachment's links and its bridge.
    gateways: Vec<IpNet>,
    /// Those of them that DHCP servers have named.
    strangers: Vec<IpNet>,
    forgotten: Option<forgotten::Forgotten>,
}

/// What one attachment can need, with room: each is a line of the journal and a step of the undo, which has to be done in
/// the time that the operator waits after the deadline.
const MOST_INTENTS: usize = 1024;
/// The same for links, the slowest to undo.
const MOST_LINKS: usize = 64;

/// Whether an operation makes something, rather than changing what is there.
fn makes(undo: &Undo) -> bool {
    match undo {
        Undo::DeleteLink { .. }
        | Undo::ReleaseLease { .. }
        | Undo::ReleaseDhcp { .. }
        | Undo::RemoveAddress { .. }
        | Undo::RemoveRoute { .. }
        | Undo::RemovePolicyRule { .. }
        | Undo::ClearRules { .. }
        | Undo::ClearLimits { .. }
        | Undo::RemoveNote { .. }
        | Undo::Call { .. }
        | Undo::Delegate { .. }
        | Undo::Shared { .. } => true,
        Undo::RestoreSysctl { .. }
        | Undo::RestoreLink { .. }
        | Undo::RestoreRoute { .. }
        | Undo::MoveLink { .. }
        | Undo::SetMaster { .. } => false,
    }
}

/// Whether a name is one that we, or the reference, give to the host end of a pod's veth ("veth" and 8 hex digits).
pub(crate) fn is_a_pods_veth(name: &str) -> bool {
    name.strip_prefix("veth").is_some_and(|hex| hex.len() == 8 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The bridge whose gateway in a VLAN has this name ("BRIDGE.VLAN", `shared.ensure-vlan-port`).
pub(crate) fn bridge_of_vlan_port(name: &str) -> Option<&str> {
    name.rsplit_once('.').filter(|(_, vlan)| vlan.parse::<u16>().is_ok()).map(|(bridge, _)| bridge)
}

/// Where an operation is, as the journal writes it.
pub(crate) fn side(netns: Netns) -> Side {
    match netns {
        Netns::Host => Side::Host,
        Netns::Container => Side::Container,
    }
}

/// The other way round.
pub(crate) fn netns(side: Side) -> Netns {
    match side {
        Side::Host => Netns::Host,
        Side::Container => Netns::Container,
    }
}

impl Session {
    /// A session that has not done anything yet.
    #[allow(clippy::too_many_arguments, reason = "made in one place, each part of another kind")]
    pub(crate) fn new(
        subject: Subject,
        prev_result: Option<CniResult>,
        engine: Engine,
        generation: Generation,
        deadline: Deadline,
        kernel: Option<Box<dyn Kernel + Send>>,
        journal: Option<Journal>,
        native: Option<NativeRunner>,
    ) -> Self {
        let mut session = Self {
            subject,
            prev_result,
            engine,
            generation,
            deadline,
            native,
            given: Given::default(),
            depth: 0,
            delegated: 0,
            ruled: 0,
            shared_links: 0,
            failed_delegates: Vec::new(),
            released_delegates: Vec::new(),
            valid: None,
            freed: Vec::new(),
            kernel,
            journal,
            created: Vec::new(),
            found: Vec::new(),
            names: Vec::new(),
            ensured: Vec::new(),
            intended: 0,
            held: Vec::new(),
            relied_on_held: Cell::new(false),
            gave_back: false,
            given_nets: Vec::new(),
            gateways: Vec::new(),
            strangers: Vec::new(),
            forgotten: None,
        };
        session.forget_held();
        session
    }

    /// The kernel.
    ///
    /// # Errors
    /// A trap: the session was opened without namespaces because the grant of the plugin has none.
    pub(crate) fn kernel(&mut self) -> Answer<&mut (dyn Kernel + Send + 'static)> {
        self.forgotten = None;
        match self.kernel.as_deref_mut() {
            Some(kernel) => Ok(kernel),
            None => Err(Refusal::Trap(wasmtime::format_err!("this call was opened without network namespaces"))),
        }
    }

    /// The kernel, if the session has it.
    pub(crate) fn kernel_if_open(&mut self) -> Option<&mut (dyn Kernel + Send + 'static)> {
        self.kernel.as_deref_mut()
    }

    /// The journal of the attachment; none in GC and STATUS.
    pub(crate) fn journal(&mut self) -> Option<&mut Journal> {
        self.journal.as_mut()
    }

    /// Takes the journal away, at the end of the call.
    pub(crate) fn take_journal(&mut self) -> Option<Journal> {
        self.journal.take()
    }

    /// Whether this verb only looks. The host refuses every change then, whatever the guest does.
    pub(crate) fn only_looks(&self) -> bool {
        matches!(self.subject.verb, Command::Check | Command::Status | Command::Version)
    }

    /// Fails when this verb only looks, or the call's time is over.
    pub(crate) fn may_change(&self) -> Answer<()> {
        self.deadline.check()?;
        if self.only_looks() {
            return Err(Refusal::denied(format!("{} only looks: it may not change anything", self.subject.verb)));
        }
        Ok(())
    }

    /// Fails outside of ADD. DEL and GC are repeated, not undone: what they make no later call would take away.
    ///
    /// # Errors
    /// As `may_change`; `denied`.
    pub(crate) fn may_make(&self) -> Answer<()> {
        self.may_change()?;
        match self.subject.verb {
            Command::Add => Ok(()),
            verb => Err(Refusal::denied(format!("{verb} takes away: it may not make anything"))),
        }
    }

    /// The only way for a guest to change the kernel: verb, journal, operation, outcome.
    ///
    /// `known` gives a better undo when the operation's answer says more, such as an index. In ADD the intent is written
    /// before the operation, so that whatever ends this process leaves a record of it. DEL and GC are not undone but
    /// repeated, and write nothing.
    ///
    /// # Errors
    /// The operation's, the journal's, `denied` in CHECK and STATUS.
    pub(crate) fn perform<T>(
        &mut self,
        plugin: &str,
        undo: Undo,
        operation: impl FnOnce(&mut (dyn Kernel + Send + 'static)) -> Outcome<T>,
        known: impl FnOnce(&T) -> Option<Undo>,
    ) -> Answer<T> {
        self.may_change()?;
        let id = self.intend(plugin, &undo)?;
        match operation(self.kernel()?) {
            Ok(answer) => {
                self.done(id, known(&answer).as_ref())?;
                Ok(answer)
            }
            Err(error) => {
                // What may have happened all the same stays in the journal. Every other error means that the kernel did
                // nothing, or that the operation took back its own half; but rules are made in several transactions,
                // and clearing an owner's can't hit anybody else's.
                if !error.may_have_happened() && !matches!(undo, Undo::ClearRules { .. }) {
                    self.never_happened(id)?;
                }
                Err(error.into())
            }
        }
    }

    /// Changes something that needs no undo of its own: it goes with a link that this call made, or DEL removes it.
    ///
    /// # Errors
    /// As `perform`.
    pub(crate) fn change<T>(
        &mut self,
        operation: impl FnOnce(&mut (dyn Kernel + Send + 'static)) -> Outcome<T>,
    ) -> Answer<T> {
        self.may_change()?;
        Ok(operation(self.kernel()?)?)
    }

    /// Writes an intent; `None` when this call is not one that is undone.
    ///
    /// # Errors
    /// The journal's; `denied` for something that is made outside of ADD, `exhausted` for more than one attachment can need.
    pub(crate) fn intend(&mut self, plugin: &str, undo: &Undo) -> Answer<Option<u64>> {
        if self.subject.verb != Command::Add {
            return if makes(undo) { self.may_make().map(|()| None) } else { Ok(None) };
        }
        self.intended += 1;
        if self.intended > MOST_INTENTS || (self.created.len() >= MOST_LINKS && matches!(undo, Undo::DeleteLink { .. }))
        {
            return Err(Refusal::exhausted(format!(
                "plugin {plugin:?} makes too much at once: one call can make {MOST_LINKS} links and {MOST_INTENTS} things in all"
            )));
        }
        match &mut self.journal {
            // A delegate's entries carry its parent's name before their own: the parent's DEL sweeps them.
            Some(journal) => {
                let tag = match plugin == self.subject.plugin {
                    true => plugin.to_owned(),
                    false => format!("{}/{plugin}", self.subject.plugin),
                };
                Ok(Some(journal.intend(&tag, undo)?))
            }
            None => Ok(None),
        }
    }

    /// Writes that an intended operation happened.
    ///
    /// # Errors
    /// The journal's.
    pub(crate) fn done(&mut self, id: Option<u64>, known: Option<&Undo>) -> Answer<()> {
        if let (Some(journal), Some(id)) = (&mut self.journal, id) {
            journal.done(id, known)?;
        }
        Ok(())
    }

    /// Writes that an intended operation did not happen.
    ///
    /// # Errors
    /// The journal's.
    pub(crate) fn never_happened(&mut self, id: Option<u64>) -> Answer<()> {
        if let (Some(journal), Some(id)) = (&mut self.journal, id) {
            journal.undone(id)?;
        }
        Ok(())
    }

    /// The number of the newest entry of the journal, 0 when there is none.
    pub(crate) fn newest_entry(&self) -> u64 {
        self.journal.iter().flat_map(|journal| journal.pending().into_iter().map(|e| e.id).max()).max().unwrap_or(0)
    }

    /// Entries of an ADD that was started and never committed: its process was killed.
    pub(crate) fn stale_uncommitted(&self) -> Vec<u64> {
        self.journal.iter().flat_map(|journal| journal.uncommitted().into_iter().map(|e| e.id)).collect()
    }

    /// Turns a session of GC to one stale attachment.
    pub(crate) fn turn_to(&mut self, attachment: Attachment, journal: Journal) {
        self.subject.attachment = attachment;
        self.journal = Some(journal);
    }

    /// Turns a session of GC back to the network.
    pub(crate) fn turn_to_network(&mut self) {
        self.journal = None;
        self.subject.attachment.container_id.clear();
        self.subject.attachment.ifname.clear();
    }

    /// The end of the call: what is slow to close is left to a helper.
    pub(crate) fn finish(&mut self) {
        if let Some(kernel) = &mut self.kernel {
            kernel.finish();
        }
    }

    /// The end of the process, but for its answer: the kernel frees and closes the rest all at once, which one by one takes 60 us.
    /// The locks go before an answer is printed that nobody takes yet, and native delegates are told, for they have a copy of the
    /// locks' descriptors.
    pub(crate) fn end(mut self: Box<Self>) {
        self.finish();
        drop((self.journal.take(), self.native.take()));
        std::mem::forget(self);
    }

    /// Marks as undone what a guest took back by itself, so that the sweep has nothing to do for it.
    ///
    /// # Errors
    /// The journal's.
    pub(crate) fn taken_back(&mut self, which: impl Fn(&Undo) -> bool) -> Answer<()> {
        if let Some(journal) = &mut self.journal {
            let ids: Vec<u64> = journal.pending().iter().filter(|entry| which(&entry.undo)).map(|e| e.id).collect();
            for id in ids {
                journal.undone(id)?;
            }
        }
        Ok(())
    }

    /// What `part` finds in the journal's entries.
    pub(crate) fn entries_of<T>(&self, part: impl Fn(&Entry) -> Option<T>) -> Vec<T> {
        self.journal.iter().flat_map(Journal::pending).filter_map(part).collect()
    }

    /// Whether the journal has operations of this plugin: an ADD of ours made the attachment.
    pub(crate) fn has_entries(&self, plugin: &str) -> bool {
        self.any_entry(|entry| entry.plugin.rsplit('/').next() == Some(plugin))
    }

    /// Whether the journal has an operation that is taken back like this.
    pub(crate) fn has_made(&self, how: impl Fn(&Undo) -> bool) -> bool {
        self.any_entry(|entry| how(&entry.undo))
    }

    /// Whether the journal has firewall rules of this plugin.
    pub(crate) fn has_rules(&self, plugin: &str) -> bool {
        self.any_entry(|entry| matches!(&entry.undo, Undo::ClearRules { plugin: whose, .. } if whose == plugin))
    }

    /// Whether the journal has a native delegate that is to be taken back: this one.
    pub(crate) fn has_delegate(&self, plugin: Option<&str>) -> bool {
        self.any_entry(
            |entry| matches!(&entry.undo, Undo::Delegate { plugin: whose, .. } if Some(whose.as_str()) == plugin),
        )
    }

    /// Whether all that is left of a plugin's operations are native delegates whose DEL failed.
    pub(crate) fn only_delegates_are_left(&self, top: &str) -> bool {
        !self.any_entry(|entry| {
            crate::verbs::of_plugin(entry, top)
                && entry.state == State::Failed
                && !matches!(entry.undo, Undo::Delegate { .. })
        })
    }

    /// Whether the journal has links that are to be deleted.
    pub(crate) fn has_links(&self) -> bool {
        self.any_entry(|entry| matches!(entry.undo, Undo::DeleteLink { .. }))
    }

    fn any_entry(&self, is_it: impl Fn(&Entry) -> bool) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.pending().into_iter().any(is_it))
    }

    /// The name of a link that was seen before: a port's bridge is asked for with every look at the port.
    pub(crate) fn name_of(&mut self, link: LinkId) -> Option<String> {
        if let Some((_, name)) = self.names.iter().find(|(id, _)| *id == link) {
            return Some(name.clone());
        }
        let name = self.kernel().ok()?.link_info(link).ok()?.name;
        self.remember_name(link, &name);
        Some(name)
    }

    /// The name of a link, if it was seen before.
    pub(crate) fn seen_name(&self, link: LinkId) -> Option<String> {
        self.names.iter().find(|(id, _)| *id == link).map(|(_, name)| name.clone())
    }

    /// Forgets the name of a link that has got another one.
    pub(crate) fn forget_name(&mut self, link: LinkId) {
        self.names.retain(|(id, _)| *id != link);
    }

    /// Remembers the name of a link that was seen.
    pub(crate) fn remember_name(&mut self, link: LinkId, name: &str) {
        if !self.names.iter().any(|(id, _)| *id == link) {
            self.names.push((link, name.to_owned()));
        }
    }

    /// A link that this call made: nothing on it needs an undo of its own.
    pub(crate) fn remember_created(&mut self, link: LinkId, name: &str) {
        self.created.push(link);
        self.remember_name(link, name);
    }

    /// Whether this call made the link of this name. Without a question to the kernel, of which each is a tenth of the
    /// whole attachment's work there.
    pub(crate) fn has_created(&self, netns: Netns, name: &str) -> bool {
        let is_it = |(link, known): &&(LinkId, String)| link.netns == netns && known == name;
        self.names.iter().filter(is_it).any(|(link, _)| self.was_created(*link))
    }

    /// A link that this call made and removed again: whoever gets its name or index now is somebody else.
    pub(crate) fn forget_created(&mut self, link: LinkId) {
        self.created.retain(|id| *id != link);
        self.forget_name(link);
    }

    /// A shared link that this call has made sure of: its guest may change what is shared of it.
    pub(crate) fn remember_ensured(&mut self, info: LinkInfo) {
        self.remember_name(info.id, &info.name);
        self.ensured.push(info);
    }

    /// The shared link of this index that this call has made sure of, as it was then: of what kind it is does not change,
    /// its addresses and MAC may.
    pub(crate) fn ensured(&self, link: LinkId) -> Option<&LinkInfo> {
        self.ensured.iter().find(|info| info.id == link)
    }

    /// The same by name.
    pub(crate) fn has_ensured(&self, netns: Netns, name: &str) -> bool {
        self.ensured.iter().any(|info| info.id.netns == netns && info.name == name)
    }

    /// Whether this call made the link.
    pub(crate) fn was_created(&self, link: LinkId) -> bool {
        self.created.contains(&link)
    }
}
