//! Thousands of random steps, and the scripts that failed once.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use sandwire_model::networks::Attachment;
use sandwire_model::{folder, run_random, run_script, script::Step};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

/// Not by print!, which a passing test keeps to itself.
fn say(text: &str) {
    std::io::stdout().write_all(text.as_bytes()).unwrap();
}

#[test]
fn random_steps() {
    if let Ok(path) = std::env::var("MODEL_SCRIPT") {
        let steps = Step::parse_all(&std::fs::read_to_string(path).unwrap()).unwrap();
        return run_script(&steps).unwrap_or_else(|e| panic!("{e:#}"));
    }
    // Another one each day and run, so that in time all are tried; printed, so that each can be tried again.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("MODEL_SEED").unwrap_or(now.as_secs() * 1000 + u64::from(now.subsec_millis()));
    let seconds = number("MODEL_SECONDS");
    let steps = number("MODEL_STEPS").unwrap_or(if seconds.is_some() { u64::MAX } else { 1500 });
    let time = Duration::from_secs(seconds.unwrap_or(3600));
    let workers = number("MODEL_WORKERS").unwrap_or(2);
    let nets = std::env::var("MODEL_NETS").unwrap_or_default();
    let chosen: Vec<&str> = nets.split_whitespace().collect();
    let mut among = Attachment::all();
    among.retain(|attachment| chosen.is_empty() || chosen.contains(&attachment.net.name));
    assert!(!among.is_empty(), "MODEL_NETS={nets}: there are no such networks");
    say(&format!("\nmodel test: MODEL_SEED={seed}, {workers} workers\n"));
    let among = &among;
    let reports = std::thread::scope(|scope| {
        let work = |worker| scope.spawn(move || run_random(seed + worker, steps as usize, time, among));
        let threads: Vec<_> = (0..workers).map(work).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let mut wrong = Vec::new();
    for report in reports {
        match report {
            Ok(report) => say(&format!("{} steps in {} scripts: {:?}\n", report.steps, report.scripts, report.calls)),
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn scripts_that_failed_once() {
    let count = folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")).unwrap_or_else(|e| panic!("{e:#}"));
    assert!(count > 0);
}
