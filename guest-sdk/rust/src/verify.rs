//! CHECK: what a result promised against what is there, with the reference plugins' texts.

use crate::host::namespaces::{Link, LinkInfo, Netns};
use crate::host::{self, addresses, routes};
use crate::{Call, CniResult, Failure, Interface, IpConfig, OrFail, Route, mac};

/// Where an interface of a result should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the node's namespace, without `sandbox`.
    Host,
    /// In the container's, with one.
    Container,
}

/// The link of an interface of a result.
///
/// # Errors
/// When it has no name, is not there, or its `sandbox` does not fit the place.
pub fn interface(netns: &Netns, expected: &Interface, place: Place) -> Result<(Link, LinkInfo), Failure> {
    let name = expected.name.as_str();
    if name.is_empty() {
        return Err(Failure::internal("Interface name missing"));
    }
    let Ok(link) = netns.link(name) else {
        return Err(Failure::internal(["Interface name ", name, " not found"].concat()));
    };
    match (place, &expected.sandbox) {
        (Place::Container, None) => {
            return Err(Failure::internal(["Interface ", name, " is expected to be in a sandbox"].concat()));
        }
        (Place::Host, Some(_)) => {
            return Err(Failure::internal(["Interface ", name, " should not be in sandbox"].concat()));
        }
        _ => {}
    }
    let info = link.info().or_fail(["Interface name ", name, " not found"].concat())?;
    Ok((link, info))
}

/// The container's interface of a result, and its place among the interfaces there; an empty one, in no sandbox, without.
pub fn own_interface(call: &Call, result: &CniResult) -> (u32, Interface) {
    let own =
        |interface: &Interface| interface.name == call.ifname() && interface.sandbox.as_deref() == Some(call.sandbox());
    let last = (0..).zip(&result.interfaces).filter(|(_, interface)| own(interface)).last();
    last.map_or_else(Default::default, |(place, interface)| (place, interface.clone()))
}

/// The container's interface of a result with its place there, and the link that it is: of this kind if one is said, with the MAC
/// of the result.
///
/// # Errors
/// What does not fit, with `prefix` before it as the plugins of the reference have it ("vlan: ", or nothing).
pub fn attached(
    call: &Call,
    result: &CniResult,
    container: &Netns,
    kind: Option<&str>,
    prefix: &str,
) -> Result<(u32, Link, LinkInfo), Failure> {
    let (place, expected) = own_interface(call, result);
    let sandbox = expected.sandbox.as_deref().unwrap_or_default();
    if sandbox != call.sandbox() {
        return Err(Failure::internal(
            ["Sandbox in prevResult ", sandbox, " doesn't match configured netns: ", call.sandbox()].concat(),
        ));
    }
    let name = expected.name.as_str();
    let missing =
        || Failure::internal([prefix, "Container Interface name in prevResult: ", name, " not found"].concat());
    let link = container.link(name).map_err(|_| missing())?;
    let info = link.info().map_err(|_| missing())?;
    if let Some(kind) = kind.filter(|kind| info.kind != *kind) {
        return Err(Failure::internal(["Error: Container interface ", name, " not of type ", kind].concat()));
    }
    if !mac_matches(&expected, &info) {
        let mac = expected.mac.as_deref().unwrap_or_default();
        return Err(Failure::internal(
            [prefix, "Interface ", name, " Mac ", mac, " doesn't match container Mac: ", &info.mac].concat(),
        ));
    }
    Ok((place, link, info))
}

/// Whether a link has the MAC that the result says, if it says one, in whatever form.
pub fn mac_matches(expected: &Interface, info: &LinkInfo) -> bool {
    expected.mac.as_ref().is_none_or(|wanted| mac::same(wanted, &info.mac))
}

