//! `bagpipe`: a pod in a BGP VPN. One veth per container, whose host end a BaGPipe agent on the node plugs into the EVPN
//! instance of the network; the agent announces the pod over BGP and makes the VXLAN to the other nodes.
//!
//! Configuration keys: the plugin of 2016 (bagpipe-cni), which this takes the place of. What the agent expects and answers:
//! networking-bagpipe 21.0.0, `bagpipe_bgp/api/controllers.py`; `docs/bagpipe.md`.

mod agent;
mod config;
mod instance;
mod mtu;
mod route_target;

use config::{Addressing, Config};
use instance::Instance;
use sandwire_plugin::host::{self, firewall, links, shared};
use sandwire_plugin::{
    Address, Call, Check, CniResult, Failure, Gc, IpConfig, Link, Netns, NetworkCall, OrFail, OrGone, Plugin, Status,
};
use sandwire_plugin::{Attachment, configure, masquerade, verify};

/// The plugin.
pub struct Bagpipe;

sandwire_plugin::export!(Bagpipe: check, gc, status);

impl Plugin for Bagpipe {
    fn add(call: &Call) -> Result<CniResult, Failure> {
        // Everything that can be wrong is found before the agent is asked: an attach that it refuses half-way leaves an
        // empty instance and its bridge behind (networking-bagpipe, `VPNManager.plug_vif_to_vpn`).
        let config = Config::of(call)?;
        let instance = config.instance();
        let (host, container) = (host::netns(), host::require_container()?);
        let mtu = mtu::choose(&host, config.mtu)?;
        let mut result = config.ipam.add(call)?;
        let announced = announced(&mut result, config.is_gateway)?;

        let (host_end, pod_end) = links::create_veth(
            &links::Device::new(&host).mtu(Some(mtu)).up(),
            &links::Device::new(&container).named(call.ifname()).mtu(Some(mtu)),
        )
        .or_fail("could not make the pod's veth")?;
        let (host_info, pod_info) = (host_end.info()?, pod_end.info()?);
        result.interfaces = vec![host_info.in_sandbox(""), pod_info.in_sandbox(call.sandbox())];
        for ip in &mut result.ips {
            ip.interface = Some(1);
        }
        if let Some(dns) = config.dns.clone() {
            result.dns = dns;
        }
        configure::apply(&pod_end, call.ifname(), &result, configure::Duplicates::Trust)?;
        if config.ip_masq {
            masquerade::apply(&host, &result.ips)?;
        }
        let endpoint = agent::Endpoint {
            instance: &instance,
            import_rt: &config.import_rt,
            export_rt: &config.export_rt,
            vni: config.vni,
            linuxif: &host_info.name,
            mac: &pod_info.mac,
            ip: announced.address,
            gateway: announced.gateway,
        };
        agent::attach(call, &endpoint)?;
        if config.is_gateway {
            put_gateway(&host, &instance, &announced)?;
        }
        Ok(result)
    }

    fn del(call: &Call) -> Result<(), Failure> {
        // Only the delegate's name is needed: what ADD registered is the host's to remember, and a configuration whose
        // route targets were broken meanwhile must not keep the pod.
        let config: Addressing = call.config()?;
        // First the announcement, so that no node sends to an address that may be given to another pod.
        agent::detach()?;
        if let Some(container) = host::container()
            && let Some(link) = container.link(call.ifname()).or_gone()?
        {
            links::remove(&link).or_gone().or_fail("could not remove the pod's interface")?;
        }
        firewall::clear(&host::netns()).or_fail("could not remove the masquerading rules")?;
        config.ipam.del(call)
    }
}

impl Check for Bagpipe {
    fn check(call: &Call) -> Result<(), Failure> {
        let config = Config::of(call)?;
        let instance = config.instance();
        let result = call.require_prev_result()?;
        let (host, container) = (host::netns(), host::require_container()?);
        config.ipam.check(call)?;

        let (place, pod) = result.container_interface(call.ifname()).ok_or_else(|| {
            Failure::internal(format!("prevResult has no interface {:?} in a sandbox", call.ifname()))
        })?;
        let ips: Vec<IpConfig> = result.ips_on(place).cloned().collect();
        let (pod_end, pod_info) = verify::interface(&container, pod, verify::Place::Container)?;
        if !verify::mac_matches(pod, &pod_info) {
            return Err(Failure::internal(format!(
                "{} has MAC address {}, but its MAC address when it was attached was {}",
                pod.name,
                pod_info.mac,
                pod.mac.as_deref().unwrap_or_default()
            )));
        }
        verify::addresses(&container, &pod_end, call.ifname(), &ips)?;
        verify::routes(&container, &result.routes)?;

        // The veth's other end, whatever prevResult calls it: the agent knows it by this name.
        let host_info = pod_end
            .peer()
            .and_then(|peer| peer.info())
            .or_fail(format!("{} has no other end in the host", pod.name))?;
        let bridge = instance.bridge();
        if host_info.master.as_deref() != Some(bridge.as_str()) {
            return Err(Failure::internal(format!(
                "{} is a port of {}, not of {bridge}, the bridge of VPN instance {}",
                host_info.name,
                host_info.master.as_deref().unwrap_or("no bridge"),
                instance.id
            )));
        }
        let announced = first_v4(&ips)?;
        agent::check(&instance, &host_info.name, &pod_info.mac, announced.address)?;
        if config.is_gateway {
            check_gateway(&host, &instance, &gateway_of(&announced))?;
        }
        if config.ip_masq { masquerade::check(&host, &ips) } else { Ok(()) }
    }
}

