//! The result of ADD, in its newest shape. Plugins compute in it whatever the configuration's version is; the versions'
//! own shapes exist only in [`versions`].

mod versions;

pub(crate) use versions::declared_version;

use crate::{Error, Result, addr};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use std::net::IpAddr;

/// What ADD made, as spec 1.1.0 has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "types100.Result")]
pub struct CniResult {
    /// Interfaces, on the host and in the container; addresses refer to them by their place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Addresses of the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpConfig>,
    /// Routes of the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// What the container's resolver should use.
    #[serde(skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
}

/// An interface that ADD made or found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "types100.Interface")]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address, as text.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "filled")]
    pub mac: Option<String>,
    /// Its MTU in bytes, since 1.1.0.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nonzero")]
    pub mtu: Option<u32>,
    /// Where it is: CNI_NETNS as the runtime wrote it, none on the host.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "filled")]
    pub sandbox: Option<String>,
    /// An absolute path of its socket (vhost-user), since 1.1.0.
    #[serde(rename = "socketPath", skip_serializing_if = "Option::is_none", deserialize_with = "filled")]
    pub socket_path: Option<String>,
    /// Its PCI device, since 1.1.0.
    #[serde(rename = "pciID", skip_serializing_if = "Option::is_none", deserialize_with = "filled")]
    pub pci_id: Option<String>,
}

/// An address that the container has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "types100.IPConfig")]
pub struct IpConfig {
    /// Place of its interface in [`CniResult::interfaces`]. An address manager knows none, and some write -1 for that.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "place")]
    pub interface: Option<u32>,
    /// The address with the length of its prefix; the host's bits are kept.
    #[serde(with = "addr::cidr")]
    pub address: IpNet,
    /// The gateway of its subnet.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "addr::optional_ip")]
    pub gateway: Option<IpAddr>,
}

/// A route that the container has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "types.Route")]
pub struct Route {
    /// Destination.
    #[serde(with = "addr::cidr")]
    pub dst: IpNet,
    /// Next hop; none means the first gateway of the destination's family among the addresses.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "addr::optional_ip")]
    pub gw: Option<IpAddr>,
    /// MTU of the path in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "nonzero")]
    pub mtu: Option<u32>,
    /// Segment size that TCP advertises, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "nonzero")]
    pub advmss: Option<u32>,
    /// The kernel's metric; lower is preferred.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "nonzero")]
    pub priority: Option<u32>,
    /// Routing table; none is the main one. Table 0 is kept: Go has a pointer here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// The kernel's scope: 0 universe, 253 link, 254 host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u32>,
}

/// What a resolver should use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "types.DNS")]
pub struct Dns {
    /// Name servers' addresses, in order of preference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Domains to search, in order of preference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options for the resolver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// Go's `omitempty` makes no difference between absent and "".
fn filled<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

/// Go has a pointer to an int here, and no plugin looks for an interface below 0.
fn place<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let given = Option::<i64>::deserialize(deserializer)?;
    Ok(given.and_then(|place| u32::try_from(place).ok()))
}

/// Nor between absent and 0.
fn nonzero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Ok(Option::<u32>::deserialize(deserializer)?.filter(|number| *number != 0))
}

impl CniResult {
    /// The same with one more interface.
    #[must_use]
    pub fn with_interface(mut self, interface: Interface) -> Self {
        self.interfaces.push(interface);
        self
    }

    /// The same with these interfaces instead of its own.
    #[must_use]
    pub fn with_interfaces(mut self, interfaces: impl IntoIterator<Item = Interface>) -> Self {
        self.interfaces = interfaces.into_iter().collect();
        self
    }

    /// The same with one more address.
    #[must_use]
    pub fn with_ip(mut self, ip: IpConfig) -> Self {
        self.ips.push(ip);
        self
    }

    /// The same with one more route.
    #[must_use]
    pub fn with_route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// The same with `dns` instead of its own, if there is one: what [`Dns::said`] reads.
    #[must_use]
    pub fn with_dns(mut self, dns: Option<Dns>) -> Self {
        self.dns = dns.unwrap_or(self.dns);
        self
    }

