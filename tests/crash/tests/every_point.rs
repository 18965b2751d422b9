//! Every crash point of every plugin. The default run kills at every point, and fails every point with one errno, the next
//! one at the next point; with SOAK=1 every point is failed with all six.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use sandwire_crash::{Plan, Report, Scenario, Selection, Table};
use sandwire_harness::Verb;
use std::io::Write;

fn try_all(scenario: &Scenario, verb: Verb) {
    try_as(scenario, verb, |plan| plan);
}

/// What it made is in the container, whose namespace GC is not told of: it is DEL that cleans up, or the namespace goes.
fn try_in_container(scenario: &Scenario, verb: Verb) {
    match verb {
        Verb::Gc => try_as(scenario, verb, Plan::netns_gone),
        _ => try_as(scenario, verb, Plan::only_del),
    }
}

fn try_as(scenario: &Scenario, verb: Verb, how: impl Fn(Plan) -> Plan) {
    let errnos = if std::env::var_os("SOAK").is_some() { Selection::AllErrnos } else { Selection::OneErrno };
    let reports = [Selection::Kill, errnos].map(|selection| {
        let plan = how(Plan::new(scenario.clone(), verb, selection));
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

/// The same of a plugin whose host end carries addresses and routes of the node.
#[test]
fn ptp_add_and_then_no_netns() {
    let plan = Plan::new(Scenario::ptp(), Verb::Add, Selection::Kill).netns_gone();
    let report = Report::make(&plan, 1).unwrap_or_else(|e| panic!("{e:#}"));
    report.assert_nothing_left().unwrap_or_else(|e| panic!("{e:#}"));
}

macro_rules! every_point {
    ($how:ident: $($name:ident: $scenario:ident $verb:ident;)*) => {
        $(#[test] fn $name() { $how(&Scenario::$scenario(), Verb::$verb) })*
    };
}

every_point! {
    try_in_container:
    dhcp_add: dhcp Add;
    dhcp_del: dhcp Del;
    macvlan_add: macvlan Add;
    macvlan_del: macvlan Del;
    macvlan_gc: macvlan Gc;
    sbr_add: sbr Add;
    sbr_del: sbr Del;
    // (A veth goes with its pod: what GC finds is nothing.)
    host_device_add: host_device Add;
    host_device_del: host_device Del;
    tap_add: tap Add;
    tap_del: tap Del;
    tap_gc: tap Gc;
    tuning_add: tuning Add;
    tuning_del: tuning Del;
    tuning_gc: tuning Gc;
}

every_point! {
    try_all:
    bridge_add: bridge Add;
    bridge_del: bridge Del;
    bridge_gc: bridge Gc;
    bagpipe_add: bagpipe Add;
    bagpipe_del: bagpipe Del;
    bagpipe_gc: bagpipe Gc;
    bandwidth_add: bandwidth Add;
    bandwidth_del: bandwidth Del;
    bandwidth_gc: bandwidth Gc;
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
    ptp_add: ptp Add;
    ptp_del: ptp Del;
    ptp_gc: ptp Gc;
    static_add: static_addresses Add;
    static_del: static_addresses Del;
    static_gc: static_addresses Gc;
}
