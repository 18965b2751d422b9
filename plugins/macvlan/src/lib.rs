//! An interface with a MAC of its own, on a link of the node (or of the container).
//!
//! Keys and messages: containernetworking/plugins, plugins/main/macvlan.

mod check;
mod config;
mod master;

use config::Config;
use sandwire_plugin::configure::{self, Duplicates};
use sandwire_plugin::host::{self, links, sysctl, wait};
use sandwire_plugin::{
    Attachment, Call, CniResult, Failure, Gc, Link, Netns, NetworkCall, OrFail, Plugin, Status, code, mac,
};

/// How long duplicate address detection may take (the reference's `SettleAddresses`).
const ADDRESSES_SETTLE_MS: u32 = 10_000;

struct Macvlan;

sandwire_plugin::export!(Macvlan: check, gc, status);

impl Plugin for Macvlan {
    fn add(call: &Call) -> Result<CniResult, Failure> {
        let config = Config::load(call.config_text())?;
        let container = host::require_container()?;
        let link = create(call, &config, &container)?;
        let mut result = CniResult::default().with_interfaces([link.info()?.in_sandbox(call.sandbox())]);
        if config.ipam.is_set() {
            let given = config.ipam.add(call)?;
            (result.ips, result.routes) = (given.ips, given.routes);
            let mut result = result.with_ips_on(0);
            give_addresses(call, &config, &container, &link, &result)?;
            result.dns = config.dns;
            return Ok(result);
        }
        links::change(&link, &links::Changes::up(true))
            .or_fail(["failed to set \"", call.ifname(), "\" UP"].concat())?;
        result.dns = config.dns;
        Ok(result)
    }

    fn del(call: &Call) -> Result<(), Failure> {
        configure::detach(call, Config::load(call.config_text()).map(|config| config.ipam))
    }
}

impl Status for Macvlan {
    fn status(call: &NetworkCall) -> Result<(), Failure> {
        let config = Config::load(call.config_text())?;
        config.mode()?;
        // What the container has nobody knows before there is one.
        if !config.link_in_container {
            let node = host::netns();
            let found = master::name(&config, &node).and_then(|name| master::find(&name, &node));
            let (_, info) = found.map_err(|failure| Failure { code: code::NOT_AVAILABLE, ..failure })?;
            config.mtu(info.mtu)?;
        }
        config.ipam.status(call)
    }
}

impl Gc for Macvlan {
    fn gc(call: &NetworkCall, _: Option<&[Attachment]>) -> Result<(), Failure> {
        Config::load(call.config_text())?.ipam.gc(call)
    }
}

/// Makes the macvlan where it stays, with its name: the reference gives it a name of the node's for a moment.
fn create(call: &Call, config: &Config, container: &Netns) -> Result<Link, Failure> {
    let place = master::place(config).unwrap_or_else(host::netns);
    let (parent, info) = master::find(&master::name(config, &place)?, &place)?;
    let mtu = config.mtu(info.mtu)?;
    let mac = config.mac(call)?;
    let (mode, _) = config.mode()?;
    let mut device = links::Device::new(container).named(call.ifname()).mtu(mtu).mac(mac);
    if config.broadcast_queue != 0 {
        device = device.extra("macvlan.bcqueuelen", &config.broadcast_queue.to_string());
    }
    links::create_macvlan(&device, &parent, mode).map_err(|error| mac::not_made(error, mac, "failed to create macvlan"))
}

fn give_addresses(
    call: &Call,
    config: &Config,
    container: &Netns,
    link: &Link,
    result: &CniResult,
) -> Result<(), Failure> {
    let ifname = call.ifname();
    let has_v6 = result.ips.iter().any(|ip| ip.address.addr().is_ipv6());
    // The neighbours learn at once where an address lives that another container had before. Not fatal, as in the
    // reference: a kernel without IPv6 has no such key.
    let _ = sysctl::write(container, &["ipv4/conf/", ifname, "/arp_notify"].concat(), "1");
    let _ = sysctl::write(container, &["ipv6/conf/", ifname, "/ndisc_notify"].concat(), "1");
    let duplicates = if config.enable_dad { Duplicates::Probe } else { Duplicates::Trust };
    configure::apply(link, ifname, result, duplicates)?;
    if config.enable_dad && has_v6 {
        wait::addresses(link, ADDRESSES_SETTLE_MS)
            .or_fail(["failed to settle addresses for \"", ifname, "\""].concat())?;
    }
    Ok(())
}
