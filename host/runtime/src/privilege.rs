//! What this process gives up before it maps a component.
//!
//! Sockets and namespace descriptors are open by then. CAP_NET_ADMIN is what sending netlink messages needs (the
//! kernel checks the sender at each message); a call whose grant reaches no network keeps nothing. As user 0 without
//! CAP_DAC_OVERRIDE the process still opens root's own files, and no others; `confine` takes most of that too.

use caps::{CapSet, Capability, CapsHashSet};
use sandwire_cni::{Error, code};

/// Drops every capability but what the grant's operations need, for good.
///
/// # Errors
/// Code `IO`: the call must not go on with more than it needs.
pub(crate) fn drop_to(needs_network: bool) -> Result<(), Error> {
    let failed = |what: &str, why: String| Error {
        code: code::IO,
        msg: format!("could not drop privilege: {what}"),
        details: why,
    };
    let mut keep = CapsHashSet::new();
    if needs_network {
        keep.insert(Capability::CAP_NET_ADMIN);
    }
    caps::clear(None, CapSet::Inheritable).map_err(|e| failed("capset", e.to_string()))?;
    caps::set(None, CapSet::Effective, &keep).map_err(|e| failed("capset", e.to_string()))?;
    caps::set(None, CapSet::Permitted, &keep).map_err(|e| failed("capset", e.to_string()))?;
    // no_new_privs: an execve after this can't gain them back, not even by a setuid program (prctl(2)).
    nix::sys::prctl::set_no_new_privs().map_err(|e| failed("no_new_privs", e.desc().to_owned()))
}
