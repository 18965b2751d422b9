//! Taking it all away again, except what is the operator's and what living pods need.

use super::links::{KEPT, is_ours};
use super::{BINARY, installed_in, shipped};
use crate::apply::component_path;
use crate::component;
use crate::files;
use crate::firewall;
use crate::output::Output;
use anyhow::{Context, Result, bail};
use sandwire_policy::paths;
use sandwire_state::journal;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What to remove.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only take it out of this directory of CNI plugins; what others need too stays [default: all that Sandwire was installed to]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Also remove the policy, the operator's own components and notes of plugins (leases stay: native host-local reads them)
    #[arg(long)]
    purge: bool,
    /// Also remove what is Sandwire's in the node's firewall, as `firewall remove --yes` does
    #[arg(long)]
    firewall: bool,
    /// Even if attachments of pods are left: nothing will undo them
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Removed {
    changes: Vec<String>,
}

/// Removes what `install` made, and puts back the native plugins that made room.
pub(crate) fn uninstall(output: &Output, options: &Options) -> Result<bool> {
    let attachments = journal::list(Path::new(paths::JOURNAL), None).map_err(anyhow::Error::from)?.len();
    if attachments > 0 && !options.force {
        bail!(
            "{attachments} attachments of pods would be left with nothing to undo them (sandwirectl attachments lists them)\nremove those pods first, or say --force"
        );
    }
    let mut changes = Vec::new();
    if options.firewall {
        firewall::remove(&mut changes)?;
    }
    let shipped = shipped::Shipped::read()?;
    let directories = installed_in(options.bin_dir.as_deref())?;
    for directory in &directories {
        unlink(directory, &mut changes)?;
    }
    // What directories share stays as long as one has the program.
    let others: Vec<String> = shipped
        .bin_dirs()
        .filter(|other| !directories.iter().any(|directory| directory == other))
        .map(|other| other.display().to_string())
        .collect();
    if !others.is_empty() {
        changes.push(format!("kept all else, policy and notes too: {} needs it", others.join(", ")));
        shipped.without(&directories)?;
        return told(output, changes);
    }
    for plugin in shipped.plugins() {
        let path = component_path(plugin);
        let digest = component::read(&path).map(|bytes| component::digest(&bytes));
        if digest.is_ok_and(|digest| shipped.digest(plugin) == Some(digest.as_str())) {
            remove(&path, &mut changes)?;
        }
    }
    remove(Path::new(paths::SHIPPED), &mut changes)?;
    for path in [paths::ACTIVE, paths::GENERATIONS, paths::LEASE_INDEX, paths::JOURNAL] {
        remove(Path::new(path), &mut changes)?;
    }
    if options.purge {
        for path in [paths::POLICY, paths::NOTES, paths::PLUGINS] {
            remove(Path::new(path), &mut changes)?;
        }
    }
    // Only when nothing of the operator's is left in them.
    for path in [paths::NOTES, paths::PLUGINS, "/usr/lib/sandwire", "/etc/sandwire", paths::STATE, "/run/sandwire"] {
        if std::fs::remove_dir(path).is_ok() {
            changes.push(format!("removed {path}"));
        }
    }
    told(output, changes)
}

fn told(output: &Output, changes: Vec<String>) -> Result<bool> {
    if output.json {
        output.json(&Removed { changes })?;
    } else if changes.is_empty() {
        output.line("nothing was installed");
    } else {
        changes.iter().for_each(|change| output.line(change));
    }
    Ok(true)
}

/// Removes the program and its links from a directory of plugins; a native plugin that made room is put back.
fn unlink(directory: &Path, changes: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.with_context(|| format!("could not read {}", directory.display()))?.path();
        if !is_ours(&path) {
            continue;
        }
        let mut kept = path.clone().into_os_string();
        kept.push(KEPT);
        if Path::new(&kept).symlink_metadata().is_ok() {
            // One rename puts the native program back in the link's place.
            files::rename(Path::new(&kept), &path)?;
            changes.push(format!("put back {}", path.display()));
        } else {
            remove(&path, changes)?;
        }
    }
    remove(&directory.join(BINARY), changes)
}

fn remove(path: &Path, changes: &mut Vec<String>) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => Err(error),
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
    };
    removed.with_context(|| format!("could not remove {}", path.display()))?;
    changes.push(format!("removed {}", path.display()));
    Ok(())
}
