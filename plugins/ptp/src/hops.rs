//! The routes of a point-to-point link. A veth is Ethernet; what makes it point-to-point is that the container has no
//! route to its network but by its gateway, which is the host's end.

use sandwire_plugin::{CniResult, Failure, HostRoute, IpNet, configure::Plan};
use std::net::IpAddr;

/// `RT_SCOPE_LINK` and `RT_SCOPE_HOST` (linux/rtnetlink.h), as the reference has them.
const LINK: u8 = 253;
const HOST: u8 = 254;

/// An address of the container and who routes for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hop {
    pub(crate) address: IpNet,
    pub(crate) gateway: IpAddr,
}

/// Each address of the result with its gateway.
///
/// # Errors
/// For one without: there is nobody to route to. (The reference fails at the host's end.)
pub(crate) fn of(result: &CniResult) -> Result<Vec<Hop>, Failure> {
    let hop = |address: IpNet, gateway: Option<IpAddr>| match gateway {
        Some(gateway) => Ok(Hop { address, gateway }),
        None => Err(Failure::config(format!("failed to add IP addr to veth: address {address} has no gateway"))
            .with_details("ptp routes everything by the gateway: address management must name one for each address")),
    };
    result.ips.iter().map(|ip| hop(ip.address, ip.gateway)).collect()
}

/// The address alone, "10.1.2.1/32".
pub(crate) fn single(ip: IpAddr) -> String {
    IpNet::from(ip).to_string()
}

impl Hop {
    /// The container's network, unless it is the address alone: then it is on no network that could have a route.
    pub(crate) fn network(&self) -> Option<IpNet> {
        Some(self.address.trunc()).filter(|network| network.prefix_len() < network.max_prefix_len())
    }

    /// The host's route to the container.
    pub(crate) fn back(&self) -> HostRoute {
        HostRoute { scope: Some(HOST), ..HostRoute::new(single(self.address.addr())) }
    }
}

/// The different gateways, in their order: two addresses of one network have the same.
pub(crate) fn gateways(hops: &[Hop]) -> Vec<IpAddr> {
    let mut gateways = Vec::with_capacity(hops.len());
    for hop in hops {
        if !gateways.contains(&hop.gateway) {
            gateways.push(hop.gateway);
        }
    }
    gateways
}

/// Makes the plan of an ordinary interface one of a point-to-point link: no route to a network of its own (the reference
/// lets the kernel make it, and deletes it), but to each gateway and by it to the network.
pub(crate) fn point_to_point(plan: &mut Plan, hops: &[Hop]) {
    for address in &mut plan.addresses {
        address.no_prefix_route = true;
    }
    for route in &mut plan.routes {
        let Some(Ok(via)) = route.via.as_deref().map(str::parse::<IpAddr>) else { continue };
        // Another gateway of the container's network: the reference adds such a route before it deletes the one to the
        // network, which the kernel then no longer misses. The container's own address is always there, and refused as a
        // gateway that is on the link (fib_check_nh_v4_gw).
        let is_there = |hop: &Hop| hop.gateway == via || hop.address.addr() == via;
        if !hops.iter().any(is_there) && hops.iter().any(|hop| hop.address.contains(&via)) {
            route.extra.push(("onlink".into(), "true".into()));
        }
    }
    let mut routes = Vec::with_capacity(2 * hops.len() + plan.routes.len());
    for Hop { address, gateway } in hops {
        let src = Some(address.addr().to_string());
        routes.push(HostRoute { src, scope: Some(LINK), ..HostRoute::new(single(*gateway)) });
    }
    for hop in hops {
        if let Some(network) = hop.network() {
            let src = Some(hop.address.addr().to_string());
            routes.push(HostRoute { src, ..HostRoute::new(network.to_string()).via(hop.gateway.to_string()) });
        }
    }
    routes.append(&mut plan.routes);
    plan.routes = routes;
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandwire_plugin::configure::Duplicates;

    fn result(json: &str) -> CniResult {
        sandwire_plugin::go_json::from_str(json).unwrap()
    }

    #[test]
    fn all_goes_by_the_gateway() {
        let given = result(
            r#"{"interfaces":[{"name":"veth0"},{"name":"eth0","sandbox":"/n"}],
                "ips":[{"address":"10.1.2.5/24","gateway":"10.1.2.1","interface":1},
                       {"address":"10.1.2.6/24","gateway":"10.1.2.1","interface":1},
                       {"address":"fd00::5/128","gateway":"fe80::1","interface":1}],
                "routes":[{"dst":"0.0.0.0/0"},{"dst":"10.9.0.0/16","gw":"10.1.2.7"},
                          {"dst":"10.8.0.0/16","gw":"10.1.2.5"},{"dst":"::/0"}]}"#,
        );
        let hops = of(&given).unwrap();
        let mut plan = Plan::of("eth0", &given, Duplicates::Trust).unwrap();
        point_to_point(&mut plan, &hops);
        assert!(plan.addresses.iter().all(|address| address.no_prefix_route));
        let text = |route: &HostRoute| {
            let of = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
            let on = if route.extra.is_empty() { "" } else { " onlink" };
            format!("{} {} {} {:?}{on}", route.dst, of(&route.via), of(&route.src), route.scope)
        };
        let routes: Vec<String> = plan.routes.iter().map(text).collect();
        assert_eq!(
            routes,
            [
                "10.1.2.1/32 - 10.1.2.5 Some(253)",
                "10.1.2.1/32 - 10.1.2.6 Some(253)",
                "fe80::1/128 - fd00::5 Some(253)",
                "10.1.2.0/24 10.1.2.1 10.1.2.5 None",
                "10.1.2.0/24 10.1.2.1 10.1.2.6 None",
                "0.0.0.0/0 10.1.2.1 - None",
                "10.9.0.0/16 10.1.2.7 - None onlink",
                "10.8.0.0/16 10.1.2.5 - None",
                "::/0 fe80::1 - None",
            ]
        );
        assert_eq!(gateways(&hops).iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.2.1", "fe80::1"]);
        assert_eq!(text(&hops[2].back()), "fd00::5/128 - - Some(254)");
    }

    #[test]
    fn an_address_without_gateway_is_an_error() {
        let failure = of(&result(r#"{"ips":[{"address":"10.1.2.5/24"}]}"#)).unwrap_err();
        assert_eq!(failure.msg, "failed to add IP addr to veth: address 10.1.2.5/24 has no gateway");
    }
}
