//! What wit-bindgen makes of `wit/`. The rest of the crate is written against this; plugins are not.
//!
//! The imports are one world; each export is a world of its own, over the same types. A plugin that has no GC must
//! not export `gc` (the host looks exports up), and the description of an export is linked into a plugin only where
//! its `export_*` macro is expanded.

// Generated: lowering and lifting is unsafe by nature, and its shape is wit-bindgen's.
#![allow(unsafe_code, missing_docs, unreachable_pub, unused, clippy::all, clippy::undocumented_unsafe_blocks)]

pub mod imports {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "sandwire:cni/plugin-imports@0.1.0",
        generate_all,
        generate_unused_types: true,
        additional_derives: [PartialEq, Eq],
        additional_derives_ignore: ["device", "store", "ruleset", "link", "netns"],
    });
}

pub mod attach {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package sandwire:sdk; world only-attach { export sandwire:cni/attach@0.1.0; }",
        world: "sandwire:sdk/only-attach",
        with: { "sandwire:cni/types@0.1.0": crate::bindings::imports::sandwire::cni::types },
        pub_export_macro: true,
        export_macro_name: "export_attach",
        default_bindings_module: "sandwire_plugin::bindings::attach",
    });
}

pub mod check {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package sandwire:sdk; world only-check { export sandwire:cni/check@0.1.0; }",
        world: "sandwire:sdk/only-check",
        with: { "sandwire:cni/types@0.1.0": crate::bindings::imports::sandwire::cni::types },
        pub_export_macro: true,
        export_macro_name: "export_check",
        default_bindings_module: "sandwire_plugin::bindings::check",
    });
}

pub mod gc {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package sandwire:sdk; world only-gc { export sandwire:cni/gc@0.1.0; }",
        world: "sandwire:sdk/only-gc",
        with: { "sandwire:cni/types@0.1.0": crate::bindings::imports::sandwire::cni::types },
        pub_export_macro: true,
        export_macro_name: "export_gc",
        default_bindings_module: "sandwire_plugin::bindings::gc",
    });
}

pub mod status {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package sandwire:sdk; world only-status { export sandwire:cni/status@0.1.0; }",
        world: "sandwire:sdk/only-status",
        with: { "sandwire:cni/types@0.1.0": crate::bindings::imports::sandwire::cni::types },
        pub_export_macro: true,
        export_macro_name: "export_status",
        default_bindings_module: "sandwire_plugin::bindings::status",
    });
}
