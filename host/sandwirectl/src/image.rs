//! The memory image of a generation: what calls begin with, so that none has to set everything up for itself. The CNI binary writes
//! it (`sandwire prepare`) and looks whether it is good; without one, calls work as well and take longer.

use crate::generation::{self, Generation};
use crate::install::{self, BINARY};
use crate::{files, policy};
use anyhow::{Context, Result, ensure};
use sandwire_policy::paths;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Its name in the directory of its generation.
const NAME: &str = "image";

/// Makes one for the generation in force. What an operator should know, if there is none now.
pub(crate) fn refresh() -> Option<String> {
    // Whoever has the lock makes one as well.
    let _lock = generation::lock().ok()?;
    let active = Generation::active().ok().flatten()?;
    let path = active.path.join(NAME);
    if !is_wanted() {
        let removed = std::fs::remove_file(&path);
        return removed
            .err()
            .filter(|error| error.kind() != ErrorKind::NotFound)
            .map(|error| format!("could not remove {}, which the policy does not want: {error}", path.display()));
    }
    let error = write(&active).err()?;
    // One of before may be of another program, or of plugins that have changed: calls would see it, but why leave it.
    std::fs::remove_file(path).ok();
    Some(format!(
        "there is no memory image of generation {} ({error:#}): calls work, and each takes some tenths of a millisecond longer",
        active.number
    ))
}

/// Whether policy lets calls have one.
pub(crate) fn is_wanted() -> bool {
    let policy = files::read_trusted(Path::new(paths::POLICY)).and_then(|text| policy::parse(&text));
    policy.map_or(true, |policy| policy.memory_image())
}

fn write(active: &Generation) -> Result<()> {
    let program = program()?;
    let done = run(&program, &[Path::new("prepare"), &active.path])?;
    ensure!(done.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&done.stdout).trim());
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

/// Whether calls of this program begin with one.
pub(crate) fn is_used(program: &Path) -> Result<bool> {
    // Called without a verb it tells about itself.
    let said = run(program, &[])?;
    Ok(String::from_utf8_lossy(&said.stderr).contains(sandwire_runtime::prepared::ABOUT))
}
