//! CHECK: the interface is there, rides on its master in its mode, with MAC, MTU, addresses and routes.

use crate::config::Config;
use crate::{Macvlan, master};
use sandwire_plugin::host::{self, namespaces::LinkInfo};
use sandwire_plugin::{Call, Check, Failure, Interface, Link, Netns, verify};

impl Check for Macvlan {
    fn check(call: &Call) -> Result<(), Failure> {
        let config = Config::load(call.config_text())?;
        config.ipam.check(call)?;
        let mut result = call.require_prev_result()?;
        let container = host::require_container()?;
        let (place, expected) = verify::own_interface(call, &result);
        let sandbox = expected.sandbox.as_deref().unwrap_or_default();
        if sandbox != call.sandbox() {
            return Err(Failure::internal(
                ["sandbox in prevResult ", sandbox, " doesn't match configured netns: ", call.sandbox()].concat(),
            ));
        }
        let (link, info) = present(&container, &expected)?;
        let home = if config.link_in_container { container } else { host::netns() };
        rides_on(&config, &home, &info)?;
        attributes(&config, &expected, &info)?;

        let container = host::require_container()?;
        // Addresses of other interfaces are other plugins' of the chain. An old result does not say whose they are.
        result.ips.retain(|ip| ip.interface.is_none_or(|of| of == place));
        verify::addresses(&container, &link, call.ifname(), &result.ips)?;
        verify::routes(&container, &result.routes)
    }
}

fn present(container: &Netns, expected: &Interface) -> Result<(Link, LinkInfo), Failure> {
    let name = expected.name.as_str();
    let missing = || Failure::internal(["container Interface name in prevResult: ", name, " not found"].concat());
    let link = container.link(name).map_err(|_| missing())?;
    let info = link.info().map_err(|_| missing())?;
    if info.kind != "macvlan" {
        return Err(Failure::internal(["error: Container interface ", name, " not of type macvlan"].concat()));
    }
    Ok((link, info))
}

/// A master that is named must be the one; the default route may have moved since.
fn rides_on(config: &Config, home: &Netns, info: &LinkInfo) -> Result<(), Failure> {
    let name = match (config.master.is_empty(), info.fact("parent")) {
        (true, Some(parent)) => parent.to_owned(),
        _ => master::name(config, home)?,
    };
    let (_, master) = master::find(&name, home)?;
    // The configuration may name it by an alternative name (IFLA_ALT_IFNAME), which systemd gives to every card.
    match info.fact("parent") {
        Some(parent) if parent != master.name => Err(Failure::internal(
            ["container macvlan ", &info.name, " rides on ", parent, ", not on the configured master ", &name].concat(),
        )),
        _ => config.mtu(master.mtu).map(drop),
    }
}

fn attributes(config: &Config, expected: &Interface, info: &LinkInfo) -> Result<(), Failure> {
    let (_, mode) = config.mode()?;
    let present = info.fact("macvlan.mode").unwrap_or_default();
    if present != mode {
        return Err(Failure::internal(
            ["container macvlan mode ", present, " does not match expected value: ", mode].concat(),
        ));
    }
    if !verify::mac_matches(expected, info) {
        let mac = expected.mac.as_deref().unwrap_or_default();
        return Err(Failure::internal(
            ["interface ", &info.name, " Mac ", mac, " doesn't match container Mac: ", &info.mac].concat(),
        ));
    }
    let wanted = config.broadcast_queue.to_string();
    match info.fact("macvlan.bcqueuelen") {
        Some(present) if config.broadcast_queue != 0 && present != wanted => Err(Failure::internal(
            ["container macvlan bcqueuelen ", present, " does not match expected value: ", &wanted].concat(),
        )),
        _ => Ok(()),
    }
}
