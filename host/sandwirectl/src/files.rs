//! Writing to a node so that a reader sees the old or the new, and a power loss leaves one of them.

use anyhow::{Context, Result, bail, ensure};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// A name beside `path` that nothing else uses: readers of the directory skip names that begin with a dot.
fn beside(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().with_context(|| format!("{} has no file name", path.display()))?;
    Ok(path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id())))
}

/// Makes a directory and its parents, root's, with `mode` for those that are new. Whether anything was made.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<bool> {
    if path.is_dir() {
        return Ok(false);
    }
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.with_context(|| format!("could not make directory {}", path.display()))?;
    Ok(true)
}

/// Writes a new file that must not be there yet, to the disk.
pub(crate) fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().with_context(|| format!("could not write {}", path.display()))
}

/// Puts `content` in the place of `path` at once. Whether anything had to be done.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<bool> {
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        ensure!(!meta.is_dir(), "{} is a directory; a file belongs there", path.display());
        let same = meta.is_file() && meta.uid() == 0 && meta.mode() & 0o7777 == mode;
        if same && std::fs::read(path).is_ok_and(|present| present == content) {
            return Ok(false);
        }
    }
    let new = beside(path)?;
    std::fs::remove_file(&new).ok();
    let done = write_new(&new, content, mode).and_then(|()| rename(&new, path));
    if done.is_err() {
        std::fs::remove_file(&new).ok();
    }
    done.map(|()| true)
}

/// Makes `path` a symbolic link to `target` at once. Whether anything had to be done.
pub(crate) fn link(path: &Path, target: &Path) -> Result<bool> {
    if std::fs::read_link(path).is_ok_and(|present| present == target) {
        return Ok(false);
    }
    let new = beside(path)?;
    std::fs::remove_file(&new).ok();
    symlink(target, &new).with_context(|| format!("could not make the link {}", new.display()))?;
    rename(&new, path)?;
    Ok(true)
}

/// Renames, and makes the directory remember it.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).with_context(|| format!("could not rename {} to {}", from.display(), to.display()))?;
    to.parent().map_or(Ok(()), sync_dir)
}

/// Writes a directory's entries to the disk.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .with_context(|| format!("could not write directory {} to the disk", path.display()))
}

/// Why someone other than root could change what is at `path`, following no link; `None` when nobody can.
pub(crate) fn untrusted(path: &Path) -> Option<String> {
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) => return Some(error.to_string()),
    };
    if meta.uid() != 0 {
        return Some(format!("it belongs to user {}, not to root", meta.uid()));
    }
    if !meta.is_symlink() && meta.mode() & 0o022 != 0 {
        return Some(format!("its mode {:04o} lets others write it", meta.mode() & 0o7777));
    }
    None
}

/// Reads a text file that only root may be able to change.
pub(crate) fn read_trusted(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
    if let Some(why) = untrusted(path) {
        bail!(
            "{} can't be trusted: {why}\nwho can change it can give any plugin any power; look through it, then run: chown root: {0} && chmod go-w {0}",
            path.display()
        );
    }
    Ok(text)
}