impl Gc for Bagpipe {
    /// Links, rules and endpoint calls are the host's to collect; a delegate's leases are the delegate's.
    fn gc(call: &NetworkCall, _valid: Option<&[Attachment]>) -> Result<(), Failure> {
        call.config::<Addressing>()?.ipam.gc(call)
    }
}

impl Status for Bagpipe {
    fn status(call: &NetworkCall) -> Result<(), Failure> {
        let config = Config::of_network(call)?;
        if config.ip_masq {
            masquerade::ready(&host::netns())?;
        }
        config.ipam.status(call)?;
        agent::ready()
    }
}

/// The address that the agent announces: the first IPv4 one, with its gateway when there is one. With `isGateway` and no
/// gateway from ipam, it is the first address of the subnet, in the result too.
fn announced(result: &mut CniResult, is_gateway: bool) -> Result<IpConfig, Failure> {
    if is_gateway {
        for ip in result.ips.iter_mut().filter(|ip| ip.gateway.is_none()) {
            ip.gateway = Some(sandwire_plugin::addr::first(ip.address));
        }
    }
    for ip in result.ips.iter().filter(|ip| ip.address.addr().is_ipv6()) {
        sandwire_plugin::log!(Warn, "{} works on this node only: the BGP agent announces IPv4 addresses", ip.address);
    }
    first_v4(&result.ips)
}

fn first_v4(ips: &[IpConfig]) -> Result<IpConfig, Failure> {
    ips.iter().find(|ip| ip.address.addr().is_ipv4()).cloned().ok_or_else(|| {
        Failure::config("ipam gave no IPv4 address").with_details(
            "the agent's EVPN driver announces IPv4 endpoints only: give \"ipam\" an IPv4 subnet (an IPv6 one may stand beside it)",
        )
    })
}

/// The gateway's address as the bridge gets it, with the subnet's prefix length.
fn gateway_of(announced: &IpConfig) -> Option<String> {
    announced.gateway.map(|gateway| format!("{gateway}/{}", announced.address.prefix_len()))
}

/// The same address and MAC on the network's bridge of every node: a pod that is started again elsewhere, with the same
/// ARP cache as before, finds its gateway. Made after the attach, since the bridge is the agent's and ends with the last
/// endpoint.
fn put_gateway(host: &Netns, instance: &Instance, announced: &IpConfig) -> Result<(), Failure> {
    let name = instance.bridge();
    let bridge: Link =
        host.link(&name).or_fail(format!("the agent attached the pod, but its bridge {name} can't be found"))?;
    let address = gateway_of(announced)
        .ok_or_else(|| Failure::config("isGateway: ipam gave no gateway and its subnet has no address for one"))?;
    shared::ensure_mac(&bridge, &instance.gateway_mac()).or_fail(format!("could not give {name} the gateway's MAC"))?;
    shared::ensure_address(&bridge, &Address::new(address).no_dad(), false)
        .or_fail(format!("could not give {name} the gateway's address"))?;
    shared::ensure_sysctl(host, "ipv4/ip_forward", "1").or_fail("could not enable forwarding")
}

fn check_gateway(host: &Netns, instance: &Instance, address: &Option<String>) -> Result<(), Failure> {
    let name = instance.bridge();
    let bridge = host.link(&name).or_fail(format!("bridge {name} is gone"))?;
    let info = bridge.info().or_fail(format!("bridge {name} is gone"))?;
    let present = host::addresses::get(&bridge).or_fail(format!("could not list the addresses of {name}"))?;
    if let Some(wanted) = address
        && !present.iter().any(|address| &address.cidr == wanted)
    {
        return Err(Failure::internal(format!("bridge {name} has no gateway address {wanted}")));
    }
    if !info.mac.eq_ignore_ascii_case(&instance.gateway_mac()) {
        return Err(Failure::internal(format!(
            "bridge {name} has MAC {}, the network's gateway has {}",
            info.mac,
            instance.gateway_mac()
        )));
    }
    Ok(())
}
