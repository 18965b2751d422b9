//! `configure`: a link into service in one batch.

use super::parse;
use crate::bindings::{configure, types};
use crate::guest::Guest;
use crate::handles::{LinkHandle, Right};
use crate::refusal::{Answer, Refusal};
use crate::session::side;
use sandwire_kernel::Netns;
use sandwire_state::journal::Undo;
use wasmtime::component::Resource;

impl configure::Host for Guest {
    fn apply(
        &mut self,
        l: Resource<LinkHandle>,
        addresses: Vec<types::Address>,
        routes: Vec<types::Route>,
    ) -> Answer<()> {
        let plugin = self.grant.plugin.clone();
        let link = parse::link(&self.table, &l, Right::Own, "configure")?;
        let addresses = addresses.iter().map(parse::address).collect::<Answer<Vec<_>>>()?;
        let routes = routes.iter().map(parse::route).collect::<Answer<Vec<_>>>()?;
        let session = self.session()?;
        for address in &addresses {
            session.must_be_gateway(link.id, address)?;
        }
        if link.id.netns == Netns::Host {
            for route in &routes {
                session.must_hold_route(route.dst)?;
            }
        }
        if session.was_created(link.id) {
            return session.change(|kernel| kernel.configure(link.id, &addresses, &routes));
        }
        // Not made by this call (loopback, or a link of an earlier plugin of the chain): each address and the state of
        // the link get an undo of their own. Routes go with the addresses or with the link's going down.
        let before = session.kernel()?.link_info(link.id)?;
        let (at, index, name) = (side(link.id.netns), link.id.index, link.name.clone());
        let mut intents = Vec::new();
        if !before.up {
            intents.push(session.intend(&plugin, &Undo::restore_state(at, index, &name, false))?);
        }
        for address in &addresses {
            let undo =
                Undo::RemoveAddress { side: at, index, name: name.clone(), address: address.address.to_string() };
            intents.push(session.intend(&plugin, &undo)?);
        }
        for route in &routes {
            let route = serde_json::to_value(route).map_err(|e| Refusal::other(e.to_string()))?;
            intents.push(session.intend(&plugin, &Undo::RemoveRoute { side: at, index, name: name.clone(), route })?);
        }
        session.change(|kernel| kernel.configure(link.id, &addresses, &routes))?;
        for intent in intents {
            session.done(intent, None)?;
        }
        Ok(())
    }
}
