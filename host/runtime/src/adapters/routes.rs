//! `routes`: routes of the attachment, and policy rules of its container.

use super::parse;
use crate::bindings::routes::{self, Entry, Rule};
use crate::bindings::types;
use crate::guest::Guest;
use crate::handles::{LinkHandle, NetnsHandle, Right};
use crate::refusal::{Answer, Refusal};
use crate::session::routing::{Replaced, restore};
use crate::session::side;
use sandwire_kernel::{Netns, PolicyRule, RouteInfo, RouteMode};
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
        let replaced = match mode {
            RouteMode::Add | RouteMode::Append => Replaced::Nothing,
            RouteMode::Replace => session.replaced_by(link.id, &route)?,
        };
        let undo = Undo::RemoveRoute {
            side: side(link.id.netns),
            index: link.id.index,
            name: link.name,
            route: serde_json::to_value(&route).map_err(|e| Refusal::other(e.to_string()))?,
        };
        // Undone in the other order: what it replaced comes when it is gone.
        let replaced = match replaced {
            // To undo it would take away what was there before.
            Replaced::TheSame => return Ok(()),
            Replaced::Nothing => None,
            Replaced::Another(undo) => session.intend(&plugin, &undo)?,
        };
        let added = session.perform(&plugin, undo.clone(), |kernel| kernel.add_route(link.id, &route, mode), |()| None);
        // What may have happened stays in the journal.
        match added.is_ok() || session.has_made(|other| *other == undo) {
            true => session.done(replaced, None)?,
            false => session.never_happened(replaced)?,
        }
        added
    }

    /// Rules of the node decide over everybody's traffic; those of the container over its own.
    fn may_rule(&self, ns: &Resource<NetnsHandle>) -> Answer<Netns> {
        match parse::netns(&self.table, ns)?.netns {
            Netns::Container => Ok(Netns::Container),
            Netns::Host => {
                Err(Refusal::denied("may not change the policy rules of the node: only those of the container"))
            }
        }
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
        let plugin = self.grant.plugin.clone();
        let link = parse::link(&self.table, &l, Right::Own, "route through")?;
        let route = parse::route(&r)?;
        let session = self.session()?;
        // Of the node it can only be one that the attachment made.
        if link.id.netns == Netns::Host || session.was_created(link.id) {
            return session.change(|kernel| kernel.remove_route(link.id, &route));
        }
        // The kernel takes any that fits what is said; what comes back must be what went.
        let route = session.route_that_fits(link.id, &route)?;
        let undo = restore(link.id, link.name, &route)?;
        session.perform(&plugin, undo, |kernel| kernel.remove_route(link.id, &route), |()| None)
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

    fn add_rule(&mut self, ns: Resource<NetnsHandle>, r: Rule) -> Answer<()> {
        let plugin = self.grant.plugin.clone();
        let netns = self.may_rule(&ns)?;
        let rule = parse::policy_rule(&r)?;
        let session = self.session()?;
        session.may_add_rule(&rule)?;
        let undo = session.rule_undo(netns, &rule)?;
        session.perform(&plugin, undo, |kernel| kernel.add_policy_rule(netns, &rule), |()| None)
    }

    fn remove_rule(&mut self, ns: Resource<NetnsHandle>, r: Rule) -> Answer<()> {
        let netns = self.may_rule(&ns)?;
        let rule = parse::policy_rule(&r)?;
        let session = self.session()?;
        session.may_remove_rule(&rule)?;
        session.change(|kernel| kernel.remove_policy_rule(netns, &rule))?;
        let without_priority = PolicyRule { priority: None, ..rule.clone() };
        let (one, other) = (session.rule_undo(netns, &rule)?, session.rule_undo(netns, &without_priority)?);
        session.taken_back(|undo| *undo == one || *undo == other)
    }

    fn get_rules(&mut self, ns: Resource<NetnsHandle>) -> Answer<Vec<Rule>> {
        let netns = parse::netns(&self.table, &ns)?.netns;
        let rules = self.session()?.kernel()?.policy_rules(netns)?;
        Ok(rules.iter().map(parse::policy_rule_out).collect())
    }

    fn reserve_table(&mut self, ns: Resource<NetnsHandle>, first: u32) -> Answer<u32> {
        let netns = self.may_rule(&ns)?;
        self.session()?.change(|kernel| kernel.free_table(netns, first))
    }
}
