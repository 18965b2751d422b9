//! All that a call may leave behind, as lines that can be compared.

use crate::{Node, Place, run};
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

/// What numbers itself, counts or ages: different at every look.
const VOLATILE: [&str; 12] = [
    "handle",
    "ifindex",
    "link_index",
    "packets",
    "bytes",
    "stats64",
    "preferred_life_time",
    "valid_life_time",
    "used",
    "probes",
    "metainfo",
    "refcnt",
];
/// Keys of a link's folder under net/ipv4/conf and net/ipv6/conf that plugins write.
const SYSCTLS: [&str; 11] = [
    "forwarding",
    "route_localnet",
    "proxy_arp",
    "arp_notify",
    "rp_filter",
    "accept_dad",
    "enhanced_dad",
    "disable_ipv6",
    "accept_ra",
    "ndisc_notify",
    "keep_addr_on_down",
];

/// A node's state at one moment: its network, its pods' networks, its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Line, and whether attachments share it (`README.md`, "Left nothing").
    lines: BTreeMap<String, bool>,
    places: BTreeSet<String>,
}

/// The JSON list behind a view of a kernel expectation.
///
/// # Errors
/// When there is no such view, or its program fails.
pub(crate) fn view(node: &Node, place: &Place, name: &str) -> Result<Vec<Value>> {
    let list = |command: &str| json_list(node, place, command);
    Ok(match name {
        "link" => list("ip -d -j link")?,
        "addr" => list("ip -j addr")?,
        "route" => list("ip -j route show table all")?,
        "route6" => list("ip -6 -j route show table all")?,
        "rule" => [list("ip -j rule")?, list("ip -6 -j rule")?].concat(),
        "neigh" => list("ip -j neigh")?,
        "fdb" => list("bridge -j fdb")?,
        "port" => list("bridge -d -j link")?,
        "vlan" => list("bridge -j vlan")?,
        "qdisc" => list("tc -j qdisc")?,
        "nft" => match list("nft -j list ruleset")?.pop() {
            Some(Value::Object(mut object)) => match object.remove("nftables") {
                Some(Value::Array(objects)) => objects,
                _ => Vec::new(),
            },
            _ => Vec::new(),
        },
        "iptables" => text(node, place, "iptables-save")?.lines().map(Value::from).collect(),
        other => bail!("there is no view {other:?}"),
    })
}

fn text(node: &Node, place: &Place, command: &str) -> Result<String> {
    let mut words = command.split(' ');
    let mut program = run::program(words.next().unwrap_or_default());
    program.args(words);
    node.run(place, program, b"")?.success().with_context(|| command.to_owned())
}

/// iproute2 prints nothing at all, or `[{}]` padding, where there is nothing.
fn json_list(node: &Node, place: &Place, command: &str) -> Result<Vec<Value>> {
    let text = text(node, place, command)?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    Ok(match serde_json::from_str(&text).with_context(|| format!("{command}: {text}"))? {
        Value::Array(list) => list,
        single => vec![single],
    })
}

/// Links with their addresses, routes of both families, rules of IPv4 and neighbours, by one program: a snapshot is taken
/// twice for every call that must fail.
fn batch(node: &Node, place: &Place) -> Result<[Vec<Value>; 4]> {
    let mut program = run::program("ip");
    program.args(["-d", "-j", "-batch", "-"]);
    let text =
        node.run(place, program, b"addr\nroute show table all\nrule\nneigh\n")?.success().context("ip -batch")?;
    let lists = serde_json::Deserializer::from_str(&text).into_iter::<Vec<Value>>().collect::<Result<Vec<_>, _>>()?;
    lists.try_into().map_err(|lists| anyhow::anyhow!("ip -batch: {lists:?}"))
}

