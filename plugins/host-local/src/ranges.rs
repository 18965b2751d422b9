//! Which addresses a configuration allows: ranges of subnets, in sets of which each gives one address.

use sandwire_plugin::host::leases;
use sandwire_plugin::{Failure, IpConfig, IpNet};
use serde::Deserialize;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range as the configuration says it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RangeConfig {
    #[serde(deserialize_with = "crate::config::cidr")]
    pub(crate) subnet: Option<IpNet>,
    #[serde(with = "sandwire_plugin::addr::optional_ip")]
    pub(crate) range_start: Option<IpAddr>,
    #[serde(with = "sandwire_plugin::addr::optional_ip")]
    pub(crate) range_end: Option<IpAddr>,
    #[serde(with = "sandwire_plugin::addr::optional_ip")]
    pub(crate) gateway: Option<IpAddr>,
}

/// A range that can be given from: `start` to `end`, both included and within `subnet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    subnet: IpNet,
    start: IpAddr,
    end: IpAddr,
    gateway: IpAddr,
}

impl Range {
    /// Fills in what is not said: the gateway is the first address, the range all of the subnet but its network address
    /// and, for IPv4, its broadcast address.
    ///
    /// # Errors
    /// The texts of `Range.Canonicalize` (allocator/range.go).
    fn of(config: &RangeConfig) -> Result<Self, String> {
        let subnet = config.subnet.ok_or("IP <nil> not v4 nor v6")?;
        // Nothing is left of a /31 when network, broadcast and gateway are taken off.
        if subnet.prefix_len() + 2 > subnet.max_prefix_len() {
            return Err(format!("Network {subnet} too small to allocate from"));
        }
        if subnet.addr() != subnet.network() {
            let (length, network) = (subnet.prefix_len(), subnet.network());
            return Err(format!(
                "Network has host bits set. For a subnet mask of length {length} the network address is {network}"
            ));
        }
        let first = neighbour(subnet.network(), 1);
        let last = if subnet.addr().is_ipv4() { neighbour(subnet.broadcast(), -1) } else { subnet.broadcast() };
        let (start, end) = (config.range_start.unwrap_or(first), config.range_end.unwrap_or(last));
        // Only a start that was said can be wrong; and the reference holds it against an end that is not checked yet.
        let behind = |end: IpAddr| same_family(start, end) && start > end;
        if config.range_start.is_some() && (!subnet.contains(&start) || config.range_end.is_some_and(behind)) {
            return Err(format!("RangeStart {start} not in network {subnet}"));
        }
        if !subnet.contains(&end) || end < start {
            return Err(format!("RangeEnd {end} not in network {subnet}"));
        }
        Ok(Self { subnet, start, end, gateway: config.gateway.unwrap_or(first) })
    }

    fn contains(&self, ip: IpAddr) -> bool {
        same_family(self.start, ip) && self.start <= ip && ip <= self.end
    }

    fn overlaps(&self, other: &Self) -> bool {
        same_family(self.start, other.start) && self.start <= other.end && other.start <= self.end
    }

