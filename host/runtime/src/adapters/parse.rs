//! The host's own parsing of what guests say: every string is checked here before it goes anywhere.

use crate::bindings::{routes, types};
use crate::handles::{LinkHandle, NetnsHandle, Right};
use crate::refusal::{Answer, Refusal};
use ipnet::IpNet;
use sandwire_kernel::{AddressSpec, Mac, PolicyRule, RouteSpec};
use std::net::IpAddr;
use std::str::FromStr;
use wasmtime::component::{Resource, ResourceTable};

/// An IP address.
pub(crate) fn ip(text: &str) -> Answer<IpAddr> {
    text.parse().map_err(|_| Refusal::invalid(format!("{text:?} is no IP address")))
}

/// An address with a prefix length.
pub(crate) fn cidr(text: &str) -> Answer<IpNet> {
    text.parse()
        .map_err(|_| Refusal::invalid(format!("{text:?} is no address with a prefix length, such as 10.1.2.3/24")))
}

/// An Ethernet address that one interface may have.
pub(crate) fn mac(text: &str) -> Answer<Mac> {
    let mac = Mac::from_str(text)?;
    let [first, ..] = mac.0;
    // The kernel answers EADDRNOTAVAIL to these (is_valid_ether_addr); say why.
    if first & 1 == 1 || mac.0 == [0; 6] {
        return Err(Refusal::invalid(format!("{text:?} is a group address or zero: no interface can have it")));
    }
    Ok(mac)
}

/// An interface name, as the kernel's dev_valid_name and CNI's ValidateInterfaceName have it.
pub(crate) fn ifname(text: &str) -> Answer<String> {
    match sandwire_cni::names::check_interface_name(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(Refusal::invalid(format!("{}: {text:?}", error.msg))),
    }
}

/// A key below /proc/sys/net, split.
pub(crate) fn sysctl(key: &str) -> Answer<Vec<&str>> {
    let parts: Vec<&str> = key.split('/').collect();
    let good = parts.len() >= 2
        && parts.iter().all(|part| {
            !part.is_empty()
                && *part != "."
                && *part != ".."
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:@".contains(&b))
        });
    match good {
        true => Ok(parts),
        false => {
            Err(Refusal::invalid(format!("{key:?} is no sysctl below /proc/sys/net, such as \"ipv4/ip_forward\"")))
        }
    }
}

/// A number as text.
pub(crate) fn number<T: FromStr>(key: &str, text: &str) -> Answer<T> {
    text.parse().map_err(|_| Refusal::invalid(format!("{key} = {text:?} is no number in range")))
}

/// Of an option that this release does not have.
pub(crate) fn unknown(key: &str) -> Refusal {
    Refusal::Guest(types::Error::Unsupported(format!("this release of sandwire does not know the option {key:?}")))
}

/// An address for a link.
pub(crate) fn address(address: &types::Address) -> Answer<AddressSpec> {
    let mut spec = AddressSpec::new(cidr(&address.cidr)?);
    spec.no_dad = address.no_dad;
    spec.no_prefix_route = address.no_prefix_route;
    for (key, value) in &address.extra {
        match key.as_str() {
            "peer" => spec.peer = Some(cidr(value)?),
            "scope" => spec.scope = Some(number(key, value)?),
            "metric" => spec.metric = Some(number(key, value)?),
            "label" => spec.label = Some(ifname(value)?),
            _ => return Err(unknown(key)),
        }
    }
    Ok(spec)
}

/// A route.
pub(crate) fn route(route: &types::Route) -> Answer<RouteSpec> {
    let mut spec = RouteSpec::new(cidr(&route.dst)?.trunc());
    spec.via = route.via.as_deref().map(ip).transpose()?;
    spec.src = route.src.as_deref().map(ip).transpose()?;
    spec.scope = route.scope;
    spec.table = route.table;
    spec.priority = route.priority;
    for (key, value) in &route.extra {
        match key.as_str() {
            "mtu" => spec.mtu = Some(number(key, value)?),
            "advmss" => spec.advmss = Some(number(key, value)?),
            "onlink" => spec.onlink = value == "true" || value == "1",
            "protocol" => spec.protocol = Some(number(key, value)?),
            _ => return Err(unknown(key)),
        }
    }
    Ok(spec)
}

/// The same in the other direction.
pub(crate) fn route_out(spec: &RouteSpec) -> types::Route {
    let mut extra = Vec::new();
    let mut put = |key: &str, value: Option<String>| extra.extend(value.map(|value| (key.to_owned(), value)));
    put("mtu", spec.mtu.map(|v| v.to_string()));
    put("advmss", spec.advmss.map(|v| v.to_string()));
    put("onlink", spec.onlink.then(|| "true".to_owned()));
    put("protocol", spec.protocol.map(|v| v.to_string()));
    types::Route {
        dst: spec.dst.to_string(),
        via: spec.via.map(|v| v.to_string()),
        src: spec.src.map(|v| v.to_string()),
        scope: spec.scope,
        table: spec.table,
        priority: spec.priority,
        extra,
    }
}

