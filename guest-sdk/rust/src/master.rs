//! The link that a macvlan, an ipvlan or a VLAN rides on (the key `master`), with the reference plugins' texts.

use crate::host::namespaces::{Link, LinkInfo, Netns};
use crate::host::{self, routes};
use crate::{Failure, HostError, OrFail};

/// The namespace that the master is in: the node's, or with `linkInContainer` the container's; `None` when that is gone.
pub fn place(in_container: bool) -> Option<Netns> {
    if in_container { host::container() } else { Some(host::netns()) }
}

/// The name of the first default route's interface, IPv4 before IPv6: what an empty `master` means.
///
/// # Errors
/// When there is no default route.
pub fn of_default_route(place: &Netns) -> Result<String, Failure> {
    let routes = routes::get(place, Some(host::MAIN_TABLE)).or_fail("could not list the routes")?;
    let default = routes.into_iter().find(|entry| ["0.0.0.0/0", "::/0"].contains(&entry.route.dst.as_str()));
    default.map(|entry| entry.link).ok_or_else(|| Failure::internal("no default route interface found"))
}

/// The link, as it is now.
///
/// # Errors
/// When there is none of this name, or policy does not list it.
pub fn find(name: &str, place: &Netns) -> Result<(Link, LinkInfo), Failure> {
    let lookup = || -> Result<_, HostError> {
        let link = place.link(name)?;
        let info = link.info()?;
        Ok((link, info))
    };
    let context = || ["failed to lookup master \"", name, "\""].concat();
    lookup().map_err(|error| match error {
        HostError::NotFound(_) => Failure::internal([&context(), ": Link not found"].concat()),
        error => Failure::from(error).context(&context()),
    })
}

/// Bytes, at most the master's; `None` (0 in the configuration) is the master's own.
///
/// # Errors
/// A negative one, or more than the master's.
pub fn mtu(wanted: i64, master: u32) -> Result<Option<u32>, Failure> {
    match u32::try_from(wanted) {
        Ok(0) => Ok(None),
        Ok(mtu) if mtu <= master => Ok(Some(mtu)),
        _ => Err(Failure::config(format!("invalid MTU {wanted}, must be [0, master MTU({master})]"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mtu_is_at_most_the_masters() {
        assert_eq!(mtu(0, 1500).unwrap(), None);
        assert_eq!(mtu(1500, 1500).unwrap(), Some(1500));
        assert_eq!(mtu(1501, 1500).unwrap_err().msg, "invalid MTU 1501, must be [0, master MTU(1500)]");
        assert_eq!(mtu(-1, 1500).unwrap_err().msg, "invalid MTU -1, must be [0, master MTU(1500)]");
    }
}
