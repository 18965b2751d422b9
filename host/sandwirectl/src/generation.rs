//! Generations: the compiled policy and components that calls use, complete and never changed once they are there.
//!
//! `active` is a link that one rename moves: a call opens the directory behind it once, and so sees one generation whole.

use crate::files;
use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use sandwire_policy::{Grant, paths};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// How many generations stay for `rollback`, the active one included.
pub(crate) const KEEP: usize = 3;
/// No plugin type begins with a dot, so no plugin's file has this name.
const ABOUT: &str = ".generation";

/// How a generation came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// Release of sandwirectl.
    pub(crate) sandwire: String,
    /// Release of wasmtime that compiled it.
    pub(crate) wasmtime: String,
    /// Settings of the compiler, as wasmtime sums them up: another sum can't be mapped.
    pub(crate) engine: String,
    /// Digest of the policy file it was made from.
    pub(crate) policy: String,
    /// Digests of its other files.
    pub(crate) files: BTreeMap<String, String>,
}

/// One generation.
#[derive(Debug, Clone)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
}

impl Generation {
    fn numbered(number: u64) -> Self {
        Self { number, path: Path::new(paths::GENERATIONS).join(number.to_string()) }
    }

    /// The one that calls use; `None` before the first `apply`.
    pub(crate) fn active() -> Result<Option<Self>> {
        match std::fs::read_link(paths::ACTIVE) {
            Ok(target) => {
                let number = target.file_name().and_then(|name| name.to_str()?.parse().ok());
                let number = number.with_context(|| {
                    format!(
                        "{} leads to {}, which is no generation; run: sandwirectl apply",
                        paths::ACTIVE,
                        target.display()
                    )
                })?;
                Ok(Some(Self::numbered(number)))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("could not read the link {}", paths::ACTIVE)),
        }
    }

    /// All, oldest first.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let entries = match std::fs::read_dir(paths::GENERATIONS) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("could not read {}", paths::GENERATIONS)),
        };
        let mut numbers: Vec<u64> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers.into_iter().map(Self::numbered).collect())
    }

    /// How it came to be.
    pub(crate) fn about(&self) -> Result<About> {
        let path = self.path.join(ABOUT);
        let text = std::fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} was made by another release", path.display()))
    }

    /// Its grants, by plugin.
    pub(crate) fn grants(&self) -> Result<BTreeMap<String, Grant>> {
        let mut grants = BTreeMap::new();
        for name in self.about()?.files.keys() {
            let Some(plugin) = name.strip_suffix(".json") else { continue };
            let path = self.path.join(name);
            let text = std::fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
            let grant = serde_json::from_slice(&text)
                .with_context(|| format!("{} was made by another release", path.display()))?;
            grants.insert(plugin.to_owned(), grant);
        }
        Ok(grants)
    }

    /// A file of it, if it is still what was written then.
    pub(crate) fn file(&self, about: &About, name: &str) -> Option<Vec<u8>> {
        let path = self.path.join(name);
        if files::untrusted(&path).is_some() {
            return None;
        }
        let content = std::fs::read(path).ok()?;
        (about.files.get(name)? == &crate::component::digest(&content)).then_some(content)
    }

    /// Whether a directory has it, and its plugins have what they need.
    pub(crate) fn exists(&self) -> bool {
        self.path.join(ABOUT).is_file()
    }

    /// Why others than root could change it; `None` when nobody can. Its files are looked at one by one, when they are used
    /// ([`Self::file`]).
    pub(crate) fn untrusted(&self) -> Option<String> {
        files::untrusted(&self.path).or_else(|| files::untrusted(&self.path.join(ABOUT)))
    }

    /// Makes calls use it, from the next one on.
    pub(crate) fn activate(&self) -> Result<()> {
        let target = Path::new("generations").join(self.number.to_string());
        files::link(Path::new(paths::ACTIVE), &target)?;
        Ok(())
    }
}

/// Held while generations change: two `apply` at once would take the same number.
pub(crate) struct Lock {
    _file: Flock<std::fs::File>,
}

/// Makes the directories of the state and takes the lock.
pub(crate) fn lock() -> Result<Lock> {
    files::make_dir(Path::new(paths::GENERATIONS), 0o755)?;
    let path = Path::new(paths::GENERATIONS).join(".lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.with_context(|| format!("could not open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => Ok(Lock { _file: file }),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            bail!("another sandwirectl is changing the generations; wait for it, then try again")
        }
        Err((_, error)) => Err(error).with_context(|| format!("could not lock {}", path.display())),
    }
}

/// Writes a new generation and makes calls use it.
pub(crate) fn write(_lock: &Lock, mut about: About, content: &BTreeMap<String, Vec<u8>>) -> Result<Generation> {
    let newest = Generation::all()?.last().map_or(0, |generation| generation.number);
    let active = Generation::active().ok().flatten().map_or(0, |generation| generation.number);
    let generation = Generation::numbered(newest.max(active) + 1);
    let unfinished = Path::new(paths::GENERATIONS).join(format!(".{}", generation.number));
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished)
            .with_context(|| format!("could not remove what an interrupted run left: {}", unfinished.display()))?;
    }
    about.files = content.iter().map(|(name, bytes)| (name.clone(), crate::component::digest(bytes))).collect();
    let write = || -> Result<()> {
        files::make_dir(&unfinished, 0o755)?;
        for (name, bytes) in content {
            files::write_new(&unfinished.join(name), bytes, 0o644)?;
        }
        let about = serde_json::to_vec_pretty(&about).context("could not write how the generation came to be")?;
        files::write_new(&unfinished.join(ABOUT), &about, 0o644)?;
        files::sync_dir(&unfinished)?;
        files::rename(&unfinished, &generation.path)
    };
    if let Err(error) = write() {
        std::fs::remove_dir_all(&unfinished).ok();
        return Err(error.context("nothing was changed: the generation in force is the one before"));
    }
    generation.activate()?;
    prune(&generation)?;
    Ok(generation)
}

/// Removes all but the newest [`KEEP`] and the active one.
fn prune(active: &Generation) -> Result<()> {
    let all = Generation::all()?;
    for old in all.iter().rev().skip(KEEP).filter(|old| old.number != active.number) {
        std::fs::remove_dir_all(&old.path).with_context(|| format!("could not remove {}", old.path.display()))?;
    }
    Ok(())
}

/// Makes calls use an earlier generation: `to`, or the one before the active one.
pub(crate) fn rollback(_lock: &Lock, to: Option<u64>) -> Result<(Generation, Generation)> {
    let active = Generation::active()?.context("nothing is in force yet; run: sandwirectl install")?;
    let all = Generation::all()?;
    let kept = || all.iter().map(|generation| generation.number.to_string()).collect::<Vec<_>>().join(", ");
    let target = match to {
        Some(number) => all.iter().find(|generation| generation.number == number),
        None => all.iter().rfind(|generation| generation.number < active.number),
    };
    let Some(target) = target else {
        match to {
            Some(number) => bail!("there is no generation {number}; there are: {}", kept()),
            None => bail!("generation {} is the oldest that is kept ({})", active.number, kept()),
        }
    };
    ensure!(target.exists(), "{} is damaged: it has no {ABOUT}", target.path.display());
    if let Some(why) = target.untrusted() {
        bail!("{} could be changed by others than root: {why}; run: sandwirectl apply", target.path.display());
    }
    target.activate()?;
    Ok((active, target.clone()))
}
