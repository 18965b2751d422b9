//! The MTU of a pod whose packets travel inside VXLAN.

use crate::agent;
use sandwire_plugin::host::routes;
use sandwire_plugin::{Failure, Netns, log};

/// Outer IPv4 (20), UDP (8), VXLAN (8) and inner Ethernet (14) headers: RFC 7348, 5.
const TUNNEL: u32 = 50;
/// An Ethernet of 1500 without the tunnel's headers: for when the underlay can't be found.
const FALLBACK: u32 = 1450;

/// `wanted` as it is, with a warning when it does not fit; otherwise what fits.
///
/// # Errors
/// When the agent can't be reached: then an attach has no chance either, and nothing has been made yet.
pub(crate) fn choose(host: &Netns, wanted: Option<u32>) -> Result<u32, Failure> {
    let fits = underlay(host, agent::underlay_addresses()?).map(|mtu| mtu.saturating_sub(TUNNEL));
    match (wanted, fits) {
        (Some(wanted), Some(fits)) if wanted > fits => {
            log!(
                Warn,
                "mtu {wanted} does not fit through the tunnel, whose packets hold {fits}: larger ones to other nodes are fragmented or lost; leave \"mtu\" out to get {fits}"
            );
            Ok(wanted)
        }
        (Some(wanted), _) => Ok(wanted),
        (None, Some(fits)) => Ok(fits),
        (None, None) => {
            log!(
                Warn,
                "the interface that VXLAN leaves by can't be found (is it in \"see\" of the policy?): mtu {FALLBACK}"
            );
            Ok(FALLBACK)
        }
    }
}

/// The MTU of the interface towards the first of the agent's addresses that a route is known for.
fn underlay(host: &Netns, towards: Vec<String>) -> Option<u32> {
    towards.into_iter().find_map(|address| {
        let route = routes::lookup(host, &address).ok()?;
        let info = host.link(&route.link).ok()?.info().ok()?;
        // The route to the node's own address is by lo.
        (route.link != "lo").then_some(info.mtu)
    })
}
