//! The whole of a store, for an operator: what each lease is, and what is in the directory without being one.

use super::directory::{Content, Directory, Identity, shape};
use super::index::{self, Index};
use super::{Store, ranges};
use crate::{Outcome, Owner};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// When a lease was made, as far as can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// By this store, in this boot.
    ThisBoot,
    /// By this store, in an earlier boot: its container ended with that.
    EarlierBoot,
    /// By native host-local, or before the index was lost. Its file says nothing of its boot.
    Unknown,
}

/// A lease with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The address.
    pub address: IpAddr,
    /// Who holds it; without an interface when a release of host-local before 0.8.3 wrote it.
    pub owner: Owner,
    /// Index of the range set it was taken from, when this store made it.
    pub set: Option<u32>,
    /// In which boot.
    pub made: Made,
    /// When its file was written, by the clock of that time.
    pub written: Option<SystemTime>,
}

/// What is in a store, each list by address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Addresses that somebody holds.
    pub leases: Vec<Listed>,
    /// Files without an owner, which a crash of native host-local leaves: free for us, taken for native host-local.
    pub empty: Vec<IpAddr>,
    /// Named like an address but no file that can be read: taken, by whom can't be said.
    pub unreadable: Vec<IpAddr>,
}

/// The lease directories of this store's indexes below `index_root`, those of a `dataDir` among them, sorted.
pub fn directories(index_root: &Path) -> Outcome<Vec<PathBuf>> {
    index::places(index_root)
}

impl Store {
    /// Everything that is there. Reads each file: for people, not for calls.
    pub fn survey(&mut self) -> Outcome<Survey> {
        let Some((directory, mut index)) = self.lock()? else { return Ok(Survey::default()) };
        let known: HashMap<u128, _> = index.holdings()?.into_iter().map(|holding| (holding.number, holding)).collect();
        let mut survey = Survey::default();
        for (number, stat) in directory.scan()? {
            let address = ranges::address(number);
            match directory.content(number) {
                Content::Missing => {}
                Content::Empty => survey.empty.push(address),
                Content::Unreadable => survey.unreadable.push(address),
                Content::Owned(owner) => {
                    let holding = known.get(&number).filter(|holding| holding.identity == Identity::from(&stat));
                    let made = match holding {
                        Some(holding) if self.is_earlier(holding) => Made::EarlierBoot,
                        Some(holding) if self.boot != 0 && holding.boot == self.boot => Made::ThisBoot,
                        _ => Made::Unknown,
                    };
                    let written = u64::try_from(stat.st_mtime).ok().map(Duration::from_secs);
                    let written = written.and_then(|since| UNIX_EPOCH.checked_add(since));
                    let set = holding.and_then(|holding| holding.set);
                    survey.leases.push(Listed { address, owner, set, made, written });
                }
            }
        }
        survey.leases.sort_unstable_by_key(|lease| lease.address);
        survey.empty.sort_unstable();
        survey.unreadable.sort_unstable();
        Ok(survey)
    }

    /// Removes the files without an owner; the addresses that are free again for everybody.
    pub fn remove_empty(&mut self) -> Outcome<Vec<IpAddr>> {
        let Some((directory, mut index)) = self.lock()? else { return Ok(Vec::new()) };
        let mut removed = remove_empty(&directory, &mut index)?;
        if !removed.is_empty() {
            index.seal(&directory);
        }
        removed.sort_unstable();
        Ok(removed)
    }
}

/// Removes the files without an owner. Not sealed yet.
pub(super) fn remove_empty(directory: &Directory, index: &mut Index) -> Outcome<Vec<IpAddr>> {
    let held: HashSet<u128> = index.holdings()?.into_iter().map(|holding| holding.number).collect();
    let mut removed = Vec::new();
    for (number, stat) in directory.scan()? {
        if shape(&stat).0 && !held.contains(&number) && directory.content(number) == Content::Empty {
            directory.remove(number)?;
            removed.push(ranges::address(number));
        }
    }
    Ok(removed)
}
