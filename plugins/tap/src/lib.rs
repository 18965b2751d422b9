//! A tap device: an Ethernet interface of the pod whose other end a program opens, such as a virtual machine's.
//!
//! Keys and messages: containernetworking/plugins, plugins/main/tap.

mod config;

use config::Config;
use sandwire_plugin::configure::{self, Duplicates};
use sandwire_plugin::host::{self, links, sysctl};
use sandwire_plugin::{
    Attachment, Call, Check, CniResult, Failure, Gc, Link, Netns, NetworkCall, OrFail, Plugin, Status, mac, verify,
};

struct Tap;

sandwire_plugin::export!(Tap: check, gc, status);

impl Plugin for Tap {
    fn add(call: &Call) -> Result<CniResult, Failure> {
        let config = Config::load(call.config_text())?;
        let container = host::require_container()?;
        let link = create(call, &config, &container)?;
        let mut result = CniResult::default().with_interfaces([link.info()?.in_sandbox(call.sandbox())]);
        if config.ipam.is_set() {
            let given = config.ipam.add(call)?;
            (result.ips, result.routes) = (given.ips, given.routes);
            result = result.with_ips_on(0);
            // Not fatal, as in the reference.
            let _ = sysctl::write(&container, &["ipv4/conf/", call.ifname(), "/arp_notify"].concat(), "1");
            configure::apply(&link, call.ifname(), &result, Duplicates::Trust)?;
        }
        result.dns = config.dns;
        Ok(result)
    }

    fn del(call: &Call) -> Result<(), Failure> {
        configure::detach(call, Config::load(call.config_text()).map(|config| config.ipam))
    }
}

impl Check for Tap {
    fn check(call: &Call) -> Result<(), Failure> {
        let config = Config::load(call.config_text())?;
        config.ipam.check(call)?;
        let mut result = call.require_prev_result()?;
        let container = host::require_container()?;
        let (place, link, _) = verify::attached(call, &result, &container, Some("tun"), "")?;
        // Addresses of other interfaces are other plugins' of the chain. An old result does not say whose they are.
        result.ips.retain(|ip| ip.interface.is_none_or(|of| of == place));
        verify::addresses(&container, &link, call.ifname(), &result.ips)?;
        verify::routes(&container, &result.routes)
    }
}

impl Status for Tap {
    fn status(call: &NetworkCall) -> Result<(), Failure> {
        let config = Config::load(call.config_text())?;
        config.check()?;
        config.ipam.status(call)
    }
}

impl Gc for Tap {
    fn gc(call: &NetworkCall, _: Option<&[Attachment]>) -> Result<(), Failure> {
        Config::load(call.config_text())?.ipam.gc(call)
    }
}

/// Makes the device with its name, MAC and all, up and in its bridge: the reference renames it, forgets the MAC when it has an owner
/// and a group, and executes `ip` when it has not.
fn create(call: &Call, config: &Config, container: &Netns) -> Result<Link, Failure> {
    config.check()?;
    let bridge = match config.bridge.as_str() {
        "" => None,
        name => Some(container.link(name).or_fail(["failed to get bridge ", name].concat())?),
    };
    let mac = config.mac(call)?;
    let mut device = links::Device::new(container).named(call.ifname()).mac(mac).mtu(config.mtu()?).up();
    if let Some(bridge) = &bridge {
        device = device.master(bridge);
    }
    let ids = [("owner", config.owner), ("group", config.group)];
    let mut options: Vec<(String, String)> =
        ids.into_iter().filter_map(|(key, id)| Some((key.to_owned(), id?.to_string()))).collect();
    if config.multi_queue {
        options.push(("multi-queue".to_owned(), "true".to_owned()));
    }
    links::create_tap(&device, &options).map_err(|error| mac::not_made(error, mac, "failed to create tap"))
}
