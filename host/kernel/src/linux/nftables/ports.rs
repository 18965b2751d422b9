//! `forward-port`: what arrives for a port of the node goes to a container, from anywhere, from the node itself, and by
//! the node from the container or its neighbours.
//!
//! Same meaning as the reference's portmap (plugins/meta/portmap). Where it adds rules for each port, here is an element:
//! a lookup by protocol and port says where to. Only for addresses of this machine, in both hooks: a rule that forgets
//! that takes what other machines' ports are sent by way of this one (CVE-2025-67499).

use super::attribute::Attribute;
use super::entry::{Entry, GROUP_USE, Gate, Group, Protocol, Table, Wanted, target_of};
use super::expression::{
    DESTINATION_PORT, IPV4_DESTINATION, IPV6_DESTINATION, Register, count_by, counter, dnat, drop_packet, jump,
    l4_protocol, load, masquerade, only_destination, only_dnat, only_family, only_input, only_local_destination,
    only_source, only_without_dnat, original_port, translate,
};
use super::message::{FAMILY_INET, FAMILY_IPV4, FAMILY_IPV6, Hook, KeyType, Place};
use super::owner::hash;
use crate::{KernelError, Outcome, PortForward};
use ipnet::{IpNet, Ipv4Net};
use std::net::{IpAddr, Ipv4Addr};

const CHAIN: &str = "ports";

pub(super) const TABLE: Table = Table {
    place: Place { family: FAMILY_INET, table: "sandwire-ports" },
    chain: CHAIN,
    hook: None,
    sets: &[],
    // NF_INET_PRE_ROUTING, NF_INET_LOCAL_OUT, NF_INET_LOCAL_IN; NF_IP_PRI_NAT_DST, which nft calls dstnat.
    gates: &[
        Gate { chain: "prerouting", hook: Hook { kind: "nat", number: 0, priority: -100 }, rules: to_ports, jumps: 1 },
        Gate { chain: "output", hook: Hook { kind: "nat", number: 3, priority: -100 }, rules: to_ports, jumps: 1 },
        Gate { chain: "localnet", hook: Hook { kind: "filter", number: 1, priority: 0 }, rules: localnet, jumps: 0 },
    ],
    group_use: GROUP_USE + 1,
};

const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
/// The expressions of one rule may take 4095 bytes in the kernel.
const CONDITIONS_MAX: usize = 16;

fn to_ports() -> Vec<Vec<Attribute>> {
    vec![only_local_destination().into_iter().chain([jump(CHAIN)]).collect()]
}

/// `route_localnet`, without which the node's 127.0.0.1 does not reach a container, lets containers reach what listens
/// on the node's 127.0.0.1 alone (CVE-2020-8558).
fn localnet() -> Vec<Vec<Attribute>> {
    let mut rule = only_family(FAMILY_IPV4).to_vec();
    rule.extend(only_destination(IpNet::V4(LOOPBACK), true));
    rule.extend(only_input("lo", false));
    rule.extend(only_without_dnat());
    rule.extend([counter(), drop_packet()]);
    vec![rule]
}

/// What has to be true of a packet beside its port.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Source(IpNet, bool),
    Destination(IpNet, bool),
    Input(String, bool),
}

impl Condition {
    fn parse(key: &str, value: &str) -> Outcome<Option<Self>> {
        let net = || {
            let alone = value.parse::<IpAddr>().map(IpNet::from);
            let net = value.parse().or(alone);
            net.map_err(|_| KernelError::Invalid(format!("{key} = {value:?} is no address and no network")))
        };
        Ok(Some(match key {
            "only-source" => Self::Source(net()?, true),
            "not-source" => Self::Source(net()?, false),
            "only-destination" => Self::Destination(net()?, true),
            "not-destination" => Self::Destination(net()?, false),
            "only-input" | "not-input" if value.is_empty() || value.len() > 15 => {
                return Err(KernelError::Invalid(format!("{key} = {value:?} is no name of an interface")));
            }
            "only-input" => Self::Input(value.to_owned(), true),
            "not-input" => Self::Input(value.to_owned(), false),
            _ => return Ok(None),
        }))
    }

    fn is_of_other_family(&self, is_ipv4: bool) -> bool {
        match self {
            Self::Source(net, _) | Self::Destination(net, _) => net.addr().is_ipv4() != is_ipv4,
            Self::Input(..) => false,
        }
    }

    fn expressions(&self) -> Vec<Attribute> {
        match self {
            Self::Source(net, is_in) => only_source(*net, *is_in),
            Self::Destination(net, is_in) => only_destination(*net, *is_in),
            Self::Input(name, is_it) => only_input(name, *is_it).to_vec(),
        }
    }
}

/// Keys of `firewall.port-forward.extra`.
#[derive(Debug, Default)]
struct Options {
    conditions: Vec<Condition>,
    masquerade_all: bool,
    masquerade_from: Option<IpNet>,
}

