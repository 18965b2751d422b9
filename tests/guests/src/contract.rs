//! `docs/contract.md` as data: which functions of which interface work.

use anyhow::{Context, Result};
use sandwire_harness::repository;
use std::collections::BTreeMap;

/// "links create-veth" to what its row says: "works" or "unsupported".
///
/// A row is `| function | works |` below a heading `### interface`.
///
/// # Errors
/// When the file can't be read.
pub fn documented() -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(repository().join("docs/contract.md")).context("docs/contract.md")?;
    let mut rows = BTreeMap::new();
    let mut interface = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("### `") {
            interface = name.trim_end_matches('`').to_owned();
        } else if line.starts_with('#') {
            interface.clear();
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let [function, state, ..] = cells.as_slice()
            && let Some(function) = function.strip_prefix('`').and_then(|name| name.strip_suffix('`'))
            && !interface.is_empty()
        {
            rows.insert(format!("{interface} {function}"), (*state).to_owned());
        }
    }
    Ok(rows)
}

/// What the conformance guest's error object says: function to outcome ("ok", "unsupported: why").
pub fn outcomes(details: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for line in details.lines() {
        let mut words = line.splitn(3, ' ');
        if let (Some(interface), Some(function), Some(outcome)) = (words.next(), words.next(), words.next()) {
            all.insert(format!("{interface} {function}"), outcome.to_owned());
        }
    }
    all
}
