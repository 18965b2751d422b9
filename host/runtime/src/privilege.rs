//! What this process gives up before it maps a component.
//!
//! Sockets and namespace descriptors are open by then. CAP_NET_ADMIN is what sending netlink messages needs (the
//! kernel checks the sender at each message); a call whose grant reaches no network keeps nothing. As user 0 without
//! CAP_DAC_OVERRIDE the process still opens root's own files, and no others; `confine` takes most of that too.

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};
use sandwire_cni::{Error, code};
use std::path::PathBuf;

/// Drops every capability but what the grant's operations need, for good. `needed`: what must be possible with files; where it is
/// not for plain root (a lease directory that an installer gave to another user, as the reference plugins don't notice),
/// CAP_DAC_OVERRIDE stays, and only Landlock says which files it is good for.
///
/// # Errors
/// Code `IO`: the call must not go on with more than it needs.
pub(crate) fn drop_to(needs_network: bool, needed: &[(PathBuf, AccessFlags)]) -> Result<(), Error> {
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
    caps::set(None, CapSet::Effective, &keep).map_err(|e| {
        let has = |capability: &&Capability| caps::has_cap(None, CapSet::Permitted, **capability).unwrap_or(true);
        match keep.iter().find(|capability| !has(capability)) {
            Some(missing) => failed(
                &format!("it was started without {missing}"),
                "what calls CNI plugins has to be root with CAP_NET_ADMIN and CAP_SYS_ADMIN: look at CapabilityBoundingSet= of the runtime's unit, or at the container that it runs in".into(),
            ),
            None => failed("capset", e.to_string()),
        }
    })?;
    let is_refused = |(path, access): &(PathBuf, AccessFlags)| {
        faccessat(AT_FDCWD, path.as_path(), *access, AtFlags::AT_EACCESS) == Err(Errno::EACCES)
    };
    if needed.iter().any(is_refused) {
        keep.insert(Capability::CAP_DAC_OVERRIDE);
        caps::set(None, CapSet::Effective, &keep).map_err(|e| failed("capset", e.to_string()))?;
    }
    caps::set(None, CapSet::Permitted, &keep).map_err(|e| failed("capset", e.to_string()))?;
    // no_new_privs: an execve after this can't gain them back, not even by a setuid program (prctl(2)).
    nix::sys::prctl::set_no_new_privs().map_err(|e| failed("no_new_privs", e.desc().to_owned()))
}
