//! Whether the namespace that a call was given is the one that its attachment is in.
//!
//! CNI_NETNS is a path, and a path leads to another namespace sooner or later: `/proc/PID/ns/net` when the number is given
//! again, a name when the runtime uses it again. A DEL that comes late, or once more, would take the interface of the container that
//! is there now (the reference does: it deletes what has the name, in what the path leads to).

use super::Session;
use sandwire_cni::{Command, Error};
use sandwire_kernel::Netns;
use sandwire_policy::paths;
use sandwire_state::journal::{self, Entry};
use std::path::Path;

impl Session {
    /// Starts the call in its journal. A DEL that was given another namespace than the attachment's goes on as one whose
    /// container is gone.
    ///
    /// # Errors
    /// Code `INTERNAL`: the journal can't be written.
    pub(crate) fn begin(&mut self) -> Result<(), Error> {
        let mut netns = self.container_identity();
        if self.subject.verb == Command::Del && netns.is_some_and(|now| self.is_elsewhere(now)) {
            crate::log::note(
                "warn",
                &format!(
                    "CNI_NETNS {:?} leads to a namespace in which this attachment is not (any more): nothing is removed in it",
                    self.subject.sandbox
                ),
            );
            if let Some(kernel) = self.kernel_if_open() {
                kernel.leave_container();
            }
            netns = None;
        }
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let begun = journal.begin(self.subject.verb.as_str(), &self.subject.plugin, netns);
        begun.map_err(|e| Error::internal(e.to_string()))
    }

    /// Whether the namespace is surely not the attachment's: the attachment was made in others, or nothing is known of it and
    /// what has its interface's name there is another's.
    fn is_elsewhere(&self, now: u64) -> bool {
        let known = self.journal.as_ref().map(journal::Journal::namespaces).unwrap_or_default();
        if !known.is_empty() {
            return !known.contains(&now);
        }
        // Who can't read them goes by the name, as always.
        let others = journal::list(Path::new(paths::JOURNAL), None).unwrap_or_default();
        let own = &self.subject.attachment;
        others.iter().any(|other| {
            let is_its = |entry: &Entry| entry.netns == Some(now);
            let theirs = &other.attachment;
            theirs.container_id != own.container_id && theirs.ifname == own.ifname && other.pending.iter().any(is_its)
        })
    }

    /// What tells the container's namespace from all others.
    pub(crate) fn container_identity(&self) -> Option<u64> {
        self.kernel.as_ref().and_then(|kernel| kernel.identity(Netns::Container))
    }

    /// Whether something was done in another namespace of a container than the one that the call has.
    pub(crate) fn was_elsewhere(&self, entry: &Entry) -> bool {
        entry.netns.is_some_and(|then| self.container_identity().is_some_and(|now| now != then))
    }
}
