//! What attachments of a node have in common: made sure of, never taken back because one attachment failed or went.

use crate::{AddressSpec, BridgeSpec, DeviceSpec, Kernel, KernelError, LinkChanges, LinkId, LinkInfo, Mac, Outcome};
use ipnet::IpNet;
use std::hash::{BuildHasher, Hasher, RandomState};

/// The named bridge, made if missing, and up; whether it was made.
///
/// # Errors
/// `Conflict` when another kind of link has the name.
pub fn ensure_bridge(kernel: &mut dyn Kernel, device: &DeviceSpec, bridge: &BridgeSpec) -> Outcome<(LinkInfo, bool)> {
    let Some(name) = device.name.as_deref() else {
        return Err(KernelError::Invalid("a bridge that attachments share needs a name".into()));
    };
    // Two first pods at once both find nothing and both create: the second gets EEXIST and uses the first's
    // (containernetworking/plugins#366).
    let (info, made) = match kernel.link_by_name(device.netns, name) {
        Ok(info) => (info, false),
        Err(KernelError::NotFound(_)) => match kernel.create_bridge(&with_mac(device), bridge) {
            Ok(id) => (kernel.link_info(id)?, true),
            Err(KernelError::Exists(_)) => (kernel.link_by_name(device.netns, name)?, false),
            Err(error) => return Err(error),
        },
        Err(error) => return Err(error),
    };
    is_as_wanted(&info, bridge)?;
    if device.up && !info.up {
        kernel.change_link(info.id, &LinkChanges { up: Some(true), ..LinkChanges::default() })?;
        return Ok((kernel.link_info(info.id)?, made));
    }
    Ok((info, made))
}

