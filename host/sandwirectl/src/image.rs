//! The memory image of a generation: what calls begin with, so that none has to set everything up for itself. The CNI binary writes
//! it (`sandwire prepare`) and looks whether it is good; without one, calls work as well and take longer.

use crate::generation::{self, Generation};
use crate::install::{self, BINARY};
use crate::{files, policy};
use anyhow::{Context, Result, ensure};
use sandwire_policy::paths;
use sandwire_runtime::prepared::{IMAGE, PREPARE};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Makes one for the generation in force, or takes it away where policy wants none. What an operator should know, if there is none now.
pub(crate) fn refresh() -> Option<String> {
    let _lock = match generation::lock() {
        Ok(lock) => lock,
        Err(error) => return Some(format!("the memory image was left as it is: {error:#}")),
    };
    let active = Generation::active().ok().flatten()?;
    let error = match is_wanted() {
        Ok(true) => write(&active).err()?,
        Ok(false) => return remove(&active).err().map(|error| format!("{error:#}")),
        Err(error) => error,
    };
    // One of before may be of another program, or of plugins that have changed: calls would see it, but why leave it.
    let left = remove(&active).err().map(|error| format!("; {error:#}")).unwrap_or_default();
    Some(format!(
        "there is no memory image of generation {} ({error:#}{left}): calls work, and each takes some tenths of a millisecond longer",
        active.number
    ))
}

fn remove(active: &Generation) -> Result<()> {
    let path = active.path.join(OsStr::from_bytes(IMAGE.to_bytes()));
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("could not remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Whether policy lets calls have one.
pub(crate) fn is_wanted() -> Result<bool> {
    Ok(policy::parse(&files::read_trusted(Path::new(paths::POLICY))?)?.memory_image())
}

fn write(active: &Generation) -> Result<()> {
    let program = program()?;
    let done = run(&program, &[Path::new(OsStr::from_bytes(PREPARE.to_bytes())), &active.path])?;
    let said = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).trim().to_owned()).join(" ");
    ensure!(done.status.success(), "{}: {}: {said}", program.display(), done.status);
    let used = used(&program)?;
    ensure!(
        used.is_some_and(|(ready, _)| ready > 0),
        "{} has made one, and does not use it: {said}",
        program.display()
    );
    Ok(())
}

/// The first of our programs that only root can have written.
fn program() -> Result<PathBuf> {
    let programs: Vec<PathBuf> =
        install::installed_in(None)?.into_iter().map(|directory| directory.join(BINARY)).collect();
    let trusted = programs.iter().find(|program| program.is_file() && files::untrusted(program).is_none());
    trusted.cloned().with_context(|| {
        let names: Vec<String> = programs.iter().map(|program| program.display().to_string()).collect();
        format!("the program is not installed, or others than root can write it: {}", names.join(", "))
    })
}

fn run(program: &Path, arguments: &[&Path]) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().stdin(Stdio::null());
    command.output().with_context(|| format!("could not run {}", program.display()))
}

/// For how many plugins calls of this program use one, of how many that may run.
pub(crate) fn used(program: &Path) -> Result<Option<(usize, usize)>> {
    // Called without a verb it tells about itself.
    let said = run(program, &[])?;
    ensure!(said.status.success(), "{}: {}", program.display(), said.status);
    let said = String::from_utf8_lossy(&said.stderr);
    let count = |line: &str| {
        let (ready, all) =
            line.strip_prefix("memory image: used for ")?.strip_suffix(" plugins")?.split_once(" of ")?;
        Some((ready.parse().ok()?, all.parse().ok()?))
    };
    Ok(said.lines().find_map(count))
}
