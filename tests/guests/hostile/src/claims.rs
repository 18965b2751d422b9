//! What is not the attachment's is said to be: addresses, gateways, ports of the node, configurations, a link's name.

use crate::{Act, NOTHING, succeeded, text};
use sandwire_plugin::Failure;
use sandwire_plugin::host::{
    self, addresses::Address, conntrack, delegate, firewall, links, links::Device, routes, routes::Route, shared,
};
use serde_json::Value;

pub(crate) const ACTS: &[(&str, Act)] = &[
    ("claim", claim),
    ("claim-by-delegate", claim_by_delegate),
    ("another-configuration", another_configuration),
    ("equal-keys", equal_keys),
    ("given-back", given_back),
    ("given-back-with-its-route", given_back_with_its_route),
    ("flood-bridges", flood_bridges),
    ("delegate-verb", delegate_verb),
    ("gateway-of-a-bridge", gateway_of_a_bridge),
    ("switch-off", switch_off),
    ("forward-port", forward_port),
    ("forget-port", forget_port),
    ("give-a-name-free", give_a_name_free),
];

/// A result with an address of its own choosing.
fn claim(config: &Value) -> Result<String, Failure> {
    let ip = serde_json::json!({"address": text(config, "address"), "gateway": config.get("gateway")});
    Ok(serde_json::json!({"cniVersion": "1.1.0", "ips": [ip]}).to_string())
}

/// A delegate, itself, that is no address manager, answers with the address; then the node is to have a route to it.
fn claim_by_delegate(config: &Value) -> Result<String, Failure> {
    let mut other = config.clone();
    if let Some(object) = other.as_object_mut() {
        object.insert("act".into(), "claim".into());
    }
    delegate::add("hostile", &other.to_string(), &[])?;
    let (node, container) = (host::netns(), host::require_container()?);
    let (outside, _) = links::create_veth(&Device::new(&node).up(), &Device::new(&container).named("eth0"))?;
    routes::add(&outside, &Route::new(text(config, "address")))?;
    succeeded("a route of the node")
}

/// The address manager with another subnet.
fn another_configuration(config: &Value) -> Result<String, Failure> {
    let mut other = config.clone();
    if let Some(ipam) = other.get_mut("ipam").and_then(Value::as_object_mut) {
        ipam.insert("subnet".into(), "8.8.8.0/24".into());
    }
    delegate::add(text(&config["ipam"], "type"), &other.to_string(), &[])?;
    succeeded("addresses of somebody else's network")
}

/// Of equal keys some readers take the last one, and others all of them.
fn equal_keys(config: &Value) -> Result<String, Failure> {
    let whole = config.to_string();
    let injected = r#"{"ipam":{"ranges":[[{"subnet":"8.8.8.0/24"}]],"dataDir":"/run/cni-evil"},"#;
    delegate::add(text(&config["ipam"], "type"), &whole.replacen('{', injected, 1), &[])
}

/// An address is given back, and used all the same.
fn given_back(config: &Value) -> Result<String, Failure> {
    let (plugin, config) = (text(&config["ipam"], "type"), config.to_string());
    let answer = delegate::add(plugin, &config, &[])?;
    delegate::del(plugin, &config, &[])?;
    Ok(answer)
}

/// The same, but for the route of the node to it.
fn given_back_with_its_route(config: &Value) -> Result<String, Failure> {
    let (plugin, config) = (text(&config["ipam"], "type"), config.to_string());
    delegate::add(plugin, &config, &[])?;
    let (node, container) = (host::netns(), host::require_container()?);
    let (outside, _) = links::create_veth(&Device::new(&node).up(), &Device::new(&container).named("eth0"))?;
    routes::add(&outside, &Route::new("10.8.0.2/32"))?;
    delegate::del(plugin, &config, &[])?;
    Ok(NOTHING.to_owned())
}

/// What attachments share nobody takes back.
fn flood_bridges(_: &Value) -> Result<String, Failure> {
    let node = host::netns();
    for n in 0..2000 {
        shared::ensure_bridge(&Device::new(&node).named(&format!("flood{n}")), false)?;
    }
    succeeded("2,000 bridges")
}

fn delegate_verb(config: &Value) -> Result<String, Failure> {
    delegate::gc(text(config, "plugin"), &config.to_string(), &[])?;
    succeeded("GC within ADD")
}

fn gateway_of_a_bridge(config: &Value) -> Result<String, Failure> {
    let bridge = shared::ensure_bridge(&Device::new(&host::netns()).named("cni0").up(), false)?;
    let force = config.get("force").and_then(Value::as_bool).unwrap_or_default();
    shared::ensure_address(&bridge, &Address::new(text(config, "address")), force)?;
    succeeded("an address of the bridge")
}

fn switch_off(config: &Value) -> Result<String, Failure> {
    shared::ensure_sysctl(&host::netns(), text(config, "key"), "0")?;
    succeeded("switched it off")
}

fn forward_port(config: &Value) -> Result<String, Failure> {
    let rules = firewall::open(&host::netns(), "ports")?;
    rules.forward_port(&firewall::PortForward {
        protocol: firewall::Protocol::Tcp,
        host_ip: None,
        host_port: config.get("port").and_then(Value::as_u64).and_then(|port| port.try_into().ok()).unwrap_or_default(),
        to: text(config, "to").to_owned(),
        to_port: 80,
        masquerade: false,
        extra: Vec::new(),
    });
    rules.commit()?;
    succeeded("took the port")
}

fn forget_port(_: &Value) -> Result<String, Failure> {
    conntrack::flush(&host::netns(), firewall::Protocol::Tcp, None, 22)?;
    succeeded("forgot others' connections")
}

/// A link of its own is moved to the node and removed by its other end: whoever gets its name next is somebody else.
fn give_a_name_free(config: &Value) -> Result<String, Failure> {
    let (node, container) = (host::netns(), host::require_container()?);
    let (moved, other) =
        links::create_veth(&Device::new(&container).named("left5"), &Device::new(&container).named("left6"))?;
    links::move_to(&moved, &node, text(config, "link"))?;
    links::remove(&other)?;
    Ok(NOTHING.to_owned())
}
