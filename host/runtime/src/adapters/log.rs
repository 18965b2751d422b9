//! `log`.

use crate::bindings::log::{self, Level};
use crate::guest::Guest;

impl log::Host for Guest {
    fn log(&mut self, level: Level, context: String, message: String) -> wasmtime::Result<()> {
        let level = match level {
            // Traces and debug lines of a plugin are for its author; a node's log has no use for them.
            Level::Trace | Level::Debug => return Ok(()),
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Critical => "critical",
        };
        crate::log::line(self, level, &context, &message);
        Ok(())
    }
}
