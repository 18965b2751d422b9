//! The journal: what was done for an attachment and how to undo it, written before it is done.

mod file;
mod locks;
mod nameless;
mod undo;

pub use nameless::{Nameless, adopt, discard, nameless};
pub use undo::{Held, Side, Taken, Undo};

use crate::{Outcome, Owner, StateError, names};
use file::{Committed, Content, Facts, JournalFile, Line};
use locks::Lock;
use nix::fcntl::FlockArg;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
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
    /// Which container's namespace the call had that did it, as `Kernel::identity` tells them apart; none of an earlier
    /// release, and of a call without.
    #[serde(skip)]
    pub netns: Option<u64>,
}

/// The journal of one attachment, locked against every other call for it and against GC of its network until dropped.
#[derive(Debug)]
pub struct Journal {
    attachment: Attachment,
    /// None within GC, which has the network's.
    lock: Option<Lock>,
    folder: PathBuf,
    file: JournalFile,
    content: Content,
    /// Whether this call said something of an operation that is not its own.
    meddled: bool,
}

impl Journal {
    /// Waits for the locks and reads what is there. Makes no journal before the first intent; whatever the call is, end
    /// it with `remove_if_empty`.
    ///
    /// # Errors
    /// `Busy` when a signal came first (the caller's deadline: SIGALRM without SA_RESTART, from a repeating timer).
    pub fn open(root: &Path, attachment: &Attachment) -> Outcome<Self> {
        let lock = Lock::take(root, &attachment.network, FlockArg::LockShared)?;
        lock.attachment(&attachment.owner())?;
        Self::read(root, attachment.clone(), Some(lock))
    }

    /// The same without waiting; none while a call has it, or GC its network.
    pub fn open_now(root: &Path, attachment: &Attachment) -> Outcome<Option<Self>> {
        let lock = match Lock::take(root, &attachment.network, FlockArg::LockSharedNonblock) {
            Err(StateError::Busy(_)) => return Ok(None),
            lock => lock?,
        };
        match lock.attachment_now(&attachment.owner())? {
            true => Self::read(root, attachment.clone(), Some(lock)).map(Some),
            false => Ok(None),
        }
    }

    fn read(root: &Path, attachment: Attachment, lock: Option<Lock>) -> Outcome<Self> {
        let folder = folder(root, &attachment.network);
        let path = path(root, &attachment);
        let (mut file, content) = JournalFile::open(&path)?;
        match &content.attachment {
            Some(found) if *found != attachment => {
                let text = format!("{} is the journal of another attachment, {found:?}", path.display());
                return Err(StateError::Conflict(text));
            }
            Some(_) => {}
            None => file.queue(&Line::Attachment(Cow::Borrowed(&attachment)))?,
        }
        Ok(Self { attachment, lock, folder, file, content, meddled: false })
    }

    /// Whose journal it is.
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// Starts a call (`verb` as in CNI_COMMAND, `netns` as in an entry). What an ADD does from here on is `uncommitted`
    /// until `commit`. Written with the first intent.
    pub fn begin(&mut self, verb: &str, plugin: &str, netns: Option<u64>) -> Outcome<()> {
        let line = || Line::Begin { verb: Cow::Borrowed(verb), plugin: Cow::Borrowed(plugin), netns };
        self.file.begin(&line())?;
        self.content.apply(line());
        self.meddled = false;
        Ok(())
    }

    /// Every operation not yet undone, oldest first.
    pub fn pending(&self) -> Vec<&Entry> {
        self.content.entries.iter().map(|(_, entry)| entry).collect()
    }

    /// In which namespaces of containers something was done that is not undone: one, but for an attachment that was made
    /// again. None of an earlier release.
    pub fn namespaces(&self) -> BTreeSet<u64> {
        self.content.entries.iter().filter_map(|(_, entry)| entry.netns).collect()
    }

    /// Those of every ADD that never reached `commit`, this call's included, oldest first.
    pub fn uncommitted(&self) -> Vec<&Entry> {
        self.content.uncommitted().collect()
    }

    /// Writes down what is about to be done, by how to undo it; its number. Not to be done when this fails.
    pub fn intend(&mut self, plugin: &str, undo: &Undo) -> Outcome<u64> {
        let id = self.content.last_id + 1;
        let line = || Line::Intend { id, plugin: Cow::Borrowed(plugin), undo: Cow::Borrowed(undo) };
        self.file.write_intent(&line())?;
        self.content.apply(line());
        Ok(id)
    }

