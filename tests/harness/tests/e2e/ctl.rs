//! `sandwirectl` as an operator and a program use it.

use crate::common::bridge;
use sandwire_harness::{Installation, Node, Place, Verb, cases, repository};
use serde_json::Value;
use std::process::Command;

pub(crate) fn ctl_status(node: &Node, args: &[&str]) -> (bool, String) {
    let mut command = Command::new(Installation::sandwirectl());
    command.args(args).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let finished = node.run(&Place::Host, command, b"").unwrap();
    (finished.status.success(), format!("{}{}", finished.stdout, finished.stderr))
}

pub(crate) fn ctl(node: &Node, args: &[&str]) -> String {
    let (success, text) = ctl_status(node, args);
    assert!(success, "sandwirectl {args:?}: {text}");
    text
}

pub(crate) fn json(node: &Node, args: &[&str]) -> Value {
    let text = ctl(node, &[args, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
}

fn install(node: &Node) -> String {
    let finished = node.run(&Place::Host, Installation::command().unwrap(), b"").unwrap();
    assert!(finished.status.success(), "{finished:?}");
    format!("{}{}", finished.stdout, finished.stderr)
}

/// Twice is once; and uninstalled, the node is as it was.
#[test]
fn install_and_uninstall() {
    let node = Node::new().unwrap();
    let before = node.snapshot().unwrap();
    install(&node);
    let installed = node.snapshot().unwrap();
    let text = install(&node);
    assert!(text.contains("installed already"), "{text}");
    node.snapshot().unwrap().assert_unchanged(&installed).unwrap();
    ctl(&node, &["uninstall", "--purge"]);
    node.snapshot().unwrap().assert_unchanged(&before).unwrap();
    // And again, which finds nothing.
    ctl(&node, &["uninstall", "--purge"]);
}

/// One executable, links to it, and nothing that anybody but root could write.
#[test]
fn what_is_installed() {
    let node = Node::installed().unwrap();
    for plugin in cases::plugins().unwrap() {
        assert_eq!(node.sh(&format!("readlink /opt/cni/bin/{plugin}")).unwrap().trim(), "sandwire");
    }
    assert_eq!(node.sh("find /opt/cni/bin -type f").unwrap().trim(), "/opt/cni/bin/sandwire");
    let writable =
        "find /opt/cni /usr/lib/sandwire /etc/sandwire /var/lib/sandwire ! -type l \\( ! -user root -o -perm /022 \\)";
    assert_eq!(node.sh(writable).unwrap(), "");
}

/// A native plugin of the same name is not overwritten, and comes back.
#[test]
fn a_native_plugin_makes_room() {
    let node = Node::new().unwrap();
    node.sh("cp /usr/lib/cni/bridge /opt/cni/bin/bridge").unwrap();
    let before = node.snapshot().unwrap();
    let refused = node.run(&Place::Host, Installation::command().unwrap(), b"").unwrap();
    assert!(!refused.status.success() && refused.stderr.contains("--replace"), "{refused:?}");
    node.snapshot().unwrap().assert_unchanged(&before).unwrap();
    let mut command = Installation::command().unwrap();
    command.arg("--replace");
    assert!(node.run(&Place::Host, command, b"").unwrap().status.success());
    assert_eq!(node.sh("readlink /opt/cni/bin/bridge").unwrap().trim(), "sandwire");
    ctl(&node, &["uninstall", "--purge"]);
    node.snapshot().unwrap().assert_unchanged(&before).unwrap();
}

#[test]
fn plugins() {
    let node = Node::installed().unwrap();
    let rows = json(&node, &["plugins"]);
    let names: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["plugin"].as_str().unwrap()).collect();
    assert_eq!(names, cases::plugins().unwrap());
    for row in rows.as_array().unwrap() {
        assert_eq!(row["state"], "compiled", "{row}");
        assert!(row["digest"].as_str().unwrap().starts_with("sha256:"), "{row}");
    }
    let table = ctl(&node, &["plugins"]);
    assert!(names.iter().all(|name| table.contains(name)), "{table}");
    // Its component changed under it: the table says so.
    node.sh("printf x >> /usr/lib/sandwire/plugins/bridge.wasm").unwrap();
    let (well, text) = ctl_status(&node, &["plugins", "--json"]);
    assert!(!well, "{text}");
    let rows: Value = serde_json::from_str(&text).unwrap();
    let bridge = rows.as_array().unwrap().iter().find(|row| row["plugin"] == "bridge").unwrap();
    assert!(bridge["state"] != "compiled" && bridge["why"].is_string(), "{bridge}");
}

#[test]
fn inspect() {
    let node = Node::installed().unwrap();
    for plugin in cases::plugins().unwrap() {
        let file = repository().join(format!("out/plugins/{plugin}.wasm"));
        let seen = json(&node, &["inspect", file.to_str().unwrap()]);
        let imports: Vec<&str> =
            seen["imports"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert!(imports.iter().all(|name| !name.starts_with("wasi:")), "{plugin} must not need WASI: {imports:?}");
        if plugin == "host-local" {
            let network = ["namespaces", "netns", "links", "routes", "firewall"];
            assert!(!imports.iter().any(|name| network.iter().any(|part| name.contains(part))), "{imports:?}");
        }
        assert!(plugin != "static" || imports == ["sandwire:cni/types@0.1.0"], "{imports:?}");
        assert_eq!(seen["size"].as_u64().unwrap(), std::fs::metadata(&file).unwrap().len());
        assert!(seen["exports"].to_string().contains("attach"), "{seen}");
    }
    assert!(!ctl_status(&node, &["inspect", "/bin/true"]).0);
}

/// What the article had to find with `ethtool -S` and `bridge` by hand.
#[test]
fn attachments() {
    let node = Node::installed().unwrap();
    assert_eq!(json(&node, &["attachments"]), serde_json::json!([]));
    let pod = node.pod("a").unwrap();
    let result = node.cni("bridge", Verb::Add, &pod, "eth0", &bridge()).unwrap().result().unwrap();
    let rows = json(&node, &["attachments"]);
    let row = &rows[0];
    assert_eq!(rows.as_array().unwrap().len(), 1, "{rows}");
    let index: u64 = node
        .sh_at(&pod.place(), "cat /sys/class/net/lo/ifindex >/dev/null; ip -j link show eth0 | jq .[0].ifindex")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    for (key, value) in [
        ("network", Value::from("mynet")),
        ("container_id", "pod-a".into()),
        ("interface", "eth0".into()),
        ("host_veth", result["interfaces"][1]["name"].clone()),
        ("peer_index", index.into()),
        ("bridge", "cni0".into()),
        ("addresses", serde_json::json!(["10.1.2.2/24"])),
    ] {
        assert_eq!(row[key], value, "{key} in {row}");
    }
    assert_eq!(json(&node, &["attachments", "--network", "other"]), serde_json::json!([]));
    let (done, text) = ctl_status(&node, &["uninstall"]);
    assert!(!done && text.contains("attachments"), "a living pod must not lose what undoes it: {text}");
    node.cni("bridge", Verb::Del, &pod, "eth0", &bridge()).unwrap().done().unwrap();
    assert_eq!(json(&node, &["attachments"]), serde_json::json!([]));
}

/// Each failure has its remedy.
#[test]
fn doctor() {
    let node = Node::installed().unwrap();
    let agent = sandwire_harness::agent::Agent::tcp(&node, "127.0.0.1:8082").unwrap();
    let (well, text) = ctl_status(&node, &["doctor"]);
    assert!(well, "{text}");
    drop(agent);
    let (_, text) = ctl_status(&node, &["doctor"]);
    assert!(text.contains("127.0.0.1:8082"), "an agent that is down must be named: {text}");
    node.sh("chmod 777 /var/lib/sandwire/generations").unwrap();
    let (well, text) = ctl_status(&node, &["doctor"]);
    assert!(!well && text.contains("/var/lib/sandwire/generations") && text.contains("chmod"), "{text}");
}

/// A call with flags in place of variables, and the runtime's files shared with cnitool.
#[test]
fn call() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    node.write("/etc/cni/net.d/10-mynet.conf", bridge().to_string()).unwrap();
    let before = node.snapshot().unwrap();
    let flags = ["--network", "/etc/cni/net.d/10-mynet.conf", "--container-id", &pod.id, "--netns", "/run/netns/pod-a"];
    let call = |verb: &str| ctl(&node, &[&["call", verb], &flags[..]].concat());
    let text = call("add");
    assert!(text.contains("10.1.2.2/24"), "{text}");
    call("check");
    call("del");
    call("del");
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
}

/// A policy with a mistake changes nothing; what is in force stays.
/// Who is told that ADD failed may never call DEL.
#[test]
fn a_call_whose_result_can_not_be_kept() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    node.write("/mnt/n.conf", bridge().to_string()).unwrap();
    node.sh("mkdir -p /var/lib/cni; echo >/var/lib/cni/results").unwrap();
    let before = node.snapshot().unwrap();
    let netns = pod.netns.to_str().unwrap();
    let (done, text) =
        ctl_status(&node, &["call", "add", "--network", "/mnt/n.conf", "--container-id", "a", "--netns", netns]);
    assert!(!done && text.contains("what it had made was taken back"), "{text}");
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
}

