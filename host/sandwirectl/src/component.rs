//! A component as a file: its digest, and what it takes and gives, read without compiling or running any of it.

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::OFlag;
use sandwire_runtime::imports::{CAPABILITIES, FREE, capability};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use wasmparser::component_types::ComponentEntityType;
use wasmparser::{Encoding, Parser, Payload, Validator};

/// A component larger than this is a mistake, and reading it would be one too. componentize-py's are 40 MB.
const MAX_BYTES: u64 = 256 << 20;

/// What one may know of a component before it runs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Surface {
    /// Imports in the component's own order: full name, functions that it can call.
    pub(crate) imports: Vec<(String, Vec<String>)>,
    /// Exports in its own order.
    pub(crate) exports: Vec<(String, Vec<String>)>,
    /// What its maker called this release of it (custom section "version").
    pub(crate) version: Option<String>,
    /// Whether code of it runs when it is started, before a function of it is called.
    pub(crate) has_start: bool,
}

impl Surface {
    /// The capabilities that it wants, each with the functions it can call: what a policy has to grant.
    pub(crate) fn wanted(&self) -> BTreeMap<String, Vec<String>> {
        let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (import, functions) in &self.imports {
            let name = capability(import).unwrap_or(import);
            if !FREE.contains(&name) {
                wanted.entry(name.to_owned()).or_default().extend(functions.iter().cloned());
            }
        }
        wanted
    }

    /// The release of the contract it was built for.
    pub(crate) fn contract(&self) -> Option<&str> {
        self.exports.iter().find_map(|(name, _)| name.strip_prefix("sandwire:cni/attach@"))
    }

    /// The optional verbs it has, in the contract's words, sorted: their order in the component is the compiler's.
    pub(crate) fn verbs(&self) -> Vec<&str> {
        let names = self.exports.iter().filter_map(|(name, _)| name.strip_prefix("sandwire:cni/")?.split('@').next());
        let mut verbs: Vec<&str> = names.filter(|name| *name != "types").collect();
        verbs.sort_unstable();
        verbs
    }
}

/// What a capability lets a plugin do, in one line; `None` for what this release does not have.
pub(crate) fn meaning(capability: &str) -> Option<&'static str> {
    CAPABILITIES.iter().find(|(name, _)| *name == capability).map(|(_, meaning)| *meaning)
}

/// `sha256:` and 64 hex digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Reads a whole component. A link is not followed: what stands under a plugin's name in its directory is the plugin.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .with_context(|| format!("could not open {}", path.display()))?;
    let meta = file.metadata().with_context(|| format!("could not look at {}", path.display()))?;
    ensure!(meta.is_file(), "{} is no regular file", path.display());
    ensure!(meta.len() <= MAX_BYTES, "{} has {} bytes, more than {MAX_BYTES}", path.display(), meta.len());
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).with_context(|| format!("could not read {}", path.display()))?;
    Ok(bytes)
}

/// What a component takes and gives.
///
/// # Errors
/// When it is no valid component.
pub(crate) fn surface(bytes: &[u8]) -> Result<Surface> {
    ensure!(bytes.starts_with(b"\0asm"), "no WebAssembly: it does not begin with \"\\0asm\"");
    let types = Validator::new().validate_all(bytes).context("no valid component")?;
    let (mut imports, mut exports, mut version) = (Vec::new(), Vec::new(), None);
    let (mut depth, mut has_start) = (0_usize, false);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.context("no valid component")? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                bail!("a core module, not a component; sandwire-componentize makes a component of it")
            }
            Payload::StartSection { .. } | Payload::ComponentStartSection { .. } => has_start = true,
            // Components nest, and so do their sections: only the outermost are its own.
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let name = import.context("no valid component")?.name.name;
                    let item = types.as_ref().component_item_for_import(name);
                    imports.push((name.to_owned(), functions(&types, item.map(|item| item.ty))));
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let name = export.context("no valid component")?.name.name;
                    let item = types.as_ref().component_item_for_export(name);
                    exports.push((name.to_owned(), functions(&types, item.map(|item| item.ty))));
                }
            }
            Payload::CustomSection(section) if depth == 0 && section.name() == "version" => {
                version = std::str::from_utf8(section.data()).ok().map(str::to_owned);
            }
            _ => {}
        }
    }
    Ok(Surface { imports, exports, version, has_start })
}

fn functions(types: &wasmparser::types::Types, entity: Option<ComponentEntityType>) -> Vec<String> {
    let Some(ComponentEntityType::Instance(id)) = entity else { return Vec::new() };
    let Some(instance) = types.as_ref().get(id) else { return Vec::new() };
    instance
        .exports
        .iter()
        .filter(|(_, item)| matches!(item.ty, ComponentEntityType::Func(_)))
        // "[method]ruleset.commit": what the brackets say the dot says too.
        .map(|(name, _)| name.rsplit(']').next().unwrap_or(name).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_when_it_is_started_is_seen_wherever_it_is() {
        let module = |start: &str| format!("(core module $m (func $f) (export \"f\" (func $f)) {start})");
        let component =
            |inside: String| wat::parse_str(format!("(component {inside} (core instance (instantiate $m)))")).unwrap();
        assert!(!surface(&component(module(""))).unwrap().has_start);
        assert!(surface(&component(module("(start $f)"))).unwrap().has_start);
        let nested = format!("{} (component {} (core instance (instantiate $m)))", module(""), module("(start $f)"));
        assert!(surface(&component(nested)).unwrap().has_start);
    }
}
