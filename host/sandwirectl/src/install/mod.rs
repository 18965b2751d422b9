//! `install` and `uninstall`: the host binary, a link for each plugin, components, the first policy.

mod links;
mod shipped;
mod source;
mod uninstall;

pub(crate) use links::is_ours;
pub(crate) use source::{Release, Shipment, Source};
pub(crate) use uninstall::{Options as UninstallOptions, uninstall};

use crate::apply::{self, Applied, component_path};
use crate::component;
use crate::files;
use crate::image;
use crate::output::Output;
use crate::policy;
use anyhow::{Context, Result, bail, ensure};
use sandwire_policy::file::{HEAD, entry};
use sandwire_policy::{header, paths};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The name of the CNI binary in its directory.
pub(crate) const BINARY: &str = "sandwire";

/// The directories of a node, with the modes of those that are new. What calls write is root's alone.
pub(crate) const DIRECTORIES: [(&str, u32); 8] = [
    (paths::PLUGINS, 0o755),
    ("/etc/sandwire", 0o755),
    (paths::STATE, 0o755),
    (paths::GENERATIONS, 0o755),
    (paths::LEASE_INDEX, 0o700),
    (paths::NOTES, 0o700),
    (paths::LEASES, 0o755),
    (paths::JOURNAL, 0o700),
];

/// Where to install from and to.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Directory of CNI plugins, where the runtime looks for them [default: where it is installed already, or /opt/cni/bin]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    #[command(flatten)]
    release: Release,
    /// Take the place of native plugins of the same names; each is kept as NAME.native
    #[arg(long)]
    replace: bool,
}

/// What was done, one line for each change. Empty when everything was there already.
#[derive(Debug, Serialize)]
struct Installed {
    changes: Vec<String>,
    notes: Vec<String>,
    #[serde(flatten)]
    applied: Applied,
}

/// Installs, or brings an installation up to date. Whether every plugin can run.
///
/// The order keeps a node working at every point: first what no call reads, then the generation, and then at once the binary,
/// because it and the compiled components must be of one release; links to it come last, and the memory image, which the binary writes.
pub(crate) fn install(output: &Output, options: &Options) -> Result<bool> {
    ensure!(nix::unistd::Uid::effective().is_root(), "install writes to directories of root: run it as root");
    let shipped = shipped::Shipped::read()?;
    let source = Source::find(&options.release, &shipped)?;
    let binary = &source.binary;
    // One generation serves them all, and only programs of its release can use it.
    let present: Vec<PathBuf> = shipped.bin_dirs().map(Path::to_owned).collect();
    let mut bin_dirs = present.clone();
    match options.bin_dir.as_deref().map(absolute).transpose()? {
        Some(said) if !present.contains(&said) => bin_dirs.push(said),
        None if present.is_empty() => bin_dirs.push(PathBuf::from(paths::BIN_DIR)),
        _ => {}
    }
    let mut notes = source.notes;
    let mut links = Vec::new();
    for directory in &bin_dirs {
        // Where we are installed already, what has a plugin's name (of one that is new, or put there since) is no reason to leave
        // all the others as they were.
        let may_pass = present.contains(directory) && !options.replace;
        let plugins = source.components.keys().filter(|plugin| {
            let passes = may_pass && links::is_taken(directory, plugin);
            if passes {
                notes.push(format!(
                    "{} is another program: plugin {plugin:?} does not take its place; to have it so run: sandwirectl install --replace",
                    directory.join(plugin).display()
                ));
            }
            !passes
        });
        links.push(links::plan(directory, plugins, options.replace)?);
    }

    let mut changes = Vec::new();
    let bins = bin_dirs.iter().map(|directory| (directory.as_path(), 0o755));
    for (path, mode) in bins.chain(DIRECTORIES.map(|(path, mode)| (Path::new(path), mode))) {
        if files::make_dir(path, mode)? {
            changes.push(format!("made {}", path.display()));
        }
    }
    install_components(&source.components, &shipped, &mut changes, &mut notes)?;
    install_policy(&source.components, &shipped, &mut changes, &mut notes)?;
    // Last: an install that was interrupted before still knows what was shipped when the policy was written.
    shipped.write(&source.components, binary, &bin_dirs)?;

    let mut applied = apply::apply(output)?;

    for (directory, links) in bin_dirs.iter().zip(links) {
        let target = directory.join(BINARY);
        if files::replace(&target, binary, 0o755)? {
            changes.push(format!("installed {}", target.display()));
        }
        links.make(&mut changes)?;
    }
    applied.warnings.extend(image::refresh());

    if output.json {
        let everything = applied.refused().next().is_none();
        output.json(&Installed { changes, notes, applied })?;
        return Ok(everything);
    }
    for change in &changes {
        output.line(change);
    }
    if changes.is_empty() {
        output.line("everything was installed already");
    }
    for note in &notes {
        output.warn(note);
    }
    apply::report(output, &applied)
}