impl Options {
    fn parse(forward: &PortForward) -> Outcome<Self> {
        let mut options = Self::default();
        for (key, value) in &forward.extra {
            match key.as_str() {
                "masquerade-all" => options.masquerade_all = value == "true",
                "masquerade-from" => {
                    let net: IpNet = value.parse().map_err(|_| {
                        KernelError::Invalid(format!("{key} = {value:?} is no network in CIDR notation"))
                    })?;
                    options.masquerade_from = Some(net.trunc());
                }
                // What is masqueraded is known without one: no bit is taken from anybody.
                "mark-bit" if value.parse().is_ok_and(|bit: u8| bit < 32) => {}
                "mark-bit" => return Err(KernelError::Invalid(format!("{key} = {value:?} is no bit from 0 to 31"))),
                _ => match Condition::parse(key, value)? {
                    Some(condition) => options.conditions.push(condition),
                    None => {
                        return Err(KernelError::Unsupported(format!(
                            "this release of sandwire does not know the option {key:?} of a port"
                        )));
                    }
                },
            }
        }
        let is_ipv4 = forward.to.is_ipv4();
        if options.conditions.len() > CONDITIONS_MAX {
            return Err(KernelError::Invalid(format!("a port has at most {CONDITIONS_MAX} conditions")));
        }
        if options.conditions.iter().any(|condition| condition.is_of_other_family(is_ipv4))
            || options.masquerade_from.is_some_and(|net| net.addr().is_ipv4() != is_ipv4)
        {
            return Err(KernelError::Invalid(format!(
                "an option of the port that leads to {} is of the other address family",
                forward.to
            )));
        }
        Ok(options)
    }
}

/// The entries for a port: in [`TABLE`], and in the masquerading one those that bring answers back by this node.
pub(super) fn wanted(forward: &PortForward) -> Outcome<(Wanted, Vec<Wanted>)> {
    let options = Options::parse(forward)?;
    let Some(protocol) = Protocol::of(forward.protocol) else {
        return Err(KernelError::Invalid(format!("protocol {} has no ports", forward.protocol)));
    };
    if forward.host_port == 0 || forward.to_port == 0 {
        return Err(KernelError::Invalid(format!("port 0 can't be forwarded to or from {}", forward.to)));
    }
    if forward.host_ip.is_some_and(|ip| ip.is_ipv4() != forward.to.is_ipv4() || ip.is_unspecified()) {
        return Err(KernelError::Invalid(format!(
            "a port of an address of the node can only lead to one of the same family, not to {}",
            forward.to
        )));
    }
    let group = group(forward, &options.conditions);
    let PortForward { host_ip, host_port: port, to, to_port, .. } = *forward;
    let at = host_ip.map_or_else(|| "every address".to_owned(), |ip| ip.to_string());
    let meaning = format!("forwarding of {protocol} port {port} of {at} to {to} port {to_port}");
    let entry = Entry::Port { group: group.name.clone(), host_ip, protocol, port, to, to_port };
    let returns = if forward.masquerade { returns(to, protocol, port, &options) } else { Vec::new() };
    Ok((Wanted { entry, group, meaning }, returns))
}

fn group(forward: &PortForward, conditions: &[Condition]) -> Group {
    let is_ipv4 = forward.to.is_ipv4();
    let (family, number, address) =
        if is_ipv4 { (FAMILY_IPV4, 4, KeyType::IPV4) } else { (FAMILY_IPV6, 6, KeyType::IPV6) };
    let has_host_ip = forward.host_ip.is_some();
    let mut name = format!("{}{number}", if has_host_ip { "hostip" } else { "ports" });
    if !conditions.is_empty() {
        // Other conditions are another group: one port may lead to different containers by where it is asked.
        name = format!("{name}-{}", hex::encode(hash::<6>(&format!("{conditions:?}"))));
    }
    let mut rule = only_family(family).to_vec();
    rule.extend(conditions.iter().flat_map(Condition::expressions));
    let (protocol, port) = match (has_host_ip, is_ipv4) {
        (false, _) => (Register::First, Register::SecondWord),
        (true, true) => (Register::SecondWord, Register::ThirdWord),
        (true, false) => (Register::Second, Register::SixthWord),
    };
    if has_host_ip {
        rule.push(load(if is_ipv4 { IPV4_DESTINATION } else { IPV6_DESTINATION }, Register::First));
    }
    rule.extend([l4_protocol(protocol), load(DESTINATION_PORT, port), count_by(&name), translate(&target_of(&name))]);
    rule.push(dnat(family, if is_ipv4 { Register::SecondWord } else { Register::Second }));
    let port = KeyType::PROTOCOL.then(KeyType::SERVICE);
    let key = if has_host_ip { address.then(KeyType::PROTOCOL).then(KeyType::SERVICE) } else { port };
    let target = Some(address.then(KeyType::SERVICE));
    // A port of one address goes before the same of all.
    Group { name, key, target, rule: rule.into(), first: has_host_ip }
}

