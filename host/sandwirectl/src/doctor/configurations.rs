//! Whether the networks that are configured on this node have what they name.

use super::Check;
use crate::call::network::{Network, member};
use crate::generation::Generation;
use crate::install::is_ours;
use sandwire_policy::{Grant, header, matches_any};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where runtimes have their network configurations.
pub(super) const DIRECTORY: &str = "/etc/cni/net.d";
/// Where Debian's runtimes look for plugins besides.
const DISTRIBUTION: &str = "/usr/lib/cni";

/// One check for each configuration of the node.
pub(super) fn checks(bin_dirs: &[PathBuf]) -> Vec<Check> {
    let grants = Generation::active().ok().flatten().and_then(|active| active.grants().ok()).unwrap_or_default();
    let path: Vec<PathBuf> = bin_dirs.iter().cloned().chain([PathBuf::from(DISTRIBUTION)]).collect();
    let node = Node { grants, path };
    let checks = read().into_iter().map(|(file, network)| node.check(&file, network));
    // Most runtimes take the first file and no other.
    checks.enumerate().map(|(place, check)| if place == 0 { check } else { check.at_most_a_note() }).collect()
}

/// The plugin types that configurations of this node name, address managers aside.
pub(super) fn types() -> BTreeSet<String> {
    let networks = read().into_iter().filter_map(|(_, network)| network.ok());
    networks.flat_map(|network| network.plugins).filter_map(|plugin| word(&plugin, "type").map(str::to_owned)).collect()
}

/// All files that libcni takes for configurations (ConfFiles), in the order in which runtimes look at them.
fn read() -> Vec<(PathBuf, anyhow::Result<Network>)> {
    let entries = std::fs::read_dir(DIRECTORY).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_one = |path: &PathBuf| {
        path.is_file() && path.extension().is_some_and(|end| end == "conf" || end == "conflist" || end == "json")
    };
    let files: BTreeSet<PathBuf> = entries.filter(is_one).collect();
    files.into_iter().map(|file| (file.clone(), Network::read(&file))).collect()
}

fn word<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    member(value, key).and_then(Value::as_str).filter(|word| !word.is_empty())
}

fn is_without_plugins(file: &Path) -> bool {
    let text = std::fs::read(file).unwrap_or_default();
    serde_json::from_slice::<Value>(&text).is_ok_and(|value| {
        value.get("loadOnlyInlinedPlugins") == Some(&Value::Bool(false)) && value.get("plugins").is_none()
    })
}

struct Node {
    grants: BTreeMap<String, Grant>,
    path: Vec<PathBuf>,
}

impl Node {
    fn check(&self, file: &Path, network: anyhow::Result<Network>) -> Check {
        let name = file.display().to_string();
        let network = match network {
            Ok(network) => network,
            // A list may say that its plugins are files of a directory (libcni 1.3, loadOnlyInlinedPlugins).
            Err(_) if is_without_plugins(file) => {
                return Check::note(name, "its plugins are in files of their own", "none of them was looked at");
            }
            Err(error) => {
                return Check::fail(name, format!("{error:#}"), "mend it: runtimes pass over it, or stop at it");
            }
        };
        let mut types = Vec::new();
        for plugin in &network.plugins {
            let kind = word(plugin, "type").unwrap_or_default();
            let ipam = member(plugin, "ipam").and_then(|ipam| word(ipam, "type"));
            let wrong = self.program(kind).or_else(|| ipam.and_then(|ipam| self.address_manager(kind, ipam)));
            if let Some((found, remedy)) = wrong {
                return Check::fail(name, found, remedy);
            }
            types.extend([Some(kind), ipam].into_iter().flatten().map(str::to_owned));
        }
        Check::ok(name, format!("network {:?}: {}, all there", network.name, types.join(", ")))
    }

    fn find(&self, kind: &str) -> Option<PathBuf> {
        self.path.iter().map(|directory| directory.join(kind)).find(|path| !kind.contains('/') && path.is_file())
    }

    /// What is wrong with the program of a type, and what to do.
    fn program(&self, kind: &str) -> Option<(String, String)> {
        let Some(path) = self.find(kind) else {
            let directories: Vec<String> = self.path.iter().map(|path| path.display().to_string()).collect();
            return Some((
                format!("there is no plugin {kind:?} in {}", directories.join(", ")),
                format!("put it there, or correct the configuration; a component: sandwirectl inspect {kind}.wasm"),
            ));
        };
        (is_ours(&path) && !self.grants.contains_key(kind)).then(|| {
            let remedy = format!("add {} (sandwirectl inspect prints it), then run: sandwirectl apply", header(kind));
            (format!("plugin {kind:?} has no policy"), remedy)
        })
    }

    /// What is wrong with the address manager of a plugin of ours, and what to do. A native plugin runs its own.
    fn address_manager(&self, kind: &str, ipam: &str) -> Option<(String, String)> {
        let ours = |kind: &str| self.find(kind).is_some_and(|path| is_ours(&path));
        let grant = self.grants.get(kind).filter(|_| ours(kind))?;
        if !grant.may_delegate(ipam, true) {
            let found = format!("plugin {kind:?} may not run the address manager {ipam:?}");
            return Some((found, grant.to_allow(grant.with_delegate(ipam))));
        }
        if let Some(wrong) = self.program(ipam) {
            return Some(wrong);
        }
        (!ours(ipam) && !matches_any(&grant.native_delegates, ipam)).then(|| {
            let found = format!("plugin {kind:?} may not execute the native address manager {ipam:?}");
            (found, grant.to_allow(grant.with_native_delegate(ipam)))
        })
    }
}
