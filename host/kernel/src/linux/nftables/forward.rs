//! `forward`: forwarded traffic of a container is let through, and who may start some to it.
//!
//! Same meaning as the reference's firewall plugin (plugins/meta/firewall), which adds two rules for each address and some
//! for each bridge: what a container sends is let through, and so is what belongs to a connection that is known; from one
//! bridge with an ingress policy nothing goes to a container of another one, and, isolated, of the same. What was
//! translated to the container (a published port) is let through here too.
//!
//! An `accept` ends nothing but its own chain: what another table drops is dropped. So letting through is a mark that
//! `coexist.rs` has other programs' chains look for. It is there between these two hooks and nowhere else.

use super::attribute::Attribute;
use super::entry::{Entry, GROUP_USE, Gate, Group, Table, Wanted, forwarded, policed};
use super::expression::{
    IPV4_DESTINATION, IPV4_SOURCE, IPV6_DESTINATION, IPV6_SOURCE, Register, clear_mark, count_by, counter, drop_packet,
    load, only_dnat, only_established, only_family, only_in, only_input, only_mark, only_output, only_packets,
    set_mark,
};
use super::message::{FAMILY_BRIDGE, FAMILY_INET, FAMILY_IPV4, FAMILY_IPV6, Hook, KeyType, Message, Place};
use super::owner::Owner;
use super::seen;
use super::settle::{Held, Label, records, settle};
use super::wire::Wire;
use crate::{Ingress, KernelError, Outcome};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bit 12: kube-proxy has 14 and 15, the reference's portmap 13, Cilium 8 to 11, Calico and others what is above.
pub(super) const MARK: u32 = 1 << 12;

pub(super) const TABLE: Table = Table {
    place: Place { family: FAMILY_INET, table: "sandwire-forward" },
    chain: "ingress",
    // NF_INET_FORWARD; before iptables' (0) and firewalld's (10) filters.
    hook: Some(Hook { kind: "filter", number: 2, priority: -10 }),
    sets: &[
        ("forwarded4", KeyType::IPV4),
        ("forwarded6", KeyType::IPV6),
        ("policed4", KeyType::IPV4),
        ("policed6", KeyType::IPV6),
    ],
    gates: &[
        Gate { chain: "before", hook: Hook { kind: "filter", number: 2, priority: -9 }, rules: marking, jumps: 0 },
        Gate { chain: "after", hook: Hook { kind: "filter", number: 2, priority: 100 }, rules: unmarking, jumps: 0 },
    ],
    group_use: GROUP_USE,
};

/// Frames between ports of one bridge are not forwarded by IP: only a table of the bridge sees them for certain
/// (the others only with br_netfilter, which the reference's isolation depends on).
pub(super) const WITHIN: Table = Table {
    place: Place { family: FAMILY_BRIDGE, table: "sandwire-forward" },
    chain: "forward",
    // NF_BR_FORWARD
    hook: Some(Hook { kind: "filter", number: 2, priority: 0 }),
    sets: &[],
    gates: &[],
    group_use: GROUP_USE,
};

