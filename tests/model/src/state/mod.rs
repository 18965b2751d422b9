//! What must exist: a small model of a node with its attachments, and how a call changes it.

mod wanted;

pub use wanted::Wanted;

use crate::configs::CONTENDERS;
use crate::networks::{Attachment, Net, PODS};
use sandwire_harness::agent::Mode;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What a successful ADD promised.
#[derive(Debug, Clone, PartialEq)]
pub struct Up {
    /// The result, for CHECK and DEL.
    pub result: Value,
    /// "10.1.0.2/24".
    pub addresses: BTreeSet<String>,
    /// Destinations of the result's routes.
    pub routes: BTreeSet<String>,
    /// The host end of its veth.
    pub host_end: Option<String>,
    /// The MAC of its interface.
    pub mac: Option<String>,
    /// Which of the pod's namespaces it is in.
    pub netns: u32,
    /// The agent knows it; its host end is a port of the agent's bridge.
    pub registered: bool,
    /// What somebody else has broken of it since.
    pub damage: Option<Damage>,
}

/// What is not as an ADD made it, by somebody else's hand. CHECK has to say so, and nothing else may suffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Some part of it.
    Part,
    /// Its interface, and all that is on it.
    Link,
}

/// Who has the port of the node that several pods want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Holder {
    /// Nobody, or nobody whom it would be promised to.
    #[default]
    Nobody,
    /// The last who was added.
    Is(Attachment),
    /// Any of them, or nobody: a call was killed, two ran at once, or the last one went.
    Unknown,
}

/// How it stands with an attachment.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum State {
    /// Nothing of it may be there.
    #[default]
    Absent,
    /// All of it must be there.
    Up(Box<Up>),
    /// It is gone but for what is to be told to the agent, which did not listen: a journal, and what the agent knows.
    Owed {
        /// The journal must be there. Otherwise it may: whether a call that was not answered was heard, nobody knows.
        surely: bool,
    },
    /// A call for it was killed. Any part of it may be there until the next call for it.
    Loose,
    /// Its lease is of an earlier boot.
    Stale {
        /// As in [`Up`].
        addresses: BTreeSet<String>,
        /// It must be there still.
        surely: bool,
    },
}

/// The node.
#[derive(Debug, Clone)]
pub struct Model {
    states: BTreeMap<Attachment, State>,
    /// Each pod's namespace: which one, and whether it is there.
    netns: BTreeMap<&'static str, (u32, bool)>,
    /// Interfaces that somebody else made.
    pub foreign: BTreeSet<Attachment>,
    /// Interfaces without another end that GC forgot: it enters no namespace, they go with theirs.
    pub orphans: BTreeSet<Attachment>,
    /// How the agent answers.
    pub agent: Mode,
    /// The names that host ends have had.
    pub host_ends: BTreeMap<String, Attachment>,
    /// How many lease files without an owner each network has at most: a killed ADD of native host-local leaves one.
    pub ownerless: BTreeMap<&'static str, usize>,
    /// Whether the link that macvlans ride on is there.
    pub master: bool,
    /// Who has the port that several want.
    pub holder: Holder,
    /// Pods whose namespace may still have what tuning set for it as a whole: GC enters none.
    pub tuned: BTreeSet<&'static str>,
    /// Whether maps of the firewall may be empty: who is killed leaves the sweeping to the next one who comes by.
    pub untidy: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            states: BTreeMap::new(),
            netns: PODS.into_iter().map(|pod| (pod, (0, true))).collect(),
            foreign: BTreeSet::new(),
            orphans: BTreeSet::new(),
            agent: Mode::Ok,
            host_ends: BTreeMap::new(),
            ownerless: BTreeMap::new(),
            master: true,
            holder: Holder::Nobody,
            tuned: BTreeSet::new(),
            untidy: false,
        }
    }
}

/// The strings of a list of objects, under this key.
fn texts(result: &Value, list: &str, key: &str) -> BTreeSet<String> {
    let items = result.get(list).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| item.get(key)?.as_str().map(str::to_owned)).collect()
}

impl Model {
    /// How it stands with this one.
    pub fn state(&self, attachment: &Attachment) -> &State {
        self.states.get(attachment).unwrap_or(&State::Absent)
    }

