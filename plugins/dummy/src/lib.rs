//! An interface that leads nowhere: addresses of the container that no link has to carry.
//!
//! Keys and messages: containernetworking/plugins, plugins/main/dummy.

use sandwire_plugin::configure::{self, Duplicates};
use sandwire_plugin::host::{self, links};
use sandwire_plugin::{
    Attachment, Call, Check, CniResult, Failure, Gc, Ipam, NetworkCall, OrFail, Plugin, Status, verify,
};
use serde::Deserialize;

/// The network configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename = "NetConf")]
struct Config {
    ipam: Ipam,
}

impl Config {
    /// The configuration of a network; errors have the reference's texts.
    fn load(text: &str) -> Result<Self, Failure> {
        sandwire_plugin::parse(text).or_fail("failed to parse network config")
    }

    /// The same for all verbs but DEL, which takes away what there is.
    fn complete(text: &str) -> Result<Self, Failure> {
        let config = Self::load(text)?;
        if config.ipam.is_set() {
            return Ok(config);
        }
        Err(Failure::config("dummy interface requires an IPAM configuration"))
    }
}

struct Dummy;

sandwire_plugin::export!(Dummy: check, gc, status);

impl Plugin for Dummy {
    fn add(call: &Call) -> Result<CniResult, Failure> {
        let config = Config::complete(call.config_text())?;
        let container = host::require_container()?;
        let device = links::Device::new(&container).named(call.ifname());
        let link = links::create_dummy(&device).or_fail("failed to create dummy")?;
        let interface = link.info()?.in_sandbox(call.sandbox());
        let mut result = config.ipam.add(call)?;
        result.interfaces = vec![interface];
        let result = result.with_ips_on(0);
        configure::apply(&link, call.ifname(), &result, Duplicates::Trust)?;
        Ok(result)
    }

    fn del(call: &Call) -> Result<(), Failure> {
        configure::detach(call, Config::load(call.config_text()).map(|config| config.ipam))
    }
}

impl Check for Dummy {
    fn check(call: &Call) -> Result<(), Failure> {
        let config = Config::complete(call.config_text())?;
        config.ipam.check(call)?;
        let mut result = call.require_prev_result()?;
        let container = host::require_container()?;
        let (place, link, info) = verify::attached(call, &result, &container, Some("dummy"), "")?;
        if !info.up {
            return Err(Failure::internal(["Interface ", &info.name, " is down"].concat()));
        }
        // Addresses of other interfaces are other plugins' of the chain. An old result does not say whose they are.
        result.ips.retain(|ip| ip.interface.is_none_or(|of| of == place));
        verify::addresses(&container, &link, call.ifname(), &result.ips)
    }
}

impl Status for Dummy {
    fn status(call: &NetworkCall) -> Result<(), Failure> {
        Config::complete(call.config_text())?.ipam.status(call)
    }
}

impl Gc for Dummy {
    fn gc(call: &NetworkCall, _: Option<&[Attachment]>) -> Result<(), Failure> {
        Config::load(call.config_text())?.ipam.gc(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_references_texts() {
        for text in ["{}", r#"{"ipam":null}"#, r#"{"IPAM":{"type":""}}"#] {
            let failure = Config::complete(text).unwrap_err();
            assert_eq!(failure.msg, "dummy interface requires an IPAM configuration", "{text}");
        }
        assert!(Config::load(r#"{"ipam":3}"#).unwrap_err().msg.starts_with("failed to parse network config: "));
        assert!(Config::complete(r#"{"ipam":{"type":"static"}}"#).unwrap().ipam.is_set());
    }
}
