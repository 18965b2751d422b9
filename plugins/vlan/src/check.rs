//! CHECK: the interface is there, in its VLAN on its master, with MAC, MTU, addresses and routes.

use crate::Vlan;
use crate::config::Config;
use sandwire_plugin::host::{self, namespaces::LinkInfo};
use sandwire_plugin::{Call, Check, Failure, master, verify};

impl Check for Vlan {
    fn check(call: &Call) -> Result<(), Failure> {
        let config = Config::load(call.config_text())?;
        config.ipam.check(call)?;
        let mut result = call.require_prev_result()?;
        let container = host::require_container()?;
        let (name, vlan) = config.identity()?;
        let home = master::place(config.link_in_container).unwrap_or_else(host::netns);
        let (_, parent) = master::find(name, &home)?;
        let (place, link, info) = verify::attached(call, &result, &container, Some("vlan"), "vlan: ")?;
        is_in(vlan, &parent, &info)?;
        let mtu = config.mtu(parent.mtu)?.unwrap_or(info.mtu);
        if info.mtu != mtu {
            return Err(Failure::internal(format!(
                "vlan: the MTU of {} is {}, configured is {mtu}",
                info.name, info.mtu
            )));
        }
        // Addresses of other interfaces are other plugins' of the chain. An old result does not say whose they are.
        result.ips.retain(|ip| ip.interface.is_none_or(|of| of == place));
        verify::addresses(&container, &link, call.ifname(), &result.ips)?;
        verify::routes(&container, &result.routes)
    }
}

/// The reference compares the VLAN alone (and calls it promiscuous mode); that of another link is another network.
fn is_in(vlan: u16, parent: &LinkInfo, info: &LinkInfo) -> Result<(), Failure> {
    let present = info.fact("vlan.id").unwrap_or_default();
    if present != vlan.to_string() {
        return Err(Failure::internal(format!("vlan: {} is in VLAN {present}, configured is {vlan}", info.name)));
    }
    match info.fact("parent") {
        Some(rides_on) if rides_on != parent.name => Err(Failure::internal(
            ["vlan: ", &info.name, " rides on ", rides_on, ", not on the configured master ", &parent.name].concat(),
        )),
        _ => Ok(()),
    }
}
