//! A result onto an interface: what `ipam.ConfigureIface` is to the reference plugins.

use crate::bindings::imports::sandwire::cni::{configure, types};
use crate::host::{self, links, namespaces::Link};
use crate::{Call, CniResult, Failure, Ipam, OrFail, OrGone, Route};

/// Whether IPv6 addresses are probed for duplicates (RFC 4862, 5.4) before they can be used, which takes a second or
/// two. An address manager gives each address once, so most plugins skip it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplicates {
    /// Usable at once.
    Trust,
    /// Tentative until probed; wait with `host::wait::addresses`.
    Probe,
}

/// Gives `link`, which is `ifname` of the result, its addresses, sets it up and adds the result's routes, in one call.
///
/// Addresses without an interface index are someone else's. A route without gateway goes through the first gateway of
/// its family, if there is one; table, scope, priority, mtu and advmss are kept (the reference loses the last two).
///
/// # Errors
/// The reference's texts when the result has no interfaces or an address belongs to another interface; the host's.
pub fn apply(link: &Link, ifname: &str, result: &CniResult, duplicates: Duplicates) -> Result<(), Failure> {
    Plan::of(ifname, result, duplicates)?.apply(link, ifname)
}

/// What [`apply`] gives an interface, for a plugin that wants some of it otherwise.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// In the order of the result.
    pub addresses: Vec<types::Address>,
    /// In the order in which they are added: a gateway must be reachable by those before.
    pub routes: Vec<types::Route>,
}

impl Plan {
    /// What the result says of the interface.
    ///
    /// # Errors
    /// As [`apply`].
    pub fn of(ifname: &str, result: &CniResult, duplicates: Duplicates) -> Result<Self, Failure> {
        plan(ifname, result, duplicates)
    }

    /// Gives `link` the addresses, sets it up and adds the routes, in one call.
    ///
    /// # Errors
    /// The host's.
    pub fn apply(&self, link: &Link, ifname: &str) -> Result<(), Failure> {
        configure::apply(link, &self.addresses, &self.routes).or_fail(["failed to configure \"", ifname, "\""].concat())
    }
}

fn plan(ifname: &str, result: &CniResult, duplicates: Duplicates) -> Result<Plan, Failure> {
    if result.interfaces.is_empty() {
        return Err(Failure::internal("no interfaces to configure"));
    }
    let mut addresses = Vec::with_capacity(result.ips.len());
    for ip in &result.ips {
        let Some(index) = ip.interface else { continue };
        let owner = usize::try_from(index).ok().and_then(|index| result.interfaces.get(index));
        if owner.is_none_or(|interface| interface.name != ifname) {
            return Err(Failure::internal(format!(
                "failed to add IP addr {} to {ifname:?}: invalid interface index",
                ip.address
            )));
        }
        let mut address = types::Address::new(ip.address.to_string());
        address.no_dad = duplicates == Duplicates::Trust;
        addresses.push(address);
    }
    let routes = result.routes.iter().map(|route| wanted(route, result)).collect::<Result<_, _>>()?;
    Ok(Plan { addresses, routes })
}

fn wanted(route: &Route, result: &CniResult) -> Result<types::Route, Failure> {
    let scope = route.scope.map(u8::try_from).transpose().map_err(|_| {
        Failure::config(format!(
            "route to {} has the scope {}; the kernel's are 0 to 255",
            route.dst,
            route.scope.unwrap_or(0)
        ))
    })?;
    let numbers = [("mtu", route.mtu), ("advmss", route.advmss)];
    Ok(types::Route {
        dst: route.dst.to_string(),
        via: result.gateway_for(route).map(|gateway| gateway.to_string()),
        src: None,
        scope,
        table: route.table,
        priority: route.priority,
        extra: numbers.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_string()))).collect(),
    })
}

/// DEL of a plugin that gives the container an interface: removes it and has the addresses released, each whatever becomes of the
/// other. Nothing else of the configuration is asked for: what the interface rode on may be gone.
///
/// # Errors
/// Of both the first.
pub fn detach(call: &Call, ipam: Result<Ipam, Failure>) -> Result<(), Failure> {
    let unlinked = remove(call.ifname());
    let released = ipam.and_then(|ipam| ipam.del(call));
    unlinked.and(released)
}

/// Removes the container's interface. The kernel has done it when the namespace is gone, or what the interface rode on.
///
/// # Errors
/// When it can't be removed.
fn remove(ifname: &str) -> Result<(), Failure> {
    let Some(container) = host::container() else { return Ok(()) };
    let context = || ["failed to delete \"", ifname, "\""].concat();
    let Some(link) = container.link(ifname).or_gone().or_fail(context())? else { return Ok(()) };
    links::remove(&link).or_gone().or_fail(context()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(json: &str) -> CniResult {
        crate::go_json::from_str(json).unwrap()
    }

    const INTERFACES: &str = r#""interfaces":[{"name":"veth0"},{"name":"eth0","sandbox":"/n"}]"#;

    #[test]
    fn addresses_of_nobody_are_skipped_and_routes_take_the_first_gateway_of_their_family() {
        let given = result(&format!(
            r#"{{{INTERFACES},"ips":[{{"address":"10.1.9.9/24"}},
                {{"address":"10.1.2.5/24","gateway":"10.1.2.1","interface":1}},
                {{"address":"fd00::5/64","gateway":"fd00::1","interface":1}}],
                "routes":[{{"dst":"0.0.0.0/0"}},{{"dst":"::/0"}},
                {{"dst":"10.9.0.0/16","gw":"10.1.2.7","mtu":1400,"advmss":1300,"priority":7,"table":100,"scope":253}}]}}"#
        ));
        let plan = plan("eth0", &given, Duplicates::Trust).unwrap();
        let cidrs: Vec<_> = plan.addresses.iter().map(|a| (a.cidr.as_str(), a.no_dad)).collect();
        assert_eq!(cidrs, [("10.1.2.5/24", true), ("fd00::5/64", true)]);
        let [v4, v6, own] = plan.routes.as_slice() else { panic!("{:?}", plan.routes) };
        assert_eq!((v4.via.as_deref(), v6.via.as_deref()), (Some("10.1.2.1"), Some("fd00::1")));
        assert_eq!(
            (own.via.as_deref(), own.scope, own.table, own.priority),
            (Some("10.1.2.7"), Some(253), Some(100), Some(7))
        );
        assert_eq!(own.extra, [("mtu".to_owned(), "1400".to_owned()), ("advmss".to_owned(), "1300".to_owned())]);
    }

    #[test]
    fn an_address_of_another_interface_is_an_error() {
        for index in ["0", "7"] {
            let given = result(&format!(r#"{{{INTERFACES},"ips":[{{"address":"10.1.2.5/24","interface":{index}}}]}}"#));
            let failure = plan("eth0", &given, Duplicates::Trust).err().unwrap();
            assert_eq!(failure.msg, "failed to add IP addr 10.1.2.5/24 to \"eth0\": invalid interface index");
        }
        let failure = plan("eth0", &CniResult::default(), Duplicates::Probe).err().unwrap();
        assert_eq!(failure.msg, "no interfaces to configure");
    }

    #[test]
    fn a_scope_that_no_kernel_has_is_an_error() {
        let given = result(&format!(r#"{{{INTERFACES},"routes":[{{"dst":"10.9.0.0/16","scope":256}}]}}"#));
        assert_eq!(plan("eth0", &given, Duplicates::Trust).err().unwrap().code, crate::code::INVALID_CONFIG);
    }
}
