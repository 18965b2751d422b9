//! The configuration: rates of its own, or else the runtime's.

use sandwire_plugin::{Failure, OrFail};
use serde::Deserialize;

/// Keys of their own are a whole: one of them, and what the runtime says does not count.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", rename = "PluginConf")]
struct Network {
    name: String,
    runtime_config: Runtime,
    ingress_rate: Option<u64>,
    ingress_burst: Option<u64>,
    egress_rate: Option<u64>,
    egress_burst: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Runtime {
    bandwidth: Option<Entry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", rename = "BandwidthEntry")]
struct Entry {
    ingress_rate: u64,
    ingress_burst: u64,
    egress_rate: u64,
    egress_burst: u64,
}

/// Bits a second, and bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) rate: u64,
    pub(crate) burst: u64,
}

/// What the container may receive and send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) ingress: Option<Limit>,
    pub(crate) egress: Option<Limit>,
}

impl Config {
    /// # Errors
    /// The reference's texts (bandwidth/main.go, parseConfig).
    pub(crate) fn load(text: &str) -> Result<Self, Failure> {
        let network: Network = sandwire_plugin::parse(text).or_fail("failed to parse network configuration")?;
        let own = [network.ingress_rate, network.ingress_burst, network.egress_rate, network.egress_burst];
        let entry = if own.iter().any(Option::is_some) {
            let [ingress_rate, ingress_burst, egress_rate, egress_burst] = own.map(Option::unwrap_or_default);
            Entry { ingress_rate, ingress_burst, egress_rate, egress_burst }
        } else {
            network.runtime_config.bandwidth.unwrap_or_default()
        };
        Ok(Self {
            name: network.name,
            ingress: limit(entry.ingress_rate, entry.ingress_burst)?,
            egress: limit(entry.egress_rate, entry.egress_burst)?,
        })
    }

    /// Whether there is anything to limit.
    pub(crate) fn is_empty(&self) -> bool {
        self.ingress.is_none() && self.egress.is_none()
    }
}

fn limit(rate: u64, burst: u64) -> Result<Option<Limit>, Failure> {
    match (rate, burst) {
        (0, 0) => Ok(None),
        (_, 0) => Err(Failure::config("if rate is set, burst must also be set")),
        (0, _) => Err(Failure::config("if burst is set, rate must also be set")),
        (_, burst) if burst / 8 >= u64::from(u32::MAX) => Err(Failure::config("burst cannot be more than 4GB")),
        (rate, burst) => Ok(Some(Limit { rate, burst })),
    }
}

/// The network's name, of whatever else is there.
pub(crate) fn name(text: &str) -> String {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Named {
        name: String,
    }
    sandwire_plugin::parse::<Named>(text).unwrap_or_default().name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str) -> Result<[Option<(u64, u64)>; 2], String> {
        let pair = |limit: Option<Limit>| limit.map(|limit| (limit.rate, limit.burst));
        Config::load(text).map(|config| [pair(config.ingress), pair(config.egress)]).map_err(|failure| failure.msg)
    }

    #[test]
    fn own_rates_win_over_the_runtimes_as_a_whole() {
        // As containerd writes it.
        let runtime = r#""runtimeConfig": {"bandwidth": {"IngressRate": 8000, "IngressBurst": 80, "EgressRate": 16000, "EgressBurst": 160}}"#;
        assert_eq!(limits(&format!("{{{runtime}}}")).unwrap(), [Some((8000, 80)), Some((16000, 160))]);
        let both = format!(r#"{{"egressRate": 9, "EGRESSBURST": 90, {runtime}}}"#);
        assert_eq!(limits(&both).unwrap(), [None, Some((9, 90))]);
        assert_eq!(limits(&format!(r#"{{"ingressRate": 0, {runtime}}}"#)).unwrap(), [None, None]);
        for nothing in ["{}", r#"{"runtimeConfig": {"bandwidth": null}}"#, r#"{"runtimeConfig": {"bandwidth": {}}}"#] {
            assert!(Config::load(nothing).unwrap().is_empty(), "{nothing}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_the_references_words() {
        for (text, wanted) in [
            (r#"{"ingressRate": 8}"#, "if rate is set, burst must also be set"),
            (r#"{"egressBurst": 8}"#, "if burst is set, rate must also be set"),
            (r#"{"ingressRate": 8, "ingressBurst": 34359738360}"#, "burst cannot be more than 4GB"),
        ] {
            assert_eq!(limits(text).unwrap_err(), wanted, "{text}");
        }
        assert!(limits(r#"{"ingressRate": 8, "ingressBurst": 34359738359}"#).is_ok());
        for text in [r#"{"ingressRate": -1}"#, r#"{"runtimeConfig": {"bandwidth": {"egressRate": "8M"}}}"#] {
            assert!(limits(text).unwrap_err().starts_with("failed to parse network configuration: "), "{text}");
        }
    }

    #[test]
    fn del_needs_the_name_alone() {
        assert_eq!(name(r#"{"name": "net", "ingressRate": -1}"#), "net");
        assert_eq!(name("broken"), "");
    }
}
