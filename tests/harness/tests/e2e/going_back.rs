//! A node that goes back to native plugins: those delete our links, addresses and leases, and know nothing of our firewall
//! objects, which `sandwirectl firewall remove` removes.

use crate::ctl::{ctl, ctl_status, json};
use sandwire_harness::{Installation, Node, Place, Pod, Snapshot, Verb};
use serde_json::{Value, json as value};
use std::process::Command;

const PLUGINS: [&str; 5] = ["bridge", "portmap", "firewall", "bandwidth", "tuning"];

/// `policy`: Debian's knows no isolation, so whoever goes back to that has to take it out of the configuration.
fn config(plugin: &str, pod: &Pod, policy: &str) -> Value {
    let mut config = match plugin {
        "bridge" => {
            value!({"bridge": "br-t", "isGateway": true, "ipMasq": true, "macspoofchk": true, "ipam": {"type": "host-local",
            "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1:2::/64"}]], "routes": [{"dst": "0.0.0.0/0"}]}})
        }
        "portmap" => {
            value!({"runtimeConfig": {"portMappings": [{"hostPort": if pod.id == "pod-a" { 8080 } else { 8081 }, "containerPort": 80, "protocol": "tcp"}]}})
        }
        "firewall" => value!({"ingressPolicy": policy}),
        "bandwidth" => {
            value!({"ingressRate": 80_000_000, "ingressBurst": 800_000, "egressRate": 80_000_000, "egressBurst": 800_000})
        }
        _ => value!({"mtu": 1400}),
    };
    for (key, text) in [("cniVersion", "1.0.0"), ("name", "mynet"), ("type", plugin)] {
        config[key] = text.into();
    }
    config
}

/// All of ours.
const OBJECTS: [&str; 8] = [
    "table inet sandwire",
    "table bridge sandwire",
    "table inet sandwire-ports",
    "table inet sandwire-forward",
    "table bridge sandwire-forward",
    "rule \"sandwire: of containers\" of chain FORWARD of table ip filter",
    "rule \"sandwire: admin overrides\" of chain FORWARD of table ip filter",
    "rule \"sandwire: of containers\" of chain filter_FORWARD of table inet firewalld",
];

/// A node whose runtime has native plugins and a firewall of its own, which we then replaced.
struct Bench {
    node: Node,
    pods: Vec<Pod>,
    foreign: String,
    before: Snapshot,
}

