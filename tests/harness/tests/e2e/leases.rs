//! Leases as an operator sees them, and on disks that are full or read-only.

use crate::common::bridge;
use crate::ctl::{ctl, ctl_status, json};
use sandwire_harness::{Installation, Node, Outcome, Place, Verb};
use serde_json::{Value, json as value};
use std::process::{Child, Command};

const NETWORKS: &str = "/var/lib/cni/networks";

/// With the namespace that every call of host-local names: it makes nothing there.
fn node() -> Node {
    let node = Node::installed().unwrap();
    node.pod("any").unwrap();
    node
}

fn pool() -> Value {
    value!({"cniVersion": "1.1.0", "name": "pool", "type": "host-local",
        "ipam": {"type": "host-local", "subnet": "10.1.0.0/16"}})
}

fn call(node: &Node, verb: Verb, name: &str, config: &Value) -> Outcome {
    let call = node.call("host-local", verb).env("CNI_CONTAINERID", name).env("CNI_NETNS", "/run/netns/pod-any");
    call.ifname("eth0").config(config).run().unwrap()
}

fn answered(node: &Node, args: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new(Installation::sandwirectl());
    command.args(args).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let finished = node.run(&Place::Host, command, input.as_bytes()).unwrap();
    (finished.status.success(), format!("{}{}", finished.stdout, finished.stderr))
}

#[test]
fn list_and_show() {
    let node = node();
    assert_eq!(json(&node, &["leases"]), value!([]));
    assert!(ctl(&node, &["leases"]).contains("no address is given"));
    let pod = node.pod("a").unwrap();
    node.cni("bridge", Verb::Add, &pod, "eth0", &bridge()).unwrap().result().unwrap();
    // A dataDir of its own, a native one, one of a release that wrote no interface, and one without an owner.
    let mut elsewhere = pool();
    elsewhere["ipam"]["dataDir"] = "/run/cni-elsewhere".into();
    call(&node, Verb::Add, "far", &elsewhere).result().unwrap();
    node.sh(&format!("cd {NETWORKS}/mynet; printf 'native\\r\\neth0' > 10.1.2.7; printf old > 10.1.2.8; : > 10.1.2.9"))
        .unwrap();

    let rows = json(&node, &["leases"]);
    let row = |n: usize, key: &str| rows[n][key].clone();
    for (n, wanted) in [
        value!(["mynet", "10.1.2.2", "pod-a", "eth0", "this", true, "held", "/var/lib/cni/networks/mynet"]),
        value!(["mynet", "10.1.2.7", "native", "eth0", "unknown", false, "held", "/var/lib/cni/networks/mynet"]),
        value!(["mynet", "10.1.2.8", "old", "", "unknown", false, "held", "/var/lib/cni/networks/mynet"]),
        value!(["mynet", "10.1.2.9", null, null, "unknown", false, "without an owner", "/var/lib/cni/networks/mynet"]),
        value!(["pool", "10.1.0.2", "far", "eth0", "this", true, "held", "/run/cni-elsewhere/pool"]),
    ]
    .iter()
    .enumerate()
    {
        let keys = ["network", "address", "container_id", "interface", "boot", "attached", "state", "directory"];
        assert_eq!(Value::Array(keys.map(|key| row(n, key)).to_vec()), *wanted, "{rows}");
    }
    let today = node.sh("date -u +%F").unwrap();
    assert!(row(0, "made").as_str().unwrap().starts_with(today.trim()), "{rows}");
    assert_eq!(json(&node, &["leases", "list", "--network", "pool"]), value!([rows[4]]));

    let text = ctl(&node, &["leases"]);
    assert!(
        ["NETWORK", "10.1.2.2", "pod-a", "attached", "without an owner"].iter().all(|part| text.contains(part)),
        "{text}"
    );
    let text = ctl(&node, &["leases", "show", "10.1.2.2"]);
    for part in
        ["container pod-a", "interface eth0", "in this boot", "attached", "/var/lib/cni/networks/mynet/10.1.2.2"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(json(&node, &["leases", "show", "10.1.2.7"]), rows[1]);
    let (found, text) = ctl_status(&node, &["leases", "show", "10.1.2.200"]);
    assert!(!found && text.contains("nobody holds 10.1.2.200"), "{text}");
    // The same address in two networks.
    node.sh(&format!("mkdir {NETWORKS}/twin; printf 'x\\r\\neth0' > {NETWORKS}/twin/10.1.2.2")).unwrap();
    let (found, text) = ctl_status(&node, &["leases", "show", "10.1.2.2"]);
    assert!(!found && text.contains("--network") && text.contains("twin"), "{text}");
    assert_eq!(json(&node, &["leases", "show", "10.1.2.2", "--network", "twin"])["container_id"], "x");
}

#[test]
fn release() {
    let node = node();
    for name in ["a", "b", "c"] {
        call(&node, Verb::Add, name, &pool()).result().unwrap();
    }
    node.sh(&format!(": > {NETWORKS}/pool/10.1.0.9; mkdir {NETWORKS}/pool/10.1.0.10")).unwrap();
    let files = |node: &Node| node.sh(&format!("cd {NETWORKS}/pool; echo 10.*")).unwrap();
    let before = files(&node);
    // Nobody answers, or says no.
    for input in ["", "\n", "n\n", "yeah\n"] {
        let (done, text) = answered(&node, &["leases", "release", "10.1.0.3"], input);
        assert!(!done && text.contains("container b") && text.contains("not confirmed"), "{input:?}: {text}");
        assert!(text.contains("may be using it"), "the journal knows it: {text}");
    }
    let (done, text) = answered(&node, &["leases", "release", "10.1.0.3", "--json"], "y\n");
    assert!(!done && text.contains("--yes"), "{text}");
    let (done, text) = answered(&node, &["leases", "release", "10.1.0.10", "--yes"], "");
    assert!(!done && text.contains("no lease that can be read"), "{text}");
    assert_eq!(files(&node), before);

    let (done, text) = answered(&node, &["leases", "release", "10.1.0.3"], "y\n");
    assert!(done && text.contains("is free"), "{text}");
    assert_eq!(json(&node, &["leases", "release", "10.1.0.2", "--yes"])["container_id"], "a");
    ctl(&node, &["leases", "release", "10.1.0.9", "--yes"]);
    assert_eq!(files(&node).trim(), "10.1.0.10 10.1.0.4");
    // Given again; and the DEL of the one that had it before does not take it away.
    let mut config = pool();
    config["args"] = value!({"cni": {"ips": ["10.1.0.3"]}});
    call(&node, Verb::Add, "d", &config).result().unwrap();
    call(&node, Verb::Del, "b", &pool()).done().unwrap();
    assert_eq!(json(&node, &["leases", "show", "10.1.0.3"])["container_id"], "d");
}

/// Somebody who has the store's lock until a line comes.
fn holder(node: &Node) -> Child {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("exec flock {NETWORKS}/pool/lock sh -c 'echo held; read line'")]).env_clear();
    command.env("PATH", "/usr/bin:/bin");
    let mut holder = node.spawn(&Place::Host, command).unwrap();
    let mut held = [0; 5];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut held).unwrap();
    holder
}