    /// It happened. `update` replaces the undo when more is known now, such as an index. Written with the next line, or when the call ends
    /// and something of it is left (`remove_if_empty`): who is killed before may have been killed before the operation was over, and that one is
    /// undone as it was intended.
    pub fn done(&mut self, id: u64, update: Option<&Undo>) -> Outcome<()> {
        self.known(id)?;
        let line = || Line::Done { id, undo: update.map(Cow::Borrowed) };
        self.file.owe(&line())?;
        self.content.apply(line());
        Ok(())
    }

    /// It happened, and is now to be undone like this: a lease that was renewed. Only for what a call has committed.
    pub fn done_again(&mut self, id: u64, undo: &Undo) -> Outcome<()> {
        self.known(id)?;
        let line = || Line::Done { id, undo: Some(Cow::Borrowed(undo)) };
        self.file.write_again(id, &line())?;
        self.content.apply(line());
        Ok(())
    }

    /// Its undo failed and has to be tried again.
    pub fn failed(&mut self, id: u64) -> Outcome<()> {
        // Said once: an undo that fails for days must not fill the tmpfs.
        if self.known(id)? == State::Failed { Ok(()) } else { self.record(|| Line::Failed { id }) }
    }

    /// It is undone, or never happened. When nothing that this call did is left, neither is what it wrote: an ADD that
    /// fails leaves the journal of an attachment as it was.
    ///
    /// # Errors
    /// It could not be written. It counts as undone all the same: when nothing else is left the file goes, for which a full
    /// disk needs no room, and who finds the line again undoes it once more, which does nothing.
    pub fn undone(&mut self, id: u64) -> Outcome<()> {
        self.known(id)?;
        if self.file.has_begun() && !self.meddled && self.content.is_all_of_call(id) {
            self.file.cut()?;
            self.content.apply(Line::Undone { id });
            return Ok(());
        }
        let written = self.file.write(&Line::Undone { id });
        self.content.apply(Line::Undone { id });
        written
    }

    /// Several at once, in GC. Writes nothing when nothing is left of the whole journal: `remove_if_empty` comes next, and
    /// who is killed before it leaves what can be undone once more.
    pub fn undone_all(&mut self, ids: &BTreeSet<u64>) -> Outcome<()> {
        let all = self.content.entries.iter().all(|(_, entry)| ids.contains(&entry.id));
        if !all || self.content.damaged > 0 {
            return ids.iter().try_for_each(|id| self.undone(*id));
        }
        ids.iter().for_each(|id| self.content.apply(Line::Undone { id: *id }));
        Ok(())
    }

    /// The call that `begin` started succeeded; `facts` are what `sandwirectl attachments` shows of it. Nothing is written
    /// for a call that did nothing and has none.
    pub fn commit<F: Serialize>(&mut self, facts: Option<&F>) -> Outcome<()> {
        if facts.is_some() || self.file.exists() {
            self.file.write(&Committed { commit: Facts { facts } })?;
        }
        self.content.commit();
        Ok(())
    }

    /// The call that was committed has failed after all: what it did is uncommitted again, and with the last of it goes what it
    /// wrote.
    pub fn reopen(&mut self) {
        self.content.reopen();
    }

    /// Whether the last call was a DEL: what is there besides is what that could not take back.
    pub fn ends_with_del(&self) -> bool {
        self.content.ends_with_del()
    }

    /// What `commit` was given last, for each plugin; of calls before this one.
    pub fn facts(&self) -> &BTreeMap<String, Value> {
        &self.content.facts
    }

    /// Lines that this release can't read: damage, or a later release's.
    pub fn damaged(&self) -> usize {
        self.content.damaged
    }

    /// Removes the journal when nothing is left to undo, and whether it is gone; then also the network's lock when this
    /// was the last. For the end of DEL, of a rolled-back ADD, and of a call that did nothing.
    pub fn remove_if_empty(mut self) -> Outcome<bool> {
        if !self.content.entries.is_empty() || self.content.damaged > 0 {
            if self.file.owes() {
                self.file.flush()?;
            }
            return Ok(false);
        }
        self.remove()
    }

    /// The same for one of which nothing is left but lines that can't be read: a DEL has ended since, or all that was readable was
    /// undone.
    pub fn remove_if_unreadable(self) -> Outcome<bool> {
        if self.content.entries.is_empty() { self.remove() } else { Ok(false) }
    }

    fn remove(self) -> Outcome<bool> {
        if self.file.exists() {
            self.file.remove()?;
        }
        if let Some(lock) = self.lock {
            lock.clear(&self.folder);
        }
        Ok(true)
    }

