//! The settings of the sandbox, shared by the compiler (`sandwirectl apply`) and the CNI binary: a component compiled
//! with other settings is refused by wasmtime, so there is one place for them.

use crate::prepared;
use wasmtime::{Config, Engine};

/// The release whose compiled components this build can map (exact match).
pub const WASMTIME_VERSION: &str = "48.0.8";

/// The target of compiled components, part of their file name.
pub const TARGET: &str = "x86_64-linux";

/// The same for the compiler.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Settings of the engine.
///
/// - Epochs stop a guest that runs past its deadline (SIGALRM increments the epoch: no second thread).
/// - 64 MiB of address space for each memory instead of 4 GiB: the default fails under `ulimit -v`, which some runtimes set.
/// - No back traces, address maps or unwind tables: they are pages to map for every pod, and what they tell
///   (function offsets of the guest) no operator can use.
/// - What no plugin needs and most advisories were about is off: threads and GC are not compiled in, memory64,
///   relaxed SIMD and custom page sizes are off. `wasm_multi_memory` stays on: composed components crash the compiler without.
pub fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .memory_reservation(64 << 20)
        .memory_guard_size(64 << 10)
        .guard_before_linear_memory(false)
        .max_wasm_stack(512 << 10)
        .wasm_backtrace_max_frames(None)
        .native_unwind_info(false)
        .generate_address_map(false)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_component_model(true);
    config
}

/// An engine that compiles: for any processor of the target, so that what was compiled stays good when the node's disk is
/// moved to another machine, and wasmtime has no feature of the processor to look for before it maps a component.
///
/// # Errors
/// As [`engine`].
pub fn compiler() -> wasmtime::Result<Engine> {
    let mut config = config();
    config.target(TRIPLE)?;
    Engine::new(&config)
}

/// An engine of these settings: the one that is ready, or a new one.
///
/// # Errors
/// When the settings contradict what was compiled into this binary.
pub fn engine() -> wasmtime::Result<Engine> {
    match prepared::engine() {
        Some(engine) => Ok(engine),
        None => Engine::new(&config()),
    }
}
