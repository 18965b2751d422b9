//! An address manager that is none of ours: what its DEL says is told, and not done twice; one that hangs is ended and asked to
//! take back; where its leases are is not forgotten without it.

use sandwire_harness::{Installation, NATIVE, Node, OURS, Outcome, Place, Pod, Verb};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

/// Says what it is asked, answers as files in /run want it.
const SCRIPT: &str = r#"#!/bin/sh
echo $CNI_COMMAND $CNI_CONTAINERID >>/run/ipam.log
case $CNI_COMMAND in
ADD)
  if [ -e /run/ipam.hangs ]; then sleep 1234.5; fi
  echo '{"cniVersion":"1.1.0","ips":[{"address":"10.30.0.5/24"}]}' ;;
DEL)
  if [ -e /run/ipam.down ] || grep -q elsewhere; then
    echo '{"code":11,"msg":"API server unreachable","details":"10.30.0.5 is not released"}'
    exit 1
  fi ;;
esac
"#;

struct Bench {
    node: Node,
    pod: Pod,
}

impl Bench {
    fn new() -> Self {
        let node = Node::installed().unwrap();
        node.write("/mnt/ipam/api", SCRIPT).unwrap();
        node.sh("chmod 755 /mnt/ipam/api").unwrap();
        let pod = node.pod("a").unwrap();
        Self { node, pod }
    }

    fn call(&self, verb: Verb) -> Outcome {
        self.call_with(verb, &json!({}))
    }

    fn call_with(&self, verb: Verb, more: &Value) -> Outcome {
        let mut config = json!({"cniVersion": "1.1.0", "name": "mynet", "type": "bridge", "bridge": "cni0", "ipam": {"type": "api"}});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let call = self.node.call("bridge", verb).config(&config);
        let call = if verb == Verb::Gc { call } else { call.pod(&self.pod).ifname("eth0") };
        call.program(format!("{OURS}/bridge")).path("/mnt/ipam").run().unwrap()
    }

