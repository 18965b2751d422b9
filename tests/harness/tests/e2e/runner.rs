//! The harness itself, against Debian's plugins: what it must see, it sees; and what it makes, it takes away.

use sandwire_harness::{Node, Verb, cases, repository};
use std::path::PathBuf;

fn folder(name: &str) -> PathBuf {
    repository().join("tests/harness/tests/runner").join(name)
}

#[test]
fn good_cases_pass() {
    let cases = cases::of_folder(&folder("good"), "bridge").unwrap();
    let report = cases::run(&cases, cases::Implementation::Reference).unwrap();
    report.check().unwrap();
    assert_eq!(report.ran, 6 + 6 + 3);
}

#[test]
fn bad_cases_fail() {
    let cases = cases::of_folder(&folder("bad"), "bridge").unwrap();
    let report = cases::run(&cases, cases::Implementation::Reference).unwrap();
    let text = report.failures.join("\n");
    assert_eq!(report.failures.len(), 3, "{text}");
    for seen in
        ["leaves-something", "link {\"address\"", "veth7", "/ips/0/address: wanted \"10.1.2.3/24\"", "wanted Some(7)"]
    {
        assert!(text.contains(seen), "{seen} in {text}");
    }
}

#[test]
fn a_plugin_without_cases_is_an_error() {
    assert!(cases::of_folder(&folder("good/add-del"), "bridge").is_err());
}

/// A node can't be told from outside: no mount, no file, no link of it is seen there.
#[test]
fn a_node_leaves_no_trace() {
    let node = Node::new().unwrap();
    let pod = node.pod("trace").unwrap();
    node.sh("ip link add trace0 type veth peer name trace1; touch /etc/cni/x /var/lib/sandwire/x /opt/cni/bin/x")
        .unwrap();
    node.sh_at(&pod.place(), "test -z \"$(ip -o link show trace0 2>/dev/null)\"").unwrap();
    for path in ["/etc/cni/x", "/var/lib/sandwire/x", "/opt/cni/bin/x", "/run/netns/pod-trace", "/sys/class/net/trace0"]
    {
        assert!(!std::path::Path::new(path).exists(), "{path}");
        assert!(
            path.starts_with("/run") || node.within(move || std::path::Path::new(path).exists()).unwrap(),
            "{path}"
        );
    }
    for entry in std::fs::read_dir("/").unwrap().chain(std::fs::read_dir("/mnt").unwrap()) {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.contains("var-lib") && !name.contains("usr-lib"), "{name}");
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains("pod-trace") && !mounts.contains("upperdir=/mnt"), "{mounts}");
}

#[test]
fn snapshots_see_every_kind_of_change() {
    let node = Node::new().unwrap();
    let pod = node.pod("a").unwrap();
    let before = node.snapshot().unwrap();
    node.snapshot().unwrap().assert_unchanged(&before).unwrap();
    for (change, undo, seen) in [
        ("ip link add veth1 type veth peer name veth2", "ip link del veth1", "link"),
        ("ip addr add 192.0.2.1/32 dev lo", "ip addr del 192.0.2.1/32 dev lo", "192.0.2.1"),
        ("ip route add 198.51.100.0/24 dev lo", "ip route del 198.51.100.0/24", "198.51.100.0/24"),
        ("ip rule add from 192.0.2.7 table 99", "ip rule del from 192.0.2.7 table 99", "192.0.2.7"),
        (
            "sysctl -q -w net.ipv4.conf.lo.route_localnet=1",
            "sysctl -q -w net.ipv4.conf.lo.route_localnet=0",
            "route_localnet",
        ),
        ("tc qdisc add dev lo root tbf rate 1mbit burst 10k latency 10ms", "tc qdisc del dev lo root", "tbf"),
        (
            "nft 'add table inet t; add set inet t s {type ipv4_addr;}; add element inet t s {10.1.2.2}'",
            "nft delete table inet t",
            "10.1.2.2",
        ),
        (
            "nft 'add table ip t; add chain ip t c; add rule ip t c ip saddr 10.1.2.2 accept'",
            "nft delete table ip t",
            "10.1.2.2",
        ),
        ("iptables -t nat -A POSTROUTING -s 10.1.2.2/32 -j ACCEPT", "iptables -t nat -F", "10.1.2.2"),
        ("mkdir -p /run/sandwire/journal; echo 1 > /run/sandwire/journal/x", "rm -r /run/sandwire", "journal/x"),
        (
            "mkdir -p /var/lib/cni/networks/n; echo 1 > /var/lib/cni/networks/n/10.1.2.2",
            "rm -r /var/lib/cni/networks",
            "10.1.2.2",
        ),
        ("ip -n pod-a link set lo up", "ip -n pod-a link set lo down", "pod-a link"),
    ] {
        node.sh(change).unwrap();
        let differences = node.snapshot().unwrap().attachments_since(&before).join("\n");
        assert!(differences.contains(seen), "{change}: {differences}");
        node.sh(undo).unwrap();
        let after = node.snapshot().unwrap().attachments_since(&before);
        assert!(after.is_empty(), "{undo}: {after:?}");
    }
    drop(pod);
}

#[test]
fn shared_things_are_told_apart() {
    let node = Node::new().unwrap();
    let before = node.snapshot().unwrap();
    node.sh("ip link add cni0 up type bridge; ip addr add 10.1.2.1/24 dev cni0; sysctl -q -w net.ipv4.ip_forward=1")
        .unwrap();
    let after = node.snapshot().unwrap();
    after.assert_same_attachments(&before).unwrap();
    after.assert_unchanged(&before).unwrap_err();
}

/// What ends without an error object or hangs must not pass for an answer.
#[test]
fn outcomes_are_strict() {
    let node = Node::new().unwrap();
    let pod = node.pod("a").unwrap();
    let config = serde_json::json!({"cniVersion": "1.0.0", "name": "n", "type": "x"});
    for (script, fits) in [
        ("echo '{\"code\": 7, \"msg\": \"no\"}'; exit 1", true),
        ("echo '{\"code\": 7, \"msg\": \"no\"}'; exit 2", false),
        ("echo '{\"code\": 7, \"msg\": \"no\"}'; exit 0", false),
        ("echo '{\"code\": 7, \"msg\": \"no\"} x'; exit 1", false),
        ("echo '{\"code\": 7}'; exit 1", false),
        ("exit 1", false),
        ("kill -9 $$", false),
    ] {
        node.write("/opt/cni/bin/x", format!("#!/bin/sh\n{script}\n")).unwrap();
        node.sh("chmod 755 /opt/cni/bin/x").unwrap();
        let outcome = node.cni("x", Verb::Add, &pod, "eth0", &config).unwrap();
        assert_eq!(outcome.error().is_ok(), fits, "{script}");
        assert_eq!(outcome.result().is_ok(), script.ends_with("exit 0"), "{script}");
    }
}