impl Bench {
    fn new() -> Self {
        let node = Node::new().unwrap();
        node.sh("cp /usr/lib/cni/bridge /usr/lib/cni/host-local /opt/cni/bin/").unwrap();
        for plugin in &PLUGINS[1..] {
            node.sh(&format!("cp /usr/lib/cni/{plugin} /opt/cni/bin/")).unwrap();
        }
        node.sh("nft add table ip nat; nft add table ip6 nat; iptables -P FORWARD DROP; iptables -N CNI-ADMIN; iptables -A FORWARD -s 198.51.100.1 -j DROP
            nft add table inet firewalld
            nft add chain inet firewalld filter_FORWARD '{ type filter hook forward priority 10; }'
            nft add rule inet firewalld filter_FORWARD reject
            nft add table inet sandwirelike; nft add table ip sandwire; nft add table inet others
            nft add chain inet others c '{ type filter hook forward priority 0; }'
            nft add rule inet others c counter comment '\"sandwire: of containers\"'")
            .unwrap();
        let foreign = Self::rules(&node);
        let mut command = Installation::command().unwrap();
        command.arg("--replace");
        assert!(node.run(&Place::Host, command, b"").unwrap().status.success());
        let pods = ["a", "b"].map(|name| node.pod(name).unwrap()).into();
        let before = node.snapshot().unwrap();
        Self { node, pods, foreign, before }
    }

    /// Without counters, which count.
    fn rules(node: &Node) -> String {
        node.sh("nft -s list ruleset").unwrap()
    }

    fn attach(&self) -> Vec<Value> {
        let attach = |pod: &Pod| {
            PLUGINS.iter().fold(Value::Null, |result, plugin| {
                let mut config = config(plugin, pod, "isolated");
                config["prevResult"] = result;
                self.node.cni(plugin, Verb::Add, pod, "eth0", &config).unwrap().result().unwrap()
            })
        };
        self.pods.iter().map(attach).collect()
    }

    fn detach(&self, results: &[Value], is_native: bool) {
        for (pod, result) in self.pods.iter().zip(results) {
            for plugin in PLUGINS.iter().rev() {
                let mut config = config(plugin, pod, if is_native { "same-bridge" } else { "isolated" });
                config["prevResult"] = result.clone();
                let del = || self.node.cni(plugin, Verb::Del, pod, "eth0", &config).unwrap();
                if is_native && *plugin == "bridge" {
                    // 1.1.1 has deleted everything by the time when it misses what it would have made (docs/compatibility.md).
                    assert!(del().error().unwrap().text().contains("does not exist"));
                }
                del().done().unwrap();
            }
        }
    }

    fn answered(&self, args: &[&str], input: &str) -> (bool, String) {
        let mut command = Command::new(Installation::sandwirectl());
        command.args(args).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let finished = self.node.run(&Place::Host, command, input.as_bytes()).unwrap();
        (finished.status.success(), format!("{}{}", finished.stdout, finished.stderr))
    }
}

#[test]
fn native_plugins_delete_and_sandwirectl_removes() {
    let bench = Bench::new();
    let results = bench.attach();
    // The plugin directory is the native plugins' again, and the pods live.
    ctl(&bench.node, &["uninstall", "--force"]);
    assert_eq!(bench.node.sh("cmp /opt/cni/bin/bridge /usr/lib/cni/bridge").unwrap(), "");
    bench.detach(&results, true);
    let differences = bench.node.snapshot().unwrap().attachments_since(&bench.before);
    let is_firewall = |line: &String| line.starts_with("+ host nft ");
    let of_others = |line: &String| !line.starts_with("- file /") && !line.starts_with("+ file /opt/cni/bin/");
    let left: Vec<&String> = differences.iter().filter(|line| of_others(line) && !is_firewall(line)).collect();
    assert!(left.is_empty(), "links, addresses and leases go with the native DEL: {left:?}");

    let rules = Bench::rules(&bench.node);
    let shown = ctl(&bench.node, &["firewall", "remove", "--dry-run"]);
    for object in OBJECTS {
        assert!(shown.contains(&format!("would remove {object}\n")), "{object}: {shown}");
    }
    assert_eq!(Bench::rules(&bench.node), rules, "nothing was asked for");
    for input in ["", "\n", "n\n"] {
        let (done, text) = bench.answered(&["firewall", "remove"], input);
        assert!(
            !done && text.contains("not confirmed") && text.contains("2 attachments have something in it"),
            "{text}"
        );
    }
    let (done, text) = bench.answered(&["firewall", "remove", "--json"], "y\n");
    assert!(!done && text.contains("--yes"), "{text}");
    assert_eq!(Bench::rules(&bench.node), rules, "nobody said yes");
    let (done, text) = bench.answered(&["firewall", "remove"], "y\n");
    assert!(done && OBJECTS.iter().all(|object| text.contains(&format!("removed {object}\n"))), "{text}");
    assert_eq!(Bench::rules(&bench.node), bench.foreign, "what others have is as it was");
    assert!(ctl(&bench.node, &["firewall", "remove"]).contains("nothing of Sandwire's is in the firewall"));
}

/// For programs; and pods that live are deleted afterwards by ours, which miss nothing.
#[test]
fn under_pods_that_live() {
    let bench = Bench::new();
    let results = bench.attach();
    let shown = json(&bench.node, &["firewall", "remove", "--dry-run"]);
    assert_eq!((&shown["removed"], &shown["attachments"]), (&value!(false), &value!(2)), "{shown}");
    let done = json(&bench.node, &["firewall", "remove", "--yes"]);
    assert_eq!((&done["removed"], &done["objects"]), (&value!(true), &shown["objects"]), "{done}");
    let table = value!({"family": "bridge", "table": "sandwire", "chain": null, "comment": null});
    let rule = value!({"family": "ip", "table": "filter", "chain": "FORWARD", "comment": "sandwire: of containers"});
    let objects = done["objects"].as_array().unwrap();
    assert!(objects.len() == OBJECTS.len() && objects.contains(&table) && objects.contains(&rule), "{done}");
    assert_eq!(Bench::rules(&bench.node), bench.foreign);
    bench.detach(&results, false);
    bench.node.snapshot().unwrap().assert_same_attachments(&bench.before).unwrap();
    // The next pods have all of it again.
    let results = bench.attach();
    for plugin in PLUGINS {
        let mut config = config(plugin, &bench.pods[0], "isolated");
        config["prevResult"] = results[0].clone();
        bench.node.cni(plugin, Verb::Check, &bench.pods[0], "eth0", &config).unwrap().done().unwrap();
    }
    bench.detach(&results, false);
}

#[test]
fn with_everything_else() {
    let bench = Bench::new();
    let results = bench.attach();
    let text = ctl(&bench.node, &["uninstall", "--force", "--purge", "--firewall"]);
    assert!(OBJECTS.iter().all(|object| text.contains(&format!("removed {object}\n"))), "{text}");
    assert_eq!(Bench::rules(&bench.node), bench.foreign);
    bench.detach(&results, true);
    assert_eq!(
        bench
            .node
            .sh("ip -br link show type veth; ip -br link show type ifb; find /run/sandwire /var/lib/sandwire -type f || true")
            .unwrap(),
        ""
    );
}

/// What can't be done is said, and nothing is done by halves.
#[test]
fn without_the_right_to() {
    let bench = Bench::new();
    let results = bench.attach();
    let rules = Bench::rules(&bench.node);
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"]).arg(Installation::sandwirectl());
    command.args(["firewall", "remove", "--yes"]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let finished = bench.node.run(&Place::Host, command, b"").unwrap();
    assert!(!finished.status.success(), "{finished:?}");
    assert!(
        finished.stderr.contains("firewall objects of Sandwire") && finished.stderr.contains("CAP_NET_ADMIN"),
        "{finished:?}"
    );
    assert_eq!(Bench::rules(&bench.node), rules);
    let (done, text) = ctl_status(&bench.node, &["firewall"]);
    assert!(!done && text.contains("remove"), "{text}");
    bench.detach(&results, false);
}
