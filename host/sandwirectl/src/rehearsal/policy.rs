//! What plugins may do on the node of a rehearsal.

use crate::component::{self, Surface};
use crate::policy;
use anyhow::{Context, Result};
use sandwire_policy::file::{HEAD, entry};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// The operator's file with the digests that the components have now; or the shipped entries, and one for each of the author's
/// own that grants what it imports.
pub(super) fn text(
    file: Option<&Path>,
    components: &BTreeMap<String, Vec<u8>>,
    own: &[(String, Surface)],
) -> Result<String> {
    let digests: BTreeMap<String, String> =
        components.iter().map(|(plugin, bytes)| (plugin.clone(), component::digest(bytes))).collect();
    if let Some(file) = file {
        let text = std::fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
        let parsed = policy::parse(&text).with_context(|| file.display().to_string())?;
        return Ok(parsed.with_digests(&text, &digests));
    }
    let mut text = HEAD.to_owned();
    for (plugin, digest) in &digests {
        match own.iter().find(|(name, _)| name == plugin) {
            Some((_, surface)) => text.push_str(&all_of_it(plugin, digest, surface)),
            None => text.push_str(&entry(plugin, digest).unwrap_or_default()),
        }
    }
    Ok(text)
}

/// All that a component imports, on all links of the node: it has no others than those of the rehearsal.
fn all_of_it(plugin: &str, digest: &str, surface: &Surface) -> String {
    let wanted = surface.wanted();
    let wants = |names: &[&str]| names.iter().any(|name| wanted.contains_key(*name));
    let imports: Vec<String> = wanted.keys().filter(|name| *name != "wasi").map(|name| format!("{name:?}")).collect();
    let mut text = format!("\n[plugins.{plugin}]\ncomponent = {digest:?}\nimports = [{}]\n", imports.join(", "));
    for (needed, line) in [
        (wants(&["wasi"]), "wasi = true"),
        (wants(&["host-netns", "shared", "links"]), "links = { use = [\"*\"], change = [\"*\"] }"),
        // Keys of "all" and the like count only when they are written out.
        (wants(&["shared", "sysctl"]), "sysctls = [\"*\", \"ipv4/ip_forward\", \"ipv6/conf/all/forwarding\"]"),
        (wants(&["delegate"]), "delegates = [\"*\"]"),
        (wants(&["leases"]), "data_dirs = [\"/var/lib/cni/*\"]"),
    ] {
        if needed {
            // Writing to a string can't fail.
            let _ = writeln!(text, "{line}");
        }
    }
    text
}