    /// The same with every address on the interface at `index`: an address manager's answer becomes the plugin's own.
    #[must_use]
    pub fn with_ips_on(mut self, index: u32) -> Self {
        self.ips.iter_mut().for_each(|ip| ip.interface = Some(index));
        self
    }

    /// The result, if it has an address.
    ///
    /// # Errors
    /// `IPAM plugin returned missing IP config`, code 999, as the reference's plugins say.
    pub fn require_addresses(self) -> Result<Self> {
        if self.ips.is_empty() { Err(Error::internal("IPAM plugin returned missing IP config")) } else { Ok(self) }
    }

    /// All addresses with their prefixes.
    pub fn addresses(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.ips.iter().map(|ip| ip.address)
    }

    /// The container's interface of this name, with its place. Host interfaces may have the same name, so only one with a
    /// sandbox counts.
    pub fn container_interface(&self, ifname: &str) -> Option<(u32, &Interface)> {
        let mut places = (0u32..).zip(&self.interfaces);
        places.find(|(_, interface)| interface.name == ifname && interface.sandbox.is_some())
    }

    /// The addresses on the interface at this place.
    pub fn ips_on(&self, index: u32) -> impl Iterator<Item = &IpConfig> {
        self.ips.iter().filter(move |ip| ip.interface == Some(index))
    }

    /// Where a route goes that names no next hop: the first gateway of its destination's family.
    pub fn gateway_for(&self, route: &Route) -> Option<IpAddr> {
        let v4 = matches!(route.dst, IpNet::V4(_));
        route.gw.or_else(|| self.ips.iter().filter_map(|ip| ip.gateway).find(|gateway| gateway.is_ipv4() == v4))
    }
}

impl Interface {
    /// An interface on the host.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The same with this hardware address.
    #[must_use]
    pub fn with_mac(mut self, mac: impl Into<String>) -> Self {
        self.mac = Some(mac.into()).filter(|mac| !mac.is_empty());
        self
    }

    /// The same with this MTU; 0 is none.
    #[must_use]
    pub fn with_mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu).filter(|mtu| *mtu != 0);
        self
    }

    /// The same in a container; "" is the host.
    #[must_use]
    pub fn in_sandbox(mut self, sandbox: impl Into<String>) -> Self {
        self.sandbox = Some(sandbox.into()).filter(|sandbox| !sandbox.is_empty());
        self
    }
}

impl IpConfig {
    /// An address on no known interface.
    pub fn new(address: IpNet) -> Self {
        Self { interface: None, address, gateway: None }
    }

    /// The same with this gateway.
    #[must_use]
    pub fn with_gateway(mut self, gateway: IpAddr) -> Self {
        self.gateway = Some(gateway);
        self
    }

    /// The same on the interface at `index`.
    #[must_use]
    pub fn on_interface(mut self, index: u32) -> Self {
        self.interface = Some(index);
        self
    }
}

impl Route {
    /// A route without a next hop of its own.
    pub fn new(dst: IpNet) -> Self {
        Self { dst, gw: None, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }

    /// The same by this next hop.
    #[must_use]
    pub fn via(mut self, gw: IpAddr) -> Self {
        self.gw = Some(gw);
        self
    }
}

impl Dns {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The key `dns` of a configuration (`deserialize_with`): none if it says nothing, and address management's counts.
    ///
    /// A list that is there says something though it is empty: so an operator switches address management's off (the
    /// reference's `dnsConfSet`, which looks for nil).
    ///
    /// # Errors
    /// What does not fit.
    pub fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename = "types.DNS")]
        struct Said {
            nameservers: Option<Vec<String>>,
            domain: String,
            search: Option<Vec<String>>,
            options: Option<Vec<String>>,
        }
        let Said { nameservers, domain, search, options } = Said::deserialize(deserializer)?;
        let silent = domain.is_empty() && [&nameservers, &search, &options].into_iter().all(Option::is_none);
        let [nameservers, search, options] = [nameservers, search, options].map(Option::unwrap_or_default);
        Ok(Some(Self { nameservers, domain, search, options }).filter(|_| !silent))
    }
}

#[cfg(test)]
mod tests;
