//! Journal files that do not say whose they are: empty, because a call was killed before its first line, or damaged.
//! Nothing that goes through an attachment's name finds them.

use super::{Attachment, Entry, Journal, Lock, digest_of, entries, file};
use crate::{Outcome, Owner, StateError, names};
use nix::fcntl::FlockArg;
use std::path::{Path, PathBuf};

/// Such a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Nameless {
    /// Where it is.
    pub path: PathBuf,
    /// What it lists all the same, oldest first.
    pub pending: Vec<Entry>,
    /// No line of it can be read, by this or by a later release: it says nothing.
    pub says_nothing: bool,
    /// It has not one whole line.
    pub blank: bool,
}

impl Nameless {
    fn look(path: &Path) -> Outcome<Option<Self>> {
        let Some(content) = file::peek(path)? else { return Ok(None) };
        if content.attachment.is_some() {
            return Ok(None);
        }
        let pending: Vec<Entry> = content.entries.into_iter().map(|(_, entry)| entry).collect();
        let (path, says_nothing) = (path.to_owned(), !file::says_anything(path)?);
        Ok(Some(Self { path, blank: says_nothing && content.damaged == 0, pending, says_nothing }))
    }

    /// The network's name as its folder has it; the name itself unless it is an extraordinary one.
    pub fn folder(&self) -> String {
        let folder = self.path.parent().and_then(Path::file_name).unwrap_or_default();
        folder.to_string_lossy().into_owned()
    }

    /// Whether it is this attachment's, whose hash its name is.
    pub fn is_of(&self, attachment: &Attachment) -> bool {
        names::file_name(&attachment.network) == self.folder()
            && self.path.file_name().is_some_and(|name| *name == *digest_of(&attachment.owner()))
    }
}

/// All of them. Takes no lock: a call may be about to write its first line.
///
/// # Errors
/// When the journals can't be read.
pub fn nameless(root: &Path) -> Outcome<Vec<Nameless>> {
    let mut found = Vec::new();
    for folder in entries(&root.join("networks"))? {
        for path in entries(&folder)? {
            found.extend(Nameless::look(&path)?);
        }
    }
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Removes one that says nothing, while no call of its network runs; whether it was there and still said nothing.
///
/// # Errors
/// `Busy` as `Journal::open`.
pub fn discard(root: &Path, nameless: &Nameless) -> Outcome<bool> {
    let folder = nameless.folder();
    let lock = Lock::take_file(root, &folder, FlockArg::LockExclusive)?;
    let still = Nameless::look(&nameless.path)?.is_some_and(|found| found.says_nothing);
    if still {
        std::fs::remove_file(&nameless.path)
            .map_err(|error| StateError::io("remove the journal", &nameless.path, error))?;
    }
    lock.clear(&root.join("networks").join(folder));
    Ok(still)
}

/// Writes into one whose it is, which `is_of` has told.
///
/// # Errors
/// As `Journal::open`.
pub fn adopt(root: &Path, attachment: &Attachment) -> Outcome<()> {
    let mut journal = Journal::open(root, attachment)?;
    // Another call may have, or may have removed it.
    if journal.content.attachment.is_none() && journal.file.exists() { journal.file.flush() } else { Ok(()) }
}

impl Owner {
    /// The attachment that it is in this network.
    pub fn in_network(&self, network: &str) -> Attachment {
        Attachment { network: network.to_owned(), container_id: self.container_id.clone(), ifname: self.ifname.clone() }
    }
}
