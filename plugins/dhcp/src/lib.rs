//! Gives the address that a DHCP server has for the container.
//!
//! Keys and messages: containernetworking/plugins, plugins/ipam/dhcp. Its daemon is not needed: the host speaks the
//! protocol (RFC 2131), keeps the lease and renews it (`dhcp`). This says what is asked for, and what the answer means.

mod config;
mod options;

use config::Config;
use options::{CLASSLESS_ROUTES, ROUTERS, STATIC_ROUTES, SUBNET_MASK, Unreadable};
use sandwire_plugin::host::dhcp::{self, Lease};
use sandwire_plugin::{Call, Check, CniResult, Failure, IpConfig, IpNet, NetworkCall, Plugin, Route, Status, addr};
use std::net::IpAddr;

struct Dhcp;

sandwire_plugin::export!(Dhcp: check, status);

fn load(call: &Call) -> Result<Config, Failure> {
    Config::load(call.config_text(), call.all_args())
}

impl Plugin for Dhcp {
    /// A lease that can't be used fails the call, and the host gives it back.
    fn add(call: &Call) -> Result<CniResult, Failure> {
        let config = load(call)?;
        result(&dhcp::acquire(&config.send, &config.ask)?, config.priority)
    }

    /// Reads no configuration: one that was broken since ADD must not keep the address.
    fn del(_: &Call) -> Result<(), Failure> {
        dhcp::release()?;
        Ok(())
    }
}

impl Check for Dhcp {
    /// The reference asks for a new lease when it has none, which the container's interface doesn't know of.
    fn check(call: &Call) -> Result<(), Failure> {
        load(call)?;
        let given = call.prev_result()?.map(|result| result.ips).unwrap_or_default();
        still_leased(dhcp::held()?.as_ref(), &given).map_err(|why| {
            let (id, ifname) = (call.container_id(), call.ifname());
            Failure::internal(format!("dhcp: {ifname:?} of container {id} {why}")).with_details(
                "a lease ends unless `sandwirectl repair` runs in time to renew it; let a timer run it more often, and attach \
                 the container again",
            )
        })
    }
}

impl Status for Dhcp {
    fn status(call: &NetworkCall) -> Result<(), Failure> {
        Config::load(call.config_text(), &[]).map(drop)
    }
}

/// What is wrong otherwise. prevResult may have addresses that others gave, so the lease's has to be one of them.
fn still_leased(held: Option<&Lease>, given: &[IpConfig]) -> Result<(), String> {
    let address = &held.ok_or("has no lease any more")?.address;
    let given: Vec<String> = given.iter().map(|ip| ip.address.addr().to_string()).collect();
    if given.is_empty() || given.contains(address) {
        return Ok(());
    }
    Err(format!("has the lease of {address}, and {} in prevResult", given.join(", ")))
}

/// What the reference makes of an answer (dhcp/daemon.go, Allocate; dhcp/lease.go, IPNet to Routes). Its bytes are a
/// stranger's.
fn result(lease: &Lease, priority: Option<u32>) -> Result<CniResult, Failure> {
    let gateway = read(lease, ROUTERS, options::first_router)?.flatten();
    let mut routes = read(lease, CLASSLESS_ROUTES, options::classless_routes)?.unwrap_or_default();
    // A server with option 121 says all routes there: the others are for clients that don't know it (RFC 3442).
    if routes.is_empty() {
        routes = option(lease, STATIC_ROUTES).map(options::static_routes).unwrap_or_default();
        // The specification wants the default route said, though the address has its gateway.
        routes.extend(gateway.map(|gateway| Route::new(IpNet::default()).via(gateway.into())));
    }
    routes.iter_mut().for_each(|route| route.priority = priority);
    let ip = IpConfig { gateway: gateway.map(IpAddr::V4), ..IpConfig::new(address(lease)?) };
    Ok(CniResult { ips: vec![ip], routes, ..CniResult::default() })
}

/// The address with the length of option 1; there is no subnet to guess without it.
fn address(lease: &Lease) -> Result<IpNet, Failure> {
    let missing = |why: &str| {
        Failure::internal("DHCP option Subnet Mask not found in DHCPACK").with_details(format!(
            "the DHCP server {} gave {} {why}; it has to send option 1 (subnet mask, RFC 2132, 3.3), and \"request\" has \
             to ask for it, with \"subnet-mask\" if an entry has \"skipDefault\"",
            lease.server, lease.address
        ))
    };
    let mask = option(lease, SUBNET_MASK).ok_or_else(|| missing("without it"))?;
    // As the reference, whose library takes a mask of another size for none.
    let mask = mask.try_into().map_err(|_| missing(&format!("with one of {} bytes, not 4", mask.len())))?;
    let length = options::prefix_length(mask).map_err(|why| unreadable(lease, SUBNET_MASK, &why))?;
    let net = [lease.address.as_str(), "/", &length.to_string()].concat();
    Ok(addr::parse_cidr(&net)?)
}

fn option(lease: &Lease, code: u8) -> Option<&[u8]> {
    lease.settings.iter().find(|setting| setting.code == code).map(|setting| setting.value.as_slice())
}

fn read<T>(lease: &Lease, code: u8, as_what: fn(&[u8]) -> Result<T, Unreadable>) -> Result<Option<T>, Failure> {
    option(lease, code).map(as_what).transpose().map_err(|why| unreadable(lease, code, &why))
}

fn unreadable(lease: &Lease, code: u8, Unreadable(why): &Unreadable) -> Failure {
    let Lease { address, server, .. } = lease;
    Failure::internal(format!("could not use the lease of {address}: DHCP option {code} can't be read: {why}"))
        .with_details(format!("correct option {code} at the DHCP server {server}"))
}

#[cfg(test)]
mod tests;
