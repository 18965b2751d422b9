//! An interface in one VLAN (IEEE 802.1Q) of a link of the node, or of the container.
//!
//! Keys and messages: containernetworking/plugins, plugins/main/vlan.

mod check;
mod config;

use config::Config;
use sandwire_plugin::configure::{self, Duplicates};
use sandwire_plugin::host::{self, links};
use sandwire_plugin::{Attachment, Call, CniResult, Failure, Gc, NetworkCall, OrFail, Plugin, Status, code, master};

struct Vlan;

sandwire_plugin::export!(Vlan: check, gc, status);

impl Plugin for Vlan {
    fn add(call: &Call) -> Result<CniResult, Failure> {
        let config = Config::load(call.config_text())?;
        let container = host::require_container()?;
        let (name, vlan) = config.identity()?;
        let place = master::place(config.link_in_container).unwrap_or_else(host::netns);
        let (parent, info) = master::find(name, &place)?;
        let mtu = config.mtu(info.mtu)?;
        let of_delegate = |failure: Failure| failure.context("failed to execute IPAM delegate");
        config.ipam.require("vlan").map_err(of_delegate)?;

        // Where it stays, with its name: the reference gives it one of the node's for a moment.
        let device = links::Device::new(&container).named(call.ifname()).mtu(mtu);
        let link = links::create_vlan(&device, &parent, vlan).or_fail("failed to create vlan")?;
        let interface = link.info()?.in_sandbox(call.sandbox());
        let given = config.ipam.add(call).map_err(of_delegate)?;
        let mut result = CniResult::default().with_interfaces([interface]);
        (result.ips, result.routes) = (given.ips, given.routes);
        let mut result = result.with_ips_on(0);
        configure::apply(&link, call.ifname(), &result, Duplicates::Trust)?;
        result.dns = config.dns;
        Ok(result)
    }

    fn del(call: &Call) -> Result<(), Failure> {
        // The reference's fails when the master is gone.
        configure::detach(call, Config::load(call.config_text()).map(|config| config.ipam))
    }
}

impl Status for Vlan {
    fn status(call: &NetworkCall) -> Result<(), Failure> {
        let config = Config::load(call.config_text())?;
        let (name, _) = config.identity()?;
        config.ipam.require("vlan")?;
        // What the container has nobody knows before there is one.
        if !config.link_in_container {
            let found = master::find(name, &host::netns());
            let (_, info) = found.map_err(|failure| Failure { code: code::NOT_AVAILABLE, ..failure })?;
            config.mtu(info.mtu)?;
        }
        config.ipam.status(call)
    }
}

impl Gc for Vlan {
    fn gc(call: &NetworkCall, _: Option<&[Attachment]>) -> Result<(), Failure> {
        Config::load(call.config_text())?.ipam.gc(call)
    }
}
