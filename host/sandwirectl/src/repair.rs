//! `repair`: what is out of step on this node, and mending it.

use crate::output::Output;
use anyhow::{Result, anyhow};
use sandwire_policy::paths;
use sandwire_runtime::repair::{self, Finding, Kind, Remedy};
use std::path::PathBuf;

/// How `repair` is asked.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Directory of CNI plugins, for what a native delegate has to take back; several with a colon between them
    #[arg(long, value_name = "DIRS", default_value = paths::BIN_DIR)]
    bin_dir: String,
}

/// Mends; whether nothing is out of step after it (with `--dry-run`: before it).
pub(crate) fn repair(output: &Output, options: &Options) -> Result<bool> {
    let path = options.bin_dir.split(':').map(PathBuf::from).collect();
    let findings = repair::repair(&repair::Options { dry_run: options.dry_run, path });
    let findings = findings.map_err(|error| anyhow!("{error}"))?;
    let well = !findings.iter().any(Finding::is_open);
    if output.json {
        output.json(&findings)?;
        return Ok(well);
    }
    if findings.is_empty() {
        output.line("nothing is out of step");
        return Ok(true);
    }
    for finding in &findings {
        output.line(format_args!("{:<10} {}", remedy(finding.remedy), subject(finding)));
        output.line(format_args!("           {}", finding.text));
    }
    Ok(well)
}

fn remedy(remedy: Remedy) -> &'static str {
    match remedy {
        Remedy::Mended => "mended",
        Remedy::WouldMend => "would mend",
        Remedy::Left => "left",
        Remedy::Told => "see",
    }
}

fn subject(finding: &Finding) -> String {
    let kind = match finding.kind {
        Kind::Unfinished => "unfinished ADD",
        Kind::Kept => "undo that was kept",
        Kind::Gone => "attachment without a namespace",
        Kind::Damaged => "damaged journal",
        Kind::BlankJournal => "blank journal",
        Kind::UnreadableJournal => "unreadable journal",
        Kind::OrphanedRules => "firewall rules of nobody",
        Kind::UnknownRegistration => "unknown registration",
        Kind::LostRegistration => "lost registration",
        Kind::LostPort => "lost port",
        Kind::LostGateway => "lost gateway",
        Kind::SilentAgent => "silent agent",
        Kind::DueLease => "lease of a DHCP server",
        Kind::ExpiredLease => "lease of a DHCP server that ran out",
        Kind::LostLease => "attachment without its lease",
        Kind::EarlierBoot => "lease of an earlier boot",
        Kind::EmptyLease => "lease without an owner",
        Kind::UnknownHolder => "lease of an unknown holder",
        Kind::UnreadableLease => "unreadable lease",
        Kind::Busy => "busy",
    };
    let address = finding.address.map(|address| format!(", {address}")).unwrap_or_default();
    let whose = finding.container_id.as_ref().map(|id| match finding.interface.as_deref() {
        Some("") | None => format!(", container {id}"),
        Some(interface) => format!(", container {id}, interface {interface}"),
    });
    let network = if finding.network.is_empty() { String::new() } else { format!(": network {}", finding.network) };
    format!("{kind}{network}{address}{}", whose.unwrap_or_default())
}