impl Snapshot {
    pub(crate) fn take(node: &Node) -> Result<Self> {
        let mut snapshot = Self { lines: BTreeMap::new(), places: BTreeSet::new() };
        snapshot.network(node, "host", &Place::Host)?;
        let names = node.within(|| -> Result<Vec<String>> {
            let entries = std::fs::read_dir("/run/netns")?.collect::<Result<Vec<_>, _>>()?;
            Ok(entries.into_iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        })??;
        for name in names {
            let path = Path::new("/run/netns").join(&name);
            // A test may have put something else there.
            let file = path.clone();
            if node.at(&Place::Netns(path.clone()), || ()).is_ok() {
                snapshot.network(node, &name, &Place::Netns(path))?;
            } else {
                snapshot.add(format!("no netns: {}", file.display()), false);
            }
        }
        snapshot.state(node)?;
        Ok(snapshot)
    }

    fn add(&mut self, line: String, shared: bool) {
        self.lines.insert(line, shared);
    }

    fn network(&mut self, node: &Node, name: &str, place: &Place) -> Result<()> {
        self.places.insert(name.to_owned());
        let [links, routes, rules, neighbours] = batch(node, place)?;
        let ifname = |value: &Value| value.get("ifname").and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = |link: &Value| link.pointer("/linkinfo/info_kind").and_then(Value::as_str).map(str::to_owned);
        let mut bridges: BTreeSet<String> =
            links.iter().filter(|link| kind(link).as_deref() == Some("bridge")).map(ifname).collect();
        // A bridge's gateway in a VLAN is a veth "BRIDGE.VLAN" and its other end, a port of the bridge.
        for link in links.iter().filter(|link| kind(link).as_deref() == Some("veth")) {
            let name = ifname(link);
            let bridge =
                name.rsplit_once('.').filter(|(_, vlan)| vlan.parse::<u16>().is_ok()).map(|(bridge, _)| bridge);
            if bridge.is_some_and(|bridge| bridges.contains(bridge)) {
                bridges.extend(link.get("link").and_then(Value::as_str).map(str::to_owned));
                bridges.insert(name);
            }
        }
        let of_bridge = |value: &Value, key: &str| {
            value.get(key).and_then(Value::as_str).is_some_and(|device| bridges.contains(device))
        };
        for link in &links {
            let keys = ["ifname", "mtu", "address", "txqlen", "promiscuity", "allmulti", "ifalias", "group", "master"];
            let mut seen: Map<String, Value> =
                keys.iter().filter_map(|key| Some(((*key).to_owned(), link.get(*key)?.clone()))).collect();
            // Promiscuity counts the ports of a bridge, captures and more; what a plugin sets is a flag.
            seen.remove("promiscuity");
            let up = link.get("flags").and_then(Value::as_array).is_some_and(|flags| flags.contains(&"UP".into()));
            self.add(
                format!("{name} link {} up={up} kind={:?}", Value::from(seen), kind(link)),
                of_bridge(link, "ifname"),
            );
        }
        for link in &links {
            for address in link.get("addr_info").and_then(Value::as_array).into_iter().flatten() {
                let (local, length) = (&address["local"], &address["prefixlen"]);
                if made_by_the_kernel(local) {
                    continue;
                }
                self.add(format!("{name} addr {} {local}/{length}", ifname(link)), of_bridge(link, "ifname"));
            }
        }
        for (kind, key, entries) in [
            ("route", "dev", routes),
            ("rule", "", rules),
            ("rule", "", json_list(node, place, "ip -6 -j rule")?),
            ("qdisc", "dev", view(node, place, "qdisc")?),
            ("vlan", "ifname", view(node, place, "vlan")?),
        ] {
            for entry in entries {
                let default_qdisc = matches!(entry.get("kind").and_then(Value::as_str), Some("noop" | "noqueue"));
                if default_qdisc || entry.get("dst").is_some_and(made_by_the_kernel) {
                    continue;
                }
                // Comes and goes with the carrier of its link.
                let entry = steady(&entry, &["flags", "metrics", "offloaded", "options"]);
                self.add(format!("{name} {kind} {entry}"), of_bridge(&entry, key));
            }
        }
        for entry in neighbours {
            let permanent =
                entry.get("state").and_then(Value::as_array).is_some_and(|s| s.contains(&"PERMANENT".into()));
            if permanent {
                self.add(format!("{name} neigh {}", steady(&entry, &[])), of_bridge(&entry, "dev"));
            }
        }
        self.firewall(name, &view(node, place, "nft")?);
        let names: Vec<String> = links.iter().map(ifname).chain(["all".to_owned(), "default".to_owned()]).collect();
        for (key, value) in node.at(place, move || sysctls(&names))? {
            let of_bridge = key.split('/').nth(3).is_some_and(|device| bridges.contains(device));
            self.add(
                format!("{name} sysctl {key}={value}"),
                of_bridge || key.ends_with("forward") || key.ends_with("forwarding"),
            );
        }
        Ok(())
    }

    fn firewall(&mut self, name: &str, objects: &[Value]) {
        for object in objects {
            let Some((kind, body)) = object.as_object().and_then(|object| object.iter().next()) else { continue };
            match kind.as_str() {
                "metainfo" => {}
                "set" | "map" => {
                    let mut bare = body.clone();
                    let elements = bare.as_object_mut().and_then(|bare| bare.remove("elem"));
                    let identity = format!("{} {} {}", body["family"], body["table"], body["name"]);
                    // A set with fixed content (multicast ranges) is part of the static rules.
                    let fixed = body.get("flags").is_some_and(|flags| flags.to_string().contains("constant"));
                    self.add(format!("{name} nft {kind} {}", steady(&bare, &[])), true);
                    for element in elements.as_ref().and_then(Value::as_array).into_iter().flatten() {
                        self.add(format!("{name} nft element {identity} {}", steady(element, &[])), fixed);
                    }
                }
                "rule" => self.add(format!("{name} nft rule {}", steady(body, &[])), !speaks_of_an_attachment(body)),
                _ => self.add(format!("{name} nft {kind} {}", steady(body, &[])), true),
            }
        }
    }

    fn state(&mut self, node: &Node) -> Result<()> {
        for folder in ["/run", "/var/lib/cni", "/var/lib/sandwire", "/etc/cni", "/opt/cni/bin", "/usr/lib/sandwire"] {
            // What is longer is told by its length: the compiled components are megabytes.
            for (path, length, content) in node.files_shorter_than(200, folder)? {
                let path = path.to_string_lossy().into_owned();
                let file = path.rsplit('/').next().unwrap_or_default();
                // Locks, cursors, the index of leases and the notes of a network belong to the network.
                let shared = file == "lock"
                    || file.starts_with("last_reserved_ip.")
                    || path.starts_with("/run/sandwire/journal/locks/")
                    || path.starts_with("/var/lib/sandwire/leases/")
                    || (path.starts_with("/var/lib/sandwire/notes/") && path.contains("/plugin/"))
                    // Cases put files of other programs there.
                    || (path.starts_with("/run/") && !path.starts_with("/run/sandwire/"));
                let shown = match std::str::from_utf8(&content) {
                    Ok(text) if length < 200 => format!("{text:?}"),
                    _ => format!("{length} bytes"),
                };
                self.add(format!("file {path} {shown}"), shared);
            }
        }
        Ok(())
    }

    fn differences(&self, before: &Self, all: bool) -> Vec<String> {
        // A pod that is only in one of them says nothing.
        let counts = |line: &str, shared: bool| {
            let place = line.split(' ').next().unwrap_or_default();
            let known =
                place == "file" || place == "no" || (self.places.contains(place) && before.places.contains(place));
            known && (all || !shared)
        };
        let missing = before.lines.iter().filter(|(line, _)| !self.lines.contains_key(*line));
        let extra = self.lines.iter().filter(|(line, _)| !before.lines.contains_key(*line));
        let tagged = missing.map(|entry| ('-', entry)).chain(extra.map(|entry| ('+', entry)));
        tagged
            .filter(|(_, (line, shared))| counts(line, **shared))
            .map(|(sign, (line, _))| format!("{sign} {line}"))
            .collect()
    }

    /// What is there now and wasn't before (`+`), or was and isn't (`-`); without what attachments share.
    pub fn attachments_since(&self, before: &Self) -> Vec<String> {
        self.differences(before, false)
    }

    /// Nothing of any attachment was added or taken away.
    ///
    /// # Errors
    /// With the list of what was.
    pub fn assert_same_attachments(&self, before: &Self) -> Result<()> {
        nothing(&self.differences(before, false))
    }

    /// As `assert_same_attachments`, but the journal may hold what takes a call to an agent back that was sent and not
    /// answered: whether it did something, nobody here can know.
    ///
    /// # Errors
    /// With the list of what else is there.
    pub fn assert_only_undo_left(&self, before: &Self) -> Result<()> {
        let mut differences = self.differences(before, false);
        differences.retain(|line| !line.contains(" file /run/sandwire/journal/"));
        nothing(&differences)
    }

    /// Nothing at all changed, shared things included.
    ///
    /// # Errors
    /// With the list of what did.
    pub fn assert_unchanged(&self, before: &Self) -> Result<()> {
        nothing(&self.differences(before, true))
    }
}

fn nothing(differences: &[String]) -> Result<()> {
    if !differences.is_empty() {
        bail!("the node isn't as it was:\n  {}", differences.join("\n  "));
    }
    Ok(())
}

/// `value` without what changes by itself.
fn steady(value: &Value, also: &[&str]) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(key, _)| !VOLATILE.contains(&key.as_str()) && !also.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), steady(value, also)))
            .collect(),
        Value::Array(list) => list.iter().map(|value| steady(value, also)).collect(),
        other => other.clone(),
    }
}

