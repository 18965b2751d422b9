//! Plugins that are not ours, as delegates: executed by a child that was forked before privilege was dropped.
//!
//! The child has the privilege that such a plugin needs, so it takes no orders beyond "run this type with this verb and
//! this configuration", and knows the types, verbs and containers of this call itself: after a break-out from the sandbox this process
//! must not be a way to run anything else.
#![allow(unsafe_code)]

use crate::deadline::Deadline;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{ForkResult, Pid};
use sandwire_cni::{Command as Verb, Error, code};
use sandwire_policy::{Grant, matches_any};
use sandwire_state::journal::{Entry, Undo};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What a native plugin's environment has of the call that it is in, for a program of ours that it calls in turn.
pub(crate) const WITHIN: &str = "SANDWIRE_WITHIN";

/// An interface of a container in one word.
pub(crate) fn name_of(container_id: &str, ifname: &str) -> String {
    format!("{container_id}/{ifname}")
}

#[derive(Serialize, Deserialize)]
struct Order {
    plugin: String,
    verb: String,
    /// GC takes back what many have; its own environment names none of them.
    container_id: String,
    ifname: String,
    config: String,
}

#[derive(Serialize, Deserialize)]
struct Report {
    ok: bool,
    stdout: String,
    fault: String,
}

/// What a type is on this node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A link to this very binary: runs in this process.
    Ours,
    /// Another program.
    Native(PathBuf),
}

/// Looks a plugin type up as the specification says (section 4): the first regular file of that name in CNI_PATH.
///
/// # Errors
/// The reference's text when there is none.
pub(crate) fn find(plugin: &str, path: &[PathBuf]) -> Result<Found, Error> {
    let quoted: Vec<String> = path.iter().map(|p| p.display().to_string()).collect();
    let missing = || Error::internal(format!("failed to find plugin {plugin:?} in path [{}]", quoted.join(" ")));
    if plugin.is_empty() || plugin.contains('/') || plugin == "." || plugin == ".." {
        return Err(Error::internal(format!("invalid plugin name: {plugin}")));
    }
    for directory in path {
        let file = directory.join(plugin);
        let Ok(meta) = std::fs::metadata(&file) else { continue };
        if !meta.is_file() {
            continue;
        }
        return Ok(if is_this_program(&file, &meta) { Found::Ours } else { Found::Native(file) });
    }
    Err(missing())
}

/// Whether a file is the program that runs, or a copy of it: who copies a directory of links copies what they lead to.
fn is_this_program(file: &Path, meta: &std::fs::Metadata) -> bool {
    const SELF: &str = "/proc/self/exe";
    type Identity = (u64, u64, u64);
    static OWN: OnceLock<Option<Identity>> = OnceLock::new();
    static CALLED: OnceLock<Option<Identity>> = OnceLock::new();
    let identity = |meta: &std::fs::Metadata| -> Identity { (meta.dev(), meta.ino(), meta.len()) };
    // What calling it again by the same path would execute: told in a fifth of the time.
    let called = CALLED.get_or_init(|| std::fs::metadata(called_as()?).ok().map(|own| identity(&own)));
    if *called == Some(identity(meta)) {
        return true;
    }
    let Some(own) = *OWN.get_or_init(|| std::fs::metadata(SELF).ok().map(|own| identity(&own))) else { return false };
    let (.., length) = own;
    own == identity(meta) || (length == meta.len() && is_alike(file, Path::new(SELF)).unwrap_or(false))
}

/// By which path this program was executed, if it is one from the root (getauxval(3)).
fn called_as() -> Option<&'static Path> {
    // SAFETY: only looks a number up.
    let name = std::ptr::with_exposed_provenance(unsafe { libc::getauxval(libc::AT_EXECFN) } as usize);
    // SAFETY: the kernel's text, which ends with a zero and stays where it is; without one the answer is zero.
    let name = (!std::ptr::eq(name, std::ptr::null())).then(|| unsafe { CStr::from_ptr(name) })?;
    Some(Path::new(OsStr::from_bytes(name.to_bytes()))).filter(|path| path.is_absolute())
}

fn is_alike(one: &Path, other: &Path) -> std::io::Result<bool> {
    let open = |file| std::io::Result::Ok(BufReader::with_capacity(256 << 10, File::open(file)?));
    let (mut one, mut other) = (open(one)?, open(other)?);
    loop {
        let (a, b) = (one.fill_buf()?, other.fill_buf()?);
        let length = a.len().min(b.len());
        if length == 0 || a.get(..length) != b.get(..length) {
            return Ok(a.is_empty() && b.is_empty());
        }
        one.consume(length);
        other.consume(length);
    }
}