fn absolute(directory: &Path) -> Result<PathBuf> {
    std::path::absolute(directory).with_context(|| format!("{} is no directory", directory.display()))
}

/// The directories of CNI plugins: the one that is said, or else those that have our program, or else the usual one.
pub(crate) fn installed_in(said: Option<&Path>) -> Result<Vec<PathBuf>> {
    if let Some(said) = said {
        return Ok(vec![absolute(said)?]);
    }
    let present: Vec<PathBuf> = shipped::Shipped::read()?.bin_dirs().map(Path::to_owned).collect();
    Ok(if present.is_empty() { vec![PathBuf::from(paths::BIN_DIR)] } else { present })
}

/// Whether a program is not the one that was installed there. None when nothing is known of it.
pub(crate) fn is_changed(program: &Path) -> Result<Option<bool>> {
    Ok(shipped::Shipped::read()?.is_changed(program))
}

/// Puts components in their directory, but never over one that the operator put there.
fn install_components(
    components: &BTreeMap<String, Shipment>,
    shipped: &shipped::Shipped,
    changes: &mut Vec<String>,
    notes: &mut Vec<String>,
) -> Result<()> {
    for (plugin, shipment) in components {
        let path = component_path(plugin);
        if path.exists() {
            let present = digest_of(plugin)?;
            if present != shipment.digest && shipped.digest(plugin) != Some(present.as_str()) {
                notes.push(format!(
                    "{} is not one that was shipped ({present}): it stays; to have the shipped one, remove the file and run install again",
                    path.display()
                ));
                continue;
            }
        }
        if files::replace(&path, &shipment.bytes, 0o644)? {
            changes.push(format!("installed {}", path.display()));
        }
    }
    Ok(())
}

/// Writes the first policy, or brings the one that is there up to date: new releases of shipped components are pinned, and plugins that
/// no release before had get their entry, as on a fresh node. Nothing else of it is changed.
fn install_policy(
    components: &BTreeMap<String, Shipment>,
    shipped: &shipped::Shipped,
    changes: &mut Vec<String>,
    notes: &mut Vec<String>,
) -> Result<()> {
    // Where a link leads: the operator keeps it there.
    let path = match std::fs::canonicalize(paths::POLICY) {
        Ok(path) => path,
        Err(_) if Path::new(paths::POLICY).is_symlink() => bail!(
            "{0} is a link that leads to no file: put the policy there, or remove the link to get the first one; nothing was changed",
            paths::POLICY
        ),
        Err(_) => PathBuf::from(paths::POLICY),
    };
    let path = path.as_path();
    if !path.exists() {
        let entries = components.iter().filter_map(|(plugin, shipment)| entry(plugin, &shipment.digest));
        let text = entries.fold(HEAD.to_owned(), |text, entry| text + &entry);
        policy::parse(&text).context("the default policy does not fit this release's contract")?;
        files::replace(path, text.as_bytes(), 0o644)?;
        changes.push(format!("wrote the first policy: {}", path.display()));
        return Ok(());
    }
    let text = files::read_trusted(path)?;
    let present = policy::parse(&text)?;
    let mut digests = BTreeMap::new();
    let (mut new, mut added) = (Vec::new(), String::new());
    for (plugin, shipment) in components {
        let installed = digest_of(plugin)?;
        let Some(pinned) = present.digest(plugin) else {
            // One that was shipped before has no entry because the operator took it away.
            let is_new = !shipped.is_empty() && shipped.digest(plugin).is_none() && installed == shipment.digest;
            if let Some(text) = entry(plugin, &installed).filter(|_| is_new) {
                new.push(plugin);
                added.push_str(&text);
            }
            continue;
        };
        if pinned == installed {
            continue;
        }
        if shipped.digest(plugin) == Some(pinned) && installed == shipment.digest {
            changes.push(format!("policy: {} is pinned to {installed} now, before: {pinned}", header(plugin)));
            digests.insert(plugin.clone(), installed);
        } else {
            notes.push(format!(
                "policy: {} stays pinned to {pinned}, as you wrote it; the installed component is {installed}",
                header(plugin)
            ));
        }
    }
    let mut changed = present.with_digests(&text, &digests);
    // A new entry may speak of what the operator took away, such as an agent.
    match policy::parse(&(changed.clone() + &added)) {
        Ok(_) => {
            changed.push_str(&added);
            changes.extend(
                new.iter().map(|plugin| format!("policy: {} was added, it is new in this release", header(plugin))),
            );
        }
        Err(error) => notes.extend(new.iter().map(|plugin| {
            format!(
                "policy: {} was not added: {error:#}; its lines: sandwirectl inspect {}",
                header(plugin),
                component_path(plugin).display()
            )
        })),
    }
    files::replace(path, changed.as_bytes(), 0o644)?;
    Ok(())
}

fn digest_of(plugin: &str) -> Result<String> {
    Ok(component::digest(&component::read(&component_path(plugin))?))
}
