//! One installation, made once by `sandwirectl install` in a node of its own, then put on every node that wants it.

use crate::{Node, Place, run};
use anyhow::{Context, Result, anyhow, bail};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// Where `sandwirectl install` puts what lasts; `/run` is empty after it, as after a boot.
const FOLDERS: [&str; 4] = ["/opt/cni/bin", "/usr/lib/sandwire", "/etc/sandwire", "/var/lib/sandwire"];

/// Compiling all components takes seconds, and minutes on an emulated processor (`tests/vm`).
const PATIENCE: Duration = Duration::from_secs(400);

/// The checkout that this crate is part of.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("/"))
}

enum Entry {
    Folder,
    Link(PathBuf),
    /// With when it was changed: a memory image knows its generation's files by that.
    File(Vec<u8>, std::time::SystemTime),
}

/// What an installation consists of: held in memory, so that nothing of it stays behind.
pub struct Installation {
    entries: Vec<(PathBuf, u32, Entry)>,
}

impl Installation {
    /// The installation of this build. Made at the first call.
    ///
    /// # Errors
    /// When something isn't built, or `sandwirectl install` fails: with its output.
    pub fn get() -> Result<&'static Self> {
        static ONE: OnceLock<Result<Installation, String>> = OnceLock::new();
        ONE.get_or_init(|| Self::make().map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|error| anyhow!("{error}"))
    }

    /// `sandwirectl` as built.
    pub fn sandwirectl() -> PathBuf {
        repository().join("target/tool/sandwirectl")
    }

    fn make() -> Result<Self> {
        let node = Node::new()?;
        let started = std::time::Instant::now();
        let child = node.spawn(&Place::Host, Self::command()?)?;
        let done = run::finish(child, b"", started, PATIENCE)?;
        done.success().context("sandwirectl install")?;
        let entries = node.within(|| {
            let mut entries = Vec::new();
            for folder in FOLDERS {
                collect(Path::new(folder), &mut entries)?;
            }
            anyhow::Ok(entries)
        })??;
        Ok(Self { entries })
    }

    /// `sandwirectl install` of this build, to be run on a node.
    ///
    /// # Errors
    /// When something isn't built.
    pub fn command() -> Result<Command> {
        let top = repository();
        let binary = top.join("target/x86_64-unknown-linux-musl/release/sandwire");
        let (tool, plugins) = (Self::sandwirectl(), top.join("out/plugins"));
        for needed in [&binary, &tool, &plugins] {
            if !needed.exists() {
                bail!("{} is missing; run: make build", needed.display());
            }
        }
        let mut command = Command::new(tool);
        command.arg("install").arg("--binary").arg(binary).arg("--components").arg(plugins);
        command.current_dir("/").env_clear().env("PATH", run::PATH).env("HOME", "/root");
        Ok(command)
    }

    /// Put it on `node`, modes and links as they were.
    ///
    /// # Errors
    /// When the node has no room.
    pub fn put_on(&'static self, node: &Node) -> Result<()> {
        node.within(move || {
            for (path, mode, entry) in &self.entries {
                match entry {
                    Entry::Folder => std::fs::create_dir_all(path)?,
                    Entry::Link(to) => {
                        symlink(to, path)?;
                        continue;
                    }
                    Entry::File(content, changed) => {
                        std::fs::write(path, content)?;
                        std::fs::File::options().write(true).open(path)?.set_modified(*changed)?;
                    }
                }
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode))?;
            }
            anyhow::Ok(())
        })?
        .context("putting the installation on a node")
    }
}

fn collect(path: &Path, entries: &mut Vec<(PathBuf, u32, Entry)>) -> Result<()> {
    let meta = std::fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
    let mode = meta.permissions().mode() & 0o7777;
    if meta.is_symlink() {
        entries.push((path.to_owned(), mode, Entry::Link(std::fs::read_link(path)?)));
    } else if meta.is_dir() {
        entries.push((path.to_owned(), mode, Entry::Folder));
        let mut inside = std::fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()?;
        inside.sort_by_key(std::fs::DirEntry::file_name);
        for entry in inside {
            collect(&entry.path(), entries)?;
        }
    } else {
        entries.push((path.to_owned(), mode, Entry::File(std::fs::read(path)?, meta.modified()?)));
    }
    Ok(())
}
