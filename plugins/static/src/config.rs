//! The configuration: `ipam` of the network's, with what the runtime puts in its place.

use sandwire_plugin::{Dns, Failure, IpConfig, IpNet, Route, addr, ipam};
use serde::Deserialize;
use std::net::IpAddr;

/// Keys beside `ipam` count too: an address manager gets the whole configuration of the plugin that calls it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Network {
    cni_version: String,
    ipam: Option<Ipam>,
    runtime_config: Ips,
    args: Args,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Args {
    cni: Ips,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ips {
    ips: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ipam {
    addresses: Vec<Address>,
    routes: Vec<Route>,
    dns: Dns,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Address {
    address: String,
    #[serde(with = "addr::optional_ip")]
    gateway: Option<IpAddr>,
}

/// The configuration of a call, checked.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) ips: Vec<IpConfig>,
    pub(crate) routes: Vec<Route>,
    pub(crate) dns: Dns,
}

impl Config {
    /// `ip` and `gateway` are the keys of CNI_ARGS: addresses of its own, and gateways for these.
    ///
    /// # Errors
    /// The reference's texts (static/main.go, LoadIPAMConfig).
    pub(crate) fn load(text: &str, ip: Option<&str>, gateway: Option<&str>) -> Result<Self, Failure> {
        let network: Network = sandwire_plugin::parse(text)?;
        let Some(ipam) = network.ipam else { return Err(Failure::config("IPAM config missing 'ipam' key")) };

        // Those of CNI_ARGS are looked at even when others take their place, as in the reference.
        let mut asked = Vec::new();
        for ip in items(ip).map(str::trim) {
            asked.push(IpConfig::new(cidr(ip, "the 'ip' field is expected to be in CIDR notation, got:")?));
        }
        for item in items(gateway) {
            let gateway = addr::parse_ip(item.trim())
                .map_err(|_| Failure::config(["invalid gateway address: ", item].concat()))?;
            for ip in asked.iter_mut().filter(|ip| ip.address.contains(&gateway)) {
                ip.gateway = Some(gateway);
            }
        }

        let metadata = instead(&network.args.cni)?;
        let ips = match instead(&network.runtime_config)?.or(metadata) {
            Some(ips) => ips,
            None => {
                let mut ips = Vec::new();
                for Address { address, gateway } in ipam.addresses {
                    let address = cidr(&address, "the 'address' field is expected to be in CIDR notation, got:")?;
                    ips.push(IpConfig { gateway, ..IpConfig::new(address) });
                }
                ips.append(&mut asked);
                ips
            }
        };
        ipam::one_of_each_family(&network.cni_version, ips.iter().map(|ip| ip.address.addr().is_ipv4()))?;
        Ok(Self { ips, routes: ipam.routes, dns: ipam.dns })
    }
}

/// The parts of a value of CNI_ARGS; an empty one has none.
fn items(value: Option<&str>) -> impl Iterator<Item = &str> {
    value.filter(|text| !text.is_empty()).into_iter().flat_map(|text| text.split(','))
}

/// What takes the place of every other address, when there is any.
fn instead(given: &Ips) -> Result<Option<Vec<IpConfig>>, Failure> {
    const WHAT: &str = "an entry in the 'ips' field is NOT in CIDR notation, got:";
    let ips: Vec<IpConfig> =
        given.ips.iter().map(|ip| cidr(ip, WHAT).map(IpConfig::new)).collect::<Result<_, Failure>>()?;
    Ok(Some(ips).filter(|ips| !ips.is_empty()))
}

fn cidr(text: &str, what: &str) -> Result<IpNet, Failure> {
    addr::parse_cidr(text).map_err(|_| Failure::config([what, " '", text, "'"].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "address gateway" of each.
    fn ips(config: &str, ip: Option<&str>, gateway: Option<&str>) -> Result<Vec<String>, String> {
        let text = |ip: &IpConfig| match ip.gateway {
            Some(gateway) => format!("{} {gateway}", ip.address),
            None => ip.address.to_string(),
        };
        Config::load(config, ip, gateway)
            .map(|config| config.ips.iter().map(text).collect())
            .map_err(|failure| failure.msg)
    }

    const PLAIN: &str = r#"{"cniVersion": "1.0.0", "ipam": {"addresses": [{"address": "10.1.2.3/24", "gateway": "10.1.2.1"}, {"ADDRESS": "fd00::3/64", "gateway": ""}]}}"#;

    #[test]
    fn arguments_are_appended_and_their_gateways_are_theirs_alone() {
        assert_eq!(ips(PLAIN, None, None).unwrap(), ["10.1.2.3/24 10.1.2.1", "fd00::3/64"]);
        let more = ips(PLAIN, Some("10.1.2.9/24, fd00::9/64"), Some("10.1.2.254, fd00::1,10.9.9.9")).unwrap();
        assert_eq!(more, ["10.1.2.3/24 10.1.2.1", "fd00::3/64", "10.1.2.9/24 10.1.2.254", "fd00::9/64 fd00::1"]);
        assert_eq!(ips(PLAIN, Some(""), Some("")).unwrap().len(), 2);
    }

    #[test]
    fn metadata_and_the_runtime_take_the_place_of_all() {
        let config = |rest: &str| PLAIN.replacen('{', &format!("{{{rest},"), 1);
        let metadata = r#""args": {"cni": {"ips": ["10.8.0.2/16"]}}"#;
        let runtime = r#""runtimeConfig": {"IPs": ["10.7.0.2/16", "fd07::2/64"]}"#;
        assert_eq!(ips(&config(metadata), Some("10.1.2.9/24"), None).unwrap(), ["10.8.0.2/16"]);
        let both = format!("{metadata}, {runtime}");
        assert_eq!(ips(&config(&both), None, None).unwrap(), ["10.7.0.2/16", "fd07::2/64"]);
        for nothing in [r#""args": null"#, r#""args": {"cni": null}"#, r#""runtimeConfig": {"ips": []}"#] {
            assert_eq!(ips(&config(nothing), None, None).unwrap().len(), 2, "{nothing}");
        }
        // An address that is replaced is not looked at.
        let config = r#"{"args": {"cni": {"ips": ["10.8.0.2/16"]}}, "ipam": {"addresses": [{"address": "x"}]}}"#;
        assert_eq!(ips(config, None, None).unwrap(), ["10.8.0.2/16"]);
    }

    #[test]
    fn what_is_wrong_is_said_in_the_references_words() {
        for (config, ip, gateway, wanted) in [
            (r#"{"x": 1}"#, None, None, "IPAM config missing 'ipam' key"),
            (
                r#"{"ipam": {"addresses": [{"address": "10.1.2.3"}]}}"#,
                None,
                None,
                "the 'address' field is expected to be in CIDR notation, got: '10.1.2.3'",
            ),
            (
                r#"{"ipam": {"addresses": [{}]}}"#,
                None,
                None,
                "the 'address' field is expected to be in CIDR notation, got: ''",
            ),
            (PLAIN, Some("10.1.2.9"), None, "the 'ip' field is expected to be in CIDR notation, got: '10.1.2.9'"),
            (PLAIN, None, Some(" x"), "invalid gateway address:  x"),
            (
                r#"{"args": {"cni": {"ips": ["a"]}}, "ipam": {}}"#,
                None,
                None,
                "an entry in the 'ips' field is NOT in CIDR notation, got: 'a'",
            ),
            (
                r#"{"runtimeConfig": {"ips": ["b"]}, "ipam": {}}"#,
                None,
                None,
                "an entry in the 'ips' field is NOT in CIDR notation, got: 'b'",
            ),
            (
                r#"{"ipam": {"addresses": [{"address": "10.1.2.3/24"}, {"address": "10.1.2.4/24"}]}}"#,
                None,
                None,
                "CNI version  does not support more than 1 address per family",
            ),
            (
                r#"{"cniVersion": "0.2.0", "ipam": {"addresses": [{"address": "fd00::3/64"}]}}"#,
                Some("fd00::4/64"),
                None,
                "CNI version 0.2.0 does not support more than 1 address per family",
            ),
        ] {
            assert_eq!(ips(config, ip, gateway).unwrap_err(), wanted, "{config}");
        }
        let wrong = ips(r#"{"ipam": {"addresses": [{"address": "10.1.2.3/24", "gateway": "x"}]}}"#, None, None);
        assert!(wrong.unwrap_err().contains("invalid IP address: x"));
        assert_eq!(ips(r#"{"ipam": {}}"#, None, None).unwrap().len(), 0);
    }
}
