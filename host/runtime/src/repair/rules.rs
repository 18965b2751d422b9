//! Firewall rules in our tables whose attachment no journal knows.

use super::{Finding, Kind, Options, Remedy, in_time};
use crate::stores;
use sandwire_kernel::linux::LinuxKernel;
use sandwire_kernel::{Kernel, KernelError, LinkInfo, Netns, RuleHolder};
use sandwire_policy::paths;
use sandwire_state::journal::{self, Summary};
use sandwire_state::{Outcome, StateError};
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;

pub(super) fn mend(options: &Options) -> Outcome<Vec<Finding>> {
    let mut kernel = match LinuxKernel::open(None) {
        Ok(kernel) => kernel,
        Err(error) => return Err(failed(error)),
    };
    // First the rules, then the journal: an ADD writes there before it makes any.
    let holders = match kernel.rule_holders() {
        Ok(holders) => holders,
        // Who may not look at the firewall may not look into the journal either, if there is one.
        Err(KernelError::Denied(_)) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut unknown = unknown(holders)?;
    if unknown.is_empty() {
        return Ok(Vec::new());
    }
    let used = match Used::look(&mut kernel) {
        // Whose lock it is, those who look at the leases tell.
        Err(StateError::Busy(_)) => return Ok(Vec::new()),
        used => used?,
    };
    // A DEL may have ended between the two looks, and an ADD may have begun.
    let still = kernel.rule_holders().map_err(failed)?;
    unknown.retain(|holder| still.contains(holder));
    let (in_use, orphans): (Vec<_>, Vec<_>) = unknown.into_iter().partition(|holder| used.by(holder).is_some());
    let told = in_use.iter().filter_map(|holder| {
        let text = format!(
            "{}: no journal knows the attachment, but {} is there: its container may live, and its journal is lost. They go with its DEL, or with GC of the network when the runtime does not list it",
            what(holder),
            used.by(holder)?
        );
        Some(finding(holder, text, Remedy::Told))
    });
    let mut findings: Vec<Finding> = told.collect();
    let remedy = match options.dry_run || orphans.is_empty() {
        true => Remedy::WouldMend,
        false => {
            let cleared = kernel.clear_rule_holders(&orphans);
            kernel.finish();
            cleared.map_err(failed)?;
            Remedy::Mended
        }
    };
    findings.extend(orphans.iter().map(|holder| {
        let text = format!(
            "{}: no journal knows the attachment, and neither its lease nor its link is there: the next container with the address would get them",
            what(holder)
        );
        finding(holder, text, remedy)
    }));
    Ok(findings)
}

fn failed(error: KernelError) -> StateError {
    StateError::Other(error.to_string())
}

fn unknown(mut holders: Vec<RuleHolder>) -> Outcome<Vec<RuleHolder>> {
    if holders.is_empty() {
        return Ok(holders);
    }
    let known = journal::list(Path::new(paths::JOURNAL), None)?;
    let is = |holder: &RuleHolder, summary: &Summary| {
        let attachment = &summary.attachment;
        holder.is(&attachment.network, &attachment.container_id, &attachment.ifname)
    };
    holders.retain(|holder| !known.iter().any(|summary| is(holder, summary)));
    Ok(holders)
}

/// What is in use on the node.
struct Used {
    leased: HashSet<IpAddr>,
    links: Vec<LinkInfo>,
}

impl Used {
    fn look(kernel: &mut LinuxKernel) -> Outcome<Self> {
        let mut leased = HashSet::new();
        for directory in stores::directories()? {
            let survey = in_time(|| stores::open(&directory)?.survey())?;
            leased.extend(survey.leases.into_iter().map(|lease| lease.address).chain(survey.unreadable));
        }
        Ok(Self { leased, links: kernel.links(Netns::Host).map_err(failed)? })
    }

    /// What of a holder is there still, in words.
    fn by(&self, holder: &RuleHolder) -> Option<String> {
        let lease = holder.addresses.iter().find(|address| self.leased.contains(*address));
        let link = || holder.ports.iter().find(|port| self.links.iter().any(|link| link.name == **port));
        lease.map(|address| format!("a lease of {address}")).or_else(|| link().map(|port| format!("link {port}")))
    }
}

fn what(holder: &RuleHolder) -> String {
    let addresses = holder.addresses.iter().map(|address| format!("rules for {address}"));
    let ports = holder.ports.iter().map(|port| format!("rules for port {port}"));
    let all: Vec<String> = addresses.chain(ports).collect();
    let of = if holder.text.is_empty() { String::new() } else { format!(" ({})", holder.text) };
    format!("{}{of}", if all.is_empty() { "a record of rules".to_owned() } else { all.join(", ") })
}

fn finding(holder: &RuleHolder, text: String, remedy: Remedy) -> Finding {
    // "bridge/masquerade, net: mynet, if: eth0, id: 0123"
    let part = |name: &str| {
        let part = holder.text.split(", ").find_map(|part| part.strip_prefix(name)?.strip_prefix(": "));
        part.map(str::to_owned)
    };
    Finding {
        kind: Kind::OrphanedRules,
        network: part("net").unwrap_or_default(),
        container_id: part("id"),
        interface: part("if"),
        address: holder.addresses.first().copied(),
        text,
        remedy,
    }
}
