//! What does not become a component.

#![allow(clippy::unwrap_used, missing_docs)]

use sandwire_componentize::{componentize, surface};
use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{ManglingAndAbi, Resolve};

/// A core module for the world `w`, whose functions do nothing but which imports and exports as a compiler's would.
fn module(world: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    for package in [
        "package wasi:clocks@0.2.6; interface wall-clock { now: func() -> u64; }",
        "package sandwire:cni@0.1.0;
         interface attach { add: func() -> string; }
         interface log { line: func(text: string); }
         interface links { remove: func(); }",
    ] {
        resolve.push_str("package.wit", package).unwrap();
    }
    let package = resolve.push_str("world.wit", &format!("package test:plugin; world w {{ {world} }}")).unwrap();
    let world = resolve.select_world(&[package], Some("w")).unwrap();
    let mut module = dummy_module(&resolve, world, ManglingAndAbi::Standard32);
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    module
}

fn refusal(module: &[u8]) -> String {
    format!("{:#}", componentize(module, &[]).unwrap_err())
}

#[test]
fn a_plugin_becomes_a_component_and_always_the_same() {
    let module = module("import sandwire:cni/log@0.1.0; export sandwire:cni/attach@0.1.0;");
    let component = componentize(&module, &[]).unwrap();
    assert_eq!(component, componentize(&module, &[]).unwrap());
    let surface = surface(&component).unwrap();
    assert_eq!(surface.imports, ["sandwire:cni/log@0.1.0"]);
    assert_eq!(surface.exports, ["sandwire:cni/attach@0.1.0"]);
}

#[test]
fn wasi_is_refused() {
    let text = refusal(&module("import wasi:clocks/wall-clock@0.2.6; export sandwire:cni/attach@0.1.0;"));
    assert!(text.contains("it imports wasi:clocks/wall-clock@0.2.6"), "{text}");
}

#[test]
fn a_module_that_is_no_plugin_is_refused() {
    let text = refusal(&module("import sandwire:cni/log@0.1.0;"));
    assert!(text.contains("does not export sandwire:cni/attach"), "{text}");
    assert!(refusal(b"\0asm\x01\0\0\0").contains("sandwire_plugin::export!"));
    assert!(!refusal(b"not wasm").is_empty());
    let component =
        ComponentEncoder::default().module(&module("export sandwire:cni/attach@0.1.0;")).unwrap().encode().unwrap();
    assert!(!refusal(&component).is_empty());
}
