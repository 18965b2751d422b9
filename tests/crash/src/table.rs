//! Reports as tables, for people and for `docs/reliability.md`.

use crate::trial::{Plan, Report, Selection};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Rows of text with a heading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Without rows.
    pub fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|text| (*text).to_owned()).collect(), rows: Vec::new() }
    }

    /// One more row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Each system call of a report: how often an undisturbed run makes it, how many of these were tried, in how many
    /// cases something was left.
    pub fn of_calls(reports: &[Report]) -> Self {
        let mut table = Self::new(&["plugin", "verb", "fault", "call", "matching calls", "points tried", "left"]);
        for report in reports {
            let mut calls: BTreeMap<(&str, &str), [usize; 3]> = BTreeMap::new();
            let by = |process: usize| if process == 0 { "" } else { " by a helper" };
            for point in &report.points {
                calls.entry((point.call, by(point.process))).or_default()[0] += 1;
            }
            for trial in &report.trials {
                let row = calls.entry((trial.point.call, by(trial.point.process))).or_default();
                row[1] += usize::from(trial.hit);
                row[2] += usize::from(!trial.left.is_empty());
            }
            for ((call, by), [matching, tried, left]) in calls {
                table.row(vec![
                    report.plan.scenario.name.into(),
                    report.plan.verb.name().into(),
                    disturbance(&report.plan),
                    format!("{call}{by}"),
                    matching.to_string(),
                    tried.to_string(),
                    left.to_string(),
                ]);
            }
        }
        table
    }

    /// One line for each report.
    pub fn of_reports(reports: &[Report]) -> Self {
        let head = ["plugin", "verb", "fault", "calls", "tried", "clean-up failed", "something left", "what is left"];
        let mut table = Self::new(&head);
        for report in reports {
            let count = |which: fn(&crate::Trial) -> bool| report.trials.iter().filter(|t| which(t)).count();
            let kinds: BTreeMap<&str, usize> = report.trials.iter().fold(BTreeMap::new(), |mut kinds, trial| {
                let mut here: Vec<&str> = trial.left.iter().map(|line| kind(line)).collect();
                here.sort_unstable();
                here.dedup();
                here.into_iter().for_each(|kind| *kinds.entry(kind).or_default() += 1);
                kinds
            });
            let kinds: Vec<String> = kinds.into_iter().map(|(kind, count)| format!("{kind} {count}")).collect();
            table.row(vec![
                report.plan.scenario.name.into(),
                report.plan.verb.name().into(),
                disturbance(&report.plan),
                report.points.len().to_string(),
                count(|t| t.hit).to_string(),
                count(|t| t.failed.is_some()).to_string(),
                count(|t| !t.left.is_empty()).to_string(),
                if kinds.is_empty() { "nothing".into() } else { kinds.join(", ") },
            ]);
        }
        table
    }
}

fn disturbance(plan: &Plan) -> String {
    let fault = match plan.selection {
        Selection::Kill => "SIGKILL",
        Selection::KillAll => "SIGKILL to all",
        Selection::OneErrno => "one errno each",
        Selection::AllErrnos => "each of 6 errnos",
    };
    format!("{fault}{}", if plan.netns_gone { ", netns gone" } else { "" })
}

/// What a line of a snapshot's difference is about.
fn kind(line: &str) -> &'static str {
    let has = |text: &str| line.contains(text);
    match () {
        () if has(" file /var/lib/cni/") => "lease",
        () if has(" file /run/sandwire/journal") => "journal",
        () if has(" file ") => "file",
        () if has(" nft ") => "firewall rule",
        () if has(" link ") => "link",
        () if has(" addr ") => "address",
        () if has(" route") => "route",
        () if has(" sysctl ") => "sysctl",
        () if has("agent ") => "registration",
        () => "other",
    }
}

impl std::fmt::Display for Table {
    /// As Markdown, in columns.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let width = |n: usize| all().filter_map(|row| row.get(n)).map(String::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        for (number, row) in all().enumerate() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "| {cell:width$} ")?;
            }
            writeln!(f, "{line}|")?;
            if number == 0 {
                let rule: String = widths.iter().map(|width| format!("|{}", "-".repeat(width + 2))).collect();
                writeln!(f, "{rule}|")?;
            }
        }
        Ok(())
    }
}
