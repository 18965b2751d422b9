//! What must be against what is. Both ways: what is promised and missing, and what is there and nobody's.

mod firewall;
mod inside;

use crate::networks::{Attachment, MASTER, MASTERS_PEER, NETWORKS};
use crate::observed::Observed;
use crate::state::{Model, State, Up};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Every difference, in words.
pub fn differences(model: &Model, observed: &Observed) -> Vec<String> {
    let mut comparison = Comparison { model, observed, found: Vec::new() };
    for (attachment, state) in model.states() {
        match state {
            State::Up(up) => comparison.promised(attachment, up),
            State::Owed { surely: true } => comparison.has_journal(attachment),
            State::Stale { addresses, surely: true } => comparison.leased(attachment, addresses),
            _ => {}
        }
    }
    comparison.twice();
    comparison.leases();
    comparison.links();
    comparison.in_pods();
    comparison.rules();
    comparison.limits();
    comparison.sysctls();
    comparison.journals();
    comparison.registrations();
    comparison.found.extend(observed.strange.iter().map(|path| format!("{path} is no lease")));
    comparison.found
}

struct Comparison<'a> {
    model: &'a Model,
    observed: &'a Observed,
    found: Vec<String>,
}

/// Without their lengths.
fn addresses_of(texts: &BTreeSet<String>) -> BTreeSet<IpAddr> {
    texts.iter().filter_map(|text| text.split('/').next()?.parse().ok()).collect()
}

