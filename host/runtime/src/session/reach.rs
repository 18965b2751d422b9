//! What the attachment holds, and what its plugins may reach by that.

use super::{Session, bridge_of_vlan_port, dhcp, is_a_pods_veth, netns};
use crate::handles::Right;
use crate::host_end;
use crate::refusal::{Answer, Refusal};
use ipnet::IpNet;
use sandwire_cni::{CniResult, IpConfig, addr};
use sandwire_kernel::{AddressSpec, LinkId, LinkInfo, Netns};
use sandwire_policy::{Grant, matches_any};
use sandwire_state::journal::{Side, State, Undo};
use std::net::IpAddr;

/// Physical devices and other pods' links are not what attachments share, whatever a wide pattern says. A bridge is, and
/// the veth of a bridge's VLAN.
pub(crate) fn is_shared(info: &LinkInfo) -> bool {
    info.kind == "bridge" || (info.kind == "veth" && bridge_of_vlan_port(&info.name).is_some())
}

impl Session {
    /// An address that the attachment holds now.
    pub(crate) fn remember_held(&mut self, address: IpAddr) {
        if !self.held.contains(&address) {
            self.held.push(address);
        }
    }

    /// All of them.
    pub(crate) fn held(&self) -> &[IpAddr] {
        &self.held
    }

    /// What address management gave: addresses that the attachment holds now, and their gateways. Where it names none, the
    /// reference takes the first address of the network (`calcGatewayIP` of bridge).
    pub(crate) fn remember_result(&mut self, result: &CniResult) {
        // Nobody holds a loopback address: a port that led to it would lead to the node's own services.
        for ip in result.ips.iter().filter(|ip| !ip.address.addr().is_loopback()) {
            self.remember_held(ip.address.addr());
            self.given_nets.push(ip.address);
            let gateway = ip.gateway.unwrap_or_else(|| addr::first(ip.address));
            let gateway = IpNet::new(gateway, ip.address.prefix_len());
            if self.has_made(|undo| dhcp::gave(undo, ip.address.addr())) {
                self.strangers.extend(gateway.clone());
            }
            self.gateways.extend(gateway);
        }
    }

    /// Only what earlier plugins said is held: nothing was given yet, or it is given back.
    pub(crate) fn forget_held(&mut self) {
        self.gave_back |= self.relied_on_held.get();
        self.held.clear();
        self.given_nets.clear();
        self.gateways.clear();
        self.strangers.clear();
        if let Some(result) = self.prev_result.take() {
            self.remember_result(&result);
            self.prev_result = Some(result);
        }
    }

    /// Whether the addresses of a result are ones that the attachment may have, as far as the host knows, with their prefixes
    /// and gateways: the next plugin of the list, which may be trusted with more, takes them for the attachment's.
    ///
    /// # Errors
    /// The first one that it does not hold.
    pub(crate) fn must_hold_result(&self, reaches_node: bool, result: &CniResult) -> Result<(), IpConfig> {
        let earlier = self.prev_result.iter().flat_map(|result| &result.ips);
        let was_said: Vec<_> = earlier.map(|ip| (ip.address, ip.gateway)).collect();
        let is_given = |ip: &&IpConfig| {
            let address = ip.address.addr();
            // Of a lease the store knows no prefix.
            let prefix_is_unknown = !self.given_nets.iter().any(|net| net.addr() == address);
            let gateway = ip.gateway.and_then(|gateway| IpNet::new(gateway, ip.address.prefix_len()).ok());
            let holds = self.given_nets.contains(&ip.address) || (prefix_is_unknown && self.held.contains(&address));
            let gateway_is_given = ip.gateway.is_none() || gateway.is_some_and(|net| self.gateways.contains(&net));
            // `lo` of the container, of a plugin that can't speak of any other.
            let is_loopback = !reaches_node && address.is_loopback() && ip.gateway.is_none();
            is_loopback || (holds && gateway_is_given) || was_said.contains(&(ip.address, ip.gateway))
        };
        result.ips.iter().find(|ip| !is_given(ip)).cloned().map_or(Ok(()), Err)
    }

    /// Whether the attachment holds the address: it has leased it, a delegate gave it, or it is in prevResult.
    /// Without this rule a plugin could route or masquerade somebody else's traffic.
    ///
    /// # Errors
    /// `denied`.
    pub(crate) fn must_hold(&self, address: IpAddr, what: &str) -> Answer<()> {
        if self.held.contains(&address) {
            self.relied_on_held.set(true);
            return Ok(());
        }
        Err(Refusal::denied(format!(
            "{what} for {address}: the attachment does not hold that address (it holds what address management gave it and what prevResult lists)"
        )))
    }

    /// The same for a destination: one address that is held.
    ///
    /// # Errors
    /// `denied`.
    pub(crate) fn must_hold_route(&self, destination: IpNet) -> Answer<()> {
        if destination.prefix_len() != destination.max_prefix_len() {
            return Err(Refusal::denied(format!(
                "a route of the host to {destination}: only to single addresses of the attachment"
            )));
        }
        self.must_hold(destination.addr(), "a route of the host")
    }

