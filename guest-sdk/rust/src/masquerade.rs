//! `ipMasq`: what leaves the network of an address takes the node's address.

use crate::bindings::imports::sandwire::cni::firewall;
use crate::host::namespaces::Netns;
use crate::{Failure, IpConfig, OrFail, OrUnavailable};

fn rules(netns: &Netns, ips: &[IpConfig], context: &str) -> Result<firewall::Ruleset, Failure> {
    let rules = firewall::open(netns, "masquerade").or_fail(context)?;
    for ip in ips {
        rules.masquerade(&ip.address.addr().to_string(), &[ip.address.trunc().to_string()]);
    }
    Ok(rules)
}

/// Masquerades each address except towards its own network (and, in the host, multicast), as the reference does.
/// The rules stand in the host's nftables tables, whatever `ipMasqBackend` says, and go with the attachment.
///
/// # Errors
/// The host's.
pub fn apply(netns: &Netns, ips: &[IpConfig]) -> Result<(), Failure> {
    const CONTEXT: &str = "failed to set up masquerading";
    rules(netns, ips, CONTEXT)?.commit().or_fail(CONTEXT)
}

/// CHECK: whether the rules that [`apply`] made are there. Those that another implementation made are not looked at.
///
/// # Errors
/// The host's; which rules are missing.
pub fn check(netns: &Netns, ips: &[IpConfig]) -> Result<(), Failure> {
    const CONTEXT: &str = "could not look at the masquerading rules";
    let missing = rules(netns, ips, CONTEXT)?.verify().or_fail(CONTEXT)?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::internal(["masquerading rules are missing: ", &missing.join("; ")].concat()))
}

/// STATUS: whether [`apply`] could work on this kernel.
///
/// # Errors
/// Code 50 with what to do.
pub fn ready(netns: &Netns) -> Result<(), Failure> {
    firewall::check_support(netns, &[firewall::RuleKind::Masquerade]).or_unavailable(
        "ipMasq is not possible here",
        "take a kernel with nftables (CONFIG_NF_TABLES_INET, CONFIG_NFT_MASQ, CONFIG_NFT_NAT), load its modules (modprobe -a nf_tables nft_masq nft_chain_nat), or set \"ipMasq\": false",
    )
}
