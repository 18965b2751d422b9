//! Every plugin's cases, at every version of the specification.

use sandwire_harness::{cases, repository};

fn all_of(plugin: &str) {
    let cases = cases::of_plugin(plugin).unwrap();
    cases::run(&cases, cases::Implementation::Sandwire).unwrap().check().unwrap();
}

macro_rules! plugins {
    ($($function:ident $name:literal)*) => {
        const TESTED: &[&str] = &[$($name),*];
        $(#[test] fn $function() { all_of($name) })*
    };
}

plugins! {
    loopback "loopback"
    bridge "bridge"
    host_local "host-local"
    bagpipe "bagpipe"
    macvlan "macvlan"
    tuning "tuning"
    static_addresses "static"
    ptp "ptp"
    bandwidth "bandwidth"
    firewall "firewall"
    portmap "portmap"
    sbr "sbr"
    host_device "host-device"
    tap "tap"
    vlan "vlan"
    vrf "vrf"
    ipvlan "ipvlan"
    dummy "dummy"
    dhcp "dhcp"
}

/// A plugin that nobody put into the list above would never be tried.
#[test]
fn every_plugin_has_cases_and_a_test() {
    let there = cases::plugins().unwrap();
    assert_eq!(
        {
            let mut tested = TESTED.to_vec();
            tested.sort_unstable();
            tested
        },
        there
    );
    for plugin in there {
        assert!(!cases::of_plugin(&plugin).unwrap().is_empty(), "{plugin}");
    }
}

/// The virtual machine's lane runs these and nothing else of the cases.
#[test]
fn some_cases_need_another_kernel() {
    let all = cases::plugins().unwrap().into_iter().flat_map(|plugin| cases::of_plugin(&plugin).unwrap());
    assert!(all.filter(cases::Case::needs_kernel).count() > 0);
}

/// A hostile or conformance component that no test calls proves nothing.
#[test]
fn every_guest_has_a_test() {
    let guests = repository().join("tests/guests");
    let mut tests = String::new();
    let mut folders = vec![guests.join("tests"), repository().join("tests/harness/tests/e2e")];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => folders.push(path),
                false => tests += &std::fs::read_to_string(path).unwrap(),
            }
        }
    }
    for entry in std::fs::read_dir(&guests).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        assert!(!entry.path().join("Cargo.toml").exists() || tests.contains(&name), "no test names the guest {name:?}");
    }
}

/// The cases say what the reference does, where they claim so.
#[test]
fn reference_agrees() {
    let mut failures = Vec::new();
    let mut ran = 0;
    for plugin in cases::plugins().unwrap() {
        let cases = cases::of_plugin(&plugin).unwrap();
        let report = cases::run(&cases, cases::Implementation::Reference).unwrap();
        ran += report.ran;
        failures.extend(report.failures);
    }
    assert!(failures.is_empty(), "{} of {ran} failed:\n\n{}", failures.len(), failures.join("\n\n"));
    assert!(ran > 0, "no case is marked with the file `reference`");
}
