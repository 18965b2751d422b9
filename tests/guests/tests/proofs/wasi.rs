//! WASI: not at all unless policy says so, and then without files, environment, arguments, input and network.

use sandwire_guests::{Bench, component, granted_by_all};
use sandwire_harness::agent::Agent;
use serde_json::json;
use std::time::Duration;

fn entry(more: &str) -> String {
    let imports = granted_by_all(component("wasi").unwrap()).unwrap();
    let imports: Vec<String> = imports.iter().map(|name| format!("{name:?}")).collect();
    format!("imports = [{}]\n{more}", imports.join(", "))
}

fn bench(more: &str) -> Bench {
    Bench::of("wasi", component("wasi").unwrap(), &entry(more), "").unwrap()
}

#[test]
fn not_granted() {
    let bench = bench("");
    let error = bench.stopped("", &json!({}), 110, "plugin \"wasi\" may not use wasi:").unwrap();
    assert!(error.details.contains("wasi = true") && error.details.contains("[plugins.wasi]"), "{error:?}");
}

#[test]
fn nothing_is_found() {
    let mut bench = bench("wasi = true");
    // Something that could be reached.
    let agent = Agent::tcp(&bench.node, "127.0.0.1:8082").unwrap();
    bench.look().unwrap();
    let outcome = bench.act("", &json!({})).unwrap();
    let error = outcome.error_with(200, "found: ").unwrap();
    assert_eq!(error.msg, "found: ", "{outcome}");
    assert!(agent.take_calls().is_empty());
    bench.unchanged().unwrap();
}

/// stdout is for the result alone: a runtime parses it.
#[test]
fn output_goes_to_the_log() {
    let bench = bench("wasi = true");
    let outcome = bench.act("", &json!({})).unwrap();
    outcome.error().unwrap();
    assert!(!outcome.stdout.contains("to stdout"), "{outcome}");
    for text in ["to stdout", "to stderr"] {
        let line = outcome.stderr.lines().find(|line| line.contains(text)).unwrap_or_else(|| panic!("{outcome}"));
        assert!(line.starts_with("sandwire: info: plugin=wasi network=net"), "{line}");
    }
    // Whoever writes a line that looks like the host's is named before it.
    assert!(outcome.stderr.lines().all(|line| line.contains("plugin=wasi")), "{outcome}");
}

#[test]
fn output_has_an_end() {
    let bench = bench("wasi = true");
    let outcome = bench.act("write-on", &json!({})).unwrap();
    outcome.error().unwrap();
    assert!(outcome.stderr.len() < 200 << 10, "{} bytes", outcome.stderr.len());
    bench.unchanged().unwrap();
}

/// A host function that sleeps for the guest ends with the deadline, too.
#[test]
fn sleep() {
    let bench = bench("wasi = true\nlimits = { deadline_ms = 300 }");
    let outcome = bench.act("sleep", &json!({})).unwrap();
    outcome.error_with(115, "").unwrap();
    assert!(outcome.duration < Duration::from_secs(20), "{:?}", outcome.duration);
    bench.node.snapshot().unwrap().assert_same_attachments(&bench.before).unwrap();
}
