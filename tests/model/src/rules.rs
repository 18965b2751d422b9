//! The firewall's rules of each attachment: what its configuration comes to in Sandwire's tables (`host/kernel`,
//! `nftables/entry.rs`), and what is there, with whose it is.

use crate::configs::{ingress_policy, ports};
use crate::networks::Attachment;
use crate::state::Up;
use serde_json::Value;
use sha2::{Digest, Sha512};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

/// What stands in the tables: "inet sandwire-ports ports4 tcp . 8181", and records "inet sandwire-ports owners ports4 tcp ...".
pub type Lines = BTreeSet<String>;

/// What an attachment must have.
#[derive(Debug, Default)]
pub struct Expected {
    /// For itself.
    pub own: Lines,
    /// If nobody else has its place.
    pub contended: Lines,
}

/// A firewall's rules.
#[derive(Debug, Clone, Default)]
pub struct Ruleset {
    /// Of Sandwire's tables.
    pub of: BTreeMap<Attachment, Lines>,
    /// Of those tables, and of no attachment that is known.
    pub nobodys: Vec<String>,
    /// Maps of those tables without an element, and tables without one.
    pub empty: Vec<String>,
    /// Addresses of pods and names of host ends that any rule speaks of, whoever made it.
    pub spoken: BTreeSet<String>,
}

fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "4" } else { "6" }
}

/// The network of a pod's address: all have these lengths.
fn network_of(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

fn put(lines: &mut Lines, table: &str, record: &str, elements: &[String]) {
    lines.insert(format!("{table} owners {record}"));
    lines.extend(elements.iter().map(|element| format!("{table} {element}")));
}

/// What an ADD with this result must have made.
pub fn expected(attachment: &Attachment, up: &Up) -> Expected {
    let mut expected = Expected::default();
    let net = &attachment.net;
    if !net.has_rules() {
        return expected;
    }
    let addresses: Vec<IpAddr> = up.addresses.iter().filter_map(|text| text.split('/').next()?.parse().ok()).collect();
    for address in &addresses {
        if net.masquerades {
            let group = format!("masq{}-{}", family(address), network_of(address)).replace(':', "_");
            let line = format!("{group} {address}");
            put(&mut expected.own, "inet sandwire", &line, std::slice::from_ref(&line));
        }
        if net.has("portmap") {
            forwarded_ports(&mut expected, attachment, address);
        }
        if net.has("firewall") {
            let (n, bridge) = (family(address), net.bridge);
            let (group, within) = match ingress_policy(attachment.pod) {
                "open" => (format!("open{n}"), false),
                "isolated" => (format!("isolated{n}-{bridge}"), true),
                _ => (format!("ingress{n}-{bridge}"), false),
            };
            let line = format!("{group} {address}");
            let mut elements = vec![line.clone(), format!("forwarded{n} {address}")];
            if !group.starts_with("open") {
                elements.push(format!("policed{n} {address}"));
            }
            put(&mut expected.own, "inet sandwire-forward", &line, &elements);
            if within {
                let line = format!("within{n} {address}");
                put(&mut expected.own, "bridge sandwire-forward", &line, std::slice::from_ref(&line));
            }
        }
    }
    if let (true, Some(port), Some(mac)) = (net.name == "masq", &up.host_end, &up.mac) {
        let elements = [format!("guarded {port}"), format!("allowed {port} . {mac}")];
        put(&mut expected.own, "bridge sandwire", &format!("guarded {port} {mac}"), &elements);
    }
    expected
}

fn forwarded_ports(expected: &mut Expected, attachment: &Attachment, to: &IpAddr) {
    let n = family(to);
    for port in ports(attachment.pod) {
        let at: Option<IpAddr> = port.address.and_then(|address| address.parse().ok());
        if at.is_some_and(|at| at.is_ipv4() != to.is_ipv4()) {
            continue;
        }
        let (protocol, host, container) = (port.protocol, port.host, port.container);
        let (group, key, record) = match at {
            Some(at) => {
                (format!("hostip{n}"), format!("{at} . {protocol} . {host}"), format!("{at} {protocol} {host}"))
            }
            None => (format!("ports{n}"), format!("{protocol} . {host}"), format!("{protocol} {host}")),
        };
        let elements = [format!("{group} {key}"), format!("{group}-to {key} : {to} . {container}")];
        let lines = if port.contended { &mut expected.contended } else { &mut expected.own };
        put(lines, "inet sandwire-ports", &format!("{group} {record} {to} {container}"), &elements);
        let mut returns = vec![format!("hairpin{n}-{}", network_of(to)).replace(':', "_")];
        if to.is_ipv4() {
            returns.push("loopback4".into());
        }
        for group in returns {
            let element = format!("{group} {to} . {protocol} . {host}");
            put(&mut expected.own, "inet sandwire", &format!("{group} {to} {protocol} {host}"), &[element]);
        }
    }
}

/// First 8 bytes of the network's and of the attachment's hash, as the key of a record has them: an IPv6 address to nft.
fn owner_key(attachment: &Attachment) -> String {
    let network = Sha512::digest(attachment.net.name);
    let own = Sha512::digest(format!("{}:{}", attachment.ifname, attachment.container_id()));
    let mut bytes = [0; 16];
    let both = network.iter().take(8).chain(own.iter().take(8));
    bytes.iter_mut().zip(both).for_each(|(to, from)| *to = *from);
    Ipv6Addr::from(bytes).to_string()
}

/// The device to which bandwidth redirects what a pod sends, named as the reference names it.
pub fn ifb_of(attachment: &Attachment) -> String {
    let hash = Sha512::digest(format!("{}{}", attachment.net.name, attachment.container_id()));
    let hex: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("bwp{hex}")
}

/// A key or a value as nft writes it on one line.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(map) => match map.get("concat").and_then(Value::as_array) {
            Some(parts) => parts.iter().map(text).collect::<Vec<_>>().join(" . "),
            None => value.to_string(),
        },
        other => other.to_string(),
    }
}

