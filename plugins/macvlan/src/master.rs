//! `master`: the link that the macvlan rides on.

use crate::config::Config;
use sandwire_plugin::{Failure, Netns, master};

pub(crate) use master::find;

/// The namespace that the master is in; `None` when the container is to have it and is gone.
pub(crate) fn place(config: &Config) -> Option<Netns> {
    master::place(config.link_in_container)
}

/// The name: the configuration's, or the interface of the first default route.
pub(crate) fn name(config: &Config, place: &Netns) -> Result<String, Failure> {
    if config.master.is_empty() { master::of_default_route(place) } else { Ok(config.master.clone()) }
}