    /// All that are not absent.
    pub fn states(&self) -> impl Iterator<Item = (&Attachment, &State)> {
        self.states.iter()
    }

    /// It is so now.
    pub fn set(&mut self, attachment: Attachment, state: State) {
        self.untidy |= attachment.net.has_rules() && state == State::Loose;
        if attachment.contends() {
            let others = self.states.keys().filter(|other| **other != attachment && other.contends());
            let others = others.filter(|other| self.is_up(other)).count();
            self.holder = match (&state, self.holder) {
                (State::Loose, _) => Holder::Unknown,
                (State::Up(_), holder) => holder,
                (_, Holder::Is(holder)) if holder != attachment => Holder::Is(holder),
                // Another has it again if it lives, and no call has it just then (`published.rs`).
                _ if others > 0 => Holder::Unknown,
                (_, Holder::Is(_)) => Holder::Nobody,
                (_, holder) => holder,
            };
        }
        match state {
            State::Absent => self.states.remove(&attachment),
            state => self.states.insert(attachment, state),
        };
    }

    /// Whether it is up, be it damaged.
    pub fn is_up(&self, attachment: &Attachment) -> bool {
        matches!(self.state(attachment), State::Up(_))
    }

    /// Whether the pod has a namespace.
    pub fn is_there(&self, pod: &str) -> bool {
        self.netns.get(pod).is_some_and(|(_, there)| *there)
    }

    /// Which namespace of the pod it is, from 0.
    pub fn netns_of(&self, pod: &str) -> Option<u32> {
        self.netns.get(pod).filter(|(_, there)| *there).map(|(number, _)| *number)
    }

    /// Whether what it has in the pod must be there.
    pub fn is_inside(&self, attachment: &Attachment, up: &Up) -> bool {
        self.netns_of(attachment.pod) == Some(up.netns) && up.damage != Some(Damage::Link)
    }

    /// Whether calls that change something at the agent are done.
    pub fn agent_acts(&self) -> bool {
        matches!(self.agent, Mode::Ok | Mode::NoPeers)
    }

    /// Whether the agent's looking glass answers.
    pub fn agent_tells(&self) -> bool {
        matches!(self.agent, Mode::Ok | Mode::NoPeers | Mode::Status(..))
    }

    fn of_network(&self, net: &Net) -> impl Iterator<Item = (&Attachment, &State)> {
        let name = net.name;
        self.states.iter().filter(move |(attachment, _)| attachment.net.name == name)
    }

    /// An ADD succeeded.
    pub fn added(&mut self, attachment: Attachment, result: &Value) {
        let up = self.promised(attachment, result);
        self.set(attachment, State::Up(Box::new(up)));
        if attachment.contends() {
            self.holder = Holder::Is(attachment);
        }
        self.reclaimed(&attachment.net);
    }

    /// What a result promises.
    pub fn promised(&mut self, attachment: Attachment, result: &Value) -> Up {
        let interfaces = || result.get("interfaces").and_then(Value::as_array).into_iter().flatten();
        let mut names =
            interfaces().filter(|interface| interface.get("sandbox").is_none()).filter_map(|i| i["name"].as_str());
        let host_end = names.find(|name| name.starts_with("veth")).map(str::to_owned);
        if let Some(name) = &host_end {
            self.host_ends.insert(name.clone(), attachment);
        }
        let own = |interface: &&Value| interface.get("sandbox").is_some() && interface["name"] == attachment.ifname;
        let mac = interfaces().find(own).and_then(|interface| interface.get("mac")?.as_str().map(str::to_owned));
        Up {
            mac,
            addresses: if attachment.net.has_addresses() { texts(result, "ips", "address") } else { BTreeSet::new() },
            routes: if attachment.net.has_link() { texts(result, "routes", "dst") } else { BTreeSet::new() },
            host_end,
            netns: self.netns_of(attachment.pod).unwrap_or_default(),
            registered: attachment.net.has_agent(),
            damage: None,
            result: result.clone(),
        }
    }

