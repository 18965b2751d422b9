//! Options of DHCP (RFC 2132): their names in a configuration, and the bytes of those that become a result.

use sandwire_plugin::{IpNet, Route};
use std::net::Ipv4Addr;

pub(crate) const SUBNET_MASK: u8 = 1;
pub(crate) const ROUTERS: u8 = 3;
pub(crate) const STATIC_ROUTES: u8 = 33;
pub(crate) const PARAMETER_REQUEST_LIST: u8 = 55;
/// RFC 3442.
pub(crate) const CLASSLESS_ROUTES: u8 = 121;

/// `RT_SCOPE_LINK` (linux/rtnetlink.h).
const SCOPE_LINK: u32 = 253;

/// Why the bytes of an option mean nothing. The reference's library takes such an option for absent; a container that
/// silently has no default route, or another one, is harder to explain than an error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable(pub(crate) String);

/// The code of an option, which a configuration names or numbers.
///
/// # Errors
/// The reference's text (dhcp/options.go, parseOptionName), with Go's for the number.
pub(crate) fn code(option: &str) -> Result<u8, String> {
    Ok(match option {
        "dhcp-client-identifier" => 61,
        "subnet-mask" => SUBNET_MASK,
        "routers" => ROUTERS,
        "host-name" => 12,
        "user-class" => 77,
        "vendor-class-identifier" => 60,
        number => parse_uint(number)
            .map_err(|why| format!("Can not parse option: strconv.ParseUint: parsing {number:?}: {why}"))?,
    })
}

/// `strconv.ParseUint(text, 10, 8)`: no sign, and what is wrong first is what counts.
fn parse_uint(text: &str) -> Result<u8, &'static str> {
    const SYNTAX: &str = "invalid syntax";
    if text.is_empty() {
        return Err(SYNTAX);
    }
    text.bytes().try_fold(0u8, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| byte - b'0').ok_or(SYNTAX)?;
        number.checked_mul(10).and_then(|tens| tens.checked_add(digit)).ok_or("value out of range")
    })
}

/// The length of a mask's prefix.
///
/// # Errors
/// When it is no prefix: no route can have such a mask.
pub(crate) fn prefix_length(mask: [u8; 4]) -> Result<u32, Unreadable> {
    let bits = u32::from_be_bytes(mask);
    if bits.count_ones() == bits.leading_ones() {
        return Ok(bits.leading_ones());
    }
    Err(Unreadable(format!("the subnet mask {} has a 1 after a 0", Ipv4Addr::from(mask))))
}

/// The router that the server prefers; none in an empty option, by which some servers say that there is none.
///
/// # Errors
/// When it is no list of addresses.
pub(crate) fn first_router(bytes: &[u8]) -> Result<Option<Ipv4Addr>, Unreadable> {
    let (routers, []) = bytes.as_chunks::<4>() else {
        return Err(Unreadable(format!("{} bytes are no list of routers, which have 4 each", bytes.len())));
    };
    Ok(routers.first().copied().map(Ipv4Addr::from))
}

/// Pairs of a destination, whose class says how long its prefix is, and a router. As in the reference, whatever is left
/// after the last pair does not count (dhcp/options.go, parseRoutes).
pub(crate) fn static_routes(bytes: &[u8]) -> Vec<Route> {
    let (pairs, _) = bytes.as_chunks::<8>();
    let route = |&[a, b, c, d, router @ ..]: &[u8; 8]| {
        // Go's `net.IP.DefaultMask`: what is of no class has 24 bits.
        let length = match a {
            0..=127 => 8,
            128..=191 => 16,
            _ => 24,
        };
        let dst = IpNet::new([a, b, c, d].into(), length).ok()?;
        Some(Route::new(dst).via(router.into()))
    };
    pairs.iter().filter_map(route).collect()
}

