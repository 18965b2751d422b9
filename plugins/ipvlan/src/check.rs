//! CHECK: the interface is there, rides on its master in its mode, with MAC, addresses and routes.

use crate::Ipvlan;
use crate::config::Config;
use sandwire_plugin::host;
use sandwire_plugin::{Call, Check, Failure, master, verify};

impl Check for Ipvlan {
    fn check(call: &Call) -> Result<(), Failure> {
        let config = Config::load(call.config_text())?;
        config.ipam.check(call)?;
        let mut result = call.require_prev_result()?;
        let container = host::require_container()?;
        let (place, link, info) = verify::attached(call, &result, &container, Some("ipvlan"), "")?;
        let (_, mode) = config.mode()?;
        let present = info.fact("ipvlan.mode").unwrap_or_default();
        if present != mode {
            return Err(Failure::internal(
                ["Container IPVlan mode ", present, " does not match expected value: ", mode].concat(),
            ));
        }
        // A master that is named must be the one; the default route may have moved since, and the reference, which looks for a
        // link without a name then, fails.
        if !config.master.is_empty() {
            let home = master::place(config.link_in_container).unwrap_or_else(host::netns);
            let (_, parent) = master::find(&config.master, &home)?;
            if let Some(rides_on) = info.fact("parent").filter(|rides_on| *rides_on != parent.name) {
                return Err(Failure::internal(
                    [
                        "container ipvlan ",
                        &info.name,
                        " rides on ",
                        rides_on,
                        ", not on the configured master ",
                        &config.master,
                    ]
                    .concat(),
                ));
            }
        }
        // Addresses of other interfaces are other plugins' of the chain. An old result does not say whose they are.
        result.ips.retain(|ip| ip.interface.is_none_or(|of| of == place));
        verify::addresses(&container, &link, call.ifname(), &result.ips)?;
        verify::routes(&container, &result.routes)
    }
}
