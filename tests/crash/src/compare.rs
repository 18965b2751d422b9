//! What is shown, not asserted: Debian's plugins beside ours, by the same trials.

use crate::scenario::{Scenario, Whose};
use crate::trial::{Plan, Report, Selection};
use anyhow::Result;
use sandwire_harness::Verb;

/// ADD of each implementation killed at every call, and then deleted once: as it is, and with the namespace gone by then.
///
/// # Errors
/// When an undisturbed call fails.
pub fn reports(whose: Whose, workers: usize) -> Result<Vec<Report>> {
    let plan = |scenario| Plan::new(scenario, Verb::Add, Selection::Kill).only_del();
    [
        plan(Scenario::compared_bridge(whose)),
        plan(Scenario::compared_bridge(whose)).netns_gone(),
        plan(Scenario::compared_host_local(whose)),
    ]
    .iter()
    .map(|plan| Report::make(plan, workers))
    .collect()
}
