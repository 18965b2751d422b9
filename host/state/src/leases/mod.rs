//! The address store of a network, byte for byte as host-local keeps it, with native host-local at work beside it.
//!
//! The files are never fsynced: a crash of this process leaves a valid store at any point, because a lease gets its name
//! only with its content; after a power loss the last leases may be missing, and so are their containers.

mod addresses;
mod directory;
mod index;
mod ranges;
mod survey;

pub use survey::{Listed, Made, Survey, directories};

use crate::{Outcome, Owner, StateError, names};
use directory::{Content, Directory, Identity};
use index::{Holding, Index, OwnerHash};
use ranges::Span;
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where the kernel says which boot this is (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How often a name that changes under our hands is looked at again: only somebody who ignores the lock does that.
const ATTEMPTS: usize = 8;

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
    /// Index of the range set it was taken from, when this store made it.
    pub set: Option<u32>,
    /// The address.
    pub address: IpAddr,
    /// Who holds it; without an interface when a release of host-local before 0.8.3 wrote it.
    pub owner: Owner,
}

/// The leases of one network on this node. Every operation locks, reads and unlocks by itself.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    index: PathBuf,
    /// Hash of the boot; 0 when it can't be known, and then no lease is of an earlier one.
    boot: u64,
}

impl Store {
    /// The store in `directory` (`<dataDir>/<network>`), with its index below `index_root` (`/var/lib/sandwire/leases`).
    /// Makes nothing before the first reservation.
    pub fn open(directory: &Path, index_root: &Path) -> Outcome<Self> {
        if !directory.is_absolute() {
            let text = format!("the lease directory {} must be an absolute path", directory.display());
            return Err(StateError::Invalid(text));
        }
        let name = names::digest(&[&directory.to_string_lossy()]);
        let boot = boot_id().map_or(0, |id| boot_hash(&id));
        Ok(Self { path: directory.to_owned(), index: index_root.join(name), boot })
    }

    /// The same store as in the boot of this id.
    #[must_use]
    pub fn in_boot(mut self, id: &str) -> Self {
        self.boot = boot_hash(id);
        self
    }

    fn lock(&self) -> Outcome<Option<(Directory, Index)>> {
        let Some(directory) = Directory::open(&self.path, false)? else { return Ok(None) };
        let index = Index::open(&self.index, &directory, self.boot)?;
        Ok(Some((directory, index)))
    }

    fn lock_or_create(&self) -> Outcome<(Directory, Index)> {
        let gone = || StateError::Other(format!("the lease directory {} vanished", self.path.display()));
        let directory = Directory::open(&self.path, true)?.ok_or_else(gone)?;
        let index = Index::open(&self.index, &directory, self.boot)?;
        Ok((directory, index))
    }

    /// Takes this address, and moves the cursor of the set there, as host-local does.
    ///
    /// A lease of this store from an earlier boot is nobody's any more: its container ended with that boot.
    ///
    /// # Errors
    /// `Exists` when `owner` has it, `Conflict` when another has.
    pub fn reserve(&mut self, owner: &Owner, set: u32, address: IpAddr) -> Outcome<()> {
        check_owner(owner)?;
        let (directory, mut index) = self.lock_or_create()?;
        let number = ranges::number(address);
        for _ in 0..ATTEMPTS {
            match directory.content(number) {
                Content::Missing => {}
                Content::Empty => directory.remove(number)?,
                Content::Owned(holder) if self.is_of_an_earlier_boot(&directory, &mut index, number, &holder)? => {
                    give_back_one(&directory, &mut index, number, &holder)?;
                }
                Content::Owned(holder) if is_of(&holder, owner) => return Err(already(number, owner)),
                Content::Owned(holder) => {
                    let held = format!(
                        "{address} is held by container {}, interface {:?}",
                        holder.container_id, holder.ifname
                    );
                    return Err(StateError::Conflict(held));
                }
                Content::Unreadable => return Err(unreadable(&self.path, number)),
            }
            // First the cursor: when that fails, nothing is taken yet.
            directory.set_cursor(set, number)?;
            if let Some(identity) = directory.create(number, owner)? {
                self.made(&directory, &mut index, New { owner, set, number, identity });
                return Ok(());
            }
        }
        Err(StateError::Conflict(format!(
            "{address} is being taken by somebody who does not lock {}",
            self.path.display()
        )))
    }

