//! The journal: what was done for an attachment and how to undo it, written before it is done.

mod undo;

pub use undo::{Side, Undo};

use crate::{Outcome, Owner, StateError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One interface of one container in one network.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    /// Name of the network configuration.
    pub network: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

impl Attachment {
    /// The same without its network, as leases and notes know it.
    pub fn owner(&self) -> Owner {
        Owner::new(&self.container_id, &self.ifname)
    }
}

/// How far an operation came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Written down; it may have happened or not.
    Intended,
    /// It happened.
    Done,
    /// Its undo was tried and failed; to be tried again.
    Failed,
}

/// One operation that is not yet undone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Its number in this journal, ascending in time.
    pub id: u64,
    /// The plugin it was done for.
    pub plugin: String,
    /// How to take it back.
    pub undo: Undo,
    /// How far it came.
    pub state: State,
}

/// The journal of one attachment, locked against every other call for it and against GC of its network.
#[derive(Debug)]
pub struct Journal {
    attachment: Attachment,
    path: PathBuf,
    entries: Vec<Entry>,
}

impl Journal {
    /// Waits for the locks and reads what is there. Makes no file before the first intent.
    ///
    /// # Errors
    /// `Busy` when a signal came first (the caller's deadline: SIGALRM without SA_RESTART, from a repeating timer).
    pub fn open(root: &Path, attachment: &Attachment) -> Outcome<Self> {
        Ok(Self { attachment: attachment.clone(), path: root.to_owned(), entries: Vec::new() })
    }

    fn unbuilt<T>(&self) -> Outcome<T> {
        Err(StateError::Other(format!("being built: {} {}", self.path.display(), self.attachment.network)))
    }

    /// Whose journal it is.
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// Starts a call. What an ADD does from here on is `uncommitted` until `commit`. Written with the first intent.
    pub fn begin(&mut self, _verb: &str, _plugin: &str) {}

    /// Every operation not yet undone, oldest first.
    pub fn pending(&self) -> Vec<&Entry> {
        self.entries.iter().collect()
    }

    /// Those of every ADD that never reached `commit`, this call's included, oldest first.
    pub fn uncommitted(&self) -> Vec<&Entry> {
        Vec::new()
    }

    /// Writes down what is about to be done, by how to undo it; its number.
    pub fn intend(&mut self, _plugin: &str, _undo: &Undo) -> Outcome<u64> {
        self.unbuilt()
    }

    /// It happened. `update` replaces the undo when more is known now, such as an index.
    pub fn done(&mut self, _id: u64, _update: Option<&Undo>) -> Outcome<()> {
        self.unbuilt()
    }

    /// Its undo failed and has to be tried again.
    pub fn failed(&mut self, _id: u64) -> Outcome<()> {
        self.unbuilt()
    }

    /// It is undone, or never happened.
    pub fn undone(&mut self, _id: u64) -> Outcome<()> {
        self.unbuilt()
    }

    /// The call succeeded; `facts` are what `sandwirectl attachments` shows of it.
    pub fn commit(&mut self, _facts: &Value) -> Outcome<()> {
        self.unbuilt()
    }

    /// What `commit` was given last for each plugin.
    pub fn facts(&self) -> &BTreeMap<String, Value> {
        static NONE: BTreeMap<String, Value> = BTreeMap::new();
        &NONE
    }

    /// Removes the file when nothing is left to undo; whether it is gone. For the end of DEL and of a rolled-back ADD.
    pub fn remove_if_empty(self) -> Outcome<bool> {
        self.unbuilt()
    }
}

/// What a journal says, for people and for `repair`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Whose.
    pub attachment: Attachment,
    /// Not yet undone, oldest first.
    pub pending: Vec<Entry>,
    /// How many of them belong to an ADD that did not end (killed, or running now).
    pub uncommitted: usize,
    /// What each plugin said of itself.
    pub facts: BTreeMap<String, Value>,
    /// Lines that this release can't read.
    pub damaged: usize,
}

/// The journals of `network`, or of all. Takes no lock: a call may be running.
pub fn list(root: &Path, _network: Option<&str>) -> Outcome<Vec<Summary>> {
    Err(StateError::Other(format!("being built: {}", root.display())))
}

/// The whole of a network, with no call of it running: for GC.
#[derive(Debug)]
pub struct NetworkLock {
    network: String,
}

impl NetworkLock {
    /// Waits until no call of `network` runs.
    ///
    /// # Errors
    /// `Busy` as `Journal::open`.
    pub fn take(_root: &Path, network: &str) -> Outcome<Self> {
        Ok(Self { network: network.to_owned() })
    }

    /// Every attachment with a journal.
    pub fn attachments(&self) -> Outcome<Vec<Attachment>> {
        Err(StateError::Other(format!("being built: {}", self.network)))
    }

    /// The journal of one of them. `Journal::open` would wait for this lock for ever.
    pub fn journal(&self, _owner: &Owner) -> Outcome<Journal> {
        Err(StateError::Other(format!("being built: {}", self.network)))
    }
}
