//! An interface of the node in a pod: beside the reference, in use, and given back by whoever has to.

use crate::common::{Bench, apply};
use sandwire_harness::Verb;
use serde_json::{Value, json};

/// A node with an interface `eth7`, whose other end is another machine.
fn bench() -> Bench {
    Bench::new(
        "ip netns add outside
         ip link add eth7 address 02:00:00:00:07:00 type veth peer name wire netns outside
         ip -n outside addr add 10.1.2.1/24 dev wire; ip -n outside link set wire up",
    )
}

fn config() -> Value {
    json!({"cniVersion": "1.0.0", "name": "mynet", "type": "host-device", "device": "eth7",
        "ipam": {"type": "host-local", "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.20", "routes": [{"dst": "0.0.0.0/0"}]}})
}

/// The interface of the node, if it is there.
fn eth7(bench: &Bench) -> Option<Value> {
    let text = bench.node.sh("ip -d -j link").unwrap();
    let links: Vec<Value> = serde_json::from_str(&text).unwrap();
    links.into_iter().find(|link| link["ifname"] == "eth7")
}

#[test]
fn native_then_ours() {
    let bench = bench();
    let result = bench.call(true, Verb::Add, &config(), None).result().unwrap();
    bench.call(false, Verb::Check, &config(), Some(&result)).done().unwrap();
    bench.call(false, Verb::Del, &config(), Some(&result)).done().unwrap();
    bench.call(false, Verb::Del, &config(), None).done().unwrap();
    bench.nothing_left();
}

#[test]
fn ours_then_native() {
    let bench = bench();
    let result = bench.call(false, Verb::Add, &config(), None).result().unwrap();
    bench.call(true, Verb::Check, &config(), Some(&result)).done().unwrap();
    bench.call(true, Verb::Del, &config(), Some(&result)).done().unwrap();
    // Debian's 1.1.1 leaves its alias.
    bench.node.sh("ip link set eth7 alias ''").unwrap();
    bench.only_a_journal_left();
    bench.call(false, Verb::Add, &config(), None).result().unwrap();
    bench.call(false, Verb::Del, &config(), None).done().unwrap();
    bench.nothing_left();
}

#[test]
fn in_use() {
    let bench = bench();
    bench.call(false, Verb::Add, &config(), None).result().unwrap();
    bench.node.sh_at(&bench.pod.place(), "ping -c 1 -W 5 10.1.2.1").unwrap();
    bench.call(false, Verb::Del, &config(), None).done().unwrap();
    bench.nothing_left();
}

/// The pod's root has made it its own, with another name in a bridge, and another link what it was.
#[test]
fn what_the_pod_has_made_of_it() {
    let bench = bench();
    bench.call(false, Verb::Add, &config(), None).result().unwrap();
    bench
        .node
        .sh_at(
            &bench.pod.place(),
            "ip link set eth0 down; ip link set eth0 name mine alias other; ip link add br0 type bridge; ip link set mine master br0
             ip link set mine up; ip link add eth0 type veth peer name eth9; ip link set eth0 alias eth7",
        )
        .unwrap();
    bench.call(false, Verb::Del, &config(), None).done().unwrap();
    let eth7 = eth7(&bench).unwrap();
    assert_eq!((&eth7["master"], &eth7["ifalias"]), (&Value::Null, &Value::Null));
    assert_eq!(eth7["address"], "02:00:00:00:07:00");
    bench.node.sh_at(&bench.pod.place(), "ip link del br0; ip link del eth0").unwrap();
    bench.call(false, Verb::Del, &config(), None).done().unwrap();
    bench.nothing_left();
}

/// The name has been given to another interface meanwhile: nothing is lost, and the next DEL succeeds.
#[test]
fn its_name_is_taken() {
    let bench = bench();
    bench.call(false, Verb::Add, &config(), None).result().unwrap();
    bench.node.sh("ip link add eth7 type veth peer name eth7p").unwrap();
    let error = bench.call(false, Verb::Del, &config(), None).error().unwrap();
    assert!(error.text().contains("\"eth7\" is there already"), "{}", error.text());
    bench.node.sh_at(&bench.pod.place(), "ip link show eth0").unwrap();
    bench.node.sh("ip link del eth7").unwrap();
    bench.call(false, Verb::Del, &config(), None).done().unwrap();
    assert_eq!(eth7(&bench).unwrap()["address"], "02:00:00:00:07:00");
    bench.nothing_left();
}

/// Also when the plugin does not run any more.
#[test]
fn the_host_gives_it_back() {
    let bench = bench();
    let result = bench.call(false, Verb::Add, &config(), None).result().unwrap();
    bench.node.sh("mv /var/lib/sandwire/active/host-device.json /mnt/").unwrap();
    bench.call(false, Verb::Del, &config(), Some(&result)).done().unwrap();
    assert_eq!(eth7(&bench).unwrap()["address"], "02:00:00:00:07:00");
    bench.node.sh("mv /mnt/host-device.json /var/lib/sandwire/active/").unwrap();
    bench.call(false, Verb::Del, &config(), None).done().unwrap();
    bench.nothing_left();
}

#[test]
fn policy_says_which() {
    let bench = bench();
    let policy = String::from_utf8(bench.node.read("/etc/sandwire/policy.toml").unwrap().unwrap()).unwrap();
    let narrow =
        policy.replace("take = [\"*\"]", "take = [\"eth1\"]").replace("devices = [\"*\"]", "devices = [\"0000:03:*\"]");
    apply(&bench.node, &narrow);
    let error = bench.call(false, Verb::Add, &config(), None).error().unwrap();
    assert_eq!(error.code, 110);
    assert!(error.text().contains(r#"links = { take = ["eth1", "eth7"] }"#), "{}", error.text());
    let mut by_mac = config();
    by_mac["device"] = Value::Null;
    by_mac["hwaddr"] = "02:00:00:00:07:00".into();
    let error = bench.call(false, Verb::Add, &by_mac, None).error().unwrap();
    assert!(error.text().contains("failed to find physical interface"), "{}", error.text());
    let mut by_address = config();
    by_address["device"] = Value::Null;
    by_address["pciBusID"] = "0000:04:00.0".into();
    let error = bench.call(false, Verb::Add, &by_address, None).error().unwrap();
    assert_eq!(error.code, 110);
    assert!(error.text().contains(r#"devices = ["0000:03:*", "0000:04:00.0"]"#), "{}", error.text());
    assert!(eth7(&bench).is_some());
}
