//! An interface that is up, from the pod to the node, with all that plugins give it.

use super::{Comparison, addresses_of};
use crate::configs::{PORT_RANGE, TUNED_MTU, tuned_mac};
use crate::look::{self, Link};
use crate::networks::{Attachment, MASTER, PODS};
use crate::rules::ifb_of;
use crate::state::{State, Up};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The host's end of a point-to-point link is the gateway: the first address of each of its networks.
fn gateway_of(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.1/32")
        }
        IpAddr::V6(v6) => {
            let mut segments = v6.segments();
            segments[4..].copy_from_slice(&[0, 0, 0, 1]);
            format!("{}/128", std::net::Ipv6Addr::from(segments))
        }
    }
}

fn alone(address: &IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

impl Comparison<'_> {
    /// What is in the pod, if its namespace is still the one of the ADD.
    pub(super) fn inside(&mut self, attachment: &Attachment, up: &Up) {
        let Some(network) = self.observed.pods.get(attachment.pod) else { return };
        if !self.model.is_inside(attachment, up) {
            return;
        }
        if attachment.net.plugin == "loopback" && !network.links.get("lo").is_some_and(|lo| lo.up) {
            self.differ(format!("{attachment}: lo is down"));
        }
        if !attachment.net.has_link() {
            return;
        }
        let Some(inside) = self.observed.inside(attachment) else {
            return self.differ(format!("{attachment}: there is no interface in the pod"));
        };
        let kind = if attachment.net.has_host_end() { "veth" } else { "macvlan" };
        if inside.kind != kind || !inside.up {
            self.differ(format!("{attachment}: its interface is {:?}, up {}", inside.kind, inside.up));
        }
        if inside.addresses != up.addresses {
            self.differ(format!("{attachment}: its interface has {:?}, promised {:?}", inside.addresses, up.addresses));
        }
        if up.mac.as_ref() != Some(&inside.mac) {
            self.differ(format!("{attachment}: its interface has MAC {}, promised {:?}", inside.mac, up.mac));
        }
        let mut routes = up.routes.clone();
        if attachment.net.plugin == "ptp" {
            routes.extend(addresses_of(&up.addresses).iter().map(gateway_of));
        }
        for destination in routes {
            if !network.routes.contains(&(destination.clone(), attachment.ifname.to_owned())) {
                self.differ(format!("{attachment}: no route to {destination}"));
            }
        }
        match attachment.net.plugin {
            "macvlan" => self.rides(attachment, inside),
            _ => self.host_end(attachment, up, inside),
        }
        if attachment.net.has("tuning") {
            self.tuned(attachment, inside);
        }
    }

    fn rides(&mut self, attachment: &Attachment, inside: &Link) {
        let master = self.observed.host.links.get(MASTER).map(|link| link.index);
        if inside.peer != master {
            self.differ(format!("{attachment}: it rides on {:?}, not on {MASTER} ({master:?})", inside.peer));
        }
    }

    fn host_end(&mut self, attachment: &Attachment, up: &Up, inside: &Link) {
        let name = up.host_end.clone().unwrap_or_default();
        let Some(port) = self.observed.host.links.get(&name) else {
            return self.differ(format!("{attachment}: its host end {name:?} is gone"));
        };
        if port.peer != Some(inside.index) || !port.up {
            self.differ(format!("{attachment}: {name} leads to {:?}, up {}", port.peer, port.up));
        }
        let bridge = port.master.and_then(|index| self.observed.host.name_of(index)).unwrap_or_default().to_owned();
        let instance = self.observed.registered.get(&name).cloned();
        let wanted = match (attachment.net.has_agent(), up.registered, &instance) {
            (false, ..) => attachment.net.bridge.to_owned(),
            (true, true, Some(id)) => format!("evpn---{id}"),
            (true, true, None) => return self.differ(format!("{attachment}: the agent does not know {name}")),
            (true, false, Some(_)) => return self.differ(format!("{attachment}: the agent should not know {name}")),
            (true, false, None) => return,
        };
        if bridge != wanted {
            self.differ(format!("{attachment}: {name} is a port of {bridge:?}, not of {wanted:?}"));
        }
        if attachment.net.plugin == "ptp" {
            self.gateway(attachment, up, &name, port);
        }
        if attachment.net.has("portmap") {
            let [.., route_localnet] = look::of_link(attachment.net.bridge);
            let value = self.observed.host.sysctls.get(&route_localnet);
            if value.is_none_or(|value| value != "1") {
                self.differ(format!("{attachment}: {route_localnet} is {value:?}"));
            }
        }
    }

    /// The host's end of a point-to-point link routes.
    fn gateway(&mut self, attachment: &Attachment, up: &Up, name: &str, port: &Link) {
        let addresses = addresses_of(&up.addresses);
        let gateways: BTreeSet<String> = addresses.iter().map(gateway_of).collect();
        if port.addresses != gateways {
            self.differ(format!("{attachment}: {name} has {:?}, not the gateways {gateways:?}", port.addresses));
        }
        for address in addresses.iter().map(alone) {
            if !self.observed.host.routes.contains(&(address.clone(), name.to_owned())) {
                self.differ(format!("{attachment}: the host has no route to {address} by {name}"));
            }
        }
        let [_, accept_ra, _] = look::of_link(name);
        let value = self.observed.host.sysctls.get(&accept_ra);
        if value.is_some_and(|value| value != "0") {
            self.differ(format!("{attachment}: {accept_ra} is {value:?}"));
        }
    }

    fn tuned(&mut self, attachment: &Attachment, inside: &Link) {
        let mac = tuned_mac(attachment.pod);
        if (inside.mtu, &inside.mac, inside.allmulti) != (TUNED_MTU, &mac, true) {
            self.differ(format!(
                "{attachment}: its interface has MTU {}, MAC {}, all-multicast {}",
                inside.mtu, inside.mac, inside.allmulti
            ));
        }
        let [arp_filter, ..] = look::of_link(attachment.ifname);
        let network = self.observed.pods.get(attachment.pod);
        let value = network.and_then(|network| network.sysctls.get(&arp_filter));
        if value.is_none_or(|value| value != "1") {
            self.differ(format!("{attachment}: {arp_filter} is {value:?}"));
        }
    }

    /// What is set for a pod's namespace as a whole.
    pub(super) fn sysctls(&mut self) {
        for pod in PODS {
            let Some(value) = self.observed.pods.get(pod).and_then(|pod| pod.sysctls.get(look::PORT_RANGE)) else {
                continue;
            };
            let [tuned, untouched] = PORT_RANGE;
            let mut surely = None;
            let mut either = self.model.tuned.contains(pod);
            for (attachment, state) in self.model.states().filter(|(a, _)| a.pod == pod && a.net.has("tuning")) {
                match state {
                    State::Up(up) if up.damage.is_some() => either = true,
                    State::Up(up) if self.model.is_inside(attachment, up) => surely = Some(attachment),
                    State::Loose => either = true,
                    _ => {}
                }
            }
            match surely {
                Some(attachment) if value != tuned => {
                    self.found.push(format!("{attachment}: {} is {value:?}", look::PORT_RANGE));
                }
                None if value != untouched && !(either && value == tuned) => {
                    self.found.push(format!("{} of pod {pod} is left at {value:?}", look::PORT_RANGE));
                }
                _ => {}
            }
        }
    }

    /// Bandwidth's buckets and devices: both ways, what is promised and what is nobody's.
    pub(super) fn limits(&mut self) {
        let mut wanted: BTreeSet<(String, String)> = BTreeSet::new();
        let mut possible = BTreeSet::new();
        for (attachment, state) in self.model.states().filter(|(a, _)| a.net.has("bandwidth")) {
            let ifb = (ifb_of(attachment), "tbf".to_owned());
            match state {
                State::Up(up) => {
                    let end = up.host_end.clone().unwrap_or_default();
                    let own = [(end.clone(), "tbf".to_owned()), (end, "ingress".to_owned()), ifb.clone()];
                    possible.extend(own.iter().cloned());
                    if up.damage.is_some() {
                        continue;
                    }
                    // With the namespace the veth went; the device did not.
                    if self.model.is_inside(attachment, up) {
                        wanted.extend(own);
                    } else {
                        wanted.insert(ifb);
                    }
                }
                State::Loose => {
                    possible.insert(ifb);
                }
                _ => {}
            }
        }
        for (link, kind) in wanted.difference(&self.observed.host.qdiscs) {
            self.found.push(format!("{link} has no {kind}"));
        }
        for (link, kind) in &self.observed.host.qdiscs {
            let of_loose = self.model.host_ends.get(link).map_or_else(
                || self.may_be(link),
                |attachment| *self.model.state(attachment) == State::Loose && attachment.net.has("bandwidth"),
            );
            if !possible.contains(&(link.clone(), kind.clone())) && !of_loose {
                self.found.push(format!("{kind} of {link} is left"));
            }
        }
        for (pod, network) in &self.observed.pods {
            self.found
                .extend(network.qdiscs.iter().map(|(link, kind)| format!("{kind} of {link} in pod {pod} is left")));
        }
    }

    /// Whether bandwidth may have made a device of this name.
    pub(super) fn may_be_ifb(&self, name: &str) -> bool {
        let mut all = self.model.states().filter(|(attachment, _)| attachment.net.has("bandwidth"));
        all.any(|(attachment, state)| matches!(state, State::Up(_) | State::Loose) && ifb_of(attachment) == name)
    }
}