/// It waits for whoever is at work on the store, native host-local or ours.
#[test]
fn release_takes_the_lock() {
    let node = node();
    call(&node, Verb::Add, "a", &pool()).result().unwrap();
    let mut holder = holder(&node);
    let mut command = Command::new(Installation::sandwirectl());
    command.args(["leases", "release", "10.1.0.2", "--yes"]).env_clear();
    let mut waiting = node.spawn(&Place::Host, command).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(400));
    assert!(waiting.try_wait().unwrap().is_none());
    assert!(node.read(format!("{NETWORKS}/pool/10.1.0.2")).unwrap().is_some());
    std::io::Write::write_all(holder.stdin.as_mut().unwrap(), b"\n").unwrap();
    assert!(waiting.wait().unwrap().success() && holder.wait().unwrap().success());
    assert!(node.read(format!("{NETWORKS}/pool/10.1.0.2")).unwrap().is_none());
}

/// Somebody hangs with the lock: nobody waits for ever, and all say who it is.
#[test]
fn a_lock_that_is_held() {
    let node = node();
    call(&node, Verb::Add, "a", &pool()).result().unwrap();
    let mut holder = holder(&node);
    let tool = |args: &[&str]| {
        let mut command = Command::new(Installation::sandwirectl());
        command.args(args).env_clear();
        node.spawn(&Place::Host, command).unwrap()
    };
    let told = [tool(&["leases"]), tool(&["repair", "--json"])];
    let grant = "/var/lib/sandwire/active/host-local.json";
    node.sh(&format!("sed -i -E 's/\"deadline_ms\": *[0-9]+/\"deadline_ms\":900/' {grant}; grep -q :900 {grant}"))
        .unwrap();
    let error = call(&node, Verb::Add, "b", &pool()).error_with(115, "did not finish").unwrap();
    let who = format!(
        "{NETWORKS}/pool/lock until this one's deadline; try again later (held by process {} (flock)",
        holder.id()
    );
    assert!(error.details.contains(&who), "{error:?}");
    for (tool, well) in told.into_iter().zip([false, true]) {
        let done = tool.wait_with_output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success() == well && text.contains(&who), "{text}");
    }
    std::io::Write::write_all(holder.stdin.as_mut().unwrap(), b"\n").unwrap();
    assert!(holder.wait().unwrap().success());
    call(&node, Verb::Add, "b", &pool()).result().unwrap();
}

