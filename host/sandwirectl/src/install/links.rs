//! The links by which a runtime finds plugins: `<bin-dir>/<type>` leads to the one binary.

use super::BINARY;
use crate::files;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// What a native program that made room is called; its old name with this behind it.
pub(crate) const KEPT: &str = ".native";

/// Links to make, seen to be possible.
pub(super) struct Links {
    directory: PathBuf,
    plugins: Vec<String>,
    foreign: Vec<String>,
}

/// Whether `path` leads to our binary beside it. Whether the binary is there doesn't matter.
pub(crate) fn is_ours(path: &Path) -> bool {
    std::fs::read_link(path).is_ok_and(|target| target == Path::new(BINARY))
}

/// Whether something that is not ours has the name of a plugin.
pub(super) fn is_taken(directory: &Path, plugin: &str) -> bool {
    let path = directory.join(plugin);
    path.symlink_metadata().is_ok() && !is_ours(&path)
}

/// Finds out what is in the way.
///
/// # Errors
/// When something is that isn't ours, and `replace` was not asked for: before anything is changed.
pub(super) fn plan<'a>(directory: &Path, plugins: impl Iterator<Item = &'a String>, replace: bool) -> Result<Links> {
    let plugins: Vec<String> = plugins.cloned().collect();
    let foreign: Vec<String> = plugins.iter().filter(|plugin| is_taken(directory, plugin)).cloned().collect();
    if !foreign.is_empty() && !replace {
        bail!(
            "{} has other programs named {}; nothing was changed\nto let Sandwire take their place, add --replace: each is kept as NAME{KEPT} and uninstall puts it back",
            directory.display(),
            foreign.join(", ")
        );
    }
    let kept = |plugin: &String| directory.join(format!("{plugin}{KEPT}"));
    let both: Vec<&String> = foreign.iter().filter(|plugin| kept(plugin).symlink_metadata().is_ok()).collect();
    if !both.is_empty() {
        let list = |files: Vec<PathBuf>| files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>();
        bail!(
            "{} and {} both exist: Sandwire would keep the one as the other; nothing was changed\nwhere a package has put its programs back, those it had kept before are the older ones: rm {}",
            list(both.iter().map(|plugin| directory.join(plugin)).collect()).join(", "),
            list(both.iter().map(|plugin| kept(plugin)).collect()).join(", "),
            list(both.iter().map(|plugin| kept(plugin)).collect()).join(" ")
        );
    }
    Ok(Links { directory: directory.to_owned(), plugins, foreign })
}

impl Links {
    /// Makes them. A native program is kept under its other name first, so that at no point there is none.
    pub(super) fn make(&self, changes: &mut Vec<String>) -> Result<()> {
        for plugin in &self.foreign {
            let (path, kept) = (self.directory.join(plugin), self.directory.join(format!("{plugin}{KEPT}")));
            if std::fs::hard_link(&path, &kept).is_err() {
                // A link to a directory, or a file system without hard links.
                files::rename(&path, &kept)?;
            }
            changes.push(format!("kept {} as {}", path.display(), kept.display()));
        }
        for plugin in &self.plugins {
            let path = self.directory.join(plugin);
            if files::link(&path, Path::new(BINARY))? {
                changes.push(format!("linked {} to {BINARY}", path.display()));
            }
        }
        Ok(())
    }
}