/// What one call may have executed.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    plugins: Vec<String>,
    verbs: Vec<&'static str>,
    /// Ids of the call's container, or of those that GC may meet.
    containers: BTreeSet<String>,
}

impl Orders {
    /// Those of a call of `verb` for `containers`: the native plugins among `named` and among the delegates that `entries` say
    /// are to be taken back, as far as policy lets them be executed.
    pub(crate) fn of<'a>(
        grant: &Grant,
        verb: Verb,
        containers: BTreeSet<String>,
        named: Option<&'a str>,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Self {
        let of_entry = |entry: &'a Entry| match &entry.undo {
            Undo::Delegate { plugin, .. } => Some(plugin.as_str()),
            _ => None,
        };
        let mut plugins: Vec<String> = Vec::new();
        for plugin in named.into_iter().chain(entries.into_iter().filter_map(of_entry)) {
            if matches_any(&grant.native_delegates, plugin) && !plugins.iter().any(|known| known == plugin) {
                plugins.push(plugin.to_owned());
            }
        }
        let mut verbs = vec![verb.as_str()];
        // What ADD has begun, and what GC finds, is taken back by DEL.
        if matches!(verb, Verb::Add | Verb::Gc) {
            verbs.push(Verb::Del.as_str());
        }
        Self { plugins, verbs, containers }
    }

    /// Whether this belongs to the call.
    ///
    /// # Errors
    /// Why not.
    fn permit(&self, plugin: &str, verb: &str, container_id: &str) -> Result<(), String> {
        if !self.plugins.iter().any(|known| known == plugin) {
            return Err("only the one that \"ipam\" names in the configuration can be executed".into());
        }
        if !self.verbs.contains(&verb) {
            return Err(format!("{verb} does not belong to this call"));
        }
        // GC and STATUS are of no container.
        if !container_id.is_empty() && !self.containers.contains(container_id) {
            return Err(format!("container {container_id:?} does not belong to this call"));
        }
        Ok(())
    }

    /// Whether nothing may have to be executed.
    pub(crate) fn are_none(&self) -> bool {
        self.plugins.is_empty()
    }
}

/// The parent's ends of the children: of an ADD that hangs the child is killed with its plugin, and another takes back what
/// the plugin may have done.
#[derive(Debug)]
pub(crate) struct NativeRunner {
    children: Vec<Child>,
    orders: Orders,
}

#[derive(Debug)]
struct Child {
    socket: BufReader<UnixStream>,
    id: Pid,
}

impl NativeRunner {
    /// Forks the child. `environment` is what the runtime gave this process.
    ///
    /// # Errors
    /// Code `IO`.
    pub(crate) fn fork(orders: Orders, path: &[PathBuf], environment: &[(String, String)]) -> Result<Self, Error> {
        let failed = |e: String| Error {
            code: code::IO,
            msg: "could not start the child for native plugins".into(),
            details: e,
        };
        let mut children = Vec::new();
        for _ in 0..orders.verbs.len() {
            let (ours, theirs) = UnixStream::pair().map_err(|e| failed(e.to_string()))?;
            // SAFETY: this process has one thread (sandwire starts none), so the child may allocate and use std.
            match unsafe { nix::unistd::fork() }.map_err(|e| failed(e.desc().to_owned()))? {
                ForkResult::Parent { child } => children.push(Child { socket: BufReader::new(ours), id: child }),
                ForkResult::Child => {
                    drop((ours, children));
                    // A group of its own, so that a delegate that hangs can be ended together with what it started.
                    let _ = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
                    serve(theirs, &orders, path, environment);
                    // SAFETY: ends without running the parent's exit handlers.
                    unsafe { libc::_exit(0) }
                }
            }
        }
        Ok(Self { children, orders })
    }

    /// Whether this belongs to the call. The child asks itself too; here it is asked before anything is written down.
    ///
    /// # Errors
    /// That it does not.
    pub(crate) fn permit(&self, plugin: &str, verb: &str, container_id: &str) -> Result<(), Error> {
        let permitted = self.orders.permit(plugin, verb, container_id);
        permitted.map_err(|why| Error::internal(format!("could not run native plugin {plugin:?}: {why}")))
    }