    /// An ADD failed. (One that is up stays up: its ADD must have been refused.)
    pub fn not_added(&mut self, attachment: Attachment) {
        let heard = attachment.net.has_agent() && !self.agent_acts() && self.agent != Mode::Refuse;
        match self.state(&attachment) {
            State::Absent if heard => self.set(attachment, State::Owed { surely: false }),
            // An ADD of the same name gives its own lease of an earlier boot back before it takes another.
            State::Stale { .. } if heard => self.set(attachment, State::Loose),
            State::Stale { addresses, .. } if attachment.net.is_without_netns() || self.is_there(attachment.pod) => {
                let addresses = addresses.clone();
                self.set(attachment, State::Stale { addresses, surely: false });
            }
            // What is owed may be done by the next ADD too.
            State::Owed { .. } if self.agent_acts() => self.set(attachment, State::Owed { surely: false }),
            _ => {}
        }
        self.reclaimed(&attachment.net);
    }

    /// An ADD in a small network may have given back what is of an earlier boot.
    fn reclaimed(&mut self, net: &Net) {
        for (_, state) in self.states.iter_mut().filter(|(attachment, _)| attachment.net.name == net.name) {
            if let State::Stale { surely, .. } = state {
                *surely &= net.addresses() > 8;
            }
        }
    }

    /// A DEL succeeded, or GC took it back.
    pub fn removed(&mut self, attachment: Attachment) {
        let owed = attachment.net.has_agent() && !self.agent_acts();
        let left = match self.state(&attachment) {
            State::Up(_) if owed => State::Owed { surely: true },
            State::Loose if owed => State::Owed { surely: false },
            state @ State::Owed { .. } if owed => state.clone(),
            _ => State::Absent,
        };
        self.set(attachment, left);
    }

    /// A DEL succeeded: it takes away what has the interface's name, whoever made it.
    pub fn deleted(&mut self, attachment: Attachment) {
        self.removed(attachment);
        if self.is_there(attachment.pod) {
            self.foreign.remove(&attachment);
            self.orphans.remove(&attachment);
        }
    }

    /// A GC ended. What it could not do is owed. Leases go whoever made them, and files without an owner.
    pub fn collected(&mut self, net: &Net, valid: &[Attachment]) {
        if net.has_leases() {
            self.ownerless.remove(net.name);
        }
        let all: Vec<Attachment> = self.states.keys().copied().collect();
        for attachment in all.into_iter().filter(|a| a.net.name == net.name) {
            if valid.contains(&attachment) {
                self.paid(attachment);
            } else {
                self.stays_tuned(&attachment);
                self.removed(attachment);
            }
        }
    }

    /// A GC with these valid was killed.
    pub fn gc_killed(&mut self, net: &Net, valid: &[Attachment]) {
        let all: Vec<Attachment> = self.states.keys().copied().collect();
        for attachment in all.into_iter().filter(|a| a.net.name == net.name) {
            if valid.contains(&attachment) {
                self.paid(attachment);
                continue;
            }
            self.stays_tuned(&attachment);
            match self.state(&attachment) {
                State::Stale { addresses, .. } => {
                    let addresses = addresses.clone();
                    self.set(attachment, State::Stale { addresses, surely: false });
                }
                _ => self.set(attachment, State::Loose),
            }
        }
    }

    /// What tuning set in a namespace stays when GC forgets it.
    fn stays_tuned(&mut self, attachment: &Attachment) {
        let may_be_tuned = match self.state(attachment) {
            State::Up(up) => self.netns_of(attachment.pod) == Some(up.netns),
            State::Loose => self.is_there(attachment.pod),
            _ => false,
        };
        if attachment.net.has("tuning") && may_be_tuned {
            self.tuned.insert(attachment.pod);
        }
    }

    /// Somebody broke something of it.
    pub fn damaged(&mut self, attachment: &Attachment, damage: Damage) {
        if let Some(State::Up(up)) = self.states.get_mut(attachment)
            && up.damage != Some(Damage::Link)
        {
            up.damage = Some(damage);
            self.untidy |= attachment.net.has_rules();
        }
    }

