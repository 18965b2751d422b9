//! The configuration: `ipam` of the network's, with what the runtime adds to it.

use crate::ranges::{self, RangeConfig, RangeSet};
use sandwire_plugin::{Failure, IpNet, Route, addr, ipam};
use serde::{Deserialize, Deserializer};
use std::net::IpAddr;

/// Keys beside `ipam` count too: an address manager gets the whole configuration of the plugin that calls it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Network {
    cni_version: String,
    ipam: Option<Ipam>,
    runtime_config: RuntimeConfig,
    args: Args,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RuntimeConfig {
    /// Ranges that go before the configuration's own.
    ip_ranges: Vec<Vec<RangeConfig>>,
    ips: Vec<Requested>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Args {
    cni: CniArgs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CniArgs {
    ips: Vec<Requested>,
}

/// `subnet` to `gateway` are the form from before there were `ranges`. Not flattened from [`RangeConfig`]: flattening hides
/// the keys' names, and then they match with their exact case only.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Ipam {
    routes: Vec<Route>,
    data_dir: String,
    resolv_conf: String,
    ranges: Vec<Vec<RangeConfig>>,
    #[serde(deserialize_with = "cidr")]
    subnet: Option<IpNet>,
    #[serde(with = "addr::optional_ip")]
    range_start: Option<IpAddr>,
    #[serde(with = "addr::optional_ip")]
    range_end: Option<IpAddr>,
    #[serde(with = "addr::optional_ip")]
    gateway: Option<IpAddr>,
}

/// Where the leases are: all that DEL and GC read. What else is wrong with a configuration is no reason to keep an
/// address. None for the default.
pub(crate) fn data_dir(text: &str) -> Option<String> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Ipam {
        data_dir: String,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Network {
        ipam: Ipam,
    }
    said(sandwire_plugin::parse::<Network>(text).unwrap_or_default().ipam.data_dir)
}

fn said(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// An address that somebody asked for, "10.1.2.3" or "10.1.2.3/24"; the length of its prefix is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Requested(Option<IpAddr>);

impl Requested {
    fn parse(text: &str) -> Result<Self, String> {
        let ip = match text {
            "" => None,
            cidr if cidr.contains('/') => addr::parse_cidr(cidr).ok().map(|net| net.addr()),
            ip => addr::parse_ip(ip).ok(),
        };
        if ip.is_none() && !text.is_empty() { Err(format!("invalid IP address {text}")) } else { Ok(Self(ip)) }
    }
}

impl<'de> Deserialize<'de> for Requested {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// `subnet`: absent or null is none, but "" is an error, as in Go's `types.IPNet`.
pub(crate) fn cidr<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpNet>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| addr::parse_cidr(&text).map_err(serde::de::Error::custom)).transpose()
}

/// The configuration of a call, checked.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) data_dir: Option<String>,
    pub(crate) resolv_conf: Option<String>,
    pub(crate) routes: Vec<Route>,
    /// One address is given from each.
    pub(crate) ranges: Vec<RangeSet>,
    /// Addresses that were asked for, by CNI_ARGS, `args.cni.ips` and `runtimeConfig.ips` in this order.
    pub(crate) requested: Vec<IpAddr>,
}

