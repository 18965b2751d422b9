//! A release at hand: the CNI binary and the components that belong to it.

use super::BINARY;
use super::shipped::Shipped;
use crate::apply::{self, component_path};
use crate::component;
use crate::generation::Generation;
use anyhow::{Context, Result, anyhow, bail, ensure};
use sandwire_policy::{check_plugin, paths};
use sandwire_runtime::engine::WASMTIME_VERSION;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where it is.
#[derive(Debug, clap::Args)]
pub(crate) struct Release {
    /// Directory with "sandwire" and "plugins/*.wasm" [default: where sandwirectl is, or what is installed already]
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// The CNI binary, if it isn't in --from
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Directory of components, if it isn't in --from
    #[arg(long, value_name = "DIR")]
    components: Option<PathBuf>,
}

/// What it has.
pub(crate) struct Source {
    /// The CNI binary.
    pub(crate) binary: Vec<u8>,
    /// By plugin.
    pub(crate) components: BTreeMap<String, Shipment>,
    /// What an operator should know of it.
    pub(super) notes: Vec<String>,
}

/// One component as it comes.
pub(crate) struct Shipment {
    pub(crate) digest: String,
    pub(crate) bytes: Vec<u8>,
}

impl Source {
    /// What there is: of a release, or else what is installed.
    pub(crate) fn at_hand(release: &Release) -> Result<Self> {
        Self::find(release, &Shipped::read()?)
    }

    pub(super) fn find(release: &Release, shipped: &Shipped) -> Result<Self> {
        let from = match &release.from {
            Some(from) => from.clone(),
            None => {
                let tool = std::env::current_exe().context("could not find out where sandwirectl is")?;
                tool.parent().map(Path::to_owned).context("sandwirectl is in no directory")?
            }
        };
        let path = release.binary.clone().unwrap_or_else(|| from.join(BINARY));
        let folder = release.components.clone().unwrap_or_else(|| from.join("plugins"));
        let nothing_said = release.from.is_none() && release.binary.is_none() && release.components.is_none();
        if nothing_said && !path.is_file() && !folder.is_dir() && !shipped.is_empty() {
            return Self::installed(shipped);
        }
        ensure!(
            path.is_file(),
            "{} is missing: name the directory that has it with --from, or the file with --binary",
            path.display()
        );
        let binary = std::fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
        ensure!(binary.starts_with(b"\x7fELF"), "{} is no program", path.display());
        let components = read(&folder)?;
        if components.is_empty() {
            bail!("there is no *.wasm in {}", folder.display());
        }
        Ok(Self { binary, components, notes: Vec::new() })
    }

    /// Without a release at hand an installation of this tool's own release is mended from itself, as far as it is whole. Another
    /// one's program could not run what this tool compiles.
    fn installed(shipped: &Shipped) -> Result<Self> {
        let active = Generation::active()?.map(|active| active.about()).transpose()?;
        let is_own = active.is_some_and(|about| {
            about.sandwire == env!("CARGO_PKG_VERSION")
                && about.wasmtime == WASMTIME_VERSION
                && apply::engine_sum().is_ok_and(|sum| sum == about.engine)
        });
        ensure!(
            is_own,
            "what is installed is not of this release: name the directory that has the release with --from"
        );
        let Some(binary) = shipped.program() else {
            bail!(
                "no program of those that were installed is whole: name the directory that has the release with --from"
            )
        };
        let mut components = read(Path::new(paths::PLUGINS))?;
        components.retain(|plugin, shipment| shipped.digest(plugin) == Some(&shipment.digest));
        let broken = shipped.plugins().filter(|plugin| !components.contains_key(*plugin));
        let notes = broken.map(|plugin| {
            format!(
                "{} is missing or not as it was installed: to have it again name the directory that has the release with --from",
                component_path(plugin).display()
            )
        });
        let notes = notes.collect();
        Ok(Self { binary, components, notes })
    }
}

/// The components of a directory.
fn read(folder: &Path) -> Result<BTreeMap<String, Shipment>> {
    let entries = std::fs::read_dir(folder).with_context(|| {
        format!("could not read {}: name the directory that has plugins/*.wasm with --from, or that of the components with --components", folder.display())
    })?;
    let mut components = BTreeMap::new();
    for entry in entries {
        let path = entry.with_context(|| format!("could not read {}", folder.display()))?.path();
        let Some(plugin) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".wasm")) else { continue };
        // Its name becomes that of a link beside the program.
        check_plugin(plugin).map_err(|why| anyhow!("{} can't name a plugin: {why}", path.display()))?;
        let bytes = component::read(&path)?;
        component::surface(&bytes).with_context(|| format!("{} can't be installed", path.display()))?;
        components.insert(plugin.to_owned(), Shipment { digest: component::digest(&bytes), bytes });
    }
    Ok(components)
}
