//! Plugins that are mapped and linked before a call begins.
//!
//! `sandwirectl apply` lets one process make every plugin of a generation ready and write its memory to a file, and calls begin with
//! that memory (`image` in the CNI binary). This is what the memory is kept for. What belongs to a process and not to its memory
//! each call does again: handlers of signals, the mapping of the code, the open file behind it.
//!
//! A file that is not the one that was mapped then, byte for byte as far as its inode tells, is looked at as without all this.
#![allow(unsafe_code)]

use crate::guest::{self, Guest};
use crate::store::Generation;
use crate::{engine, imports};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::{FileStat, fstat};
use sandwire_cni::{Error, code};
use sandwire_policy::{Grant, paths};
use std::ffi::{CStr, c_void};
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::path::Path;
use std::ptr::with_exposed_provenance_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use wasmtime::Engine;
use wasmtime::component::{Component, ComponentExportIndex, InstancePre};

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

/// A part of a mapped file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    at: usize,
    length: usize,
    offset: i64,
    access: libc::c_int,
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
        self.is_mapped.store(is_mapped, Ordering::Relaxed);
        is_mapped
    }
}

impl Range {
    fn map(&self, file: &OwnedFd) -> bool {
        let at: *mut c_void = with_exposed_provenance_mut(self.at);
        let how = libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: nothing is there yet, or it fails. The file is a compiled component of root's, and was one when its pages were
        // linked (`Generation::map`); they are not written to.
        unsafe { libc::mmap(at, self.length, self.access, how, file.as_raw_fd(), self.offset) == at }
    }

    /// Those of a component that this process has mapped, if that is all of it, and of its file.
    fn all(component: &Component) -> std::io::Result<Option<Vec<Self>>> {
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        let hex = |text: &str| usize::from_str_radix(text, 16).ok();
        // proc_pid_maps(5): from-to, access, offset, device, inode. Not by the inode: overlayfs has two for a file.
        let range = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            let (from, to) = words.next()?.split_once('-')?;
            let (access, offset) = (words.next()?, hex(words.next()?)?);
            let is_of_a_file = words.nth(1)? != "0" && access.starts_with("r-");
            let (from, to) = (hex(from)?, hex(to)?);
            let executable = if access.contains('x') { libc::PROT_EXEC } else { 0 };
            let range = Self {
                at: from,
                length: to - from,
                offset: i64::try_from(offset).ok()?,
                access: libc::PROT_READ | executable,
            };
            is_of_a_file.then_some(range)
        };
        let image = component.image_range();
        let (from, to) = (image.start.addr(), image.end.addr());
        let all: Vec<Self> = maps.lines().filter_map(range).filter(|range| (from..to).contains(&range.at)).collect();
        let end = all.iter().fold(from, |end, range| if range.at == end { end + range.length } else { end });
        Ok((end >= to).then_some(all))
    }

    /// Keeps everything else away from where it would be: wasmtime takes what is there for it.
    fn hold(&self) {
        let at: *mut c_void = with_exposed_provenance_mut(self.at);
        let how = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: nothing is there yet, or it fails; nobody can read or write what is new.
        unsafe { libc::mmap(at, self.length, libc::PROT_NONE, how, -1, 0) };
    }
}

fn failed(what: &str, why: impl std::fmt::Display) -> Error {
    Error { code: code::IO, msg: format!("could not prepare the plugins: {what}"), details: why.to_string() }
}

/// Makes all plugins of a generation ready that can run.
///
/// # Errors
/// Those of `Generation`; code `IO` when the process has no more room for open files.
pub fn prepare(directory: &Path) -> Result<(), Error> {
    let generation = Generation::at(directory)?;
    let engine = engine::engine().map_err(|error| failed("engine", error))?;
    // Until the lowest free number is one of those that a call never has.
    loop {
        let filler = File::open("/dev/null").map_err(|error| failed("/dev/null", error))?;
        if filler.into_raw_fd() >= FIRST_NUMBER {
            break;
        }
    }
    let mut plugins = Vec::new();
    for name in generation.plugins().map_err(|error| failed("list", error))? {
        // One that is refused, or can't be linked, says why when it is called.
        if let Ok(Some(grant)) = generation.grant(&name)
            && let Some(plugin) = ready(&generation, &engine, grant)?
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
fn ready(generation: &Generation, engine: &Engine, grant: Grant) -> Result<Option<Plugin>, Error> {
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
    let Some(code) = Range::all(&component).map_err(|error| failed(&error))? else { return Ok(None) };
    let Ok(instance) = imports::link(engine, &component, &grant) else { return Ok(None) };
    let exports = EXPORTS.map(|(interface, function)| guest::export(engine, &component, interface, function));
    let policy = generation.look_at(&Generation::policy_of(&grant.plugin)).map(Identity::from);
    let policy = policy.ok_or_else(|| failed(&"its policy is gone"))?;
    Ok(Some(Plugin {
        policy,
        file: its.into(),
        grant,
        number,
        code,
        is_mapped: AtomicBool::new(false),
        instance,
        exports,
    }))
}
