//! What one call may need beyond what every call does: known before its component runs, from the operator's policy, the
//! configuration and what earlier calls have left to take back.

use crate::store::Generation;
use crate::stores;
use nix::unistd::AccessFlags;
use sandwire_cni::{Command, Error, Invocation};
use sandwire_policy::{Grant, paths};
use sandwire_state::journal::{self, Entry, Journal, Undo};
use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const SYSCTLS: &str = "/proc/sys/net";
/// What a helper has for its streams.
const NULL: &str = "/dev/null";
/// How the address of an agent begins that listens there.
const UNIX: &str = "unix:";

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Allowed {
    /// Directories, and files, that it may write to; what is not there is passed over.
    pub(crate) writable: Vec<PathBuf>,
    /// What must be possible with files that others may have given to another user.
    pub(crate) needed: Vec<(PathBuf, AccessFlags)>,
    /// Whether an agent may be called by TCP.
    pub(crate) tcp: bool,
    /// Whether one may be called by a unix socket: the container runtime has one, too.
    pub(crate) unix: bool,
    /// Whether a tap device may be made.
    pub(crate) tap: bool,
    /// Whether a DHCP server may be asked.
    pub(crate) dhcp: bool,
    /// Whether a native plugin that hangs may have to be killed.
    pub(crate) signals: bool,
    /// Whether the mode of a directory may have to be changed.
    pub(crate) modes: bool,
}

impl Allowed {
    /// Of a call. Makes the directories of its state that are not there yet: permission is given for what exists.
    ///
    /// # Errors
    /// When the journals of a network can't be listed.
    pub(crate) fn of(
        grant: Option<&Grant>,
        call: &Invocation,
        generation: &Generation,
        journal: Option<&Journal>,
        has_native: bool,
    ) -> Result<Self, Error> {
        let verb = call.command;
        // What earlier calls left is taken back wherever it is, whatever the policy says by now.
        let network = match verb {
            Command::Gc => journal::list(Path::new(paths::JOURNAL), Some(&call.config.name))
                .map_err(|e| Error::internal(e.to_string()))?,
            _ => Vec::new(),
        };
        let entries: Vec<&Entry> =
            journal.into_iter().flat_map(Journal::pending).chain(network.iter().flat_map(|one| &one.pending)).collect();
        let delegates = delegates(grant, call.config.ipam_type.as_deref(), generation);
        let grants = || grant.into_iter().chain(&delegates);

        let state = [paths::JOURNAL, paths::LEASE_INDEX, paths::NOTES];
        if matches!(verb, Command::Add | Command::Gc) {
            for directory in state.iter().filter(|directory| !Path::new(directory).exists()) {
                // Who needs it says why it can't be made.
                let _ = DirBuilder::new().recursive(true).mode(0o700).create(directory);
            }
        }
        // Their permission would be for nothing, and each costs every pod.
        let has_notes = verb != Command::Add
            || grants().any(|grant| grant.imports.contains("kv"))
            || entries.iter().any(|entry| matches!(entry.undo, Undo::RemoveNote { .. }));
        let state = state.iter().filter(|directory| has_notes || **directory != paths::NOTES);
        let mut writable: Vec<PathBuf> = state.chain(&[SYSCTLS, NULL]).map(PathBuf::from).collect();
        let leases = grants().any(|grant| grant.imports.contains("leases"));
        let roots = stores::roots(generation, &call.config, leases && verb == Command::Add);
        let mut needed = Vec::new();
        for root in roots.iter().filter(|_| leases) {
            let network = root.join(&call.config.name);
            needed.extend([
                (network.join("lock"), AccessFlags::R_OK),
                (network, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK),
                (root.clone(), AccessFlags::W_OK | AccessFlags::X_OK),
            ]);
        }
        let files = grants().flat_map(|grant| grant.files.values());
        needed.extend(files.map(|path| (PathBuf::from(path), AccessFlags::R_OK)));
        writable.extend(roots);
        // A file that another implementation has left for the attachment goes with DEL; which directory it is in only the plugin knows.
        let takes_files = |grant: &Grant| verb == Command::Del && grant.imports.contains("files");
        writable.extend(grants().flat_map(|grant| grant.whole_data_dirs(takes_files(grant))).map(PathBuf::from));
        writable.extend(entries.iter().filter_map(|entry| match &entry.undo {
            Undo::ReleaseLease { directory, .. } => Some(directory.clone()),
            _ => None,
        }));
        // What takes a call back goes to the same agent, by the grant of the plugin that made it.
        let callers: BTreeSet<&str> = entries
            .iter()
            .filter(|entry| matches!(entry.undo, Undo::Call { .. }))
            .map(|entry| entry.plugin.as_str())
            .filter(|plugin| grants().all(|grant| grant.plugin != *plugin))
            .collect();
        let callers: Vec<Grant> =
            callers.into_iter().filter_map(|plugin| generation.grant(plugin).ok().flatten()).collect();
        let addresses = || {
            grants()
                .chain(&callers)
                .flat_map(|grant| grant.endpoints.values())
                .map(|endpoint| endpoint.address.as_str())
        };
        let all = writable.clone();
        // Looked at by its bytes first: of paths that are written in different ways both get a rule.
        let is_below = |path: &Path, other: &Path| {
            let (bytes, others) = (path.as_os_str().as_bytes(), other.as_os_str().as_bytes());
            bytes.len() > others.len() && bytes.starts_with(others) && path.starts_with(other)
        };
        writable.retain(|path| !all.iter().any(|other| is_below(path, other)));
        writable.dedup();
        let allowed = Self {
            writable,
            needed,
            tcp: addresses().any(|address| !address.starts_with(UNIX)),
            unix: addresses().any(|address| address.starts_with(UNIX)),
            tap: verb == Command::Add && grants().any(|grant| grant.tap),
            dhcp: grants().any(|grant| grant.imports.contains("dhcp"))
                || entries.iter().any(|entry| matches!(entry.undo, Undo::ReleaseDhcp { .. })),
            signals: has_native,
            modes: grants().any(takes_files),
        };
        generation.keep(delegates);
        Ok(allowed)
    }
}

/// The plugins that may run in this process in the course of a call, beside the one that is called: the address manager of the
/// configuration, the only one that a pattern in `delegates` can be, and those that policy names, with theirs.
fn delegates(grant: Option<&Grant>, manager: Option<&str>, generation: &Generation) -> Vec<Grant> {
    let mut found: Vec<Grant> = Vec::new();
    let mut names: Vec<String> = manager.map(str::to_owned).into_iter().collect();
    let named = |of: &Grant| -> Vec<String> {
        of.delegates.iter().filter(|entry| !entry.contains(['*', '?'])).cloned().collect()
    };
    names.extend(grant.map(named).unwrap_or_default());
    while let Some(name) = names.pop() {
        if grant.into_iter().chain(&found).any(|known| known.plugin == name) {
            continue;
        }
        // One that can't be used says so when it is asked for.
        if let Ok(Some(grant)) = generation.grant(&name) {
            names.extend(named(&grant));
            found.push(grant);
        }
    }
    found
}
