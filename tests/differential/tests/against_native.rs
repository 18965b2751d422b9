//! Sequences from seeds, and what `intended.tsv` says of what differs.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use sandwire_differential::{Difference, Intended, Sequence, kind, run};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

/// Not by print!, which a passing test keeps to itself.
fn say(text: &str) {
    std::io::stdout().write_all(text.as_bytes()).unwrap();
}

/// Later sequences that have found something: a mistake, or a difference that intended.tsv has a line for.
const FOUND: [u64; 21] =
    [240, 301, 303, 339, 347, 387, 411, 422, 438, 523, 593, 687, 832, 838, 1001, 1135, 1254, 1310, 1314, 1315, 1322];

fn intended() -> Intended {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("intended.tsv");
    Intended::parse(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn ours_does_as_the_native_ones_do() {
    if let Some(seed) = number("DIFFERENTIAL_SEED") {
        let sequence = Sequence::of(seed);
        say(&format!("\n{sequence}\n"));
        let left = intended().unexplained(run(&sequence).unwrap_or_else(|e| panic!("{e:#}")));
        assert!(left.is_empty(), "{}", shown(&left));
        return;
    }
    let count = number("DIFFERENTIAL_SEQUENCES").unwrap_or(200);
    let first = number("DIFFERENTIAL_FIRST").unwrap_or(0);
    let seeds: Vec<u64> =
        (first..first + count).chain(FOUND.into_iter().filter(|seed| !(first..first + count).contains(seed))).collect();
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<Difference>> = Mutex::default();
    let broken: Mutex<Vec<String>> = Mutex::default();
    let calls: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let work = || {
        loop {
            let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            let sequence = Sequence::of(seed);
            for plugin in &sequence.plugins {
                *calls.lock().unwrap().entry(kind(plugin).to_owned()).or_default() += 1;
            }
            match run(&sequence) {
                Ok(differences) => found.lock().unwrap().extend(differences),
                Err(error) => broken.lock().unwrap().push(format!("seed {seed}: {error:#}")),
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let mut intended = intended();
    let mut found = found.into_inner().unwrap();
    found.sort_by_key(|difference| difference.seed);
    say(&format!(
        "\n{} sequences; of plugins {:?}; {} differences\n",
        seeds.len(),
        calls.into_inner().unwrap(),
        found.len()
    ));
    let left = intended.unexplained(found);
    let mut wrong = broken.into_inner().unwrap();
    if !left.is_empty() {
        wrong.push(shown(&left));
    }
    wrong.extend(intended.complaints());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn shown(left: &[Difference]) -> String {
    let lines: Vec<String> = left.iter().map(ToString::to_string).collect();
    format!("{} differences that intended.tsv does not explain:\n{}", left.len(), lines.join("\n"))
}

#[test]
fn the_documentation_has_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md");
    let page = std::fs::read_to_string(path).unwrap();
    assert!(page.contains(&intended().table()), "docs/compatibility.md must have this table:\n{}", intended().table());
}
