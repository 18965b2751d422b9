//! `sandwirectl repair`: what is out of step, found and mended; and what is not, left alone.

use crate::calls::{hanging_add, signal};
use crate::common::{bridge, mynet};
use crate::ctl::{ctl, ctl_status, json};
use sandwire_harness::agent::{Agent, Mode};
use sandwire_harness::{Installation, NATIVE, Node, OURS, Outcome, Place, Pod, Verb};
use serde_json::{Value, json as value};
use std::process::Command;

const NETWORKS: &str = "/var/lib/cni/networks";

/// What `repair` says: exit status, and (kind, remedy) of each finding.
fn repair(node: &Node, args: &[&str]) -> (bool, Vec<(String, String)>, String) {
    let mut command = Command::new(Installation::sandwirectl());
    command.arg("repair").args(args).arg("--json").env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let finished = node.run(&Place::Host, command, b"").unwrap();
    let findings: Value =
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"));
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let pairs = findings.as_array().unwrap().iter().map(|f| (text(f, "kind"), text(f, "remedy"))).collect();
    (finished.status.success(), pairs, findings.to_string())
}

fn says(node: &Node, args: &[&str], well: bool, wanted: &[(&str, &str)]) -> String {
    let (status, found, text) = repair(node, args);
    let wanted: Vec<(String, String)> =
        wanted.iter().map(|(kind, remedy)| ((*kind).into(), (*remedy).into())).collect();
    assert_eq!((status, found), (well, wanted), "{text}");
    text
}

fn call(node: &Node, verb: Verb, pod: &Pod, config: &Value) -> Outcome {
    node.cni(config["type"].as_str().unwrap(), verb, pod, "eth0", config).unwrap()
}

fn masquerading() -> Value {
    let mut config = bridge();
    config["ipMasq"] = true.into();
    config
}

/// The pod dies without a DEL.
fn die(node: &Node, pod: &Pod) {
    pod.drop_netns(node).unwrap();
    node.sh("while ip link show type veth | grep -q .; do sleep 0.02; done").unwrap();
}