impl Comparison<'_> {
    fn differ(&mut self, text: String) {
        self.found.push(text);
    }

    /// Everything that an ADD promised is there.
    fn promised(&mut self, attachment: &Attachment, up: &Up) {
        if attachment.net.has_leases() {
            self.leased(attachment, &up.addresses);
        }
        if attachment.net.has_link() {
            self.has_journal(attachment);
        }
        if up.damage.is_none() {
            self.inside(attachment, up);
        }
    }

    fn leased(&mut self, attachment: &Attachment, wanted: &BTreeSet<String>) {
        let (has, wanted) = (self.observed.leases_of_attachment(attachment), addresses_of(wanted));
        if has != wanted {
            self.differ(format!("{attachment}: it has the leases {has:?}, promised {wanted:?}"));
        }
    }

    fn has_journal(&mut self, attachment: &Attachment) {
        if !self.observed.journals.contains(&journal_of(attachment)) {
            self.differ(format!("{attachment}: it has no journal"));
        }
    }

    /// No address is promised to two.
    fn twice(&mut self) {
        let mut holders: BTreeMap<(&str, &String), &Attachment> = BTreeMap::new();
        for (attachment, state) in self.model.states() {
            let State::Up(up) = state else { continue };
            if !attachment.net.has_leases() {
                continue;
            }
            for address in &up.addresses {
                if let Some(other) = holders.insert((attachment.net.name, address), attachment) {
                    self.found.push(format!("{address} was given to {other} and to {attachment}"));
                }
            }
        }
    }

    fn leases(&mut self) {
        let mut ownerless: BTreeMap<&str, usize> = BTreeMap::new();
        for ((net, address), holder) in &self.observed.leases {
            let attachment = Attachment::all().into_iter().find(|attachment| {
                attachment.net.name == net && format!("{}/{}", attachment.container_id(), attachment.ifname) == *holder
            });
            let fine = attachment.is_some_and(|attachment| match self.model.state(&attachment) {
                // Compared with what was promised already.
                State::Up(_) | State::Loose | State::Stale { .. } => true,
                State::Absent | State::Owed { .. } => false,
            });
            if holder.is_empty() {
                *ownerless.entry(net).or_default() += 1;
            } else if !fine {
                self.found.push(format!("the lease {net}/{address} of {holder:?} is left"));
            }
        }
        for (net, count) in ownerless {
            let killed = self.model.ownerless.get(net).copied().unwrap_or_default();
            if count > killed {
                self.found
                    .push(format!("network {net} has {count} lease files without an owner, expected at most {killed}"));
            }
        }
    }

    /// Whose host end a name is, and whether it may be there without being promised.
    fn may_be(&self, name: &str) -> bool {
        match self.model.host_ends.get(name) {
            Some(attachment) => match self.model.state(attachment) {
                State::Loose => true,
                State::Up(up) => up.host_end.as_deref() == Some(name),
                _ => false,
            },
            None => self.model.states().any(|(attachment, state)| {
                attachment.net.has_host_end()
                    && *state == State::Loose
                    && !self.model.host_ends.values().any(|known| known == attachment)
            }),
        }
    }

    fn links(&mut self) {
        for (name, link) in &self.observed.host.links {
            let shared =
                link.kind == "bridge" && (name.starts_with("evpn---") || NETWORKS.iter().any(|net| net.bridge == name));
            let master = self.model.master && [MASTER, MASTERS_PEER].contains(&name.as_str());
            let fine = match link.kind.as_str() {
                "veth" => self.may_be(name),
                "ifb" => self.may_be_ifb(name),
                _ => false,
            };
            if name != "lo" && !shared && !master && !fine {
                self.found.push(format!("the link {name} ({}) is left", link.kind));
            }
        }
    }

    fn in_pods(&mut self) {
        for (pod, network) in &self.observed.pods {
            for name in network.links.keys().filter(|name| *name != "lo") {
                let whose = Attachment::all().into_iter().find(|a| a.pod == *pod && a.ifname == name);
                let fine = whose.is_some_and(|attachment| {
                    self.model.foreign.contains(&attachment)
                        || self.model.orphans.contains(&attachment)
                        || match self.model.state(&attachment) {
                            State::Loose => true,
                            State::Up(up) => self.model.is_inside(&attachment, up),
                            _ => false,
                        }
                });
                if !fine {
                    self.found.push(format!("the interface {name} of pod {pod} is left"));
                }
            }
        }
        for attachment in &self.model.foreign {
            if self.observed.inside(attachment).is_none_or(|link| ["veth", "macvlan"].contains(&link.kind.as_str())) {
                self.found.push(format!(
                    "the interface {} that somebody made in pod {} is gone",
                    attachment.ifname, attachment.pod
                ));
            }
        }
    }

    fn journals(&mut self) {
        for name in &self.observed.journals {
            let known = Attachment::all().into_iter().find(|attachment| journal_of(attachment) == *name);
            let fine = match known {
                Some(attachment) if attachment.net.is_native() => false,
                Some(attachment) => !matches!(self.model.state(&attachment), State::Absent | State::Stale { .. }),
                // Killed before its first line was written.
                None => self.model.states().any(|(a, state)| *state == State::Loose && !a.net.is_native()),
            };
            if !fine {
                self.found.push(format!("the journal {name} is left"));
            }
        }
    }

    fn registrations(&mut self) {
        for (port, instance) in &self.observed.registered {
            let fine = match self.model.host_ends.get(port) {
                Some(attachment) => match self.model.state(attachment) {
                    // With what is promised compared already.
                    State::Up(_) | State::Owed { .. } | State::Loose => true,
                    State::Absent | State::Stale { .. } => false,
                },
                None => self.may_be(port) || self.owed_unnamed(),
            };
            if !fine {
                self.found.push(format!("the agent still has {port} in {instance}"));
            }
        }
    }

    /// Whether something may be owed of an attachment whose host end nobody has heard of.
    fn owed_unnamed(&self) -> bool {
        self.model.states().any(|(attachment, state)| {
            matches!(state, State::Owed { .. }) && !self.model.host_ends.values().any(|known| known == attachment)
        })
    }
}

fn journal_of(attachment: &Attachment) -> String {
    format!("{}/{}/{}", attachment.net.name, attachment.container_id(), attachment.ifname)
}