/// The addresses are in use all the same, and the journal knows of whom.
#[test]
fn a_directory_that_is_lost() {
    let node = node();
    call(&node, Verb::Add, "a", &pool()).result().unwrap();
    node.sh(&format!("rm -r {NETWORKS}")).unwrap();
    let (well, text) = ctl_status(&node, &["repair"]);
    assert!(!well && text.contains("no lease: the next ADD could be given it"), "{text}");
    // What it says to do does it.
    let remedy = text.rsplit_once("attach it again, or: ").unwrap().1.lines().next().unwrap();
    node.sh(remedy).unwrap();
    let (well, text) = ctl_status(&node, &["repair"]);
    assert!(well, "{text}");
    assert_eq!(json(&node, &["leases", "show", "10.1.0.2"])["container_id"], "a");
}

#[test]
fn a_full_disk_is_said_and_loses_nothing() {
    let node = node();
    // Room for some leases, each of a page; the index is on another disk.
    node.sh(&format!("mkdir -p {NETWORKS}; mount -t tmpfs -o size=48k tmpfs {NETWORKS}")).unwrap();
    let mut given = Vec::new();
    let error = loop {
        let name = format!("c{}", given.len());
        let outcome = call(&node, Verb::Add, &name, &pool());
        if outcome.exit != Some(0) {
            break outcome.error().unwrap();
        }
        given.push(name);
        assert!(given.len() < 100, "the disk never was full");
    };
    let text = error.text();
    assert!(text.contains("No space left on device") && text.contains("make room"), "{error:?}");
    assert!(text.contains(&format!("{NETWORKS}/pool/")), "which file system? {error:?}");
    let holders = || -> Vec<String> {
        let leases = json(&node, &["leases"]);
        leases.as_array().unwrap().iter().map(|row| row["container_id"].as_str().unwrap().to_owned()).collect()
    };
    assert!(given.len() > 3 && holders() == given, "{given:?}");
    assert_eq!(json(&node, &["attachments"]).as_array().unwrap().len(), given.len());
    // A DEL needs no room, and makes some.
    call(&node, Verb::Del, &given.remove(0), &pool()).done().unwrap();
    call(&node, Verb::Add, "again", &pool()).result().unwrap();
    given.push("again".into());
    assert_eq!(holders(), given);
    // As a delegate of bridge, which leaves nothing else behind either.
    let pod = node.pod("a").unwrap();
    let before = node.snapshot().unwrap();
    let mut config = bridge();
    config["name"] = "pool".into();
    config["ipam"] = pool()["ipam"].clone();
    let error = node.cni("bridge", Verb::Add, &pod, "eth0", &config).unwrap().error().unwrap();
    assert!(error.text().contains("No space left on device"), "{error:?}");
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
}

#[test]
fn a_read_only_disk_is_said_and_loses_nothing() {
    let node = node();
    node.sh(&format!("mkdir -p {NETWORKS}; mount -t tmpfs tmpfs {NETWORKS}")).unwrap();
    call(&node, Verb::Add, "a", &pool()).result().unwrap();
    let mount = |how: &str| node.sh(&format!("mount -o remount,{how} {NETWORKS}")).unwrap();
    mount("ro");
    let error = call(&node, Verb::Add, "b", &pool()).error().unwrap();
    assert!(error.text().contains("mounted read-only") && error.text().contains(NETWORKS), "{error:?}");
    let error = call(&node, Verb::Del, "a", &pool()).error().unwrap();
    assert!(error.text().contains("mounted read-only"), "{error:?}");
    let mut status = pool();
    status["cniVersion"] = "1.1.0".into();
    let status = || node.call("host-local", Verb::Status).config(&status).run().unwrap();
    let error = status().error_with(50, "can't be written").unwrap();
    assert!(error.details.contains("findmnt -T"), "{error:?}");
    let mut check = pool();
    check["prevResult"] = value!({"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/16"}]});
    call(&node, Verb::Check, "a", &check).done().unwrap();
    assert_eq!(json(&node, &["leases", "show", "10.1.0.2"])["container_id"], "a");
    let (done, text) = ctl_status(&node, &["leases", "release", "10.1.0.2", "--yes"]);
    assert!(!done && text.contains("read-only"), "{text}");
    mount("rw");
    status().done().unwrap();
    call(&node, Verb::Del, "a", &pool()).done().unwrap();
    assert_eq!(json(&node, &["leases"]), value!([]));
    assert_eq!(json(&node, &["attachments"]), value!([]));
}
