//! What the reference plugins made for an attachment, so that a node can change to Sandwire with containers running.
//!
//! Looked at: containernetworking/plugins, pkg/ip/ipmasq_nftables_linux.go, pkg/ip/ipmasq_iptables_linux.go,
//! pkg/link/spoofcheck.go, pkg/utils/utils.go, plugins/meta/portmap, plugins/meta/firewall/iptables.go. Only rules and chains of one attachment go; tables and base chains are the
//! system's or others'. iptables-legacy can't be seen by netlink.

use super::message::{FAMILY_BRIDGE, FAMILY_INET, FAMILY_IPV4, FAMILY_IPV6, Message, Place};
use super::owner::{hash, prefix};
use super::retain::Scope;
use super::seen::{self, SeenRule};
use super::settle::{TRIES, pause};
use super::wire::Wire;
use crate::{Outcome, RuleOwner};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// ipMasq with backend nftables: one rule for each address.
const MASQUERADE: Place = Place { family: FAMILY_INET, table: "cni_plugins_masquerade" };
const MASQUERADE_CHAIN: &str = "masq_checks";
/// ipMasq with backend iptables, through iptables-nft: a chain for each attachment, and jumps to it.
const IPTABLES: [Place; 2] = [Place { family: FAMILY_IPV4, table: "nat" }, Place { family: FAMILY_IPV6, table: "nat" }];
const IPTABLES_CHAIN: &str = "POSTROUTING";
/// portmap with backend iptables: a chain for each container, and jumps to it for up to 15 ports each; an older release's
/// chains beside them.
const PORT_CHAINS: [(&str, &str); 2] = [("CNI-HOSTPORT-DNAT", "CNI-DN-"), ("CNI-HOSTPORT-SNAT", "CNI-SN-")];
/// portmap with backend nftables: rules whose comment is the container's id.
const PORTS: [Place; 2] =
    [Place { family: FAMILY_IPV4, table: "cni_hostport" }, Place { family: FAMILY_IPV6, table: "cni_hostport" }];
const PORTS_CHAINS: [&str; 3] = ["hostports", "hostip_hostports", "masquerading"];
/// firewall: two rules for each address.
const FORWARD: [Place; 2] =
    [Place { family: FAMILY_IPV4, table: "filter" }, Place { family: FAMILY_IPV6, table: "filter" }];
const FORWARD_CHAIN: &str = "CNI-FORWARD";

/// The reference's types: what one has made the other doesn't look for.
const PORTMAP: &str = "portmap";
pub(super) const FIREWALL: &str = "firewall";
/// macspoofchk: two chains for each attachment, and a jump. The second table is that of releases after 1.9.
const SPOOFCHECK: [(Place, &str); 2] = [
    (Place { family: FAMILY_BRIDGE, table: "nat" }, "PREROUTING"),
    (Place { family: FAMILY_BRIDGE, table: "cni_spoofcheck" }, "prerouting"),
];

/// Removes what the reference made for one attachment.
pub(super) fn clear(wire: &mut Wire, owner: &RuleOwner) -> Outcome<()> {
    match owner.plugin.as_str() {
        PORTMAP => until_committed(wire, |wire| ports_of(wire, owner)),
        FIREWALL => Ok(()),
        _ => until_committed(wire, |wire| changes_for(wire, owner)),
    }
}

/// Removes the rules that the firewall plugin made for these addresses. It doesn't say whose they are.
pub(super) fn clear_forwards(wire: &mut Wire, owner: &RuleOwner, addresses: &[IpAddr]) -> Outcome<()> {
    if owner.plugin != FIREWALL || addresses.is_empty() {
        return Ok(());
    }
    let addresses = addresses.iter().copied().collect();
    until_committed(wire, |wire| {
        let there = wire.ask(&FORWARD.map(|place| place.get_chain(FORWARD_CHAIN)))?;
        let mut changes = Vec::new();
        for (place, _) in FORWARD.into_iter().zip(there).filter(|(_, chain)| chain.is_some()) {
            delete_rules(wire, place, FORWARD_CHAIN, &mut changes, |rule| is_forward_of(rule, &addresses))?;
        }
        Ok(changes)
    })
}

fn ports_of(wire: &mut Wire, owner: &RuleOwner) -> Outcome<Vec<Message>> {
    let RuleOwner { network, container_id, .. } = owner;
    let mut questions = Vec::new();
    for place in IPTABLES {
        questions
            .extend(PORT_CHAINS.iter().map(|(_, kind)| place.get_chain(&ports_chain(kind, network, container_id))));
    }
    for place in PORTS {
        questions.extend(PORTS_CHAINS.iter().map(|chain| place.get_chain(chain)));
    }
    let mut there = wire.ask(&questions)?.into_iter().map(|answer| answer.is_some());
    let mut is_there = || there.next().unwrap_or(false);
    let mut changes = Vec::new();
    for place in IPTABLES {
        for (base, kind) in PORT_CHAINS {
            if is_there() {
                let chain = ports_chain(kind, network, container_id);
                delete_rules(wire, place, base, &mut changes, |rule| rule.target().as_ref() == Some(&chain))?;
                changes.extend([place.flush_chain(&chain), place.delete_chain(&chain)]);
            }
        }
    }
    for place in PORTS {
        for chain in PORTS_CHAINS {
            if is_there() {
                delete_rules(wire, place, chain, &mut changes, |rule| rule.comment == *container_id)?;
            }
        }
    }
    Ok(changes)
}

