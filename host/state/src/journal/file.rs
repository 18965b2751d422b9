//! The file of one attachment: a line of JSON for each thing that happened, appended by one write each.
//!
//! On tmpfs and never fsynced: it describes what the kernel holds, and ends with the boot as that does. A process killed
//! within a write leaves a line without its end; what that line would have announced had not begun.

use super::{Attachment, Entry, State, Undo};
use crate::{Outcome, StateError, names};
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// One line. A kind that a later release adds is counted as damage by this one, and kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Line<'a> {
    /// The first one: whose, since the file's name is a hash.
    Attachment(Cow<'a, Attachment>),
    Begin {
        verb: Cow<'a, str>,
        plugin: Cow<'a, str>,
        /// Which container's namespace it was called with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        netns: Option<u64>,
    },
    Intend {
        id: u64,
        plugin: Cow<'a, str>,
        undo: Cow<'a, Undo>,
    },
    Done {
        id: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        undo: Option<Cow<'a, Undo>>,
    },
    Failed {
        id: u64,
    },
    Undone {
        id: u64,
    },
    Commit {
        facts: Cow<'a, Value>,
    },
}

/// [`Line::Commit`] of facts that nobody has made a tree of.
#[derive(Debug, Serialize)]
pub(super) struct Committed<'a, F> {
    pub(super) commit: Facts<'a, F>,
}

/// See [`Committed`].
#[derive(Debug, Serialize)]
pub(super) struct Facts<'a, F> {
    pub(super) facts: Option<&'a F>,
}

/// What one call may write down to do. Mostly it is 2 KB; a pod that publishes 4,000 ports takes 1 MB.
const MOST_BYTES: u64 = 4 << 20;

/// One call.
#[derive(Debug)]
struct Call {
    plugin: String,
    /// An ADD that has not ended: what it did is to be undone.
    open: bool,
    is_del: bool,
    netns: Option<u64>,
}

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) attachment: Option<Attachment>,
    calls: Vec<Call>,
    /// With the number of the call that each belongs to.
    pub(super) entries: Vec<(usize, Entry)>,
    pub(super) facts: BTreeMap<String, Value>,
    pub(super) damaged: usize,
    pub(super) last_id: u64,
}

impl Content {
    fn parse(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(line) => content.apply(line),
                Err(_) => content.damaged += 1,
            }
        }
        content
    }

    pub(super) fn apply(&mut self, line: Line<'_>) {
        match line {
            Line::Attachment(attachment) => self.attachment = Some(attachment.into_owned()),
            Line::Begin { verb, plugin, netns } => {
                let (plugin, open, is_del) = (plugin.into_owned(), verb == "ADD", verb == "DEL");
                self.calls.push(Call { plugin, open, is_del, netns });
            }
            Line::Intend { id, plugin, undo } => {
                let (plugin, undo) = (plugin.into_owned(), undo.into_owned());
                let netns = self.calls.last().and_then(|call| call.netns);
                let entry = Entry { id, plugin, undo, state: State::Intended, netns };
                self.entries.push((self.calls.len(), entry));
                self.last_id = self.last_id.max(id);
            }
            Line::Done { id, undo } => {
                if let Some(entry) = self.entry(id) {
                    entry.state = State::Done;
                    if let Some(undo) = undo {
                        entry.undo = undo.into_owned();
                    }
                }
            }
            Line::Failed { id } => {
                if let Some(entry) = self.entry(id) {
                    entry.state = State::Failed;
                }
            }
            Line::Undone { id } => self.entries.retain(|(_, entry)| entry.id != id),
            Line::Commit { facts } => {
                if let Some(call) = self.calls.last_mut() {
                    call.open = false;
                    self.facts.insert(call.plugin.clone(), facts.into_owned());
                }
            }
        }
    }

    /// The newest call has succeeded.
    pub(super) fn commit(&mut self) {
        if let Some(call) = self.calls.last_mut() {
            call.open = false;
        }
    }

    /// The newest call has not succeeded after all.
    pub(super) fn reopen(&mut self) {
        if let Some(call) = self.calls.last_mut() {
            call.open = true;
        }
    }

    /// Whether the newest call is a DEL.
    pub(super) fn ends_with_del(&self) -> bool {
        self.calls.last().is_some_and(|call| call.is_del)
    }

    /// Not one line.
    pub(super) fn is_blank(&self) -> bool {
        self.attachment.is_none() && self.calls.is_empty() && self.entries.is_empty() && self.damaged == 0
    }

    pub(super) fn entry(&mut self, id: u64) -> Option<&mut Entry> {
        self.entries.iter_mut().map(|(_, entry)| entry).find(|entry| entry.id == id)
    }

    /// Whether this operation was begun by the newest call.
    pub(super) fn is_of_call(&self, id: u64) -> bool {
        self.entries.iter().any(|(call, entry)| entry.id == id && *call == self.calls.len())
    }

    /// Whether it is all that is left of the newest call, and that call has not succeeded.
    pub(super) fn is_all_of_call(&self, id: u64) -> bool {
        let open = self.calls.last().is_some_and(|call| call.open);
        let mut own = self.entries.iter().filter(|(call, _)| *call == self.calls.len());
        open && own.next().is_some_and(|(_, entry)| entry.id == id) && own.next().is_none()
    }

    /// The entries of every ADD that has not ended.
    pub(super) fn uncommitted(&self) -> impl Iterator<Item = &Entry> {
        let open = |call: usize| call.checked_sub(1).and_then(|n| self.calls.get(n)).is_some_and(|call| call.open);
        self.entries.iter().filter(move |(call, _)| open(*call)).map(|(_, entry)| entry)
    }
}