/// A container that answers a neighbour, itself or the node's 127.0.0.1 would answer it past the node, which alone knows
/// the address that was asked. Only what came by this port: connections that others have translated (kube-proxy) keep
/// their source.
fn returns(to: IpAddr, protocol: Protocol, port: u16, options: &Options) -> Vec<Wanted> {
    let number = if to.is_ipv4() { 4 } else { 6 };
    if options.masquerade_all {
        return vec![answered_by_the_node(format!("everyone{number}"), to, protocol, port, None)];
    }
    let from = options.masquerade_from.unwrap_or_else(|| IpNet::from(to));
    let name = format!("hairpin{number}-{from}").replace(':', "_");
    let mut all = vec![answered_by_the_node(name, to, protocol, port, Some(from))];
    if to.is_ipv4() {
        let loopback = Some(IpNet::V4(LOOPBACK));
        all.push(answered_by_the_node(format!("loopback{number}"), to, protocol, port, loopback));
    }
    all
}

fn answered_by_the_node(name: String, to: IpAddr, protocol: Protocol, port: u16, from: Option<IpNet>) -> Wanted {
    let is_ipv4 = to.is_ipv4();
    let mut rule = only_family(if is_ipv4 { FAMILY_IPV4 } else { FAMILY_IPV6 }).to_vec();
    rule.extend(only_dnat());
    rule.extend(from.map(|net| only_source(net, true)).unwrap_or_default());
    let (address, destination) =
        if is_ipv4 { (KeyType::IPV4, IPV4_DESTINATION) } else { (KeyType::IPV6, IPV6_DESTINATION) };
    let (second, third) = match is_ipv4 {
        true => (Register::SecondWord, Register::ThirdWord),
        false => (Register::Second, Register::SixthWord),
    };
    rule.extend([load(destination, Register::First), l4_protocol(second), original_port(third)]);
    rule.extend([count_by(&name), masquerade()]);
    let key = address.then(KeyType::PROTOCOL).then(KeyType::SERVICE);
    let sources = from.map_or_else(|| "everyone".to_owned(), |net| net.to_string());
    Wanted {
        entry: Entry::Return { group: name.clone(), to, protocol, port },
        group: Group { name, key, target: None, rule: rule.into(), first: false },
        meaning: format!("masquerading of {sources} towards {to} by {protocol} port {port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(to: &str) -> PortForward {
        PortForward {
            protocol: 6,
            host_ip: None,
            host_port: 8080,
            to: to.parse().unwrap(),
            to_port: 80,
            masquerade: true,
            extra: Vec::new(),
        }
    }

    fn with(to: &str, key: &str, value: &str) -> PortForward {
        PortForward { extra: vec![(key.into(), value.into())], ..forward(to) }
    }

    #[test]
    fn groups_are_of_one_kind_of_port() {
        let names = |forward: &PortForward| {
            let (port, returns) = wanted(forward).unwrap();
            let mut names = vec![port.group.name];
            names.extend(returns.into_iter().map(|r| r.group.name));
            names.join(" ")
        };
        assert_eq!(names(&forward("10.1.2.3")), "ports4 hairpin4-10.1.2.3/32 loopback4");
        assert_eq!(names(&with("10.1.2.3", "masquerade-from", "10.1.2.3/24")), "ports4 hairpin4-10.1.2.0/24 loopback4");
        assert_eq!(names(&with("10.1.2.3", "masquerade-all", "true")), "ports4 everyone4");
        assert_eq!(names(&with("fd00::3", "masquerade-from", "fd00::/64")), "ports6 hairpin6-fd00__/64");
        let host_ip =
            PortForward { host_ip: Some("192.0.2.1".parse().unwrap()), masquerade: false, ..forward("10.1.2.3") };
        assert_eq!(names(&host_ip), "hostip4");
        let [one, two] = ["10.0.0.0/8", "11.0.0.0/8"].map(|net| names(&with("10.1.2.3", "not-destination", net)));
        assert!(one.starts_with("ports4-") && one != two, "{one} {two}");
    }

    #[test]
    fn what_can_never_work_is_refused() {
        for wrong in [
            PortForward { host_port: 0, ..forward("10.1.2.3") },
            PortForward { to_port: 0, ..forward("10.1.2.3") },
            PortForward { protocol: 1, ..forward("10.1.2.3") },
            PortForward { host_ip: Some("fd00::1".parse().unwrap()), ..forward("10.1.2.3") },
            with("10.1.2.3", "masquerade-from", "fd00::/64"),
            with("10.1.2.3", "only-source", "fd00::/64"),
            with("10.1.2.3", "only-source", "10.1.2.256"),
            with("10.1.2.3", "only-input", "an-interface-of-too-long-a-name"),
            with("10.1.2.3", "mark-bit", "32"),
        ] {
            assert!(matches!(wanted(&wrong), Err(KernelError::Invalid(_))), "{wrong:?}");
        }
        assert!(matches!(wanted(&with("10.1.2.3", "frobnicate", "1")), Err(KernelError::Unsupported(_))));
    }
}
