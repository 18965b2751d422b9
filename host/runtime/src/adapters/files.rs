//! `files`: text files that policy names.

use crate::bindings::files;
use crate::guest::Guest;
use crate::refusal::{Answer, Refusal};
use std::io::Read;

/// No configuration that a plugin reads is larger.
const LARGEST: u64 = 1 << 20;

impl files::Host for Guest {
    fn read(&mut self, name: String) -> Answer<String> {
        let Some(path) = self.grant.files.get(&name) else {
            return Err(Refusal::denied(format!(
                "read file {name:?}: to allow it add it to  files  under [plugins.{}] in {}, then run: sandwirectl apply",
                self.grant.plugin,
                sandwire_policy::paths::POLICY
            )));
        };
        let failed = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound => Refusal::not_found(format!("open {path}: no such file or directory")),
            _ => Refusal::other(format!("read {path}: {e}")),
        };
        let file = std::fs::File::open(path).map_err(failed)?;
        // A fifo would block the call until somebody writes to it.
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(Refusal::invalid(format!("{path} is no regular file")));
        }
        let mut text = String::new();
        file.take(LARGEST).read_to_string(&mut text).map_err(failed)?;
        Ok(text)
    }
}
