//! What must exist: a small model of a node with its attachments, and how a call changes it.

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
    /// Which of the pod's namespaces it is in.
    pub netns: u32,
    /// The agent knows it; its host end is a port of the agent's bridge.
    pub registered: bool,
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

/// How a call must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Exit 0.
    Succeeds,
    /// Exit 1, with an error object.
    Fails,
    /// One of both.
    Either,
}

/// The node.
#[derive(Debug, Clone)]
pub struct Model {
    states: BTreeMap<Attachment, State>,
    /// Each pod's namespace: which one, and whether it is there.
    netns: BTreeMap<&'static str, (u32, bool)>,
    /// Interfaces that somebody else made.
    pub foreign: BTreeSet<Attachment>,
    /// How the agent answers.
    pub agent: Mode,
    /// The names that host ends have had.
    pub host_ends: BTreeMap<String, Attachment>,
    /// How many lease files without an owner each network has at most: a killed ADD of native host-local leaves one.
    pub ownerless: BTreeMap<&'static str, usize>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            states: BTreeMap::new(),
            netns: PODS.into_iter().map(|pod| (pod, (0, true))).collect(),
            foreign: BTreeSet::new(),
            agent: Mode::Ok,
            host_ends: BTreeMap::new(),
            ownerless: BTreeMap::new(),
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
        self.netns_of(attachment.pod) == Some(up.netns)
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

    /// How many addresses of a network are taken: surely, and at most. For ours those of an earlier boot are free, and files
    /// without an owner; native host-local knows of neither.
    fn taken(&self, net: &Net) -> (usize, usize) {
        let count = |which: fn(&State) -> bool| self.of_network(net).filter(|(_, state)| which(state)).count();
        let up = count(|state| matches!(state, State::Up(_)));
        let loose = count(|state| matches!(state, State::Loose));
        if !net.is_native() {
            return (up, up + loose);
        }
        let stale = count(|state| matches!(state, State::Stale { surely: true, .. }));
        let perhaps = count(|state| matches!(state, State::Stale { surely: false, .. }));
        (up + stale, up + stale + loose + perhaps + self.ownerless.get(net.name).copied().unwrap_or_default())
    }

    /// Of an ADD, `adds` and `dels` of the same network being made at the same time.
    pub fn add_wanted(&self, attachment: &Attachment, adds: usize, dels: usize) -> Wanted {
        let net = &attachment.net;
        // Native host-local looks at no namespace.
        if !net.is_native() && !self.is_there(attachment.pod) {
            return Wanted::Fails;
        }
        if net.plugin == "loopback" {
            return Wanted::Succeeds;
        }
        let (surely, at_most) = self.taken(net);
        let occupied = net.has_link() && self.foreign.contains(attachment);
        let refused = net.has_agent() && !self.agent_acts();
        let full = net.has_leases() && surely.saturating_sub(dels) >= net.addresses;
        match self.state(attachment) {
            State::Up(up) if net.has_leases() || self.is_inside(attachment, up) => return Wanted::Fails,
            _ if occupied || refused => return Wanted::Fails,
            State::Loose | State::Stale { .. } => return Wanted::Either,
            // One of ours beside it may give back what is of an earlier boot.
            _ if full && net.is_native() && adds > 0 => return Wanted::Either,
            _ if full => return Wanted::Fails,
            _ => {}
        }
        if net.has_leases() && at_most + adds >= net.addresses { Wanted::Either } else { Wanted::Succeeds }
    }

    /// Of a CHECK.
    pub fn check_wanted(&self, attachment: &Attachment) -> Wanted {
        let net = &attachment.net;
        match self.state(attachment) {
            _ if !net.is_native() && !self.is_there(attachment.pod) => Wanted::Fails,
            // What it looks at is there once for all who ever asked for it, and GC, which enters no namespace, leaves it.
            State::Absent | State::Owed { .. } if net.plugin == "loopback" => Wanted::Either,
            State::Absent | State::Owed { .. } => Wanted::Fails,
            State::Loose | State::Stale { .. } => Wanted::Either,
            State::Up(up) => {
                let inside = !(net.has_link() || net.plugin == "loopback") || self.is_inside(attachment, up);
                let announced = !net.has_agent() || (up.registered && self.agent_tells());
                if inside && announced { Wanted::Succeeds } else { Wanted::Fails }
            }
        }
    }

    /// Of a STATUS.
    pub fn status_wanted(&self, net: &Net) -> Wanted {
        if net.has_agent() && !(self.agent_tells() && self.agent != Mode::NoPeers) {
            return Wanted::Fails;
        }
        let (surely, at_most) = self.taken(net);
        let stale = self.of_network(net).any(|(_, state)| matches!(state, State::Stale { .. }));
        match net.addresses {
            0 => Wanted::Succeeds,
            size if surely >= size => Wanted::Fails,
            size if at_most >= size || (stale && surely + 1 >= size) => Wanted::Either,
            _ => Wanted::Succeeds,
        }
    }

    /// Of a GC with these valid.
    pub fn gc_wanted(&self, net: &Net, valid: &[Attachment]) -> Wanted {
        let mut wanted = Wanted::Succeeds;
        let stale = self.of_network(net).filter(|(attachment, _)| !valid.contains(attachment));
        for (_, state) in stale.filter(|_| net.has_agent() && !self.agent_acts()) {
            match state {
                State::Up(_) | State::Owed { surely: true } => return Wanted::Fails,
                State::Loose | State::Owed { surely: false } => wanted = Wanted::Either,
                State::Absent | State::Stale { .. } => {}
            }
        }
        wanted
    }

    /// An ADD succeeded.
    pub fn added(&mut self, attachment: Attachment, result: &Value) {
        let up = self.promised(attachment, result);
        self.set(attachment, State::Up(Box::new(up)));
        self.reclaimed(&attachment.net);
    }

    /// What a result promises.
    pub fn promised(&mut self, attachment: Attachment, result: &Value) -> Up {
        let interfaces = result.get("interfaces").and_then(Value::as_array).into_iter().flatten();
        let mut names =
            interfaces.filter(|interface| interface.get("sandbox").is_none()).filter_map(|i| i["name"].as_str());
        let host_end = names.find(|name| name.starts_with("veth")).map(str::to_owned);
        if let Some(name) = &host_end {
            self.host_ends.insert(name.clone(), attachment);
        }
        Up {
            addresses: if attachment.net.has_leases() { texts(result, "ips", "address") } else { BTreeSet::new() },
            routes: if attachment.net.has_link() { texts(result, "routes", "dst") } else { BTreeSet::new() },
            host_end,
            netns: self.netns_of(attachment.pod).unwrap_or_default(),
            registered: attachment.net.has_agent(),
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
            State::Stale { addresses, .. } if self.is_there(attachment.pod) => {
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
                *surely &= net.addresses > 8;
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
                self.removed(attachment);
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
        if !safe && (attachment.net.is_native() || self.is_there(attachment.pod)) {
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
        self.foreign.retain(|attachment| attachment.pod != pod);
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