#[test]
fn a_node_that_is_well() {
    let node = Node::installed().unwrap();
    assert!(ctl(&node, &["repair"]).contains("nothing is out of step"));
    let pod = node.pod("a").unwrap();
    call(&node, Verb::Add, &pod, &masquerading()).result().unwrap();
    node.cni("loopback", Verb::Add, &pod, "lo", &value!({"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}))
        .unwrap()
        .result()
        .unwrap();
    let before = node.snapshot().unwrap();
    says(&node, &[], true, &[]);
    says(&node, &["--dry-run"], true, &[]);
    node.snapshot().unwrap().assert_unchanged(&before).unwrap();
}

#[test]
fn an_add_that_was_killed() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let agent = Agent::tcp(&node, "127.0.0.1:8082").unwrap();
    let before = node.snapshot().unwrap();
    let mut child = hanging_add(&node, &pod, &agent);
    // While it runs it is left to itself: repair waits for it.
    let mut command = Command::new(Installation::sandwirectl());
    command.args(["repair", "--dry-run"]).env_clear();
    let mut waiting = node.spawn(&Place::Host, command).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(waiting.try_wait().unwrap().is_none());
    signal(&child, "KILL");
    child.wait().unwrap();
    assert!(!waiting.wait().unwrap().success());

    let killed = node.snapshot().unwrap();
    let text = says(&node, &["--dry-run"], false, &[("unfinished", "would-mend")]);
    assert!(text.contains("link veth") && text.contains("the lease of 10.1.2.2"), "{text}");
    node.snapshot().unwrap().assert_unchanged(&killed).unwrap();
    // The agent does not answer: all but its call is taken back, and that is kept.
    let text = says(&node, &[], false, &[("unfinished", "left")]);
    assert!(text.contains("did not answer"), "{text}");
    node.snapshot().unwrap().assert_only_undo_left(&before).unwrap();
    agent.set(Mode::Ok).unwrap();
    says(&node, &[], true, &[("kept", "mended")]);
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
    assert!(agent.attached().is_empty());
    assert!(agent.take_calls().iter().any(|call| call.path == "/detach_localport"));
    says(&node, &[], true, &[]);
}

/// A DEL while the agent is down succeeds; what it could not send is sent by whoever comes next.
fn kept() -> (Node, Pod, Agent) {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let agent = Agent::tcp(&node, "127.0.0.1:8082").unwrap();
    call(&node, Verb::Add, &pod, &mynet()).result().unwrap();
    agent.set(Mode::Refuse).unwrap();
    call(&node, Verb::Del, &pod, &mynet()).done().unwrap();
    (node, pod, agent)
}

#[test]
fn an_undo_that_was_kept() {
    let (node, _pod, agent) = kept();
    let text = says(&node, &[], false, &[("kept", "left")]);
    assert!(text.contains("can't be reached"), "{text}");
    assert_eq!(json(&node, &["attachments"])[0]["state"], "kept");
    assert_eq!(agent.attached().len(), 1);
    agent.set(Mode::Ok).unwrap();
    says(&node, &["--dry-run"], false, &[("kept", "would-mend")]);
    assert_eq!(agent.attached().len(), 1);
    says(&node, &[], true, &[("kept", "mended")]);
    assert!(agent.attached().is_empty());
    assert_eq!(node.sh("find /run/sandwire/journal -type f").unwrap(), "");
}

#[test]
fn the_next_add_does_what_was_kept() {
    let (node, pod, agent) = kept();
    agent.set(Mode::Ok).unwrap();
    agent.take_calls();
    call(&node, Verb::Add, &pod, &mynet()).result().unwrap();
    let calls: Vec<String> = agent.take_calls().into_iter().map(|call| call.path).collect();
    let at = |path: &str| calls.iter().position(|call| call == path);
    assert!(at("/detach_localport").is_some() && at("/detach_localport") < at("/attach_localport"), "{calls:?}");
    // And nobody takes the new attachment away.
    says(&node, &[], true, &[]);
    assert_eq!(agent.attached().len(), 1);
    assert!(agent.take_calls().is_empty());
    call(&node, Verb::Del, &pod, &mynet()).done().unwrap();
    assert!(agent.attached().is_empty());
}

#[test]
fn gc_does_what_was_kept() {
    for valid in [None, Some(value!([])), Some(value!([{"containerID": "pod-a", "ifname": "eth0"}]))] {
        let (node, _pod, agent) = kept();
        agent.set(Mode::Ok).unwrap();
        let mut config = mynet();
        config["cniVersion"] = "1.1.0".into();
        if let Some(valid) = &valid {
            config["cni.dev/valid-attachments"] = valid.clone();
        }
        node.call("bagpipe", Verb::Gc).config(&config).run().unwrap().done().unwrap();
        assert!(agent.attached().is_empty(), "{valid:?}");
        assert_eq!(node.sh("find /run/sandwire/journal -type f").unwrap(), "", "{valid:?}");
    }
}

#[test]
fn a_pod_that_died() {
    let node = Node::installed().unwrap();
    let (pod, other) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    call(&node, Verb::Add, &pod, &masquerading()).result().unwrap();
    let before = node.snapshot().unwrap();
    call(&node, Verb::Add, &other, &masquerading()).result().unwrap();
    other.drop_netns(&node).unwrap();
    node.sh("while [ $(ip -o link show type veth | wc -l) != 1 ]; do sleep 0.02; done").unwrap();
    let dead = node.snapshot().unwrap();
    says(&node, &["--dry-run"], false, &[("gone", "would-mend")]);
    node.snapshot().unwrap().assert_unchanged(&dead).unwrap();
    let text = says(&node, &[], true, &[("gone", "mended")]);
    assert!(text.contains("pod-b") && !text.contains("pod-a"), "{text}");
    // Its rules and its lease are gone; the pod that lives has everything.
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
    says(&node, &[], true, &[]);
    // The runtime's DEL may still come.
    call(&node, Verb::Del, &other, &masquerading()).done().unwrap();
    call(&node, Verb::Del, &pod, &masquerading()).done().unwrap();
}

/// One of both signs is not enough.
#[test]
fn a_pod_that_only_looks_dead() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    call(&node, Verb::Add, &pod, &masquerading()).result().unwrap();
    // The path is gone, as it is for a program in another mount namespace; the namespace lives.
    node.sh("touch /mnt/kept; mount --bind /run/netns/pod-a /mnt/kept").unwrap();
    pod.drop_netns(&node).unwrap();
    let before = node.snapshot().unwrap();
    says(&node, &[], true, &[]);
    node.snapshot().unwrap().assert_unchanged(&before).unwrap();
    // The link was deleted by hand; the namespace lives.
    node.sh("touch /run/netns/pod-a; mount --bind /mnt/kept /run/netns/pod-a; ip link del $(ip -o link show type veth | sed 's/^[0-9]*: \\([^@]*\\)@.*/\\1/')").unwrap();
    let before = node.snapshot().unwrap();
    says(&node, &[], true, &[]);
    node.snapshot().unwrap().assert_unchanged(&before).unwrap();
    call(&node, Verb::Del, &pod, &masquerading()).done().unwrap();
}

/// What a native delegate did is its own DEL's to take back.
#[test]
fn a_native_delegate() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let before = node.snapshot().unwrap();
    node.sh(&format!("mkdir /mnt/only && ln -s {NATIVE}/host-local /mnt/only/host-local")).unwrap();
    let add = node.call("bridge", Verb::Add).pod(&pod).ifname("eth0").config(&masquerading()).path("/mnt/only");
    add.program(format!("{OURS}/bridge")).run().unwrap().result().unwrap();
    die(&node, &pod);
    // Not where repair looks for it: said, and kept.
    let text = says(&node, &["--bin-dir", "/nowhere"], false, &[("gone", "left")]);
    assert!(text.contains("host-local") && text.contains("/nowhere"), "{text}");
    assert!(node.read(format!("{NETWORKS}/mynet/10.1.2.2")).unwrap().is_some());
    let (_, found, text) = repair(&node, &["--bin-dir", "/nowhere:/mnt/only"]);
    assert_eq!(found, [("kept".to_owned(), "mended".to_owned())], "{text}");
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
}

