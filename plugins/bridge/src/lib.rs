//! One veth per container; its host end is a port of a bridge that the containers of a network share.
//!
//! Keys and messages: containernetworking/plugins, plugins/main/bridge.

mod check;
mod config;
mod gateway;
mod vlan;

use config::Config;
use gateway::Gateway;
use sandwire_plugin::host::{self, bridging, firewall, links, shared, sysctl, wait};
use sandwire_plugin::{
    Address, Attachment, Call, CniResult, Failure, Gc, Interface, Link, LinkInfo, Netns, NetworkCall, OrFail, OrGone,
    OrUnavailable, Plugin, Status, configure, masquerade,
};

/// How long a port may take to come up; the reference sleeps 0, 50, 500, 1000 and 1000 ms before it gives up.
const PORT_UP_MS: u32 = 2550;
/// How long duplicate address detection may take (the reference's `dadSettleTimeout`).
const ADDRESSES_SETTLE_MS: u32 = 5000;

struct Bridge;

sandwire_plugin::export!(Bridge: check, gc, status);

impl Plugin for Bridge {
    fn add(call: &Call) -> Result<CniResult, Failure> {
        let config = Config::of(call)?;
        let (node, container) = (host::netns(), host::require_container()?);

        let bridge = ensure_bridge(&node, &config)?;
        let (port, inside) = attach(call, &config, &node, &container, &bridge)?;
        // What they are is filled in at the end: a bridge without a pinned MAC takes the lowest of its ports'.
        let mut result = CniResult::default().with_interfaces([
            Interface::default(),
            Interface::default(),
            Interface::new(call.ifname()),
        ]);
        let mut vlan_port = None;
        if config.ipam.is_set() {
            give_addresses(call, &config, &container, &inside, &mut result)?;
            if config.is_gateway() {
                vlan_port = gateway_of_the_vlan(&config, &bridge)?;
                for gateway in gateway::of(&result) {
                    serve(&node, &config, vlan_port.as_ref().unwrap_or(&bridge), &gateway)?;
                }
            }
            if config.ip_masq {
                masquerade::apply(&node, &result.ips)?;
            }
        } else if !config.disable_container_interface {
            links::change(&inside, &links::Changes::up(true))
                .or_fail(["failed to set \"", call.ifname(), "\" up"].concat())?;
        }

        let port = settled(&config, &port)?;
        let mut interfaces =
            vec![bridge.info()?.in_sandbox(""), port.in_sandbox(""), inside.info()?.in_sandbox(call.sandbox())];
        if let Some(vlan_port) = vlan_port {
            interfaces.push(vlan_port.info()?.in_sandbox(""));
        }
        Ok(result.with_interfaces(interfaces).with_dns(config.dns))
    }

    fn del(call: &Call) -> Result<(), Failure> {
        let config = Config::of(call)?;
        // Each is done whatever becomes of the others: an address that is kept because a link could not be removed is
        // how pools run dry, and the rules of a container that is gone would catch the next one with its address
        // (containernetworking/plugins#810).
        let unlinked = detach(call);
        let released = config.ipam.del(call);
        let cleared = firewall::clear(&host::netns()).or_fail("failed to remove the firewall rules");
        unlinked.and(released).and(cleared)
    }
}

impl Status for Bridge {
    fn status(call: &NetworkCall) -> Result<(), Failure> {
        let config = Config::load(call.config_text())?;
        config.check_for_add()?;
        ready(&host::netns(), &config)?;
        config.ipam.status(call)
    }
}

/// STATUS: whether the node has what the configuration needs.
fn ready(node: &Netns, config: &Config) -> Result<(), Failure> {
    let bridge = links::Device::new(node).named(&config.bridge);
    shared::check_bridge(&bridge, config.filters_vlans()).or_unavailable(
        ["bridge \"", &config.bridge, "\" can't be used"].concat(),
        if config.filters_vlans() {
            "name another bridge in \"bridge\", remove what has its name, take a kernel whose bridges tell VLANs apart, or leave \"vlan\" and \"vlanTrunk\" out"
        } else {
            "name another bridge in \"bridge\", or remove what has its name"
        },
    )?;
    if config.ip_masq {
        masquerade::ready(node)?;
    }
    if config.mac_spoof_check {
        firewall::check_support(node, &[firewall::RuleKind::SpoofCheck]).or_unavailable(
            "macspoofchk is not possible here",
            "take a kernel with nftables for bridges (CONFIG_NF_TABLES_BRIDGE), load its modules (modprobe -a nf_tables nft_meta_bridge), or set \"macspoofchk\": false",
        )?;
    }
    Ok(())
}

impl Gc for Bridge {
    fn gc(call: &NetworkCall, _: Option<&[Attachment]>) -> Result<(), Failure> {
        Config::load(call.config_text())?.ipam.gc(call)
    }
}

fn ensure_bridge(node: &Netns, config: &Config) -> Result<Link, Failure> {
    let device = links::Device::new(node).named(&config.bridge).mtu(config.mtu()).up();
    let context = || ["failed to create bridge \"", &config.bridge, "\""].concat();
    let bridge = shared::ensure_bridge(&device, config.filters_vlans()).or_fail(context())?;
    if config.promisc_mode {
        shared::ensure_promisc(&bridge, true).or_fail(context())?;
    }
    // A container could otherwise announce itself as the node's IPv6 router. Not fatal: a kernel may have no IPv6.
    let _ = shared::ensure_sysctl(node, &["ipv6/conf/", &config.bridge, "/accept_ra"].concat(), "0");
    Ok(bridge)
}

