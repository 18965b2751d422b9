//! Small durable notes of a plugin in a network, for one attachment or for all.
//!
//! Below the root: `NETWORK/lock`, `NETWORK/plugin/NAME.json` with the network's notes of a plugin, and
//! `NETWORK/attachment/HASH.json` with every plugin's notes for that attachment, so that forgetting it is one unlink.

use crate::{Outcome, Owner, StateError, lock, names};
use nix::fcntl::{Flock, FlockArg, OFlag};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A note is small: keys and values come from guests, and each change writes all of a file.
const MOST_KEY: usize = 256;
const MOST_BYTES: usize = 256 << 10;

/// A file of notes.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Page {
    /// Whose, since the file's name is a hash; none for a network's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<Owner>,
    /// By plugin and key.
    notes: BTreeMap<String, BTreeMap<String, String>>,
}

/// The notes of one plugin, in one scope.
#[derive(Debug)]
pub struct Notes {
    network: PathBuf,
    path: PathBuf,
    plugin: String,
    owner: Option<Owner>,
}

impl Notes {
    /// The notes of `plugin` in `network`: those of `attachment`, or the network's when there is none. Makes nothing
    /// before the first `set`.
    pub fn open(root: &Path, plugin: &str, network: &str, attachment: Option<&Owner>) -> Self {
        let network = root.join(names::file_name(network));
        let path = match attachment {
            Some(owner) => attachment_path(&network, owner),
            None => network.join("plugin").join(format!("{}.json", names::file_name(plugin))),
        };
        Self { network, path, plugin: plugin.to_owned(), owner: attachment.cloned() }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Outcome<Option<String>> {
        // No lock: a file is replaced as a whole.
        Ok(self.read()?.notes.get(&self.plugin).and_then(|notes| notes.get(key)).cloned())
    }

    /// Every key, sorted.
    pub fn keys(&self) -> Outcome<Vec<String>> {
        Ok(self.read()?.notes.get(&self.plugin).map(|notes| notes.keys().cloned().collect()).unwrap_or_default())
    }

    /// Sets `key`.
    ///
    /// # Errors
    /// `Invalid` for a key of more than 256 bytes, `Exhausted` when the notes of this scope would pass 256 KiB.
    pub fn set(&self, key: &str, value: &str) -> Outcome<()> {
        self.change(|notes| {
            notes.insert(key.to_owned(), value.to_owned());
            Ok(())
        })
    }

    /// Sets `key` if its value is still `expected` (none: if it is not there), else `Conflict`.
    pub fn swap(&self, key: &str, expected: Option<&str>, value: &str) -> Outcome<()> {
        self.change(|notes| {
            let found = notes.get(key).map(String::as_str);
            if found != expected {
                let text =
                    format!("note {key:?} of plugin {:?} is {found:?} and not {expected:?} any more", self.plugin);
                return Err(StateError::Conflict(text));
            }
            notes.insert(key.to_owned(), value.to_owned());
            Ok(())
        })
    }

    /// Removes `key`; whether it was there.
    pub fn remove(&self, key: &str) -> Outcome<bool> {
        if self.get(key)?.is_none() {
            return Ok(false);
        }
        self.change(|notes| Ok(notes.remove(key).is_some()))
    }

    fn read(&self) -> Outcome<Page> {
        match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                StateError::Other(format!(
                    "{} can't be read: {error}; remove it to lose these notes",
                    self.path.display()
                ))
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Page::default()),
            Err(error) => Err(StateError::io("read the notes", &self.path, error)),
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<String, String>) -> Outcome<T>) -> Outcome<T> {
        let _lock = self.lock()?;
        let mut page = self.read()?;
        let notes = page.notes.entry(self.plugin.clone()).or_default();
        let result = change(notes)?;
        if let Some(long) = notes.keys().find(|key| key.len() > MOST_KEY) {
            return Err(StateError::Invalid(format!("a note's key may have {MOST_KEY} bytes, not {}", long.len())));
        }
        page.notes.retain(|_, notes| !notes.is_empty());
        page.owner.clone_from(&self.owner);
        self.write(&page)?;
        Ok(result)
    }

    fn write(&self, page: &Page) -> Outcome<()> {
        let failed = |error| StateError::io("write the notes", &self.path, error);
        if page.notes.is_empty() {
            return remove(&self.path);
        }
        let bytes = serde_json::to_vec(page).map_err(|error| failed(error.into()))?;
        if bytes.len() > MOST_BYTES {
            let text = format!(
                "the notes of plugin {:?} in {} would have {} bytes, and may have {MOST_BYTES}",
                self.plugin,
                self.path.display(),
                bytes.len()
            );
            return Err(StateError::Exhausted(text));
        }
        if let Some(parent) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
        }
        // Written beside and renamed, so that a crash or a full disk leaves the old notes.
        let temporary = self.path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        let written = options.open(&temporary).and_then(|mut file| file.write_all(&bytes));
        written.and_then(|()| std::fs::rename(&temporary, &self.path)).map_err(|error| {
            let _ = std::fs::remove_file(&temporary);
            failed(error)
        })
    }

    fn lock(&self) -> Outcome<Flock<File>> {
        let path = self.network.join("lock");
        let failed = |error| StateError::io("open the lock of the notes", &path, error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        let file = options.open(&path).or_else(|error| {
            if error.kind() != ErrorKind::NotFound {
                return Err(error);
            }
            DirBuilder::new().recursive(true).mode(0o700).create(&self.network)?;
            options.open(&path)
        });
        lock::flock(file.map_err(failed)?, FlockArg::LockExclusive, &path)
    }
}

