//! Debian's plugins beside ours, by the same trials: shown, not asserted.

use crate::scenario::{Scenario, Whose};
use crate::trial::{Plan, Selection};
use sandwire_harness::Verb;

/// ADD of each implementation killed at every call, and then deleted once: as it is, and with the namespace gone by then.
pub fn plans() -> Vec<Plan> {
    let plan = |scenario| Plan::new(scenario, Verb::Add, Selection::Kill).only_del();
    let of = |whose| {
        [
            plan(Scenario::compared_host_local(whose)),
            plan(Scenario::compared_bridge(whose)),
            plan(Scenario::compared_bridge(whose)).netns_gone(),
        ]
    };
    [of(Whose::Debians), of(Whose::Ours)].into_iter().flatten().collect()
}