#[test]
fn a_broken_policy_is_not_applied() {
    let node = Node::installed().unwrap();
    let before = node.sh("readlink /var/lib/sandwire/active").unwrap();
    for (mistake, text) in [
        ("[plugins.bridge\n", "policy.toml"),
        ("nonsense = 1\n", "nonsense"),
        ("[plugins.bridge]\nimport = 5\n", "policy.toml"),
    ] {
        node.write("/etc/sandwire/policy.toml", mistake).unwrap();
        let (done, output) = ctl_status(&node, &["apply"]);
        assert!(!done && output.contains(text), "{mistake}: {output}");
        assert_eq!(node.sh("readlink /var/lib/sandwire/active").unwrap(), before);
    }
    let pod = node.pod("a").unwrap();
    node.cni("bridge", Verb::Add, &pod, "eth0", &bridge()).unwrap().result().unwrap();
}

/// A new generation is switched to, and back.
#[test]
fn apply_and_rollback() {
    let node = Node::installed().unwrap();
    let first = node.sh("readlink /var/lib/sandwire/active").unwrap();
    let policy = String::from_utf8(node.read("/etc/sandwire/policy.toml").unwrap().unwrap()).unwrap();
    node.write("/etc/sandwire/policy.toml", format!("{policy}\n# seen\n")).unwrap();
    ctl(&node, &["apply"]);
    let pod = node.pod("a").unwrap();
    node.cni("bridge", Verb::Add, &pod, "eth0", &bridge()).unwrap().result().unwrap();
    let second = node.sh("readlink /var/lib/sandwire/active").unwrap();
    if first != second {
        ctl(&node, &["rollback"]);
        assert_eq!(node.sh("readlink /var/lib/sandwire/active").unwrap(), first);
    }
    node.cni("bridge", Verb::Del, &pod, "eth0", &bridge()).unwrap().done().unwrap();
}
