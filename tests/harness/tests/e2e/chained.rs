//! Plugins later in a chain and macvlans beside the reference: attached by one, deleted by the other.

use crate::common::bridge;
use sandwire_harness::{Node, Pod, Snapshot, Verb};
use serde_json::{Value, json};

struct Bench {
    node: Node,
    pod: Pod,
    before: Snapshot,
}

fn bench() -> Bench {
    let node = Node::installed().unwrap();
    node.sh("ip link add m0 type veth peer name m0p; ip link set m0 up; ip link set m0p up").unwrap();
    let pod = node.pod("a").unwrap();
    let before = node.snapshot().unwrap();
    Bench { node, pod, before }
}

fn macvlan() -> Value {
    json!({"cniVersion": "1.0.0", "name": "mynet", "type": "macvlan", "master": "m0", "mtu": 1400,
        "ipam": {"type": "host-local", "subnet": "10.1.2.0/24", "routes": [{"dst": "0.0.0.0/0"}]}})
}

fn tuning() -> Value {
    json!({"cniVersion": "1.0.0", "name": "mynet", "type": "tuning", "mac": "c2:11:22:33:44:55", "mtu": 1400,
        "promisc": true, "allmulti": true})
}

impl Bench {
    /// A call of ours or of the native plugin.
    fn call(&self, native: bool, verb: Verb, config: &Value, prev: Option<&Value>) -> sandwire_harness::Outcome {
        let mut config = config.clone();
        if let Some(prev) = prev {
            config["prevResult"] = prev.clone();
        }
        let plugin = config["type"].as_str().unwrap().to_owned();
        let call = self.node.call(&plugin, verb).pod(&self.pod).ifname("eth0").config(&config);
        if native { call.native() } else { call }.run().unwrap()
    }

    fn eth0(&self) -> Value {
        let text = self.node.sh_at(&self.pod.place(), "ip -d -j link show eth0").unwrap();
        serde_json::from_str::<Value>(&text).unwrap()[0].clone()
    }

    fn nothing_left(&self) {
        self.node.snapshot().unwrap().assert_same_attachments(&self.before).unwrap();
    }
}

#[test]
fn native_macvlan_then_our_del() {
    let bench = bench();
    for gone in [false, true] {
        let result = bench.call(true, Verb::Add, &macvlan(), None).result().unwrap();
        bench.call(false, Verb::Check, &macvlan(), Some(&result)).done().unwrap();
        if gone {
            bench.node.sh("ip link del m0").unwrap();
        }
        bench.call(false, Verb::Del, &macvlan(), Some(&result)).done().unwrap();
        bench.call(false, Verb::Del, &macvlan(), None).done().unwrap();
        if gone {
            bench.node.sh("ip link add m0 type veth peer name m0p; ip link set m0 up; ip link set m0p up").unwrap();
        }
        bench.node.sh("! ls /var/lib/cni/networks/mynet/10.1.2.2").unwrap();
        bench.node.sh_at(&bench.pod.place(), "! ip link show eth0").unwrap();
    }
}

#[test]
fn our_macvlan_then_native_del() {
    let bench = bench();
    let result = bench.call(false, Verb::Add, &macvlan(), None).result().unwrap();
    bench.call(true, Verb::Check, &macvlan(), Some(&result)).done().unwrap();
    bench.call(true, Verb::Del, &macvlan(), Some(&result)).done().unwrap();
    // Our journal still knows of it, and ours must cope.
    let differences = bench.node.snapshot().unwrap().attachments_since(&bench.before);
    assert!(differences.iter().all(|line| line.contains("/run/sandwire/journal/")), "{differences:?}");
    bench.call(false, Verb::Add, &macvlan(), None).result().unwrap();
    bench.call(false, Verb::Del, &macvlan(), None).done().unwrap();
    bench.nothing_left();
}

