//! What a component may import: what policy grants of what there is. Everything else is an error before it runs.

use sandwire_guests::{Bench, component, dummy, granted_by_all};
use sandwire_harness::repository;
use serde_json::json;
use std::path::Path;

/// The guest without one of its grants: the error has plugin, interface, and the line to write.
#[test]
fn not_granted() {
    let bytes = component("hostile").unwrap();
    let all = granted_by_all(bytes).unwrap();
    for missing in ["firewall", "host-netns"] {
        let granted: Vec<String> = all.iter().filter(|name| *name != missing).map(|name| format!("{name:?}")).collect();
        let mut needed: Vec<String> = all.iter().map(|name| format!("{name:?}")).collect();
        needed.sort();
        let bench = Bench::of("hostile", bytes, &format!("imports = [{}]", granted.join(", ")), "").unwrap();
        let error = bench.stopped("unreachable", &json!({}), 110, "").unwrap();
        assert_eq!(error.msg, format!("plugin \"hostile\" may not use {missing}"));
        for part in [
            &format!("to allow it write  imports = [{}]", needed.join(", ")),
            "[plugins.hostile]",
            "/etc/sandwire/policy.toml",
            "sandwirectl apply",
        ] {
            assert!(error.details.contains(part), "{part}: {error:?}");
        }
    }
}

#[test]
fn nothing_granted() {
    let bench = Bench::of("hostile", component("hostile").unwrap(), "", "").unwrap();
    bench.stopped("unreachable", &json!({}), 110, "its policy grants nothing").unwrap();
}

fn wit() -> std::path::PathBuf {
    repository().join("wit")
}

fn refused(contract: &Path, wit: &str, imports: &str, parts: &[&str]) {
    let bytes = dummy(contract, wit, "guest").unwrap();
    let bench = Bench::of("foreign", &bytes, imports, "").unwrap();
    let error = bench.stopped("", &json!({}), 110, "").unwrap();
    for part in parts {
        assert!(error.text().contains(part), "{part}: {error:?}");
    }
}

#[test]
fn of_another_package() {
    refused(
        &wit(),
        "package other:things@1.0.0; interface door { open: func(); }
         world guest { import door; export sandwire:cni/attach@0.1.0; }",
        "",
        &["\"foreign\" imports \"other:things/door@1.0.0\", which sandwire does not have"],
    );
}

/// The contract as another release has it, with one more line in one of its files.
fn contract_with(file: &str, line: &str, version: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(wit()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "wit") {
            let mut text = std::fs::read_to_string(&path).unwrap();
            if path.file_name().unwrap() == file {
                text.push_str(line);
            }
            let text = text.replace("sandwire:cni@0.1.0", &format!("sandwire:cni@{version}"));
            std::fs::write(copy.path().join(path.file_name().unwrap()), text).unwrap();
        }
    }
    copy
}

/// No policy can grant what there is not, so none is asked for.
#[test]
fn an_interface_that_no_release_has() {
    let contract = contract_with("kv.wit", "\n@since(version = 0.1.0)\ninterface teleport { go: func(); }\n", "0.1.0");
    refused(
        contract.path(),
        "package guest:guest; world guest { import sandwire:cni/teleport@0.1.0; export sandwire:cni/attach@0.1.0; }",
        "",
        &["\"foreign\" imports \"sandwire:cni/teleport@0.1.0\", which sandwire does not have"],
    );
}

#[test]
fn of_the_next_contract() {
    let contract = contract_with("", "", "0.2.0");
    refused(
        contract.path(),
        "package guest:guest; world guest { import sandwire:cni/kv@0.2.0; export sandwire:cni/attach@0.2.0; }",
        "imports = [\"kv\"]",
        &["\"foreign\" imports \"sandwire:cni/", "@0.2.0\", which sandwire does not have"],
    );
}

/// A function that a later 0.1.x added: the interface is granted, the function is not there.
#[test]
fn a_function_of_a_later_release() {
    let contract = contract_with("", "", "0.1.0");
    let path = contract.path().join("kv.wit");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("  keys: func(", "  count: func() -> u32;\n  keys: func(")).unwrap();
    refused(
        contract.path(),
        "package guest:guest; world guest { import sandwire:cni/kv@0.1.0; export sandwire:cni/attach@0.1.0; }",
        "imports = [\"kv\"]",
        &["\"foreign\"", "count", "another release"],
    );
}

/// Imports what it may, and exports nothing that a runtime could call.
#[test]
fn no_plugin() {
    let bytes = dummy(&wit(), "package guest:guest; world guest { import sandwire:cni/kv@0.1.0; }", "guest").unwrap();
    let bench = Bench::of("foreign", &bytes, "imports = [\"kv\"]", "").unwrap();
    bench.stopped("", &json!({}), 110, "does not export sandwire:cni/attach").unwrap();
}
