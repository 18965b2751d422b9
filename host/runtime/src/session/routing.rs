//! Routes and policy rules of the container that are not only made: what was there before, and whose it is.

use super::{Session, side};
use crate::refusal::{Answer, Refusal};
use sandwire_cni::Command;
use sandwire_kernel::{LinkId, Netns, PolicyRule, RouteSpec};
use sandwire_state::journal::Undo;

/// `RT_TABLE_MAIN`, linux/rtnetlink.h.
const MAIN: u32 = 254;
/// `IP6_RT_PRIO_USER`: the metric of an IPv6 route that says none.
const USUAL_METRIC: u32 = 1024;

/// What is where a route is to be put.
pub(crate) enum Replaced {
    /// Nothing, or what this attachment has put there, which goes by its own undo.
    Nothing,
    /// Exactly that route.
    TheSame,
    /// Another one: how to give it back.
    Another(Undo),
}

/// How to take back that a route was removed.
///
/// # Errors
/// None in practice.
pub(crate) fn restore(link: LinkId, name: String, route: &RouteSpec) -> Answer<Undo> {
    let route = serde_json::to_value(route).map_err(|e| Refusal::other(e.to_string()))?;
    Ok(Undo::RestoreRoute { side: side(link.netns), index: link.index, name, route })
}

/// Where the kernel takes two routes of a table for one: destination and metric (`fib_table_insert`, `fib6_add_rt2node`).
fn place(route: &RouteSpec) -> (ipnet::IpNet, u32) {
    let usual = if route.dst.addr().is_ipv4() { 0 } else { USUAL_METRIC };
    (route.dst, route.priority.filter(|metric| *metric != 0).unwrap_or(usual))
}

impl Session {
    /// What a route through a link of the container would replace.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn replaced_by(&mut self, through: LinkId, route: &RouteSpec) -> Answer<Replaced> {
        let netns = through.netns;
        let present = self.kernel()?.routes(netns, Some(route.table.unwrap_or(MAIN)))?;
        let mut at_place = present.into_iter().filter_map(|info| Some((info.route, info.link?)));
        let Some((old, link)) = at_place.find(|(old, _)| place(old) == place(route)) else {
            return Ok(Replaced::Nothing);
        };
        let asked = RouteSpec { table: old.table, priority: old.priority, ..route.clone() };
        if link == through && old == asked {
            return Ok(Replaced::TheSame);
        }
        let made_here = self.has_made(|undo| match undo {
            Undo::RemoveRoute { side: at, index, route, .. } => {
                let made = serde_json::from_value::<RouteSpec>(route.clone());
                made.is_ok_and(|made| {
                    (*at, *index, made.table, place(&made)) == (side(netns), link.index, old.table, place(&old))
                })
            }
            _ => false,
        });
        if made_here {
            return Ok(Replaced::Nothing);
        }
        let name = self.kernel()?.link_info(link)?.name;
        restore(link, name, &old).map(Replaced::Another)
    }

    /// The first route through a link that has all that is said.
    ///
    /// # Errors
    /// `not-found` without one; the kernel's.
    pub(crate) fn route_that_fits(&mut self, link: LinkId, said: &RouteSpec) -> Answer<RouteSpec> {
        let present = self.kernel()?.routes(link.netns, Some(said.table.unwrap_or(MAIN)))?;
        let fits = |route: &RouteSpec| {
            let agrees = |said: Option<u32>, is: Option<u32>| said.is_none_or(|said| said == is.unwrap_or(0));
            route.dst == said.dst
                && said.via.is_none_or(|via| route.via == Some(via))
                && said.src.is_none_or(|src| route.src == Some(src))
                && agrees(said.scope.map(u32::from), route.scope.map(u32::from))
                && agrees(said.protocol.map(u32::from), route.protocol.map(u32::from))
                && (said.priority.is_none() || place(said) == place(route))
        };
        let mut routes = present.into_iter().filter(|info| info.link == Some(link)).map(|info| info.route);
        let missing = || Refusal::not_found(format!("there is no such route to {} through this link", said.dst));
        routes.find(fits).ok_or_else(missing)
    }

    /// How to take back that a policy rule was added.
    ///
    /// # Errors
    /// None in practice.
    pub(crate) fn rule_undo(&mut self, netns: Netns, rule: &PolicyRule) -> Answer<Undo> {
        Ok(Undo::RemovePolicyRule {
            side: side(netns),
            rule: serde_json::to_value(rule).map_err(|e| Refusal::other(e.to_string()))?,
            netns: self.kernel()?.identity(netns),
        })
    }

    /// Whether a rule is about the attachment's own traffic: one address that it holds, or its interface. Another attachment of
    /// the pod may be another tenant's network.
    fn is_of_own_traffic(&self, rule: &PolicyRule) -> bool {
        let own = Some(self.subject.attachment.ifname.as_str());
        let own_interface = [&rule.iif, &rule.oif].into_iter().any(|link| link.as_deref() == own);
        let single = rule.src.filter(|src| src.prefix_len() == src.max_prefix_len());
        !rule.not && (own_interface || single.is_some_and(|src| self.held().contains(&src.addr())))
    }

    /// Whether a rule of the container may be added.
    ///
    /// # Errors
    /// `denied`.
    pub(crate) fn may_add_rule(&self, rule: &PolicyRule) -> Answer<()> {
        match self.is_of_own_traffic(rule) {
            true => Ok(()),
            false => Err(Refusal::denied(format!(
                "may not add {rule}: only for what comes from one address that the attachment holds, or goes by its interface"
            ))),
        }
    }

    /// Whether a rule of the container may be removed: in ADD one that this attachment has made, in DEL also one about its own
    /// traffic, which a native plugin may have made.
    ///
    /// # Errors
    /// `denied`; the kernel's.
    pub(crate) fn may_remove_rule(&mut self, rule: &PolicyRule) -> Answer<()> {
        let made = self.has_made(|undo| match undo {
            Undo::RemovePolicyRule { rule: made, .. } => {
                let made = serde_json::from_value::<PolicyRule>(made.clone());
                made.is_ok_and(|made| made == *rule || made == PolicyRule { priority: None, ..rule.clone() })
            }
            _ => false,
        });
        if made || (self.subject.verb == Command::Del && (self.is_of_own_traffic(rule) || self.has_address_of(rule)?)) {
            return Ok(());
        }
        Err(Refusal::denied(format!("may not remove {rule}: it is not the attachment's")))
    }

    /// Whether a rule is for what comes from an address of the attachment's interface.
    fn has_address_of(&mut self, rule: &PolicyRule) -> Answer<bool> {
        let Some(src) = rule.src.filter(|src| src.prefix_len() == src.max_prefix_len() && !rule.not) else {
            return Ok(false);
        };
        let ifname = self.subject.attachment.ifname.clone();
        let kernel = self.kernel()?;
        let Ok(link) = kernel.link_by_name(Netns::Container, &ifname) else { return Ok(false) };
        Ok(kernel.addresses(link.id)?.iter().any(|own| own.address.addr() == src.addr()))
    }
}
