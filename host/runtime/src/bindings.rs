//! The contract as Rust types and traits, made from `wit/` when this crate is built.
#![allow(missing_docs, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "plugin-imports",
    imports: { default: trappable },
    with: {
        "sandwire:cni/namespaces.netns": crate::handles::NetnsHandle,
        "sandwire:cni/namespaces.link": crate::handles::LinkHandle,
        "sandwire:cni/leases.store": crate::handles::StoreHandle,
        "sandwire:cni/firewall.ruleset": crate::handles::RulesetHandle,
    },
    trappable_error_type: { "sandwire:cni/types.error" => crate::refusal::Refusal },
});

pub use sandwire::cni::*;