    /// The range without its gateway.
    fn allocatable(&self) -> Vec<(IpAddr, IpAddr)> {
        if !self.contains(self.gateway) {
            return vec![(self.start, self.end)];
        }
        let mut parts = Vec::new();
        if self.start < self.gateway {
            parts.push((self.start, neighbour(self.gateway, -1)));
        }
        if self.gateway < self.end {
            parts.push((neighbour(self.gateway, 1), self.end));
        }
        parts
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

/// Ranges of one family that together give one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RangeSet(Vec<Range>);

impl RangeSet {
    /// # Errors
    /// The texts of `RangeSet.Canonicalize` (allocator/range_set.go).
    fn of(configs: &[RangeConfig]) -> Result<Self, String> {
        let mut ranges: Vec<Range> = Vec::new();
        for config in configs {
            let range = Range::of(config)?;
            if ranges.first().is_some_and(|first| !same_family(first.start, range.start)) {
                return Err("mixed address families".to_owned());
            }
            ranges.push(range);
        }
        if ranges.is_empty() {
            return Err("empty range set".to_owned());
        }
        if let Some((_, a, _, b)) = pairs(&ranges).find(|(_, a, _, b)| a.overlaps(b)) {
            return Err(format!("subnets {a} and {b} overlap"));
        }
        Ok(Self(ranges))
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        self.0.first().is_some_and(|range| range.start.is_ipv4())
    }

    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(ip))
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|a| other.0.iter().any(|b| a.overlaps(b)))
    }

    /// What the result says of an address of this set.
    pub(crate) fn address(&self, ip: IpAddr) -> Option<IpConfig> {
        let range = self.0.iter().find(|range| range.contains(ip))?;
        let address = IpNet::new(ip, range.subnet.prefix_len()).ok()?;
        Some(IpConfig::new(address).with_gateway(range.gateway))
    }

    /// For the store.
    pub(crate) fn ranges(&self) -> Vec<leases::Range> {
        self.0.iter().map(|range| store_range(range.start, range.end)).collect()
    }

    /// The addresses that are never given: each range's own gateway, and not those of other ranges, as in the reference.
    pub(crate) fn gateways(&self) -> Vec<String> {
        let own = self.0.iter().filter(|range| range.contains(range.gateway));
        own.map(|range| range.gateway.to_string()).collect()
    }

    /// The ranges without their gateways, for counting what is free.
    pub(crate) fn allocatable(&self) -> Vec<leases::Range> {
        self.0.iter().flat_map(Range::allocatable).map(|(first, last)| store_range(first, last)).collect()
    }

    /// How many addresses can be given at most.
    pub(crate) fn size(&self) -> u128 {
        let parts = self.0.iter().flat_map(Range::allocatable);
        parts.fold(0, |sum, (first, last)| sum.saturating_add(bits(last) - bits(first)).saturating_add(1))
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, range) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            range.fmt(f)?;
        }
        Ok(())
    }
}

/// Every set of a configuration, checked.
///
/// # Errors
/// The reference's texts (allocator/config.go).
pub(crate) fn sets(configs: &[Vec<RangeConfig>]) -> Result<Vec<RangeSet>, Failure> {
    let mut sets = Vec::new();
    for (n, config) in configs.iter().enumerate() {
        sets.push(RangeSet::of(config).map_err(|why| Failure::config(format!("invalid range set {n}: {why}")))?);
    }
    if let Some((a, _, b, _)) = pairs(&sets).find(|(_, a, _, b)| a.overlaps(b)) {
        return Err(Failure::config(format!("range set {a} overlaps with {b}")));
    }
    Ok(sets)
}

/// Each once, in their order.
pub(crate) fn distinct(ips: &[IpAddr]) -> Vec<IpAddr> {
    let mut once = Vec::new();
    for ip in ips {
        if !once.contains(ip) {
            once.push(*ip);
        }
    }
    once
}

fn store_range(first: IpAddr, last: IpAddr) -> leases::Range {
    leases::Range { first: first.to_string(), last: last.to_string() }
}

fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

