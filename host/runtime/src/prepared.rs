//! Plugins that are mapped, linked and started before a call begins.
//!
//! `sandwirectl apply` lets one process make every plugin of a generation ready and write its memory to a file, and calls begin with
//! that memory (`image` in the CNI binary). This is what the memory is kept for. What belongs to a process and not to its memory
//! each call does again: handlers of signals, the mapping of code and memories, the open file behind them.
//!
//! Those of which no code runs when they are started are started too, once: a second one in the same process is started as ever.
//!
//! A file that is not the one that was mapped then, byte for byte as far as its inode tells, is looked at as without all this.
#![allow(unsafe_code)]

mod range;

use crate::confine::{self, Allowed};
use crate::guest::{self, Guest, Started};
use crate::privilege;
use crate::store::Generation;
use crate::{engine, imports};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::{FileStat, fstat};
use range::Range;
use sandwire_cni::{Error, code};
use sandwire_policy::{Grant, paths};
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use wasmtime::Engine;
use wasmtime::component::{ComponentExportIndex, InstancePre};

/// The active generation (`paths::ACTIVE`), the image in it, and the argument that asks the CNI binary for one: as texts of C,
/// for what runs before the program is relocated.
pub const ACTIVE: &CStr = c"/var/lib/sandwire/active";
const _: () = assert!(is(ACTIVE, paths::ACTIVE));
/// See [`ACTIVE`].
pub const IMAGE: &CStr = c"image";
/// See [`ACTIVE`].
pub const PREPARE: &CStr = c"prepare";

const fn is(text: &CStr, other: &str) -> bool {
    let (mut left, mut right) = (text.to_bytes(), other.as_bytes());
    while let ([a, more @ ..], [b, others @ ..]) = (left, right) {
        if *a != *b {
            return false;
        }
        (left, right) = (more, others);
    }
    left.is_empty() && right.is_empty()
}

static PREPARED: OnceLock<Prepared> = OnceLock::new();

/// The directory of the generation whose plugins are ready.
static DIRECTORY: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// The signals by which wasmtime knows of a guest's fault (`foreach_handler`).
const SIGNALS: [libc::c_int; 3] = [libc::SIGSEGV, libc::SIGILL, libc::SIGFPE];

/// Numbers of open files from here on are those of mapped components. A call has never so many open, and below 64 the kernel
/// needs no larger table for them (NR_OPEN_DEFAULT).
const FIRST_NUMBER: i32 = 40;

/// Functions of plugins that are looked up before, with the interfaces that export them: what calls ask for (`verbs::called`).
const EXPORTS: [(&str, &str); 5] =
    [("attach", "add"), ("attach", "del"), ("check", "check"), ("gc", "gc"), ("status", "status")];

struct Prepared {
    engine: Engine,
    /// wasmtime's handlers.
    handlers: Vec<(libc::c_int, libc::sigaction)>,
    plugins: Vec<Plugin>,
}

/// A plugin that is ready.
pub(crate) struct Plugin {
    grant: Grant,
    /// Of the file that the grant is in, and of the compiled component.
    policy: Identity,
    file: Identity,
    /// The number of the open file that wasmtime maps its memory from.
    number: i32,
    code: Vec<Range>,
    is_mapped: AtomicBool,
    instance: InstancePre<Guest>,
    started: Mutex<Option<Started>>,
    /// The memories of what is started.
    memory: Vec<Range>,
    /// In the order of [`EXPORTS`].
    exports: [Option<ComponentExportIndex>; EXPORTS.len()],
}

/// A file, as its inode tells, with who may write it: size, seconds and nanoseconds of the last change, mode, owner. Not its number,
/// which is another when a node's disk is made of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity([i64; 5]);

impl From<FileStat> for Identity {
    fn from(stat: FileStat) -> Self {
        Self([stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_mode.into(), stat.st_uid.into()])
    }
}

/// Tells of the directory whose plugins this process has ready.
pub fn found(directory: OwnedFd) {
    *DIRECTORY.lock().unwrap_or_else(PoisonError::into_inner) = Some(directory);
}

