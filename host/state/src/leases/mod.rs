//! The address store of a network, byte for byte as host-local keeps it.

use crate::{Outcome, Owner, StateError};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Addresses from `first` to `last`, both included, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The lowest address.
    pub first: IpAddr,
    /// The highest address.
    pub last: IpAddr,
}

/// An address in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Index of the range set it was taken from, when this store made it in this release's form.
    pub set: Option<u32>,
    /// The address.
    pub address: IpAddr,
    /// Who holds it.
    pub owner: Owner,
}

/// The leases of one network on this node.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// The store in `directory` (`<dataDir>/<network>`), with its index below `index_root` (`/var/lib/sandwire/leases`).
    /// Makes nothing before the first reservation.
    pub fn open(directory: &Path, _index_root: &Path) -> Outcome<Self> {
        Ok(Self { directory: directory.to_owned() })
    }

    fn unbuilt<T>(&self) -> Outcome<T> {
        Err(StateError::Other(format!("being built: {}", self.directory.display())))
    }

    /// Takes this address. `Exists` when `owner` has it, `Conflict` when another has.
    pub fn reserve(&mut self, _owner: &Owner, _set: u32, _address: IpAddr) -> Outcome<()> {
        self.unbuilt()
    }

    /// Takes the next free address after the cursor of the set. `Exists` when `owner` has one in `ranges`,
    /// `Exhausted` when none is free.
    pub fn reserve_next(&mut self, _owner: &Owner, _set: u32, _ranges: &[Range], _skip: &[IpAddr]) -> Outcome<IpAddr> {
        self.unbuilt()
    }

    /// What `owner` has.
    pub fn held(&mut self, _owner: &Owner) -> Outcome<Vec<Lease>> {
        self.unbuilt()
    }

    /// Every lease.
    pub fn all(&mut self) -> Outcome<Vec<Lease>> {
        self.unbuilt()
    }

    /// Gives back all that `owner` has; what that was.
    pub fn release(&mut self, _owner: &Owner) -> Outcome<Vec<IpAddr>> {
        self.unbuilt()
    }

    /// Gives back this one address if `owner` has it; whether it had.
    pub fn release_address(&mut self, _owner: &Owner, _address: IpAddr) -> Outcome<bool> {
        self.unbuilt()
    }

    /// Gives back everything whose owner is not in `valid`; what that was.
    pub fn retain(&mut self, _valid: &[Owner]) -> Outcome<Vec<IpAddr>> {
        self.unbuilt()
    }

    /// How many addresses of `ranges` are free; `u64::MAX` when there are more.
    pub fn available(&mut self, _ranges: &[Range]) -> Outcome<u64> {
        self.unbuilt()
    }

    /// Gives back the leases that this store made in an earlier boot; what that was. Never those of native host-local,
    /// whose files say nothing of their boot.
    pub fn reclaim_earlier_boots(&mut self) -> Outcome<Vec<IpAddr>> {
        self.unbuilt()
    }
}