/// The journal of an ADD that did not end does not say where the container is: what is in there is left to its runtime.
#[test]
fn a_change_within_a_container() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let config = value!({"cniVersion": "1.0.0", "name": "lo", "type": "loopback"});
    let loopback = |verb| node.cni("loopback", verb, &pod, "lo", &config).unwrap();
    loopback(Verb::Add).result().unwrap();
    // As if it had been killed before its end.
    node.sh("sed -i '/^{\"commit\"/d' /run/sandwire/journal/networks/lo/*").unwrap();
    let text = says(&node, &[], false, &[("unfinished", "left")]);
    assert!(text.contains("within the container"), "{text}");
    let up = |node: &Node| node.sh_at(&pod.place(), "ip -br link show up dev lo").unwrap();
    assert!(up(&node).contains("lo"));
    loopback(Verb::Del).done().unwrap();
    assert_eq!(up(&node), "");
    says(&node, &[], true, &[]);
}

#[test]
fn leases() {
    let node = Node::installed().unwrap();
    let pods = ["a", "b"].map(|name| node.pod(name).unwrap());
    for pod in &pods {
        call(&node, Verb::Add, pod, &bridge()).result().unwrap();
    }
    node.sh(&format!(
        "cd {NETWORKS}/mynet; printf 'native\\r\\neth0' > 10.1.2.50; : > 10.1.2.60; printf ' \\n' > 10.1.2.61; mkdir 10.1.2.70; \
         rm 10.1.2.2; printf 'thief\\r\\neth0' > 10.1.2.3"
    ))
    .unwrap();
    let files = || node.sh(&format!("cd {NETWORKS}/mynet; echo 10.*")).unwrap();
    let before = files();
    let told = [
        ("unknown-holder", "told"),
        ("unknown-holder", "told"),
        ("unreadable-lease", "told"),
        ("lost-lease", "told"),
        ("lost-lease", "told"),
    ];
    says(&node, &["--dry-run"], false, &[&[("empty-lease", "would-mend"); 2], &told[..]].concat());
    assert_eq!(files(), before);
    let text = says(&node, &[], false, &[&[("empty-lease", "mended"); 2], &told[..]].concat());
    for part in ["container native", "sandwirectl leases release 10.1.2.50 --network mynet"] {
        assert!(ctl_status(&node, &["repair"]).1.contains(part), "{part}: {text}");
    }
    assert_eq!(files().trim(), "10.1.2.3 10.1.2.50 10.1.2.70");
    // As it says, for the one whose address is free: and then that is well.
    node.sh(&format!("printf 'pod-a\\r\\neth0' > {NETWORKS}/mynet/10.1.2.2; rmdir {NETWORKS}/mynet/10.1.2.70"))
        .unwrap();
    node.sh(&format!("printf 'pod-b\\r\\neth0' > {NETWORKS}/mynet/10.1.2.3")).unwrap();
    // Leases of a native plugin are no fault.
    says(&node, &[], true, &[("unknown-holder", "told")]);
}
