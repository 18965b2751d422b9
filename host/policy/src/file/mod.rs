//! `policy.toml`: what an operator writes. Read and checked by `sandwirectl apply`, never by the CNI binary.

mod check;
mod defaults;
mod fault;
mod shape;
#[cfg(test)]
mod tests;

pub use defaults::{HEAD, SHIPPED, entry};
pub use fault::{Fault, Faults};

use crate::Grant;
use crate::grant::compiled_name;
use std::collections::BTreeMap;
use std::ops::Range;

/// The interfaces of the contract, by the names that `imports` has for them.
#[derive(Debug, Clone, Copy)]
pub struct Contract<'a> {
    /// Those that a plugin gets only when policy says so.
    pub grantable: &'a [&'a str],
    /// Those that grant nothing.
    pub free: &'a [&'a str],
}

/// A policy file that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    memory_image: bool,
    plugins: BTreeMap<String, Plugin>,
}

/// One `[plugins.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plugin {
    /// All but what only the compiler knows.
    grant: Grant,
    /// Where the digest stands in the text, with its quotes.
    digest_at: Range<usize>,
}

impl PolicyFile {
    /// Reads the text of a policy file.
    ///
    /// # Errors
    /// Every mistake with its line.
    pub fn parse(text: &str, contract: Contract<'_>) -> Result<Self, Faults> {
        let file: shape::File = toml::from_str(text).map_err(|error| fault::from_toml(text, error))?;
        let memory_image = file.memory_image;
        Ok(Self { memory_image, plugins: check::check(text, file, contract)? })
    }

    /// Whether calls may begin with a memory image.
    pub fn memory_image(&self) -> bool {
        self.memory_image
    }

    /// The plugins that have an entry, sorted.
    pub fn plugins(&self) -> impl Iterator<Item = &str> {
        self.plugins.keys().map(String::as_str)
    }

    /// The digest that `plugin` is pinned to.
    pub fn digest(&self, plugin: &str) -> Option<&str> {
        self.plugins.get(plugin).map(|entry| entry.grant.digest.as_str())
    }

    /// The compiled form for `plugin`, whose component is compiled by this release of wasmtime for this target.
    pub fn compile(&self, plugin: &str, wasmtime: &str, target: &str) -> Option<Grant> {
        let grant = &self.plugins.get(plugin)?.grant;
        Some(Grant {
            compiled: compiled_name(plugin, &grant.digest, wasmtime, target),
            wasmtime: wasmtime.to_owned(),
            ..grant.clone()
        })
    }

    /// `text`, the text that this was read from, with other digests and everything else, comments too, as it is.
    pub fn with_digests(&self, text: &str, digests: &BTreeMap<String, String>) -> String {
        let mut places: Vec<(&Range<usize>, &String)> =
            self.plugins.iter().filter_map(|(name, entry)| Some((&entry.digest_at, digests.get(name)?))).collect();
        places.sort_by_key(|(at, _)| std::cmp::Reverse(at.start));
        let mut text = text.to_owned();
        for (at, digest) in places {
            text.replace_range(at.clone(), &format!("{digest:?}"));
        }
        text
    }
}