fn pairs<T>(list: &[T]) -> impl Iterator<Item = (usize, &T, usize, &T)> {
    let numbered = move |from: usize| list.iter().enumerate().skip(from);
    numbered(0).flat_map(move |(n, a)| numbered(n + 1).map(move |(m, b)| (n, a, m, b)))
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The address `by` further, within its family.
fn neighbour(ip: IpAddr, by: i8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits().wrapping_add_signed(i32::from(by))).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits().wrapping_add_signed(i128::from(by))).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(json: &str) -> Result<Range, String> {
        Range::of(&sandwire_plugin::parse(json).unwrap())
    }

    fn set(json: &str) -> Result<RangeSet, String> {
        RangeSet::of(&sandwire_plugin::parse::<Vec<RangeConfig>>(json).unwrap())
    }

    #[test]
    fn what_is_not_said_is_filled_in() {
        for (config, wanted, gateway) in [
            (r#"{"subnet": "10.1.2.0/24"}"#, "10.1.2.1-10.1.2.254", "10.1.2.1"),
            (r#"{"subnet": "10.1.2.0/30"}"#, "10.1.2.1-10.1.2.2", "10.1.2.1"),
            (r#"{"subnet": "0.0.0.0/0"}"#, "0.0.0.1-255.255.255.254", "0.0.0.1"),
            (r#"{"subnet": "fd00::/64"}"#, "fd00::1-fd00::ffff:ffff:ffff:ffff", "fd00::1"),
            (r#"{"subnet": "fd00::4/126"}"#, "fd00::5-fd00::7", "fd00::5"),
            (
                r#"{"subnet": "10.0.0.0/8", "rangeStart": "10.2.0.0", "rangeEnd": "10.255.255.255", "gateway": "192.168.0.1"}"#,
                "10.2.0.0-10.255.255.255",
                "192.168.0.1",
            ),
            (
                r#"{"SUBNET": "10.1.2.0/24", "RANGESTART": "10.1.2.9", "rangeEnd": null, "gateway": ""}"#,
                "10.1.2.9-10.1.2.254",
                "10.1.2.1",
            ),
        ] {
            let range = range(config).unwrap();
            assert_eq!((range.to_string(), range.gateway.to_string()), (wanted.to_owned(), gateway.to_owned()));
        }
    }

    /// Seen from Debian's host-local 1.1.1.
    #[test]
    fn what_is_wrong_is_said_in_the_references_words() {
        for (config, wanted) in [
            (r#"[]"#, "empty range set"),
            (r#"[{"rangeStart": "10.0.0.20"}]"#, "IP <nil> not v4 nor v6"),
            (r#"[{"subnet": "10.0.0.0/31"}]"#, "Network 10.0.0.0/31 too small to allocate from"),
            (r#"[{"subnet": "10.0.0.5/32"}]"#, "Network 10.0.0.5/32 too small to allocate from"),
            (r#"[{"subnet": "fd00::/127"}]"#, "Network fd00::/127 too small to allocate from"),
            (
                r#"[{"subnet": "10.0.0.1/24"}]"#,
                "Network has host bits set. For a subnet mask of length 24 the network address is 10.0.0.0",
            ),
            (
                r#"[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.1.3"}]"#,
                "RangeStart 10.0.1.3 not in network 10.0.0.0/24",
            ),
            (
                r#"[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.20", "rangeEnd": "10.0.0.10"}]"#,
                "RangeStart 10.0.0.20 not in network 10.0.0.0/24",
            ),
            (r#"[{"subnet": "10.0.0.0/24", "rangeEnd": "fd00::1"}]"#, "RangeEnd fd00::1 not in network 10.0.0.0/24"),
            (r#"[{"subnet": "10.0.0.0/24", "rangeEnd": "10.0.0.0"}]"#, "RangeEnd 10.0.0.0 not in network 10.0.0.0/24"),
            (r#"[{"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"}]"#, "mixed address families"),
            (
                r#"[{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.0.128/25"}]"#,
                "subnets 10.0.0.1-10.0.0.254 and 10.0.0.129-10.0.0.254 overlap",
            ),
        ] {
            assert_eq!(set(config).unwrap_err(), wanted, "{config}");
        }
        let two: Vec<Vec<RangeConfig>> = sandwire_plugin::parse(
            r#"[[{"subnet": "fd00::/64"}], [{"subnet": "10.0.0.0/24"}], [{"subnet": "10.0.0.128/25"}]]"#,
        )
        .unwrap();
        assert_eq!(sets(&two).unwrap_err().msg, "range set 1 overlaps with 2");
    }

    #[test]
    fn a_gateway_is_not_given_by_its_own_range() {
        let both = set(
            r#"[{"subnet": "10.0.0.0/29", "gateway": "10.0.0.3"}, {"subnet": "10.0.1.0/29", "gateway": "10.0.0.2"}]"#,
        )
        .unwrap();
        assert_eq!(both.gateways(), ["10.0.0.3"]);
        let text: Vec<String> =
            both.allocatable().iter().map(|range| format!("{}-{}", range.first, range.last)).collect();
        assert_eq!(text, ["10.0.0.1-10.0.0.2", "10.0.0.4-10.0.0.6", "10.0.1.1-10.0.1.6"]);
        assert_eq!((both.size(), both.to_string()), (11, "10.0.0.1-10.0.0.6,10.0.1.1-10.0.1.6".to_owned()));
        let first = both.address("10.0.1.4".parse().unwrap()).unwrap();
        assert_eq!(
            (first.address.to_string(), first.gateway.unwrap().to_string()),
            ("10.0.1.4/29".to_owned(), "10.0.0.2".to_owned())
        );
        assert!(both.address("10.0.0.7".parse().unwrap()).is_none() && !both.contains("fd00::1".parse().unwrap()));
        for (config, size) in [
            (r#"[{"subnet": "10.0.0.0/30"}]"#, 1),
            (r#"[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.1", "rangeEnd": "10.0.0.1"}]"#, 0),
            (r#"[{"subnet": "10.0.0.0/24", "rangeEnd": "10.0.0.9", "gateway": "10.0.0.9"}]"#, 8),
            (r#"[{"subnet": "::/0"}]"#, u128::MAX - 1),
        ] {
            assert_eq!(set(config).unwrap().size(), size, "{config}");
        }
    }
}
