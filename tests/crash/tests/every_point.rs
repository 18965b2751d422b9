//! Every crash point of every plugin. The default run kills at every point, and fails every point with one errno, the next
//! one at the next point; with SOAK=1 every point is failed with all six.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use sandwire_crash::{Plan, Report, Scenario, Selection, Table};
use sandwire_harness::Verb;
use std::io::Write;

fn try_all(scenario: &Scenario, verb: Verb) {
    let errnos = if std::env::var_os("SOAK").is_some() { Selection::AllErrnos } else { Selection::OneErrno };
    let reports = [Selection::Kill, errnos].map(|selection| {
        let plan = Plan::new(scenario.clone(), verb, selection);
        Report::make(&plan, 1).unwrap_or_else(|e| panic!("{e:#}"))
    });
    // Not by print!, which a passing test keeps to itself.
    std::io::stdout().write_all(format!("\n{}\n", Table::of_calls(&reports)).as_bytes()).unwrap();
    let wrong: Vec<String> =
        reports.iter().filter_map(|report| report.assert_nothing_left().err()).map(|e| format!("{e:#}")).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A DEL that finds no namespace any more must undo from the journal alone.
#[test]
fn bridge_add_and_then_no_netns() {
    let plan = Plan::new(Scenario::bridge(), Verb::Add, Selection::Kill).netns_gone();
    let report = Report::make(&plan, 1).unwrap_or_else(|e| panic!("{e:#}"));
    std::io::stdout().write_all(format!("\n{}\n", Table::of_calls(std::slice::from_ref(&report))).as_bytes()).unwrap();
    report.assert_nothing_left().unwrap_or_else(|e| panic!("{e:#}"));
}

macro_rules! every_point {
    ($($name:ident: $scenario:ident $verb:ident;)*) => {
        $(#[test] fn $name() { try_all(&Scenario::$scenario(), Verb::$verb) })*
    };
}

every_point! {
    bridge_add: bridge Add;
    bridge_del: bridge Del;
    bridge_gc: bridge Gc;
    bagpipe_add: bagpipe Add;
    bagpipe_del: bagpipe Del;
    bagpipe_gc: bagpipe Gc;
    firewall_add: firewall Add;
    firewall_del: firewall Del;
    firewall_gc: firewall Gc;
    portmap_add: portmap Add;
    portmap_del: portmap Del;
    portmap_gc: portmap Gc;
    host_local_add: host_local Add;
    host_local_del: host_local Del;
    host_local_gc: host_local Gc;
    loopback_add: loopback Add;
    loopback_del: loopback Del;
    loopback_gc: loopback Gc;
}
