//! `apply`: from the operator's policy and the components to a new generation.

use crate::component::{self, Surface};
use crate::generation::{self, About, Generation};
use crate::output::Output;
use crate::{compile, files, policy};
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use sandwire_policy::file::PolicyFile;
use sandwire_policy::{Grant, entry, header, paths};
use sandwire_runtime::engine::{TARGET, WASMTIME_VERSION};
use sandwire_runtime::imports::missing;
use serde::Serialize;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};

/// What became of one plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub(crate) enum Fate {
    /// Compiled now.
    Compiled,
    /// Taken from the generation before.
    Kept,
    /// Can't run; its calls say why.
    Refused {
        /// What is wrong, and what to do.
        why: String,
    },
}

/// What `apply` did.
#[derive(Debug, Serialize)]
pub(crate) struct Applied {
    /// Number of the generation in force.
    pub(crate) generation: u64,
    /// Whether it is a new one.
    pub(crate) changed: bool,
    /// Every plugin of the policy.
    pub(crate) plugins: BTreeMap<String, Fate>,
    /// What an operator should look at.
    pub(crate) warnings: Vec<String>,
}

impl Applied {
    /// Those that can't run.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (&str, &str)> {
        self.plugins.iter().filter_map(|(plugin, fate)| match fate {
            Fate::Refused { why } => Some((plugin.as_str(), why.as_str())),
            _ => None,
        })
    }
}

/// Where the component of a plugin is.
pub(crate) fn component_path(plugin: &str) -> PathBuf {
    Path::new(paths::PLUGINS).join(format!("{plugin}.wasm"))
}

/// The settings of the engine in one number: the same in every run of one build, another when a setting that compiled code
/// depends on is another. Of the engine that compiles: it has the same settings on every machine.
pub(crate) fn engine_sum() -> Result<String> {
    let engine = sandwire_runtime::engine::compiler()?;
    let sum = BuildHasherDefault::<DefaultHasher>::default().hash_one(engine.precompile_compatibility_hash());
    Ok(format!("{sum:016x}"))
}

