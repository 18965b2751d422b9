//! `addresses`.

use super::parse;
use crate::bindings::{addresses, types};
use crate::guest::Guest;
use crate::handles::{LinkHandle, Right};
use crate::refusal::Answer;
use crate::session::side;
use sandwire_state::journal::Undo;
use wasmtime::component::Resource;

impl addresses::Host for Guest {
    fn add(&mut self, l: Resource<LinkHandle>, a: types::Address) -> Answer<()> {
        let plugin = self.grant.plugin.clone();
        let link = parse::link(&self.table, &l, Right::Own, "give an address to")?;
        let spec = parse::address(&a)?;
        let session = self.session()?;
        session.must_be_gateway(link.id, &spec)?;
        if session.was_created(link.id) {
            return session.change(|kernel| kernel.add_address(link.id, &spec));
        }
        let undo = Undo::RemoveAddress {
            side: side(link.id.netns),
            index: link.id.index,
            name: link.name,
            address: spec.address.to_string(),
        };
        session.perform(&plugin, undo, |kernel| kernel.add_address(link.id, &spec), |()| None)
    }

    fn remove(&mut self, l: Resource<LinkHandle>, address: String) -> Answer<()> {
        let link = parse::link(&self.table, &l, Right::Own, "take an address from")?;
        let address = parse::cidr(&address)?;
        self.session()?.change(|kernel| kernel.remove_address(link.id, address))
    }

    fn get(&mut self, l: Resource<LinkHandle>) -> Answer<Vec<types::Address>> {
        let link = parse::link(&self.table, &l, Right::See, "look at")?;
        let found = self.session()?.kernel()?.addresses(link.id)?;
        Ok(found
            .into_iter()
            .map(|info| {
                let mut extra = vec![("scope".to_owned(), info.scope.to_string())];
                if let Some(peer) = info.peer {
                    // As `add` takes it: the prefix is the peer's.
                    extra.push(("peer".to_owned(), format!("{peer}/{}", info.address.prefix_len())));
                }
                types::Address { cidr: info.address.to_string(), no_dad: false, no_prefix_route: false, extra }
            })
            .collect())
    }
}
