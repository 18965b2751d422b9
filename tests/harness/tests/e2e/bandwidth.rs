//! Bandwidth: what a limit does to traffic, CHECK of each thing that it compares, native and ours on each other's state.

use crate::common::bridge;
use sandwire_harness::{Call, Node, Place, Pod, Snapshot, Verb, versions};
use serde_json::{Value, json};

struct Bench {
    node: Node,
    pod: Pod,
    before: Snapshot,
    limits: Value,
    version: &'static str,
}

/// Whose plugin is called.
#[derive(Clone, Copy, PartialEq)]
enum Whose {
    Ours,
    Native,
}
use Whose::{Native, Ours};

impl Bench {
    fn new(limits: Value, version: &'static str) -> Self {
        let node = Node::installed().unwrap();
        let pod = node.pod("a").unwrap();
        let before = node.snapshot().unwrap();
        Self { node, pod, before, limits, version }
    }

    fn call(&self, whose: Whose, plugin: &str, verb: Verb, mut config: Value, prev: Option<&Value>) -> Call<'_> {
        config["cniVersion"] = self.version.into();
        if let Some(prev) = prev {
            config["prevResult"] = prev.clone();
        }
        let call = self.node.call(plugin, verb).pod(&self.pod).ifname("eth0").config(&config);
        if whose == Native { call.native() } else { call }
    }

    fn bridge(&self, whose: Whose, verb: Verb, prev: Option<&Value>) -> Call<'_> {
        let mut config = bridge();
        config["ipam"] =
            json!({"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1:2::/64"}]]});
        self.call(whose, "bridge", verb, config, prev)
    }

    fn bandwidth(&self, whose: Whose, verb: Verb, prev: Option<&Value>) -> Call<'_> {
        let mut config = self.limits.clone();
        config["name"] = "mynet".into();
        config["type"] = "bandwidth".into();
        self.call(whose, "bandwidth", verb, config, prev)
    }

    /// ADD of the chain; the results of both.
    fn add(&self, bridge: Whose, bandwidth: Whose) -> (Value, Value) {
        let first = self.bridge(bridge, Verb::Add, None).run().unwrap().result().unwrap();
        let second = self.bandwidth(bandwidth, Verb::Add, Some(&first)).run().unwrap().result().unwrap();
        (first, second)
    }

    fn del(&self, whose: Whose, result: Option<&Value>) {
        self.bandwidth(whose, Verb::Del, result).run().unwrap().done().unwrap();
        self.bridge(whose, Verb::Del, result).run().unwrap().done().unwrap();
    }

    fn left_nothing(&self) {
        self.node.snapshot().unwrap().assert_same_attachments(&self.before).unwrap();
    }

    fn host(&self, script: &str) -> String {
        self.node.sh(script).unwrap()
    }

    /// Bits a second of a TCP stream between node and pod, counted with Ethernet, IP and TCP headers, after the first second:
    /// by then the burst is spent.
    fn stream(&self, to_pod: bool, address: &str) -> f64 {
        let (pod, node) = (self.pod.place(), Place::Host);
        let (from, to) = if to_pod { (&node, &pod) } else { (&pod, &node) };
        let receive = format!(
            "exec /usr/bin/python3 -c '
import socket, time
family = socket.AF_INET6 if \":\" in \"{address}\" else socket.AF_INET
listener = socket.create_server((\"{address}\", 5201), family=family)
listener.settimeout(20)
peer, _ = listener.accept()
peer.settimeout(20)
begin, first, total = time.monotonic(), None, 0
while data := peer.recv(1 << 16):
    now = time.monotonic()
    if first is None:
        first = now if now > begin + 1 else None
        continue
    total, last = total + len(data), now
print(total * 8 / (last - first))'"
        );
        let send = format!(
            "exec /usr/bin/python3 -c '
import socket, time
for _ in range(200):
    try:
        peer = socket.create_connection((\"{address}\", 5201), 20)
        break
    except OSError:
        time.sleep(0.05)
end = time.monotonic() + 4
while time.monotonic() < end:
    peer.sendall(bytes(16384))'"
        );
        let payload: f64 = std::thread::scope(|scope| {
            let receiver = scope.spawn(|| self.node.sh_at(to, &receive).unwrap());
            self.node.sh_at(from, &send).unwrap();
            receiver.join().unwrap().trim().parse().unwrap()
        });
        let headers = if address.contains(':') { 14.0 + 40.0 + 32.0 } else { 14.0 + 20.0 + 32.0 };
        payload * 1514.0 / (1514.0 - headers)
    }

    fn assert_rate(&self, to_pod: bool, address: &str, wanted: f64) {
        let seen = self.stream(to_pod, address);
        let what = if to_pod { "to the pod" } else { "from the pod" };
        assert!((seen / wanted - 1.0).abs() <= 0.15, "{what} by {address}: {seen:.0} bit/s, asked for {wanted:.0}");
    }
}

fn both_ways() -> Value {
    json!({"runtimeConfig": {"bandwidth":
        {"IngressRate": 20_000_000, "IngressBurst": 400_000, "EgressRate": 8_000_000, "EgressBurst": 400_000}}})
}

#[test]
fn traffic_is_as_fast_as_was_asked_for() {
    let bench = Bench::new(both_ways(), "1.1.0");
    let (first, result) = bench.add(Ours, Ours);
    bench.assert_rate(true, "10.1.2.2", 20e6);
    bench.assert_rate(false, "10.1.2.1", 8e6);
    bench.assert_rate(true, "fd00:1:2::2", 20e6);
    bench.assert_rate(false, "fd00:1:2::1", 8e6);
    // Without limits all is faster by far: it was they that did it.
    bench.bandwidth(Ours, Verb::Del, Some(&result)).run().unwrap().done().unwrap();
    for (to_pod, address) in [(true, "10.1.2.2"), (false, "10.1.2.1")] {
        let seen = bench.stream(to_pod, address);
        assert!(seen > 60e6, "unlimited, but {seen:.0} bit/s");
    }
    bench.bridge(Ours, Verb::Del, Some(&first)).run().unwrap().done().unwrap();
    bench.left_nothing();
}

#[test]
fn check_names_the_difference() {
    let rows = [
        ("tc qdisc del dev $VETH root", "Failed to find qdisc: the bandwidth of $VETH is not limited"),
        ("tc qdisc replace dev $VETH root pfifo", "Failed to find qdisc: the bandwidth of $VETH"),
        (
            "tc qdisc change dev $VETH root tbf rate 21mbit burst 50000 latency 25ms",
            "Rate doesn't match: $VETH has 2625000",
        ),
        (
            "tc qdisc change dev $VETH root tbf rate 20mbit burst 60000 latency 25ms",
            "Buffer doesn't match: $VETH has 24000",
        ),
        (
            "tc qdisc change dev $VETH root tbf rate 20mbit burst 50000 latency 50ms",
            "Limit doesn't match: $VETH has 125000",
        ),
        ("tc qdisc del dev $VETH ingress", "Failed to find qdisc: the bandwidth of $IFB is not limited"),
        ("tc filter del dev $VETH ingress", "Failed to find qdisc: the bandwidth of $IFB is not limited"),
        ("tc qdisc del dev $IFB root", "Failed to find qdisc: the bandwidth of $IFB is not limited"),
        (
            "tc qdisc change dev $IFB root tbf rate 9mbit burst 50000 latency 25ms",
            "Rate doesn't match: $IFB has 1125000",
        ),
        (
            "tc qdisc change dev $IFB root tbf rate 8mbit burst 60000 latency 25ms",
            "Buffer doesn't match: $IFB has 60000",
        ),
        ("ip link del $IFB", "get ifb device"),
        (
            "ip link set $VETH down; ip link set $VETH name other0",
            "no veth peer of container interface found in host ns",
        ),
        // What later plugins, or the workload, may do.
        ("ip link set $VETH mtu 1400", ""),
        ("ip -n pod-a addr add 10.77.0.1/24 dev eth0", ""),
    ];
    for version in versions::ALL.into_iter().filter(|version| versions::has_check(version)) {
        let bench = Bench::new(both_ways(), version);
        for (tamper, says) in rows {
            let (first, result) = bench.add(Ours, Ours);
            bench.bandwidth(Ours, Verb::Check, Some(&result)).run().unwrap().done().unwrap();
            let name = |kind: &str| {
                let all = result["interfaces"].as_array().unwrap().iter();
                all.filter_map(|i| i["name"].as_str()).find(|name| name.starts_with(kind)).unwrap().to_owned()
            };
            let fill = |text: &str| text.replace("$VETH", &name("veth")).replace("$IFB", &name("bwp"));
            bench.host(&fill(tamper));
            let outcome = bench.bandwidth(Ours, Verb::Check, Some(&result)).run().unwrap();
            if says.is_empty() {
                outcome.done().unwrap_or_else(|e| panic!("{tamper} is no reason to complain: {e:#}"));
            } else {
                let error = outcome.error().unwrap_or_else(|e| panic!("{tamper} is not noticed: {e:#}"));
                assert!(error.text().contains(&fill(says)), "{tamper}: {error:?}");
            }
            bench.del(Ours, Some(&result));
            bench.bridge(Ours, Verb::Del, Some(&first)).run().unwrap().done().unwrap();
            bench.left_nothing();
        }
        let (_, result) = bench.add(Ours, Ours);
        let without: Value = {
            let mut result = result.clone();
            result["interfaces"].as_array_mut().unwrap().retain(|i| !i["name"].as_str().unwrap().starts_with("veth"));
            result
        };
        let outcome = bench.bandwidth(Ours, Verb::Check, Some(&without)).run().unwrap();
        outcome.error_with(999, "no veth peer of container interface found in host ns").unwrap();
        let outcome = bench.bandwidth(Ours, Verb::Check, None).run().unwrap();
        assert!(outcome.error().unwrap().text().contains("must be called as a chained plugin"));
        bench.del(Ours, Some(&result));
    }
}

/// What the native plugin limited, ours checks and deletes: with the container there, with its namespace gone, without the veth.
#[test]
fn native_add_then_ours() {
    for gone in ["", "netns", "veth"] {
        let bench = Bench::new(both_ways(), "1.0.0");
        let (_, result) = bench.add(Native, Native);
        bench.bandwidth(Ours, Verb::Check, Some(&result)).run().unwrap().done().unwrap();
        match gone {
            "netns" => bench.pod.drop_netns(&bench.node).unwrap(),
            "veth" => {
                drop(bench.host("ip link show type veth | grep -o 'veth[0-9a-f]*' | head -1 | xargs ip link del"))
            }
            _ => {}
        }
        bench.bandwidth(Ours, Verb::Del, Some(&result)).run().unwrap().done().unwrap();
        assert_eq!(bench.host("ip -br link show type ifb"), "", "{gone}");
        if gone.is_empty() {
            assert!(!bench.host("tc qdisc").contains("tbf"));
        }
        bench.bridge(Ours, Verb::Del, Some(&result)).run().unwrap().done().unwrap();
        // Of a native veth nobody but the kernel knows, which takes its time with a namespace.
        bench
            .host("for i in $(seq 200); do ip -br link show type veth | grep -q . || exit 0; sleep 0.05; done; exit 1");
        bench.left_nothing();
    }
}

/// The native CHECK compares number by number.
#[test]
fn our_add_then_native() {
    let bench = Bench::new(both_ways(), "1.0.0");
    let (_, result) = bench.add(Ours, Ours);
    bench.bandwidth(Native, Verb::Check, Some(&result)).run().unwrap().done().unwrap();
    bench.del(Native, Some(&result));
    assert_eq!(bench.host("ip -br link show type ifb"), "");
    // Our journal still knows of it, and a DEL of ours copes.
    bench.del(Ours, Some(&result));
    bench.left_nothing();
    let (_, result) = bench.add(Ours, Ours);
    bench.del(Ours, Some(&result));
    bench.left_nothing();
}

/// A container on two networks has a device for each; and another container's is not touched.
#[test]
fn only_the_attachments_own() {
    let mut bench = Bench::new(both_ways(), "1.1.0");
    let (_, a) = bench.add(Ours, Ours);
    let pod_a = std::mem::replace(&mut bench.pod, bench.node.pod("b").unwrap());
    let (_, b) = bench.add(Ours, Ours);
    assert_eq!(bench.host("ip -br link show type ifb").lines().count(), 2);
    bench.del(Ours, Some(&b));
    assert_eq!(bench.host("ip -br link show type ifb").lines().count(), 1);
    bench.pod = pod_a;
    bench.bandwidth(Ours, Verb::Check, Some(&a)).run().unwrap().done().unwrap();
    bench.del(Ours, Some(&a));
    assert_eq!(bench.host("ip -br link show type ifb"), "");
}
