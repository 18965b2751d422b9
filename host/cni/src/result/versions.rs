//! Results in the shapes of all versions, to and from the newest. The rules are those of the Go library's `types/020`,
//! `types/040` and `types/100`: what a shape can't say is left out, except that 0.1.0 and 0.2.0 must have an address.

use super::{CniResult, Dns, Interface, IpConfig, Route};
use crate::go_json::{self, Json};
use crate::go_text::quote;
use crate::{Error, Family, Result, Version, addr};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

impl CniResult {
    /// Reads a result of the version that it declares, or else of `undeclared` (a plugin before 1.0.0 need not declare
    /// one: it answers in the configuration's).
    ///
    /// # Errors
    /// Code 6: no JSON, a version that does not exist, a value that does not fit.
    pub fn parse(text: &str, undeclared: Version) -> Result<Self> {
        Self::from_tree(Json::parse(text)?, undeclared)
    }

    /// [`CniResult::parse`] of text that may not be UTF-8.
    ///
    /// # Errors
    /// As there.
    pub fn parse_slice(text: &[u8], undeclared: Version) -> Result<Self> {
        Self::from_tree(Json::parse_slice(text)?, undeclared)
    }

    /// [`CniResult::parse`] of a tree.
    ///
    /// # Errors
    /// As there.
    pub fn from_tree(tree: Json, undeclared: Version) -> Result<Self> {
        let version = match declared_version(&tree)? {
            None => undeclared,
            Some(text) => Version::parse(text)
                .ok_or_else(|| Error::decode(format!("unsupported CNI result version {}", quote(text))))?,
        };
        Ok(match version.family() {
            Family::V02x => tree.decode::<Result02x>()?.into_newest(),
            Family::V04x => {
                let mut result: Self = tree.decode()?;
                for interface in &mut result.interfaces {
                    *interface = Interface {
                        name: std::mem::take(&mut interface.name),
                        mac: interface.mac.take(),
                        sandbox: interface.sandbox.take(),
                        ..Interface::default()
                    };
                }
                result
            }
            Family::V1x => tree.decode()?,
        })
    }

    /// The text that a plugin prints for a configuration of `version`: the Go library's, byte for byte, without a newline
    /// at the end.
    ///
    /// # Errors
    /// `cannot convert: no valid IP addresses`, code 999, for 0.1.0 and 0.2.0 when there is no address.
    pub fn to_json(&self, version: Version) -> Result<String> {
        let text = match version.family() {
            Family::V02x => go_json::to_string_indent(&Result02x::of(self, version)?),
            Family::V04x => go_json::to_string_indent(&Result04x::of(self, version)),
            Family::V1x => go_json::to_string_indent(&Result1x::of(self, version)),
        };
        Ok(text?)
    }
}

/// The version that a result declares; "" declares none.
///
/// # Errors
/// Code 6 when it is no string.
pub(crate) fn declared_version(result: &Json) -> Result<Option<&str>> {
    match result.get("cniVersion") {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(Error::decode("json: cniVersion of a result is no string")),
    }
}

/// 0.1.0 and 0.2.0: at most one address of each family, with its own routes.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename = "types020.Result")]
struct Result02x {
    #[serde(rename = "cniVersion", skip_deserializing)]
    version: Option<Version>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip4: Option<Ip02x>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip6: Option<Ip02x>,
    dns: Dns,
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "types020.IPConfig")]
struct Ip02x {
    #[serde(with = "addr::cidr")]
    ip: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "addr::optional_ip")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
}

impl Result02x {
    fn of(result: &CniResult, version: Version) -> Result<Self> {
        let first = |v4: bool| {
            let ip = result.ips.iter().find(|ip| is_v4(ip.address) == v4)?;
            let routes = result.routes.iter().filter(|route| is_v4(route.dst) == v4);
            let routes = routes.map(|route| Route { gw: route.gw, ..Route::new(route.dst) }).collect();
            Some(Ip02x { ip: ip.address, gateway: ip.gateway, routes })
        };
        let (ip4, ip6) = (first(true), first(false));
        if ip4.is_none() && ip6.is_none() {
            return Err(Error::internal("cannot convert: no valid IP addresses"));
        }
        Ok(Self { version: Some(version), ip4, ip6, dns: result.dns.clone() })
    }