/// That directory, for the first who asks.
pub(crate) fn directory() -> Option<OwnedFd> {
    DIRECTORY.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Whether this process began with plugins that are ready.
pub fn is_ready() -> bool {
    PREPARED.get().is_some()
}

/// The engine of the plugins that are ready.
pub(crate) fn engine() -> Option<Engine> {
    let prepared = PREPARED.get()?;
    for (signal, action) in &prepared.handlers {
        // SAFETY: wasmtime's own handler, as it set it in the process whose memory this is; its code is where it was then.
        unsafe { libc::sigaction(*signal, action, std::ptr::null_mut()) };
    }
    Some(prepared.engine.clone())
}

/// The grant of a plugin that is ready, if its file is still what it was.
pub(crate) fn grant(generation: &Generation, plugin: &str) -> Option<Grant> {
    let plugin = PREPARED.get()?.plugins.iter().find(|ready| ready.grant.plugin == plugin)?;
    let is_same = generation
        .look_at(&Generation::policy_of(&plugin.grant.plugin))
        .is_some_and(|stat| Identity::from(stat) == plugin.policy);
    is_same.then(|| plugin.grant.clone())
}

/// The plugin of a grant, if it is ready, and its file is still what it was.
pub(crate) fn plugin(generation: &Generation, grant: &Grant) -> Option<&'static Plugin> {
    let plugins = &PREPARED.get()?.plugins;
    let plugin = plugins.iter().find(|plugin| plugin.grant == *grant && plugin.map(generation));
    if plugin.is_none() {
        // This one will be mapped elsewhere, and the engine knows code of all of them.
        let absent = plugins.iter().filter(|plugin| !plugin.is_mapped.load(Ordering::Relaxed));
        absent.flat_map(|plugin| &plugin.code).for_each(Range::hold);
    }
    plugin
}

/// How many plugins calls have ready, of how many that may run; none when they have no memory image.
pub fn count() -> Option<(usize, usize)> {
    let prepared = PREPARED.get()?;
    let generation = Generation::active().ok()?;
    let good = prepared.plugins.iter().filter(|plugin| {
        let is = |name: &str, then: Identity| generation.look_at(name).map(Identity::from) == Some(then);
        is(&Generation::policy_of(&plugin.grant.plugin), plugin.policy) && is(&plugin.grant.compiled, plugin.file)
    });
    let all = generation.plugins().ok()?;
    let run = all.iter().filter(|plugin| matches!(generation.grant(plugin), Ok(Some(_))));
    Some((good.count(), run.count()))
}

impl Plugin {
    /// What its code can be started by.
    pub(crate) fn instance(&self) -> &InstancePre<Guest> {
        &self.instance
    }

    /// Itself, started, for the first who asks: no code of it has run yet.
    pub(crate) fn started(&self) -> Option<Started> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// One of its functions, if it has it.
    pub(crate) fn export(&self, engine: &Engine, interface: &str, function: &str) -> Option<ComponentExportIndex> {
        match EXPORTS.iter().zip(&self.exports).find(|(export, _)| **export == (interface, function)) {
            Some((_, index)) => *index,
            None => guest::export(engine, self.instance.component(), interface, function),
        }
    }

    /// Whether its code is where it was linked for; once done for all calls of this process.
    fn map(&self, generation: &Generation) -> bool {
        if self.is_mapped.load(Ordering::Relaxed) {
            return true;
        }
        let Ok(Ok(file)) = generation.open_file(&self.grant.compiled) else { return false };
        let is_mapped = fstat(&file).map(Identity::from) == Ok(self.file)
            && self.code.iter().all(|range| range.map(&file))
            && fcntl(&file, FcntlArg::F_DUPFD_CLOEXEC(self.number)) == Ok(self.number);
        if is_mapped && !self.memory.iter().all(|range| range.map(&file)) {
            // It can still be started elsewhere. What of its memory was mapped stays, nobody's.
            std::mem::forget(self.started());
        }
        self.is_mapped.store(is_mapped, Ordering::Relaxed);
        is_mapped
    }
}

fn failed(what: &str, why: impl std::fmt::Display) -> Error {
    Error { code: code::IO, msg: format!("could not prepare the plugins: {what}"), details: why.to_string() }
}