/// A chain of native plugins, deleted by ours; the interface is what it was before the plugin that made it removes it.
#[test]
fn native_tuning_then_our_del() {
    let bench = bench();
    let made = bench.call(true, Verb::Add, &bridge(), None).result().unwrap();
    let mac = bench.eth0()["address"].clone();
    let result = bench.call(true, Verb::Add, &tuning(), Some(&made)).result().unwrap();
    assert_eq!(bench.eth0()["address"], "c2:11:22:33:44:55");
    bench.call(false, Verb::Check, &bridge(), Some(&result)).done().unwrap();
    bench.call(false, Verb::Check, &tuning(), Some(&result)).done().unwrap();
    bench.node.sh("test -f /run/cni/tuning/pod-a_eth0.json").unwrap();
    bench.call(false, Verb::Del, &tuning(), Some(&result)).done().unwrap();
    let link = bench.eth0();
    assert_eq!((&link["address"], &link["mtu"], &link["promiscuity"]), (&mac, &json!(1500), &json!(0)));
    bench.node.sh("! ls /run/cni/tuning/pod-a_eth0.json").unwrap();
    bench.call(false, Verb::Del, &bridge(), Some(&result)).done().unwrap();
    bench.nothing_left();
}

#[test]
fn our_tuning_then_native_del() {
    let bench = bench();
    let made = bench.call(false, Verb::Add, &bridge(), None).result().unwrap();
    let result = bench.call(false, Verb::Add, &tuning(), Some(&made)).result().unwrap();
    assert_eq!(result["interfaces"][2]["mac"], "c2:11:22:33:44:55");
    for config in [bridge(), tuning()] {
        bench.call(true, Verb::Check, &config, Some(&result)).done().unwrap();
    }
    for config in [tuning(), bridge()] {
        bench.call(true, Verb::Del, &config, Some(&result)).done().unwrap();
    }
    let differences = bench.node.snapshot().unwrap().attachments_since(&bench.before);
    assert!(differences.iter().all(|line| line.contains("/run/sandwire/journal/")), "{differences:?}");
    for config in [tuning(), bridge()] {
        bench.call(false, Verb::Del, &config, None).done().unwrap();
    }
    bench.nothing_left();
}

/// A DEL of a plugin later in the chain comes while the interface is still there, and must not wait for that.
#[test]
fn a_plugin_of_the_chain_that_is_no_longer_there() {
    let bench = bench();
    let made = bench.call(false, Verb::Add, &bridge(), None).result().unwrap();
    let before = bench.eth0();
    let result = bench.call(false, Verb::Add, &tuning(), Some(&made)).result().unwrap();
    bench.node.sh("mv /var/lib/sandwire/active/tuning.json /mnt/").unwrap();
    bench.call(false, Verb::Del, &tuning(), Some(&result)).done().unwrap();
    let after = bench.eth0();
    for key in ["address", "mtu", "promiscuity", "allmulti"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    bench.call(false, Verb::Del, &bridge(), Some(&result)).done().unwrap();
    bench.node.sh("mv /mnt/tuning.json /var/lib/sandwire/active/").unwrap();
    bench.nothing_left();
}

/// What an interface was may no longer be possible. That is no reason to keep it.
#[test]
fn a_setting_that_can_not_come_back() {
    let bench = bench();
    let mut own = macvlan();
    own["mtu"] = 0.into();
    let made = bench.call(false, Verb::Add, &own, None).result().unwrap();
    let config = json!({"cniVersion": "1.0.0", "name": "mynet", "type": "tuning", "mtu": 1300});
    let result = bench.call(false, Verb::Add, &config, Some(&made)).result().unwrap();
    bench.node.sh("ip link set m0 mtu 1400").unwrap();
    bench.call(false, Verb::Del, &config, Some(&result)).done().unwrap();
    bench.call(false, Verb::Del, &own, Some(&result)).done().unwrap();
    bench.node.sh("ip link set m0 mtu 1500").unwrap();
    bench.nothing_left();
}

/// JSON keeps one of equal keys, and nobody can see which.
#[test]
fn equal_sysctls() {
    let bench = bench();
    let text = r#"{"cniVersion": "1.0.0", "name": "mynet", "type": "tuning", "prevResult": {"cniVersion": "1.0.0"},
        "sysctl": {"net.ipv4.ip_forward": "1", "net.core.somaxconn": "5", "net.ipv4.ip_forward": "0"}}"#;
    let call = |verb| bench.node.call("tuning", verb).pod(&bench.pod).ifname("eth0").stdin(text).run().unwrap();
    for verb in [Verb::Add, Verb::Check] {
        let error = call(verb).error().unwrap();
        assert_eq!((error.code, error.msg.as_str()), (7, "duplicated sysctl keys are not allowed"));
    }
    // Whatever is in it: it must not be in the way of who comes next.
    call(Verb::Del).done().unwrap();
    bench.nothing_left();
}
