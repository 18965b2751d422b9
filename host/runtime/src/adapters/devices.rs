//! `devices`: hardware by its identity.

use super::parse;
use crate::bindings::devices;
use crate::guest::Guest;
use crate::handles::{LinkHandle, NetnsHandle, Right};
use crate::refusal::{Answer, Refusal};
use sandwire_kernel::Netns;
use sandwire_policy::matches_any;
use wasmtime::component::Resource;

impl Guest {
    /// What there is on a node is its own business: only what the configuration names can be asked for.
    fn must_be_listed(&mut self, id: &str) -> Answer<()> {
        let (session, _, grant) = self.parts()?;
        if !matches_any(&grant.devices, id) {
            return Err(Refusal::not_granted(format!("use device {id:?}"), grant.to_allow(grant.with_device(id))));
        }
        match session.given.names_hardware(id) {
            true => Ok(()),
            false => Err(Refusal::denied(format!("may not use device {id:?}: the configuration does not name it"))),
        }
    }
}

impl devices::Host for Guest {
    fn find(&mut self, ns: Resource<NetnsHandle>, id: String) -> Answer<Resource<LinkHandle>> {
        self.must_be_listed(&id)?;
        let netns = parse::netns(&self.table, &ns)?.netns;
        if netns != Netns::Host {
            return Err(Refusal::unsupported("find devices in the container"));
        }
        let (session, table, grant) = self.parts()?;
        let info = session.kernel()?.device_link(&id)?;
        session.remember_found(&grant.plugin, info.id);
        session.remember_name(info.id, &info.name);
        let right = session.right(&info, grant).unwrap_or(Right::See);
        Ok(table.push(LinkHandle { id: info.id, name: info.name, right })?)
    }

    fn driver(&mut self, id: String) -> Answer<String> {
        self.must_be_listed(&id)?;
        Ok(self.session()?.kernel()?.device_driver(&id)?)
    }
}
