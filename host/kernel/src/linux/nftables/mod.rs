//! Firewall rules in tables of ours, by raw nf_tables netlink: no program is executed.
//!
//! `inet sandwire` masquerades, `bridge sandwire` checks Ethernet sources, `inet sandwire-ports` forwards ports of the node,
//! `inet sandwire-forward` and `bridge sandwire-forward` say what may be forwarded; none is there while nothing is in it.
//! `entry.rs` says what a table looks like, `settle.rs` how it is changed.

mod attribute;
mod coexist;
mod conntrack;
mod entry;
mod everything;
mod expression;
mod forward;
mod holders;
mod masquerade;
mod message;
mod owner;
mod ports;
mod reference;
mod retain;
mod seen;
mod settle;
mod spoofcheck;
mod sweep;
mod verify;
mod wire;

use crate::{FirewallObject, Ingress, KernelError, Outcome, Rule, RuleHolder, RuleOwner};
use entry::{Entry, Protocol, Table, Wanted};
use owner::Owner;
pub(super) use reference::limiter;
use settle::{Held, Label, settle};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use wire::Wire;

/// The name of the tables of what leaves containers.
const TABLE: &str = "sandwire";

/// All of ours.
const TABLES: [&Table; 5] = [&masquerade::TABLE, &spoofcheck::TABLE, &ports::TABLE, &forward::TABLE, &forward::WITHIN];

/// nf_tables of one network namespace.
#[derive(Debug)]
pub struct Nftables {
    wire: Wire,
}

impl Nftables {
    /// Opened in the current network namespace of the thread. Needs CAP_NET_ADMIN there, when opened and later.
    ///
    /// # Errors
    /// When the socket can't be opened.
    pub fn open() -> Outcome<Self> {
        Ok(Self { wire: Wire::open()? })
    }

    /// Makes the rules under (owner, label) exactly `rules`, in one transaction. An address or port that another
    /// attachment has rules for becomes this one's: whoever has it now is right, and the other is gone without a DEL. What
    /// isolated the other by such an address goes in a transaction after it. The answer: whether anything was another's.
    ///
    /// # Errors
    /// `Unsupported` for kinds of rules that this release doesn't have, and without nf_tables in the kernel. `Invalid`
    /// for a name that can't be a port's, and for two rules that contradict each other. Otherwise the kernel's, when
    /// other processes were faster 20 times.
    pub fn apply(&mut self, owner: &RuleOwner, label: &str, rules: &[Rule]) -> Outcome<bool> {
        let tables = translate(rules)?;
        let (whose, label) = labelled(owner, label);
        let forwards = rules.iter().any(|rule| matches!(rule, Rule::Forward { .. }));
        let open: Vec<IpAddr> = rules
            .iter()
            .filter_map(|rule| match rule {
                Rule::Forward { address, ingress, .. } if *ingress != Ingress::Isolated => Some(*address),
                _ => None,
            })
            .collect();
        settle(&mut self.wire, whose, Some(&label), &tables, Held::Take)
            // Only now: until the address is this owner's, nobody else's isolation is opened for it.
            .and_then(|settled| forward::reopen(&mut self.wire, &open).map(|()| settled))
            .and_then(|settled| self.after(&settled.gone, forwards).map(|()| settled.taken))
            .map_err(|error| error.context(format!("could not install the firewall rules of {}", name(owner))))
    }

    /// The same for an owner who comes second: what somebody else has stays theirs, and of `rules` those are made whose address or
    /// port is free.
    ///
    /// # Errors
    /// As [`Nftables::apply`].
    pub fn offer(&mut self, owner: &RuleOwner, label: &str, rules: &[Rule]) -> Outcome<()> {
        let tables = translate(rules)?;
        let (whose, label) = labelled(owner, label);
        settle(&mut self.wire, whose, Some(&label), &tables, Held::Leave)
            .and_then(|settled| self.after(&settled.gone, false))
            .map_err(|error| error.context(format!("could not install the firewall rules of {}", name(owner))))
    }

    /// Whether the kernel would take rules like these, by a transaction without its end: the kernel checks and takes it back
    /// (`nfnetlink_rcv_batch`; `nft --check` does the same).
    ///
    /// # Errors
    /// As [`Nftables::apply`]. `Unsupported` when the kernel has nf_tables and not what these rules are made of.
    pub fn check(&mut self, rules: &[Rule]) -> Outcome<()> {
        let nobody = RuleOwner {
            plugin: String::new(),
            network: String::new(),
            container_id: String::new(),
            ifname: String::new(),
        };
        let tables = translate(rules)?;
        let (whose, label) = labelled(&nobody, "check");
        settle::rehearse(&mut self.wire, whose, &label, &tables)
    }