/// Removes what the reference made for the attachments of `network` that are not in `valid`.
pub(super) fn retain(wire: &mut Wire, network: &str, valid: &[(String, String)], scope: &Scope) -> Outcome<()> {
    until_committed(wire, |wire| {
        let mut changes = Vec::new();
        if let [Some(_)] = wire.ask(&[MASQUERADE.get_chain(MASQUERADE_CHAIN)])?.as_slice() {
            delete_rules(wire, MASQUERADE, MASQUERADE_CHAIN, &mut changes, |rule| {
                hashes_of(&rule.comment).is_some_and(|(network, attachment)| scope.is_stale(network, attachment))
            })?;
        }
        for place in IPTABLES {
            let mut chains = BTreeSet::new();
            for base in [IPTABLES_CHAIN, PORT_CHAINS[0].0] {
                if let [Some(_)] = wire.ask(&[place.get_chain(base)])?.as_slice() {
                    delete_rules(wire, place, base, &mut changes, |rule| {
                        let stale = stale_iptables_chain(rule, network, valid);
                        let is_stale = stale.is_some();
                        chains.extend(stale);
                        is_stale
                    })?;
                }
            }
            for chain in &chains {
                changes.extend([place.flush_chain(chain), place.delete_chain(chain)]);
            }
        }
        Ok(changes)
    })
}

/// Removes the rules that don't say of which network they are, of attachments that are no more.
pub(super) fn collect(wire: &mut Wire, gone: &[(String, String, IpAddr)]) -> Outcome<()> {
    let containers: BTreeSet<&str> = gone.iter().map(|(id, ..)| id.as_str()).collect();
    let addresses: BTreeSet<IpAddr> = gone.iter().map(|(.., address)| *address).collect();
    let guards: BTreeSet<String> = gone.iter().map(|(id, ifname, _)| guard(id, ifname)).collect();
    until_committed(wire, |wire| {
        let mut changes = Vec::new();
        for place in PORTS {
            for chain in PORTS_CHAINS {
                delete_rules(wire, place, chain, &mut changes, |rule| {
                    containers.contains(rule.comment.as_str()) && may_be_of(rule, &addresses)
                })?;
            }
        }
        for place in FORWARD {
            delete_rules(wire, place, FORWARD_CHAIN, &mut changes, |rule| is_forward_of(rule, &addresses))?;
        }
        for (place, base) in SPOOFCHECK {
            let mut chains = BTreeSet::new();
            delete_rules(wire, place, base, &mut changes, |rule| {
                let guard = rule.target().filter(|target| guards.contains(target));
                let is_one = guard.is_some();
                chains.extend(guard);
                is_one
            })?;
            let chains: Vec<String> = chains.into_iter().flat_map(|guard| [format!("{guard}-mac"), guard]).collect();
            let questions: Vec<Message> = chains.iter().map(|chain| place.get_chain(chain)).collect();
            let there = wire.ask(&questions)?;
            let there = || chains.iter().zip(&there).filter(|(_, there)| there.is_some()).map(|(chain, _)| chain);
            // One jumps to the other: no chain can go before all are empty.
            changes.extend(there().map(|chain| place.flush_chain(chain)));
            changes.extend(there().map(|chain| place.delete_chain(chain)));
        }
        Ok(changes)
    })
}

/// The same container may have ports in another network, where it has another address.
fn may_be_of(rule: &SeenRule<'_>, addresses: &BTreeSet<IpAddr>) -> bool {
    let mut named = rule.addresses().peekable();
    named.peek().is_none() || named.any(|address| addresses.contains(&address))
}

fn is_forward_of(rule: &SeenRule<'_>, addresses: &BTreeSet<IpAddr>) -> bool {
    rule.is_accept() && rule.compared_address().is_some_and(|address| addresses.contains(&address))
}

/// The chain of macspoofchk.
fn guard(container_id: &str, ifname: &str) -> String {
    format!("cni-br-iface-{container_id}-{ifname}")
}

/// The IFB device of bandwidth, by the same hash (plugins/meta/bandwidth, `getIfbDeviceName`).
pub(in super::super) fn limiter(network: &str, container_id: &str) -> String {
    format!("bwp{}", hex::encode(hash::<6>(&format!("{network}{container_id}"))))
}

fn until_committed(wire: &mut Wire, plan: impl Fn(&mut Wire) -> Outcome<Vec<Message>>) -> Outcome<()> {
    let mut tries = 1;
    loop {
        let changes = plan(wire)?;
        match wire.commit(&changes, None) {
            Ok(()) => return Ok(()),
            Err(failure) if failure.is_passing() && tries < TRIES => pause(tries),
            Err(failure) => return Err(failure.into_error()),
        }
        tries += 1;
    }
}

