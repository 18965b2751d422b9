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
    assert!(agent.take_calls().iter().all(|call| call.method == "GET"), "repair only compares");
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

/// Whether CHECK finds each pod as its ADD had left it: the agent, the bridge and the port.
fn checks(node: &Node, config: &Value, pods: &[Pod; 2], results: &[Value; 2]) {
    for (pod, result) in pods.iter().zip(results) {
        let mut checked = config.clone();
        checked["prevResult"] = result.clone();
        call(node, Verb::Check, pod, &checked).done().unwrap();
    }
}

/// The agent was started again and has forgotten everything, its bridges are gone (networking-bagpipe, `reset_state`).
#[test]
fn an_agent_that_has_forgotten() {
    let node = Node::installed().unwrap();
    let pods = ["a", "b"].map(|name| node.pod(name).unwrap());
    let agent = Agent::tcp(&node, "127.0.0.1:8082").unwrap();
    let mut config = mynet();
    config["cniVersion"] = "1.0.0".into();
    let results = pods.each_ref().map(|pod| call(&node, Verb::Add, pod, &config).result().unwrap());
    says(&node, &[], true, &[]);
    let attached = agent.attached();
    drop(agent);
    // It can't be asked: said, for two attachments depend on it.
    let text = says(&node, &[], false, &[("silent-agent", "told")]);
    assert!(text.contains("2 attachments") && text.contains("can't be reached"), "{text}");
    node.sh("ip link del $(ip -br link show type bridge | grep -o '^evpn---[0-9a-f]*')").unwrap();
    let agent = Agent::tcp(&node, "127.0.0.1:8082").unwrap();
    says(&node, &["--dry-run"], false, &[("lost-registration", "would-mend"); 2]);
    assert!(agent.attached().is_empty());
    agent.set(Mode::Status(500, "no room".into())).unwrap();
    let text = says(&node, &[], false, &[("lost-registration", "left"); 2]);
    assert!(text.contains("it answered 500") && text.contains("start the pod again"), "{text}");
    agent.set(Mode::Ok).unwrap();
    let text = says(&node, &[], true, &[("lost-registration", "mended"); 2]);
    assert!(text.contains("pod-a") && text.contains("pod-b"), "{text}");
    assert_eq!(agent.attached(), attached);
    says(&node, &[], true, &[]);
    checks(&node, &config, &pods, &results);
    for pod in &pods {
        call(&node, Verb::Del, pod, &config).done().unwrap();
    }
    assert!(agent.attached().is_empty());
}

/// The agent's bridge had the network's gateway, and the one that it makes now has not.
#[test]
fn an_agent_that_has_forgotten_a_gateway() {
    let node = Node::installed().unwrap();
    let pods = ["a", "b"].map(|name| node.pod(name).unwrap());
    let agent = Agent::tcp(&node, "127.0.0.1:8082").unwrap();
    let mut config = mynet();
    config["cniVersion"] = "1.0.0".into();
    config["isGateway"] = true.into();
    let results = pods.each_ref().map(|pod| call(&node, Verb::Add, pod, &config).result().unwrap());
    let check = || checks(&node, &config, &pods, &results);
    check();
    says(&node, &[], true, &[]);
    drop(agent);
    node.sh("ip link del $(ip -br link show type bridge | grep -o '^evpn---[0-9a-f]*')").unwrap();
    let agent = Agent::tcp(&node, "127.0.0.1:8082").unwrap();
    // Without a bridge there is nothing that lacks it.
    says(&node, &["--dry-run"], false, &[("lost-registration", "would-mend"); 2]);
    let mended = [("lost-registration", "mended"), ("lost-gateway", "mended")];
    let text = says(&node, &[], true, &[mended[0], mended[0], mended[1], mended[1]]);
    assert!(
        text.contains("lacks the gateway's address 10.1.2.1/24") && text.contains("gateway's MAC 0a:58:"),
        "{text}"
    );
    says(&node, &[], true, &[]);
    check();
    // Taken away by hand, and another one in the way.
    let bridge = node.sh("ip -br link show type bridge | grep -o '^evpn---[0-9a-f]*'").unwrap();
    let bridge = bridge.trim();
    node.sh(&format!("ip addr del 10.1.2.1/24 dev {bridge}; ip addr add 10.9.9.9/24 dev {bridge}")).unwrap();
    says(&node, &["--dry-run"], false, &[("lost-gateway", "would-mend")]);
    let text = says(&node, &[], false, &[("lost-gateway", "left")]);
    assert!(text.contains("already has an IP address different from 10.1.2.1/24"), "{text}");
    node.sh(&format!("ip addr del 10.9.9.9/24 dev {bridge}")).unwrap();
    says(&node, &[], true, &[mended[1]]);
    check();
    // What only has its name was never meant.
    node.sh(&format!("ip link del {bridge}; ip link add {bridge} type veth peer name other")).unwrap();
    says(&node, &["--dry-run"], true, &[]);
    node.sh(&format!("ip link del {bridge}")).unwrap();
    for pod in &pods {
        call(&node, Verb::Del, pod, &config).done().unwrap();
    }
    assert!(agent.attached().is_empty());
    says(&node, &[], true, &[]);
    assert!(node.sh("find /run/sandwire/journal/networks -type f").unwrap().is_empty());
}

