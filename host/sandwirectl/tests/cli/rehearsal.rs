//! `try`, as a user that may nothing: on the machine nothing changes, whatever happens on the node of the rehearsal.

use crate::node::{Desk, binary};
use sandwire_harness::repository;
use std::path::Path;

/// A place that everybody can read: the repository may be in a directory of root's.
struct Author {
    desk: Desk,
}

const NETWORK: &str = r#"{"cniVersion":"1.1.0","name":"n","type":"mine","bridge":"br0","isGateway":true,"ipMasq":true,"ipam":{"type":"host-local","subnet":"10.9.0.0/24"}}"#;

impl Author {
    fn new() -> Self {
        let desk = Desk::new();
        let (tool, plugins) = (env!("CARGO_BIN_EXE_sandwirectl"), repository().join("out/plugins"));
        let copy = format!(
            "mkdir -p /mnt/release && cp {tool} {} /mnt/release/ && cp -r {1} /mnt/release/ && cp {1}/bridge.wasm /mnt/release/mine.wasm && chmod -R a+rX /mnt/release",
            binary().display(),
            plugins.display()
        );
        desk.node.sh(&copy).unwrap();
        desk.node.write("/mnt/release/n.conf", NETWORK).unwrap();
        Self { desk }
    }

    /// Exit status and what was said.
    fn tries(&self, arguments: &str) -> (i32, String) {
        let before = self.desk.node.snapshot().unwrap();
        let script = format!(
            "cd /mnt/release; s=0; setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all ./sandwirectl try {arguments} 2>&1 || s=$?; echo; echo status $s"
        );
        let said = self.desk.node.sh(&script).unwrap();
        self.desk.node.snapshot().unwrap().assert_unchanged(&before).unwrap();
        let (text, status) = said.trim().rsplit_once("status ").unwrap();
        (status.parse().unwrap(), text.to_owned())
    }
}

#[test]
fn a_plugin_of_ones_own_without_root() {
    let author = Author::new();
    let (status, said) = author.tries("mine.wasm --network n.conf -- ip netns exec pod ping -c 1 -W 5 10.9.0.1");
    assert_eq!(status, 0, "{said}");
    for part in [
        "ok   STATUS, ",
        "ok   ADD, ",
        "node link br0 bridge up mtu 1500   (shared: stays)",
        "node lease /var/lib/cni/networks/n/10.9.0.2",
        "node firewall mine/masquerade, net: n, if: eth0, id: try for [10.9.0.2]",
        "pod  address eth0 10.9.0.2/24",
        "1 received, 0% packet loss",
        "ok   CHECK, ",
        "ok   DEL, ",
        "ok   DEL once more, ",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let left = said.split_once("left:").unwrap().1;
    assert!(!left.contains("lease") && !left.contains("veth") && !left.contains("firewall"), "{said}");
}

#[test]
fn what_goes_wrong_is_the_exit_status() {
    let author = Author::new();
    for (arguments, parts) in [
        // A command that fails, and what a DEL does not take away.
        ("mine.wasm --network n.conf -- false", &["ok   DEL once more", "ended with exit status: 1"][..]),
        (
            "mine.wasm --network n.conf -- ip link add left0 type veth peer name left1",
            &["ok   DEL once more", "left:\n  node link left0 veth down mtu 1500\n  node link left1 veth"],
        ),
        // What is in the way of the plugin is told by the plugin.
        (
            "mine.wasm --network n.conf --before 'ip link add br0 type veth peer name x'",
            &["FAIL STATUS", "FAIL ADD", "already exists but is not a bridge", "ok   DEL, "],
        ),
        ("--network n.conf", &["the configuration names plugin \"mine\"; there are: bagpipe, ", "mine.wasm"]),
        ("mine.wasm --network none.conf", &["could not read none.conf"]),
        ("release/sandwire --network n.conf", &["could not open release/sandwire"]),
        ("./sandwire --network n.conf", &["no WebAssembly"]),
    ] {
        let (status, said) = author.tries(arguments);
        assert_eq!(status, 1, "{arguments}: {said}");
        for part in parts {
            assert!(said.contains(part), "{arguments}: {part}: {said}");
        }
    }
}

/// An operator's policy, of whatever build, holds there too.
#[test]
fn a_policy_is_tried_with_it() {
    let author = Author::new();
    let digest = format!("sha256:{}", "0".repeat(64));
    let write = |imports: &str| {
        let policy = format!(
            "version = 1\n[plugins.mine]\ncomponent = \"{digest}\"\nimports = [{imports}]\n[plugins.host-local]\ncomponent = \"{digest}\"\nimports = [\"leases\"]\n"
        );
        author.desk.node.write("/mnt/release/policy.toml", policy).unwrap();
    };
    write("\"log\"");
    let (status, said) = author.tries("mine.wasm --network n.conf --policy policy.toml");
    assert!(status == 1 && said.contains("its policy grants log; to allow it write  imports = ["), "{said}");
    write("\"lo\"");
    let (status, said) = author.tries("mine.wasm --network n.conf --policy policy.toml");
    assert!(status == 1 && said.contains("no interface is named \"lo\""), "{said}");
}

/// For programs: one JSON value after another.
#[test]
fn answers_for_programs() {
    let author = Author::new();
    let (status, said) = author.tries("mine.wasm --network n.conf --json");
    assert_eq!(status, 0, "{said}");
    let values: Vec<serde_json::Value> =
        serde_json::Deserializer::from_str(&said).into_iter().collect::<Result<_, _>>().unwrap();
    let verbs: Vec<&str> = values.iter().filter_map(|value| value["verb"].as_str()).collect();
    assert_eq!(verbs, ["STATUS", "ADD", "CHECK", "DEL", "DEL once more"]);
    assert!(values.iter().any(|value| value["ips"][0]["address"] == "10.9.0.2/24"), "{said}");
    assert!(values.last().unwrap()["left"].is_array(), "{said}");
    assert!(!Path::new("/run/netns/pod").exists());
}