    /// What it was asked since the last time.
    fn asked(&self) -> String {
        self.node.sh("cat /run/ipam.log; : >/run/ipam.log").unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// It has ours do the work, which would wait for its own caller: the lock of the attachment is that one's.
#[test]
fn one_that_calls_ours() {
    let bench = Bench::new();
    let before = bench.node.snapshot().unwrap();
    let script = "#!/bin/sh\nsed 's/\"type\": *\"api\"/\"type\":\"host-local\"/' | exec /opt/cni/bin/host-local\n";
    bench.node.write("/mnt/ipam/api", script).unwrap();
    let more = json!({"ipam": {"type": "api", "subnet": "10.30.0.0/24"}});
    for address in ["10.30.0.2/24", "10.30.0.3/24"] {
        let result = bench.call_with(Verb::Add, &more).result().unwrap();
        assert_eq!(result["ips"][0]["address"], address, "{result}");
        bench.call_with(Verb::Del, &more).done().unwrap();
        bench.call_with(Verb::Del, &more).done().unwrap();
        bench.node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
    }
    // GC goes the same way; the one that is listed keeps its address, the other's is given back by ours.
    let result = bench.call_with(Verb::Add, &more).result().unwrap();
    let address = result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().to_owned();
    let lease = format!("/var/lib/cni/networks/mynet/{address}");
    bench
        .node
        .sh(&format!("printf 'other\\r\\neth0' >/var/lib/cni/networks/mynet/10.30.0.99; test -e {lease}"))
        .unwrap();
    let mut gc = more.clone();
    gc["cni.dev/valid-attachments"] = json!([{"containerID": bench.pod.id, "ifname": "eth0"}]);
    let outcome = bench.call_with(Verb::Gc, &gc);
    assert!(outcome.duration < Duration::from_secs(10), "{outcome}");
    outcome.done().unwrap();
    bench.node.sh(&format!("test -e {lease}; test ! -e /var/lib/cni/networks/mynet/10.30.0.99")).unwrap();
    bench.call_with(Verb::Del, &more).done().unwrap();
    bench.node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
    // An ADD that fails after it.
    let mut config = json!({"cniVersion": "1.1.0", "name": "mynet", "type": "bridge", "bridge": "cni0"});
    config["ipam"] = more["ipam"].clone();
    bench.node.write("/mnt/config", config.to_string()).unwrap();
    let text = bench
        .node
        .sh(&format!(
            "export CNI_COMMAND=ADD CNI_CONTAINERID={} CNI_NETNS={} CNI_IFNAME=eth0 CNI_PATH=/mnt/ipam
            ! {OURS}/bridge </mnt/config 2>&1 >/dev/full; ls /var/lib/cni/networks/mynet",
            bench.pod.id,
            bench.pod.netns.display()
        ))
        .unwrap();
    assert!(text.contains("the result could not be written") && !text.contains("\n10.30."), "{text}");
    bench.node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
}

/// Who copies a directory of links copies what they lead to: a copy of this program is this program.
#[test]
fn copies_of_ours() {
    let bench = Bench::new();
    let before = bench.node.snapshot().unwrap();
    bench.node.sh("mkdir /mnt/copies; cp -L /opt/cni/bin/bridge /opt/cni/bin/host-local /mnt/copies/").unwrap();
    let config = json!({"cniVersion": "1.1.0", "name": "mynet", "type": "bridge", "bridge": "cni0",
        "ipam": {"type": "host-local", "subnet": "10.30.0.0/24"}});
    let call = |verb| {
        let call = bench.node.call("bridge", verb).pod(&bench.pod).ifname("eth0").config(&config);
        call.program("/mnt/copies/bridge").path("/mnt/copies").run().unwrap()
    };
    let result = call(Verb::Add).result().unwrap();
    assert_eq!(result["ips"][0]["address"], "10.30.0.2/24", "{result}");
    assert!(bench.node.sh("cat /run/sandwire/journal/networks/mynet/*").unwrap().contains("bridge/host-local"));
    call(Verb::Del).done().unwrap();
    bench.node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
}

/// The plugin fails for a reason of its own, after the address manager's DEL: there is nothing to come again for. If that failed
/// too, what it says is told.
#[test]
fn a_plugin_that_fails_after_it() {
    let bench = Bench::new();
    let before = bench.node.snapshot().unwrap();
    bench.call(Verb::Add).result().unwrap();
    bench.asked();
    let broken = json!({"vlan": -7});
    bench.node.sh("touch /run/ipam.down").unwrap();
    let error = bench.call_with(Verb::Del, &broken).error().unwrap();
    assert!(error.text().contains("API server unreachable"), "{error:?}");
    bench.node.sh("rm /run/ipam.down").unwrap();
    bench.call_with(Verb::Del, &broken).done().unwrap();
    bench.node.sh("rm /run/ipam.log").unwrap();
    bench.node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
}

/// The configuration is another one since: with it the address manager looks where it has given nothing.
#[test]
fn a_configuration_that_was_changed_since() {
    let bench = Bench::new();
    let before = bench.node.snapshot().unwrap();
    bench.call(Verb::Add).result().unwrap();
    bench.asked();
    bench.call_with(Verb::Del, &json!({"ipam": {"type": "api", "socket": "elsewhere"}})).done().unwrap();
    assert_eq!(bench.asked(), "DEL pod-a DEL pod-a");
    bench.node.sh("rm /run/ipam.log").unwrap();
    bench.node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
}

/// An ADD that policy refuses has given nothing, and its DEL is not repeated for ever.
#[test]
fn one_that_policy_does_not_let_run() {
    let bench = Bench::new();
    apply(&bench.node, "'s/^native_delegates = .*/native_delegates = [\"none\"]/'");
    let before = bench.node.snapshot().unwrap();
    bench.call(Verb::Add).error_with(110, "may not execute the native plugin").unwrap();
    bench.call(Verb::Del).done().unwrap();
    bench.node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
}

/// GC says whose address is given back: its own environment names nobody.
#[test]
fn gc_names_the_container() {
    let bench = Bench::new();
    bench.call(Verb::Add).result().unwrap();
    bench.pod.drop_netns(&bench.node).unwrap();
    bench.asked();
    bench.call_with(Verb::Gc, &json!({"cni.dev/valid-attachments": []})).done().unwrap();
    assert!(bench.asked().contains(&format!("DEL {}", bench.pod.id)), "{}", bench.asked());
}

/// The policy with other lines, in force.
fn apply(node: &Node, script: &str) {
    node.sh(&format!("sed -i {script} /etc/sandwire/policy.toml")).unwrap();
    let mut apply = Command::new(Installation::sandwirectl());
    apply.arg("apply").env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    node.run(&Place::Host, apply, b"").unwrap();
}

/// After a reboot there is no journal: only the address manager knows what it has given.
#[test]
fn what_its_del_says_is_told() {
    for with_journal in [true, false] {
        let bench = Bench::new();
        let before = bench.node.snapshot().unwrap();
        bench.call(Verb::Add).result().unwrap();
        bench.pod.drop_netns(&bench.node).unwrap();
        bench.node.sh("touch /run/ipam.down; while ip link show type veth | grep -q .; do sleep 0.02; done").unwrap();
        if !with_journal {
            bench.node.sh("rm -r /run/sandwire/journal").unwrap();
        }
        bench.asked();
        bench.call(Verb::Del).error_with(11, "API server unreachable").unwrap();
        assert_eq!(bench.asked(), "DEL pod-a", "{with_journal}");
        bench.node.sh("rm /run/ipam.down").unwrap();
        bench.call(Verb::Del).done().unwrap();
        assert_eq!(bench.asked(), "DEL pod-a", "{with_journal}");
        bench.node.sh("rm /run/ipam.log").unwrap();
        bench.node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
    }
}

/// It was ended in the middle of its ADD: whatever it has given by then is its DEL's to take back, at once.
#[test]
fn one_that_hangs_is_asked_to_take_back() {
    let bench = Bench::new();
    apply(&bench.node, "'s/^deadline_ms = 30000/deadline_ms = 1500/'");
    let before = bench.node.snapshot().unwrap();
    bench.node.sh("touch /run/ipam.hangs").unwrap();
    let error = bench.call(Verb::Add).error_with(115, "did not finish").unwrap();
    assert!(!error.details.contains("not undone"), "{error:?}");
    assert_eq!(bench.asked(), "ADD pod-a DEL pod-a");
    bench.node.sh("rm /run/ipam.hangs /run/ipam.log; ! pgrep -f '^sleep 1234[.]5'").unwrap();
    bench.node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
}

/// What native plugins gave is in a directory that the policy does not list, or the plugin fails for another reason: either the
/// lease goes, or DEL fails so that the runtime comes again.
#[test]
fn leases_in_a_directory_of_its_own() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let lease = "/run/orchestrator/state/mynet/10.21.0.2";
    let config = json!({"cniVersion": "1.0.0", "name": "mynet", "type": "bridge", "bridge": "cni0",
        "ipam": {"type": "host-local", "subnet": "10.21.0.0/24", "dataDir": "/run/orchestrator/state"}});
    let call = |verb, config: &Value| node.call("bridge", verb).pod(&pod).ifname("eth0").config(config);
    let attached = || {
        let native = call(Verb::Add, &config).program(format!("{NATIVE}/bridge")).path(NATIVE);
        native.run().unwrap().result().unwrap();
        node.sh("ip link del $(ip -br link show master cni0 | cut -d@ -f1)").unwrap();
        assert!(node.read(lease).unwrap().is_some());
    };
    attached();
    for _ in 0..2 {
        let error = call(Verb::Del, &config).run().unwrap().error().unwrap();
        assert!(error.text().contains("data_dirs"), "{error:?}");
        assert!(node.read(lease).unwrap().is_some());
    }
    apply(&node, r#"'s|^data_dirs = \["/var/lib/cni/\*"|data_dirs = ["/run/orchestrator/*", "/var/lib/cni/*"|'"#);
    call(Verb::Del, &config).run().unwrap().done().unwrap();
    assert!(node.read(lease).unwrap().is_none());
    // host-local refuses arguments that it does not know.
    node.sh("rm -r /run/orchestrator/state/mynet").unwrap();
    attached();
    call(Verb::Del, &config).env("CNI_ARGS", "K8S_POD_NAME=x").run().unwrap().done().unwrap();
    assert!(node.read(lease).unwrap().is_none());
}
