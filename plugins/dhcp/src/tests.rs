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

/// Bytes that look like none in particular, the same in every run.
struct Noise(u64);

impl Noise {
    fn number(&mut self, below: usize) -> usize {
        // Knuth's MMIX; its high bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.number(256) as u8).collect()
    }
}

/// What a stranger sends becomes a result or an error that names the option and the server; of both there are some.
#[test]
fn options_of_any_bytes() {
    let mut noise = Noise(1);
    let (mut good, mut bad) = (0, 0);
    for round in 0..20_000 {
        let length = noise.number(if round % 8 == 0 { 1200 } else { 14 });
        let mut odd = noise.bytes(length);
        // Widths that an address has.
        if let Some(width) = odd.first_mut().filter(|_| round % 2 == 0) {
            *width %= 40;
        }
        let mask = match noise.number(4) {
            0 => noise.bytes(4),
            1 => odd.clone(),
            _ => u32::MAX.checked_shl(noise.number(33) as u32).unwrap_or(0).to_be_bytes().to_vec(),
        };
        let routers = noise.number(3);
        let router = noise.bytes(4 * routers);
        let which = [ROUTERS, STATIC_ROUTES, CLASSLESS_ROUTES, noise.number(256) as u8][noise.number(4)];
        let settings = [(SUBNET_MASK, mask.as_slice()), (which, odd.as_slice()), (ROUTERS, router.as_slice())];
        match result(&lease(&settings), Some(7)) {
            Ok(result) => {
                good += 1;
                let [ip] = result.ips.as_slice() else { panic!("{:?}", result.ips) };
                assert_eq!(ip.address.addr().to_string(), "10.1.2.9");
                assert!(result.routes.iter().all(|route| route.priority == Some(7) && route.gw.is_some()));
                assert!(result.routes.len() <= length / 5 + 1, "{} routes of {length} bytes", result.routes.len());
            }
            Err(failure) => {
                bad += 1;
                assert_eq!(failure.code, sandwire_plugin::code::INTERNAL);
                assert!(failure.msg.contains("DHCP option "), "{}", failure.msg);
                assert!(failure.details.contains("DHCP server 10.1.2.254"), "{}", failure.details);
            }
        }
    }
    assert!(good > 1000 && bad > 1000, "{good} and {bad}");
}
