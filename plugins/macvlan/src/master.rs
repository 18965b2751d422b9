//! `master`: the link that the macvlan rides on.

use crate::config::Config;
use sandwire_plugin::host::{self, namespaces::LinkInfo, routes};
use sandwire_plugin::{Failure, HostError, Link, Netns, OrFail};

/// `RT_TABLE_MAIN`.
const MAIN: u32 = 254;

/// The namespace that the master is in; `None` when the container is to have it and is gone.
pub(crate) fn place(config: &Config) -> Option<Netns> {
    if config.link_in_container { host::container() } else { Some(host::netns()) }
}

/// The name: the configuration's, or the interface of the first default route.
pub(crate) fn name(config: &Config, place: &Netns) -> Result<String, Failure> {
    if !config.master.is_empty() {
        return Ok(config.master.clone());
    }
    let routes = routes::get(place, Some(MAIN)).or_fail("could not list the routes")?;
    let default = routes.into_iter().find(|entry| ["0.0.0.0/0", "::/0"].contains(&entry.route.dst.as_str()));
    default.map(|entry| entry.link).ok_or_else(|| Failure::internal("no default route interface found"))
}

/// The link, as it is now.
pub(crate) fn find(name: &str, place: &Netns) -> Result<(Link, LinkInfo), Failure> {
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