/// Whether each address is on the interface and its network has a route.
///
/// # Errors
/// The first that is missing.
pub fn addresses(netns: &Netns, link: &Link, ifname: &str, ips: &[IpConfig]) -> Result<(), Failure> {
    let present = addresses::get(link).or_fail("Cannot obtain List of IP Addresses")?;
    let table = main_table(netns, !ips.is_empty())?;
    for ip in ips {
        let wanted = ip.address.to_string();
        if !present.iter().any(|address| address.cidr == wanted) {
            return Err(Failure::internal(["Failed to match addr ", &wanted, " on interface ", ifname].concat()));
        }
        // The kernel makes no prefix route for a /32; the reference asks for one and fails.
        let network = ip.address.trunc();
        if network.prefix_len() < network.max_prefix_len() {
            let network = network.to_string();
            if !table.iter().any(|entry| entry.route.dst == network) {
                let gateway = ip.gateway.map_or_else(|| "<nil>".to_owned(), |gateway| gateway.to_string());
                return Err(Failure::internal(
                    ["Failed to find Gateway ", &gateway, " for interface ", ifname].concat(),
                ));
            }
        }
    }
    Ok(())
}

/// Whether each route is there: by destination and gateway, default routes by destination alone (another default may
/// have come later in the chain), in the route's own table.
///
/// # Errors
/// The first that is missing.
pub fn routes(netns: &Netns, expected: &[Route]) -> Result<(), Failure> {
    let main =
        main_table(netns, expected.iter().any(|route| route.table.is_none_or(|table| table == host::MAIN_TABLE)))?;
    for route in expected {
        let found = match route.table {
            Some(table) if table != host::MAIN_TABLE => {
                let entries = routes::get(netns, Some(table)).or_fail(describe(route, " route table lookup error"))?;
                entries.iter().any(|entry| is_route(route, &entry.route))
            }
            _ => main.iter().any(|entry| is_route(route, &entry.route)),
        };
        if !found {
            return Err(Failure::internal(describe(route, " not found in routing table")));
        }
    }
    Ok(())
}

fn main_table(netns: &Netns, needed: bool) -> Result<Vec<routes::Entry>, Failure> {
    if needed {
        routes::get(netns, Some(host::MAIN_TABLE)).or_fail("could not list the routes")
    } else {
        Ok(Vec::new())
    }
}

fn is_route(expected: &Route, present: &crate::host::routes::Route) -> bool {
    let same_gateway = expected.dst.prefix_len() == 0
        || expected.gw.is_none_or(|gateway| match gateway.is_unspecified() {
            // The kernel has a route without a gateway then (`rtm_to_fib_config`).
            true => present.via.is_none(),
            false => present.via.as_deref() == Some(gateway.to_string().as_str()),
        });
    present.dst == expected.dst.trunc().to_string() && same_gateway
}

fn describe(route: &Route, what: &str) -> String {
    let gateway = route.gw.map_or_else(|| "<nil>".to_owned(), |gateway| gateway.to_string());
    ["Expected Route {Dst:", &route.dst.to_string(), " GW:", &gateway, "}", what].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::routes::Route as Present;

    fn expected(json: &str) -> Route {
        crate::go_json::from_str(json).unwrap()
    }

    #[test]
    fn a_default_route_is_matched_by_destination_alone() {
        let default = expected(r#"{"dst":"0.0.0.0/0","gw":"10.1.2.1"}"#);
        assert!(is_route(&default, &Present::new("0.0.0.0/0").via("10.9.9.9")));
        assert!(!is_route(&default, &Present::new("::/0")));
    }

    #[test]
    fn other_routes_are_matched_by_gateway_too() {
        let route = expected(r#"{"dst":"192.168.1.7/16","gw":"10.1.2.1"}"#);
        assert!(is_route(&route, &Present::new("192.168.0.0/16").via("10.1.2.1")));
        assert!(!is_route(&route, &Present::new("192.168.0.0/16").via("10.1.2.2")));
        assert!(!is_route(&route, &Present::new("192.168.0.0/16")));
        let direct = expected(r#"{"dst":"192.168.0.0/16","gw":"0.0.0.0"}"#);
        assert!(is_route(&direct, &Present::new("192.168.0.0/16")));
        assert!(!is_route(&direct, &Present::new("192.168.0.0/16").via("10.1.2.2")));
        let any = expected(r#"{"dst":"192.168.0.0/16"}"#);
        assert!(is_route(&any, &Present::new("192.168.0.0/16").via("10.1.2.2")));
        assert_eq!(describe(&any, " not found"), "Expected Route {Dst:192.168.0.0/16 GW:<nil>} not found");
    }
}