fn attachment_path(network: &Path, owner: &Owner) -> PathBuf {
    network.join("attachment").join(format!("{}.json", names::digest(&[&owner.container_id, &owner.ifname])))
}

fn remove(path: &Path) -> Outcome<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StateError::io("remove the notes", path, error)),
        _ => Ok(()),
    }
}

/// Removes the notes of every plugin for this attachment; not an error when there are none.
pub fn forget_attachment(root: &Path, network: &str, owner: &Owner) -> Outcome<()> {
    remove(&attachment_path(&root.join(names::file_name(network)), owner))
}

/// The attachments of `network` that have notes, for GC.
pub fn attachments(root: &Path, network: &str) -> Outcome<Vec<Owner>> {
    let folder = root.join(names::file_name(network)).join("attachment");
    let failed = |error| StateError::io("list the notes", &folder, error);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut owners = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        // Gone since the listing, or not readable: nobody's that could be named.
        let page = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Page>(&bytes).ok());
        owners.extend(page.and_then(|page| page.owner));
    }
    owners.sort_unstable();
    Ok(owners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_and_plugins_are_apart() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (Owner::new("a", "eth0"), Owner::new("a", "eth1"));
        let open = |plugin: &str, owner| Notes::open(root.path(), plugin, "net", owner);
        assert_eq!(open("p", None).get("k").unwrap(), None);
        open("p", None).set("k", "network").unwrap();
        open("p", Some(&a)).set("k", "a").unwrap();
        open("q", Some(&a)).set("k/../\n", "q").unwrap();
        open("p", Some(&b)).set("k", "b").unwrap();
        assert_eq!(open("p", None).get("k").unwrap().unwrap(), "network");
        assert_eq!(open("p", Some(&a)).get("k").unwrap().unwrap(), "a");
        assert_eq!(open("q", Some(&a)).keys().unwrap(), ["k/../\n"]);
        assert_eq!(Notes::open(root.path(), "p", "other", None).keys().unwrap(), [""; 0]);
        assert_eq!(attachments(root.path(), "net").unwrap(), [a.clone(), b.clone()]);
        forget_attachment(root.path(), "net", &a).unwrap();
        forget_attachment(root.path(), "net", &a).unwrap();
        assert_eq!(open("p", Some(&a)).get("k").unwrap(), None);
        assert_eq!(attachments(root.path(), "net").unwrap().len(), 1);
        assert!(open("p", Some(&b)).remove("k").unwrap());
        assert!(!open("p", Some(&b)).remove("k").unwrap());
        assert_eq!(attachments(root.path(), "net").unwrap(), []);
    }

    #[test]
    fn swap_is_refused_when_another_was_first() {
        let root = tempfile::tempdir().unwrap();
        let notes = Notes::open(root.path(), "p", "net", None);
        notes.swap("k", None, "1").unwrap();
        assert!(matches!(notes.swap("k", None, "2"), Err(StateError::Conflict(_))));
        assert!(matches!(notes.swap("k", Some("0"), "2"), Err(StateError::Conflict(_))));
        notes.swap("k", Some("1"), "2").unwrap();
        assert_eq!(notes.get("k").unwrap().unwrap(), "2");
    }

    #[test]
    fn swaps_of_many_threads_all_count() {
        let root = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let notes = Notes::open(root.path(), "p", "net", None);
                    for _ in 0..25 {
                        loop {
                            let found = notes.get("n").unwrap();
                            let next = found.as_deref().map_or(0, |n| n.parse::<u32>().unwrap()) + 1;
                            if notes.swap("n", found.as_deref(), &next.to_string()).is_ok() {
                                break;
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(Notes::open(root.path(), "p", "net", None).get("n").unwrap().unwrap(), "200");
    }

    #[test]
    fn limits() {
        let root = tempfile::tempdir().unwrap();
        let notes = Notes::open(root.path(), "p", "net", None);
        assert!(matches!(notes.set(&"k".repeat(257), ""), Err(StateError::Invalid(_))));
        assert!(matches!(notes.set("k", &"v".repeat(MOST_BYTES)), Err(StateError::Exhausted(_))));
        assert_eq!(notes.keys().unwrap(), [""; 0]);
    }
}
