//! `routes`: routes of the attachment. Policy rules are not in this release (docs/contract.md).

use super::parse;
use crate::bindings::routes::{self, Entry, Rule};
use crate::bindings::types;
use crate::guest::Guest;
use crate::handles::{LinkHandle, NetnsHandle, Right};
use crate::refusal::{Answer, Refusal};
use crate::session::side;
use sandwire_kernel::{Netns, RouteInfo, RouteMode};
use sandwire_state::journal::Undo;
use wasmtime::component::Resource;

impl Guest {
    fn add_route(&mut self, l: &Resource<LinkHandle>, r: &types::Route, mode: RouteMode) -> Answer<()> {
        let plugin = self.grant.plugin.clone();
        let link = parse::link(&self.table, l, Right::Own, "route through")?;
        let route = parse::route(r)?;
        let session = self.session()?;
        if link.id.netns == Netns::Host {
            session.must_hold_route(route.dst)?;
            if mode == RouteMode::Replace {
                return Err(Refusal::denied(format!(
                    "may not replace the host's route to {}: it may be another's",
                    route.dst
                )));
            }
        }
        if session.was_created(link.id) {
            return session.change(|kernel| kernel.add_route(link.id, &route, mode));
        }
        let undo = Undo::RemoveRoute {
            side: side(link.id.netns),
            index: link.id.index,
            name: link.name,
            route: serde_json::to_value(&route).map_err(|e| Refusal::other(e.to_string()))?,
        };
        session.perform(&plugin, undo, |kernel| kernel.add_route(link.id, &route, mode), |()| None)
    }

    fn entry(&mut self, info: &RouteInfo) -> Answer<Entry> {
        let link = match info.link {
            Some(id) => self.session()?.kernel()?.link_info(id).map(|link| link.name).unwrap_or_default(),
            None => String::new(),
        };
        Ok(Entry { route: parse::route_out(&info.route), link })
    }
}

impl routes::Host for Guest {
    fn add(&mut self, l: Resource<LinkHandle>, r: types::Route) -> Answer<()> {
        self.add_route(&l, &r, RouteMode::Add)
    }

    fn append(&mut self, l: Resource<LinkHandle>, r: types::Route) -> Answer<()> {
        self.add_route(&l, &r, RouteMode::Append)
    }

    fn replace(&mut self, l: Resource<LinkHandle>, r: types::Route) -> Answer<()> {
        self.add_route(&l, &r, RouteMode::Replace)
    }

    fn remove(&mut self, l: Resource<LinkHandle>, r: types::Route) -> Answer<()> {
        let link = parse::link(&self.table, &l, Right::Own, "route through")?;
        let route = parse::route(&r)?;
        self.session()?.change(|kernel| kernel.remove_route(link.id, &route))
    }

    fn get(&mut self, ns: Resource<NetnsHandle>, table: Option<u32>) -> Answer<Vec<Entry>> {
        let netns = parse::netns(&self.table, &ns)?.netns;
        let found = self.session()?.kernel()?.routes(netns, table)?;
        found.iter().map(|info| self.entry(info)).collect()
    }

    fn lookup(&mut self, ns: Resource<NetnsHandle>, dst: String) -> Answer<Entry> {
        let netns = parse::netns(&self.table, &ns)?.netns;
        let dst = parse::ip(&dst)?;
        let info = self.session()?.kernel()?.lookup_route(netns, dst)?;
        self.entry(&info)
    }

    fn add_rule(&mut self, _: Resource<NetnsHandle>, _: Rule) -> Answer<()> {
        Err(Refusal::unsupported("add policy routing rules"))
    }

    fn remove_rule(&mut self, _: Resource<NetnsHandle>, _: Rule) -> Answer<()> {
        Err(Refusal::unsupported("remove policy routing rules"))
    }

    fn get_rules(&mut self, _: Resource<NetnsHandle>) -> Answer<Vec<Rule>> {
        Err(Refusal::unsupported("list policy routing rules"))
    }

    fn reserve_table(&mut self, _: Resource<NetnsHandle>, _: u32) -> Answer<u32> {
        Err(Refusal::unsupported("reserve routing tables"))
    }
}