/// The agent has what no journal knows.
#[test]
fn an_agent_that_remembers_too_much() {
    let node = Node::installed().unwrap();
    let pods = ["a", "b"].map(|name| node.pod(name).unwrap());
    let agent = Agent::tcp(&node, "127.0.0.1:8082").unwrap();
    for pod in &pods {
        call(&node, Verb::Add, pod, &mynet()).result().unwrap();
    }
    // Somebody has removed both journals; one pod is dead, one lives.
    node.sh("rm -r /run/sandwire/journal/networks/mynet; rm /var/lib/cni/networks/mynet/10.1.2.2").unwrap();
    pods[0].drop_netns(&node).unwrap();
    node.sh("while [ $(ip -o link show type veth | wc -l) != 1 ]; do sleep 0.02; done").unwrap();
    let before = agent.attached();
    assert_eq!(before.len(), 2);
    // By their ports' names, which are random.
    let sorted = |args: &[&str]| {
        let (well, mut found, text) = repair(&node, args);
        found.retain(|(kind, _)| kind != "unknown-holder");
        found.sort();
        (well, found, text)
    };
    let unknown = |remedies: [&str; 2]| remedies.map(|remedy| ("unknown-registration".to_owned(), remedy.to_owned()));
    let (well, found, text) = sorted(&["--dry-run"]);
    assert_eq!((well, found), (false, unknown(["told", "would-mend"]).to_vec()), "{text}");
    assert_eq!(agent.attached(), before);
    let (well, found, text) = sorted(&[]);
    assert_eq!((well, found), (false, unknown(["mended", "told"]).to_vec()), "{text}");
    assert!(text.contains("ip link del veth"), "{text}");
    let left = agent.attached();
    assert_eq!(left.len(), 1);
    // As it says.
    let port = &left[0].1;
    node.sh(&format!("ip link del {port}")).unwrap();
    let (_, found, text) = sorted(&[]);
    assert_eq!(found, [("unknown-registration".to_owned(), "mended".to_owned())], "{text}");
    assert!(agent.attached().is_empty());
}