    /// The wanted rules that are not installed as they should be, as text. Empty is good.
    ///
    /// # Errors
    /// As [`Nftables::apply`].
    pub fn verify(&mut self, owner: &RuleOwner, label: &str, rules: &[Rule]) -> Outcome<Vec<String>> {
        let (whose, label) = labelled(owner, label);
        let mut missing = Vec::new();
        for (table, wanted) in translate(rules)? {
            verify::verify(&mut self.wire, table, whose, &label, &wanted, &mut missing)?;
        }
        if rules.iter().any(|rule| matches!(rule, Rule::Forward { .. })) {
            coexist::verify(&mut self.wire, &mut missing)?;
        }
        Ok(missing)
    }

    /// What has to be done when entries came or went: other programs' chains let containers' traffic through as long as
    /// there are some, and UDP that was sent to a port goes there no longer.
    fn after(&mut self, gone: &[Entry], forwards: bool) -> Outcome<()> {
        if forwards || gone.iter().any(|entry| matches!(entry, Entry::Forward { .. })) {
            coexist::settle(&mut self.wire)?;
        }
        let udp: BTreeSet<u16> = gone
            .iter()
            .filter_map(|entry| match entry {
                Entry::Port { protocol: Protocol::Udp, port, .. } => Some(*port),
                _ => None,
            })
            .collect();
        // The rules are what counts; a kernel that tracks nothing has nothing to forget.
        let _ = conntrack::flush(&mut self.wire, Protocol::Udp, None, &udp);
        Ok(())
    }

    /// Forgets tracked connections of an IPPROTO_* that were first sent to one of these ports, of one address or of any; how
    /// many of each. One walk through all connections (20 ms where there is room for 262,144), however many ports.
    ///
    /// # Errors
    /// `Invalid` for a protocol without ports; the kernel's.
    pub fn flush(
        &mut self,
        protocol: u8,
        destination: Option<IpAddr>,
        ports: &BTreeSet<u16>,
    ) -> Outcome<BTreeMap<u16, u32>> {
        let protocol = Protocol::of(protocol).ok_or_else(|| {
            KernelError::Invalid(format!("protocol {protocol} has no ports to forget connections of"))
        })?;
        conntrack::flush(&mut self.wire, protocol, destination, ports)
    }

    /// Removes all that the owner has, under every label, and what the reference plugins made for this attachment,
    /// with either backend. The time does not depend on how many other attachments have rules; only where the
    /// reference plugins have some, theirs are listed.
    ///
    /// # Errors
    /// The kernel's.
    pub fn clear(&mut self, owner: &RuleOwner) -> Outcome<()> {
        let tables = TABLES.map(|table| (table, Vec::new()));
        settle(&mut self.wire, Owner::of(owner), None, &tables, Held::Take)
            // A killed process may have left the rules in other programs' chains.
            .and_then(|settled| self.after(&settled.gone, owner.plugin == reference::FIREWALL))
            .and_then(|()| reference::clear(&mut self.wire, owner))
            .or_else(nothing_without_nf_tables)
            .map_err(|error| error.context(format!("could not remove the firewall rules of {}", name(owner))))
    }

    /// Removes the rules that the reference's firewall plugin made for these addresses: it doesn't say whose they are.
    ///
    /// # Errors
    /// The kernel's.
    pub fn clear_reference(&mut self, owner: &RuleOwner, addresses: &[IpAddr]) -> Outcome<()> {
        reference::clear_forwards(&mut self.wire, owner, addresses)
            .or_else(nothing_without_nf_tables)
            .map_err(|error| error.context(format!("could not remove the firewall rules of {}", name(owner))))
    }

    /// Removes the rules of the reference plugins that don't say of which network they are, of attachments that are no more:
    /// (container id, interface name, address).
    ///
    /// # Errors
    /// The kernel's.
    pub fn collect_reference(&mut self, gone: &[(String, String, IpAddr)]) -> Outcome<()> {
        reference::collect(&mut self.wire, gone)
            .or_else(nothing_without_nf_tables)
            .map_err(|error| error.context("could not collect firewall rules that the reference plugins made"))
    }

    /// GC: the same for every attachment of `network` that is not in `valid`, pairs of container id and interface
    /// name. What of the reference plugins' rules doesn't say of which network it is stays ([`Nftables::collect_reference`]).
    ///
    /// # Errors
    /// The kernel's.
    pub fn retain(&mut self, network: &str, valid: &[(String, String)]) -> Outcome<()> {
        let scope = retain::Scope::new(network, valid);
        let mut gone = Vec::new();
        TABLES
            .into_iter()
            .try_for_each(|table| {
                gone.extend(retain::retain(&mut self.wire, table, &scope)?);
                Ok(())
            })
            .and_then(|()| self.after(&gone, false))
            .and_then(|()| reference::retain(&mut self.wire, network, valid, &scope))
            .or_else(nothing_without_nf_tables)
            .map_err(|error| error.context(format!("could not collect stale firewall rules of network {network:?}")))
    }

    /// Who has something in our tables, whoever it is.
    ///
    /// # Errors
    /// The kernel's.
    pub fn holders(&mut self) -> Outcome<Vec<RuleHolder>> {
        let mut found = holders::Found::new();
        TABLES
            .into_iter()
            .try_for_each(|table| holders::list(&mut self.wire, table, &mut found))
            .or_else(nothing_without_nf_tables)
            .map_err(|error| error.context("could not list whose firewall rules there are"))?;
        Ok(found.into_values().collect())
    }