impl Config {
    /// `ip` is the key IP of CNI_ARGS.
    ///
    /// # Errors
    /// The reference's texts (allocator/config.go, LoadIPAMConfig).
    pub(crate) fn load(text: &str, ip: Option<&str>) -> Result<Self, Failure> {
        let network: Network = sandwire_plugin::parse(text)?;
        let Some(ipam) = network.ipam else { return Err(Failure::config("IPAM config missing 'ipam' key")) };

        let from_args = ip.map(|ip| {
            let wrong = |why| Failure::config(format!("ARGS: error parsing value of pair \"IP={ip}\": {why}"));
            Requested::parse(ip).map_err(wrong)
        });
        // `IP=` asks for nothing; an empty text in a list is a mistake.
        let from_args = from_args.transpose()?.and_then(|requested| requested.0);
        let mut requested: Vec<IpAddr> = from_args.into_iter().collect();
        for ip in network.args.cni.ips.into_iter().chain(network.runtime_config.ips) {
            requested.push(ip.0.ok_or_else(|| Failure::config("cannot understand ip: IP <nil> not v4 nor v6"))?);
        }

        let mut sets = network.runtime_config.ip_ranges;
        if ipam.subnet.is_some() {
            let Ipam { subnet, range_start, range_end, gateway, .. } = ipam;
            sets.push(vec![RangeConfig { subnet, range_start, range_end, gateway }]);
        }
        sets.extend(ipam.ranges);
        if sets.is_empty() {
            return Err(Failure::config("no IP ranges specified"));
        }
        let ranges = ranges::sets(&sets)?;
        ipam::one_of_each_family(&network.cni_version, ranges.iter().map(RangeSet::is_ipv4))?;
        let (data_dir, resolv_conf) = (said(ipam.data_dir), said(ipam.resolv_conf));
        Ok(Self { data_dir, resolv_conf, routes: ipam.routes, ranges, requested })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(config: &str) -> Result<Config, String> {
        Config::load(config, None).map_err(|failure| failure.msg)
    }

    #[test]
    fn ranges_of_every_source_in_order() {
        let config = load(
            r#"{"cniVersion": "0.3.1", "runtimeConfig": {"IPRANGES": [[{"subnet": "10.3.0.0/24"}]]},
                "ipam": {"ranges": [[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd00::/64"}]],
                         "subnet": "10.1.0.0/24", "rangestart": "10.1.0.9", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.7"}]}}"#,
        )
        .unwrap();
        let text: Vec<String> = config.ranges.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            ["10.3.0.1-10.3.0.254", "10.1.0.9-10.1.0.254", "10.2.0.1-10.2.0.254", "fd00::1-fd00::ffff:ffff:ffff:ffff"]
        );
        assert_eq!((config.routes.len(), config.resolv_conf, config.data_dir), (1, None, None));
        // The old form counts only with a subnet.
        assert_eq!(
            load(r#"{"ipam": {"gateway": "10.0.0.1", "rangeStart": "10.0.0.2"}}"#).unwrap_err(),
            "no IP ranges specified"
        );
    }

    #[test]
    fn requested_addresses_of_every_source() {
        let config = Config::load(
            r#"{"args": {"cni": {"ips": ["10.0.0.9/24"]}}, "runtimeConfig": {"ips": ["10.0.0.8", "fd00::1/64"]},
                "ipam": {"subnet": "10.0.0.0/24"}}"#,
            Some("10.0.0.7/30"),
        );
        let text: Vec<String> = config.unwrap().requested.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["10.0.0.7", "10.0.0.9", "10.0.0.8", "fd00::1"]);
        let plain = r#"{"ipam": {"subnet": "10.0.0.0/24"}}"#;
        assert!(Config::load(plain, Some("")).unwrap().requested.is_empty());
        let wrong = Config::load(plain, Some("foo")).unwrap_err();
        assert_eq!(wrong.msg, r#"ARGS: error parsing value of pair "IP=foo": invalid IP address foo"#);
    }

    #[test]
    fn what_is_wrong_is_said_in_the_references_words() {
        for (config, wanted) in [
            (r#"{"x": 1}"#, "IPAM config missing 'ipam' key"),
            (r#"{"ipam": null}"#, "IPAM config missing 'ipam' key"),
            (r#"{"ipam": {}}"#, "no IP ranges specified"),
            (r#"{"ipam": {"ranges": []}}"#, "no IP ranges specified"),
            (r#"{"ipam": {"ranges": [[]]}}"#, "invalid range set 0: empty range set"),
            (r#"{"ipam": {"subnet": ""}}"#, "invalid CIDR address: "),
            (r#"{"ipam": {"subnet": "10.0.0.0"}}"#, "invalid CIDR address: 10.0.0.0"),
            (r#"{"ipam": {"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.300"}}"#, "invalid IP address: 10.0.0.300"),
            (r#"{"args": {"cni": {"ips": ["foo"]}}, "ipam": {"subnet": "10.0.0.0/24"}}"#, "invalid IP address foo"),
            (
                r#"{"args": {"cni": {"ips": [""]}}, "ipam": {"subnet": "10.0.0.0/24"}}"#,
                "cannot understand ip: IP <nil> not v4 nor v6",
            ),
            (
                r#"{"ipam": {"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.1.0.0/24"}]]}}"#,
                "CNI version  does not support more than 1 address per family",
            ),
            (
                r#"{"cniVersion": "0.2.0", "ipam": {"ranges": [[{"subnet": "fd00::/64"}], [{"subnet": "fd01::/64"}]]}}"#,
                "CNI version 0.2.0 does not support more than 1 address per family",
            ),
        ] {
            assert_eq!(load(config).unwrap_err(), wanted, "{config}");
        }
        assert!(load(r#"{"cniVersion": "0.2.0", "ipam": {"ranges": [[{"subnet": "fd00::/64"}], [{"subnet": "10.1.0.0/24"}]]}}"#).is_ok());
    }

    #[test]
    fn del_reads_only_where_the_leases_are() {
        assert_eq!(data_dir(r#"{"ipam": {"DataDir": "/x", "ranges": "broken"}}"#).unwrap(), "/x");
        for config in ["", "null", r#"{"ipam": 3}"#, r#"{"ipam": {"dataDir": ""}}"#, "{}"] {
            assert_eq!(data_dir(config), None, "{config}");
        }
    }
}