/// Rules of attachments without a journal: those of nobody go, those that a pod may be using stay.
#[test]
fn rules_of_nobody() {
    let node = Node::installed().unwrap();
    let pods = ["a", "b", "c"].map(|name| node.pod(name).unwrap());
    let mut config = masquerading();
    config["macspoofchk"] = true.into();
    for pod in &pods {
        call(&node, Verb::Add, pod, &config).result().unwrap();
    }
    says(&node, &[], true, &[]);
    // b is dead and forgotten; of c, which lives, somebody has removed the journal.
    let ruleset = |node: &Node| node.sh("nft list ruleset").unwrap();
    pods[1].drop_netns(&node).unwrap();
    node.sh("while [ $(ip -o link show type veth | wc -l) != 2 ]; do sleep 0.02; done").unwrap();
    node.sh(&format!(
        "rm $(grep -lr -e pod-b -e pod-c /run/sandwire/journal/networks/mynet) {NETWORKS}/mynet/10.1.2.3"
    ))
    .unwrap();
    let before = ruleset(&node);
    assert!(before.contains("10.1.2.3"), "{before}");
    let text = says(
        &node,
        &["--dry-run"],
        false,
        &[("unknown-holder", "told"), ("orphaned-rules", "told"), ("orphaned-rules", "would-mend")],
    );
    assert_eq!(ruleset(&node), before);
    assert!(text.contains("rules for 10.1.2.3, rules for port veth") && text.contains("a lease of 10.1.2.4"), "{text}");
    says(&node, &[], false, &[("unknown-holder", "told"), ("orphaned-rules", "told"), ("orphaned-rules", "mended")]);
    let after = ruleset(&node);
    assert!(!after.contains("10.1.2.3") && !after.contains("pod-b"), "{after}");
    assert!(after.contains("10.1.2.2") && after.contains("10.1.2.4"), "{after}");
    // The DEL of the one that lives takes its own.
    call(&node, Verb::Del, &pods[2], &config).done().unwrap();
    says(&node, &[], true, &[]);
    call(&node, Verb::Del, &pods[0], &config).done().unwrap();
    assert_eq!(ruleset(&node), "");
}

const JOURNALS: &str = "/run/sandwire/journal/networks";

#[test]
fn journals_that_say_nothing() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    call(&node, Verb::Add, &pod, &bridge()).result().unwrap();
    node.sh(&format!(
        "cd {JOURNALS}/mynet; : > 00000000000000000000000000000001; printf '{{\"attach' > 00000000000000000000000000000002; \
         printf 'no\nJSON\n' > 00000000000000000000000000000003; mkdir ../gone; : > ../gone/00000000000000000000000000000004"
    ))
    .unwrap();
    let files = || node.sh(&format!("cd {JOURNALS}; find . -type f | wc -l")).unwrap();
    let kinds = |remedy| {
        [
            ("blank-journal", remedy),
            ("blank-journal", remedy),
            ("blank-journal", remedy),
            ("unreadable-journal", remedy),
        ]
    };
    says(&node, &["--dry-run"], false, &kinds("would-mend"));
    assert_eq!(files().trim(), "5");
    let text = says(&node, &[], true, &kinds("mended"));
    assert!(text.contains("killed before it did anything"), "{text}");
    assert_eq!(files().trim(), "1");
    assert_eq!(node.sh(&format!("ls {JOURNALS}")).unwrap().trim(), "mynet");
    says(&node, &[], true, &[]);
    call(&node, Verb::Del, &pod, &bridge()).done().unwrap();
}

/// The first line, which says whose it is, is damaged: no GC found what the rest lists.
#[test]
fn a_journal_that_does_not_say_whose() {
    let node = Node::installed().unwrap();
    let before = node.snapshot().unwrap();
    let pod = node.pod("a").unwrap();
    call(&node, Verb::Add, &pod, &masquerading()).result().unwrap();
    node.sh(&format!("sed -i '1s/.*/###/' {JOURNALS}/mynet/*")).unwrap();
    assert_eq!(json(&node, &["attachments"]).as_array().unwrap().len(), 0);
    let (well, found, text) = repair(&node, &["--dry-run"]);
    assert!(!well && found[0] == ("unreadable-journal".into(), "would-mend".into()), "{text}");
    let (_, found, text) = repair(&node, &[]);
    assert_eq!(found[0], ("unreadable-journal".into(), "mended".into()), "{text}");
    assert!(text.contains("pod-a"), "{text}");
    assert_eq!(json(&node, &["attachments"]).as_array().unwrap().len(), 1);
    // It is found again, and so is what is damaged; what it lists goes with the pod.
    says(&node, &[], false, &[("damaged", "told")]);
    die(&node, &pod);
    let (_, found, text) = repair(&node, &[]);
    assert!(found.contains(&("gone".into(), "mended".into())), "{text}");
    node.snapshot().unwrap().assert_only_undo_left(&before).unwrap();
    // Without a lease nobody can say whose it is: told, with what it lists.
    node.sh(&format!("rm -r {JOURNALS}")).unwrap();
    let flat = value!({"cniVersion": "1.0.0", "name": "flat", "type": "bridge", "bridge": "cni0"});
    let other = node.pod("b").unwrap();
    call(&node, Verb::Add, &other, &flat).result().unwrap();
    node.sh(&format!("sed -i '1s/.*/###/' {JOURNALS}/flat/*")).unwrap();
    let text = says(&node, &[], false, &[("unreadable-journal", "told")]);
    assert!(text.contains("link veth"), "{text}");
    // As it says: the DEL of its attachment finds it.
    call(&node, Verb::Del, &other, &flat).done().unwrap();
    assert!(!node.sh("ip -br link").unwrap().contains("veth"));
}

