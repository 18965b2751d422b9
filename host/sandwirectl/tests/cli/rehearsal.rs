//! `try`, as a user that may nothing: on the machine nothing changes, whatever happens on the node of the rehearsal.

use crate::node::{Desk, binary};
use sandwire_harness::repository;

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
            "cd /mnt/release; s=0; setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all ./sandwirectl try 2>&1 {arguments} || s=$?; echo; echo status $s"
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
        "node file /var/lib/cni/networks/n/10.9.0.2",
        "node firewall mine/masquerade, net: n, if: eth0, id: try for [10.9.0.2]",
        "pod  address eth0 10.9.0.2/24",
        "1 received, 0% packet loss",
        "ok   CHECK, ",
        "ok   DEL, ",
        "ok   DEL once more, ",
        "ok   DEL of a pod that is gone, ",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    for left in said.split("left:").skip(1) {
        let left = left.split("ok ").next().unwrap();
        assert!(left.lines().skip(1).all(|line| line.trim().is_empty() || line.ends_with("(shared: stays)")), "{said}");
    }
}

#[test]
fn what_goes_wrong_is_the_exit_status() {
    let author = Author::new();
    for (arguments, parts) in [
        // A command that fails, and what a DEL does not take away.
        ("mine.wasm --network n.conf -- false", &["ok   DEL once more", "ended with exit status: 1"][..]),
        (
            "mine.wasm --network n.conf -- ip link add left0 type veth peer name left1",
            &["ok   DEL once more", "left:\n     node link left0 veth down mtu 1500\n     node link left1 veth"],
        ),
        (
            "mine.wasm --network n.conf --before 'ip link add up0 type veth peer name up1' -- ip link del up0",
            &["gone:\n     node link up0 veth down mtu 1500"],
        ),
        (
            "mine.wasm --network n.conf -- sh -c 'echo x > /var/lib/cni/forgotten'",
            &["left:\n     node file /var/lib/cni/forgotten"],
        ),
        // What is in the way of the plugin is told by the plugin.
        (
            "mine.wasm --network n.conf --before 'ip link add br0 type veth peer name x'",
            &["FAIL STATUS", "FAIL ADD", "already exists but is not a bridge", "ok   DEL, "],
        ),
        ("--network n.conf", &["the configuration names plugin \"mine\"; there are: bagpipe, ", "mine.wasm"]),
        ("mine.wasm --network none.conf", &["could not read none.conf"]),
        ("none/mine.wasm --network n.conf", &["could not open none/mine.wasm"]),
        ("./sandwire --network n.conf", &["./sandwire can't name a plugin: it is the host program itself"]),
        ("./n.conf --network n.conf", &["no WebAssembly"]),
        ("mine.wasm ./mine.wasm --network n.conf", &["two of the components are plugin \"mine\""]),
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
    assert!(status == 1 && said.contains("policy.toml:4: no interface is named \"lo\""), "{said}");
    assert!(!said.contains("/etc/sandwire"), "{said}");
    author.desk.node.sh("sed -i 1d /mnt/release/policy.toml").unwrap();
    let (status, said) = author.tries("mine.wasm --network n.conf --policy policy.toml");
    assert!(status == 1 && said.contains("policy.toml:3: no interface is named \"lo\""), "{said}");
}

/// For programs: one JSON value after another, whatever commands print.
#[test]
fn answers_for_programs() {
    let author = Author::new();
    let (status, said) = author.tries("mine.wasm --network n.conf --json -- sh -c 'echo hello' 2>/dev/null");
    assert_eq!(status, 0, "{said}");
    let values: Vec<serde_json::Value> =
        serde_json::Deserializer::from_str(&said).into_iter().collect::<Result<_, _>>().unwrap();
    let verbs: Vec<&str> = values.iter().filter_map(|value| value["verb"].as_str()).collect();
    assert_eq!(
        verbs,
        ["STATUS", "ADD", "CHECK", "DEL", "DEL once more", "ADD of another", "DEL of a pod that is gone"]
    );
    assert!(values.iter().any(|value| value["answers"][0]["ips"][0]["address"] == "10.9.0.2/24"), "{said}");
    assert!(values.iter().any(|value| value["left"][0]["shared"] == true), "{said}");
    assert_eq!(values.last().unwrap()["good"], true, "{said}");
}

/// All shipped plugins that need nothing but the node pass their own rehearsal; a DEL that the host has to finish does not pass.
#[test]
fn shipped_plugins_and_one_whose_del_fails() {
    let author = Author::new();
    let write = |config: &str| author.desk.node.write("/mnt/release/other.conf", config).unwrap();
    for (config, more) in [
        (r#"{"cniVersion":"1.1.0","name":"n","type":"loopback"}"#, "--ifname lo"),
        (r#"{"cniVersion":"0.3.1","name":"n","type":"ptp","IPAM":{"Type":"host-local","subnet":"10.9.0.0/24"}}"#, ""),
        (
            r#"{"cniVersion":"1.0.0","name":"n","type":"macvlan","master":"up0","ipam":{"type":"static","addresses":[{"address":"10.9.0.9/24"}]}}"#,
            "--before 'ip link add up0 up type veth peer name up1'",
        ),
        (
            r#"{"cniVersion":"1.0.0","name":"n","type":"sbr","table":77,"prevResult":{"interfaces":[{"name":"eth0","sandbox":"/run/netns/pod"}],"ips":[{"address":"10.9.0.9/24","interface":0}]}}"#,
            "--before 'ip -n pod link add eth0 up type veth peer name peer0'",
        ),
    ] {
        write(config);
        let (status, said) = author.tries(&format!("--network other.conf {more}"));
        assert!(status == 0 && said.contains("nothing is left"), "{config}: {said}");
        let rule = said.contains("pod  policy rule \"from 10.9.0.9/32 lookup 77\"");
        assert_eq!(rule, config.contains("sbr"), "{said}");
    }
    // The key of another kind: ADD and DEL refuse it, and the host makes the best of the DEL.
    write(r#"{"cniVersion":"1.1.0","name":"n","type":"mine","mtu":"many"}"#);
    let (status, said) = author.tries("mine.wasm --network other.conf");
    assert!(status == 1 && said.contains("FAIL ADD") && said.contains("FAIL DEL, "), "{said}");
}

/// What the command started, and did not end, ends with the node.
#[test]
fn nothing_outlives_it() {
    let author = Author::new();
    let (status, said) = author.tries("mine.wasm --network n.conf -- sh -c 'sleep 98765 & echo $! > /dev/null'");
    assert_eq!(status, 0, "{said}");
    let still = author.desk.node.sh("grep -alz '^98765$' /proc/[0-9]*/cmdline || true").unwrap();
    assert_eq!(still, "");
}