impl Ruleset {
    /// From what `nft -j list ruleset` prints.
    pub fn of(objects: &[Value]) -> Self {
        let mut ruleset = Self::default();
        let holders = Attachment::all().into_iter().filter(|attachment| !attachment.net.is_native());
        let holders: BTreeMap<String, Attachment> = holders.map(|a| (owner_key(&a), a)).collect();
        let mut tables: BTreeMap<String, usize> = BTreeMap::new();
        for object in objects {
            speaks_of(object, &mut ruleset.spoken);
            let Some((kind, body)) = object.as_object().and_then(|object| object.iter().next()) else { continue };
            let word = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
            let table = format!("{} {}", word("family"), if kind == "table" { word("name") } else { word("table") });
            if !table.contains(" sandwire") {
                continue;
            }
            let count = tables.entry(table.clone()).or_default();
            if kind == "set" || kind == "map" {
                let elements = body.get("elem").and_then(Value::as_array).cloned().unwrap_or_default();
                *count += elements.len();
                // Those of a map whose name is a group's; the table's own sets may be empty.
                if kind == "map" && elements.is_empty() {
                    ruleset.empty.push(format!("{table} {}", word("name")));
                }
                elements.iter().for_each(|element| ruleset.element(&table, word("name"), element, &holders));
            }
        }
        ruleset.empty.extend(tables.into_iter().filter(|(_, count)| *count == 0).map(|(table, _)| table));
        ruleset
    }

    fn element(&mut self, table: &str, set: &str, element: &Value, holders: &BTreeMap<String, Attachment>) {
        let (key, value) = match element.as_array().map(Vec::as_slice) {
            Some([key, value]) => (key, Some(value)),
            _ => (element, None),
        };
        let body = key.get("elem");
        let comment = body.and_then(|body| body.get("comment")).and_then(Value::as_str).unwrap_or_default();
        let key = text(body.and_then(|body| body.get("val")).unwrap_or(key));
        let (holder, line) = if set == "owners" {
            let record = comment.split_once(' ').map_or(comment, |(_, record)| record);
            (holders.get(key.split(" . ").next().unwrap_or_default()), format!("{table} owners {record}"))
        } else {
            let data = value.filter(|value| value.as_str() != Some(set)).map(text);
            let data = data.map(|data| format!(" : {data}")).unwrap_or_default();
            (holder_in(comment, holders), format!("{table} {set} {key}{data}"))
        };
        match holder {
            Some(holder) => {
                // The same line twice: two records of one entry.
                if !self.of.entry(*holder).or_default().insert(line.clone()) {
                    self.nobodys.push(format!("{line}, twice"));
                }
            }
            None => self.nobodys.push(format!("{line} ({comment:?})")),
        }
    }
}

/// "..., net: chain, if: eth10, id: pod-a".
fn holder_in<'h>(comment: &str, holders: &'h BTreeMap<String, Attachment>) -> Option<&'h Attachment> {
    let (_, names) = comment.split_once(", net: ")?;
    let (net, names) = names.split_once(", if: ")?;
    let (ifname, id) = names.split_once(", id: ")?;
    holders.values().find(|a| (a.net.name, a.ifname) == (net, ifname) && a.container_id() == id)
}

/// Addresses of pods (of the networks' ranges, without the networks' own) and names of host ends, anywhere inside.
fn speaks_of(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            let of_a_pod = text.parse::<IpAddr>().is_ok_and(|address| match address {
                IpAddr::V4(v4) => v4.octets()[0] == 10 && v4.octets()[3] != 0,
                IpAddr::V6(v6) => v6.segments()[0] == 0xfd00 && v6.segments()[7] != 0,
            });
            if of_a_pod || (text.len() == 12 && text.starts_with("veth")) {
                found.insert(text.clone());
            }
        }
        Value::Array(list) => list.iter().for_each(|value| speaks_of(value, found)),
        Value::Object(map) => map.values().for_each(|value| speaks_of(value, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf chainpod-a | sha512sum`.
    #[test]
    fn names_that_follow_from_hashes() {
        let attachment = Attachment::parse("chain/a/eth10").unwrap();
        assert_eq!(ifb_of(&attachment), "bwp23481ccc33bc");
        assert!(owner_key(&attachment).parse::<Ipv6Addr>().is_ok());
    }
}
