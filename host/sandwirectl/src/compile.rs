//! Compiling components, each in a child of its own.
//!
//! The compiler is large and reads hostile input: so it runs without privilege, with bounded memory and time, and hands its
//! product back through a pipe. What comes back is native code all the same, and no more trustworthy than the component:
//! the CNI binary runs it without privilege too.

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, chdir, setgroups, setresgid, setresuid};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use wasmtime::{Engine, Precompiled};

/// The hidden subcommand.
pub(crate) const SUBCOMMAND: &str = "compile-component";

const NOBODY: u32 = 65_534;
/// Bytes of address space. The largest components known (componentize-py, 40 MB) take 1.5 GB with two threads.
const MEMORY: u64 = 4 << 30;
/// Seconds of processor time, and of waiting.
const TIME: u64 = 300;
/// Each thread has its own arena of address space: a large machine's count would eat [`MEMORY`].
const THREADS: &str = "4";

/// Compiles `component` in a child.
///
/// # Errors
/// When it is no component this release can run, or exceeds the limits.
pub(crate) fn compile(component: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("/proc/self/exe")
        .arg(SUBCOMMAND)
        .env_clear()
        .env("RAYON_NUM_THREADS", THREADS)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("could not start the compiler's process")?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
        bail!("the compiler's process has no pipes")
    };
    let done = Instant::now() + Duration::from_secs(TIME);
    let (product, said, status) = std::thread::scope(|scope| {
        let product = scope.spawn(move || read_all(stdout));
        let said = scope.spawn(move || read_all(stderr));
        // A child that dies early closes its end: its own words say more than this write's EPIPE.
        scope.spawn(move || stdin.write_all(component));
        let status = loop {
            match child.try_wait() {
                Ok(None) if Instant::now() > done => {
                    child.kill().ok();
                    child.wait().ok();
                    break Err(anyhow!("it took longer than {TIME} seconds"));
                }
                // Compiling takes tens of milliseconds to minutes; the pipes' threads do the waiting for the data.
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                Ok(Some(status)) => break Ok(status),
                Err(error) => break Err(error.into()),
            }
        };
        (product.join().unwrap_or_default(), said.join().unwrap_or_default(), status)
    });
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    let status = status?;
    ensure!(
        status.success(),
        "{}",
        match said.as_str() {
            "" => format!(
                "the compiler ended with {status}: it may have needed more than {} MiB or {TIME} seconds",
                MEMORY >> 20
            ),
            said => said.to_owned(),
        }
    );
    ensure!(
        matches!(Engine::detect_precompiled(&product), Some(Precompiled::Component)),
        "the compiler's process gave {} bytes that are no compiled component",
        product.len()
    );
    Ok(product)
}

fn read_all(mut from: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // An error here is a short product, which the caller finds out.
    from.read_to_end(&mut bytes).ok();
    bytes
}

/// The child: gives up everything, then reads a component and writes it compiled.
///
/// # Errors
/// What to tell the parent, on stderr.
pub(crate) fn child() -> Result<()> {
    give_up_privilege().context("could not give up privilege for compiling")?;
    let mut component = Vec::new();
    std::io::stdin().read_to_end(&mut component).context("could not read the component")?;
    let engine = sandwire_runtime::engine::compiler()?;
    let compiled = engine.precompile_component(&component)?;
    std::io::stdout().write_all(&compiled).context("could not hand over the compiled component")
}

/// Whether this user namespace has a user of this number. In one that somebody made for himself there is none but root, who can do no
/// more than he could before (user_namespaces(7)).
fn has_user(user: u32) -> bool {
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else { return true };
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
        let (first, _, count) = (numbers.next().unwrap_or(0), numbers.next(), numbers.next().unwrap_or(0));
        (first..first.saturating_add(count)).contains(&u64::from(user))
    })
}

fn give_up_privilege() -> Result<()> {
    chdir("/")?;
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY)?;
    setrlimit(Resource::RLIMIT_CPU, TIME, TIME)?;
    setrlimit(Resource::RLIMIT_FSIZE, 0, 0)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    if Uid::effective().is_root() && has_user(NOBODY) {
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        setgroups(&[])?;
        setresgid(group, group, group)?;
        setresuid(user, user, user)?;
        ensure!(setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_err(), "root could be taken back");
    }
    prctl::set_no_new_privs()?;
    Ok(())
}
