//! Components built against an earlier text of `wit/` run with the present one, and a change that breaks them is seen.

use sandwire_guests::{Bench, component, wit};
use sandwire_harness::{Verb, repository};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Every component kept, with its path.
fn kept() -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for release in std::fs::read_dir(repository().join("wit/fixtures")).unwrap() {
        for file in std::fs::read_dir(release.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "wasm") {
                all.push((path.clone(), std::fs::read(path).unwrap()));
            }
        }
    }
    assert!(!all.is_empty(), "wit/fixtures is empty");
    all
}

#[test]
fn no_change_of_the_contract_breaks_a_component_that_was_built_before() {
    for (path, bytes) in kept() {
        let broken = wit::broken_by(&repository().join("wit"), &bytes).unwrap();
        assert!(
            broken.is_empty(),
            "{} would not start any more. Within 0.1.x only functions of imported interfaces may be added (docs/contract.md); \
             put the wish into wit/PENDING.md.\n{}",
            path.display(),
            broken.join("\n")
        );
    }
}

/// Comparing texts is one thing; here the installed binary links and calls what was built then.
#[test]
fn components_that_were_built_before_run() {
    for (path, bytes) in kept() {
        let imports: Vec<String> =
            sandwire_guests::granted_by_all(&bytes).unwrap().iter().map(|name| format!("{name:?}")).collect();
        let bench = Bench::of("conformance", &bytes, &format!("imports = [{}]", imports.join(", ")), "").unwrap();
        let config = bench.config("", &json!({"end": "stay"}));
        bench.call(Verb::Add, &config).unwrap().result().unwrap_or_else(|e| panic!("{}: {e:#}", path.display()));
        bench.call(Verb::Del, &config).unwrap().done().unwrap();
        bench.unchanged().unwrap();
    }
}

/// A kept component is a proof only of what it imports: the first of them everything that its release had.
#[test]
fn the_first_fixture_has_every_function_of_its_release() {
    let bytes = std::fs::read(repository().join("wit/fixtures/0.1.0/conformance.wasm")).unwrap();
    let fixture = wit::functions_of(&bytes).unwrap();
    // What today's guest imports is what the contract has (`conformance.rs` compares all three); a function that was added
    // after the release is in the guest and not in the fixture.
    let today = wit::functions_of(component("conformance").unwrap()).unwrap();
    let contract = wit::contract(&repository().join("wit")).unwrap();
    assert_eq!(today, contract);
    assert!(fixture.len() >= 90 && fixture.keys().all(|key| contract.contains_key(key)), "{}", fixture.len());
}

/// The contract with one place of one file changed.
fn changed(file: &str, from: &str, to: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(repository().join("wit")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "wit") {
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let path = copy.path().join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.matches(from).count(), 1, "{file} has {from:?} not once");
    std::fs::write(&path, text.replace(from, to)).unwrap();
    copy
}

fn breaks(copy: &Path) -> String {
    let (_, bytes) = kept().remove(0);
    wit::broken_by(copy, &bytes).unwrap().join("\n")
}

#[track_caller]
fn noticed(file: &str, from: &str, to: &str, function: &str) {
    let broken = breaks(changed(file, from, to).path());
    assert!(broken.contains(function), "{from} -> {to} was not noticed: {broken:?}");
}

#[test]
fn an_added_enum_case_is_noticed() {
    noticed(
        "firewall.wit",
        "enum protocol { tcp, udp, sctp }",
        "enum protocol { tcp, udp, sctp, dccp }",
        "conntrack: function flush",
    );
}

#[test]
fn an_added_record_field_is_noticed() {
    noticed("bridging.wit", "untagged: bool }", "untagged: bool, tunnel: u32 }", "bridging: function set-vlans");
}

#[test]
fn an_added_variant_case_is_noticed() {
    noticed("types.wit", "    other(string),", "    stale(string),\n    other(string),", "kv: function set");
}

#[test]
fn a_removed_function_is_noticed() {
    noticed(
        "links.wit",
        "  create-dummy: func(dev: device) -> result<link, error>;",
        "",
        "function create-dummy is gone",
    );
}

#[test]
fn a_changed_parameter_is_noticed() {
    noticed(
        "wait.wit",
        "link-up: func(l: borrow<link>, timeout-ms: u32)",
        "link-up: func(l: borrow<link>, timeout-ms: u64)",
        "wait: function link-up",
    );
}

/// What an exported interface asks of plugins: one more function, and built plugins do not have it. They are looked up
/// when called, so the comparison is with what a plugin exports.
#[test]
fn a_changed_export_is_noticed() {
    noticed(
        "types.wit",
        "    prev-result: option<string>,",
        "    prev-result: option<string>,\n    runtime: string,",
        "attach: function add",
    );
}

/// The one kind of change that is allowed.
#[test]
fn an_added_function_of_an_imported_interface_breaks_nothing() {
    let copy = changed("kv.wit", "  keys: func(", "  count: func(scope: scope) -> result<u32, error>;\n  keys: func(");
    assert_eq!(breaks(copy.path()), "");
    let longer = changed("types.wit", "/// Values shared by all interfaces.", "/// Values that all interfaces share.");
    assert_eq!(breaks(longer.path()), "", "a comment");
}