    /// Takes the next free address after the cursor of the set that is not in `skip`, and moves the cursor. Ranges are
    /// searched in order, around to the cursor. When none is free, leases of this store from an earlier boot go first.
    ///
    /// # Errors
    /// `Exists` when `owner` has one in `ranges`, `Exhausted` when none is free; both in host-local's words.
    pub fn reserve_next(&mut self, owner: &Owner, set: u32, ranges: &[Range], skip: &[IpAddr]) -> Outcome<IpAddr> {
        check_owner(owner)?;
        let spans = ranges::spans(ranges)?;
        let skip: BTreeSet<u128> = skip.iter().map(|address| ranges::number(*address)).collect();
        let (directory, mut index) = self.lock_or_create()?;
        let mut former = self.holdings_of(&directory, &mut index, owner)?;
        former.retain(|holding| spans.iter().any(|span| span.contains(holding.number)));
        if let Some(holding) = former.iter().find(|holding| !self.is_earlier(holding)) {
            return Err(already(holding.number, owner));
        }
        // A container that has outlived a reboot by its name (podman, an attachment by hand): not "allocated already".
        if !former.is_empty() {
            give_back(
                &directory,
                &mut index,
                former.into_iter().map(|holding| (holding.owner, holding.number)).collect(),
            )?;
        }
        let order = ranges::round(&spans, directory.cursor(set));
        let mut reclaimed = false;
        loop {
            let Some(number) = first_free(&mut index, &order, &skip)? else {
                if !index.fresh {
                    index.rebuild(&directory)?;
                } else if !reclaimed {
                    reclaimed = true;
                    self.reclaim(&directory, &mut index)?;
                } else {
                    let text = format!("no IP addresses available in range set: {}", ranges::text(ranges));
                    return Err(StateError::Exhausted(text));
                }
                continue;
            };
            directory.set_cursor(set, number)?;
            if let Some(identity) = directory.create(number, owner)? {
                self.made(&directory, &mut index, New { owner, set, number, identity });
                return Ok(ranges::address(number));
            }
            if directory.content(number) == Content::Empty {
                directory.remove(number)?;
            } else if !index.fresh {
                index.rebuild(&directory)?;
            } else if index.mark(number, true).is_err() {
                return Err(unreadable(&self.path, number));
            }
        }
    }

    fn made(&self, directory: &Directory, index: &mut Index, made: New) {
        let owner = OwnerHash::of(&made.owner.container_id, &made.owner.ifname);
        let New { set, number, identity, .. } = made;
        index.take(&Holding { owner, number, boot: self.boot, identity, set: Some(set) });
        index.seal(directory);
    }

    /// What the owner has by the index, each seen to be so in its file; else the index is made again first.
    fn holdings_of(&self, directory: &Directory, index: &mut Index, owner: &Owner) -> Outcome<Vec<Holding>> {
        let [exact, legacy] = OwnerHash::both(owner);
        loop {
            let mut holdings = index.held_by(exact)?;
            if exact != legacy {
                holdings.extend(index.held_by(legacy)?);
            }
            let as_known = |holding: &Holding| {
                directory.stat(holding.number).is_some_and(|stat| Identity::from(&stat) == holding.identity)
            };
            if index.fresh || holdings.iter().all(as_known) {
                return Ok(holdings);
            }
            index.rebuild(directory)?;
        }
    }

    /// What `owner` has, a lease of a release that wrote no interface included.
    pub fn held(&mut self, owner: &Owner) -> Outcome<Vec<Lease>> {
        let Some((directory, mut index)) = self.lock()? else { return Ok(Vec::new()) };
        let [exact, _] = OwnerHash::both(owner);
        let lease = |holding: Holding| Lease {
            set: holding.set,
            address: ranges::address(holding.number),
            owner: Owner::new(
                owner.container_id.trim(),
                if holding.owner == exact { owner.ifname.as_str() } else { "" },
            ),
        };
        Ok(self.holdings_of(&directory, &mut index, owner)?.into_iter().map(lease).collect())
    }

    /// Every lease, by address.
    pub fn all(&mut self) -> Outcome<Vec<Lease>> {
        let Some((directory, mut index)) = self.lock()? else { return Ok(Vec::new()) };
        let mut holdings = index.holdings()?;
        holdings.sort_unstable_by_key(|holding| holding.number);
        let lease = |holding: Holding| match directory.content(holding.number) {
            Content::Owned(owner) => Some(Lease { set: holding.set, address: ranges::address(holding.number), owner }),
            _ => None,
        };
        Ok(holdings.into_iter().filter_map(lease).collect())
    }

