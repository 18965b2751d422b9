//! Plugins later in a chain and macvlans beside the reference: attached by one, deleted by the other.

use crate::common::{Bench, bridge};
use sandwire_harness::Verb;
use serde_json::{Value, json};

const MASTER: &str = "ip link add m0 type veth peer name m0p; ip link set m0 up; ip link set m0p up";

fn bench() -> Bench {
    Bench::new(MASTER)
}

fn macvlan() -> Value {
    json!({"cniVersion": "1.0.0", "name": "mynet", "type": "macvlan", "master": "m0", "mtu": 1400,
        "ipam": {"type": "host-local", "subnet": "10.1.2.0/24", "routes": [{"dst": "0.0.0.0/0"}]}})
}

fn tuning() -> Value {
    json!({"cniVersion": "1.0.0", "name": "mynet", "type": "tuning", "mac": "c2:11:22:33:44:55", "mtu": 1400,
        "promisc": true, "allmulti": true})
}

fn eth0(bench: &Bench) -> Value {
    let text = bench.node.sh_at(&bench.pod.place(), "ip -d -j link show eth0").unwrap();
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
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
            bench.node.sh(MASTER).unwrap();
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
    bench.only_a_journal_left();
    bench.call(false, Verb::Add, &macvlan(), None).result().unwrap();
    bench.call(false, Verb::Del, &macvlan(), None).done().unwrap();
    bench.nothing_left();
}

/// A chain of native plugins, deleted by ours; the interface is what it was before the plugin that made it removes it.
#[test]
fn native_tuning_then_our_del() {
    let bench = bench();
    let made = bench.call(true, Verb::Add, &bridge(), None).result().unwrap();
    let mac = eth0(&bench)["address"].clone();
    let result = bench.call(true, Verb::Add, &tuning(), Some(&made)).result().unwrap();
    assert_eq!(eth0(&bench)["address"], "c2:11:22:33:44:55");
    bench.call(false, Verb::Check, &bridge(), Some(&result)).done().unwrap();
    bench.call(false, Verb::Check, &tuning(), Some(&result)).done().unwrap();
    bench.node.sh("test -f /run/cni/tuning/pod-a_eth0.json").unwrap();
    bench.call(false, Verb::Del, &tuning(), Some(&result)).done().unwrap();
    let link = eth0(&bench);
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
    bench.only_a_journal_left();
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
    let before = eth0(&bench);
    let result = bench.call(false, Verb::Add, &tuning(), Some(&made)).result().unwrap();
    bench.node.sh("mv /var/lib/sandwire/active/tuning.json /mnt/").unwrap();
    bench.call(false, Verb::Del, &tuning(), Some(&result)).done().unwrap();
    let after = eth0(&bench);
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
/// Two networks of one pod set the same key: what the second has written is not the first's to take back.
#[test]
fn a_sysctl_that_another_network_has_set_since() {
    let bench = bench();
    let config = |network: &str, value: &str| {
        json!({"cniVersion": "1.0.0", "name": network, "type": "tuning", "sysctl": {"net.core.somaxconn": value},
            "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/24"}]}})
    };
    let call = |verb, ifname: &str, config: &Value| bench.node.cni("tuning", verb, &bench.pod, ifname, config).unwrap();
    let now = || bench.node.sh_at(&bench.pod.place(), "cat /proc/sys/net/core/somaxconn").unwrap().trim().to_owned();
    let before = now();
    call(Verb::Add, "net1", &config("a", "500")).result().unwrap();
    call(Verb::Add, "net2", &config("b", "600")).result().unwrap();
    call(Verb::Del, "net1", &config("a", "500")).done().unwrap();
    assert_eq!(now(), "600");
    call(Verb::Del, "net2", &config("b", "600")).done().unwrap();
    assert_eq!(now(), "500", "what was there before it");
    bench.node.sh_at(&bench.pod.place(), &format!("echo {before} >/proc/sys/net/core/somaxconn")).unwrap();
    bench.nothing_left();
}

/// They work on the node alone, also for what has no namespace that could be opened (the reference never opens it).
#[test]
fn without_the_container() {
    let bench = bench();
    let prev = json!({"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": "/run/netns/none"}],
        "ips": [{"address": "10.1.2.3/24", "interface": 0}]});
    for mut config in [
        json!({"type": "portmap", "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}}),
        json!({"type": "firewall"}),
    ] {
        config["cniVersion"] = "1.0.0".into();
        config["name"] = "mynet".into();
        config["prevResult"] = prev.clone();
        let plugin = config["type"].as_str().unwrap().to_owned();
        let call = |verb| {
            let call = bench.node.call(&plugin, verb).env("CNI_CONTAINERID", "x").env("CNI_NETNS", "/run/netns/none");
            call.ifname("eth0").config(&config).run().unwrap()
        };
        call(Verb::Add).result().unwrap();
        call(Verb::Check).done().unwrap();
        call(Verb::Del).done().unwrap();
    }
    bench.nothing_left();
}

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
