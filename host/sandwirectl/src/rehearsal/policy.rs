//! What plugins may do on the node of a rehearsal.

use crate::component::{self, Surface};
use crate::policy;
use anyhow::{Context, Result, anyhow};
use sandwire_policy::file::{Faults, HEAD, entry};
use sandwire_policy::header;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// The operator's file with the digests that the components have now; or the shipped entries, and one for each of the author's
/// own that grants what it imports.
pub(super) fn text(
    file: Option<&Path>,
    components: &BTreeMap<String, Vec<u8>>,
    own: &BTreeMap<String, Surface>,
) -> Result<String> {
    let digests: BTreeMap<String, String> =
        components.iter().map(|(plugin, bytes)| (plugin.clone(), component::digest(bytes))).collect();
    let mut text = match file {
        Some(file) => given(file, &digests)?,
        None => HEAD.to_owned(),
    };
    let has = policy::parse(&text)?;
    for (plugin, digest) in digests.iter().filter(|(plugin, _)| has.digest(plugin).is_none()) {
        match own.get(plugin) {
            Some(_) if file.is_some() => {}
            Some(surface) => text.push_str(&all_of_it(plugin, digest, surface)),
            None => text.push_str(&entry(plugin, digest).unwrap_or_default()),
        }
    }
    Ok(text)
}

/// The author's file: a whole policy, or only the lines that `inspect` proposes.
fn given(file: &Path, digests: &BTreeMap<String, String>) -> Result<String> {
    let mut text = std::fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
    let is_whole = text.lines().any(|line| line.trim_start().starts_with("version"));
    if !is_whole {
        text.insert_str(0, "version = 1\n");
    }
    // The reader speaks of the file of a node, and counts the line that was put before.
    let parsed = policy::parse(&text).map_err(|error| match error.downcast::<Faults>() {
        Ok(Faults(faults)) => {
            let faults = faults.into_iter().map(|fault| {
                let line = fault.line.saturating_sub(usize::from(!is_whole));
                format!("{}:{line}: {}", file.display(), fault.text)
            });
            anyhow!("{}", faults.collect::<Vec<_>>().join("\n"))
        }
        Err(error) => error,
    })?;
    Ok(parsed.with_digests(&text, digests))
}

/// All that a component imports, on all links of the node: it has no others than those of the rehearsal.
fn all_of_it(plugin: &str, digest: &str, surface: &Surface) -> String {
    let wanted = surface.wanted();
    let wants = |names: &[&str]| names.iter().any(|name| wanted.contains_key(*name));
    // What this release does not have can't be granted; the call says so.
    let known = wanted.keys().filter(|name| *name != "wasi" && component::meaning(name).is_some());
    let imports: Vec<String> = known.map(|name| format!("{name:?}")).collect();
    let mut text = format!("\n{}\ncomponent = {digest:?}\nimports = [{}]\n", header(plugin), imports.join(", "));
    for (needed, line) in [
        (wants(&["wasi"]), "wasi = true"),
        (wants(&["host-netns", "shared", "links"]), "links = { use = [\"*\"], change = [\"*\"], take = [\"*\"] }"),
        // Keys of "all" and the like count only when they are written out.
        (wants(&["shared", "sysctl"]), "sysctls = [\"*\", \"ipv4/ip_forward\", \"ipv6/conf/all/forwarding\"]"),
        (wants(&["delegate"]), "delegates = [\"*\"]"),
        (true, "own_addresses = true"),
        (wants(&["links"]), "tap = true"),
        (wants(&["devices"]), "devices = [\"*\"]"),
        (wants(&["endpoint"]), "endpoints = [\"bagpipe\"]"),
        (wants(&["leases", "files"]), "data_dirs = [\"/*\"]"),
    ] {
        if needed {
            // Writing to a string can't fail.
            let _ = writeln!(text, "{line}");
        }
    }
    text
}
