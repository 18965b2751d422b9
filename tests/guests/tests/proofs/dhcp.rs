//! Of DHCP servers a plugin gets what the attachment gets, as the attachment, in ADD, and as long as it has it.

use sandwire_guests::{Bench, component, granted_by_all};
use sandwire_harness::dhcp::{Server, leases, log};
use sandwire_harness::{CniError, Verb};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The pod's interface leads to a server; the guest makes none.
fn bench(entry: &str) -> Bench {
    let mut bench = Bench::new("hostile", entry, "").unwrap();
    bench
        .node
        .sh("ip netns add outside
            ip link add eth0 netns pod-a type veth peer name wire netns outside; ip -n pod-a link set eth0 up
            ip -n outside addr add 10.1.2.1/24 dev wire; ip -n outside link set wire up")
        .unwrap();
    bench.look().unwrap();
    bench
}

/// As it was, but for what the server writes.
fn unchanged(bench: &Bench) {
    bench.node.snapshot().unwrap().assert_same_attachments(&bench.before).unwrap();
}

/// ADD with this act fails with this code and text, and leaves nothing.
fn stopped(bench: &Bench, act: &str, more: &Value, code: u32, text: &str) -> CniError {
    let error =
        bench.act(act, more).unwrap().error_with(code, text).unwrap_or_else(|error| panic!("{more}: {error:#}"));
    unchanged(bench);
    error
}

/// Whether the server was asked for anything.
fn asked(bench: &Bench) -> bool {
    log(&bench.node).unwrap().contains("(wire) ")
}

fn given_back(bench: &Bench) {
    let end = Instant::now() + Duration::from_secs(10);
    while !leases(&bench.node).unwrap().is_empty() {
        assert!(Instant::now() < end, "not given back: {}", log(&bench.node).unwrap());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn provided(option: &str, value: &str) -> Value {
    json!({"type": "dhcp", "provide": [{"option": option, "value": value}]})
}

#[test]
fn as_another_client() {
    let bench = bench("");
    let _server = Server::start(&bench.node, &[]).unwrap();
    let other = "\0pod-b/net/eth0";
    let mine = provided("dhcp-client-identifier", "mine");
    for (ipam, send) in [
        (json!({"type": "dhcp"}), json!([[61, other]])),
        (json!({"type": "dhcp"}), json!([[61, ""]])),
        // Its own too is the host's to say.
        (json!({"type": "dhcp"}), json!([[61, "\0pod-a/net/eth0"]])),
        (mine.clone(), json!([[61, other]])),
        (mine.clone(), json!([[61, "mine"], [61, other]])),
        (mine.clone(), json!([[61, "min"]])),
        (mine.clone(), json!([[61, "mine2"]])),
        (provided("60", other), json!([[61, other]])),
        // A name is what others find it by, and a relay's word whose network it is in.
        (mine.clone(), json!([[61, "mine"], [12, "pod-b"]])),
        (mine.clone(), json!([[81, "pod-b"]])),
        (mine.clone(), json!([[82, "pod-b"]])),
    ] {
        let more = json!({"ipam": ipam, "send": send});
        stopped(&bench, "acquire", &more, 110, "the configuration does not provide");
    }
    // An option in two pieces is one (RFC 3396).
    let twice = json!({"ipam": mine, "send": [[61, "mine"], [61, "mine"]]});
    stopped(&bench, "acquire", &twice, 7, "twice");
    assert!(!asked(&bench), "{}", log(&bench.node).unwrap());
}

/// What the configuration says, however it writes it.
#[test]
fn as_the_configuration_says() {
    let bench = bench("");
    let _server = Server::start(&bench.node, &[]).unwrap();
    for option in ["dhcp-client-identifier", "61", "061"] {
        let more = json!({"ipam": provided(option, "mine"), "send": [[61, "mine"]]});
        stopped(&bench, "acquire", &more, 201, "got 10.1.2.");
        given_back(&bench);
    }
}

#[test]
fn words_of_the_protocol() {
    let bench = bench("");
    let _server = Server::start(&bench.node, &[]).unwrap();
    // As the configuration has it, or there would be another reason to refuse it.
    let sent = |send: &Value| {
        let text = |option: &Value| match &option[1] {
            Value::String(text) => text.clone(),
            bytes => "x".repeat(usize::try_from(bytes.as_u64().unwrap()).unwrap()),
        };
        let options = send.as_array().unwrap().iter();
        let provide: Vec<Value> =
            options.map(|option| json!({"option": option[0].to_string(), "value": text(option)})).collect();
        json!({"send": send, "ipam": {"type": "dhcp", "provide": provide}})
    };
    for code in [0, 50, 51, 52, 53, 54, 55, 57, 255] {
        let error = stopped(&bench, "acquire", &sent(&json!([[code, "\u{5}"]])), 7, "is not for a plugin to send");
        assert!(error.text().contains(&format!("option {code} ")), "{error:?}");
    }
    for (send, text) in [
        (json!([[12, 256]]), "has 256 bytes, and can have 255"),
        (json!([[12, 100_000]]), "has 100000 bytes, and can have 255"),
        (json!([[12, 255], [60, 255], [77, 255], [124, 255]]), "and 1000 can be"),
        (json!([[12, "a"], [12, "b"]]), "to be sent"),
        (json!(vec![json!([12, 0]); 5000]), "to be sent"),
    ] {
        stopped(&bench, "acquire", &sent(&send), 7, text);
    }
    for codes in [256, 1001, 200_000] {
        stopped(&bench, "acquire", &json!({"ask": codes}), 7, "and 1000 can be");
    }
    assert!(!asked(&bench), "{}", log(&bench.node).unwrap());
    // As much as can be is one message.
    let mut most = sent(&json!([[12, 255], [60, 255], [77, 250]]));
    most["ask"] = 234.into();
    stopped(&bench, "acquire", &most, 201, "got 10.1.2.");
    given_back(&bench);
}

/// Nor is there any message to a server.
#[test]
fn outside_of_add() {
    let bench = bench("");
    let _server = Server::start(&bench.node, &[]).unwrap();
    let valid = json!([{"containerID": bench.pod.id, "ifname": "eth0"}]);
    for verb in [Verb::Check, Verb::Del, Verb::Gc, Verb::Status] {
        let more =
            json!({"when": verb.name(), "prevResult": {"cniVersion": "1.1.0"}, "cni.dev/valid-attachments": valid});
        let outcome = bench.call(verb, &bench.config("acquire-outside-add", &more)).unwrap();
        outcome.done().unwrap();
        assert!(!outcome.stderr.contains("NOT STOPPED"), "{outcome}");
        // What it was told, where it is seen.
        let outcome = bench.call(verb, &bench.config("acquire", &more)).unwrap();
        match verb {
            Verb::Check | Verb::Status => drop(outcome.error_with(110, "only looks").unwrap()),
            Verb::Gc => drop(outcome.error_with(999, "may not make anything").unwrap()),
            _ => assert!(!outcome.to_string().contains("got 10.1.2."), "{outcome}"),
        }
        unchanged(&bench);
    }
    assert!(!asked(&bench), "{}", log(&bench.node).unwrap());
}

/// The host gives a lease back before its interface goes; who only looks lets neither go.
#[test]
fn an_interface_that_stays() {
    let bench = bench("");
    let _server = Server::start(&bench.node, &[]).unwrap();
    bench.act("acquire-and-forget", &json!({})).unwrap().result().unwrap();
    let more = json!({"when": "CHECK", "prevResult": {"cniVersion": "1.1.0"}});
    let outcome = bench.call(Verb::Check, &bench.config("remove-the-leased", &more)).unwrap();
    outcome.error_with(110, "only looks").unwrap();
    assert_eq!(leases(&bench.node).unwrap().len(), 1);
    assert!(!log(&bench.node).unwrap().contains("DHCPRELEASE"));
    bench.call(Verb::Del, &bench.config("acquire-and-forget", &json!({}))).unwrap().done().unwrap();
    given_back(&bench);
    unchanged(&bench);
}

#[test]
fn nothing_to_give_back() {
    let bench = bench("");
    let _server = Server::start(&bench.node, &[]).unwrap();
    stopped(&bench, "release-nothing", &json!({}), 203, "there was nothing");
    for (verb, denied) in [(Verb::Del, false), (Verb::Check, true)] {
        let more = json!({"when": verb.name(), "prevResult": {"cniVersion": "1.1.0"}});
        let outcome = bench.call(verb, &bench.config("release-nothing", &more)).unwrap();
        if denied {
            outcome.error_with(110, "only looks").unwrap();
        }
        assert!(!outcome.to_string().contains("NOT STOPPED"), "{outcome}");
        unchanged(&bench);
    }
    assert!(!asked(&bench), "{}", log(&bench.node).unwrap());
}

#[test]
fn not_granted() {
    let bytes = component("hostile").unwrap();
    let mut needed: Vec<String> = granted_by_all(bytes).unwrap().iter().map(|name| format!("{name:?}")).collect();
    let granted: Vec<String> = needed.iter().filter(|name| *name != "\"dhcp\"").cloned().collect();
    assert_eq!(granted.len() + 1, needed.len());
    needed.sort();
    let bench = Bench::of("hostile", bytes, &format!("imports = [{}]", granted.join(", ")), "").unwrap();
    let error = stopped(&bench, "acquire", &json!({}), 110, "plugin \"hostile\" may not use dhcp");
    let line = format!("to allow it write  imports = [{}]", needed.join(", "));
    for part in [line.as_str(), "[plugins.hostile]", "/etc/sandwire/policy.toml", "sandwirectl apply"] {
        assert!(error.details.contains(part), "{part}: {error:?}");
    }
}

/// Who may run some address managers may not run this one, nor by a configuration of its own; who may not ask gets nothing of who may.
#[test]
fn by_another_plugin() {
    let bench = bench("delegates = [\"host-local\"]");
    let _server = Server::start(&bench.node, &[]).unwrap();
    let ipam = json!({"plugin": "dhcp", "ipam": {"type": "dhcp"}});
    let error = stopped(&bench, "delegate", &ipam, 110, "may not run plugin \"dhcp\"");
    assert!(error.details.contains("to allow it write  delegates = [\"host-local\", \"dhcp\"]"), "{error:?}");
    stopped(&bench, "another-configuration", &json!({"ipam": {"type": "dhcp"}}), 110, "");
    assert!(!asked(&bench), "{}", log(&bench.node).unwrap());
}

#[test]
fn one_attachment_has_one() {
    let bench = bench("");
    let _server = Server::start(&bench.node, &[]).unwrap();
    let error = stopped(&bench, "acquire-twice", &json!({}), 203, "twice the same: 10.1.2.");
    let discovered = log(&bench.node).unwrap().matches(" DHCPREQUEST(wire) ").count();
    assert!(discovered == 1, "{error:?}: {}", log(&bench.node).unwrap());
    given_back(&bench);
}

/// The address is the lease's; what the server has not said is nobody's to add.
#[test]
fn more_than_the_lease() {
    let bench = bench("");
    let _server = Server::start(&bench.node, &[]).unwrap();
    for more in [
        json!({"claim": "10.96.0.1/24"}),
        json!({"claim": "10.1.2.1/24"}),
        json!({"claim": "LEASED/24", "gateway": "10.96.0.1"}),
        json!({"claim": "127.0.0.1/8"}),
    ] {
        stopped(&bench, "acquire-and-claim", &more, 110, "did not give it");
        given_back(&bench);
    }
    stopped(&bench, "acquire-and-use-after-release", &json!({}), 110, "did not give it");
    given_back(&bench);
}

/// The journal has it, whatever the plugin says and whoever it is by then.
#[test]
fn a_lease_that_the_plugin_forgets() {
    let bench = bench("");
    let _server = Server::start(&bench.node, &[]).unwrap();
    for then in ["DEL", "nothing"] {
        let config = bench.config("acquire-and-forget", &json!({}));
        bench.call(Verb::Add, &config).unwrap().result().unwrap();
        assert_eq!(leases(&bench.node).unwrap().len(), 1);
        // Who is there in DEL does not have to know of it.
        let config = bench.config("unreachable", &json!({"when": then}));
        bench.call(Verb::Del, &config).unwrap();
        given_back(&bench);
        unchanged(&bench);
    }
}
