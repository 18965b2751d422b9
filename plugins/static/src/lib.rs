//! Gives the addresses that the configuration, or the runtime, names. It keeps no state and reaches nothing.
//!
//! Keys and messages: containernetworking/plugins, plugins/ipam/static.

mod config;

use config::Config;
use sandwire_plugin::{Call, Check, CniResult, Failure, NetworkCall, Plugin, Status};

struct Static;

sandwire_plugin::export!(Static: check, status);

fn load(call: &Call) -> Result<Config, Failure> {
    let [ip, gateway] = call.args(["IP", "GATEWAY"])?;
    Config::load(call.config_text(), ip, gateway)
}

impl Plugin for Static {
    fn add(call: &Call) -> Result<CniResult, Failure> {
        let Config { ips, routes, dns } = load(call)?;
        Ok(CniResult { ips, routes, dns, ..CniResult::default() })
    }

    fn del(_: &Call) -> Result<(), Failure> {
        Ok(())
    }
}

impl Check for Static {
    /// As lenient as the reference: only an address that is in the result too can be wrong, by its gateway. What the
    /// interface really has is looked at by the plugin that asked for the addresses.
    fn check(call: &Call) -> Result<(), Failure> {
        let config = load(call)?;
        let result = call.require_prev_result()?;
        for wanted in &config.ips {
            let address = wanted.address.addr();
            let Some(given) = result.ips.iter().find(|ip| ip.address.addr() == address) else { continue };
            if wanted.gateway.is_some() && wanted.gateway != given.gateway {
                return Err(Failure::internal(format!(
                    "static: Failed to match addr {address} on interface {}",
                    call.ifname()
                )));
            }
        }
        Ok(())
    }
}

impl Status for Static {
    fn status(call: &NetworkCall) -> Result<(), Failure> {
        Config::load(call.config_text(), None, None).map(drop)
    }
}
