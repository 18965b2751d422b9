//! A complete plugin: one veth per container, plugged into a bridge that the operator made.

use sandwire_plugin::configure::{self, Duplicates};
use sandwire_plugin::host::{self, links, links::Device};
use sandwire_plugin::verify::{self, Place};
use sandwire_plugin::{Call, Check, CniResult, Failure, Ipam, NetworkCall, OrFail, OrGone, Plugin, Status};
use serde::Deserialize;

/// The keys of the configuration that are this plugin's.
#[derive(Deserialize)]
struct Config {
    bridge: String,
    mtu: Option<u32>,
    #[serde(default)]
    ipam: Ipam,
}

impl Config {
    fn of(text: &str) -> Result<Self, Failure> {
        sandwire_plugin::parse(text).or_fail("failed to load netconf")
    }
}

struct Patch;

sandwire_plugin::export!(Patch: check, status);

impl Plugin for Patch {
    const SAYS_PANICS: bool = true;

    fn add(call: &Call) -> Result<CniResult, Failure> {
        let config = Config::of(call.config_text())?;
        let (node, container) = (host::netns(), host::require_container()?);

        let bridge = node.link(&config.bridge).or_fail("no bridge to plug into")?;
        let result = config.ipam.add(call)?;
        let (port, inside) = links::create_veth(
            &Device::new(&node).mtu(config.mtu).master(&bridge).up(),
            &Device::new(&container).mtu(config.mtu).named(call.ifname()),
        )?;
        let interfaces = [port.info()?.in_sandbox(""), inside.info()?.in_sandbox(call.sandbox())];
        let result = result.with_interfaces(interfaces).with_ips_on(1);
        configure::apply(&inside, call.ifname(), &result, Duplicates::Trust)?;
        Ok(result)
        // Nothing is taken back here when a step fails: the host undoes them.
    }

    fn del(call: &Call) -> Result<(), Failure> {
        let released = Config::of(call.config_text())?.ipam.del(call);
        if let Some(container) = host::container()
            && let Some(inside) = container.link(call.ifname()).or_gone()?
        {
            links::remove(&inside).or_gone()?;
        }
        released
    }
}

impl Check for Patch {
    fn check(call: &Call) -> Result<(), Failure> {
        Config::of(call.config_text())?.ipam.check(call)?;
        let result = call.require_prev_result()?;
        let container = host::require_container()?;
        let Some((_, expected)) = result.container_interface(call.ifname()) else {
            return Err(Failure::internal("prevResult does not have the container's interface"));
        };
        let (link, _) = verify::interface(&container, expected, Place::Container)?;
        verify::addresses(&container, &link, call.ifname(), &result.ips)?;
        verify::routes(&container, &result.routes)
    }
}

impl Status for Patch {
    fn status(call: &NetworkCall) -> Result<(), Failure> {
        Config::of(call.config_text())?.ipam.status(call)
    }
}
