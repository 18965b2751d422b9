//! How a call must end, by how things stand.

use super::{Holder, Model, State};
use crate::networks::{Attachment, Net};
use sandwire_harness::agent::Mode;

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

impl Model {
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
        if !net.is_without_netns() && !self.is_there(attachment.pod) {
            return Wanted::Fails;
        }
        if net.plugin == "loopback" {
            return Wanted::Succeeds;
        }
        let (surely, at_most) = self.taken(net);
        let occupied = net.has_link() && (self.foreign.contains(attachment) || self.orphans.contains(attachment));
        let refused = net.has_agent() && !self.agent_acts() || net.plugin == "macvlan" && !self.master;
        let full = net.has_leases() && surely.saturating_sub(dels) >= net.addresses();
        match self.state(attachment) {
            State::Up(up) if net.has_leases() || self.is_inside(attachment, up) => return Wanted::Fails,
            _ if occupied || refused => return Wanted::Fails,
            State::Loose | State::Stale { .. } => return Wanted::Either,
            // One of ours beside it may give back what is of an earlier boot.
            _ if full && net.is_native() && adds > 0 => return Wanted::Either,
            _ if full => return Wanted::Fails,
            _ => {}
        }
        if net.has_leases() && at_most + adds >= net.addresses() { Wanted::Either } else { Wanted::Succeeds }
    }

    /// Of a CHECK.
    pub fn check_wanted(&self, attachment: &Attachment) -> Wanted {
        let net = &attachment.net;
        match self.state(attachment) {
            _ if !net.is_without_netns() && !self.is_there(attachment.pod) => Wanted::Fails,
            // What it looks at is there once for all who ever asked for it, and GC, which enters no namespace, leaves it.
            State::Absent | State::Owed { .. } if net.plugin == "loopback" => Wanted::Either,
            State::Absent | State::Owed { .. } => Wanted::Fails,
            State::Loose | State::Stale { .. } => Wanted::Either,
            State::Up(up) => {
                let inside = !(net.has_link() || net.plugin == "loopback") || self.is_inside(attachment, up);
                let announced = !net.has_agent() || (up.registered && self.agent_tells());
                match self.holder {
                    _ if !inside || !announced || up.damage.is_some() => Wanted::Fails,
                    Holder::Unknown if attachment.contends() => Wanted::Either,
                    Holder::Is(holder) if attachment.contends() && holder != *attachment => Wanted::Fails,
                    Holder::Nobody if attachment.contends() => Wanted::Fails,
                    _ => Wanted::Succeeds,
                }
            }
        }
    }

    /// Of a STATUS.
    pub fn status_wanted(&self, net: &Net) -> Wanted {
        if net.has_agent() && !(self.agent_tells() && self.agent != Mode::NoPeers) {
            return Wanted::Fails;
        }
        if net.plugin == "macvlan" && !self.master {
            return Wanted::Fails;
        }
        let (surely, at_most) = self.taken(net);
        let stale = self.of_network(net).any(|(_, state)| matches!(state, State::Stale { .. }));
        match net.addresses() {
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
}
