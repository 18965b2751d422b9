//! CHECK: every setting that the configuration has, against what is there.

use crate::config::Config;
use crate::{Tuning, sysctls};
use sandwire_plugin::{Call, Check, Failure, host, mac};

impl Check for Tuning {
    fn check(call: &Call) -> Result<(), Failure> {
        let config = Config::of(call)?;
        call.require_prev_result()?;
        let container = host::require_container()?;
        let ifname = call.ifname();
        for (key, value) in &config.sysctls {
            sysctls::check(&container, ifname, key, value)?;
        }
        let Ok(link) = container.link(ifname) else {
            return Err(Failure::internal(["Cannot find container link ", ifname].concat()));
        };
        let info = link.info()?;
        let differs = |what: &str, wanted: &str, present: &str| {
            Err(Failure::internal(
                ["Error: Tuning configured ", what, " of ", ifname, " is ", wanted, ", current value is ", present]
                    .concat(),
            ))
        };
        if let Some(wanted) = &config.mac
            && !mac::same(wanted, &info.mac)
        {
            return differs("Ethernet", wanted, &info.mac);
        }
        // Only if it is asked for: whoever listens on the interface (tcpdump) sets it too.
        if config.promisc && info.fact("promisc") != Some("true") {
            return Err(Failure::internal(
                ["Error: Tuning link ", ifname, " configured promisc is true, current value is 0"].concat(),
            ));
        }
        if let Some(mtu) = config.mtu()?
            && mtu != info.mtu
        {
            return differs("MTU", &mtu.to_string(), &info.mtu.to_string());
        }
        if let Some(wanted) = config.allmulti {
            let present = info.fact("allmulti").unwrap_or_default();
            if present != if wanted { "true" } else { "false" } {
                return differs("all-multicast mode", &wanted.to_string(), present);
            }
        }
        if let Some(length) = config.tx_queue_length()? {
            let present = info.fact("txqlen").unwrap_or_default();
            if present != length.to_string() {
                return differs("Transmit Queue Length", &length.to_string(), present);
            }
        }
        Ok(())
    }
}
