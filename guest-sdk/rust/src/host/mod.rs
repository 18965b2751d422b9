//! The host's functions, one module per interface of the contract (`wit/`), and what makes them pleasant to call.
//!
//! Each module that a plugin calls becomes an import of its component, and so a line that an operator has to grant.
//! Texts, not parsed values, cross: addresses, prefixes and MACs are parsed and validated by the host.

mod build;

#[doc(inline)]
pub use crate::bindings::imports::sandwire::cni::{
    addresses, bridging, conntrack, delegate, devices, dhcp, endpoint, files, firewall, kv, leases, links, log,
    namespaces, neighbours, random, routes, shaping, shared, sysctl, wait,
};

use crate::bindings::imports::sandwire::cni::{container_netns, host_netns};
use crate::{Failure, code};
use namespaces::Netns;

/// The routing table that routes are in which name none (`RT_TABLE_MAIN`, linux/rtnetlink.h).
pub const MAIN_TABLE: u32 = 254;

/// The node's own namespace.
pub fn netns() -> Netns {
    host_netns::get()
}

/// The container's namespace; `None` in DEL when it is gone, and in GC and STATUS.
pub fn container() -> Option<Netns> {
    container_netns::get()
}

/// The container's namespace in ADD and CHECK, where there is no call without one.
///
/// # Errors
/// Code 8 when there is none.
pub fn require_container() -> Result<Netns, Failure> {
    container().ok_or_else(|| Failure::new(code::INVALID_NETNS, "this call has no container namespace"))
}