/// Makes the veth: (the bridge's port, the container's interface).
fn attach(
    call: &Call,
    config: &Config,
    node: &Netns,
    container: &Netns,
    bridge: &Link,
) -> Result<(Link, Link), Failure> {
    let mac = config.mac(call)?;
    let outside = links::Device::new(node).mtu(config.mtu()).master(bridge).up();
    let inside = links::Device::new(container).named(call.ifname()).mtu(config.mtu()).mac(mac);
    let (port, inside) = links::create_veth(&outside, &inside)?;
    // A new port has neither. Nor does it need accept_ra=0, which the reference writes: a bridge takes all frames of a
    // port (br_handle_frame), so none reaches the port's own IPv6.
    if config.hairpin_mode || config.port_isolation {
        bridging::set_port(&port, config.hairpin_mode, config.port_isolation, &[])
            .or_fail("failed to setup hairpin mode and isolation of the port")?;
    }
    if config.filters_vlans() {
        let present = if config.preserve_default_vlan { bridging::get_vlans(&port)? } else { Vec::new() };
        if let Some(vlans) = vlan::of_port(&present, config.vlan_id(), &config.trunk()?) {
            bridging::set_vlans(&port, &vlans).or_fail("failed to setup vlan tag on the port")?;
        }
    }
    if config.mac_spoof_check {
        let rules = firewall::open(node, "spoof-check").or_fail("failed to set up the MAC spoof check")?;
        rules.spoof_check(&port, &inside.info()?.mac);
        rules.commit().or_fail("failed to set up the MAC spoof check")?;
    }
    Ok((port, inside))
}

/// Asks the address manager and brings the container's interface into service with what it gave.
fn give_addresses(
    call: &Call,
    config: &Config,
    container: &Netns,
    inside: &Link,
    result: &mut CniResult,
) -> Result<(), Failure> {
    let given = config.ipam.add(call)?;
    (result.ips, result.routes, result.dns) = (given.ips, given.routes, given.dns);
    gateway::complete(result, config.is_gateway(), config.is_default_gateway);

    let ifname = call.ifname();
    let has_v6 = result.ips.iter().any(|ip| ip.address.addr().is_ipv6());
    let (duplicates, accept_dad) =
        if config.enable_dad { (configure::Duplicates::Probe, "1") } else { (configure::Duplicates::Trust, "0") };
    // Not fatal, as in the reference: a kernel without IPv6 has none of these keys.
    if has_v6 {
        let _ = sysctl::write(container, &["ipv6/conf/", ifname, "/accept_dad"].concat(), accept_dad);
        if config.enable_dad {
            let _ = sysctl::write(container, &["ipv6/conf/", ifname, "/enhanced_dad"].concat(), "1");
        }
    }
    // The neighbours learn at once where an address lives that another container had before.
    let _ = sysctl::write(container, &["ipv4/conf/", ifname, "/arp_notify"].concat(), "1");
    configure::apply(inside, ifname, result, duplicates)?;
    if config.enable_dad && has_v6 {
        wait::addresses(inside, ADDRESSES_SETTLE_MS)
            .or_fail(["failed to settle addresses for \"", ifname, "\""].concat())?;
    }
    Ok(())
}

/// The link that has the gateways of a VLAN; none without a VLAN, when the bridge itself has them.
fn gateway_of_the_vlan(config: &Config, bridge: &Link) -> Result<Option<Link>, Failure> {
    match config.vlan_id() {
        0 => Ok(None),
        vlan => shared::ensure_vlan_port(bridge, vlan).or_fail("failed to create vlan interface").map(Some),
    }
}

/// Puts a gateway's address on a link of the node and lets the node forward its family.
fn serve(node: &Netns, config: &Config, link: &Link, gateway: &Gateway) -> Result<(), Failure> {
    let mut address = Address::new(gateway.address.to_string());
    address.no_dad = !config.enable_dad;
    shared::ensure_address(link, &address, config.force_address).or_fail(if config.vlan_id() == 0 {
        "failed to set bridge addr"
    } else {
        "failed to set vlan interface for bridge with addr"
    })?;
    let key = if gateway.address.addr().is_ipv4() { "ipv4/ip_forward" } else { "ipv6/conf/all/forwarding" };
    shared::ensure_sysctl(node, key, "1").or_fail("failed to enable forwarding")
}

/// Waits until the bridge forwards for the port, and answers what the port then is.
///
/// A port is disabled until its carrier is on, and the kernel tells a bridge of that from a work queue
/// (net/core/link_watch.c): frames that the container sent before it would be lost.
fn settled(config: &Config, port: &Link) -> Result<LinkInfo, Failure> {
    let info = port.info()?;
    if !config.disable_container_interface && info.operstate != "up" {
        wait::link_up(port, PORT_UP_MS).or_fail("bridge port in error state")?;
    }
    Ok(info)
}

/// Removes the container's interface, and with it the bridge's port. The kernel has done it when the namespace is gone.
fn detach(call: &Call) -> Result<(), Failure> {
    let Some(container) = host::container() else { return Ok(()) };
    let context = || ["failed to delete \"", call.ifname(), "\""].concat();
    let Some(link) = container.link(call.ifname()).or_gone().or_fail(context())? else { return Ok(()) };
    links::remove(&link).or_gone().or_fail(context()).map(drop)
}
