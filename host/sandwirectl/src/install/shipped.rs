//! What an earlier `install` put where: components, which are the operator's own when they differ, and programs.

use super::{BINARY, Shipment};
use crate::{component, files};
use anyhow::{Context, Result};
use sandwire_policy::paths;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Digests by plugin, and by the path of a program.
#[derive(Debug, Default)]
pub(super) struct Shipped {
    components: BTreeMap<String, String>,
    programs: BTreeMap<PathBuf, String>,
}

impl Shipped {
    /// Reads the list; empty when there is none.
    pub(super) fn read() -> Result<Self> {
        let text = match std::fs::read_to_string(paths::SHIPPED) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("could not read {}", paths::SHIPPED)),
        };
        let mut shipped = Self::default();
        for (hex, file) in text.lines().filter_map(|line| line.split_once("  ")) {
            let digest = format!("sha256:{hex}");
            if let Some(plugin) = file.strip_suffix(".wasm") {
                shipped.components.insert(plugin.to_owned(), digest);
            } else if file.starts_with('/') {
                shipped.programs.insert(PathBuf::from(file), digest);
            }
        }
        Ok(shipped)
    }

    /// Whether nothing is known to have been shipped.
    pub(super) fn is_empty(&self) -> bool {
        self.components.is_empty()
    }

    /// What was shipped for `plugin`.
    pub(super) fn digest(&self, plugin: &str) -> Option<&str> {
        self.components.get(plugin).map(String::as_str)
    }

    /// The plugins on the list.
    pub(super) fn plugins(&self) -> impl Iterator<Item = &str> {
        self.components.keys().map(String::as_str)
    }

    /// The directories that have our program, as far as they still exist.
    pub(super) fn bin_dirs(&self) -> impl Iterator<Item = &Path> {
        self.programs.keys().filter_map(|program| program.parent()).filter(|directory| directory.is_dir())
    }

    /// A program of ours that is as it was installed.
    pub(super) fn program(&self) -> Option<Vec<u8>> {
        self.programs
            .iter()
            .find_map(|(path, digest)| std::fs::read(path).ok().filter(|bytes| &component::digest(bytes) == digest))
    }

    /// Whether a program is another than the one that was installed there.
    pub(super) fn is_changed(&self, program: &Path) -> Option<bool> {
        let digest = self.programs.get(program)?;
        Some(std::fs::read(program).is_ok_and(|bytes| &component::digest(&bytes) != digest))
    }

    /// Writes the list anew: these components beside those that were there, and this program in these directories. For
    /// `sha256sum -c` too.
    pub(super) fn write(&self, components: &BTreeMap<String, Shipment>, program: &[u8], to: &[PathBuf]) -> Result<()> {
        let digest = component::digest(program);
        let mut list = Self {
            components: self.components.clone(),
            programs: to.iter().map(|directory| (directory.join(BINARY), digest.clone())).collect(),
        };
        list.components.extend(components.iter().map(|(plugin, shipment)| (plugin.clone(), shipment.digest.clone())));
        list.save()
    }

    /// Writes the list without the programs of these directories.
    pub(super) fn without(mut self, directories: &[PathBuf]) -> Result<()> {
        self.programs.retain(|program, _| !directories.iter().any(|directory| *program == directory.join(BINARY)));
        self.save()
    }

    fn save(&self) -> Result<()> {
        let components = self.components.iter().map(|(plugin, digest)| (format!("{plugin}.wasm"), digest));
        let programs = self.programs.iter().map(|(path, digest)| (path.display().to_string(), digest));
        let text: String = components
            .chain(programs)
            .map(|(file, digest)| format!("{}  {file}\n", digest.trim_start_matches("sha256:")))
            .collect();
        files::replace(Path::new(paths::SHIPPED), text.as_bytes(), 0o644).map(|_| ())
    }
}