/// A bridge that is removed by hand leaves its ports behind, and their pods cut off; the next ADD makes another bridge.
#[test]
fn a_bridge_that_is_gone() {
    let node = Node::installed().unwrap();
    let pods = [node.pod("a").unwrap(), node.pod("b").unwrap()];
    let result = call(&node, Verb::Add, &pods[0], &bridge()).result().unwrap();
    says(&node, &[], true, &[]);
    node.sh("ip link del cni0").unwrap();
    let text = says(&node, &[], false, &[("lost-port", "told")]);
    let port = result["interfaces"][1]["name"].as_str().unwrap();
    assert!(text.contains(&format!("ip link set {port} master cni0")), "{text}");
    assert_eq!(json(&node, &["attachments"])[0]["state"], "no bridge");
    call(&node, Verb::Add, &pods[1], &bridge()).result().unwrap();
    says(&node, &[], false, &[("lost-port", "told")]);
    node.sh(&format!("ip link set {port} master cni0")).unwrap();
    says(&node, &[], true, &[]);
    assert_eq!(json(&node, &["attachments"])[0]["state"], "attached");
    // Without its end on the node it has nothing in what its path may lead to by now: those addresses are another's.
    node.sh(&format!("ip link del {port}")).unwrap();
    let again = "ip link add eth0 type veth peer name x0; ip addr add 10.9.9.9/24 dev eth0";
    node.sh_at(&pods[0].place(), again).unwrap();
    let row = &json(&node, &["attachments"])[0];
    assert_eq!((&row["state"], &row["addresses"]), (&"gone".into(), &value!(["10.1.2.2/24"])));
}

/// Whose lines can't be read any more stays as long as anything of it may be in use.
#[test]
fn a_damaged_journal_after_its_del() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    call(&node, Verb::Add, &pod, &masquerading()).result().unwrap();
    node.sh(&format!("sed -i '4s/.*/###/' {JOURNALS}/mynet/*")).unwrap();
    let text = says(&node, &[], false, &[("damaged", "told")]);
    assert!(text.contains(&format!("{JOURNALS}/mynet/")), "which file? {text}");
    call(&node, Verb::Del, &pod, &masquerading()).done().unwrap();
    says(&node, &["--dry-run"], false, &[("damaged", "would-mend")]);
    says(&node, &[], true, &[("damaged", "mended")]);
    assert_eq!(json(&node, &["attachments"]), value!([]));
    says(&node, &[], true, &[]);
}

/// The line that ends an ADD may be the damaged one: a pod that lives is not taken for an ADD that was killed.
#[test]
fn a_damaged_end_of_an_add() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    call(&node, Verb::Add, &pod, &masquerading()).result().unwrap();
    node.sh(&format!("sed -i 's/^{{\"commit\".*/###/' {JOURNALS}/mynet/*")).unwrap();
    let before = node.snapshot().unwrap();
    let text = says(&node, &[], false, &[("damaged", "told")]);
    assert!(text.contains("can't be read"), "{text}");
    node.snapshot().unwrap().assert_unchanged(&before).unwrap();
    // Nor by a GC that lists it.
    let mut config = masquerading();
    config["cniVersion"] = "1.1.0".into();
    config["cni.dev/valid-attachments"] = value!([{"containerID": pod.id, "ifname": "eth0"}]);
    node.call("bridge", Verb::Gc).config(&config).run().unwrap().done().unwrap();
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
}
