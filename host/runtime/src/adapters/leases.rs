//! `leases`: host-local's store, the owner fixed to the calling attachment.

use super::parse;
use crate::bindings::leases::{self, Range};
use crate::bindings::types;
use crate::guest::Guest;
use crate::handles::StoreHandle;
use crate::refusal::{Answer, Refusal};
use crate::stores::data_dir_allowed;
use sandwire_cni::Command;
use sandwire_policy::paths;
use sandwire_state::Owner;
use sandwire_state::journal::Undo;
use sandwire_state::leases::Store;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use wasmtime::component::Resource;

fn range(range: &Range) -> Answer<sandwire_state::leases::Range> {
    let (first, last) = (parse::ip(&range.first)?, parse::ip(&range.last)?);
    if first.is_ipv4() != last.is_ipv4() || first > last {
        return Err(Refusal::invalid(format!("{first} to {last} is no range of addresses")));
    }
    Ok(sandwire_state::leases::Range { first, last })
}

fn ranges(list: &[Range]) -> Answer<Vec<sandwire_state::leases::Range>> {
    list.iter().map(range).collect()
}

fn lease_out(lease: &sandwire_state::leases::Lease) -> leases::Lease {
    leases::Lease {
        set: lease.set,
        address: lease.address.to_string(),
        owner: types::Attachment { container_id: lease.owner.container_id.clone(), ifname: lease.owner.ifname.clone() },
    }
}

fn is_release_of(undo: &Undo, directory: &Path, addresses: &[IpAddr]) -> bool {
    match undo {
        Undo::ReleaseLease { directory: at, address } => {
            at == directory && address.is_none_or(|address| addresses.contains(&address))
        }
        _ => false,
    }
}

impl Guest {
    /// Reserves by `how`: intent, lease, outcome. `address` is the one that is asked for, if it is known before.
    fn take(
        &mut self,
        this: &Resource<StoreHandle>,
        address: Option<IpAddr>,
        how: impl FnOnce(&mut Store, &Owner) -> sandwire_state::Outcome<IpAddr>,
    ) -> Answer<IpAddr> {
        let plugin = self.grant.plugin.clone();
        let (session, table, _) = self.parts()?;
        let handle = table.get_mut(this)?;
        session.may_change()?;
        let owner = session.subject.attachment.owner();
        let directory = handle.directory.clone();
        let undo = |address| Undo::ReleaseLease { directory: directory.clone(), address };
        let intent = session.intend(&plugin, &undo(address))?;
        match how(&mut handle.store, &owner) {
            Ok(address) => {
                session.done(intent, Some(&undo(Some(address))))?;
                session.remember_held(address);
                Ok(address)
            }
            Err(error) => {
                session.never_happened(intent)?;
                Err(error.into())
            }
        }
    }
}

impl leases::Host for Guest {
    fn open(&mut self, dir: Option<String>) -> Answer<Resource<StoreHandle>> {
        let root = dir.unwrap_or_else(|| paths::LEASES.to_owned());
        if !data_dir_allowed(&self.grant, &root) {
            let remedy = self.grant.to_allow(self.grant.with_data_dir(&root));
            return Err(Refusal::not_granted(format!("keep leases in {root:?}"), remedy));
        }
        let network = self.session()?.subject.attachment.network.clone();
        let directory = PathBuf::from(root).join(network);
        let store = Store::open(&directory, Path::new(paths::LEASE_INDEX))?;
        Ok(self.table.push(StoreHandle { store, directory })?)
    }
}

impl leases::HostStore for Guest {
    fn reserve(&mut self, this: Resource<StoreHandle>, set: u32, address: String) -> Answer<()> {
        let address = parse::ip(&address)?;
        self.take(&this, Some(address), |store, owner| store.reserve(owner, set, address).map(|()| address))?;
        Ok(())
    }

    fn reserve_next(
        &mut self,
        this: Resource<StoreHandle>,
        set: u32,
        list: Vec<Range>,
        skip: Vec<String>,
    ) -> Answer<String> {
        let list = ranges(&list)?;
        let skip = skip.iter().map(|text| parse::ip(text)).collect::<Answer<Vec<_>>>()?;
        let address = self.take(&this, None, |store, owner| store.reserve_next(owner, set, &list, &skip))?;
        Ok(address.to_string())
    }

    fn held(&mut self, this: Resource<StoreHandle>) -> Answer<Vec<leases::Lease>> {
        let (session, table, _) = self.parts()?;
        let store = &mut table.get_mut(&this)?.store;
        let held = match session.subject.verb {
            Command::Gc | Command::Status => store.all()?,
            _ => store.held(&session.subject.attachment.owner())?,
        };
        Ok(held.iter().map(lease_out).collect())
    }

    fn release(&mut self, this: Resource<StoreHandle>) -> Answer<Vec<String>> {
        let (session, table, _) = self.parts()?;
        session.may_change()?;
        let handle = table.get_mut(&this)?;
        let released = handle.store.release(&session.subject.attachment.owner())?;
        let directory = handle.directory.clone();
        if session.subject.verb == Command::Add {
            session.forget_held();
        }
        session.taken_back(|undo| {
            is_release_of(undo, &directory, &released)
                || matches!(undo, Undo::ReleaseLease { directory: at, .. } if *at == directory)
        })?;
        Ok(released.iter().map(ToString::to_string).collect())
    }

    fn retain(&mut self, this: Resource<StoreHandle>, valid: Vec<types::Attachment>) -> Answer<Vec<String>> {
        let (session, table, _) = self.parts()?;
        session.may_change()?;
        if session.subject.verb != Command::Gc {
            return Err(Refusal::denied("may not release leases of other attachments: only GC may"));
        }
        // What the runtime listed counts, not what the guest makes of it: a guest must not be able to take away the
        // addresses of live containers.
        let mut keep: Vec<Owner> = session.valid.clone().unwrap_or_default();
        keep.extend(valid.into_iter().map(|a| Owner::new(a.container_id, a.ifname)));
        if session.valid.is_none() {
            return Ok(Vec::new());
        }
        let store = &mut table.get_mut(&this)?.store;
        let before = store.all()?;
        let released = store.retain(&keep)?;
        let freed = before.into_iter().filter(|lease| released.binary_search(&lease.address).is_ok());
        session.freed.extend(freed.map(|lease| (lease.owner, lease.address)));
        Ok(released.iter().map(ToString::to_string).collect())
    }

    fn available(&mut self, this: Resource<StoreHandle>, list: Vec<Range>) -> Answer<u64> {
        let list = ranges(&list)?;
        Ok(self.table.get_mut(&this)?.store.available(&list)?)
    }

    fn drop(&mut self, this: Resource<StoreHandle>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
