//! Leases by their files, against what the journal says.

use super::{Finding, Kind, Options, Remedy, in_time};
use crate::stores;
use sandwire_state::journal::{Attachment, State, Summary, Undo};
use sandwire_state::leases::{Listed, Made, Survey};
use sandwire_state::{Outcome, Owner, StateError};
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub(super) fn mend(options: &Options) -> Outcome<Vec<Finding>> {
    let mut findings = Vec::new();
    for directory in stores::directories()? {
        let error = match in_time(|| Store::look(&directory)?.mend(options)) {
            Ok(found) => {
                findings.extend(found);
                continue;
            }
            Err(error) => error,
        };
        let (kind, remedy) = match error {
            StateError::Busy(_) => (Kind::Busy, Remedy::Told),
            _ => (Kind::UnreadableLease, Remedy::Left),
        };
        findings.push(Finding {
            kind,
            network: stores::network(&directory),
            container_id: None,
            interface: None,
            address: None,
            text: error.to_string(),
            remedy,
        });
    }
    Ok(findings)
}

/// One store, with the attachments of its network that the journal knows.
struct Store {
    directory: PathBuf,
    network: String,
    survey: Survey,
    known: Vec<Summary>,
}

impl Store {
    /// First the leases, then the journal: an ADD writes there before it takes an address, so whoever has one by now and
    /// is one of ours is in it.
    fn look(directory: &Path) -> Outcome<Self> {
        let survey = stores::open(directory)?.survey()?;
        let network = stores::network(directory);
        let known = stores::known(Some(&network))?;
        Ok(Self { directory: directory.to_owned(), network, survey, known })
    }

    fn finding(&self, kind: Kind, owner: Option<&Owner>, address: IpAddr, text: String, remedy: Remedy) -> Finding {
        Finding {
            kind,
            network: self.network.clone(),
            container_id: owner.map(|owner| owner.container_id.clone()),
            interface: owner.map(|owner| owner.ifname.clone()),
            address: Some(address),
            text,
            remedy,
        }
    }

    fn mend(&self, options: &Options) -> Outcome<Vec<Finding>> {
        let mut findings = self.empty(options)?;
        findings.extend(self.earlier_boots(options)?);
        findings.extend(self.unknown_holders()?);
        findings.extend(self.unreadable());
        findings.extend(self.lost()?);
        Ok(findings)
    }

    fn empty(&self, options: &Options) -> Outcome<Vec<Finding>> {
        if self.survey.empty.is_empty() {
            return Ok(Vec::new());
        }
        let (gone, remedy) = match options.dry_run {
            true => (self.survey.empty.clone(), Remedy::WouldMend),
            false => (stores::open(&self.directory)?.remove_empty()?, Remedy::Mended),
        };
        let text = "its file has no owner: native host-local was killed before it wrote one, and counts it as taken";
        Ok(gone.into_iter().map(|at| self.finding(Kind::EmptyLease, None, at, text.into(), remedy)).collect())
    }

    fn earlier_boots(&self, options: &Options) -> Outcome<Vec<Finding>> {
        let of_before = || self.survey.leases.iter().filter(|lease| lease.made == Made::EarlierBoot);
        if of_before().next().is_none() {
            return Ok(Vec::new());
        }
        let (gone, remedy): (HashSet<IpAddr>, _) = match options.dry_run {
            true => (of_before().map(|lease| lease.address).collect(), Remedy::WouldMend),
            false => (stores::open(&self.directory)?.reclaim_earlier_boots()?.into_iter().collect(), Remedy::Mended),
        };
        let text = "given in an earlier boot, with which its container ended";
        let gone = of_before().filter(|lease| gone.contains(&lease.address));
        let finding =
            |lease: &Listed| self.finding(Kind::EarlierBoot, Some(&lease.owner), lease.address, text.into(), remedy);
        Ok(gone.map(finding).collect())
    }

    fn is_known(&self, owner: &Owner) -> bool {
        self.known.iter().any(|summary| {
            let attachment = &summary.attachment;
            // Before 0.8.3 host-local wrote no interface.
            attachment.container_id == owner.container_id
                && (attachment.ifname == owner.ifname || owner.ifname.is_empty())
        })
    }