fn marking() -> Vec<Vec<Attribute>> {
    let mut rules = Vec::new();
    for (family, source, destination, any) in [
        (FAMILY_IPV4, IPV4_SOURCE, IPV4_DESTINATION, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        (FAMILY_IPV6, IPV6_SOURCE, IPV6_DESTINATION, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    ] {
        let set = forwarded(any);
        for (field, condition) in [(source, Vec::new()), (destination, only_established()), (destination, only_dnat())]
        {
            let mut rule = only_family(family).to_vec();
            rule.extend([load(field, Register::First), only_in(set)]);
            rule.extend(condition);
            rule.extend(set_mark(MARK));
            rules.push(rule);
        }
    }
    rules
}

fn unmarking() -> Vec<Vec<Attribute>> {
    let mut rule = only_mark(MARK);
    rule.extend(clear_mark(MARK));
    vec![rule]
}

/// The entries for an address: in [`TABLE`], and in [`WITHIN`] for isolated ones.
pub(super) fn wanted(address: IpAddr, ingress: Ingress, bridge: Option<&str>) -> Outcome<(Wanted, Option<Wanted>)> {
    let number = if address.is_ipv4() { 4 } else { 6 };
    let (name, rule, who) = match (ingress, bridge) {
        (Ingress::Open, _) => {
            let name = format!("open{number}");
            let rule = counted(address, &name);
            (name, rule, "anyone".to_owned())
        }
        (_, None) => {
            return Err(KernelError::Invalid(format!(
                "who may start traffic to {address} is limited by bridges, and no bridge was named"
            )));
        }
        (Ingress::SameBridge, Some(bridge)) => {
            (format!("ingress{number}-{bridge}"), from_bridge(address, bridge, false), format!("bridge {bridge}"))
        }
        (Ingress::Isolated, Some(bridge)) => {
            (format!("isolated{number}-{bridge}"), from_bridge(address, bridge, true), "no bridge".to_owned())
        }
    };
    let meaning = format!("forwarding for {address}, of the bridges open to {who}");
    let within = matches!(ingress, Ingress::Isolated).then(|| within(address));
    let entry = Entry::Forward { group: name.clone(), address };
    let group = Group { name, key: key(address), target: None, rule: rule.into(), first: false };
    Ok((Wanted { entry, group, meaning }, within))
}

fn key(address: IpAddr) -> KeyType {
    if address.is_ipv4() { KeyType::IPV4 } else { KeyType::IPV6 }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { FAMILY_IPV4 } else { FAMILY_IPV6 }
}

/// What the container sends is counted.
fn counted(address: IpAddr, name: &str) -> Vec<Attribute> {
    let field = if address.is_ipv4() { IPV4_SOURCE } else { IPV6_SOURCE };
    let mut rule = only_family(family(address)).to_vec();
    rule.extend([load(field, Register::First), count_by(name)]);
    rule
}

/// What comes in by a bridge with a policy doesn't go to containers with one, those of this bridge excepted or not.
fn from_bridge(address: IpAddr, bridge: &str, isolated: bool) -> Vec<Attribute> {
    let field = if address.is_ipv4() { IPV4_DESTINATION } else { IPV6_DESTINATION };
    let mut rule = only_family(family(address)).to_vec();
    rule.extend(only_input(bridge, true));
    if !isolated {
        rule.extend(only_output(bridge, false));
    }
    rule.extend([load(field, Register::First), only_in(policed(address.is_ipv4()))]);
    rule.extend([counter(), drop_packet()]);
    rule
}

/// Takes these addresses out of [`WITHIN`]: whoever is isolated by them is gone without a DEL, and what their neighbours send
/// to whoever has them next would be dropped.
pub(super) fn reopen(wire: &mut Wire, addresses: &[IpAddr]) -> Outcome<()> {
    let place = WITHIN.place;
    let entry = |address: &IpAddr| within(*address).entry;
    let questions: Vec<Message> =
        addresses.iter().map(entry).map(|entry| place.get_element(entry.group(), &entry.key())).collect();
    let answers = if questions.is_empty() { Vec::new() } else { wire.ask(&questions)? };
    for (address, answer) in addresses.iter().zip(answers) {
        let Some(comment) = seen::element(answer.as_ref()).map(|element| element.comment) else { continue };
        let Some(owner) = Owner::of_comment(&comment) else { continue };
        let records = records(wire, &WITHIN, owner)?;
        let Some(record) = records.iter().find(|record| record.entry == Some(entry(address))) else { continue };
        let label = Label { hash: record.label.clone(), comment };
        let others =
            records.iter().filter(|other| other.label == record.label).filter_map(|other| match &other.entry {
                Some(Entry::Address { address: other, .. }) if other != address => Some(within(*other)),
                _ => None,
            });
        settle(wire, owner, Some(&label), &[(&WITHIN, others.collect())], Held::Take)?;
    }
    Ok(())
}

fn within(address: IpAddr) -> Wanted {
    let name = if address.is_ipv4() { "within4" } else { "within6" }.to_owned();
    let field = if address.is_ipv4() { IPV4_DESTINATION } else { IPV6_DESTINATION };
    let mut rule = only_packets(address.is_ipv4()).to_vec();
    rule.extend([load(field, Register::First), count_by(&name), drop_packet()]);
    Wanted {
        entry: Entry::Address { group: name.clone(), address },
        group: Group { name, key: key(address), target: None, rule: rule.into(), first: false },
        meaning: format!("dropping of what its neighbours on the bridge send to {address}"),
    }
}
