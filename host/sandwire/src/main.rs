//! The CNI binary: `/opt/cni/bin/sandwire`, and a link to it for each plugin type.
//!
//! Reads the environment and stdin, finds out which plugin it is, lets the runtime do the call, prints the result or an
//! error object. Whatever happens, stdout gets one or the other.

#![cfg_attr(not(test), no_main)]

mod crash;
mod heap;
#[cfg(target_arch = "x86_64")]
#[cfg_attr(
    not(target_env = "musl"),
    allow(dead_code, unused_imports, reason = "start, which calls it, replaces what only musl has")
)]
mod image;
#[cfg(any(test, target_env = "musl"))]
mod malloc;
#[cfg(all(target_arch = "x86_64", any(test, target_env = "musl")))]
mod memory;
mod process;
#[cfg(all(target_arch = "x86_64", target_env = "musl"))]
mod start;

use sandwire_cni::{Command, Environment, Error, Invocation, Version, code, version_answer};
use sandwire_runtime::{answer, prepared};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

#[global_allocator]
static ALLOCATOR: heap::Heap = heap::Heap;

/// A configuration is some kilobytes; prevResult and pod annotations make it tens of them.
const LARGEST_STDIN: u64 = 8 << 20;

const SUCCESS: i32 = 0;
const FAILURE: i32 = 1;

/// Writes the memory image of the generation in a directory; the exit status.
#[cfg(all(target_arch = "x86_64", target_env = "musl"))]
fn prepare(directory: &OsStr) -> i32 {
    crash::install();
    if !image::has_place() {
        return refuse(&Error {
            code: code::IO,
            msg: "could not write a memory image: this process has no place of its own for one".into(),
            details: "the kernel gave no random number or no addresses; is there a limit of memory (ulimit -v)?".into(),
        });
    }
    match image::write(Path::new(directory)) {
        Ok(()) => SUCCESS,
        Err(error) => refuse(&error),
    }
}

/// One call of the program of this name; its exit status.
fn call(name: &OsStr) -> i32 {
    crash::install();
    match std::panic::catch_unwind(|| serve(name)) {
        Ok(Ok(())) => SUCCESS,
        Ok(Err(error)) => refuse(&error),
        // The attachment is there, and whoever called knows of it.
        Err(_) if answer::is_delivered() => SUCCESS,
        Err(_) => refuse(&Error {
            code: code::INTERNAL,
            msg: "sandwire failed".into(),
            details: "this is a bug of sandwire; the message of the failure is in the log (stderr)".into(),
        }),
    }
}

fn print(text: &str) -> nix::Result<()> {
    answer::print(std::io::stdout().as_fd(), text, || false)
}

fn refuse(error: &Error) -> i32 {
    if let Err(errno) = print(&error.to_json()) {
        // The exit code is what is left to say to the runtime.
        let _ = writeln!(std::io::stderr(), "sandwire: error: {error}; stdout can't be written: {}", errno.desc());
    }
    FAILURE
}

/// Does the call; stdout has its answer, if there is one.
fn serve(name: &OsStr) -> Result<(), Error> {
    let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let called_as = called_as(name);
    let Some(environment) = Environment::read(variable)? else {
        about(Version::spoken_by(&called_as));
        return Ok(());
    };
    if environment.command == Command::Version {
        // VERSION may come with an environment of dummies: nothing but the name is looked at for it.
        return print(&version_answer(Version::spoken_by(&called_as))).map_err(|e| Error::internal(e.desc()));
    }
    heap::prepare(environment.command);
    // Whatever the configuration says by now, its containers are deleted.
    let any = environment.command == Command::Del;
    let spoken = |plugin: &str| -> &[Version] { if any { &Version::ALL } else { Version::spoken_by(plugin) } };
    let call = Invocation::read_for(environment, &stdin()?, spoken(&called_as))?;
    let plugin = match called_as.as_str() {
        // Only under its own name does `type` decide: an address manager gets its parent's configuration, with its
        // parent's type (specification, section 4).
        "sandwire" => {
            Version::check(call.config.version.as_str(), spoken(&call.config.plugin_type))?;
            call.config.plugin_type.clone()
        }
        name => name.to_owned(),
    };
    let variables: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let done = sandwire_runtime::verbs::run(&call, &plugin, &variables, std::io::stdout().as_fd());
    // The process ends: its memory goes all at once.
    std::mem::forget((call, plugin, variables));
    done
}

/// The base name that this program was executed by.
fn called_as(name: &OsStr) -> String {
    let name = Path::new(name).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn stdin() -> Result<Vec<u8>, Error> {
    // Most have less: one read, and one for the end.
    let mut text = Vec::with_capacity(4096);
    let read = process::stdin().take(LARGEST_STDIN + 1).read_to_end(&mut text);
    let failed = |details: String| Error { code: code::IO, msg: "error reading from stdin".into(), details };
    match read {
        Err(error) => Err(failed(error.to_string())),
        Ok(length) if u64::try_from(length).is_ok_and(|length| length > LARGEST_STDIN) => Err(Error {
            code: code::DECODE,
            msg: "network configuration is too large".into(),
            details: format!("more than {LARGEST_STDIN} bytes"),
        }),
        Ok(_) => Ok(text),
    }
}

/// What the reference's plugins say to somebody who runs them by hand.
fn about(spoken: &[Version]) {
    let versions: Vec<&str> = spoken.iter().map(|version| version.as_str()).collect();
    let image = match prepared::count() {
        Some((ready, all)) => format!("used for {ready} of {all} plugins"),
        None => "none".into(),
    };
    let _ = writeln!(
        std::io::stderr(),
        "sandwire {}: runs CNI plugins as sandboxed components\nCNI protocol versions supported: {}\nmemory image: {image}",
        env!("CARGO_PKG_VERSION"),
        versions.join(", ")
    );
}