    /// Gives back all that `owner` has; what that was. When it has nothing, what a release of host-local that wrote no
    /// interface gave its container.
    pub fn release(&mut self, owner: &Owner) -> Outcome<Vec<IpAddr>> {
        let Some((directory, mut index)) = self.lock()? else { return Ok(Vec::new()) };
        let holdings = self.releasable(&directory, &mut index, owner)?;
        give_back(&directory, &mut index, holdings)
    }

    fn releasable(&self, directory: &Directory, index: &mut Index, owner: &Owner) -> Outcome<Vec<(OwnerHash, u128)>> {
        let [exact, _] = OwnerHash::both(owner);
        let mut holdings = self.holdings_of(directory, index, owner)?;
        if holdings.iter().any(|holding| holding.owner == exact) {
            holdings.retain(|holding| holding.owner == exact);
        }
        Ok(holdings.into_iter().map(|holding| (holding.owner, holding.number)).collect())
    }

    /// Gives back this one address if `owner` has it; whether it had.
    pub fn release_address(&mut self, owner: &Owner, address: IpAddr) -> Outcome<bool> {
        let Some((directory, mut index)) = self.lock()? else { return Ok(false) };
        let holding = releasable_at(&directory, owner, address);
        Ok(!give_back(&directory, &mut index, holding.into_iter().collect())?.is_empty())
    }

    /// Both for many at once, under one lock: of each owner this address if it has it, or all that it has; what that was.
    /// Goes on past what can't be removed and says so at the end.
    pub fn release_each(&mut self, of: &[(Owner, Option<IpAddr>)]) -> Outcome<Vec<IpAddr>> {
        let Some((directory, mut index)) = self.lock()? else { return Ok(Vec::new()) };
        let mut holdings = Vec::with_capacity(of.len());
        for (owner, address) in of {
            match address {
                Some(address) => holdings.extend(releasable_at(&directory, owner, *address)),
                None => holdings.extend(self.releasable(&directory, &mut index, owner)?),
            }
        }
        holdings.sort_unstable_by_key(|(_, number)| *number);
        holdings.dedup_by_key(|(_, number)| *number);
        give_back(&directory, &mut index, holdings)
    }

    /// GC: gives back everything whose owner is not in `valid`, and the empty files that a crash of native host-local
    /// left; what that was. A lease without an interface stays when any interface of its container is valid.
    pub fn retain(&mut self, valid: &[Owner]) -> Outcome<Vec<IpAddr>> {
        let Some((directory, mut index)) = self.lock()? else { return Ok(Vec::new()) };
        // Rare and with much to lose: from the files, not from what was known of them.
        if !index.fresh {
            index.rebuild(&directory)?;
        }
        let valid: HashSet<OwnerHash> = valid.iter().flat_map(OwnerHash::both).chain([OwnerHash::UNKNOWN]).collect();
        let mut stale = index.holdings()?;
        stale.retain(|holding| !valid.contains(&holding.owner));
        let stale = stale.into_iter().map(|holding| (holding.owner, holding.number)).collect();
        let mut released = give_back(&directory, &mut index, stale)?;
        released.extend(survey::remove_empty(&directory, &mut index)?);
        index.seal(&directory);
        released.sort_unstable();
        Ok(released)
    }

    /// How many addresses of `ranges` are free; `u64::MAX` when there are more. Ranges must not overlap. When all are
    /// taken, those count as free that `reserve_next` would reclaim: a node whose pool was full before it went down must
    /// not be called unfit for ever.
    pub fn available(&mut self, ranges: &[Range]) -> Outcome<u64> {
        let spans = ranges::spans(ranges)?;
        let all = spans.iter().map(|span| span.size()).fold(0, u128::saturating_add);
        let Some((_directory, mut index)) = self.lock()? else { return Ok(u64::try_from(all).unwrap_or(u64::MAX)) };
        let free = all.saturating_sub(u128::from(index.taken_in(&spans)?));
        if free > 0 {
            return Ok(u64::try_from(free).unwrap_or(u64::MAX));
        }
        let mut earlier = self.of_earlier_boots(&mut index)?;
        earlier.retain(|holding| spans.iter().any(|span| span.contains(holding.number)));
        Ok(earlier.len() as u64)
    }

    /// Gives back the leases that this store made in an earlier boot: their containers ended with it. Never those of
    /// native host-local, whose files say nothing of their boot. What that was.
    pub fn reclaim_earlier_boots(&mut self) -> Outcome<Vec<IpAddr>> {
        let Some((directory, mut index)) = self.lock()? else { return Ok(Vec::new()) };
        self.reclaim(&directory, &mut index)
    }

