//! What ends up in a component: the template of the documentation and a plugin without namespaces of the node.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use sandwire_componentize::{Surface, componentize, surface};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds a package of the workspace as `plugins/build.sh` does, and makes a component of it.
fn component(package: &str) -> Vec<u8> {
    // A directory of its own: the one of the running test is locked by its cargo.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests");
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--locked",
            "--profile",
            "plugin",
            "--target",
            "wasm32-unknown-unknown",
            "-p",
            package,
        ])
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success(), "{package} does not build for wasm32-unknown-unknown");
    let module: PathBuf =
        target.join("wasm32-unknown-unknown/plugin").join(format!("{}.wasm", package.replace('-', "_")));
    componentize(&std::fs::read(module).unwrap(), &[]).unwrap()
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| format!("sandwire:cni/{name}@0.1.0")).collect()
}

#[test]
fn the_template_imports_what_it_calls_and_exports_what_it_has() {
    let component = component("sandwire-plugin-template");
    assert_eq!(
        surface(&component).unwrap(),
        Surface {
            imports: names(&[
                "addresses",
                "configure",
                "container-netns",
                "delegate",
                "host-netns",
                "links",
                "log",
                "namespaces",
                "routes",
                "types",
            ]),
            exports: names(&["attach", "check", "status"]),
        }
    );
    // A limit so that what is linked in by accident (regular expressions, a formatter of dates) is seen.
    assert!(component.len() < 240 << 10, "{} bytes: something big was linked in", component.len());
}

#[test]
fn loopback_can_do_nothing_to_the_node() {
    let surface = surface(&component("sandwire-plugin-loopback")).unwrap();
    assert_eq!(surface.imports, names(&["addresses", "container-netns", "links", "namespaces", "types"]));
    assert_eq!(surface.exports, names(&["attach", "check"]));
}