/// The file, made with its first line.
#[derive(Debug)]
pub(super) struct JournalFile {
    path: PathBuf,
    file: Option<File>,
    length: u64,
    /// Lines that go out with the next one that matters.
    waiting: Vec<u8>,
    /// Whether one of them says what nobody else does.
    owed: bool,
    /// How long the file was when the newest call began, and what it wrote first.
    call: Option<(u64, Vec<u8>)>,
}

impl JournalFile {
    /// Opens and reads it. The attachment's lock is held, so an unfinished last line is nobody's and is cut off.
    pub(super) fn open(path: &Path) -> Outcome<(Self, Content)> {
        let mut journal =
            Self { path: path.to_owned(), file: None, length: 0, waiting: Vec::new(), owed: false, call: None };
        let mut options = OpenOptions::new();
        options.read(true).append(true).custom_flags(OFlag::O_NOFOLLOW.bits());
        let mut file = match options.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((journal, Content::default())),
            Err(error) => return Err(StateError::io("open the journal", path, error)),
        };
        let mut bytes = Vec::with_capacity(4096);
        file.read_to_end(&mut bytes).map_err(|error| StateError::io("read the journal", path, error))?;
        let whole = whole_lines(&bytes);
        if whole.len() < bytes.len() {
            let cut = file.set_len(whole.len() as u64);
            cut.map_err(|error| StateError::io("cut the unfinished last line off", path, error))?;
        }
        journal.length = whole.len() as u64;
        journal.file = Some(file);
        Ok((journal, Content::parse(whole)))
    }

    pub(super) fn exists(&self) -> bool {
        self.file.is_some()
    }

    /// Keeps a line for the next `write`.
    pub(super) fn queue(&mut self, line: &impl Serialize) -> Outcome<()> {
        serde_json::to_writer(&mut self.waiting, line).map_err(|error| StateError::io("write", &self.path, error))?;
        self.waiting.push(b'\n');
        Ok(())
    }

    /// Keeps a line for the next `write`, or for the end of the call.
    pub(super) fn owe(&mut self, line: &impl Serialize) -> Outcome<()> {
        self.queue(line)?;
        self.owed = true;
        Ok(())
    }

    /// Whether a line was kept that has to be written.
    pub(super) fn owes(&self) -> bool {
        self.owed
    }

    /// Keeps the line that begins a call.
    pub(super) fn begin(&mut self, line: &Line<'_>) -> Outcome<()> {
        self.queue(line)?;
        self.call = Some((self.length, self.waiting.clone()));
        Ok(())
    }

    /// Whether the newest call is this process's own.
    pub(super) fn has_begun(&self) -> bool {
        self.call.is_some()
    }

    /// Takes back all that was written since the newest call began; it may go on.
    pub(super) fn cut(&mut self) -> Outcome<()> {
        let (Some(file), Some((length, first))) = (&self.file, &self.call) else { return Ok(()) };
        file.set_len(*length).map_err(|error| StateError::io("cut the journal", &self.path, error))?;
        self.length = *length;
        self.waiting.clone_from(first);
        self.owed = false;
        Ok(())
    }

    /// Appends a line, after the ones that wait, by one write. A write that fails leaves the file as it was.
    pub(super) fn write(&mut self, line: &impl Serialize) -> Outcome<()> {
        self.write_if(line, |_| Ok(()))
    }

    /// The same for what a call is about to do, of which it can't write without end: the journals of all attachments share a
    /// tmpfs, and what fills it keeps others from being attached.
    ///
    /// # Errors
    /// `Exhausted` for more than [`MOST_BYTES`] since `begin`.
    pub(super) fn write_intent(&mut self, line: &Line<'_>) -> Outcome<()> {
        self.write_if(line, |journal| {
            let began = journal.call.as_ref().map_or(journal.length, |(length, _)| *length);
            let written = journal.length.saturating_sub(began) + journal.waiting.len() as u64;
            match written > MOST_BYTES {
                true => Err(StateError::Exhausted(format!(
                    "too much for one call: how to undo it would take {written} bytes of the journal, and may take {MOST_BYTES}"
                ))),
                false => Ok(()),
            }
        })
    }

    fn write_if(&mut self, line: &impl Serialize, may: impl FnOnce(&Self) -> Outcome<()>) -> Outcome<()> {
        let before = self.waiting.len();
        let written = self.queue(line).and_then(|()| may(self)).and_then(|()| self.append());
        match written {
            Ok(()) => self.said(),
            // What waited goes out with the next one.
            Err(_) => self.waiting.truncate(before),
        }
        written
    }

    /// Says once more that an operation is done. What is said again and again for as long as an attachment lives takes the place
    /// of what was said before it, in a new file: who is killed, or has no room, leaves the old one.
    pub(super) fn write_again(&mut self, id: u64, line: &Line<'_>) -> Outcome<()> {
        if !self.waiting.is_empty() || self.file.is_none() {
            return self.write(line);
        }
        let failed = |error| StateError::io("write the journal again", &self.path, error);
        let mut bytes = std::fs::read(&self.path).map_err(failed)?;
        let Some((_, at)) = last_done(&bytes).filter(|(last, _)| *last == id) else { return self.write(line) };
        bytes.truncate(at);
        serde_json::to_writer(&mut bytes, line).map_err(|error| failed(error.into()))?;
        bytes.push(b'\n');
        // Not beside the others: what is left of it after a crash would be somebody's journal.
        let place = self.path.ancestors().nth(3).unwrap_or(&self.path);
        let new = place.join(names::digest(&[&self.path.to_string_lossy()])).with_extension("new");
        let _ = std::fs::remove_file(&new);
        let written = create(&new).and_then(|mut file| {
            file.write_all(&bytes)?;
            std::fs::rename(&new, &self.path)?;
            Ok(file)
        });
        if written.is_err() {
            let _ = std::fs::remove_file(&new);
        }
        self.file = Some(written.map_err(failed)?);
        self.length = bytes.len() as u64;
        Ok(())
    }

    fn append(&mut self) -> Outcome<()> {
        let failed = |error| StateError::io("write the journal", &self.path, error);
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(create(&self.path).map_err(failed)?),
        };
        if let Err(error) = file.write_all(&self.waiting) {
            let _ = file.set_len(self.length);
            return Err(failed(error));
        }
        self.length += self.waiting.len() as u64;
        Ok(())
    }

    /// Writes the lines that wait.
    pub(super) fn flush(&mut self) -> Outcome<()> {
        self.append()?;
        self.said();
        Ok(())
    }

    fn said(&mut self) {
        self.waiting.clear();
        self.owed = false;
    }

    /// Removes the file.
    pub(super) fn remove(self) -> Outcome<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(StateError::io("remove the journal", &self.path, error))
            }
            _ => Ok(()),
        }
    }
}

