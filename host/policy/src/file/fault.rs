//! What is wrong with a policy file, where, and what to write instead.

use crate::paths;
use std::fmt;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong there, and what to write instead.
    pub text: String,
}

/// All mistakes of a file, in the order of its lines, so that an operator mends them in one go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { "\n" };
            write!(f, "{separator}{}:{}: {}", paths::POLICY, fault.line, fault.text)?;
        }
        Ok(())
    }
}

/// The line (from 1) on which byte `at` of `text` is.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// What the TOML reader says, in words of this file: the place is the table's name, keys come with a proposal.
pub(super) fn from_toml(text: &str, error: toml::de::Error) -> Faults {
    let span = error.span().unwrap_or(0..0);
    let start = span.start;
    let line = line_of(text, start);
    let message = error.message();
    let key = unknown(message).map(|(key, _)| key);
    let table = table_at(text, line, key.as_deref());
    let place = if table.is_empty() { "at the top".to_owned() } else { format!("in [{table}]") };
    let text = if let Some((key, known)) = unknown(message) {
        unknown_key(&key, &known, &place)
    } else if let Some(key) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        format!("{key:?} is missing {place}")
    } else if message.contains("duplicate") {
        let what = text.get(span).unwrap_or_default().trim();
        format!("{message} {what:?} {place}: each key and each table may stand once")
    } else if message.starts_with("invalid")
        && let Some(key) = key_before(text, start)
    {
        format!("{key}: {message} {place}")
    } else {
        format!("{message} {place}")
    };
    Faults(vec![Fault { line, text }])
}

/// The key whose value stands at byte `at`: the last one before it on the line, or on a line above where a list goes over several.
fn key_before(text: &str, at: usize) -> Option<&str> {
    text.get(..at)?.lines().rev().take_while(|line| !line.starts_with('[')).find_map(|line| {
        let before = line.rsplit_once('=')?.0.trim_end();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let key = before.rsplit(|c| !is_part(c)).next()?;
        (!key.is_empty()).then_some(key)
    })
}

fn unknown(message: &str) -> Option<(String, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (key, rest) = rest.split_once('`')?;
    // The expected ones follow, each between back quotes: every second piece.
    Some((key.to_owned(), rest.split('`').skip(1).step_by(2).collect()))
}

fn unknown_key(key: &str, known: &[&str], place: &str) -> String {
    match key {
        "tenants" | "scopes" if place == "at the top" => {
            format!("[{key}] arrives with a later release; this one has [endpoints], [limits] and [plugins]")
        }
        _ => {
            format!("unknown key {key:?} {place}{}; known are: {}", did_you_mean(key, known), known.join(", "))
        }
    }
}

/// `; did you mean "links"?`, or nothing when no word of `known` is near.
pub(super) fn did_you_mean<S: AsRef<str>>(word: &str, known: &[S]) -> String {
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate.as_ref()), candidate.as_ref()))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| format!("; did you mean {candidate:?}?"))
        .unwrap_or_default()
}

/// The table in which a line stands: the last header at or above it. Of a header that has `key` itself, what is before it.
fn table_at(text: &str, line: usize, key: Option<&str>) -> String {
    let headers = text.lines().enumerate().take(line).filter_map(|(number, line)| {
        let name = line.split('#').next()?.trim().strip_prefix('[')?.strip_suffix(']')?;
        let is_header = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.\"/".contains(&b));
        is_header.then_some((number + 1, name))
    });
    match headers.last() {
        Some((number, name)) if number == line => {
            let segments = name.split('.').take_while(|segment| Some(*segment) != key);
            segments.collect::<Vec<_>>().join(".")
        }
        Some((_, name)) => name.to_owned(),
        None => String::new(),
    }
}