fn changes_for(wire: &mut Wire, owner: &RuleOwner) -> Outcome<Vec<Message>> {
    let RuleOwner { network, container_id, ifname, .. } = owner;
    let chain = iptables_chain(network, container_id);
    let guard = guard(container_id, ifname);
    let guard_mac = format!("{guard}-mac");
    // The kernel finds a chain by its name at once; only where there is one are rules listed.
    let mut questions = vec![MASQUERADE.get_chain(MASQUERADE_CHAIN)];
    questions.extend(IPTABLES.iter().map(|place| place.get_chain(&chain)));
    for (place, _) in SPOOFCHECK {
        questions.extend([place.get_chain(&guard), place.get_chain(&guard_mac)]);
    }
    let mut there = wire.ask(&questions)?.into_iter().map(|answer| answer.is_some());
    let mut is_there = || there.next().unwrap_or(false);

    let mut changes = Vec::new();
    if is_there() {
        let prefix = prefix(network, container_id, ifname);
        delete_rules(wire, MASQUERADE, MASQUERADE_CHAIN, &mut changes, |rule| rule.comment.starts_with(&prefix))?;
    }
    for place in IPTABLES {
        if is_there() {
            delete_rules(wire, place, IPTABLES_CHAIN, &mut changes, |rule| rule.target().as_ref() == Some(&chain))?;
            changes.extend([place.flush_chain(&chain), place.delete_chain(&chain)]);
        }
    }
    for (place, base) in SPOOFCHECK {
        let chains = [(&guard, is_there()), (&guard_mac, is_there())];
        let chains: Vec<&String> = chains.into_iter().filter(|(_, there)| *there).map(|(chain, _)| chain).collect();
        if chains.contains(&&guard) {
            delete_rules(wire, place, base, &mut changes, |rule| rule.target().as_ref() == Some(&guard))?;
        }
        // The first jumps to the second: no chain can go before all are empty.
        changes.extend(chains.iter().map(|chain| place.flush_chain(chain)));
        changes.extend(chains.iter().map(|chain| place.delete_chain(chain)));
    }
    Ok(changes)
}

fn delete_rules(
    wire: &mut Wire,
    place: Place,
    chain: &str,
    changes: &mut Vec<Message>,
    mut which: impl FnMut(&SeenRule<'_>) -> bool,
) -> Outcome<()> {
    let rules = wire.list(&place.list_rules(chain))?;
    let found = rules.iter().filter_map(seen::rule).filter(|rule| which(rule));
    changes.extend(found.map(|rule| place.delete_rule(chain, rule.handle)));
    Ok(())
}

/// "CNI-" and 24 hex digits (utils.FormatChainName); the interface name is not in it.
fn iptables_chain(network: &str, container_id: &str) -> String {
    format!("CNI-{}", hex::encode(hash::<12>(&format!("{network}{container_id}"))))
}

/// The same of 28 characters with what a port's chain has before the digits.
fn ports_chain(kind: &str, network: &str, container_id: &str) -> String {
    let mut chain = format!("{kind}{}", hex::encode(hash::<12>(&format!("{network}{container_id}"))));
    chain.truncate(28);
    chain
}

/// The chain that this rule jumps to, if it is of an attachment of `network` that is not valid. Its comment is
/// `name: "NETWORK" id: "CONTAINER"` (utils.FormatComment); the chain's name proves that both were read right.
fn stale_iptables_chain(rule: &SeenRule<'_>, network: &str, valid: &[(String, String)]) -> Option<String> {
    let comment = rule.any_comment();
    let of = comment.strip_prefix("dnat ").unwrap_or(&comment);
    let container_id = of.strip_prefix(&format!("name: \"{network}\" id: \""))?.strip_suffix('"')?;
    let chain = rule.target()?;
    let is_valid = valid.iter().any(|(id, _)| id == container_id);
    let [(_, dnat), _] = PORT_CHAINS;
    let is_right = chain == iptables_chain(network, container_id) || chain == ports_chain(dnat, network, container_id);
    (!is_valid && is_right).then_some(chain)
}

/// Network and attachment in the comment of a rule of the nftables backend.
fn hashes_of(comment: &str) -> Option<([u8; 8], [u8; 8])> {
    let (network, attachment) = comment.split(',').next()?.split_once('-')?;
    Some((super::owner::unhex(network)?, super::owner::unhex(attachment)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_references() {
        // printf %s net1c1 | sha512sum
        assert_eq!(iptables_chain("net1", "c1"), "CNI-c2d892b58e87e28a12fe6479");
        // printf mynetpod-a | sha512sum
        assert_eq!(limiter("mynet", "pod-a"), "bwpf88d8102b118");
        assert_eq!(ports_chain("CNI-DN-", "net1", "c1"), "CNI-DN-c2d892b58e87e28a12fe6");
        assert!(hashes_of("0011223344556677-8899aabbccddeeff, net: n, if: eth0, id: c").is_some());
        assert!(hashes_of("0011223344556677, net: n").is_none());
    }
}
