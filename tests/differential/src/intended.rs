//! Where ours differs on purpose: `intended.tsv`.

use crate::Difference;
use anyhow::{Context, Result, bail};
use sandwire_harness::matching::glob;
use std::collections::{BTreeMap, BTreeSet};

/// The lines of the file.
#[derive(Debug)]
pub struct Intended {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    line: usize,
    /// A plugin that the network has; `*` for any.
    plugin: String,
    after: String,
    field: String,
    native: String,
    ours: String,
    reason: String,
    /// The fields it was used for, without the numbers in them.
    used: BTreeSet<String>,
}

impl Intended {
    /// From tab-separated lines: plugin, call, field, native value, our value, reason. `*` stands for any run of characters,
    /// `-` for a field that is not there; `#` begins a comment line.
    ///
    /// # Errors
    /// When a line has another form.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let entries = lines
            .map(|(number, line)| {
                let cells: Vec<&str> = line.split('\t').filter(|cell| !cell.is_empty()).collect();
                let [plugin, after, field, native, ours, reason] = cells.as_slice() else {
                    bail!("line {}: six columns, separated by tabs, not {}", number + 1, cells.len());
                };
                let [plugin, after, field, native, ours, reason] =
                    [plugin, after, field, native, ours, reason].map(|cell| (*cell).to_owned());
                Ok(Entry { line: number + 1, plugin, after, field, native, ours, reason, used: BTreeSet::new() })
            })
            .collect::<Result<Vec<_>>>()
            .context("intended.tsv")?;
        Ok(Self { entries })
    }

    /// Those that no line explains.
    pub fn unexplained(&mut self, differences: Vec<Difference>) -> Vec<Difference> {
        differences.into_iter().filter(|difference| !self.explains(difference)).collect()
    }

    fn explains(&mut self, difference: &Difference) -> bool {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
        let entry = self.entries.iter_mut().find(|entry| {
            (entry.plugin == "*" || difference.plugins.contains(&entry.plugin))
                && (entry.after == "*" || entry.after == difference.after)
                && glob(&entry.field, &difference.field)
                && glob(&entry.native, &value(&difference.native))
                && glob(&entry.ours, &value(&difference.ours))
        });
        let Some(entry) = entry else { return false };
        entry.used.insert(kind(&difference.field));
        true
    }

    /// What is wrong with the file, after all sequences ran: lines that explain nothing, and lines that explain more than one
    /// field.
    pub fn complaints(&self) -> Vec<String> {
        let complaint = |entry: &Entry| match entry.used.len() {
            1 => None,
            0 => Some(format!("line {}: nothing differs so ({}, {})", entry.line, entry.plugin, entry.field)),
            _ => Some(format!("line {}: more than one field: {:?}", entry.line, entry.used)),
        };
        self.entries.iter().filter_map(complaint).collect()
    }

    /// As the table of `docs/compatibility.md`.
    pub fn table(&self) -> String {
        let mut rows = BTreeMap::new();
        for entry in &self.entries {
            let cell = |text: &str| text.replace('|', "\\|");
            let row = format!(
                "| {} | {} | `{}` | {} |\n",
                if entry.plugin == "*" { "any" } else { &entry.plugin },
                if entry.after == "*" { "any" } else { &entry.after },
                cell(&entry.field),
                cell(&entry.reason)
            );
            rows.insert(entry.line, row);
        }
        let rows: String = rows.into_values().collect();
        format!("| plugin | after | field | why ours differs |\n| --- | --- | --- | --- |\n{rows}")
    }
}

/// A field without what it is of: without the pod, the link, the address, the network, an index.
fn kind(field: &str) -> String {
    let number =
        |part: &str| if part.contains(|c: char| c.is_ascii_digit()) { "N".to_owned() } else { part.to_owned() };
    let leaf = field.rsplit_once('/').map_or("", |(_, leaf)| leaf);
    let words: Vec<&str> = field.split(' ').collect();
    match words.as_slice() {
        ["host", what, ..] | ["pod", _, what, ..] | [what @ "file", ..] => format!("{what}/{}", number(leaf)),
        _ => field.split('/').map(number).collect::<Vec<_>>().join("/"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn difference(field: &str, native: &str, ours: Option<&str>) -> Difference {
        let (native, ours) = (Some(native.to_owned()), ours.map(str::to_owned));
        Difference { seed: 1, plugins: vec!["bridge".into()], after: "ADD", field: field.into(), native, ours }
    }

    #[test]
    fn a_line_is_for_one_field_and_must_be_used() {
        let text = "# plugin\nbridge\tADD\thost link */mtu\t1500\t-\twhy\nbridge\tDEL\t*\t*\t*\tnever\n";
        let mut intended = Intended::parse(text).unwrap();
        let left = intended.unexplained(vec![
            difference("host link veth#1/mtu", "1500", None),
            difference("host link veth#2/mtu", "1500", Some("1400")),
        ]);
        assert_eq!(left, [difference("host link veth#2/mtu", "1500", Some("1400"))]);
        assert_eq!(intended.complaints(), ["line 3: nothing differs so (bridge, *)"]);
        let mut wide = Intended::parse("*\t*\t*\t*\t*\twhy\n").unwrap();
        wide.unexplained(vec![difference("host link veth#1/mtu", "1", None), difference("error/text", "a", None)]);
        assert_eq!(wide.complaints().len(), 1);
    }

    #[test]
    fn a_line_of_another_form_is_an_error() {
        assert!(Intended::parse("bridge\tADD\tfield\n").is_err());
    }
}
