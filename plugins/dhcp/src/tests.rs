//! From a lease to a result.

use super::*;
use sandwire_plugin::host::dhcp::Setting;

const MASK: (u8, &[u8]) = (1, &[255, 255, 255, 0]);
const ROUTER: (u8, &[u8]) = (3, &[10, 1, 2, 1, 10, 1, 2, 254]);

fn lease(settings: &[(u8, &[u8])]) -> Lease {
    let settings = settings.iter().map(|(code, value)| Setting { code: *code, value: value.to_vec() }).collect();
    Lease { address: "10.1.2.9".to_owned(), server: "10.1.2.254".to_owned(), seconds: 3600, settings }
}

/// "destination via gateway" of each route.
fn routes(result: &CniResult) -> Vec<String> {
    result.routes.iter().map(|route| format!("{} via {}", route.dst, route.gw.unwrap())).collect()
}

#[test]
fn an_address_its_gateway_and_a_default_route() {
    let result = result(&lease(&[(51, &[0, 0, 14, 16]), ROUTER, MASK]), None).unwrap();
    let [ip] = result.ips.as_slice() else { panic!("{:?}", result.ips) };
    assert_eq!((ip.address.to_string(), ip.interface), ("10.1.2.9/24".to_owned(), None));
    assert_eq!(ip.gateway.unwrap().to_string(), "10.1.2.1");
    assert_eq!(routes(&result), ["0.0.0.0/0 via 10.1.2.1"]);
    assert_eq!(result.routes[0], Route::new("0.0.0.0/0".parse().unwrap()).via([10, 1, 2, 1].into()));
    assert!(result.dns.is_empty() && result.interfaces.is_empty());
}

#[test]
fn which_routes_count() {
    const CLASSFUL: (u8, &[u8]) = (33, &[192, 168, 7, 0, 10, 1, 2, 3]);
    const CLASSLESS: (u8, &[u8]) = (121, &[12, 172, 16, 10, 1, 2, 4]);
    for (settings, gateway, wanted) in [
        (&[MASK][..], None, &[][..]),
        (&[MASK, (3, &[])], None, &[]),
        (&[MASK, CLASSFUL], None, &["192.168.7.0/24 via 10.1.2.3"]),
        (&[MASK, ROUTER, CLASSFUL], Some("10.1.2.1"), &["192.168.7.0/24 via 10.1.2.3", "0.0.0.0/0 via 10.1.2.1"]),
        (&[MASK, ROUTER, CLASSFUL, CLASSLESS], Some("10.1.2.1"), &["172.16.0.0/12 via 10.1.2.4"]),
        (&[MASK, CLASSLESS], None, &["172.16.0.0/12 via 10.1.2.4"]),
        // Without a route in it option 121 says nothing.
        (&[MASK, ROUTER, (121, &[])], Some("10.1.2.1"), &["0.0.0.0/0 via 10.1.2.1"]),
    ] {
        for priority in [None, Some(100)] {
            let result = result(&lease(settings), priority).unwrap();
            assert_eq!(routes(&result), wanted);
            assert_eq!(result.ips[0].gateway.map(|gateway| gateway.to_string()).as_deref(), gateway);
            assert!(result.routes.iter().all(|route| route.priority == priority));
        }
    }
}

#[test]
fn a_lease_that_can_not_be_used() {
    const NO_MASK: &str = "DHCP option Subnet Mask not found in DHCPACK";
    let why = |why: &str| format!("could not use the lease of 10.1.2.9: {why}");
    for (settings, wanted) in [
        (&[ROUTER][..], NO_MASK.to_owned()),
        (&[ROUTER, (1, &[255, 255, 255])], NO_MASK.to_owned()),
        (&[ROUTER, (1, &[255, 255, 255, 0, 0])], NO_MASK.to_owned()),
        (&[(1, &[255, 0, 255, 0])], why("DHCP option 1 can't be read: the subnet mask 255.0.255.0 has a 1 after a 0")),
        (
            &[MASK, (3, &[10, 1, 2])],
            why("DHCP option 3 can't be read: 3 bytes are no list of routers, which have 4 each"),
        ),
        (
            &[MASK, ROUTER, (121, &[24, 10])],
            why("DHCP option 121 can't be read: route 1 is cut off: 1 bytes follow its width 24"),
        ),
    ] {
        let failure = result(&lease(settings), None).unwrap_err();
        assert_eq!((failure.code, failure.msg), (sandwire_plugin::code::INTERNAL, wanted));
        assert!(failure.details.contains("DHCP server 10.1.2.254"), "{}", failure.details);
    }
}

#[test]
fn what_check_says_of_a_lease() {
    let ips = |texts: &[&str]| -> Vec<IpConfig> {
        texts.iter().map(|text| IpConfig::new(addr::parse_cidr(text).unwrap())).collect()
    };
    let held = lease(&[MASK]);
    for given in [&[][..], &["10.1.2.9/24"], &["fd00::9/64", "10.1.2.9/24"]] {
        assert_eq!(still_leased(Some(&held), &ips(given)), Ok(()));
    }
    assert_eq!(still_leased(None, &ips(&["10.1.2.9/24"])).unwrap_err(), "has no lease any more");
    assert_eq!(
        still_leased(Some(&held), &ips(&["10.1.2.8/24", "fd00::9/64"])).unwrap_err(),
        "has the lease of 10.1.2.9, and 10.1.2.8, fd00::9 in prevResult"
    );
}
