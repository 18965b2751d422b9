//! `routes`: routes of the attachment, and policy rules of its container.

use super::parse;
use crate::bindings::routes::{self, Entry, Rule};
use crate::bindings::types;
use crate::guest::Guest;
use crate::handles::{LinkHandle, NetnsHandle, Right};
use crate::refusal::{Answer, Refusal};
use crate::session::{Session, side};
use sandwire_kernel::{LinkId, Netns, RouteInfo, RouteMode, RouteSpec};
use sandwire_state::journal::Undo;
use wasmtime::component::Resource;

/// `RT_TABLE_MAIN`, linux/rtnetlink.h.
const MAIN: u32 = 254;

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
        let replaced = match mode {
            RouteMode::Replace => replaced_by(session, link.id.netns, &route)?,
            RouteMode::Add | RouteMode::Append => None,
        };
        // Undone in the other order: what it replaced comes when it is gone.
        let replaced = replaced.map(|undo| session.intend(&plugin, &undo)).transpose()?.flatten();
        let added = session.perform(&plugin, undo, |kernel| kernel.add_route(link.id, &route, mode), |()| None);
        match added {
            Ok(()) => session.done(replaced, None)?,
            Err(_) => session.never_happened(replaced)?,
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

/// How to take back that a route was removed.
fn restore(link: LinkId, name: String, route: &RouteSpec) -> Answer<Undo> {
    let route = serde_json::to_value(route).map_err(|e| Refusal::other(e.to_string()))?;
    Ok(Undo::RestoreRoute { side: side(link.netns), index: link.index, name, route })
}

/// How to give back what is at the place of a route now: the kernel compares destination and metric (`fib_table_insert`,
/// `fib6_add_rt2node`).
fn replaced_by(session: &mut Session, netns: Netns, route: &RouteSpec) -> Answer<Option<Undo>> {
    // IP6_RT_PRIO_USER
    let usual = if route.dst.addr().is_ipv4() { 0 } else { 1024 };
    let place = |route: &RouteSpec| (route.dst, route.priority.unwrap_or(usual));
    let kernel = session.kernel()?;
    let present = kernel.routes(netns, Some(route.table.unwrap_or(MAIN)))?;
    let Some((old, link)) = present
        .into_iter()
        .find_map(|info| Some((info.route, info.link?)).filter(|(old, _)| place(old) == place(route)))
    else {
        return Ok(None);
    };
    // What this attachment has put there goes by its own undo.
    if session.has_made(|undo| match undo {
        Undo::RemoveRoute { side: at, index, route, .. } => {
            let made = serde_json::from_value::<RouteSpec>(route.clone());
            made.is_ok_and(|made| {
                (*at, *index, made.table, place(&made)) == (side(netns), link.index, old.table, place(&old))
            })
        }
        _ => false,
    }) {
        return Ok(None);
    }
    let name = session.kernel()?.link_info(link)?.name;
    restore(link, name, &old).map(Some)
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
        let undo = Undo::RemovePolicyRule {
            side: side(netns),
            rule: serde_json::to_value(&rule).map_err(|e| Refusal::other(e.to_string()))?,
            netns: session.kernel()?.identity(netns),
        };
        session.perform(&plugin, undo, |kernel| kernel.add_policy_rule(netns, &rule), |()| None)
    }

    fn remove_rule(&mut self, ns: Resource<NetnsHandle>, r: Rule) -> Answer<()> {
        let netns = self.may_rule(&ns)?;
        let rule = parse::policy_rule(&r)?;
        self.session()?.change(|kernel| kernel.remove_policy_rule(netns, &rule))
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
