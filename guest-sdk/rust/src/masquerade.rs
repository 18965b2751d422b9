//! `ipMasq`: what leaves the network of an address takes the node's address.

use crate::bindings::imports::sandwire::cni::firewall;
use crate::host::namespaces::Netns;
use crate::{Failure, IpConfig, OrFail};

/// Masquerades each address except towards its own network (and, in the host, multicast), as the reference does.
/// The rules stand in the host's nftables tables, whatever `ipMasqBackend` says, and go with the attachment.
///
/// # Errors
/// The host's.
pub fn apply(netns: &Netns, ips: &[IpConfig]) -> Result<(), Failure> {
    let rules = firewall::open(netns, "masquerade").or_fail("failed to set up masquerading")?;
    for ip in ips {
        rules.masquerade(&ip.address.addr().to_string(), &[ip.address.trunc().to_string()]);
    }
    rules.commit().or_fail("failed to set up masquerading")
}
