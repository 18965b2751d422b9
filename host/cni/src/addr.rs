//! Addresses in JSON, by the rules of Go's `net` package, with its messages.

use crate::{Error, Result};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::net::IpAddr;

/// An address, "10.1.2.3". No leading zeros (a libc may read them as octal); an IPv4 address inside IPv6 is an IPv4 address.
///
/// # Errors
/// Code 7 with Go's text.
pub fn parse_ip(text: &str) -> Result<IpAddr> {
    text.parse::<IpAddr>()
        .map(|ip| ip.to_canonical())
        .map_err(|_| Error::invalid_config(format!("invalid IP address: {text}")))
}

/// An address with the length of its prefix, "10.1.2.3/24"; the host's bits are kept.
///
/// # Errors
/// Code 7 with Go's text.
pub fn parse_cidr(text: &str) -> Result<IpNet> {
    let parse = || {
        let (ip, length) = text.split_once('/')?;
        let length: u8 = length.bytes().all(|b| b.is_ascii_digit()).then(|| length.parse().ok())??;
        match ip.parse().ok()? {
            IpAddr::V4(ip) => Ipv4Net::new(ip, length).ok().map(IpNet::V4),
            IpAddr::V6(ip) => match (ip.to_ipv4_mapped(), length.checked_sub(96)) {
                (Some(ip), Some(length)) => Ipv4Net::new(ip, length).ok().map(IpNet::V4),
                _ => Ipv6Net::new(ip, length).ok().map(IpNet::V6),
            },
        }
    };
    parse().ok_or_else(|| Error::invalid_config(format!("invalid CIDR address: {text}")))
}

/// The address after a network's own: its gateway where nobody names another (the reference's `calcGatewayIP`).
pub fn first(net: IpNet) -> IpAddr {
    match net.network() {
        IpAddr::V4(network) => IpAddr::V4(u32::from(network).wrapping_add(1).into()),
        IpAddr::V6(network) => IpAddr::V6(u128::from(network).wrapping_add(1).into()),
    }
}

/// `#[serde(with = "sandwire_cni::addr::cidr")]` for an [`IpNet`] that has to be there.
pub mod cidr {
    use super::*;

    /// Its text.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(net: &IpNet, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(net)
    }

    /// See [`parse_cidr`].
    ///
    /// # Errors
    /// `invalid CIDR address: ...`
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_cidr(&text).map_err(serde::de::Error::custom)
    }
}

/// `#[serde(with = "sandwire_cni::addr::optional_cidr", default)]` for an [`IpNet`] that may be absent or "".
pub mod optional_cidr {
    use super::*;

    /// Its text, or null.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(net: &Option<IpNet>, serializer: S) -> Result<S::Ok, S::Error> {
        net.serialize(serializer)
    }

    /// See [`parse_cidr`].
    ///
    /// # Errors
    /// `invalid CIDR address: ...`
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpNet>, D::Error> {
        match Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()) {
            Some(text) => parse_cidr(&text).map(Some).map_err(serde::de::Error::custom),
            None => Ok(None),
        }
    }
}

/// `#[serde(with = "sandwire_cni::addr::optional_ip", default)]` for an [`IpAddr`] that may be absent or "" (Go's nil).
pub mod optional_ip {
    use super::*;

    /// Its text, or null.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(ip: &Option<IpAddr>, serializer: S) -> Result<S::Ok, S::Error> {
        ip.serialize(serializer)
    }

    /// See [`parse_ip`].
    ///
    /// # Errors
    /// `invalid IP address: ...`
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
        match Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()) {
            Some(text) => parse_ip(&text).map(Some).map_err(serde::de::Error::custom),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, canonical) in
            [("10.1.2.3", "10.1.2.3"), ("FD00::1", "fd00::1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("0:0::1", "::1")]
        {
            assert_eq!(parse_ip(text).unwrap().to_string(), canonical);
        }
        for bad in ["", "10.1.2", "010.1.2.3", "10.1.2.3/24", " 10.1.2.3", "fe80::1%eth0", "1.2.3.4.5"] {
            assert_eq!(parse_ip(bad).unwrap_err().to_string(), format!("invalid IP address: {bad}"));
        }
    }

    #[test]
    fn prefixes() {
        for (text, canonical) in [
            ("10.1.2.3/24", "10.1.2.3/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00::5/64", "fd00::5/64"),
            ("::ffff:10.0.0.1/120", "10.0.0.1/24"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(parse_cidr(text).unwrap().to_string(), canonical);
        }
        for bad in ["", "10.1.2.3", "10.1.2.3/33", "10.1.2.3/+8", "10.1.2.3/", "/8", "::/129", "10.1.2.3/24/8", "a/8"] {
            assert_eq!(parse_cidr(bad).unwrap_err().to_string(), format!("invalid CIDR address: {bad}"));
        }
    }
}