/// A rule that names an address, a veth, or has a comment is somebody's; any other is there for all.
fn speaks_of_an_attachment(rule: &Value) -> bool {
    match rule {
        Value::Object(map) => map.keys().any(|key| key == "comment") || map.values().any(speaks_of_an_attachment),
        Value::Array(list) => list.iter().any(speaks_of_an_attachment),
        Value::String(text) => {
            text.starts_with("veth")
                || text
                    .parse::<IpAddr>()
                    .is_ok_and(|ip| !ip.is_multicast() && !ip.is_loopback() && !ip.is_unspecified())
        }
        _ => false,
    }
}

/// Link-local and loopback addresses, and the routes for them and for multicast, follow the carrier of their link when the
/// kernel gets to it, not the call that made the link.
fn made_by_the_kernel(address: &Value) -> bool {
    let text = address.as_str().unwrap_or_default();
    ["fe80:", "ff00:", "127.", "::1"].iter().any(|start| text.starts_with(start)) || text == "multicast"
}

/// Values of the current namespace of the calling thread.
fn sysctls(links: &[String]) -> Vec<(String, String)> {
    let mut keys: Vec<String> = vec!["net/ipv4/ip_forward".into()];
    for family in ["ipv4", "ipv6"] {
        for link in links {
            keys.extend(SYSCTLS.iter().map(|key| format!("net/{family}/conf/{link}/{key}")));
        }
    }
    let read = |key: String| {
        let value = std::fs::read_to_string(format!("/proc/sys/{key}")).ok()?;
        Some((key, value.trim().to_owned()))
    };
    keys.into_iter().filter_map(read).collect()
}
