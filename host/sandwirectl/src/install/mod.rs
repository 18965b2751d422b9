//! `install` and `uninstall`: the host binary, a link for each plugin, components, the first policy.

mod links;
mod shipped;
mod uninstall;

pub(crate) use links::is_ours;
pub(crate) use uninstall::{Options as UninstallOptions, uninstall};

use crate::apply::{self, Applied, component_path};
use crate::component;
use crate::files;
use crate::output::Output;
use crate::policy;
use anyhow::{Context, Result, bail, ensure};
use sandwire_policy::file::{HEAD, entry};
use sandwire_policy::paths;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The name of the CNI binary in its directory.
const BINARY: &str = "sandwire";

/// Where to install from and to.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Directory of CNI plugins: where the runtime looks for them
    #[arg(long, value_name = "DIR", default_value = paths::BIN_DIR)]
    pub(crate) bin_dir: PathBuf,
    /// Directory with "sandwire" and "plugins/*.wasm" [default: where sandwirectl is]
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// The CNI binary, if it isn't in --from
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Directory of components, if it isn't in --from
    #[arg(long, value_name = "DIR")]
    components: Option<PathBuf>,
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
/// because it and the compiled components must be of one release; links to it come last.
pub(crate) fn install(output: &Output, options: &Options) -> Result<bool> {
    ensure!(
        nix::unistd::Uid::effective().is_root(),
        "install writes to {} and other directories of root: run it as root",
        options.bin_dir.display()
    );
    let source = Source::find(options)?;
    let binary =
        std::fs::read(&source.binary).with_context(|| format!("could not read {}", source.binary.display()))?;
    ensure!(binary.starts_with(b"\x7fELF"), "{} is no program", source.binary.display());
    let mut links = links::plan(&options.bin_dir, source.components.keys(), options.replace)?;

    let mut changes = Vec::new();
    for (path, mode) in [
        (options.bin_dir.as_path(), 0o755),
        (Path::new(paths::PLUGINS), 0o755),
        (Path::new("/etc/sandwire"), 0o755),
        (Path::new(paths::STATE), 0o755),
        (Path::new(paths::GENERATIONS), 0o755),
        (Path::new(paths::LEASE_INDEX), 0o700),
        (Path::new(paths::NOTES), 0o700),
        (Path::new(paths::LEASES), 0o755),
        (Path::new(paths::JOURNAL), 0o700),
    ] {
        if files::make_dir(path, mode)? {
            changes.push(format!("made {}", path.display()));
        }
    }
    let mut notes = Vec::new();
    let shipped = shipped::Shipped::read()?;
    install_components(&source.components, &shipped, &mut changes, &mut notes)?;
    install_policy(&source.components, &shipped, &mut changes, &mut notes)?;
    // Last: an install that was interrupted before still knows what was shipped when the policy was written.
    shipped::Shipped::write(&source.components)?;

    let applied = apply::apply(output)?;

    let target = options.bin_dir.join(BINARY);
    if files::replace(&target, &binary, 0o755)? {
        changes.push(format!("installed {}", target.display()));
    }
    links.make(&mut changes)?;

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

/// What is to be installed.
struct Source {
    binary: PathBuf,
    /// By plugin, with the digest.
    components: BTreeMap<String, Shipment>,
}

/// One component as it comes.
struct Shipment {
    digest: String,
    bytes: Vec<u8>,
}

impl Source {
    fn find(options: &Options) -> Result<Self> {
        let from = match &options.from {
            Some(from) => from.clone(),
            None => {
                let tool = std::env::current_exe().context("could not find out where sandwirectl is")?;
                tool.parent().map(Path::to_owned).context("sandwirectl is in no directory")?
            }
        };
        let binary = options.binary.clone().unwrap_or_else(|| from.join(BINARY));
        ensure!(
            binary.is_file(),
            "{} is missing: name the directory that has it with --from, or the file with --binary",
            binary.display()
        );
        let folder = options.components.clone().unwrap_or_else(|| from.join("plugins"));
        let entries = std::fs::read_dir(&folder).with_context(|| {
            format!("could not read {}: name the directory that has plugins/*.wasm with --from, or that of the components with --components", folder.display())
        })?;
        let mut components = BTreeMap::new();
        for entry in entries {
            let path = entry.with_context(|| format!("could not read {}", folder.display()))?.path();
            let Some(plugin) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".wasm")) else { continue };
            let bytes = component::read(&path)?;
            component::surface(&bytes).with_context(|| format!("{} can't be installed", path.display()))?;
            components.insert(plugin.to_owned(), Shipment { digest: component::digest(&bytes), bytes });
        }
        if components.is_empty() {
            bail!("there is no *.wasm in {}", folder.display());
        }
        Ok(Self { binary, components })
    }
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

/// Writes the first policy, or pins new releases of shipped components in the one that is there. Nothing else of it is changed.
fn install_policy(
    components: &BTreeMap<String, Shipment>,
    shipped: &shipped::Shipped,
    changes: &mut Vec<String>,
    notes: &mut Vec<String>,
) -> Result<()> {
    let path = Path::new(paths::POLICY);
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
    for (plugin, shipment) in components {
        let Some(pinned) = present.digest(plugin) else { continue };
        let installed = digest_of(plugin)?;
        if pinned == installed {
            continue;
        }
        if shipped.digest(plugin) == Some(pinned) && installed == shipment.digest {
            changes.push(format!("policy: [plugins.{plugin}] is pinned to {installed} now, before: {pinned}"));
            digests.insert(plugin.clone(), installed);
        } else {
            notes.push(format!("policy: [plugins.{plugin}] stays pinned to {pinned}, as you wrote it; the installed component is {installed}"));
        }
    }
    let changed = present.with_digests(&text, &digests);
    files::replace(path, changed.as_bytes(), 0o644)?;
    Ok(())
}

fn digest_of(plugin: &str) -> Result<String> {
    Ok(component::digest(&component::read(&component_path(plugin))?))
}