    fn reclaim(&self, directory: &Directory, index: &mut Index) -> Outcome<Vec<IpAddr>> {
        if !index.fresh {
            index.rebuild(directory)?;
        }
        let earlier =
            self.of_earlier_boots(index)?.into_iter().map(|holding| (holding.owner, holding.number)).collect();
        give_back(directory, index, earlier)
    }

    fn of_earlier_boots(&self, index: &mut Index) -> Outcome<Vec<Holding>> {
        if self.boot == 0 {
            return Ok(Vec::new());
        }
        let mut holdings = index.holdings()?;
        holdings.retain(|holding| self.is_earlier(holding));
        Ok(holdings)
    }

    fn is_earlier(&self, holding: &Holding) -> bool {
        self.boot != 0 && holding.boot != 0 && holding.boot != self.boot
    }

    /// Whether this store gave `number` to `holder` in an earlier boot.
    fn is_of_an_earlier_boot(
        &self,
        directory: &Directory,
        index: &mut Index,
        number: u128,
        holder: &Owner,
    ) -> Outcome<bool> {
        let holdings = self.holdings_of(directory, index, holder)?;
        Ok(holdings.iter().any(|holding| holding.number == number && self.is_earlier(holding)))
    }
}

/// A lease that has just been made.
struct New<'a> {
    owner: &'a Owner,
    set: u32,
    number: u128,
    identity: Identity,
}

fn give_back_one(directory: &Directory, index: &mut Index, number: u128, holder: &Owner) -> Outcome<()> {
    directory.remove(number)?;
    index.give(OwnerHash::of(&holder.container_id, &holder.ifname), number);
    index.seal(directory);
    Ok(())
}

/// Removes all of them, going on past what can't be removed and saying so at the end.
fn give_back(directory: &Directory, index: &mut Index, holdings: Vec<(OwnerHash, u128)>) -> Outcome<Vec<IpAddr>> {
    let mut released = Vec::with_capacity(holdings.len());
    let mut failed = None;
    for (owner, number) in holdings {
        match directory.remove(number) {
            Ok(()) => {
                index.give(owner, number);
                released.push(ranges::address(number));
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if !released.is_empty() {
        index.seal(directory);
    }
    released.sort_unstable();
    failed.map_or(Ok(released), Err)
}

/// This address, if its file says that `owner` has it.
fn releasable_at(directory: &Directory, owner: &Owner, address: IpAddr) -> Option<(OwnerHash, u128)> {
    let number = ranges::number(address);
    match directory.content(number) {
        Content::Owned(holder) if is_of(&holder, owner) => {
            Some((OwnerHash::of(&holder.container_id, &holder.ifname), number))
        }
        _ => None,
    }
}

fn first_free(index: &mut Index, order: &[Span], skip: &BTreeSet<u128>) -> Outcome<Option<u128>> {
    for span in order {
        if let Some(number) = index.next_free(*span, skip)? {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

/// Whether what a lease file says is this owner: the interface is absent in old files.
fn is_of(holder: &Owner, owner: &Owner) -> bool {
    holder.container_id == owner.container_id.trim() && (holder.ifname == owner.ifname || holder.ifname.is_empty())
}

/// What would be read back as somebody else's must not be written.
fn check_owner(owner: &Owner) -> Outcome<()> {
    let broken = |text: &str| text.trim().is_empty() || text.contains(['\r', '\n']);
    if broken(&owner.container_id) || broken(&owner.ifname) || owner.ifname.trim() != owner.ifname {
        return Err(StateError::Invalid(format!(
            "container {:?} with interface {:?} can't own a lease",
            owner.container_id, owner.ifname
        )));
    }
    Ok(())
}

/// host-local's words (plugins/ipam/host-local/backend/allocator/allocator.go, Get).
fn already(number: u128, owner: &Owner) -> StateError {
    let address = ranges::address(number);
    StateError::Exists(format!(
        "{address} has been allocated to {}, duplicate allocation is not allowed",
        owner.container_id
    ))
}

fn unreadable(directory: &Path, number: u128) -> StateError {
    let file = directory.join(ranges::address(number).to_string());
    StateError::Conflict(format!(
        "{} is no lease that can be read; look at it, and remove it if it is nobody's",
        file.display()
    ))
}

/// Which boot this is: 36 characters, read in one go.
fn boot_id() -> Option<String> {
    let mut id = [0; 64];
    let length = File::open(BOOT_ID).and_then(|mut file| file.read(&mut id)).ok()?;
    Some(String::from_utf8_lossy(id.get(..length)?).into_owned())
}

fn boot_hash(id: &str) -> u64 {
    // 0 stands for unknown.
    Sha256::digest(id.trim()).first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes)) | 1
}
