//! Which gateways a result has, and what is filled in where the address manager named none.

use sandwire_plugin::host::MAIN_TABLE;
use sandwire_plugin::{CniResult, IpNet, Route, addr};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The container's interface among the interfaces of the result: bridge, port, interface.
const CONTAINER: u32 = 2;

/// A gateway with the prefix length of the network it serves.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gateway {
    pub(crate) address: IpNet,
}

/// Makes every address the container interface's; gives it the first address of its network as gateway, if it has none
/// and the bridge shall be one; adds the default route of its family.
pub(crate) fn complete(result: &mut CniResult, is_gateway: bool, is_default: bool) {
    for ip in &mut result.ips {
        ip.interface = Some(CONTAINER);
        if ip.gateway.is_none() && is_gateway {
            ip.gateway = Some(addr::first(ip.address));
        }
        if !is_default {
            continue;
        }
        let default = if ip.address.addr().is_ipv4() {
            IpNet::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
        } else {
            IpNet::from(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
        };
        let Ok(default) = IpNet::new(default.addr(), 0) else { continue };
        // A default route that the address manager gave without gateway goes the same way. The reference adds a second
        // one, which the kernel refuses as a duplicate.
        let mut is_there = false;
        for route in result.routes.iter_mut().filter(|route| route.dst == default) {
            route.gw = route.gw.or(ip.gateway);
            // One of another table or metric stands beside the one that is added, as the kernel has it.
            is_there |= matches!(route.table, None | Some(MAIN_TABLE)) && route.priority.is_none();
        }
        if !is_there {
            result.routes.push(Route { gw: ip.gateway, ..Route::new(default) });
        }
    }
}

/// The gateways of a completed result, IPv4 first.
pub(crate) fn of(result: &CniResult) -> impl Iterator<Item = Gateway> + use<> {
    let gateways: Vec<IpNet> =
        result.ips.iter().filter_map(|ip| IpNet::new(ip.gateway?, ip.address.prefix_len()).ok()).collect();
    let (v4, v6): (Vec<IpNet>, Vec<IpNet>) = gateways.into_iter().partition(|gateway| gateway.addr().is_ipv4());
    v4.into_iter().chain(v6).map(|address| Gateway { address })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(json: &str) -> CniResult {
        sandwire_plugin::go_json::from_str(json).unwrap()
    }

    #[test]
    fn a_missing_gateway_is_the_first_address() {
        let mut given = result(
            r#"{"ips":[{"address":"fd00::7/64"},{"address":"10.1.2.9/24"},{"address":"10.1.3.9/24","gateway":"10.1.3.254"}]}"#,
        );
        complete(&mut given, true, false);
        assert!(given.ips.iter().all(|ip| ip.interface == Some(2)));
        let text: Vec<_> = of(&given).map(|gateway| gateway.address.to_string()).collect();
        assert_eq!(text, ["10.1.2.1/24", "10.1.3.254/24", "fd00::1/64"]);
        assert!(given.routes.is_empty());
    }

    #[test]
    fn without_is_gateway_nothing_is_filled_in() {
        let mut given = result(r#"{"ips":[{"address":"10.1.2.9/24"}]}"#);
        complete(&mut given, false, false);
        assert_eq!(given.ips[0].gateway, None);
    }

    #[test]
    fn a_default_route_per_family() {
        let mut given =
            result(r#"{"ips":[{"address":"10.1.2.9/24"},{"address":"10.1.2.10/24"},{"address":"fd00::7/64"}]}"#);
        complete(&mut given, true, true);
        let text: Vec<_> = given.routes.iter().map(|r| (r.dst.to_string(), r.gw.unwrap().to_string())).collect();
        assert_eq!(text, [("0.0.0.0/0".to_owned(), "10.1.2.1".to_owned()), ("::/0".to_owned(), "fd00::1".to_owned())]);
    }

    #[test]
    fn a_default_route_of_another_table_is_another() {
        for other in [r#""table":100"#, r#""priority":500"#] {
            let text = format!(r#"{{"ips":[{{"address":"10.1.2.9/24"}}],"routes":[{{"dst":"0.0.0.0/0",{other}}}]}}"#);
            let mut given = result(&text);
            complete(&mut given, true, true);
            let gateways: Vec<String> = given.routes.iter().map(|route| route.gw.unwrap().to_string()).collect();
            assert_eq!(gateways, ["10.1.2.1", "10.1.2.1"], "{other}");
            assert_eq!((given.routes[1].table, given.routes[1].priority), (None, None), "{other}");
        }
    }

    #[test]
    fn a_default_route_of_the_address_manager_stays_the_only_one() {
        let mut given = result(r#"{"ips":[{"address":"10.1.2.9/24"}],"routes":[{"dst":"0.0.0.0/0"}]}"#);
        complete(&mut given, true, true);
        assert_eq!(given.routes.len(), 1);
        assert_eq!(given.routes[0].gw.unwrap().to_string(), "10.1.2.1");
        let mut given = result(r#"{"ips":[{"address":"10.1.2.9/24"}],"routes":[{"dst":"0.0.0.0/0","gw":"10.1.2.7"}]}"#);
        complete(&mut given, true, true);
        assert_eq!(given.routes[0].gw.unwrap().to_string(), "10.1.2.7");
    }
}