/// RFC 3442: the width of a destination in bits, as many of its bytes as these fill, and a router.
///
/// # Errors
/// The first route that is wider than an address, or cut off.
pub(crate) fn classless_routes(bytes: &[u8]) -> Result<Vec<Route>, Unreadable> {
    let mut routes = Vec::new();
    let mut rest = bytes;
    while let Some((&width, after)) = rest.split_first() {
        let n = routes.len() + 1;
        let cut = || Unreadable(format!("route {n} is cut off: {} bytes follow its width {width}", after.len()));
        let (given, after) = after.split_at_checked(usize::from(width.div_ceil(8))).ok_or_else(cut)?;
        let (&router, after) = after.split_first_chunk::<4>().ok_or_else(cut)?;
        let mut dst = [0; 4];
        dst.iter_mut().zip(given).for_each(|(to, byte)| *to = *byte);
        let dst = IpNet::new(dst.into(), width)
            .map_err(|_| Unreadable(format!("route {n} has a destination of {width} bits; an address has 32")))?;
        routes.push(by_router(dst, router.into()));
        rest = after;
    }
    Ok(routes)
}

/// By router 0.0.0.0 the destination is on the link itself (RFC 3442, local subnet routes). As in the reference the result
/// says both: an interface plugin takes a route without gateway to go by that of the address, and 0.0.0.0 is none to the
/// kernel (`rtm_to_fib_config`).
fn by_router(dst: IpNet, router: Ipv4Addr) -> Route {
    Route { scope: router.is_unspecified().then_some(SCOPE_LINK), ..Route::new(dst).via(router.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(route: &Route) -> String {
        let scope = route.scope.map(|scope| format!(" scope {scope}")).unwrap_or_default();
        format!("{} via {}{scope}", route.dst, route.gw.unwrap())
    }

    fn texts(routes: &[Route]) -> Vec<String> {
        routes.iter().map(text).collect()
    }

    #[test]
    fn options_by_name_and_number() {
        for (option, wanted) in [
            ("dhcp-client-identifier", 61),
            ("subnet-mask", 1),
            ("routers", 3),
            ("host-name", 12),
            ("user-class", 77),
            ("vendor-class-identifier", 60),
            ("0", 0),
            ("007", 7),
            ("255", 255),
        ] {
            assert_eq!(code(option), Ok(wanted), "{option}");
        }
        for (option, why) in [
            ("", "invalid syntax"),
            ("Host-Name", "invalid syntax"),
            ("+1", "invalid syntax"),
            ("-1", "invalid syntax"),
            ("0x1", "invalid syntax"),
            ("25x", "invalid syntax"),
            ("256", "value out of range"),
            ("256x", "value out of range"),
            ("99999999999999999999", "value out of range"),
        ] {
            let wanted = format!("Can not parse option: strconv.ParseUint: parsing \"{option}\": {why}");
            assert_eq!(code(option), Err(wanted));
        }
    }

    #[test]
    fn masks_are_prefixes() {
        for (mask, wanted) in
            [([0; 4], 0), ([255, 0, 0, 0], 8), ([255, 255, 254, 0], 23), ([255, 255, 255, 0], 24), ([255; 4], 32)]
        {
            assert_eq!(prefix_length(mask), Ok(wanted));
        }
        for (mask, text) in [([255, 0, 255, 0], "255.0.255.0"), ([0, 0, 0, 1], "0.0.0.1")] {
            assert_eq!(prefix_length(mask).unwrap_err().0, format!("the subnet mask {text} has a 1 after a 0"));
        }
    }

    #[test]
    fn the_first_router() {
        let router = |bytes: &[u8]| first_router(bytes).map_err(|Unreadable(why)| why);
        assert_eq!(router(&[]), Ok(None));
        assert_eq!(router(&[10, 1, 2, 1]), Ok(Some([10, 1, 2, 1].into())));
        assert_eq!(router(&[10, 1, 2, 1, 10, 1, 2, 254]), Ok(Some([10, 1, 2, 1].into())));
        for bytes in [&[10, 1, 2][..], &[10, 1, 2, 1, 10]] {
            let wanted = format!("{} bytes are no list of routers, which have 4 each", bytes.len());
            assert_eq!(router(bytes), Err(wanted));
        }
    }

    #[test]
    fn static_routes_have_the_length_of_their_class() {
        let routes = |bytes: &[u8]| texts(&static_routes(bytes));
        for (dst, wanted) in [
            ([10, 0, 0, 0], "10.0.0.0/8"),
            ([127, 1, 2, 3], "127.1.2.3/8"),
            ([128, 1, 0, 0], "128.1.0.0/16"),
            ([191, 1, 0, 0], "191.1.0.0/16"),
            ([192, 168, 7, 0], "192.168.7.0/24"),
            ([240, 1, 2, 0], "240.1.2.0/24"),
        ] {
            let bytes = [dst, [10, 1, 2, 1]].concat();
            assert_eq!(routes(&bytes), [format!("{wanted} via 10.1.2.1")]);
        }
        assert_eq!(routes(&[]).len(), 0);
        assert_eq!(routes(&[10, 0, 0, 0, 10, 1, 2]).len(), 0);
        let two_and_more = [11, 0, 0, 0, 10, 1, 2, 1, 192, 168, 7, 0, 10, 1, 2, 2, 12, 0, 0];
        assert_eq!(routes(&two_and_more), ["11.0.0.0/8 via 10.1.2.1", "192.168.7.0/24 via 10.1.2.2"]);
    }

    #[test]
    fn classless_routes_have_as_many_bytes_as_their_width_fills() {
        for (bytes, wanted) in [
            (&[][..], &[][..]),
            (&[0, 10, 1, 2, 1], &["0.0.0.0/0 via 10.1.2.1"]),
            (&[1, 128, 10, 1, 2, 1], &["128.0.0.0/1 via 10.1.2.1"]),
            (&[8, 10, 10, 1, 2, 1], &["10.0.0.0/8 via 10.1.2.1"]),
            (&[20, 10, 9, 16, 10, 1, 2, 1], &["10.9.16.0/20 via 10.1.2.1"]),
            (&[32, 10, 9, 8, 7, 10, 1, 2, 1], &["10.9.8.7/32 via 10.1.2.1"]),
            // Bits beyond the width stay, as in the reference; the host takes them from the route.
            (&[20, 10, 9, 17, 10, 1, 2, 1], &["10.9.17.0/20 via 10.1.2.1"]),
            (&[16, 169, 254, 0, 0, 0, 0], &["169.254.0.0/16 via 0.0.0.0 scope 253"]),
            (
                &[0, 10, 1, 2, 1, 24, 192, 168, 7, 10, 1, 2, 2],
                &["0.0.0.0/0 via 10.1.2.1", "192.168.7.0/24 via 10.1.2.2"],
            ),
        ] {
            assert_eq!(texts(&classless_routes(bytes).unwrap()), wanted);
        }
        for (bytes, wanted) in [
            (&[33, 10, 9, 8, 7, 6, 10, 1, 2, 1][..], "route 1 has a destination of 33 bits; an address has 32"),
            (&[33, 10, 9, 8, 7, 10, 1, 2, 1][..8], "route 1 is cut off: 7 bytes follow its width 33"),
            (&[255], "route 1 is cut off: 0 bytes follow its width 255"),
            (&[24, 192, 168], "route 1 is cut off: 2 bytes follow its width 24"),
            (&[24, 192, 168, 7, 10, 1, 2], "route 1 is cut off: 6 bytes follow its width 24"),
            (&[0, 10, 1, 2, 1, 0], "route 2 is cut off: 0 bytes follow its width 0"),
        ] {
            assert_eq!(classless_routes(bytes).unwrap_err().0, wanted);
        }
    }
}
