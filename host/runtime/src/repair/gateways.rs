//! Gateways on links that somebody else makes: an agent that is started again makes another bridge for a network, and its
//! pods have lost their gateway until it gets the same address and MAC.

use super::{Finding, Kind, Options, Remedy, in_time, journal_of};
use sandwire_kernel::linux::LinuxKernel;
use sandwire_kernel::{AddressSpec, Kernel, KernelError, LinkInfo, Netns, shared};
use sandwire_policy::paths;
use sandwire_state::journal::{self, Attachment, Entry, Held, Undo};
use sandwire_state::{Outcome, StateError};
use std::path::Path;

pub(super) fn mend(options: &Options) -> Outcome<Vec<Finding>> {
    let known = journal::list(Path::new(paths::JOURNAL), None)?;
    // All attachments of a network hold the same.
    let mut all: Vec<(&Held, Vec<&Attachment>)> = Vec::new();
    for summary in known.iter().filter(|summary| !summary.has_left_over()) {
        for held in summary.pending.iter().filter_map(held) {
            match all.iter_mut().find(|(other, _)| *other == held) {
                Some((_, holders)) => holders.push(&summary.attachment),
                None => all.push((held, vec![&summary.attachment])),
            }
        }
    }
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let mut kernel = LinuxKernel::open(None).map_err(failed)?;
    let mut findings = Vec::new();
    for (held, holders) in all {
        for holder in holders {
            match one(options, &mut kernel, holder, held)? {
                Looked::Well => break,
                Looked::Lacking(finding) => {
                    findings.push(finding);
                    break;
                }
                // The next one holds it as well.
                Looked::NotHeld => {}
            }
        }
    }
    Ok(findings)
}

/// What came of one.
enum Looked {
    /// It has what is held.
    Well,
    /// It has not, or had not.
    Lacking(Finding),
    /// It has not, but the attachment went meanwhile.
    NotHeld,
}

fn failed(error: KernelError) -> StateError {
    StateError::Other(error.to_string())
}

fn held(entry: &Entry) -> Option<&Held> {
    match &entry.undo {
        Undo::Shared { held, .. } => held.as_ref(),
        _ => None,
    }
}

fn one(options: &Options, kernel: &mut LinuxKernel, attachment: &Attachment, held: &Held) -> Outcome<Looked> {
    let finding = |text: String, remedy| Finding {
        kind: Kind::LostGateway,
        network: attachment.network.clone(),
        container_id: None,
        interface: None,
        address: None,
        text,
        remedy,
    };
    let link = match kernel.link_by_name(Netns::Host, held.link()) {
        // Something else may have its name by now, and was never meant.
        Ok(link) if link.kind == "bridge" => link,
        // Its agent has none: that is a lost registration.
        Ok(_) | Err(KernelError::NotFound(_)) => return Ok(Looked::Well),
        Err(error) => return Err(failed(error)),
    };
    let wanted = match Wanted::of(held) {
        Ok(wanted) => wanted,
        // Another release wrote it: no reason to leave everything else as it is.
        Err(why) => return Ok(Looked::Lacking(finding(format!("{}: {why}", link.name), Remedy::Told))),
    };
    if wanted.is_on(kernel, &link).map_err(failed)? {
        return Ok(Looked::Well);
    }
    let text = format!(
        "{} lacks the gateway's {wanted}: another one was made in its place, or somebody took it off",
        link.name
    );
    if options.dry_run {
        return Ok(Looked::Lacking(finding(text, Remedy::WouldMend)));
    }
    in_time(|| {
        let journal = match journal_of(attachment)? {
            Ok(journal) => journal,
            Err(busy) => return Ok(Looked::Lacking(busy)),
        };
        if !journal.pending().into_iter().any(|entry| self::held(entry) == Some(held)) {
            // A DEL was faster.
            journal.remove_if_empty()?;
            return Ok(Looked::NotHeld);
        }
        Ok(Looked::Lacking(match wanted.put(kernel, &link) {
            Ok(()) => finding(format!("{text}; it has it again"), Remedy::Mended),
            Err(why) => finding(format!("{text}; could not give it: {why}"), Remedy::Left),
        }))
    })
}

/// What is held, as the kernel takes it.
enum Wanted {
    Address(AddressSpec),
    Mac(sandwire_kernel::Mac),
}

impl Wanted {
    fn of(held: &Held) -> Result<Self, String> {
        match held {
            Held::Address { address, .. } => serde_json::from_value(address.clone())
                .map(Self::Address)
                .map_err(|error| format!("the journal has no address that this release knows: {error}")),
            Held::Mac { mac, .. } => mac.parse().map(Self::Mac).map_err(|_| format!("the journal has no MAC: {mac:?}")),
        }
    }

    fn is_on(&self, kernel: &mut LinuxKernel, link: &LinkInfo) -> Result<bool, KernelError> {
        Ok(match self {
            Self::Address(spec) => kernel.addresses(link.id)?.iter().any(|present| present.address == spec.address),
            Self::Mac(mac) => link.mac == Some(*mac),
        })
    }

    fn put(&self, kernel: &mut LinuxKernel, link: &LinkInfo) -> Result<(), KernelError> {
        match self {
            Self::Address(spec) => shared::ensure_address(kernel, link, spec, false).map(|_| ()),
            Self::Mac(mac) => shared::ensure_mac(kernel, link, *mac),
        }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(spec) => write!(f, "address {}", spec.address),
            Self::Mac(mac) => write!(f, "MAC {mac}"),
        }
    }
}