    /// Somebody took all firewall rules away.
    pub fn rules_flushed(&mut self) {
        let ruled: Vec<Attachment> = self.states.keys().filter(|a| a.net.has_rules()).copied().collect();
        ruled.iter().for_each(|attachment| self.damaged(attachment, Damage::Part));
        self.holder = Holder::Nobody;
        self.untidy = false;
    }

    /// The link that macvlans ride on went, and they with it.
    pub fn master_gone(&mut self) {
        self.master = false;
        self.orphans.clear();
        let riding: Vec<Attachment> = self.states.keys().filter(|a| a.net.plugin == "macvlan").copied().collect();
        for attachment in riding {
            let inside = matches!(self.state(&attachment), State::Up(up) if self.is_inside(&attachment, up));
            if inside {
                self.damaged(&attachment, Damage::Link);
            }
        }
    }

    /// A GC ended that was not told what is valid: what is of an earlier boot is not, and what is owed is tried again.
    pub fn collected_unsaid(&mut self, net: &Net) {
        let all: Vec<Attachment> = self.states.keys().copied().collect();
        for attachment in all.into_iter().filter(|a| a.net.name == net.name) {
            match self.state(&attachment) {
                State::Stale { surely: true, .. } => self.set(attachment, State::Absent),
                _ => self.paid(attachment),
            }
        }
    }

    /// What is owed to the agent may have been told to it by now.
    fn paid(&mut self, attachment: Attachment) {
        if matches!(self.state(&attachment), State::Owed { .. }) && self.agent_acts() {
            self.set(attachment, State::Owed { surely: false });
        }
    }

    /// An ADD was killed.
    pub fn add_killed(&mut self, attachment: Attachment) {
        if attachment.net.is_native() {
            *self.ownerless.entry(attachment.net.name).or_default() += 1;
        }
        // Where the interface and the lease are in its way it can't have done anything to them.
        let safe = match self.state(&attachment) {
            State::Up(up) => self.is_inside(&attachment, up) || !attachment.net.has_link(),
            _ => false,
        };
        if !safe && (attachment.net.is_without_netns() || self.is_there(attachment.pod)) {
            self.set(attachment, State::Loose);
        }
        self.reclaimed(&attachment.net);
    }

    /// A DEL was killed.
    pub fn del_killed(&mut self, attachment: Attachment) {
        if *self.state(&attachment) != State::Absent {
            self.set(attachment, State::Loose);
        }
    }

    /// The agent was started again.
    pub fn agent_restarted(&mut self) {
        for state in self.states.values_mut() {
            if let State::Up(up) = state {
                up.registered = false;
            }
        }
    }

    /// A pod's namespace went.
    pub fn netns_gone(&mut self, pod: &'static str) {
        if let Some((_, there)) = self.netns.get_mut(pod) {
            *there = false;
        }
        self.tuned.remove(pod);
        self.foreign.retain(|attachment| attachment.pod != pod);
        self.orphans.retain(|attachment| attachment.pod != pod);
    }

    /// A pod got a new one.
    pub fn netns_new(&mut self, pod: &'static str) {
        if let Some((number, there)) = self.netns.get_mut(pod) {
            *number += 1;
            *there = true;
        }
    }

    /// Another boot.
    pub fn rebooted(&mut self) {
        PODS.into_iter().for_each(|pod| self.netns_gone(pod));
        (self.master, self.untidy) = (true, false);
        let states = std::mem::take(&mut self.states);
        for (attachment, state) in states {
            let left = match state {
                // Its files say nothing of their boot, so nobody gives its addresses to others.
                state @ (State::Up(_) | State::Loose) if attachment.net.is_native() => state,
                State::Up(up) if attachment.net.has_leases() => {
                    State::Stale { addresses: up.addresses.clone(), surely: true }
                }
                State::Loose if attachment.net.has_leases() => {
                    State::Stale { addresses: BTreeSet::new(), surely: false }
                }
                state @ State::Stale { .. } => state,
                _ => State::Absent,
            };
            self.set(attachment, left);
        }
    }
}

impl Attachment {
    /// Whether it wants the port of the node that another one wants too.
    pub fn contends(&self) -> bool {
        self.net.has("portmap") && CONTENDERS.contains(&self.pod)
    }
}
