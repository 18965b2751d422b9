//! A node that changes over with pods running, and back: the everyday chain as release 1.9.1 of the reference makes it, with
//! both of its backends, and as ours does.

use crate::ctl::{ctl, json};
use sandwire_harness::{Node, OURS, Outcome, Pod, Snapshot, Verb};
use serde_json::{Value, json};

/// Where `tests/install-packages.sh` has put it; Debian's is 1.1.1, which has no nftables backends.
fn release() -> String {
    let tools = std::env::var("SANDWIRE_TOOLS").unwrap_or_else(|_| "/var/tmp/sandwire-tools".into());
    let folder = format!("{tools}/cni-1.9.1");
    assert!(
        std::path::Path::new(&folder).join("tuning").exists(),
        "{folder} is missing; run: tests/install-packages.sh"
    );
    folder
}

/// The main plugin and all that comes behind it.
fn chain(main: &str, backend: &str) -> Vec<Value> {
    let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1:2::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]});
    let mut first = json!({"type": main, "ipMasq": true, "ipMasqBackend": backend, "ipam": ipam});
    if main == "bridge" {
        for (key, value) in [("isGateway", json!(true)), ("macspoofchk", json!(true)), ("bridge", json!("br-c"))] {
            first[key] = value;
        }
    }
    let mut all = vec![
        first,
        json!({"type": "portmap", "backend": backend, "runtimeConfig": {"portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 8053, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"}]}}),
        json!({"type": "firewall", "backend": "iptables"}),
        json!({"type": "bandwidth", "ingressRate": 80_000_000, "ingressBurst": 800_000, "egressRate": 80_000_000, "egressBurst": 800_000}),
        json!({"type": "tuning", "mtu": 1400, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}),
    ];
    for config in &mut all {
        config["cniVersion"] = "1.1.0".into();
        config["name"] = "mynet".into();
    }
    all
}

struct Bench {
    node: Node,
    pods: [Pod; 2],
    chain: Vec<Value>,
    before: Snapshot,
}

impl Bench {
    /// What the reference makes once for a whole node is there before the test begins.
    fn new(main: &str, backend: &str) -> Self {
        let node = Node::installed().unwrap();
        let pods = ["a", "b"].map(|name| node.pod(name).unwrap());
        let before = node.snapshot().unwrap();
        let mut bench = Self { node, pods, chain: chain(main, backend), before };
        let result = bench.add(&release(), &bench.pods[1]);
        bench.del(&release(), &bench.pods[1], Some(&result));
        bench.before = bench.node.snapshot().unwrap();
        bench
    }

    fn call(&self, folder: &str, verb: Verb, pod: &Pod, config: &Value, prev: Option<&Value>) -> Outcome {
        let mut config = config.clone();
        if let Some(prev) = prev {
            config["prevResult"] = prev.clone();
        }
        let plugin = config["type"].as_str().unwrap().to_owned();
        self.node.call(&plugin, verb).pod(pod).ifname("eth0").config(&config).path(folder).run().unwrap()
    }

    fn add(&self, folder: &str, pod: &Pod) -> Value {
        let result = self.chain.iter().fold(Value::Null, |result, config| {
            let prev = (!result.is_null()).then_some(&result);
            self.call(folder, Verb::Add, pod, config, prev).result().unwrap()
        });
        // Native ptp's gateway gets its route when duplicate address detection is over.
        self.node
            .sh("for i in $(seq 100); do ip -6 addr show tentative | grep -q inet6 || exit 0; sleep 0.05; done; exit 1")
            .unwrap();
        result
    }

    fn check(&self, folder: &str, pod: &Pod, result: &Value) {
        for config in &self.chain {
            let outcome = self.call(folder, Verb::Check, pod, config, Some(result));
            outcome.done().unwrap_or_else(|e| panic!("{}: {e:#}", config["type"]));
        }
    }

    fn del(&self, folder: &str, pod: &Pod, result: Option<&Value>) {
        for config in self.chain.iter().rev() {
            let outcome = self.call(folder, Verb::Del, pod, config, result);
            outcome.done().unwrap_or_else(|e| panic!("{}: {e:#}", config["type"]));
        }
    }

    fn gc(&self, valid: &[&Pod]) {
        let valid: Vec<Value> = valid.iter().map(|pod| json!({"containerID": pod.id, "ifname": "eth0"})).collect();
        for config in &self.chain {
            let mut config = config.clone();
            config["cni.dev/valid-attachments"] = valid.clone().into();
            let plugin = config["type"].as_str().unwrap();
            self.node.call(plugin, Verb::Gc).config(&config).run().unwrap().done().unwrap();
        }
    }

