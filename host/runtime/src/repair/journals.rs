//! Journal files that do not say whose they are: no call and no GC finds what they list.

use super::{Finding, Kind, Options, Remedy, in_time};
use crate::stores;
use sandwire_policy::paths;
use sandwire_state::journal::{self, Attachment, Nameless};
use sandwire_state::{Outcome, StateError};
use std::path::Path;

pub(super) fn mend(options: &Options) -> Outcome<Vec<Finding>> {
    let nameless = journal::nameless(Path::new(paths::JOURNAL))?;
    if nameless.is_empty() {
        return Ok(Vec::new());
    }
    let holders = holders()?;
    let mut findings = Vec::new();
    for file in nameless {
        let whose = holders.iter().find(|attachment| file.is_of(attachment));
        let found = match whose {
            Some(attachment) if !file.blank => adopt(options, &file, attachment),
            _ if file.says_nothing => discard(options, &file),
            _ => Ok(Some(finding(&file, None, told(&file), Remedy::Told))),
        };
        match found {
            Ok(found) => findings.extend(found),
            Err(StateError::Busy(text)) => {
                let text = format!("{}: {text}: a call runs, and is left to itself", file.path.display());
                findings.push(Finding { kind: Kind::Busy, ..finding(&file, None, text, Remedy::Told) });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(findings)
}

/// Everybody who holds a lease: a file's name is a hash, which can only be tried.
fn holders() -> Outcome<Vec<Attachment>> {
    let mut holders = Vec::new();
    for directory in stores::directories()? {
        // What is wrong with a store is told by who looks at the leases.
        let Ok(survey) = in_time(|| stores::open(&directory)?.survey()) else { continue };
        let network = stores::network(&directory);
        holders.extend(survey.leases.into_iter().map(|lease| lease.owner.in_network(&network)));
    }
    Ok(holders)
}

fn finding(file: &Nameless, whose: Option<&Attachment>, text: String, remedy: Remedy) -> Finding {
    Finding {
        kind: if file.blank { Kind::BlankJournal } else { Kind::UnreadableJournal },
        network: file.folder(),
        container_id: whose.map(|attachment| attachment.container_id.clone()),
        interface: whose.map(|attachment| attachment.ifname.clone()),
        address: None,
        text,
        remedy,
    }
}

fn adopt(options: &Options, file: &Nameless, attachment: &Attachment) -> Outcome<Option<Finding>> {
    let text = format!(
        "{} does not say whose it is, so that only a call for that very attachment found it; by its lease and the file's name it is this one's",
        file.path.display()
    );
    if options.dry_run {
        return Ok(Some(finding(file, Some(attachment), text, Remedy::WouldMend)));
    }
    in_time(|| journal::adopt(Path::new(paths::JOURNAL), attachment))?;
    Ok(Some(finding(file, Some(attachment), text, Remedy::Mended)))
}

fn discard(options: &Options, file: &Nameless) -> Outcome<Option<Finding>> {
    let why = match file.blank {
        true => "has no line: its call was killed before it did anything",
        false => "has no line that can be read: it says nothing of what was done, nor for whom",
    };
    let text = format!("{} {why}", file.path.display());
    if options.dry_run {
        return Ok(Some(finding(file, None, text, Remedy::WouldMend)));
    }
    let removed = in_time(|| journal::discard(Path::new(paths::JOURNAL), file))?;
    Ok(removed.then(|| finding(file, None, text, Remedy::Mended)))
}

fn told(file: &Nameless) -> String {
    let lists: Vec<_> = file.pending.iter().collect();
    format!(
        "{} does not say whose it is, and nobody who holds a lease has its name; it lists {}. The DEL of its attachment finds it; when its container is gone, take that back by hand and remove the file",
        file.path.display(),
        super::attachments::list(&lists)
    )
}