/// Makes all plugins of a generation ready that can run. Afterwards this process can write nothing but that directory, and has no
/// capability any more. `together(true)` and `together(false)` are around the making of what a call will write to.
///
/// # Errors
/// Those of `Generation`; code `IO` when the process has no more room for open files.
pub fn prepare(directory: &Path, together: fn(bool)) -> Result<(), Error> {
    let generation = Generation::at(directory)?;
    let engine = engine::engine().map_err(|error| failed("engine", error))?;
    // Until the lowest free number is one of those that a call never has.
    loop {
        let filler = File::open("/dev/null").map_err(|error| failed("/dev/null", error))?;
        if filler.into_raw_fd() >= FIRST_NUMBER {
            break;
        }
    }
    // Compiled from what plugins say is what fills their tables: it runs behind the same walls as in a call.
    let allowed = Allowed { writable: vec![directory.to_owned()], ..Allowed::default() };
    confine::files(&allowed)?;
    privilege::drop_to(false, &[])?;
    confine::calls(&allowed)?;
    confine::ready();
    let mut plugins = Vec::new();
    for name in generation.plugins().map_err(|error| failed("list", error))? {
        // One that is refused, or can't be linked, says why when it is called.
        if let Ok(Some(grant)) = generation.grant(&name)
            && let Some(plugin) = ready(&generation, &engine, grant, together)?
        {
            plugins.push(plugin);
        }
    }
    let handlers = SIGNALS.into_iter().map(|signal| {
        let mut action = std::mem::MaybeUninit::uninit();
        // SAFETY: the kernel's answer fills it in; without an answer there is an error.
        unsafe {
            let asked = libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
            Errno::result(asked).map(|_| (signal, action.assume_init()))
        }
    });
    let handlers = handlers.collect::<nix::Result<_>>().map_err(|error| failed("signals", error))?;
    let _ = PREPARED.set(Prepared { engine, handlers, plugins });
    Ok(())
}

/// One of them; none when it can't run.
fn ready(generation: &Generation, engine: &Engine, grant: Grant, together: fn(bool)) -> Result<Option<Plugin>, Error> {
    let Ok(file) = generation.component_file(&grant) else { return Ok(None) };
    let failed = |error: &dyn std::fmt::Display| failed(&grant.compiled, error);
    let its = fstat(&file).map_err(|error| failed(&error))?;
    // The next that is opened gets the lowest number that is free.
    let number = file.try_clone().map_err(|error| failed(&error))?.as_raw_fd();
    let Ok(component) = generation.map(engine, &grant, &file) else { return Ok(None) };
    // SAFETY: open if wasmtime has opened it, which is what is asked; else it is an error.
    let theirs = fstat(unsafe { BorrowedFd::borrow_raw(number) }).map_err(|error| failed(&error))?;
    if (theirs.st_dev, theirs.st_ino) != (its.st_dev, its.st_ino) {
        return Err(failed(&"wasmtime has opened it under another number than the lowest free one"));
    }
    let Some(code) = range::code(component.image_range()).map_err(|error| failed(&error))? else { return Ok(None) };
    let Ok(instance) = imports::link(engine, &component, &grant) else { return Ok(None) };
    let exports = EXPORTS.map(|(interface, function)| guest::export(engine, &component, interface, function));
    let policy = generation.look_at(&Generation::policy_of(&grant.plugin)).map(Identity::from);
    let policy = policy.ok_or_else(|| failed(&"its policy is gone"))?;
    let file = File::from(file);
    let started = started(engine, &instance, &grant, &file, together).map_err(|error| failed(&error))?;
    let (started, memory) = started.map_or((None, Vec::new()), |(started, memory)| (Some(started), memory));
    Ok(Some(Plugin {
        policy,
        file: its.into(),
        grant,
        number,
        code,
        is_mapped: AtomicBool::new(false),
        instance,
        started: Mutex::new(started),
        memory,
        exports,
    }))
}

/// A component, started, and its memories, which hold what its file has and nothing else; none when it can't be started without a call.
fn started(
    engine: &Engine,
    instance: &InstancePre<Guest>,
    grant: &Grant,
    file: &File,
    together: fn(bool),
) -> std::io::Result<Option<(Started, Vec<Range>)>> {
    if !grant.no_start {
        return Ok(None);
    }
    let before = range::all()?;
    together(true);
    let started = guest::start(engine, instance, grant);
    together(false);
    let Ok(started) = started else { return Ok(None) };
    let memory = range::since(&before)?;
    for range in &memory {
        if !range.is_unchanged(file)? {
            return Ok(None);
        }
    }
    Ok(Some((started, memory)))
}