    /// The namespace goes, and the kernel takes what was in it (`cleanup_net`) when it gets to that.
    fn kill(&self, pod: &Pod) {
        let links = || self.node.sh("ip -br link show type veth | wc -l").unwrap();
        let before = links();
        pod.drop_netns(&self.node).unwrap();
        let gone = (0..400).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(25));
            links() != before
        });
        assert!(gone, "the veth of {} is still there", pod.id);
    }

    fn rules(&self) -> String {
        self.node.sh("nft list ruleset").unwrap()
    }

    fn nothing_left(&self) {
        self.node.snapshot().unwrap().assert_same_attachments(&self.before).unwrap();
    }
}

const COMBINATIONS: [(&str, &str); 4] =
    [("bridge", "nftables"), ("bridge", "iptables"), ("ptp", "nftables"), ("ptp", "iptables")];

/// That the backend asked for is the one that was used: what there is to recognise is what the release makes.
fn assert_backend(rules: &str, main: &str, backend: &str) {
    let (own, other): (&[&str], &[&str]) =
        (&["cni_plugins_masquerade", "cni_hostport"], &["CNI-HOSTPORT-DNAT", "jump CNI-"]);
    let (there, absent) = if backend == "nftables" { (own, &other[..1]) } else { (other, own) };
    assert!(there.iter().all(|text| rules.contains(text)), "{backend}: {rules}");
    assert!(!absent.iter().any(|text| rules.contains(text)), "{backend}: {rules}");
    assert_eq!(rules.contains("cni-br-iface-pod-a-eth0"), main == "bridge", "{rules}");
    assert!(rules.contains("CNI-FORWARD") && !rules.contains("sandwire"), "{rules}");
}

#[test]
fn what_the_release_attached_ours_deletes() {
    for (main, backend) in COMBINATIONS {
        let bench = Bench::new(main, backend);
        let [pod, other] = &bench.pods;
        let others = bench.add(&release(), other);
        for is_dead in [false, true] {
            let with_other = bench.node.snapshot().unwrap();
            let result = bench.add(&release(), pod);
            assert_backend(&bench.rules(), main, backend);
            bench.check(OURS, pod, &result);
            if is_dead {
                bench.kill(pod);
            }
            bench.del(OURS, pod, Some(&result));
            bench.node.snapshot().unwrap().assert_same_attachments(&with_other).unwrap();
            bench.del(OURS, pod, None);
            // The other's is as it was: the release finds all of it.
            bench.check(&release(), other, &others);
        }
        bench.del(OURS, other, Some(&others));
        bench.nothing_left();
    }
}

#[test]
fn what_the_release_attached_ours_collects() {
    for (main, backend) in COMBINATIONS {
        let bench = Bench::new(main, backend);
        let [pod, other] = &bench.pods;
        let others = bench.add(&release(), other);
        let with_other = bench.node.snapshot().unwrap();
        bench.add(&release(), pod);
        bench.kill(pod);
        bench.gc(&[other]);
        bench.node.snapshot().unwrap().assert_same_attachments(&with_other).unwrap();
        bench.check(&release(), other, &others);
        bench.kill(other);
        bench.gc(&[]);
        bench.nothing_left();
    }
}

/// Back again: links, addresses and leases are deleted by the release, firewall objects by `sandwirectl`.
#[test]
fn what_ours_attached_the_release_deletes() {
    for (main, backend) in COMBINATIONS {
        let bench = Bench::new(main, backend);
        let [pod, _] = &bench.pods;
        let result = bench.add(OURS, pod);
        bench.check(OURS, pod, &result);
        bench.del(&release(), pod, Some(&result));
        assert!(bench.rules().contains("sandwire"), "there is something to remove");
        ctl(&bench.node, &["firewall", "remove", "--yes"]);
        let differences = bench.node.snapshot().unwrap().attachments_since(&bench.before);
        assert!(differences.iter().all(|line| line.contains("/run/sandwire/journal/")), "{differences:?}");
        assert_eq!(json(&bench.node, &["firewall", "remove", "--yes"])["objects"], json!([]));
        // What native plugins attach from now on, they delete; and so do ours what is in their journal.
        let result = bench.add(&release(), pod);
        bench.check(&release(), pod, &result);
        bench.del(&release(), pod, Some(&result));
        bench.del(OURS, pod, None);
        bench.nothing_left();
    }
}