/// A policy rule.
pub(crate) fn policy_rule(rule: &routes::Rule) -> Answer<PolicyRule> {
    let prefix =
        |text: &Option<String>| Ok::<_, Refusal>(text.as_deref().map(cidr).transpose()?.map(|net| net.trunc()));
    let mut parsed = PolicyRule {
        src: prefix(&rule.src)?,
        dst: prefix(&rule.dst)?,
        table: rule.table,
        priority: rule.priority,
        iif: None,
        oif: None,
        fwmark: None,
        not: false,
    };
    // The kernel takes it for "not said" and would choose one.
    if rule.table == 0 {
        return Err(Refusal::invalid("0 is no routing table"));
    }
    for (key, value) in &rule.extra {
        match key.as_str() {
            "iif" => parsed.iif = Some(ifname(value)?),
            "oif" => parsed.oif = Some(ifname(value)?),
            "fwmark" => parsed.fwmark = Some(mark(key, value)?),
            "not" => parsed.not = value == "true" || value == "1",
            _ => return Err(unknown(key)),
        }
    }
    Ok(parsed)
}

/// "MARK" or "MARK/MASK", hexadecimal with 0x.
fn mark(key: &str, text: &str) -> Answer<(u32, u32)> {
    let one = |text: &str| match text.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => u32::from_str_radix(digits, 16)
            .map_err(|_| Refusal::invalid(format!("{key} = {text:?} has more than 32 bits"))),
        _ => number(key, text),
    };
    match text.split_once('/') {
        Some((mark, mask)) => Ok((one(mark)?, one(mask)?)),
        None => Ok((one(text)?, u32::MAX)),
    }
}

/// The same in the other direction.
pub(crate) fn policy_rule_out(rule: &PolicyRule) -> routes::Rule {
    let mut extra = Vec::new();
    let mut put = |key: &str, value: Option<String>| extra.extend(value.map(|value| (key.to_owned(), value)));
    put("iif", rule.iif.clone());
    put("oif", rule.oif.clone());
    put("fwmark", rule.fwmark.map(|(mark, mask)| format!("{mark:#x}/{mask:#x}")));
    put("not", rule.not.then(|| "true".to_owned()));
    routes::Rule {
        src: rule.src.map(|net| net.to_string()),
        dst: rule.dst.map(|net| net.to_string()),
        table: rule.table,
        priority: rule.priority,
        extra,
    }
}

/// Options of `links.device` and `links.changes` that both have.
pub(crate) struct LinkOptions {
    /// Packets.
    pub(crate) txqlen: Option<u32>,
    /// ifalias.
    pub(crate) alias: Option<String>,
    /// Link group.
    pub(crate) group: Option<u32>,
}

/// Reads `extra` of a device or a change.
pub(crate) fn link_options(extra: &[(String, String)]) -> Answer<LinkOptions> {
    let mut options = LinkOptions { txqlen: None, alias: None, group: None };
    for (key, value) in extra {
        match key.as_str() {
            "txqlen" => options.txqlen = Some(number(key, value)?),
            // IFALIASZ is 256 with the end mark.
            "alias" if value.len() < 256 && !value.contains('\0') => options.alias = Some(value.clone()),
            "alias" => return Err(Refusal::invalid("an alias has at most 255 bytes")),
            "group" => options.group = Some(number(key, value)?),
            _ => return Err(unknown(key)),
        }
    }
    Ok(options)
}

/// The namespace behind a handle.
pub(crate) fn netns(table: &ResourceTable, handle: &Resource<NetnsHandle>) -> Answer<NetnsHandle> {
    Ok(*table.get(handle)?)
}

/// The link behind a handle, if the guest has at least `right` to it.
pub(crate) fn link(
    table: &ResourceTable,
    handle: &Resource<LinkHandle>,
    right: Right,
    what: &str,
) -> Answer<LinkHandle> {
    let link = table.get(handle)?;
    if link.right < right {
        let remedy = match right {
            Right::Own => "only links that this attachment made, and its interface in the container, can be",
            Right::Change => "policy does not list it under links.change",
            Right::Use => "policy does not list it under links.use",
            Right::See => "",
        };
        return Err(Refusal::denied(format!("may not {what} {:?}: {remedy}", link.name)));
    }
    Ok(link.clone())
}
