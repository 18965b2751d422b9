//! Limits what a container may receive and send: a token bucket on the host's end of its veth, and one on an IFB device to
//! which what the container sends is redirected.
//!
//! Keys, messages and objects: containernetworking/plugins, plugins/meta/bandwidth.

mod bucket;
mod config;

use config::Config;
use sandwire_plugin::host::{self, links, shaping};
use sandwire_plugin::{
    Call, Check, CniResult, Failure, Link, LinkInfo, Netns, NetworkCall, OrFail, OrGone, Plugin, Status,
};
use sha2::{Digest, Sha512};

struct Bandwidth;

sandwire_plugin::export!(Bandwidth: check, status);

/// The reference's name for the device: what it made is found by it, and the other way round.
fn ifb_name(network: &str, container_id: &str) -> String {
    let hash = Sha512::new().chain_update(network).chain_update(container_id).finalize();
    let mut name = "bwp".to_owned();
    for byte in hash.iter().take(6) {
        for digit in [byte >> 4, byte & 15] {
            name.push(char::from_digit(digit.into(), 16).unwrap_or_default());
        }
    }
    name
}

impl Plugin for Bandwidth {
    fn add(call: &Call) -> Result<CniResult, Failure> {
        let config = Config::load(call.config_text())?;
        let mut result = call.prev_result()?.ok_or_else(|| Failure::config("must be called as chained plugin"))?;
        if config.is_empty() {
            return Ok(result);
        }
        let outside = host_end(call, &result, &host::require_container()?)?.0;
        if let Some(limit) = config.ingress {
            shaping::limit_output(&outside, bucket::of(limit))?;
        }
        if let Some(limit) = config.egress {
            let name = ifb_name(&config.name, call.container_id());
            let ifb = shaping::limit_input(&outside, &name, bucket::of(limit)).or_fail("adding link")?;
            result.interfaces.push(ifb.info()?.in_sandbox(""));
        }
        Ok(result)
    }

    fn del(call: &Call) -> Result<(), Failure> {
        let cleared = clear(call);
        // The device outlives the veth, and the namespace too.
        let name = ifb_name(&config::name(call.config_text()), call.container_id());
        let context = || ["failed to delete \"", &name, "\""].concat();
        let ifb = host::netns().link(&name).or_gone().or_fail(context())?;
        if let Some(ifb) = ifb {
            links::remove(&ifb).or_gone().or_fail(context())?;
        }
        cleared
    }
}

impl Check for Bandwidth {
    fn check(call: &Call) -> Result<(), Failure> {
        let config = Config::load(call.config_text())?;
        let result = call.prev_result()?.ok_or_else(|| Failure::config("must be called as a chained plugin"))?;
        if config.is_empty() {
            return Ok(());
        }
        let (outside, info) = host_end(call, &result, &host::require_container()?)?;
        let (output, input) = shaping::limits(&outside)?;
        if let Some(limit) = config.ingress {
            bucket::compare(&info.name, output, limit)?;
        }
        if let Some(limit) = config.egress {
            let name = ifb_name(&config.name, call.container_id());
            host::netns().link(&name).or_fail("get ifb device")?;
            bucket::compare(&name, input, limit)?;
        }
        Ok(())
    }
}

impl Status for Bandwidth {
    fn status(call: &NetworkCall) -> Result<(), Failure> {
        Config::load(call.config_text()).map(drop)
    }
}

/// The other end of the container's veth, which an earlier plugin of the chain must have listed.
fn host_end(call: &Call, result: &CniResult, container: &Netns) -> Result<(Link, LinkInfo), Failure> {
    if result.interfaces.is_empty() {
        return Err(Failure::config("no interfaces provided"));
    }
    let context = || ["container interface ", call.ifname(), " has no veth peer"].concat();
    let inside = container.link(call.ifname()).or_fail(context())?;
    let outside = inside.peer().or_fail(context())?;
    let info = outside.info().or_fail(context())?;
    let listed = result.interfaces.iter().any(|i| i.sandbox.is_none() && i.name == info.name);
    if !listed {
        return Err(Failure::internal("no veth peer of container interface found in host ns"));
    }
    Ok((outside, info))
}

/// Takes the limits from the host's end, if that is still there. The reference leaves them to whoever deletes the veth:
/// until then all that the container sends would go to a device that is gone.
fn clear(call: &Call) -> Result<(), Failure> {
    let Some(container) = host::container() else { return Ok(()) };
    let context = || ["failed to remove the limits of \"", call.ifname(), "\""].concat();
    let Some(inside) = container.link(call.ifname()).or_gone().or_fail(context())? else { return Ok(()) };
    let Some(outside) = inside.peer().or_gone().or_fail(context())? else { return Ok(()) };
    shaping::clear(&outside).or_gone().or_fail(context()).map(drop)
}

#[cfg(test)]
mod tests {
    /// Seen from Debian's bandwidth 1.1.1: `printf mynetpod-a | sha512sum`.
    #[test]
    fn the_references_name() {
        assert_eq!(super::ifb_name("mynet", "pod-a"), "bwpf88d8102b118");
    }
}