    /// Removes all that these have in our tables.
    ///
    /// # Errors
    /// The kernel's.
    pub fn clear_holders(&mut self, holders: &[RuleHolder]) -> Outcome<()> {
        let mut gone = Vec::new();
        TABLES
            .into_iter()
            .try_for_each(|table| {
                gone.extend(holders::clear(&mut self.wire, table, holders)?);
                Ok(())
            })
            .and_then(|()| self.after(&gone, false))
            .or_else(nothing_without_nf_tables)
            .map_err(|error| error.context("could not remove firewall rules that nobody has"))
    }

    /// All that is ours: tables, and rules in chains of others.
    ///
    /// # Errors
    /// The kernel's.
    pub fn everything(&mut self) -> Outcome<Vec<FirewallObject>> {
        everything::list(&mut self.wire)
            .or_else(|error| nothing_without_nf_tables(error).map(|()| Vec::new()))
            .map_err(|error| error.context("could not look for firewall objects of Sandwire"))
    }

    /// Removes all that is ours, in one transaction; what it was. Attachments that live lose what they had in it.
    ///
    /// # Errors
    /// The kernel's; nothing is removed then.
    pub fn remove_everything(&mut self) -> Outcome<Vec<FirewallObject>> {
        everything::remove(&mut self.wire)
            .and_then(|(objects, gone)| self.after(&gone, false).map(|()| objects))
            .or_else(|error| nothing_without_nf_tables(error).map(|()| Vec::new()))
            .map_err(|error| error.context("could not remove the firewall objects of Sandwire"))
    }

    /// Whether anything was changed through this socket.
    pub fn has_changed(&self) -> bool {
        self.wire.has_changed()
    }

    /// Another reference to the socket, for a helper process to hold: the last close after a deletion waits 9 to 12 ms
    /// for the kernel to free what was deleted (`nft_rcv_nl_event`).
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn into_fd(self) -> Outcome<OwnedFd> {
        self.wire.into_fd()
    }
}

/// A kernel that can't have rules has none to remove; DEL must succeed there too.
fn nothing_without_nf_tables(error: KernelError) -> Outcome<()> {
    if matches!(error, KernelError::Unsupported(_)) { Ok(()) } else { Err(error) }
}

fn name(owner: &RuleOwner) -> String {
    format!("{:?} of container {} in network {:?}", owner.ifname, owner.container_id, owner.network)
}

/// Who it is, and the label as this owner's elements have it.
fn labelled(owner: &RuleOwner, label: &str) -> (Owner, Label) {
    let whose = Owner::of(owner);
    (whose, Label { hash: owner::label_hash(label), comment: owner::comment(&whose, owner, label) })
}

/// What the rules come to, by table.
fn translate(rules: &[Rule]) -> Outcome<[(&'static Table, Vec<Wanted>); 5]> {
    let [mut masquerading, mut guarding, mut ports, mut forwarding, mut within] = <[Places; 5]>::default();
    for rule in rules {
        match rule {
            Rule::Masquerade { source, except } => masquerading.add(masquerade::wanted(*source, except)?)?,
            Rule::SpoofCheck { port, mac } => guarding.add(spoofcheck::wanted(port, *mac)?)?,
            Rule::ForwardPort(forward) => {
                let (port, returns) = ports::wanted(forward)?;
                ports.add(port)?;
                returns.into_iter().try_for_each(|wanted| masquerading.add(wanted))?;
            }
            Rule::Forward { address, ingress, bridge } => {
                let (forward, isolation) = forward::wanted(*address, *ingress, bridge.as_deref())?;
                forwarding.add(forward)?;
                isolation.into_iter().try_for_each(|wanted| within.add(wanted))?;
            }
        }
    }
    let [a, b, c, d, e] = TABLES;
    let [masquerading, guarding, ports, forwarding, within] =
        [masquerading, guarding, ports, forwarding, within].map(|places| places.wanted);
    Ok([(a, masquerading), (b, guarding), (c, ports), (d, forwarding), (e, within)])
}

/// What is wanted of one table, each place once.
#[derive(Default)]
struct Places {
    wanted: Vec<Wanted>,
    known: BTreeMap<(String, Vec<u8>), usize>,
}

impl Places {
    fn add(&mut self, wanted: Wanted) -> Outcome<()> {
        let (group, key) = wanted.entry.place();
        let number = *self.known.entry((group.to_owned(), key)).or_insert(self.wanted.len());
        match self.wanted.get(number) {
            Some(other) if other.entry == wanted.entry => Ok(()),
            Some(other) => {
                let (one, two) = (&other.meaning, &wanted.meaning);
                Err(KernelError::Invalid(format!("{one} contradicts {two}")))
            }
            None => {
                self.wanted.push(wanted);
                Ok(())
            }
        }
    }
}
