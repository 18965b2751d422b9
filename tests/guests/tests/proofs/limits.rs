//! A plugin that takes more than its share is ended; the node is as before.

use sandwire_guests::Bench;
use serde_json::{Value, json};
use std::time::Duration;

fn none() -> Value {
    json!({})
}

/// Room for the host itself: from the deadline to the error.
const SLACK: Duration = Duration::from_secs(5);

#[test]
fn time() {
    let bench = Bench::new("hostile", "limits = { deadline_ms = 300 }", "").unwrap();
    let outcome = bench.act("spin", &none()).unwrap();
    outcome.error_with(115, "did not finish within its 0.3 s").unwrap();
    assert!(outcome.duration < SLACK, "{:?}", outcome.duration);
    bench.unchanged().unwrap();
}

#[test]
fn memory() {
    let bench = Bench::new("hostile", "", "").unwrap();
    let error = bench.stopped("allocate", &none(), 116, "more than its policy allows").unwrap();
    assert!(error.details.contains("memory_mib"), "{error:?}");
    let roomy = Bench::new("hostile", "limits = { memory_mib = 400 }", "").unwrap();
    roomy.stopped("allocate", &none(), 201, "200 MB").unwrap();
}

#[test]
fn handles() {
    let bench = Bench::new("hostile", "", "").unwrap();
    for act in ["flood-netns", "flood-links", "flood-rulesets", "flood-stores"] {
        let error = bench.stopped(act, &none(), 116, "more than its policy allows").unwrap();
        assert!(error.details.contains("handles"), "{act}: {error:?}");
    }
}

#[test]
fn bytes_of_a_host_call() {
    let bench = Bench::new("hostile", "", "").unwrap();
    for act in ["long-string", "long-list"] {
        let error = bench.stopped(act, &none(), 116, "more than its policy allows").unwrap();
        assert!(error.details.contains("hostcall"), "{act}: {error:?}");
    }
    bench.stopped("random-flood", &none(), 114, "random bytes asked for").unwrap();
}

#[test]
fn bytes_of_an_answer() {
    let bench = Bench::new("hostile", "", "").unwrap();
    bench.stopped("huge-result", &none(), 116, "more than its policy allows").unwrap();
    bench.stopped("huge-failure", &none(), 116, "more than its policy allows").unwrap();
}

#[test]
fn log_lines() {
    let bench = Bench::new("hostile", "", "").unwrap();
    let outcome = bench.act("flood-log", &none()).unwrap();
    outcome.result().unwrap();
    assert!(outcome.stderr.len() < 100 << 10, "{} bytes", outcome.stderr.len());
    assert!(outcome.stderr.lines().last().unwrap().contains("logs more than 65536 bytes"), "{}", outcome.stderr.len());
}

/// A line of a guest is one line, and says whose it is.
#[test]
fn forged_log_lines() {
    let bench = Bench::new("hostile", "", "").unwrap();
    let outcome = bench.act("forge-log", &none()).unwrap();
    outcome.result().unwrap();
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("sandwire: info: plugin=hostile network=net"), "{lines:?}");
    assert!(!outcome.stderr.trim_end().chars().any(char::is_control), "{lines:?}");
}

/// The journals of all attachments share a tmpfs.
#[test]
fn bytes_of_the_journal() {
    let bench = Bench::new("hostile", "", "").unwrap();
    bench.act("flood-journal", &none()).unwrap().error_with(11, "too much for one call").unwrap();
    bench.node.snapshot().unwrap().assert_same_attachments(&bench.before).unwrap();
}

/// What is wrong with rules is kept until it is told.
#[test]
fn faults_of_rules() {
    let bench = Bench::new("hostile", "", "").unwrap();
    let error = bench.act("flood-faults", &none()).unwrap().error_with(7, "").unwrap();
    assert!(error.text().len() < 20_000, "{} bytes", error.text().len());
    bench.unchanged().unwrap();
}

#[test]
fn delegates_in_a_call() {
    let bench = Bench::new("hostile", "delegates = [\"hostile\"]\nown_addresses = true", "").unwrap();
    bench.stopped("flood-delegates", &none(), 116, "runs more than 16 delegates").unwrap();
}

#[test]
fn notes_links_and_leases_that_are_made() {
    let bench = Bench::new("hostile", "limits = { deadline_ms = 20000 }", "").unwrap();
    for (act, text) in [("flood-notes", "note"), ("flood-leases", "at once"), ("flood-devices", "at once")] {
        bench.act(act, &none()).unwrap().error_with(11, text).unwrap();
        bench.node.snapshot().unwrap().assert_same_attachments(&bench.before).unwrap();
    }
}