/// What the file at `path` says now, without its lock; none when it is gone.
pub(super) fn peek(path: &Path) -> Outcome<Option<Content>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(Content::parse(whole_lines(&bytes)))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateError::io("read the journal", path, error)),
    }
}

/// Whether the file has a line that somebody could read, if not this release.
pub(super) fn says_anything(path: &Path) -> Outcome<bool> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(StateError::io("read the journal", path, error)),
    };
    let mut lines = whole_lines(&bytes).split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.any(|line| serde_json::from_slice::<serde_json::Map<String, Value>>(line).is_ok()))
}

/// Which operation the last line says is done, and where the line begins.
fn last_done(whole: &[u8]) -> Option<(u64, usize)> {
    let last = whole.strip_suffix(b"\n")?;
    let at = last.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    match serde_json::from_slice(last.get(at..)?) {
        Ok(Line::Done { id, .. }) => Some((id, at)),
        _ => None,
    }
}

fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    bytes.get(..end).unwrap_or_default()
}

fn create(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    // 0600: a delegate's configuration may hold its secrets.
    options.append(true).create_new(true).mode(0o600);
    options.open(path).or_else(|error| match (error.kind(), path.parent()) {
        (ErrorKind::NotFound, Some(folder)) => {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            options.open(path)
        }
        _ => Err(error),
    })
}
