//! Policy rules: which routing table a packet is looked up in (`ip rule`, net/core/fib_rules.c).

use super::attributes::Attributes;
use super::netns::Namespace;
use super::socket::{Received, describe, u32_at};
use super::{links, routes};
use crate::{KernelError, LinkInfo, Outcome, PolicyRule};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `struct fib_rule_hdr` (linux/fib_rules.h).
const HEADER: usize = 12;
const RTM_NEWRULE: u16 = 32;
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_OIFNAME: u16 = 17;
const FR_ACT_TO_TBL: u8 = 1;
const FIB_RULE_INVERT: u32 = 2;

fn message(rule: &PolicyRule) -> Outcome<RuleMessage> {
    let mut message = RuleMessage::default();
    let prefixes = [rule.src, rule.dst];
    let mut families = prefixes.iter().flatten().map(|prefix| super::addresses::family(&prefix.addr()));
    // There is a list of rules for each family.
    message.header.family = match (families.next(), families.next()) {
        (Some(family), None) => family,
        (Some(family), Some(other)) if family == other => family,
        (None, _) => return Err(KernelError::Invalid("a policy rule needs a source or a destination".into())),
        _ => {
            return Err(KernelError::Invalid(
                "source and destination of a policy rule are addresses of two families".into(),
            ));
        }
    };
    message.header.action = RuleAction::ToTable;
    if rule.not {
        message.header.flags.insert(RuleFlags::Invert);
    }
    let attributes = &mut message.attributes;
    if let Some(src) = rule.src {
        message.header.src_len = src.prefix_len();
        attributes.push(RuleAttribute::Source(src.network()));
    }
    if let Some(dst) = rule.dst {
        message.header.dst_len = dst.prefix_len();
        attributes.push(RuleAttribute::Destination(dst.network()));
    }
    attributes.push(RuleAttribute::Table(rule.table));
    attributes.extend(rule.priority.map(RuleAttribute::Priority));
    attributes.extend(rule.iif.clone().map(RuleAttribute::Iifname));
    attributes.extend(rule.oif.clone().map(RuleAttribute::Oifname));
    if let Some((mark, mask)) = rule.fwmark {
        attributes.extend([RuleAttribute::FwMark(mark), RuleAttribute::FwMask(mask)]);
    }
    Ok(message)
}

pub(super) fn add(namespace: &mut Namespace, rule: &PolicyRule) -> Outcome<()> {
    let message = RouteNetlinkMessage::NewRule(message(rule)?);
    match namespace.route.request(message, NLM_F_CREATE | NLM_F_EXCL) {
        Ok(_) => Ok(()),
        Err(refusal) => Err(refusal.into_error(format_args!("could not add {rule} in {}", namespace.netns))),
    }
}

pub(super) fn remove(namespace: &mut Namespace, rule: &PolicyRule) -> Outcome<()> {
    // The kernel takes what is not given for a wildcard, and deletes the first that fits (`rule_find`): the one meant is looked
    // for here, and told by its priority.
    let is_it =
        |present: &PolicyRule| *present == PolicyRule { priority: rule.priority.or(present.priority), ..rule.clone() };
    message(rule)?;
    let Some(found) = all(namespace)?.into_iter().find(is_it) else {
        return Err(KernelError::NotFound(format!("{} has no {rule}", namespace.netns)));
    };
    match namespace.route.request(RouteNetlinkMessage::DelRule(message(&found)?), 0) {
        Ok(_) => Ok(()),
        Err(refusal) => Err(refusal.into_error(format_args!("could not remove {rule} in {}", namespace.netns))),
    }
}

