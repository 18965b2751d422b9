//! Which lease stores there are on a node, and which of them a plugin may use.

use crate::store::Generation;
use sandwire_cni::NetworkConfig;
use sandwire_policy::{Grant, matches_any, paths};
use sandwire_state::journal::{self, Summary, Undo};
use sandwire_state::leases::{self, Store};
use sandwire_state::{Outcome, Owner, StateError};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The directory of every network that has leases: in the usual place, and where a `dataDir` has put them as far as the
/// index knows of it; and those that the journal knows of, which may be gone though their addresses are in use. Sorted.
///
/// # Errors
/// When one of these can't be read.
pub fn directories() -> Outcome<Vec<PathBuf>> {
    let mut found: BTreeSet<PathBuf> = leases::directories(Path::new(paths::LEASE_INDEX))?.into_iter().collect();
    let failed = |error: std::io::Error| StateError::Other(format!("could not list {}: {error}", paths::LEASES));
    match std::fs::read_dir(paths::LEASES) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry.map_err(failed)?;
                if entry.file_type().map_err(failed)?.is_dir() {
                    found.insert(entry.path());
                }
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    found.retain(|directory| directory.is_dir());
    for entry in known(None)?.into_iter().flat_map(|summary| summary.pending) {
        if let Undo::ReleaseLease { directory, .. } = entry.undo {
            found.insert(directory);
        }
    }
    Ok(found.into_iter().collect())
}

/// What the journal knows, of one network or of all: also what calls of native plugins to ours have there.
///
/// # Errors
/// When it can't be read.
pub fn known(network: Option<&str>) -> Outcome<Vec<Summary>> {
    let mut known = journal::list(Path::new(paths::JOURNAL), network)?;
    known.extend(journal::list(&journal_within(), network)?);
    Ok(known)
}

/// The journal of calls that a native plugin makes within a call of ours.
pub(crate) fn journal_within() -> PathBuf {
    Path::new(paths::JOURNAL).join("within")
}

/// The store in one of them.
///
/// # Errors
/// `Invalid` when the path is not absolute.
pub fn open(directory: &Path) -> Outcome<Store> {
    Store::open(directory, Path::new(paths::LEASE_INDEX))
}

/// The name of the network whose directory it is.
pub fn network(directory: &Path) -> String {
    directory.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether policy lets a plugin keep leases below `root`.
pub(crate) fn data_dir_allowed(grant: &Grant, root: &str) -> bool {
    let allowed = root == paths::LEASES || matches_any(&grant.data_dirs, root);
    allowed && root.starts_with('/') && !root.split('/').any(|part| part == "..")
}

/// Below which directory the leases of a network are, as its configuration says; whether policy lets its address manager keep them
/// there. None without an address manager.
fn root(generation: &Generation, config: &NetworkConfig) -> Option<(PathBuf, bool)> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Ipam {
        data_dir: String,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Network {
        ipam: Ipam,
    }
    let ipam = config.ipam_type.as_deref()?;
    let named = config.decode::<Network>().unwrap_or_default().ipam.data_dir;
    let root = if named.is_empty() { paths::LEASES } else { named.as_str() };
    let is_allowed = root == paths::LEASES
        || generation.grant(ipam).is_ok_and(|grant| grant.is_some_and(|grant| data_dir_allowed(&grant, root)));
    Some((PathBuf::from(root), is_allowed))
}

/// Its own below that, and the same.
fn configured(generation: &Generation, config: &NetworkConfig) -> Option<(PathBuf, bool)> {
    root(generation, config).map(|(root, is_allowed)| (root.join(&config.name), is_allowed))
}

/// Below which directories there may be leases of a call, as far as policy allows it. `create`: makes the one that the
/// configuration says, as host-local does.
pub(crate) fn roots(generation: &Generation, config: &NetworkConfig, create: bool) -> Vec<PathBuf> {
    let usual = PathBuf::from(paths::LEASES);
    let (root, is_allowed) = root(generation, config).unwrap_or_else(|| (usual.clone(), true));
    if !is_allowed {
        return vec![usual];
    }
    if create && !root.exists() {
        // Who needs it says why it can't be made.
        let _ = DirBuilder::new().recursive(true).mode(0o755).create(&root);
    }
    if root == usual { vec![usual] } else { vec![usual, root] }
}

/// Gives back the leases of an attachment, in the plugin's stead.
///
/// # Errors
/// What is still there: leases that can't be given back, or may not.
pub(crate) fn release(generation: &Generation, config: &NetworkConfig, owner: &Owner) -> Result<(), String> {
    let Some((directory, is_allowed)) = configured(generation, config) else { return Ok(()) };
    if !directory.is_dir() {
        return Ok(());
    }
    let failed = |error: StateError| format!("leases in {}: {error}", directory.display());
    let mut store = open(&directory).map_err(failed)?;
    if is_allowed {
        return store.release(owner).map(|_| ()).map_err(failed);
    }
    match store.held(owner).map_err(failed)?.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "leases in {}, which policy does not list under data_dirs of plugin {:?}",
            directory.display(),
            config.ipam_type.as_deref().unwrap_or_default()
        )),
    }
}

/// Gives back the leases of a network that are of an earlier boot.
pub(crate) fn reclaim_earlier_boots(generation: &Generation, config: &NetworkConfig) -> Result<(), String> {
    let Some((directory, true)) = configured(generation, config) else {
        // Not ours: no plugin here has leases there.
        return Ok(());
    };
    let reclaimed = open(&directory).and_then(|mut store| store.reclaim_earlier_boots());
    reclaimed.map(|_| ()).map_err(|error| format!("leases in {}: {error}", directory.display()))
}
