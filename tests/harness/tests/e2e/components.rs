//! Compiled components that can't be trusted or used: each is refused by name, with what to do, before any of it is run.

use crate::common::bridge;
use sandwire_harness::{Node, Pod, Verb};
use serde_json::Value;

const ACTIVE: &str = "/var/lib/sandwire/active";

fn bench() -> (Node, Pod, String) {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let grant: Value = serde_json::from_slice(&node.read(format!("{ACTIVE}/bridge.json")).unwrap().unwrap()).unwrap();
    let compiled = format!("{ACTIVE}/{}", grant["compiled"].as_str().unwrap());
    assert!(node.read(&compiled).unwrap().is_some(), "{compiled}");
    (node, pod, compiled)
}

/// The change makes ADD fail with this code and a text that names the plugin and the remedy; undone, it works.
fn refused_after(change: &str, undo: &str, code: u32) {
    let (node, pod, compiled) = bench();
    let fill = |script: &str| script.replace("$C", &compiled).replace("$A", ACTIVE);
    node.sh(&format!("cp -a {compiled} /mnt/kept; cp -a {ACTIVE}/bridge.json /mnt/grant")).unwrap();
    node.sh(&fill(change)).unwrap();
    let before = node.snapshot().unwrap();
    let outcome = node.cni("bridge", Verb::Add, &pod, "eth0", &bridge()).unwrap();
    let error = outcome.error().unwrap_or_else(|error| panic!("{change}: {error:#}"));
    assert_eq!(error.code, code, "{change}: {error:?}");
    assert!(error.text().contains("bridge") && error.text().contains("sandwirectl"), "{change}: {error:?}");
    node.snapshot().unwrap().assert_unchanged(&before).unwrap();
    node.sh(&fill(undo)).unwrap();
    node.cni("bridge", Verb::Add, &pod, "eth0", &bridge()).unwrap().result().unwrap();
}

#[test]
fn missing() {
    refused_after("rm $C", "cp -a /mnt/kept $C", 111);
}

/// The policy speaks of another release than the one that runs.
#[test]
fn stale() {
    refused_after(
        "sed -i 's/\"wasmtime\": *\"[^\"]*\"/\"wasmtime\":\"47.0.1\"/' $A/bridge.json; grep -q 47.0.1 $A/bridge.json",
        "cp -a /mnt/grant $A/bridge.json",
        112,
    );
}

#[test]
fn truncated() {
    for size in [0, 1, 4096, 20000] {
        refused_after(&format!("truncate -s {size} $C"), "cp -a /mnt/kept $C", 112);
    }
}

/// Bytes of another engine under the right name: its header says so.
#[test]
fn of_another_version() {
    // The first section, .wasmtime.engine, starts at 64: a format's number, a length, the release, a length, the target.
    refused_after("printf 47 | dd of=$C bs=1 seek=66 conv=notrunc status=none", "cp -a /mnt/kept $C", 112);
    refused_after("printf riscv9 | dd of=$C bs=1 seek=69 conv=notrunc status=none", "cp -a /mnt/kept $C", 112);
    refused_after("head -c 65536 /dev/zero > $C", "cp -a /mnt/kept $C", 112);
    refused_after("cp /bin/true $C; chmod 644 $C", "cp -a /mnt/kept $C", 112);
}

#[test]
fn not_roots() {
    refused_after("chown 1000 $C", "chown 0 $C", 113);
}

#[test]
fn writable_by_others() {
    refused_after("chmod o+w $C", "chmod o-w $C", 113);
    refused_after("chmod g+w $C; chgrp 1000 $C", "chgrp 0 $C; chmod g-w $C", 113);
}

/// A link could lead to a file that somebody else can write.
#[test]
fn a_link() {
    refused_after("cp -a $C /mnt/elsewhere; ln -sf /mnt/elsewhere $C", "rm $C; cp -a /mnt/kept $C", 113);
}

/// A node where nothing was installed, or a plugin that the policy doesn't know.
#[test]
fn not_installed() {
    let (node, pod, _) = bench();
    node.sh("ln -s sandwire /opt/cni/bin/unheard").unwrap();
    let mut config = bridge();
    config["type"] = "unheard".into();
    let error = node.cni("unheard", Verb::Add, &pod, "eth0", &config).unwrap().error().unwrap();
    assert!(error.code >= 100 && error.text().contains("unheard"), "{error:?}");
    node.sh(&format!("rm {ACTIVE}")).unwrap();
    let error = node.cni("bridge", Verb::Add, &pod, "eth0", &bridge()).unwrap().error().unwrap();
    assert!(error.code >= 100 && error.text().contains("sandwirectl"), "{error:?}");
}

/// What a policy doesn't grant isn't linked: the error names plugin, interface and the line to write.
#[test]
fn not_granted() {
    let (node, pod, _) = bench();
    let policy = String::from_utf8(node.read("/etc/sandwire/policy.toml").unwrap().unwrap()).unwrap();
    let (head, rest) = policy.split_once("[plugins.bridge]").unwrap();
    assert!(rest.contains("\"firewall\""), "{rest}");
    let denied =
        format!("{head}[plugins.bridge]{}", rest.replacen("\"firewall\",", "", 1).replacen(", \"firewall\"", "", 1));
    assert_ne!(denied, policy);
    node.write("/etc/sandwire/policy.toml", denied).unwrap();
    // It reports what it refuses, and goes on with the others.
    let apply =
        std::process::Command::new(sandwire_harness::Installation::sandwirectl()).args(["apply"]).spawn_on(&node);
    let error = node.cni("bridge", Verb::Add, &pod, "eth0", &bridge()).unwrap().error().unwrap();
    assert!(error.code >= 100, "{error:?}");
    for part in ["bridge", "firewall", "/etc/sandwire/policy.toml", "sandwirectl apply"] {
        assert!(error.text().contains(part), "{part}: {error:?}\n{apply}");
    }
}

trait SpawnOn {
    fn spawn_on(&mut self, node: &Node) -> String;
}

impl SpawnOn for std::process::Command {
    /// Run it on the node; all it printed.
    fn spawn_on(&mut self, node: &Node) -> String {
        let mut command = std::process::Command::new(self.get_program());
        command.args(self.get_args());
        let finished = node.run(&sandwire_harness::Place::Host, command, b"").unwrap();
        format!("{}{}", finished.stdout, finished.stderr)
    }
}