/// Puts the policy into force.
///
/// # Errors
/// When the policy can't be read or the generation not be written. A plugin that can't run is no error here: the others
/// shall not wait for it.
pub(crate) fn apply(output: &Output) -> Result<Applied> {
    let lock = generation::lock()?;
    let text =
        files::read_trusted(Path::new(paths::POLICY)).map_err(|error| match Path::new(paths::POLICY).exists() {
            true => error,
            false => error.context("there is no policy yet; run: sandwirectl install"),
        })?;
    let policy = policy::parse(&text)?;
    let about = About {
        sandwire: env!("CARGO_PKG_VERSION").to_owned(),
        wasmtime: WASMTIME_VERSION.to_owned(),
        engine: engine_sum()?,
        policy: component::digest(text.as_bytes()),
        files: BTreeMap::new(),
    };
    // What others can write is no base for a new one: its list of digests would be theirs too.
    let mut warnings = Vec::new();
    let active = Generation::active().unwrap_or(None).filter(|active| match active.untrusted() {
        None => true,
        Some(why) => {
            warnings.push(format!("{}: {why}; nothing of it is used, all is compiled anew", active.path.display()));
            false
        }
    });
    let active = active.and_then(|active| Some((active.about().ok()?, active)));

    let mut plugins = BTreeMap::new();
    let mut content = BTreeMap::new();
    let bar = bar(output, policy.plugins().count());
    for plugin in policy.plugins() {
        bar.set_message(plugin.to_owned());
        let Some(mut grant) = policy.compile(plugin, WASMTIME_VERSION, TARGET) else { continue };
        let present = active.as_ref().filter(|(before, _)| before.engine == about.engine);
        let kept = present.and_then(|(before, generation)| generation.file(before, &grant.compiled));
        let fate = match checked(&policy, plugin).and_then(|(bytes, surface)| {
            warnings.extend(not_granted(&grant, &surface).iter().map(|what| format!("plugin {plugin:?}: {what}")));
            let (compiled, fate) = match kept {
                Some(compiled) => (compiled, Fate::Kept),
                None => (compile::compile(&bytes)?, Fate::Compiled),
            };
            Ok((compiled, fate, !surface.has_start))
        }) {
            Ok((compiled, fate, no_start)) => {
                grant.no_start = no_start;
                content.insert(grant.compiled.clone(), compiled);
                fate
            }
            Err(error) => {
                let why = format!("{error:#}");
                grant.refused = Some(why.clone());
                Fate::Refused { why }
            }
        };
        let json = serde_json::to_vec_pretty(&grant).context("could not write a grant")?;
        content.insert(format!("{plugin}.json"), json);
        plugins.insert(plugin.to_owned(), fate);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if plugins.is_empty() {
        warnings.push(format!("{} has no [plugins.NAME]: no plugin may run", paths::POLICY));
    }
    warnings.extend(unlisted(&policy));

    // Nothing new: the generation in force stays, so that `rollback` still leads to what was different.
    if let Some((before, generation)) = &active {
        let same = content.len() == before.files.len()
            && content.iter().all(|(name, bytes)| generation.file(before, name).as_deref() == Some(bytes));
        if same && (About { files: BTreeMap::new(), ..before.clone() }) == about {
            return Ok(Applied { generation: generation.number, changed: false, plugins, warnings });
        }
    }
    let generation = generation::write(&lock, about, &content)?;
    Ok(Applied { generation: generation.number, changed: true, plugins, warnings })
}

fn bar(output: &Output, length: usize) -> ProgressBar {
    if output.quiet_progress() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length as u64);
    if let Ok(style) = ProgressStyle::with_template("compiling {bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar
}

/// The component that policy pinned, or why it can't be used.
fn checked(policy: &PolicyFile, plugin: &str) -> Result<(Vec<u8>, Surface)> {
    let path = component_path(plugin);
    if !path.exists() {
        bail!(
            "its component {} is missing; put it there, or remove {} from {}, then run: sandwirectl apply",
            path.display(),
            header(plugin),
            paths::POLICY
        );
    }
    let bytes = component::read(&path)?;
    let (found, pinned) = (component::digest(&bytes), policy.digest(plugin).unwrap_or_default());
    if found != pinned {
        bail!(
            "{} is not the component that policy pinned: its digest is {found}, policy has {pinned}; if the new one is meant, write  {}",
            path.display(),
            entry(plugin, format!("component = {found:?}"))
        );
    }
    let surface = component::surface(&bytes).with_context(|| path.display().to_string())?;
    if surface.contract().is_none() {
        bail!("{} does not export sandwire:cni/attach: it is a component, but no CNI plugin", path.display());
    }
    Ok((bytes, surface))
}

/// What it imports and can't have: its calls are refused. Each with what to do.
pub(crate) fn not_granted(grant: &Grant, surface: &Surface) -> Vec<String> {
    let wanted = surface.wanted();
    let (known, unknown): (Vec<&str>, Vec<&str>) =
        wanted.keys().map(String::as_str).partition(|name| component::meaning(name).is_some());
    let missing = missing(grant, known.iter().copied());
    let mut found = Vec::new();
    let mut tell = |names: &str, line: String| {
        let remedy = grant.to_allow(line);
        found.push(format!("it imports {names}, which policy does not grant, and its calls fail; {remedy}"));
    };
    if !missing.is_empty() {
        tell(&missing.join(", "), grant.with_imports(&missing));
    }
    if known.contains(&"wasi") && !grant.wasi {
        tell("wasi", "wasi = true".into());
    }
    found.extend(
        unknown.iter().map(|name| format!("it imports {name}, which this release does not have, and its calls fail")),
    );
    found
}

/// Components that no policy speaks of.
fn unlisted(policy: &PolicyFile) -> Vec<String> {
    installed()
        .into_iter()
        .filter(|plugin| policy.digest(plugin).is_none())
        .map(|plugin| {
            format!(
                "{0} has no entry in {1}: it can't run; the lines to add: sandwirectl inspect {0}",
                component_path(&plugin).display(),
                paths::POLICY
            )
        })
        .collect()
}

/// The plugins whose components are in their directory, sorted.
pub(crate) fn installed() -> Vec<String> {
    let entries = std::fs::read_dir(paths::PLUGINS).into_iter().flatten();
    let mut plugins: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".wasm").map(str::to_owned))
        .filter(|name| !name.starts_with('.'))
        .collect();
    plugins.sort_unstable();
    plugins
}

/// Tells what `apply` did. Whether everything can run.
pub(crate) fn report(output: &Output, applied: &Applied) -> Result<bool> {
    if output.json {
        output.json(applied)?;
    } else {
        for warning in &applied.warnings {
            output.warn(warning);
        }
        let count = |wanted: &Fate| applied.plugins.values().filter(|fate| *fate == wanted).count();
        let how = if applied.changed { "in force" } else { "already in force, nothing changed" };
        output.line(format_args!(
            "generation {} is {how}: {} compiled, {} kept, {} refused",
            applied.generation,
            count(&Fate::Compiled),
            count(&Fate::Kept),
            applied.refused().count()
        ));
        for (plugin, why) in applied.refused() {
            output.warn(format!("plugin {plugin:?} can't run: {why}"));
        }
    }
    Ok(applied.refused().next().is_none())
}
