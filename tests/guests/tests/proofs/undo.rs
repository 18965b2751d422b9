//! An ADD that made something of every kind, and then ends badly: the host takes all of it back.

use sandwire_guests::Bench;
use sandwire_harness::Verb;
use sandwire_harness::agent::Agent;
use serde_json::{Value, json};

const AGENT: &str = r#"
[endpoints.agent]
address = "http://127.0.0.1:8082"
allow = ["POST /attach_localport", "POST /detach_localport"]
"#;

const ENTRY: &str = r#"endpoints = ["agent"]
delegates = ["host-local"]
limits = { deadline_ms = 1500 }"#;

fn bench() -> (Bench, Agent) {
    let mut bench = Bench::new("hostile", ENTRY, AGENT).unwrap();
    let agent = Agent::tcp(&bench.node, "127.0.0.1:8082").unwrap();
    bench.look().unwrap();
    (bench, agent)
}

fn half_made(then: &str) -> Value {
    json!({"then": then, "parts": ["delegate", "firewall", "agent"],
        "ipam": {"type": "host-local", "subnet": "10.8.0.0/24"}})
}

fn undone(then: &str, code: u32, text: &str) {
    let (bench, agent) = bench();
    bench.act("half-made", &half_made(then)).unwrap().error_with(code, text).unwrap();
    bench.node.snapshot().unwrap().assert_same_attachments(&bench.before).unwrap();
    let calls: Vec<String> = agent.take_calls().into_iter().map(|call| call.path).collect();
    assert_eq!(calls, ["/attach_localport", "/detach_localport"]);
    assert!(agent.attached().is_empty());
    // The attachment is as new: the same works after it.
    bench.act("half-made", &half_made("succeed")).unwrap().result().unwrap();
    bench.call(Verb::Del, &bench.config("half-made", &half_made("succeed"))).unwrap().done().unwrap();
    bench.node.snapshot().unwrap().assert_same_attachments(&bench.before).unwrap();
    assert!(agent.attached().is_empty());
}

#[test]
fn failed() {
    undone("fail", 206, "gave up");
}

#[test]
fn panicked() {
    undone("panic", 114, "crashed");
}

#[test]
fn trapped() {
    undone("trap", 114, "crashed");
}

#[test]
fn out_of_time() {
    undone("spin", 115, "did not finish");
}

#[test]
fn with_a_result_that_is_none() {
    undone("garbage", 999, "no valid result");
}

/// Routes that were there before come back, in an order in which they can; so does their table lose its rule.
#[test]
fn routes_and_rules() {
    let (mut bench, _agent) = bench();
    let routes =
        "ip link set lo up; ip route add 10.7.0.0/24 dev lo; ip route add 10.7.1.0/24 via 10.7.0.8 dev lo mtu 1300;
        ip route add 10.7.2.0/24 via 10.7.0.7 dev lo metric 5";
    bench.node.sh_at(&bench.pod.place(), routes).unwrap();
    bench.look().unwrap();
    let config = |then: &str| json!({"then": then, "parts": ["routes"]});
    for (then, code, text) in [("fail", 206, "gave up"), ("panic", 114, "crashed"), ("spin", 115, "did not finish")] {
        bench.act("half-made", &config(then)).unwrap().error_with(code, text).unwrap();
        bench.node.snapshot().unwrap().assert_same_attachments(&bench.before).unwrap();
    }
    bench.act("half-made", &config("succeed")).unwrap().result().unwrap();
    let made = bench.node.snapshot().unwrap().attachments_since(&bench.before).join("\n");
    for part in ["10.7.0.9", "\"100\""] {
        assert!(made.contains(part), "{part}:\n{made}");
    }
    bench.call(Verb::Del, &bench.config("half-made", &config("succeed"))).unwrap().done().unwrap();
    bench.node.snapshot().unwrap().assert_same_attachments(&bench.before).unwrap();
}

/// All of it is really there when the ADD succeeds: otherwise the tests above prove nothing.
#[test]
fn what_there_is_to_undo() {
    let (bench, agent) = bench();
    bench.act("half-made", &half_made("succeed")).unwrap().result().unwrap();
    let made = bench.node.snapshot().unwrap().attachments_since(&bench.before).join("\n");
    for part in
        ["veth", "extra0", "10.9.0.10", "10.8.0.", "10.9.9.9", "arp_notify", "1400", "/networks/net/", "notes", "nft"]
    {
        assert!(made.contains(part), "{part}:\n{made}");
    }
    assert_eq!(agent.attached().len(), 1);
    // A DEL of a plugin that does nothing takes it back as well.
    bench.call(Verb::Del, &bench.config("half-made", &half_made("succeed"))).unwrap().done().unwrap();
    bench.node.snapshot().unwrap().assert_same_attachments(&bench.before).unwrap();
    assert!(agent.attached().is_empty());
}

/// What is made in DEL or GC would never be taken back: it is refused.
#[test]
fn nothing_is_made_outside_add() {
    let (bench, agent) = bench();
    let config = bench.config("make-outside-add", &json!({"when": "DEL"}));
    bench.call(Verb::Del, &config).unwrap().done().unwrap();
    bench.unchanged().unwrap();
    let valid = json!([{"containerID": bench.pod.id, "ifname": "eth0"}]);
    let config = bench.config("make-outside-add", &json!({"when": "GC", "cni.dev/valid-attachments": valid}));
    bench.call(Verb::Gc, &config).unwrap().done().unwrap();
    bench.node.snapshot().unwrap().assert_same_attachments(&bench.before).unwrap();
    for (verb, when) in [(Verb::Check, "CHECK"), (Verb::Status, "STATUS")] {
        let config = bench.config("make-outside-add", &json!({"when": when, "prevResult": {"cniVersion": "1.1.0"}}));
        bench.call(verb, &config).unwrap().done().unwrap();
        bench.node.snapshot().unwrap().assert_same_attachments(&bench.before).unwrap();
    }
    assert!(agent.take_calls().is_empty());
}

/// DEL takes back what the journal lists, whatever the guest does in it: it spins, traps, takes too much or fails.
#[test]
fn whatever_a_guest_does_in_del() {
    let (bench, agent) = bench();
    for act in ["spin", "recurse", "allocate", "half-made", "huge-failure", "no-such-act"] {
        bench.act("half-made", &half_made("succeed")).unwrap().result().unwrap();
        let mut config = half_made("trap");
        config["when"] = "DEL".into();
        for _ in 0..3 {
            let outcome = bench.call(Verb::Del, &bench.config(act, &config)).unwrap();
            outcome.done().unwrap_or_else(|e| panic!("{act}: {e:#}"));
        }
        let left = bench.node.snapshot().unwrap().assert_same_attachments(&bench.before);
        left.unwrap_or_else(|e| panic!("{act}: {e:#}"));
        assert!(agent.attached().is_empty(), "{act}");
    }
}