    /// The same for an address of the host's own on a link of the attachment. Its prefix would be a route, so would a
    /// peer's, and its own traffic would be the host's: it is a gateway that the attachment was given, alone.
    ///
    /// # Errors
    /// `denied`.
    pub(crate) fn must_be_gateway(&self, link: LinkId, spec: &AddressSpec) -> Answer<()> {
        if link.netns != Netns::Host {
            return Ok(());
        }
        let single = |net: IpNet| net.prefix_len() == net.max_prefix_len();
        if !single(spec.address) {
            return Err(Refusal::denied(format!(
                "the address {} for a link of the host: its prefix would be a route of the host, only single addresses are possible",
                spec.address
            )));
        }
        if let Some(peer) = spec.peer {
            self.must_hold_route(peer)?;
        }
        let is_it = |gateway: &IpNet| gateway.addr() == spec.address.addr();
        if self.strangers.iter().any(is_it) {
            return Err(Refusal::denied(format!(
                "the address {} for a link of the host: a DHCP server has named it, which may be anybody on the pod's network",
                spec.address
            )));
        }
        match self.gateways.iter().any(is_it) {
            true => Ok(()),
            false => Err(Refusal::denied(format!(
                "the address {} for a link of the host: it is no gateway of the attachment's addresses",
                spec.address
            ))),
        }
    }

    /// The same for an address of a bridge of the node, which all attachments of the network share: its prefix is a route of
    /// the node, so it has to be that of the addresses whose gateway it is.
    ///
    /// # Errors
    /// `denied`.
    pub(crate) fn must_be_shared_gateway(&mut self, link: LinkId, spec: &AddressSpec) -> Answer<()> {
        if link.netns != Netns::Host {
            return Ok(());
        }
        if self.gateways.contains(&spec.address) && spec.peer.is_none() {
            return self.must_not_be_a_strangers(link, spec.address);
        }
        Err(Refusal::denied(format!(
            "the address {} for a bridge of the node: it is no gateway, with its prefix, of the attachment's addresses",
            spec.address
        )))
    }

    /// A DHCP server may be another pod: it says by whom the pod reaches others, not which addresses and routes the node has. One that
    /// the bridge has already is the operator's.
    fn must_not_be_a_strangers(&mut self, link: LinkId, address: IpNet) -> Answer<()> {
        if !self.strangers.contains(&address)
            || self.kernel()?.addresses(link)?.iter().any(|present| present.address == address)
        {
            return Ok(());
        }
        Err(Refusal::denied(format!(
            "the address {address} for a bridge of the node: a DHCP server has named it, which may be any pod; give it to the bridge yourself if it is to be the gateway"
        )))
    }

    /// What a guest may do with a link; `None` when it may not even know of it.
    pub(crate) fn right(&self, info: &LinkInfo, grant: &Grant) -> Option<Right> {
        if self.was_created(info.id) {
            return Some(Right::Own);
        }
        match info.id.netns {
            // Other interfaces of the pod belong to other attachments: to be seen, not to be touched; to be ridden on as
            // policy lists them (`linkInContainer`).
            Netns::Container => {
                let own = info.name == self.subject.attachment.ifname || info.loopback || self.in_journal(info);
                let other = || match info.kind.as_str() {
                    // What several attachments of the pod may be in.
                    "vrf" if matches_any(&grant.links.change, &info.name) => Right::Change,
                    _ if matches_any(&grant.links.use_, &info.name) => Right::Use,
                    _ => Right::See,
                };
                Some(if own { Right::Own } else { other() })
            }
            Netns::Host if self.in_journal(info) => Some(Right::Own),
            // Made by the reference, and never said to us.
            Netns::Host if host_end::is_ifb_of(&self.subject.attachment, info) => Some(Right::Own),
            Netns::Host => {
                let listed = if is_shared(info) && self.may_change_bridge(grant, &info.name) {
                    Some(Right::Change)
                } else if info.kind == "veth"
                    && bridge_of_vlan_port(&info.name).is_some_and(|bridge| self.may_change_bridge(grant, bridge))
                {
                    // Who may make it (`ensure-vlan-port` asks for the bridge alone) must find it again in CHECK.
                    Some(Right::Change)
                } else if matches_any(&grant.links.use_, &info.name) {
                    Some(Right::Use)
                } else if [&grant.links.change, &grant.links.see, &grant.links.take]
                    .iter()
                    .any(|list| matches_any(list, &info.name))
                {
                    // What may be changed is what attachments share. "*" among it is not meant to be an uplink: a macvlan on
                    // it gets its traffic. What may be taken is taken whole.
                    Some(Right::See)
                } else {
                    None
                };
                // A macvlan on another pod's veth gets its traffic. "*" in a policy speaks of bridges and masters; it is
                // not meant to be that.
                listed.map(|right| if is_a_pods_veth(&info.name) { Right::See } else { right })
            }
        }
    }

    /// Whether a guest may make, or change, a bridge of this name. "*" is the one that the configuration names: on a node with
    /// several networks the others' bridges are no business of this one's plugin.
    pub(crate) fn may_change_bridge(&self, grant: &Grant, bridge: &str) -> bool {
        let named = || self.given.has_bridge(bridge);
        grant.links.change.iter().any(|pattern| if pattern == "*" { named() } else { matches_any(&[pattern], bridge) })
    }

    fn in_journal(&self, info: &LinkInfo) -> bool {
        let Some(journal) = &self.journal else { return false };
        journal.pending().iter().any(|entry| match &entry.undo {
            // In a container the index alone may be another link's: its namespace may be another one by now.
            Undo::DeleteLink { side: at, index: Some(index), name } => {
                netns(*at) == info.id.netns
                    && *index == info.id.index
                    && (*at == Side::Host || *name == info.name)
                    && entry.state != State::Intended
            }
            _ => false,
        })
    }
}