/// Those that lead to a table, of both families, as the kernel goes through them.
pub(super) fn all(namespace: &mut Namespace) -> Outcome<Vec<PolicyRule>> {
    let netns = namespace.netns;
    let mut rules = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RuleMessage::default();
        message.header.family = family;
        match namespace.route.dump(&RouteNetlinkMessage::GetRule(message)) {
            Ok(objects) => rules.extend(objects.iter().filter_map(parse)),
            // A kernel without policy rules, or without IPv6, where nobody else has any either.
            Err(refusal) if matches!(refusal.errno, Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP) => {}
            Err(refusal) => return Err(refusal.into_error(format_args!("could not list the policy rules of {netns}"))),
        }
    }
    Ok(rules)
}

/// Taken by the native sbr too, on the file of the namespace (`withLockAndNetNS`), which is this one under another name. It is
/// held to the end of the call, when rules and routes are there for all to see.
fn lock(namespace: &mut Namespace) -> Outcome<()> {
    if namespace.lock.is_some() {
        return Ok(());
    }
    let could_not = |why: String| KernelError::Other(format!("could not lock {}: {why}", namespace.netns));
    let fd = namespace.fd.try_clone().map_err(|error| could_not(error.to_string()))?;
    let locked = Flock::lock(fd, FlockArg::LockExclusive).map_err(|(_, errno)| match errno {
        // The signal of the deadline.
        Errno::EINTR => KernelError::Busy(format!(
            "another call held the lock of {} until this one's deadline; try again later",
            namespace.netns
        )),
        errno => could_not(describe(errno)),
    })?;
    namespace.lock = Some(locked);
    Ok(())
}

pub(super) fn free_table(namespace: &mut Namespace, first: u32) -> Outcome<u32> {
    lock(namespace)?;
    let mut used: BTreeSet<u32> = all(namespace)?.into_iter().map(|rule| rule.table).collect();
    used.extend(routes::all(namespace, None)?.into_iter().filter_map(|info| info.route.table));
    let of_vrf = |link: LinkInfo| -> Option<u32> {
        link.extra.into_iter().find(|(key, _)| key == "vrf.table").and_then(|(_, table)| table.parse().ok())
    };
    used.extend(links::all(namespace)?.into_iter().filter_map(of_vrf));
    used.extend(&namespace.given_tables);
    // 0 is none, and 253 to 255 are default, main and local.
    used.extend([0, 253, 254, 255]);
    let Some(free) = (first..=u32::MAX).find(|table| !used.contains(table)) else {
        return Err(KernelError::Other(format!("no table of {} from {first} on is free", namespace.netns)));
    };
    namespace.given_tables.push(free);
    Ok(free)
}

fn parse(received: &Received) -> Option<PolicyRule> {
    if received.kind != RTM_NEWRULE {
        return None;
    }
    let [family, dst_len, src_len, _, table, _, _, action] = *received.payload.first_chunk::<8>()?;
    if action != FR_ACT_TO_TBL {
        return None;
    }
    let flags = u32_at(&received.payload, 8)?;
    let attributes = Attributes::after(&received.payload, HEADER);
    let any: IpAddr =
        if family == libc::AF_INET as u8 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // "from all" of IPv6 has to say somehow that it is of IPv6.
    let prefix = |kind: u16, length: u8| {
        let address = attributes.ip(kind);
        (length > 0 || address.is_some()).then(|| IpNet::new(address.unwrap_or(any), length).ok()).flatten()
    };
    let src = prefix(FRA_SRC, src_len);
    let dst = prefix(FRA_DST, dst_len);
    let mark = attributes.u32(FRA_FWMARK);
    Some(PolicyRule {
        src: src.or_else(|| dst.is_none().then(|| IpNet::new(any, 0).ok()).flatten()),
        dst,
        table: attributes.u32(FRA_TABLE).unwrap_or(table.into()),
        priority: Some(attributes.u32(FRA_PRIORITY).unwrap_or(0)),
        iif: attributes.text(FRA_IIFNAME),
        oif: attributes.text(FRA_OIFNAME),
        fwmark: mark.map(|mark| (mark, attributes.u32(FRA_FWMASK).unwrap_or(u32::MAX))),
        not: flags & FIB_RULE_INVERT != 0,
    })
}