/// What [`ensure_bridge`] would be refused for; nothing is made.
///
/// # Errors
/// `Conflict` as there; `Unsupported` when it shall tell VLANs apart, and this kernel's bridges can't.
pub fn check_bridge(kernel: &mut dyn Kernel, device: &DeviceSpec, bridge: &BridgeSpec) -> Outcome<()> {
    if bridge.vlan_filtering {
        kernel.check_vlan_filtering()?;
    }
    match kernel.link_by_name(device.netns, device.name.as_deref().unwrap_or_default()) {
        Ok(info) => is_as_wanted(&info, bridge),
        Err(KernelError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether a link is a VRF that others are in. `false` when it is gone.
///
/// # Errors
/// The kernel's.
pub fn is_vrf_in_use(kernel: &mut dyn Kernel, link: LinkId) -> Outcome<bool> {
    match kernel.link_info(link) {
        Ok(info) if info.kind == "vrf" => {
            Ok(kernel.links(link.netns)?.iter().any(|other| other.master == Some(link.index)))
        }
        Ok(_) | Err(KernelError::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_as_wanted(info: &LinkInfo, bridge: &BridgeSpec) -> Outcome<()> {
    let name = &info.name;
    if info.kind != "bridge" {
        return Err(KernelError::Conflict(format!("{name:?} already exists but is not a bridge")));
    }
    if bridge.vlan_filtering && info.vlan_filtering == Some(false) {
        return Err(KernelError::Conflict(format!(
            "bridge {name:?} exists without VLAN filtering, which \"vlan\" and \"vlanTrunk\" need; set it with  ip link set {name} type bridge vlan_filtering 1  or name another bridge"
        )));
    }
    Ok(())
}

/// A bridge that is made with a MAC keeps it (`br_stp_recalculate_bridge_id`, NET_ADDR_SET); any other takes the lowest of its
/// ports', and of two first pods at once one would be told a MAC that the other's port or gateway changes a moment later.
fn with_mac(device: &DeviceSpec) -> DeviceSpec {
    let [_, _, a, b, c, d, e, f] = RandomState::new().build_hasher().finish().to_be_bytes();
    // One interface's, locally administered (IEEE 802), as the kernel's own (`eth_random_addr`).
    let random = Mac([a & 0xfe | 0x02, b, c, d, e, f]);
    DeviceSpec { mac: device.mac.or(Some(random)), ..device.clone() }
}

/// A gateway's address on a shared link; whether anything was changed.
///
/// Another IPv4 address, or an overlapping IPv6 one, is replaced if `force`, else a conflict; IPv6 addresses that don't
/// overlap may be beside each other. The link's MAC is then pinned: a bridge otherwise takes the lowest of its ports'
/// MACs, and every neighbour's entry for the gateway goes stale when ports come and go.
///
/// # Errors
/// `Conflict` with the reference's text.
pub fn ensure_address(kernel: &mut dyn Kernel, link: &LinkInfo, wanted: &AddressSpec, force: bool) -> Outcome<bool> {
    let address = wanted.address;
    for present in kernel.addresses(link.id)? {
        if present.address == address {
            return Ok(false);
        }
        let other = match (present.address, address) {
            (IpNet::V4(_), IpNet::V4(_)) => true,
            (IpNet::V6(a), IpNet::V6(b)) => {
                !a.addr().is_unicast_link_local() && (a.contains(&b.network()) || b.contains(&a.network()))
            }
            _ => false,
        };
        if !other {
            continue;
        }
        if !force {
            return Err(KernelError::Conflict(format!(
                "{:?} already has an IP address different from {address}",
                link.name
            )));
        }
        match kernel.remove_address(link.id, present.address) {
            Ok(()) | Err(KernelError::NotFound(_)) => {}
            Err(error) => return Err(error.context(format!("could not remove IP address from {:?}", link.name))),
        }
    }
    match kernel.add_address(link.id, wanted) {
        Ok(()) | Err(KernelError::Exists(_)) => {}
        Err(error) => return Err(error.context(format!("could not add IP address to {:?}", link.name))),
    }
    // What it is now: ports may have come since `link` was looked at.
    if let Some(mac) = kernel.link_info(link.id)?.mac {
        ensure_mac(kernel, link, mac)?;
    }
    Ok(true)
}

/// Sets the MAC of a shared link for good (IFLA_ADDRESS on a bridge ends its following of its ports' MACs).
///
/// # Errors
/// The kernel's.
pub fn ensure_mac(kernel: &mut dyn Kernel, link: &LinkInfo, mac: Mac) -> Outcome<()> {
    kernel
        .change_link(link.id, &LinkChanges { mac: Some(mac), ..LinkChanges::default() })
        .map_err(|error| error.context(format!("could not set the MAC of {:?}", link.name)))
}

/// The veth whose host end is named `name` ("BRIDGE.VLAN") and whose other end is an untagged port of `vlan` of the
/// bridge; whether it was made. It is where the reference bridge plugin puts the gateway of a VLAN.
///
/// # Errors
/// `Conflict` when another kind of link has the name.
pub fn ensure_vlan_port(
    kernel: &mut dyn Kernel,
    bridge: &LinkInfo,
    name: &str,
    vlan: u16,
) -> Outcome<(LinkInfo, bool)> {
    match kernel.link_by_name(bridge.id.netns, name) {
        Ok(info) => return finish_vlan_port(kernel, info, vlan).map(|info| (info, false)),
        Err(KernelError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    // Not up before it has its VLAN: who is killed in between leaves a pair that carries nothing, and that the next one
    // can tell from a finished one.
    let mut outer = DeviceSpec::new(bridge.id.netns);
    outer.name = Some(name.to_owned());
    outer.mtu = Some(bridge.mtu);
    let mut port = DeviceSpec::new(bridge.id.netns);
    port.mtu = Some(bridge.mtu);
    port.master = Some(bridge.id);
    port.up = true;
    match kernel.create_veth(&outer, &port) {
        Ok((outer, _)) => {
            let finished = kernel.link_info(outer).and_then(|info| finish_vlan_port(kernel, info, vlan));
            if finished.is_err() {
                kernel.delete_link(outer)?;
            }
            Ok((finished?, true))
        }
        // Another pod's ADD was faster.
        Err(KernelError::Exists(_)) => {
            let info = kernel.link_by_name(bridge.id.netns, name)?;
            Ok((finish_vlan_port(kernel, info, vlan)?, false))
        }
        Err(error) => Err(error),
    }
}

/// Gives the other end of a VLAN's gateway its VLAN and brings it into service, unless that was done.
fn finish_vlan_port(kernel: &mut dyn Kernel, outer: LinkInfo, vlan: u16) -> Outcome<LinkInfo> {
    if outer.kind != "veth" {
        return Err(KernelError::Conflict(format!("{:?} already exists but is not a veth", outer.name)));
    }
    if outer.up {
        return Ok(outer);
    }
    let port = kernel.veth_peer(outer.id)?;
    let vlans = [crate::PortVlan { first: vlan, last: vlan, pvid: true, untagged: true }];
    kernel.set_port_vlans(port.id, &vlans)?;
    kernel.change_link(outer.id, &LinkChanges { up: Some(true), ..LinkChanges::default() })?;
    kernel.link_info(outer.id)
}
