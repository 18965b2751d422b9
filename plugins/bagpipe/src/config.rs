//! The network configuration.

use crate::instance::Instance;
use crate::route_target::{Given, RouteTargets};
use sandwire_plugin::{Call, Dns, Failure, Ipam, NetworkCall, OrFail};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use std::fmt;

/// What DEL and GC need.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Addressing {
    pub(crate) ipam: Ipam,
}

/// As written. `importrt` and `exportrt` are the keys of the 2016 plugin, `import_rt` and `export_rt` the agent's.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Written {
    name: String,
    importrt: Option<Given>,
    import_rt: Option<Given>,
    exportrt: Option<Given>,
    export_rt: Option<Given>,
    #[serde(rename = "isGateway")]
    is_gateway: bool,
    #[serde(rename = "ipMasq")]
    ip_masq: bool,
    mtu: Option<Number>,
    vni: Option<Number>,
    ipam: Ipam,
    #[serde(deserialize_with = "Dns::said")]
    dns: Option<Dns>,
}

/// Read and validated.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) import_rt: RouteTargets,
    pub(crate) export_rt: RouteTargets,
    pub(crate) is_gateway: bool,
    pub(crate) ip_masq: bool,
    /// Bytes; `None`: what fits through the tunnel.
    pub(crate) mtu: Option<u32>,
    /// `None`: the agent takes a free one of its own on each node.
    pub(crate) vni: Option<u32>,
    pub(crate) ipam: Ipam,
    pub(crate) dns: Option<Dns>,
}

impl Config {
    /// # Errors
    /// Code 6 when it can't be read, 7 when a value is wrong; the text names the key.
    pub(crate) fn of(call: &Call) -> Result<Self, Failure> {
        call.config::<Written>().or_fail("failed to load netconf")?.validate()
    }

    /// The same for STATUS.
    ///
    /// # Errors
    /// As [`Config::of`].
    pub(crate) fn of_network(call: &NetworkCall) -> Result<Self, Failure> {
        call.config::<Written>().or_fail("failed to load netconf")?.validate()
    }

    /// The VPN instance of the network.
    pub(crate) fn instance(&self) -> Instance {
        Instance::of(&self.name, &self.import_rt, &self.export_rt)
    }
}

impl Written {
    fn validate(self) -> Result<Config, Failure> {
        let import_rt = targets(["importrt", "import_rt"], [&self.importrt, &self.import_rt])?;
        let export_rt = targets(["exportrt", "export_rt"], [&self.exportrt, &self.export_rt])?;
        if import_rt.is_empty() && export_rt.is_empty() {
            return Err(Failure::config(
                "importrt and exportrt are both empty: the pod could reach nobody and nobody it",
            ));
        }
        if !self.ipam.is_set() {
            return Err(Failure::config("\"ipam\" is missing: the agent announces an address, so the pod needs one"));
        }
        Ok(Config {
            name: self.name,
            import_rt,
            export_rt,
            is_gateway: self.is_gateway,
            ip_masq: self.ip_masq,
            // 68 is the least that IPv4 works with (RFC 791), 65535 the most that a veth takes (ETH_MAX_MTU).
            mtu: within("mtu", self.mtu.filter(|number| number.0 != "0"), 68, 65_535)?,
            vni: within("vni", self.vni, 1, (1 << 24) - 1)?,
            ipam: self.ipam,
            dns: self.dns,
        })
    }
}

fn targets(keys: [&str; 2], given: [&Option<Given>; 2]) -> Result<RouteTargets, Failure> {
    let ([old, new], [first, second]) = (keys, given);
    match (first, second) {
        (Some(_), Some(_)) => {
            Err(Failure::config(format!("{old} and {new} are two names of one key: give one of them")))
        }
        (Some(given), None) => RouteTargets::parse(old, given),
        (None, Some(given)) => RouteTargets::parse(new, given),
        (None, None) => Err(Failure::config(format!("{old} is missing: which route targets, such as \"64512:90\""))),
    }
}

/// A number that may be written as a string, as the article's `"mtu": "1500"`, kept as text until it is validated so that
/// what is out of range gets the same error as what is no number.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Number(String);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;
        impl Visitor<'_> for NumberOrText {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a string with one")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Number, E> {
                Ok(Number(number.to_string()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Number, E> {
                Ok(Number(number.to_string()))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Number, E> {
                Ok(Number(number.to_string()))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
                Ok(Number(text.trim().to_owned()))
            }
        }
        deserializer.deserialize_any(NumberOrText)
    }
}

fn within(key: &str, number: Option<Number>, least: u32, most: u32) -> Result<Option<u32>, Failure> {
    number
        .map(|Number(text)| {
            text.parse::<u32>()
                .ok()
                .filter(|number| (least..=most).contains(number) && !text.starts_with('+'))
                .ok_or_else(|| Failure::config(format!("{key}: {text:?} is no number from {least} to {most}")))
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(extra: &str) -> Result<Config, Failure> {
        let text = format!(r#"{{"name":"mynet","type":"bagpipe","ipam":{{"type":"host-local"}}{extra}}}"#);
        sandwire_plugin::parse::<Written>(&text).unwrap().validate()
    }

    #[test]
    fn the_articles_configuration() {
        let config =
            read(r#","importrt":"64512:90","exportrt":"64512:90","isGateway":false,"ipMasq":false,"mtu":"1500""#)
                .unwrap();
        assert_eq!((config.mtu, config.vni, config.is_gateway, config.ip_masq), (Some(1500), None, false, false));
        assert_eq!(config.import_rt, config.export_rt);
        assert_eq!(config.ipam.plugin, "host-local");
    }

    #[test]
    fn numbers_as_numbers_or_text() {
        let rt = r#","importrt":"1:1","exportrt":"1:1""#;
        assert_eq!(read(&format!(r#"{rt},"mtu":1400,"vni":"5000""#)).unwrap().vni, Some(5000));
        assert_eq!(read(&format!(r#"{rt},"mtu":0"#)).unwrap().mtu, None);
        for (extra, key) in [
            (r#""mtu":"big""#, "mtu"),
            (r#""mtu":67"#, "mtu"),
            (r#""mtu":65536"#, "mtu"),
            (r#""mtu":-1"#, "mtu"),
            (r#""mtu":1400.5"#, "mtu"),
            (r#""mtu":"""#, "mtu"),
            (r#""vni":0"#, "vni"),
            (r#""vni":16777216"#, "vni"),
        ] {
            let failure = read(&format!("{rt},{extra}")).unwrap_err();
            assert!(failure.code == 7 && failure.msg.starts_with(key), "{extra}: {}", failure.msg);
        }
    }

    #[test]
    fn an_empty_list_of_name_servers_switches_address_managements_off() {
        let dns = |dns: &str| read(&format!(r#","importrt":"1:1","exportrt":"1:1","dns":{dns}"#)).unwrap().dns;
        assert_eq!(dns(r#"{"nameservers":[]}"#), Some(Dns::default()));
        assert_eq!((dns("{}"), dns("null")), (None, None));
    }

    #[test]
    fn route_targets_under_either_name_but_not_both() {
        assert!(read(r#","import_rt":["64512:90"],"export_rt":"64512:90,64512:91""#).is_ok());
        for extra in [
            r#","importrt":"64512:90""#,
            r#","importrt":"64512:90","import_rt":"64512:90","exportrt":"64512:90""#,
            r#","importrt":[],"exportrt":"""#,
        ] {
            assert_eq!(read(extra).unwrap_err().code, 7, "{extra}");
        }
        assert!(read(r#","importrt":[],"exportrt":"64512:90""#).is_ok());
    }
}
