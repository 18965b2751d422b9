//! The active generation: grants and compiled components, as `sandwirectl apply` left them.
//!
//! A compiled component is native code: wasmtime checks its header and then trusts every byte. So it is treated as an
//! executable: root's, not writable by others, opened once, checked on the open file, and mapped through that file.
#![allow(unsafe_code)]

use crate::guest::no_memory;
use crate::prepared;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use sandwire_cni::{Error, code};
use sandwire_policy::{Grant, paths};
use sandwire_state::{Outcome, StateError};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wasmtime::Engine;
use wasmtime::component::Component;

/// The directory of the active generation, held open: a call sees this one or the next, never a mix, even if
/// `sandwirectl apply` switches while it runs.
#[derive(Debug, Clone)]
pub(crate) struct Generation {
    directory: Result<Arc<OwnedFd>, Error>,
    /// Those that were looked at and may be asked for.
    kept: Arc<Mutex<Vec<Grant>>>,
}

fn error(code: u32, msg: String, details: impl Into<String>) -> Error {
    Error { code, msg, details: details.into() }
}

/// Whether it is what a user namespace shows in place of users that it does not have, the node's root among them
/// (user_namespaces(7)).
fn is_of_nobody_here(user: u32) -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let overflow = std::fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    !map.is_empty() && !map.split_whitespace().eq(["0", "0", "4294967295"]) && overflow.trim().parse() == Ok(user)
}

/// Checks that only root could have written what is behind an open file, of this name in the generation. How many names it has
/// says nothing: backups are made of links.
fn trusted(file: &OwnedFd, kind: SFlag, what: &str, name: &str) -> Result<(), Error> {
    let stat = fstat(file).map_err(|e| error(code::IO, format!("could not look at {what}"), e.desc()))?;
    let refuse = |why: String| {
        Err(error(
            code::COMPONENT_UNTRUSTED,
            format!("{what} can't be trusted: {why}"),
            format!(
                "whoever can write {}/{name} can run any code as root; find out who changed it, make it root's alone (chown root:root, chmod go-w), then run: sandwirectl apply",
                paths::ACTIVE
            ),
        ))
    };
    if stat.st_mode & SFlag::S_IFMT.bits() != kind.bits() {
        return refuse("it is not of the right kind (a link or special file is in its place)".into());
    }
    if stat.st_uid != 0 && is_of_nobody_here(stat.st_uid) {
        return Err(error(
            code::COMPONENT_UNTRUSTED,
            format!(
                "{what} can't be trusted: sandwire runs in a user namespace, in which the node's root is user {}",
                stat.st_uid
            ),
            "rootless containers (podman, nerdctl) are not supported: give them the reference plugins, in a directory of their own",
        ));
    }
    if stat.st_uid != 0 {
        return refuse(format!("it belongs to user {}, not to root", stat.st_uid));
    }
    if stat.st_mode & 0o022 != 0 {
        return refuse(format!("its mode {:04o} lets others write it", stat.st_mode & 0o7777));
    }
    Ok(())
}

