//! The crash table of Debian's reference plugins, from the same code: shown beside ours, and nothing is claimed of theirs.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use sandwire_crash::{Table, Whose, compare};
use std::io::Write;

#[test]
fn killed_at_every_call_of_add_and_then_deleted_once() {
    let ours = compare::reports(Whose::Ours, 2).unwrap_or_else(|e| panic!("{e:#}"));
    let debians = compare::reports(Whose::Debians, 2).unwrap_or_else(|e| panic!("{e:#}"));
    for report in &ours {
        report.assert_nothing_left().unwrap_or_else(|e| panic!("{e:#}"));
    }
    let all: Vec<_> = ours.into_iter().chain(debians).collect();
    let text = format!("\n{}\n{}\n", Table::of_reports(&all), Table::of_calls(&all));
    std::io::stdout().write_all(text.as_bytes()).unwrap();
}
