//! What the kernel and the lease directory have, as fields with values.

use crate::names::{Names, flatten};
use anyhow::Result;
use sandwire_harness::{Node, Place};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Fields with values, comparable between nodes.
pub(crate) type Fields = BTreeMap<String, String>;

/// Below net/ipv4/conf/LINK and net/ipv6/conf/LINK: what plugins write.
const SYSCTLS: [&str; 9] = [
    "forwarding",
    "route_localnet",
    "arp_notify",
    "accept_dad",
    "enhanced_dad",
    "disable_ipv6",
    "accept_ra",
    "ndisc_notify",
    "proxy_arp",
];

/// The host and these pods.
pub(crate) fn look(node: &Node, pods: &[(String, Place)], names: &mut Names) -> Result<Fields> {
    let mut fields = Fields::new();
    network(node, "host", &Place::Host, names, &mut fields)?;
    for (name, place) in pods {
        network(node, name, place, names, &mut fields)?;
    }
    for (path, content) in node.files("/var/lib/cni")? {
        fields.insert(format!("file {}", path.display()), String::from_utf8_lossy(&content).into_owned());
    }
    Ok(fields)
}

fn network(node: &Node, name: &str, place: &Place, names: &mut Names, fields: &mut Fields) -> Result<()> {
    let links = node.view(place, "link")?;
    let mut known = Vec::new();
    for link in &links {
        let ifname = names.replace(text(link, "ifname"));
        let mut seen: Map<String, Value> = pick(link, &["mtu", "address", "master", "txqlen", "ifalias"]);
        let flags = link.get("flags").and_then(Value::as_array);
        for flag in ["UP", "PROMISC", "ALLMULTI", "NOARP"] {
            seen.insert(flag.to_lowercase(), flags.is_some_and(|flags| flags.contains(&flag.into())).into());
        }
        if let Some(kind) = link.pointer("/linkinfo/info_kind") {
            seen.insert("kind".into(), kind.clone());
        }
        if let Some(data) = link.pointer("/linkinfo/info_data") {
            let data = pick(data, &["mode", "vlan_filtering", "stp_state", "id", "protocol", "macaddr_mode"]);
            seen.insert("data".into(), data.into());
        }
        if let Some(data) = link.pointer("/linkinfo/info_slave_data") {
            let data = pick(data, &["hairpin", "isolated", "learning", "flood", "guard"]);
            seen.insert("port".into(), data.into());
        }
        put(&format!("{name} link {ifname}"), &seen.into(), names, fields);
        known.push(text(link, "ifname").to_owned());
    }
    for link in node.view(place, "addr")? {
        let ifname = text(&link, "ifname");
        for address in link.get("addr_info").and_then(Value::as_array).into_iter().flatten() {
            if text(address, "local").starts_with("fe80:") {
                continue;
            }
            let key = format!(
                "{name} addr {ifname} {}/{}",
                text(address, "local"),
                address.get("prefixlen").unwrap_or(&Value::Null)
            );
            put(&key, &pick(address, &["scope", "broadcast"]).into(), names, fields);
        }
    }
    for (view, keys) in [
        ("route", ["gateway", "prefsrc", "scope", "metric", "metrics", "type"]),
        ("route6", ["gateway", "prefsrc", "", "metric", "metrics", "type"]),
        ("rule", ["src", "dst", "table", "action", "iif", "oif"]),
    ] {
        for entry in node.view(place, view)? {
            let dst = text(&entry, "dst");
            let kernels = matches!(text(&entry, "table"), "local")
                || ["fe80:", "ff00:", "multicast", "127.", "::1"].iter().any(|start| dst.starts_with(start));
            if view != "rule" && kernels {
                continue;
            }
            let via = format!("{}{}", text(&entry, "dev"), text(&entry, "table"));
            let key = format!("{name} {view} {dst} {via} {}", entry.get("priority").unwrap_or(&Value::Null));
            put(&key, &pick(&entry, &keys).into(), names, fields);
        }
    }
    for entry in node.view(place, "qdisc")? {
        if matches!(text(&entry, "kind"), "noqueue" | "noop") {
            continue;
        }
        let key = format!("{name} qdisc {} {}", text(&entry, "dev"), text(&entry, "kind"));
        put(&key, &pick(&entry, &["root", "handle", "options"]).into(), names, fields);
    }
    for entry in node.view(place, "vlan")? {
        put(
            &format!("{name} vlan {}", text(&entry, "ifname")),
            entry.get("vlans").unwrap_or(&Value::Null),
            names,
            fields,
        );
    }
    let read = move || {
        let keys = ["ipv4", "ipv6"].into_iter().flat_map(|family| {
            let known = &known;
            known.iter().flat_map(move |link| SYSCTLS.map(|key| format!("{family}/conf/{link}/{key}")))
        });
        let keys = keys.chain(["ipv4/ip_forward".into(), "ipv6/conf/all/forwarding".into()]);
        let value = |key: String| Some((std::fs::read_to_string(format!("/proc/sys/net/{key}")).ok()?, key));
        keys.filter_map(value).collect::<Vec<_>>()
    };
    for (value, key) in node.at(place, read)? {
        fields.insert(names.replace(&format!("{name} sysctl {key}")), value.trim().to_owned());
    }
    Ok(())
}

fn put(key: &str, value: &Value, names: &mut Names, fields: &mut Fields) {
    let mut lines = BTreeMap::new();
    flatten(key, value, &mut lines);
    for (key, value) in lines {
        let (key, value) = (names.replace(&key), names.replace(&value));
        fields.insert(key, value);
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn pick(value: &Value, keys: &[&str]) -> Map<String, Value> {
    keys.iter().filter_map(|key| Some(((*key).to_owned(), value.get(*key)?.clone()))).collect()
}
