//! Addresses of a DHCP server, Debian's dnsmasq: given, renewed, and given back by whoever has to; what it is told and asked for;
//! beside the reference and its daemon.

mod given;
mod native;
pub(crate) mod renewed;

use crate::common::{Bench, apply};
use sandwire_harness::Node;
use sandwire_harness::dhcp::{self, Server};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A bridge with an uplink to the server.
const BRIDGED: &str = "ip netns add outside
    ip link add cni0 type bridge; ip link set cni0 up
    ip link add uplink type veth peer name wire netns outside; ip link set uplink master cni0 up
    ip -n outside addr add 10.1.2.1/24 dev wire; ip -n outside link set wire up";
/// An interface of the node that leads to it.
const DIRECT: &str = "ip netns add outside
    ip link add eth7 type veth peer name wire netns outside; ip link set eth7 up
    ip -n outside addr add 10.1.2.1/24 dev wire; ip -n outside link set wire up";

/// A server with more of dnsmasq's options.
fn serve(node: &Node, options: &[&str]) -> Server {
    Server::start(node, options).unwrap()
}

fn log(node: &Node) -> String {
    dhcp::log(node).unwrap()
}

fn leases(node: &Node) -> Vec<[String; 4]> {
    dhcp::leases(node).unwrap()
}

/// How many messages of this kind the server has seen or sent.
fn count(node: &Node, kind: &str) -> usize {
    log(node).matches(&format!(" {kind}(wire) ")).count()
}

/// The server reads its socket when it gets to it.
fn until(node: &Node, what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "{what}: not yet; its log:\n{}", log(node));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A client identifier as dnsmasq writes it.
fn hex(bytes: &str) -> String {
    bytes.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn given_back(node: &Node, address: &str) {
    until(node, &format!("{address} is given back"), || {
        log(node).contains(&format!("DHCPRELEASE(wire) {address} "))
            && leases(node).iter().all(|[_, given, ..]| given != address)
    });
}

/// A network of this plugin; `ipam` has keys beside `type`.
fn network(plugin: &str, ipam: &Value) -> Value {
    let mut config = json!({"cniVersion": "1.0.0", "name": "mynet", "type": plugin, "ipam": {"type": "dhcp"}});
    match plugin {
        "bridge" => config["bridge"] = "cni0".into(),
        "macvlan" | "ipvlan" => config["master"] = "eth7".into(),
        _ => config["device"] = "eth7".into(),
    }
    config["ipam"].as_object_mut().unwrap().extend(ipam.as_object().unwrap().clone());
    config
}

fn bridge() -> Value {
    network("bridge", &json!({}))
}

/// A subnet, and nothing else.
fn bare() -> Value {
    network("bridge", &json!({"request": [{"skipDefault": true, "option": "subnet-mask"}]}))
}

/// A policy whose calls may take so long.
pub(crate) fn deadline(bench: &mut Bench, ms: u32) {
    let policy = String::from_utf8(bench.node.read("/etc/sandwire/policy.toml").unwrap().unwrap()).unwrap();
    let other = policy.replace("deadline_ms = 30000", &format!("deadline_ms = {ms}"));
    assert_ne!(policy, other);
    apply(&bench.node, &other);
    bench.before = bench.node.snapshot().unwrap();
}

/// The first address of a result, without its length.
fn address(result: &Value) -> String {
    result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().to_owned()
}

fn ping(bench: &Bench) {
    bench.node.sh_at(&bench.pod.place(), "ping -c 1 -W 5 10.1.2.1").unwrap();
}
