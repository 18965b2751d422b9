//! What an earlier `install` put into the directory of components. What differs from it is the operator's own.

use super::Shipment;
use crate::files;
use anyhow::{Context, Result};
use sandwire_policy::paths;
use std::collections::BTreeMap;
use std::path::Path;

/// Digests by plugin.
#[derive(Debug, Default)]
pub(super) struct Shipped(BTreeMap<String, String>);

impl Shipped {
    /// Reads the list; empty when there is none.
    pub(super) fn read() -> Result<Self> {
        let text = match std::fs::read_to_string(paths::SHIPPED) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("could not read {}", paths::SHIPPED)),
        };
        let lines = text.lines().filter_map(|line| {
            let (hex, file) = line.split_once("  ")?;
            Some((file.strip_suffix(".wasm")?.to_owned(), format!("sha256:{hex}")))
        });
        Ok(Self(lines.collect()))
    }

    /// What was shipped for `plugin`.
    pub(super) fn digest(&self, plugin: &str) -> Option<&str> {
        self.0.get(plugin).map(String::as_str)
    }

    /// The plugins on the list.
    pub(super) fn plugins(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Writes the list; `sha256sum -c` reads it too.
    pub(super) fn write(components: &BTreeMap<String, Shipment>) -> Result<()> {
        let text: String = components
            .iter()
            .map(|(plugin, shipment)| format!("{}  {plugin}.wasm\n", shipment.digest.trim_start_matches("sha256:")))
            .collect();
        files::replace(Path::new(paths::SHIPPED), text.as_bytes(), 0o644).map(|_| ())
    }
}
