//! An interface with the MAC of the link that it rides on: for networks that allow one MAC a port.
//!
//! Keys and messages: containernetworking/plugins, plugins/main/ipvlan.

mod check;
mod config;

use config::Config;
use sandwire_plugin::configure::{self, Duplicates};
use sandwire_plugin::host::{self, links, sysctl};
use sandwire_plugin::{Attachment, Call, CniResult, Failure, Gc, NetworkCall, OrFail, Plugin, Status, code, master};

struct Ipvlan;

sandwire_plugin::export!(Ipvlan: check, gc, status);

impl Plugin for Ipvlan {
    fn add(call: &Call) -> Result<CniResult, Failure> {
        let config = Config::load(call.config_text())?;
        let container = host::require_container()?;
        let before = call.prev_result()?;
        let place = master::place(config.link_in_container).unwrap_or_else(host::netns);
        let name = config.master(before.as_ref(), &place)?;
        let (mode, _) = config.mode()?;
        let mtu = config.mtu()?;
        let (parent, _) = master::find(&name, &place)?;
        // In a chain the addresses may be there already.
        let before = before.filter(|result| !config.ipam.is_set() && !result.ips.is_empty());
        if before.is_none() {
            config.ipam.require("ipvlan")?;
        }

        // Where it stays, with its name: the reference gives it one of the node's for a moment.
        let device = links::Device::new(&container).named(call.ifname()).mtu(mtu);
        let link = links::create_ipvlan(&device, &parent, mode).or_fail("failed to create ipvlan")?;
        let interface = link.info()?.in_sandbox(call.sandbox());
        let given = before.map_or_else(|| config.ipam.add(call), Ok)?;
        let mut result = CniResult::default().with_interfaces([interface]);
        (result.ips, result.routes) = (given.ips, given.routes);
        let mut result = result.with_ips_on(0);
        // The neighbours learn at once where an address lives. Not fatal, as in the reference.
        let _ = sysctl::write(&container, &["ipv4/conf/", call.ifname(), "/arp_notify"].concat(), "1");
        let _ = sysctl::write(&container, &["ipv6/conf/", call.ifname(), "/ndisc_notify"].concat(), "1");
        configure::apply(&link, call.ifname(), &result, Duplicates::Trust)?;
        result.dns = config.dns;
        Ok(result)
    }

    fn del(call: &Call) -> Result<(), Failure> {
        // The reference's fails without a default route.
        configure::detach(call, Config::load(call.config_text()).map(|config| config.ipam))
    }
}

impl Status for Ipvlan {
    fn status(call: &NetworkCall) -> Result<(), Failure> {
        let config = Config::load(call.config_text())?;
        config.mode()?;
        config.mtu()?;
        // What the container has nobody knows before there is one, nor what an earlier plugin of a chain makes; and without a
        // name it may be that one's.
        if !config.link_in_container && !config.master.is_empty() {
            let found = master::find(&config.master, &host::netns());
            found.map_err(|failure| Failure { code: code::NOT_AVAILABLE, ..failure })?;
        }
        config.ipam.status(call)
    }
}

impl Gc for Ipvlan {
    fn gc(call: &NetworkCall, _: Option<&[Attachment]>) -> Result<(), Failure> {
        Config::load(call.config_text())?.ipam.gc(call)
    }
}
