//! Every function of the contract is called, and answers what `docs/contract.md` says.

use sandwire_guests::{Bench, contract, wit};
use sandwire_harness::agent::Agent;
use sandwire_harness::{Verb, repository};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

const ENTRY: &str = r#"
links = { change = ["sw0*"] }
sysctls = ["ipv4/ip_forward"]
endpoints = ["agent"]
delegates = ["conformance"]
own_addresses = true
tap = true
devices = ["/sys/devices/virtual"]
files = { allowed = "/etc/hostname" }
data_dirs = ["/run/cni/*"]
"#;

const HEAD: &str = r#"
[endpoints.agent]
address = "http://127.0.0.1:8082"
allow = ["GET /ping", "POST /attach_localport", "POST /detach_localport"]
"#;

/// Functions that only look, beside those whose name says so; all others change something.
const LOOKING: [&str; 17] = [
    "log log",
    "random bytes",
    "files read",
    "namespaces netns.link",
    "namespaces netns.links",
    "namespaces link.info",
    "namespaces link.peer",
    "devices find",
    "devices driver",
    "dhcp held",
    "kv keys",
    "leases open",
    "leases store.held",
    "leases store.available",
    "routes lookup",
    "shaping limits",
    "firewall open",
];

fn looks(function: &str) -> bool {
    let name = function.split(' ').nth(1).unwrap();
    let starts = ["get", "read", "check", "status", "verify"];
    LOOKING.contains(&function)
        || function.starts_with("wait ")
        || starts.iter().any(|start| name.rsplit('.').next().unwrap().starts_with(start))
}

fn bench() -> (Bench, Agent) {
    let mut bench = Bench::new("conformance", ENTRY, HEAD).unwrap();
    let agent = Agent::tcp(&bench.node, "127.0.0.1:8082").unwrap();
    bench.node.write("/run/cni/conformance/pod-a_eth0.json", "kept by another implementation").unwrap();
    bench.look().unwrap();
    (bench, agent)
}

fn report(bench: &Bench, verb: Verb, config: &serde_json::Value) -> BTreeMap<String, String> {
    let error = bench.call(verb, config).unwrap().error_with(200, "outcomes").unwrap();
    contract::outcomes(&error.details)
}

/// Answers of a kernel that lacks a feature; those of a release that lacks a function say so.
fn this_kernel_cannot(outcome: &str) -> bool {
    outcome.starts_with("unsupported: ") && !outcome.contains("this release")
}

#[test]
fn every_function_answers_what_the_documentation_says() {
    let (bench, _agent) = bench();
    // What it may do for an address (it gives its own lease back), a gateway and ports is what the runtime says of them.
    let said = json!({"end": "report", "kernelpath": "/sys/devices/virtual",
        "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.77.0.10/24", "gateway": "10.77.0.1"}]},
        "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]}});
    let seen = report(&bench, Verb::Add, &bench.config("", &said));
    let documented = contract::documented().unwrap();

    // The three lists are one: the contract's, the documentation's, and what the guest called.
    let contract: BTreeSet<String> = wit::contract(&repository().join("wit")).unwrap().into_keys().map(label).collect();
    let exports = ["attach add", "attach del", "check check", "gc gc", "status status"];
    let imports: BTreeSet<String> = contract.into_iter().filter(|name| !exports.contains(&name.as_str())).collect();
    assert_eq!(documented.keys().cloned().collect::<BTreeSet<_>>(), imports, "docs/contract.md against wit/");
    assert_eq!(seen.keys().cloned().collect::<BTreeSet<_>>(), imports, "the conformance guest against wit/");

    // VLANs need a bridge that filters; without one these can't be reached.
    let no_vlans = this_kernel_cannot(&seen["shared ensure-bridge"]);
    let mut wrong = Vec::new();
    for (function, state) in &documented {
        let outcome = &seen[function];
        let good = match state.as_str() {
            "works" if function == "leases store.retain" => {
                outcome.starts_with("denied: ") && outcome.contains("only GC")
            }
            "works" if function == "files remove-own" => {
                outcome.starts_with("denied: ") && outcome.contains("only DEL")
            }
            "works" if function == "dhcp acquire" => outcome.starts_with("denied: may not send DHCP option 61"),
            // A device that every machine has.
            "works" if function == "devices driver" => {
                outcome.starts_with("not-found: ") && outcome.contains("has no driver")
            }
            "works" if no_vlans && function.contains("vlan") => !outcome.contains("this release"),
            "works" => outcome == "ok" || this_kernel_cannot(outcome),
            "unsupported" => outcome.starts_with("unsupported: this release"),
            _ => false,
        };
        if !good {
            wrong.push(format!("{function}: {state}, but it answered {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "docs/contract.md:\n  {}", wrong.join("\n  "));
    // And of all that nothing is left: the call failed.
    bench.node.snapshot().unwrap().assert_same_attachments(&bench.before).unwrap();
}

fn label((interface, function): (String, String)) -> String {
    format!("{} {function}", interface.trim_start_matches("sandwire:cni/"))
}

/// Everything that changes something is refused, and nothing has changed.
fn only_looks(verb: Verb) {
    let (mut bench, _agent) = bench();
    let stay = bench.config("", &json!({"end": "stay"}));
    let result = bench.call(Verb::Add, &stay).unwrap().result().unwrap();
    bench.node.sh("ip link add sw0 type bridge").unwrap();
    bench.look().unwrap();
    let mut config = bench.config("", &json!({"end": "report"}));
    if verb == Verb::Check {
        config["prevResult"] = result;
    }
    let seen = report(&bench, verb, &config);
    let done: Vec<&String> =
        seen.iter().filter(|(function, outcome)| !looks(function) && *outcome == "ok").map(|(name, _)| name).collect();
    assert!(done.is_empty(), "{} could: {done:?}", verb.name());
    let denied = seen.values().filter(|outcome| outcome.starts_with("denied: ")).count();
    assert!(denied > 10, "{seen:?}");
    bench.unchanged().unwrap();
    if verb == Verb::Check {
        assert_eq!(seen["namespaces link.peer"], "ok", "{seen:?}");
    }
}

#[test]
fn check_only_looks() {
    only_looks(Verb::Check);
}

#[test]
fn status_only_looks() {
    only_looks(Verb::Status);
}