impl Generation {
    /// Opens the active generation.
    ///
    /// # Errors
    /// Code `NOT_INSTALLED` when there is none, `COMPONENT_UNTRUSTED` when others than root can write it.
    pub(crate) fn active() -> Result<Self, Error> {
        if let Some(directory) = prepared::directory() {
            return Ok(Self::of(directory));
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(paths::ACTIVE, flags, Mode::empty()).map_err(|e| {
            error(
                code::NOT_INSTALLED,
                format!("no plugins are installed for sandwire: could not open {:?}", paths::ACTIVE),
                format!("{}; run: sandwirectl install", e.desc()),
            )
        })?;
        trusted(&directory, SFlag::S_IFDIR, "the directory of compiled components", "")?;
        Ok(Self::of(directory))
    }

    /// The one in a directory that was found trusted.
    fn of(directory: OwnedFd) -> Self {
        Self { directory: Ok(Arc::new(directory)), kept: Arc::default() }
    }

    /// Opens the one in this directory.
    ///
    /// # Errors
    /// As `active`.
    pub(crate) fn at(path: &Path) -> Result<Self, Error> {
        let directory = open(path, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|e| error(code::NOT_INSTALLED, format!("could not open {}", path.display()), e.desc()))?;
        trusted(&directory, SFlag::S_IFDIR, "the directory of compiled components", "")?;
        Ok(Self::of(directory))
    }

    /// None that can be used, and why: for DEL, which undoes what the journal says without any plugin.
    pub(crate) fn unusable(why: Error) -> Self {
        Self { directory: Err(why), kept: Arc::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Grant>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Spares the next who asks for one of these that it is read again.
    pub(crate) fn keep(&self, grants: Vec<Grant>) {
        *self.kept() = grants;
    }

    /// Opens one of its files, which nobody has looked at yet.
    ///
    /// # Errors
    /// Why there is no generation; within, why the file can't be opened.
    pub(crate) fn open_file(&self, name: &str) -> Result<nix::Result<OwnedFd>, Error> {
        let directory = self.directory.as_ref().map_err(Clone::clone)?;
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        Ok(openat(&**directory, name, flags, Mode::empty()))
    }

    /// The name of the file that has the grant of a plugin.
    pub(crate) fn policy_of(plugin: &str) -> String {
        format!("{plugin}.json")
    }

    /// What the inode of one of its files says; none when there is no such file.
    pub(crate) fn look_at(&self, name: &str) -> Option<FileStat> {
        fstatat(&**self.directory.as_ref().ok()?, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()
    }

    /// The plugins that it has, sorted.
    ///
    /// # Errors
    /// When it can't be listed.
    pub(crate) fn plugins(&self) -> Outcome<Vec<String>> {
        let failed = |error: std::io::Error| StateError::Other(format!("could not list {}: {error}", paths::ACTIVE));
        let directory = self.directory.as_ref().map_err(|error| StateError::Other(error.to_string()))?;
        let mut plugins = Vec::new();
        // By the descriptor: the path may lead to the next generation by now.
        for entry in std::fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd())).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            plugins.extend(name.to_str().and_then(|name| name.strip_suffix(".json")).map(str::to_owned));
        }
        plugins.sort_unstable();
        Ok(plugins)
    }

    /// The grant of a plugin; `None` when the generation has no plugin of this name.
    ///
    /// # Errors
    /// When it can't be read or trusted.
    pub(crate) fn grant(&self, plugin: &str) -> Result<Option<Grant>, Error> {
        if plugin.is_empty() || plugin.contains('/') {
            return Ok(None);
        }
        if let Some(kept) = self.kept().extract_if(.., |kept| kept.plugin == plugin).next() {
            return Ok(Some(kept));
        }
        if let Some(grant) = prepared::grant(self, plugin) {
            return Ok(Some(grant));
        }
        let what = format!("the compiled policy of plugin {plugin:?}");
        let file = match self.open_file(&Self::policy_of(plugin))? {
            Ok(file) => file,
            Err(nix::errno::Errno::ENOENT) => return Ok(None),
            Err(e) => return Err(error(code::COMPONENT_UNTRUSTED, format!("could not open {what}"), e.desc())),
        };
        trusted(&file, SFlag::S_IFREG, &what, &Self::policy_of(plugin))?;
        let mut text = String::new();
        std::fs::File::from(file)
            .read_to_string(&mut text)
            .map_err(|e| error(code::IO, format!("could not read {what}"), e.to_string()))?;
        let grant: Grant = serde_json::from_str(&text).map_err(|e| {
            error(
                code::COMPONENT_STALE,
                format!("{what} was made by another release of sandwire"),
                format!("{e}; run: sandwirectl apply"),
            )
        })?;
        if let Some(why) = &grant.refused {
            return Err(error(code::POLICY_DENIED, format!("plugin {plugin:?} may not run on this node"), why));
        }
        Ok(Some(grant))
    }

    /// Maps the compiled component of a grant.
    ///
    /// # Errors
    /// Codes `COMPONENT_MISSING`, `COMPONENT_UNTRUSTED`, `COMPONENT_STALE`.
    pub(crate) fn component(&self, engine: &Engine, grant: &Grant) -> Result<Component, Error> {
        self.map(engine, grant, &self.component_file(grant)?)
    }

    /// Opens it, if it can be trusted.
    ///
    /// # Errors
    /// As `component`.
    pub(crate) fn component_file(&self, grant: &Grant) -> Result<OwnedFd, Error> {
        let what = format!("the compiled component of plugin {:?}", grant.plugin);
        if grant.compiled.contains('/') {
            return Err(error(code::COMPONENT_UNTRUSTED, format!("{what} has a path for a name"), ""));
        }
        let file = self.open_file(&grant.compiled)?.map_err(|e| {
            let code = if e == nix::errno::Errno::ENOENT { code::COMPONENT_MISSING } else { code::COMPONENT_UNTRUSTED };
            error(
                code,
                format!("could not open {what}"),
                format!("{}: {}; run: sandwirectl apply", grant.compiled, e.desc()),
            )
        })?;
        trusted(&file, SFlag::S_IFREG, &what, &grant.compiled)?;
        if grant.wasmtime != crate::engine::WASMTIME_VERSION {
            return Err(error(
                code::COMPONENT_STALE,
                format!("{what} does not fit this sandwire"),
                format!(
                    "it was compiled by wasmtime {}, this is {}; run: sandwirectl apply",
                    grant.wasmtime,
                    crate::engine::WASMTIME_VERSION
                ),
            ));
        }
        Ok(file)
    }

    /// Maps what `component_file` has opened.
    ///
    /// # Errors
    /// As `component`.
    pub(crate) fn map(&self, engine: &Engine, grant: &Grant, file: &OwnedFd) -> Result<Component, Error> {
        let what = format!("the compiled component of plugin {:?}", grant.plugin);
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        // SAFETY: deserialize_file maps native code. The file is a regular one of root's in a directory of root's, neither
        // writable by anyone else, checked on this very descriptor; `sandwirectl apply` writes such files once, complete,
        // under a name that is never written again.
        unsafe { Component::deserialize_file(engine, &path) }.map_err(|e| {
            let text = format!("{e:#}");
            no_memory(&grant.plugin, &text).unwrap_or_else(|| {
                error(
                    code::COMPONENT_STALE,
                    format!("{what} does not fit this sandwire"),
                    format!("{text} (it is damaged, or was compiled by another release); run: sandwirectl apply"),
                )
            })
        })
    }
}