    fn unknown_holders(&self) -> Outcome<Vec<Finding>> {
        let unknown = |lease: &&Listed| lease.made != Made::EarlierBoot && !self.is_known(&lease.owner);
        if !self.survey.leases.iter().any(|lease| unknown(&lease)) {
            return Ok(Vec::new());
        }
        // A DEL may have given one back between the two looks.
        let now = stores::open(&self.directory)?.survey()?;
        let still = |lease: &&Listed| holds(&now, &lease.owner, lease.address);
        let finding = |lease: &Listed| {
            let whose = match lease.made {
                Made::ThisBoot => "ours made it in this boot, but its journal is gone",
                _ => {
                    "native host-local made it, or the index was lost: whether its container lives, only its runtime knows"
                }
            };
            let text = format!(
                "held by nobody that the journal knows: {whose}; GC gives it back when the runtime does not list it, or: sandwirectl leases release {} --network {}",
                lease.address, self.network
            );
            self.finding(Kind::UnknownHolder, Some(&lease.owner), lease.address, text, Remedy::Told)
        };
        Ok(self.survey.leases.iter().filter(unknown).filter(still).map(finding).collect())
    }

    fn unreadable(&self) -> impl Iterator<Item = Finding> {
        self.survey.unreadable.iter().map(|address| {
            let file = self.directory.join(address.to_string());
            let text =
                format!("{} is no lease that can be read: look at it, and remove it if it is nobody's", file.display());
            self.finding(Kind::UnreadableLease, None, *address, text, Remedy::Told)
        })
    }

    /// Addresses of attachments that others could be given.
    fn lost(&self) -> Outcome<Vec<Finding>> {
        let mut missing = Vec::new();
        for summary in self.known.iter().filter(|summary| summary.uncommitted == 0) {
            for address in self.leased(summary) {
                if !holds(&self.survey, &summary.attachment.owner(), address) {
                    missing.push((&summary.attachment, address));
                }
            }
        }
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        // An ADD may have ended between the two looks, and a DEL may have since: leases, then once more the journal.
        let now = stores::open(&self.directory)?.survey()?;
        let known = stores::known(Some(&self.network))?;
        let said = |attachment: &Attachment, address: IpAddr| {
            let mut same = known.iter().filter(|summary| summary.attachment == *attachment);
            same.any(|summary| self.leased(summary).contains(&address))
        };
        missing
            .retain(|(attachment, address)| !holds(&now, &attachment.owner(), *address) && said(attachment, *address));
        Ok(missing.into_iter().map(|(attachment, address)| self.lost_one(&now, attachment, address)).collect())
    }

    /// What an attachment has here, by its journal.
    fn leased(&self, summary: &Summary) -> Vec<IpAddr> {
        let done = summary.pending.iter().filter(|entry| entry.state == State::Done);
        done.filter_map(|entry| match &entry.undo {
            Undo::ReleaseLease { directory, address } if *directory == self.directory => *address,
            _ => None,
        })
        .collect()
    }

    fn lost_one(&self, now: &Survey, attachment: &Attachment, address: IpAddr) -> Finding {
        let holder = now.leases.iter().find(|lease| lease.address == address);
        let text = match holder {
            Some(lease) => format!(
                "the attachment has this address, but its lease is now of container {}, interface {:?}: two may be using it; attach one of them again",
                lease.owner.container_id, lease.owner.ifname
            ),
            None => format!(
                "the attachment has this address, but no lease: the next ADD could be given it; attach it again, or: {}printf '{}\\r\\n{}' > {}",
                match self.directory.is_dir() {
                    true => String::new(),
                    false => format!("mkdir -p {}; ", self.directory.display()),
                },
                attachment.container_id,
                attachment.ifname,
                self.directory.join(address.to_string()).display()
            ),
        };
        self.finding(Kind::LostLease, Some(&attachment.owner()), address, text, Remedy::Told)
    }
}

/// Whether `owner` has `address`, by its file.
fn holds(survey: &Survey, owner: &Owner, address: IpAddr) -> bool {
    survey.leases.iter().any(|lease| {
        lease.address == address
            && lease.owner.container_id == owner.container_id
            && (lease.owner.ifname == owner.ifname || lease.owner.ifname.is_empty())
    })
}