    /// Runs one verb of one plugin; its stdout.
    ///
    /// # Errors
    /// The plugin's own error object, unchanged; or why it gave none.
    pub(crate) fn run(
        &mut self,
        plugin: &str,
        verb: &str,
        (container_id, ifname): (&str, &str),
        config: &str,
        deadline: &Deadline,
    ) -> Result<String, Error> {
        let broken = |e: String| Error::internal(format!("could not run native plugin {plugin:?}: {e}"));
        let order = Order {
            plugin: plugin.into(),
            verb: verb.into(),
            container_id: container_id.into(),
            ifname: ifname.into(),
            config: config.into(),
        };
        let mut line = serde_json::to_string(&order).map_err(|e| broken(e.to_string()))?;
        line.push('\n');
        let Some(child) = self.children.last_mut() else { return Err(broken("an earlier one was killed".into())) };
        child.socket.get_mut().write_all(line.as_bytes()).map_err(|e| broken(e.to_string()))?;
        let until = Instant::now() + deadline.left().max(Duration::from_secs(5));
        if let Err(why) = child.wait(until) {
            // The group: the child and the plugin that hangs. Whatever the plugin had done is its DEL's to undo.
            let _ = nix::sys::signal::killpg(child.id, nix::sys::signal::Signal::SIGKILL);
            self.children.pop();
            let msg = format!("native plugin {plugin:?} {why}");
            return Err(Error { code: code::DEADLINE, msg, details: String::new() });
        }
        let mut answer = String::new();
        child.socket.read_line(&mut answer).map_err(|e| broken(e.to_string()))?;
        let report: Report =
            serde_json::from_str(&answer).map_err(|_| broken("its runner ended without an answer".into()))?;
        if !report.fault.is_empty() {
            return Err(broken(report.fault));
        }
        if report.ok {
            return Ok(report.stdout);
        }
        Err(serde_json::from_str(&report.stdout).unwrap_or_else(|_| {
            broken(match report.stdout.trim() {
                "" => "it failed without a message".to_owned(),
                text => text.to_owned(),
            })
        }))
    }
}

impl Child {
    fn wait(&self, until: Instant) -> Result<(), String> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("did not finish in time".into());
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.socket.get_ref().as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) | Err(nix::errno::Errno::EINTR) if !Deadline::interrupted() => {}
                Ok(0) | Err(_) => return Err("was interrupted".into()),
                Ok(_) => return Ok(()),
            }
        }
    }
}

fn serve(socket: UnixStream, orders: &Orders, path: &[PathBuf], environment: &[(String, String)]) {
    let Ok(mut out) = socket.try_clone() else { return };
    for line in BufReader::new(socket).lines() {
        let Ok(Ok(order)) = line.map(|line| serde_json::from_str::<Order>(&line)) else { return };
        let report = match execute(&order, orders, path, environment) {
            Ok(report) => report,
            Err(fault) => Report { ok: false, stdout: String::new(), fault },
        };
        let Ok(mut text) = serde_json::to_string(&report) else { return };
        text.push('\n');
        if out.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

fn execute(
    order: &Order,
    orders: &Orders,
    path: &[PathBuf],
    environment: &[(String, String)],
) -> Result<Report, String> {
    orders.permit(&order.plugin, &order.verb, &order.container_id)?;
    let file = match find(&order.plugin, path) {
        Ok(Found::Native(file)) => file,
        Ok(Found::Ours) => return Err("it is not native".into()),
        Err(error) => return Err(error.msg),
    };
    let (stdout, ok) = run_once(&file, order, environment).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(Report { ok, stdout, fault: String::new() })
}

fn run_once(file: &Path, order: &Order, environment: &[(String, String)]) -> std::io::Result<(String, bool)> {
    let container = Some(("CNI_CONTAINERID", &order.container_id)).filter(|(_, id)| !id.is_empty());
    let mut child = Command::new(file)
        .arg0(file)
        .env_clear()
        .envs(environment.iter().map(|(k, v)| (k, v)))
        .envs(container)
        .env("CNI_COMMAND", &order.verb)
        .env("CNI_IFNAME", &order.ifname)
        .env(WITHIN, name_of(&order.container_id, &order.ifname))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin may answer without reading all of it.
        let _ = stdin.write_all(order.config.as_bytes());
    }
    let mut text = String::new();
    if let Some(stdout) = child.stdout.take() {
        // A result is small; a plugin that writes without end must not fill our memory.
        stdout.take(4 << 20).read_to_string(&mut text)?;
    }
    Ok((text, child.wait()?.success()))
}