    fn into_newest(self) -> CniResult {
        let mut result = CniResult { dns: self.dns, ..CniResult::default() };
        for ip in [self.ip4, self.ip6].into_iter().flatten() {
            result.ips.push(IpConfig { interface: None, address: ip.ip, gateway: ip.gateway });
            result.routes.extend(ip.routes);
        }
        result
    }
}

fn is_v4(net: IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

/// 0.3.0 to 0.4.0, only for writing: reading needs nothing that the newest shape does not have. Unlike 1.x these have `dns`
/// even when it is empty.
#[derive(Serialize)]
struct Result04x<'a> {
    #[serde(rename = "cniVersion")]
    version: Version,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<Interface04x<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ips: Vec<Ip04x<'a>>,
    // The Go library has one type of route for all versions, so what 1.1.0 added is written here too.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    routes: &'a [Route],
    dns: &'a Dns,
}

#[derive(Serialize)]
struct Interface04x<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<&'a str>,
}

#[derive(Serialize)]
struct Ip04x<'a> {
    version: &'static str,
    #[serde(flatten)]
    ip: &'a IpConfig,
}

impl<'a> Result04x<'a> {
    fn of(result: &'a CniResult, version: Version) -> Self {
        let interface = |interface: &'a Interface| Interface04x {
            name: &interface.name,
            mac: interface.mac.as_deref(),
            sandbox: interface.sandbox.as_deref(),
        };
        let ip = |ip: &'a IpConfig| Ip04x { version: if is_v4(ip.address) { "4" } else { "6" }, ip };
        Self {
            version,
            interfaces: result.interfaces.iter().map(interface).collect(),
            ips: result.ips.iter().map(ip).collect(),
            routes: &result.routes,
            dns: &result.dns,
        }
    }
}

/// 1.x. The Go library sends it through a map to be able to leave `dns` out, and maps are written in the order of their keys: the
/// fields of what follows are in that order.
#[derive(Serialize)]
struct Result1x<'a> {
    #[serde(rename = "cniVersion")]
    version: Version,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<Dns1x<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<Interface1x<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ips: Vec<Ip1x>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route1x>,
}

#[derive(Serialize)]
struct Dns1x<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    domain: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    nameservers: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    options: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    search: &'a [String],
}

#[derive(Serialize)]
struct Interface1x<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    name: &'a str,
    #[serde(rename = "pciID", skip_serializing_if = "Option::is_none")]
    pci_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<&'a str>,
    #[serde(rename = "socketPath", skip_serializing_if = "Option::is_none")]
    socket_path: Option<&'a str>,
}

#[derive(Serialize)]
struct Ip1x {
    #[serde(with = "addr::cidr")]
    address: IpNet,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<u32>,
}

#[derive(Serialize)]
struct Route1x {
    #[serde(skip_serializing_if = "Option::is_none")]
    advmss: Option<u32>,
    #[serde(with = "addr::cidr")]
    dst: IpNet,
    #[serde(skip_serializing_if = "Option::is_none")]
    gw: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<u32>,
}

impl<'a> Result1x<'a> {
    fn of(result: &'a CniResult, version: Version) -> Self {
        // Every field by its name: one that is added to a result must not be forgotten here.
        let CniResult { interfaces, ips, routes, dns } = result;
        let interface = |interface: &'a Interface| {
            let Interface { name, mac, mtu, sandbox, socket_path, pci_id } = interface;
            Interface1x {
                mac: mac.as_deref(),
                mtu: *mtu,
                name,
                pci_id: pci_id.as_deref(),
                sandbox: sandbox.as_deref(),
                socket_path: socket_path.as_deref(),
            }
        };
        let ip = |IpConfig { interface, address, gateway }: &IpConfig| Ip1x {
            address: *address,
            gateway: *gateway,
            interface: *interface,
        };
        let route = |Route { dst, gw, mtu, advmss, priority, table, scope }: &Route| Route1x {
            advmss: *advmss,
            dst: *dst,
            gw: *gw,
            mtu: *mtu,
            priority: *priority,
            scope: *scope,
            table: *table,
        };
        let Dns { nameservers, domain, search, options } = dns;
        Self {
            version,
            dns: (!dns.is_empty()).then_some(Dns1x { domain, nameservers, options, search }),
            interfaces: interfaces.iter().map(interface).collect(),
            ips: ips.iter().map(ip).collect(),
            routes: routes.iter().map(route).collect(),
        }
    }
}