    fn known(&mut self, id: u64) -> Outcome<State> {
        let missing = || StateError::NotFound(format!("the journal of {:?} has no operation {id}", self.attachment));
        let state = self.content.entry(id).map(|entry| entry.state).ok_or_else(missing)?;
        self.meddled |= !self.content.is_of_call(id);
        Ok(state)
    }

    fn record<'a>(&mut self, line: impl Fn() -> Line<'a>) -> Outcome<()> {
        self.file.write(&line())?;
        self.content.apply(line());
        Ok(())
    }
}

/// What the file of an attachment is named within its network's folder.
fn digest_of(owner: &Owner) -> String {
    names::digest(&[&owner.container_id, &owner.ifname])
}

/// The journal of an attachment, for people who have to look at it.
pub fn path(root: &Path, attachment: &Attachment) -> PathBuf {
    folder(root, &attachment.network).join(digest_of(&attachment.owner()))
}

fn folder(root: &Path, network: &str) -> PathBuf {
    root.join("networks").join(names::file_name(network))
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
    /// Whether the last call was a DEL.
    pub ends_with_del: bool,
}

impl Summary {
    /// Whether there is something that a call had to take back and did not: an ADD that did not end (which may run now,
    /// unless the attachment or its network is locked), or an undo that failed.
    pub fn has_left_over(&self) -> bool {
        self.uncommitted > 0 || self.pending.iter().any(|entry| entry.state == State::Failed)
    }

    /// Whether it may be taken back for an attachment that is to stay: not when the end of an ADD that seems not to have
    /// ended may be among the lines that are damaged.
    pub fn is_surely_left_over(&self) -> bool {
        self.has_left_over() && (self.damaged == 0 || self.uncommitted == 0)
    }
}

/// The journals of `network`, or of all, by attachment. Takes no lock: a call may be running.
pub fn list(root: &Path, network: Option<&str>) -> Outcome<Vec<Summary>> {
    let folders = match network {
        Some(network) => vec![folder(root, network)],
        None => entries(&root.join("networks"))?,
    };
    let mut found = Vec::new();
    for path in folders.iter().map(|folder| entries(folder)).collect::<Outcome<Vec<_>>>()?.into_iter().flatten() {
        // Without even its first line: a call that is just starting, or that was killed before it did anything.
        found.extend(file::peek(&path)?.and_then(summary));
    }
    found.sort_unstable_by(|a, b| a.attachment.cmp(&b.attachment));
    Ok(found)
}

fn summary(content: Content) -> Option<Summary> {
    let (uncommitted, ends_with_del) = (content.uncommitted().count(), content.ends_with_del());
    let Content { attachment, entries, facts, damaged, .. } = content;
    let pending = entries.into_iter().map(|(_, entry)| entry).collect();
    Some(Summary { attachment: attachment?, pending, uncommitted, facts, damaged, ends_with_del })
}

fn entries(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let failed = |error| StateError::io("list the journals in", folder, error);
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

/// The whole of a network, with no call of it running: for GC.
#[derive(Debug)]
pub struct NetworkLock {
    root: PathBuf,
    network: String,
    lock: Lock,
}

impl NetworkLock {
    /// Waits until no call of `network` runs, and keeps others waiting until it is dropped.
    ///
    /// # Errors
    /// `Busy` as `Journal::open`.
    pub fn take(root: &Path, network: &str) -> Outcome<Self> {
        let lock = Lock::take(root, network, FlockArg::LockExclusive)?;
        Ok(Self { root: root.to_owned(), network: network.to_owned(), lock })
    }

    /// Every attachment with a journal, sorted. A file that does not even say whose it is goes: its call was killed before
    /// it did anything, and none runs now.
    pub fn attachments(&self) -> Outcome<Vec<Summary>> {
        let mut found = Vec::new();
        for path in entries(&folder(&self.root, &self.network))? {
            let Some(content) = file::peek(&path)? else { continue };
            if content.is_blank() {
                let removed = std::fs::remove_file(&path);
                removed.map_err(|error| StateError::io("remove the journal", &path, error))?;
            }
            found.extend(summary(content));
        }
        found.sort_unstable_by(|a, b| a.attachment.cmp(&b.attachment));
        Ok(found)
    }

    /// The journal of one of them. (`Journal::open` would wait for this lock for ever.)
    pub fn journal(&self, owner: &Owner) -> Outcome<Journal> {
        let Owner { container_id, ifname } = owner.clone();
        Journal::read(&self.root, Attachment { network: self.network.clone(), container_id, ifname }, None)
    }

    /// Ends it, and removes what no longer belongs to any attachment.
    pub fn remove_if_empty(self) {
        self.lock.clear(&folder(&self.root, &self.network));
    }
}
