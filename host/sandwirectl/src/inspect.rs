//! `inspect` and `plugins`: what components want, and what of it policy gives.

use crate::apply::{component_path, engine_sum, not_granted};
use crate::component::{self, Surface, meaning};
use crate::generation::{About, Generation};
use crate::output::Output;
use crate::{files, policy};
use anyhow::{Context, Result};
use sandwire_policy::{Grant, header, paths};
use sandwire_runtime::engine::WASMTIME_VERSION;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct Capability {
    name: String,
    /// What it lets a plugin do; absent for what this release does not have.
    meaning: Option<&'static str>,
    functions: Vec<String>,
}

#[derive(Serialize)]
struct Inspection {
    file: PathBuf,
    size: usize,
    digest: String,
    version: Option<String>,
    contract: Option<String>,
    verbs: Vec<String>,
    wants: Vec<Capability>,
    imports: Vec<String>,
    exports: Vec<String>,
    policy: String,
}

/// Shows what a component is and wants. Nothing of it is compiled or run.
pub(crate) fn inspect(output: &Output, file: &Path) -> Result<bool> {
    let bytes = component::read(file)?;
    let surface = component::surface(&bytes).with_context(|| file.display().to_string())?;
    let digest = component::digest(&bytes);
    let plugin = file.file_stem().map_or_else(|| "NAME".into(), |stem| stem.to_string_lossy());
    let wants: Vec<Capability> = surface
        .wanted()
        .into_iter()
        .map(|(name, functions)| Capability { meaning: meaning(&name), name, functions })
        .collect();
    let policy = proposal(&plugin, &digest, &wants);
    let names = |items: &[(String, Vec<String>)]| items.iter().map(|(name, _)| name.clone()).collect();
    if output.json {
        output.json(&Inspection {
            file: file.to_owned(),
            size: bytes.len(),
            digest,
            version: surface.version.clone(),
            contract: surface.contract().map(str::to_owned),
            verbs: surface.verbs().into_iter().map(str::to_owned).collect(),
            wants,
            imports: names(&surface.imports),
            exports: names(&surface.exports),
            policy,
        })?;
        return Ok(true);
    }
    output.line(format_args!("file      {}", file.display()));
    output.line(format_args!("size      {} bytes", bytes.len()));
    output.line(format_args!("digest    {digest}"));
    output.line(format_args!("version   {}", surface.version.as_deref().unwrap_or("-")));
    match surface.contract() {
        Some(contract) => output.line(format_args!("contract  sandwire:cni@{contract}")),
        None => output.line("contract  none: it does not export sandwire:cni/attach, so it is no CNI plugin"),
    }
    output.line(format_args!("exports   {}", surface.verbs().join(", ")));
    output.line("\nIt wants to:");
    if wants.is_empty() {
        output.line("  nothing");
    }
    let width = wants.iter().map(|want| want.name.len()).max().unwrap_or(0);
    for Capability { name, meaning, functions } in &wants {
        let meaning = meaning.unwrap_or("what this release does not have: it can't run");
        output.line(format_args!("  {name:width$}  {meaning}"));
        if !functions.is_empty() && name != "wasi" {
            output.line(format_args!("  {:width$}    {}", "", functions.join(", ")));
        }
    }
    output.line(format_args!("\nTo allow all of it, add to {} and run sandwirectl apply:\n\n{policy}", paths::POLICY));
    Ok(true)
}

/// The lines to paste. What only the operator can know is there as a comment.
fn proposal(plugin: &str, digest: &str, wants: &[Capability]) -> String {
    let imports: Vec<String> = wants
        .iter()
        .filter(|want| want.name != "wasi" && want.meaning.is_some())
        .map(|want| format!("{:?}", want.name))
        .collect();
    let wanted = |interface: &&str| wants.iter().any(|want| want.name == **interface);
    let mut text = format!("{}\ncomponent = {digest:?}\nimports = [{}]\n", header(plugin), imports.join(", "));
    if wanted(&"wasi") {
        text.push_str("wasi = true\n");
    }
    // Who shares bridges mostly changes one, and sees it thereby.
    let links = if wanted(&"shared") { "links = { change = [\"cni0\"] }" } else { "links = { use = [\"eth0\"] }" };
    for (interfaces, line, meaning) in [
        (&["host-netns", "shared"][..], links, "the node's links that are there for it"),
        (
            &["shared", "sysctl"],
            "sysctls = [\"ipv4/ip_forward\"]",
            "those of the node that it may switch on, and of the pod",
        ),
        (&["delegate"], "delegates = [\"host-local\"]", "the plugins it may run"),
        (
            &["delegate"],
            "native_delegates = [\"host-local\"]",
            "those of them that may be native programs, run as root",
        ),
        (
            &["delegate", "configure", "addresses"],
            "own_addresses = true",
            "if it decides itself what addresses pods have",
        ),
        (&["links"], "tap = true", "if it makes tap devices"),
        (&["devices"], "devices = [\"0000:03:00.0\"]", "hardware whose interface it may take into the pod"),
        (&["files"], "files = [\"/etc/resolv.conf\"]", "the files it may read"),
        (&["files", "leases"], "data_dirs = [\"/run/ipam\"]", "directories of leases, or of a file for each pod"),
        (&["endpoint"], "endpoints = [\"agent\"]", "the agents it may call; each has a table:"),
        (&["endpoint"], "[endpoints.agent]", "once in the file"),
        (&["endpoint"], "address = \"http://127.0.0.1:8082\"", "or \"unix:/run/agent.sock\""),
        (&["endpoint"], "allow = [\"GET /ping\"]", "the calls that it may make"),
    ] {
        if interfaces.iter().any(wanted) {
            // Writing to a string can't fail.
            let _ = writeln!(text, "# {line:38} # {meaning}");
        }
    }
    text
}

