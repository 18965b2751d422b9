//! What the reference plugins made for an attachment, so that a node can change to Sandwire with containers running.
//!
//! Looked at: containernetworking/plugins, pkg/ip/ipmasq_nftables_linux.go, pkg/ip/ipmasq_iptables_linux.go,
//! pkg/link/spoofcheck.go, pkg/utils/utils.go. Only rules and chains of one attachment go; tables and base chains are the
//! system's or others'. iptables-legacy can't be seen by netlink.

use super::message::{FAMILY_BRIDGE, FAMILY_INET, FAMILY_IPV4, FAMILY_IPV6, Message, Place};
use super::owner::{hash, hex, prefix};
use super::retain::Scope;
use super::seen::{self, SeenRule};
use super::settle::{TRIES, pause};
use super::wire::Wire;
use crate::{Outcome, RuleOwner};
use std::collections::BTreeSet;

/// ipMasq with backend nftables: one rule for each address.
const MASQUERADE: Place = Place { family: FAMILY_INET, table: "cni_plugins_masquerade" };
const MASQUERADE_CHAIN: &str = "masq_checks";
/// ipMasq with backend iptables, through iptables-nft: a chain for each attachment, and jumps to it.
const IPTABLES: [Place; 2] = [Place { family: FAMILY_IPV4, table: "nat" }, Place { family: FAMILY_IPV6, table: "nat" }];
const IPTABLES_CHAIN: &str = "POSTROUTING";
/// macspoofchk: two chains for each attachment, and a jump. The second table is that of releases after 1.9.
const SPOOFCHECK: [(Place, &str); 2] = [
    (Place { family: FAMILY_BRIDGE, table: "nat" }, "PREROUTING"),
    (Place { family: FAMILY_BRIDGE, table: "cni_spoofcheck" }, "prerouting"),
];

/// Removes what the reference made for one attachment.
pub(super) fn clear(wire: &mut Wire, owner: &RuleOwner) -> Outcome<()> {
    until_committed(wire, |wire| changes_for(wire, owner))
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
            if let [Some(_)] = wire.ask(&[place.get_chain(IPTABLES_CHAIN)])?.as_slice() {
                delete_rules(wire, place, IPTABLES_CHAIN, &mut changes, |rule| {
                    let stale = stale_iptables_chain(rule, network, valid);
                    let is_stale = stale.is_some();
                    chains.extend(stale);
                    is_stale
                })?;
            }
            for chain in &chains {
                changes.extend([place.flush_chain(chain), place.delete_chain(chain)]);
            }
        }
        Ok(changes)
    })
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
    let guard = format!("cni-br-iface-{container_id}-{ifname}");
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
    format!("CNI-{}", hex(&hash::<12>(&format!("{network}{container_id}"))))
}

/// The chain that this rule jumps to, if it is of an attachment of `network` that is not valid. Its comment is
/// `name: "NETWORK" id: "CONTAINER"` (utils.FormatComment); the chain's name proves that both were read right.
fn stale_iptables_chain(rule: &SeenRule<'_>, network: &str, valid: &[(String, String)]) -> Option<String> {
    let comment = rule.any_comment();
    let container_id = comment.strip_prefix(&format!("name: \"{network}\" id: \""))?.strip_suffix('"')?;
    let chain = rule.target()?;
    let is_valid = valid.iter().any(|(id, _)| id == container_id);
    (!is_valid && chain == iptables_chain(network, container_id)).then_some(chain)
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
        assert!(hashes_of("0011223344556677-8899aabbccddeeff, net: n, if: eth0, id: c").is_some());
        assert!(hashes_of("0011223344556677, net: n").is_none());
    }
}
