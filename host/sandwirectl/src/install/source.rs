//! A release at hand: the CNI binary and the components that belong to it.

use super::BINARY;
use super::shipped::Shipped;
use crate::component;
use anyhow::{Context, Result, bail, ensure};
use sandwire_policy::paths;
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
    pub(crate) binary: PathBuf,
    /// By plugin, with the digest.
    pub(crate) components: BTreeMap<String, Shipment>,
}

/// One component as it comes.
pub(crate) struct Shipment {
    pub(crate) digest: String,
    pub(crate) bytes: Vec<u8>,
}

impl Source {
    /// What there is without an installation.
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
        let said = release.from.is_some();
        let mut binary = release.binary.clone().unwrap_or_else(|| from.join(BINARY));
        let mut folder = release.components.clone().unwrap_or_else(|| from.join("plugins"));
        // Without a release at hand what is installed is mended from itself, as far as it is whole.
        if let Some(program) = shipped.program().filter(|_| !said && release.binary.is_none() && !binary.is_file()) {
            binary = program.to_owned();
        }
        let mends = !said && release.components.is_none() && !folder.is_dir() && Path::new(paths::PLUGINS).is_dir();
        if mends {
            folder = PathBuf::from(paths::PLUGINS);
        }
        ensure!(
            binary.is_file(),
            "{} is missing: name the directory that has it with --from, or the file with --binary",
            binary.display()
        );
        let entries = std::fs::read_dir(&folder).with_context(|| {
            format!("could not read {}: name the directory that has plugins/*.wasm with --from, or that of the components with --components", folder.display())
        })?;
        let mut components = BTreeMap::new();
        for entry in entries {
            let path = entry.with_context(|| format!("could not read {}", folder.display()))?.path();
            let Some(plugin) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".wasm")) else { continue };
            let bytes = component::read(&path)?;
            if mends && shipped.digest(plugin) != Some(component::digest(&bytes).as_str()) {
                continue;
            }
            component::surface(&bytes).with_context(|| format!("{} can't be installed", path.display()))?;
            components.insert(plugin.to_owned(), Shipment { digest: component::digest(&bytes), bytes });
        }
        if components.is_empty() {
            bail!("there is no *.wasm in {}", folder.display());
        }
        Ok(Self { binary, components })
    }
}