/// One plugin as it stands.
#[derive(Serialize)]
pub(crate) struct Row {
    /// Its type.
    pub(crate) plugin: String,
    version: Option<String>,
    digest: Option<String>,
    /// "compiled", or what else.
    pub(crate) state: String,
    /// Why it is not "compiled", and what to do.
    pub(crate) why: Option<String>,
    imports: Vec<String>,
}

/// Every plugin that is installed or that policy speaks of.
pub(crate) fn rows() -> Result<Vec<Row>> {
    let active = Generation::active()?;
    let about = active.as_ref().map(Generation::about).transpose()?;
    let grants = active.as_ref().map(Generation::grants).transpose()?.unwrap_or_default();
    let mut names = crate::apply::installed();
    names.extend(grants.keys().cloned());
    names.sort_unstable();
    names.dedup();
    let engine = engine_sum()?;
    let active = active.as_ref().zip(about.as_ref());
    Ok(names.into_iter().map(|plugin| row(plugin, &grants, active, &engine)).collect())
}

/// Lists them. Whether all of them can run.
pub(crate) fn plugins(output: &Output) -> Result<bool> {
    let rows = rows()?;
    let good = rows.iter().all(|row| row.state == "compiled");
    if output.json {
        output.json(&rows)?;
        return Ok(good);
    }
    output.table(
        ["TYPE", "VERSION", "DIGEST", "STATE", "IMPORTS"],
        rows.iter().map(|row| {
            [
                row.plugin.clone(),
                row.version.clone().unwrap_or_else(|| "-".into()),
                row.digest.as_deref().and_then(|digest| digest.get(..19)).unwrap_or("-").to_owned(),
                row.state.clone(),
                row.imports.join(" "),
            ]
        }),
    );
    for row in &rows {
        if let Some(why) = &row.why {
            output.warn(format!("{}: {why}", row.plugin));
        }
    }
    Ok(good)
}

/// What to do about a component that is not the one that was compiled.
fn other_component(plugin: &str, digest: Option<&str>) -> String {
    let path = component_path(plugin);
    let file = path.display();
    let pinned = files::read_trusted(Path::new(paths::POLICY)).and_then(|text| policy::parse(&text)).ok();
    let pinned = pinned.and_then(|policy| policy.digest(plugin).map(str::to_owned));
    let fate = match (digest, pinned) {
        (None, _) => "is missing or can't be read, and without it apply would refuse the plugin",
        (Some(digest), Some(pinned)) if pinned != digest => {
            "is neither the one that was compiled nor the one that the policy has the digest of, and apply would refuse the plugin"
        }
        _ => {
            return format!(
                "{file} is not the one that was compiled; calls use that one until you run: sandwirectl apply"
            );
        }
    };
    format!(
        "{file} {fate}: calls use the compiled one until then; put the right file back (one of Sandwire's own:  rm -f {file} && sandwirectl install --from  the release), or have the digest of this one in the policy if you trust it"
    )
}

fn row(plugin: String, grants: &BTreeMap<String, Grant>, active: Option<(&Generation, &About)>, engine: &str) -> Row {
    let bytes = component::read(&component_path(&plugin));
    let digest = bytes.as_ref().ok().map(|bytes| component::digest(bytes));
    let surface: Option<Surface> = bytes.ok().and_then(|bytes| component::surface(&bytes).ok());
    let (state, why) = match grants.get(&plugin).zip(active) {
        None => ("no policy", Some(format!("no {} is in force: its calls are refused", header(&plugin)))),
        Some((Grant { refused: Some(why), .. }, _)) => ("refused", Some(why.clone())),
        Some((grant, (generation, about))) => {
            if grant.wasmtime != WASMTIME_VERSION || about.engine != engine {
                let other =
                    format!("compiled by another release (wasmtime {}); run: sandwirectl apply", grant.wasmtime);
                ("stale", Some(other))
            } else if let Some(file) = [&grant.compiled, &format!("{plugin}.json")]
                .into_iter()
                .find(|file| generation.file(about, file).is_none())
            {
                let other = format!(
                    "{} is missing, was changed or can be changed by others; run: sandwirectl apply",
                    generation.path.join(file).display()
                );
                ("damaged", Some(other))
            } else if digest.as_ref() != Some(&grant.digest) {
                ("stale", Some(other_component(&plugin, digest.as_deref())))
            } else {
                let missing = surface.as_ref().map(|surface| not_granted(grant, surface)).unwrap_or_default();
                match missing.is_empty() {
                    true => ("compiled", None),
                    false => ("not granted", Some(missing.join("; "))),
                }
            }
        }
    };
    Row {
        plugin,
        version: surface.as_ref().and_then(|surface| surface.version.clone()),
        digest,
        state: state.to_owned(),
        why,
        imports: surface.map(|surface| surface.wanted().into_keys().collect()).unwrap_or_default(),
    }
}
