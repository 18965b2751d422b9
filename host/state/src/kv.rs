//! Small durable notes of a plugin in a network, for one attachment or for all.

use crate::{Outcome, Owner, StateError};
use std::path::{Path, PathBuf};

/// The notes of one plugin, in one scope.
#[derive(Debug)]
pub struct Notes {
    root: PathBuf,
}

impl Notes {
    /// The notes of `plugin` in `network`: those of `attachment`, or the network's when there is none. Makes nothing
    /// before the first `set`.
    pub fn open(root: &Path, _plugin: &str, _network: &str, _attachment: Option<&Owner>) -> Self {
        Self { root: root.to_owned() }
    }

    fn unbuilt<T>(&self) -> Outcome<T> {
        Err(StateError::Other(format!("being built: {}", self.root.display())))
    }

    /// The value of `key`.
    pub fn get(&self, _key: &str) -> Outcome<Option<String>> {
        self.unbuilt()
    }

    /// Sets `key`.
    pub fn set(&self, _key: &str, _value: &str) -> Outcome<()> {
        self.unbuilt()
    }

    /// Sets `key` if its value is still `expected`, else `Conflict`.
    pub fn swap(&self, _key: &str, _expected: Option<&str>, _value: &str) -> Outcome<()> {
        self.unbuilt()
    }

    /// Removes `key`; whether it was there.
    pub fn remove(&self, _key: &str) -> Outcome<bool> {
        self.unbuilt()
    }

    /// Every key, sorted.
    pub fn keys(&self) -> Outcome<Vec<String>> {
        self.unbuilt()
    }
}

/// Removes the notes of every plugin for this attachment.
pub fn forget_attachment(root: &Path, _network: &str, _owner: &Owner) -> Outcome<()> {
    Err(StateError::Other(format!("being built: {}", root.display())))
}

/// The attachments of `network` that have notes, for GC.
pub fn attachments(root: &Path, _network: &str) -> Outcome<Vec<Owner>> {
    Err(StateError::Other(format!("being built: {}", root.display())))
}
