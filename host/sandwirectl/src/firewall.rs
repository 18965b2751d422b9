//! `firewall`: what is Sandwire's in the node's firewall as a whole, for a node that goes back to other plugins.

use crate::output::Output;
use anyhow::{Result, anyhow, bail, ensure};
use sandwire_kernel::linux::Nftables;
use sandwire_kernel::{FirewallObject, KernelError};
use serde::Serialize;

/// What is asked of the firewall.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Remove every table of Sandwire's, and its rules in chains of others, whoever has something in them
    Remove {
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
}

/// For programs.
#[derive(Serialize)]
struct Report {
    removed: bool,
    objects: Vec<Object>,
    /// How many attachments have, or had, something in them.
    attachments: usize,
}

#[derive(Serialize)]
struct Object {
    family: &'static str,
    table: &'static str,
    chain: Option<&'static str>,
    comment: Option<&'static str>,
}

impl From<&FirewallObject> for Object {
    fn from(object: &FirewallObject) -> Self {
        let FirewallObject { family, table, rule } = *object;
        Self { family, table, chain: rule.map(|(chain, _)| chain), comment: rule.map(|(_, comment)| comment) }
    }
}

/// Removes, or says what would be.
pub(crate) fn firewall(output: &Output, options: &Options) -> Result<bool> {
    let Action::Remove { dry_run, yes } = options.action;
    let mut nftables = Nftables::open().map_err(explained)?;
    let objects = nftables.everything().map_err(explained)?;
    let attachments = nftables.holders().map_err(explained)?.len();
    if !dry_run && !yes && !objects.is_empty() {
        ensure!(!output.json, "nobody can be asked for confirmation in JSON; give --yes");
        objects.iter().for_each(|object| output.line(object));
        if attachments > 0 {
            output.warn(living(attachments));
        }
        if !output.confirmed("remove all of it?")? {
            bail!("not confirmed; nothing was done");
        }
    }
    let objects = if dry_run { objects } else { nftables.remove_everything().map_err(explained)? };
    if output.json {
        let objects = objects.iter().map(Object::from).collect();
        output.json(&Report { removed: !dry_run, objects, attachments })?;
    } else if objects.is_empty() {
        output.line("nothing of Sandwire's is in the firewall");
    } else {
        let done = if dry_run { "would remove" } else { "removed" };
        objects.iter().for_each(|object| output.line(format_args!("{done} {object}")));
        if dry_run && attachments > 0 {
            output.warn(living(attachments));
        }
    }
    Ok(true)
}

fn explained(error: KernelError) -> anyhow::Error {
    match error {
        KernelError::Denied(text) => anyhow!("{text}\nrun it as root: the firewall takes CAP_NET_ADMIN"),
        error => error.into(),
    }
}

fn living(attachments: usize) -> String {
    format!(
        "{attachments} attachments have something in it: if their containers live, those lose masquerading, published \
         ports, ingress policies and MAC spoof checks until they are attached again"
    )
}

/// The same for `uninstall`.
pub(crate) fn remove(changes: &mut Vec<String>) -> Result<()> {
    let removed = Nftables::open().and_then(|mut nftables| nftables.remove_everything()).map_err(explained)?;
    changes.extend(removed.iter().map(|object| format!("removed {object}")));
    Ok(())
}
