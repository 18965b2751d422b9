//! Sets the container's `lo` up.
//!
//! Keys and messages: containernetworking/plugins, plugins/main/loopback. It has no keys; CNI_IFNAME is ignored.

use sandwire_plugin::host::{self, addresses, links};
use sandwire_plugin::{Call, Check, CniResult, Failure, HostError, Interface, IpConfig, Link, OrFail, OrGone, Plugin};
use std::net::IpAddr;

/// The only interface that this plugin is for.
const LO: &str = "lo";

struct Loopback;

sandwire_plugin::export!(Loopback: check);

impl Plugin for Loopback {
    fn add(call: &Call) -> Result<CniResult, Failure> {
        let passed_on = call.prev_result().or_fail("failed to parse prevResult")?;
        let lo = host::require_container()?.link(LO).or_fail("failed to lookup \"lo\"")?;
        // Before anything is changed: setting it up makes routes of these addresses, which setting it down leaves.
        own_addresses(&lo)?;
        links::change(&lo, &links::Changes::up(true)).or_fail("failed to set \"lo\" UP")?;
        let ips = own_addresses(&lo)?;
        Ok(passed_on.unwrap_or_else(|| CniResult {
            interfaces: vec![Interface::new(LO).with_mac("00:00:00:00:00:00").in_sandbox(call.sandbox())],
            ips,
            ..CniResult::default()
        }))
    }

    fn del(_: &Call) -> Result<(), Failure> {
        let Some(lo) = container_lo()? else { return Ok(()) };
        links::change(&lo, &links::Changes::up(false)).or_gone().or_fail("failed to set \"lo\" down").map(drop)
    }
}

impl Check for Loopback {
    fn check(_: &Call) -> Result<(), Failure> {
        let lo = host::require_container()?.link(LO).or_fail("failed to lookup \"lo\"")?;
        if lo.info()?.up { Ok(()) } else { Err(Failure::internal("loopback interface is down")) }
    }
}

/// `lo`, or nothing when the container is gone.
fn container_lo() -> Result<Option<Link>, HostError> {
    host::container().map_or(Ok(None), |netns| netns.link(LO).or_gone())
}

/// The addresses of `lo` for the result; none while it is down.
fn own_addresses(lo: &Link) -> Result<Vec<IpConfig>, Failure> {
    let present = addresses::get(lo).or_fail("could not list the addresses of \"lo\"")?;
    first_of_each_family(present.iter().map(|address| address.cidr.as_str()))
}

/// The first address of each family, as the reference reports them.
///
/// An address that is not of this machine's own would make whatever listens on "localhost" reachable from outside.
fn first_of_each_family<'a>(present: impl Iterator<Item = &'a str>) -> Result<Vec<IpConfig>, Failure> {
    let (mut v4, mut v6) = (None, None);
    for cidr in present {
        let address: sandwire_plugin::IpNet =
            cidr.parse().map_err(|_| Failure::internal(["\"lo\" has an address of no form: ", cidr].concat()))?;
        if !address.addr().is_loopback() {
            return Err(Failure::internal(format!(
                "loopback interface found with non-loopback address \"{}\"",
                address.addr()
            )));
        }
        let first = match address.addr() {
            IpAddr::V4(_) => &mut v4,
            IpAddr::V6(_) => &mut v6,
        };
        first.get_or_insert(address);
    }
    Ok(v4.into_iter().chain(v6).map(|address| IpConfig::new(address).on_interface(0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_of_each_family_is_reported() {
        let ips = first_of_each_family(["127.0.0.1/8", "127.0.0.2/8", "::1/128"].into_iter()).unwrap();
        let text: Vec<_> = ips.iter().map(|ip| (ip.interface, ip.address.to_string())).collect();
        assert_eq!(text, [(Some(0), "127.0.0.1/8".to_owned()), (Some(0), "::1/128".to_owned())]);
        assert!(first_of_each_family([].into_iter()).unwrap().is_empty());
    }

    #[test]
    fn an_address_of_the_outside_is_an_error() {
        let failure = first_of_each_family(["127.0.0.1/8", "10.1.2.3/8"].into_iter()).unwrap_err();
        assert_eq!(failure.msg, "loopback interface found with non-loopback address \"10.1.2.3\"");
    }
}
