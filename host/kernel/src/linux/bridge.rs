//! Ports of a bridge.

use super::attributes::Attributes;
use super::links::{
    self, IFINFOMSG, IFLA_BRPORT_ISOLATED, IFLA_BRPORT_LEARNING, IFLA_BRPORT_MODE, IFLA_BRPORT_NEIGH_SUPPRESS,
    IFLA_BRPORT_UNICAST_FLOOD, RTM_NEWLINK,
};
use super::netns::Namespace;
use super::socket::{Received, Refusal, Request, u16_at, u32_at};
use crate::{BridgePort, KernelError, LinkId, Outcome, PortVlan};
use netlink_packet_core::DefaultNla;
use netlink_packet_route::link::{
    AfSpecBridge, BridgeFlag, BridgeVlanInfo, BridgeVlanInfoFlags, LinkAttribute, LinkExtentMask, LinkMessage,
    LinkProtoInfoBridge,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

// linux/if_link.h, linux/if_bridge.h
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const BRIDGE_VLAN_INFO_PVID: u16 = 2;
const BRIDGE_VLAN_INFO_UNTAGGED: u16 = 4;
const BRIDGE_VLAN_INFO_RANGE_BEGIN: u16 = 8;
const BRIDGE_VLAN_INFO_RANGE_END: u16 = 16;

fn message(port: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = port;
    message
}

pub(super) fn set_port(namespace: &mut Namespace, port: u32, settings: &BridgePort) -> Outcome<()> {
    let mut message = message(port);
    let flags = [
        (IFLA_BRPORT_MODE, Some(settings.hairpin)),
        (IFLA_BRPORT_ISOLATED, Some(settings.isolated)),
        (IFLA_BRPORT_LEARNING, settings.learning),
        (IFLA_BRPORT_UNICAST_FLOOD, settings.flood),
        (IFLA_BRPORT_NEIGH_SUPPRESS, settings.neigh_suppress),
    ];
    let flags = flags.into_iter().filter_map(|(kind, on)| Some((kind, on?)));
    let info = flags.map(|(kind, on)| LinkProtoInfoBridge::Other(DefaultNla::new(kind, vec![u8::from(on)])));
    message.attributes.push(LinkAttribute::ProtoInfoBridge(info.collect()));
    match namespace.route.request(RouteNetlinkMessage::SetLink(message), 0) {
        Ok(_) => Ok(()),
        Err(refusal) => Err(no_port(namespace, port, refusal, "could not set up bridge port")),
    }
}

/// RTM_SETLINK of AF_BRIDGE answers EOPNOTSUPP for a link without a bridge (`rtnl_bridge_setlink`).
fn no_port(namespace: &mut Namespace, port: u32, refusal: Refusal, what: &str) -> KernelError {
    let (netns, name) = (namespace.netns, links::name_of(namespace, port));
    let master = links::by_index(namespace, port).map(|info| info.master.is_some() || info.kind == "bridge");
    match (refusal.errno, master) {
        (Errno::EOPNOTSUPP | Errno::EINVAL, Ok(false)) => not_a_port(namespace, &name),
        _ => refusal.into_error(format_args!("{what} {name:?} in {netns}")),
    }
}

fn not_a_port(namespace: &Namespace, name: &str) -> KernelError {
    KernelError::NotFound(format!("link {name:?} in {} is no port of a bridge", namespace.netns))
}

/// All ports (and bridges) of a namespace as AF_BRIDGE shows them, or only `port`: this dump has no filter by index.
fn shown(namespace: &mut Namespace, port: u32, mask: Option<LinkExtentMask>) -> Outcome<Option<Received>> {
    let netns = namespace.netns;
    let mut message = message(0);
    message.attributes.extend(mask.map(|mask| LinkAttribute::ExtMask(vec![mask])));
    let objects = match namespace.route.dump(&RouteNetlinkMessage::GetLink(message)) {
        Ok(objects) => objects,
        // No bridge module loaded.
        Err(refusal) if refusal.errno == Errno::EOPNOTSUPP => Vec::new(),
        Err(refusal) => return Err(refusal.into_error(format_args!("could not list bridge ports of {netns}"))),
    };
    let is_it = |object: &Received| {
        object.kind == RTM_NEWLINK
            && object.payload.first() == Some(&(libc::AF_BRIDGE as u8))
            && u32_at(&object.payload, 4) == Some(port)
    };
    Ok(objects.into_iter().find(is_it))
}

pub(super) fn port(namespace: &mut Namespace, port: u32) -> Outcome<BridgePort> {
    let found = shown(namespace, port, None)?;
    let settings = found.as_ref().and_then(|object| {
        let attributes = Attributes::after(&object.payload, IFINFOMSG);
        attributes.u32(IFLA_MASTER)?;
        let flags = attributes.nested(IFLA_PROTINFO)?;
        let flag = |kind| flags.u8(kind).map(|value| value != 0);
        Some(BridgePort {
            hairpin: flag(IFLA_BRPORT_MODE)?,
            isolated: flag(IFLA_BRPORT_ISOLATED).unwrap_or(false),
            learning: flag(IFLA_BRPORT_LEARNING),
            flood: flag(IFLA_BRPORT_UNICAST_FLOOD),
            neigh_suppress: flag(IFLA_BRPORT_NEIGH_SUPPRESS),
        })
    });
    settings.map_or_else(
        || {
            // `NotFound` of the link itself, if that is the reason.
            let name = links::by_index(namespace, port)?.name;
            Err(not_a_port(namespace, &name))
        },
        Ok,
    )
}

/// Sorted, without overlap. A kernel without VLAN filtering answers with none.
pub(super) fn vlans(namespace: &mut Namespace, port: u32) -> Outcome<Vec<PortVlan>> {
    let Some(object) = shown(namespace, port, Some(LinkExtentMask::BrvlanCompressed))? else {
        let name = links::by_index(namespace, port)?.name;
        return Err(not_a_port(namespace, &name));
    };
    let spec = Attributes::after(&object.payload, IFINFOMSG).nested(IFLA_AF_SPEC);
    let entries = spec.into_iter().flat_map(Attributes::iter).filter(|(kind, _)| *kind == IFLA_BRIDGE_VLAN_INFO);
    Ok(ranges(entries.filter_map(|(_, value)| Some((u16_at(value, 0)?, u16_at(value, 2)?)))))
}

// linux/rtnetlink.h
const RTM_GETVLAN: u16 = 114;

/// Whether bridges here can tell VLANs apart. A kernel without CONFIG_BRIDGE_VLAN_FILTERING registers no RTM_GETVLAN
/// (`br_vlan_rtnl_init`); nor does one that has not loaded the module, which /sys/module tells.
pub(super) fn check_vlan_filtering(namespace: &mut Namespace) -> Outcome<()> {
    // struct br_vlan_msg: family, padding, index 0: of every link.
    let question = [libc::AF_BRIDGE as u8, 0, 0, 0, 0, 0, 0, 0];
    match namespace.route.dump_of(RTM_GETVLAN, &question) {
        Err(refusal) if refusal.errno == Errno::EOPNOTSUPP && std::path::Path::new("/sys/module/bridge").exists() => {
            Err(KernelError::Unsupported(
                "bridges of this kernel can't tell VLANs apart (CONFIG_BRIDGE_VLAN_FILTERING)".into(),
            ))
        }
        _ => Ok(()),
    }
}

/// From (flags, VLAN) as the kernel tells them, ranges as a begin and an end.
fn ranges(entries: impl Iterator<Item = (u16, u16)>) -> Vec<PortVlan> {
    let mut vlans = Vec::new();
    let mut begin = None;
    for (flags, vlan) in entries {
        if flags & BRIDGE_VLAN_INFO_RANGE_BEGIN != 0 {
            begin = Some(vlan);
            continue;
        }
        let first = if flags & BRIDGE_VLAN_INFO_RANGE_END != 0 { begin.take().unwrap_or(vlan) } else { vlan };
        vlans.push(PortVlan {
            first,
            last: vlan,
            pvid: flags & BRIDGE_VLAN_INFO_PVID != 0,
            untagged: flags & BRIDGE_VLAN_INFO_UNTAGGED != 0,
        });
    }
    vlans
}

/// The one VLAN, or the begin and end of the range (`br_afspec` takes a range as two attributes).
fn entries(vlan: &PortVlan) -> Vec<AfSpecBridge> {
    let mut flags = BridgeVlanInfoFlags::empty();
    flags.set(BridgeVlanInfoFlags::Pvid, vlan.pvid);
    flags.set(BridgeVlanInfoFlags::Untagged, vlan.untagged);
    let entry = |more, vid| AfSpecBridge::VlanInfo(BridgeVlanInfo { flags: flags | more, vid });
    if vlan.first == vlan.last {
        return vec![entry(BridgeVlanInfoFlags::empty(), vlan.first)];
    }
    vec![entry(BridgeVlanInfoFlags::RangeBegin, vlan.first), entry(BridgeVlanInfoFlags::RangeEnd, vlan.last)]
}

fn check(vlan: &PortVlan) -> Outcome<()> {
    let wrong = |why: &str| Err(KernelError::Invalid(format!("VLANs {} to {}: {why}", vlan.first, vlan.last)));
    if vlan.first == 0 || vlan.last > 4094 || vlan.first > vlan.last {
        return wrong("a VLAN is 1 to 4094, and a range rises");
    }
    // `br_vlan_valid_range`
    if vlan.pvid && vlan.first != vlan.last { wrong("a range can't be the port's own VLAN (pvid)") } else { Ok(()) }
}

pub(super) fn set_vlans(namespace: &mut Namespace, link: LinkId, wanted: &[PortVlan]) -> Outcome<()> {
    wanted.iter().try_for_each(check)?;
    let present = vlans(namespace, link.index)?;
    let bridge = links::by_index(namespace, link.index)?.kind == "bridge";
    let outside = |vlan: u16| !wanted.iter().any(|w| (w.first..=w.last).contains(&vlan));
    let old: Vec<PortVlan> = present.iter().flat_map(|present| runs(present, outside)).collect();
    // Present and wanted VLANs are left in place (with their traffic); adding one again changes its flags.
    let new = wanted.iter().filter(|vlan| !present.contains(vlan));
    // The kernel wants ranges and single VLANs each in a message of their own order: one message per entry.
    let request = |vlan: &PortVlan, delete: bool| {
        let mut message = message(link.index);
        let mut spec = Vec::new();
        if bridge {
            // The bridge itself, not the bridge it might be a port of.
            spec.push(AfSpecBridge::Flags(BridgeFlag::LowerDev));
        }
        spec.extend(entries(vlan));
        message.attributes.push(LinkAttribute::AfSpecBridge(spec));
        let message =
            if delete { RouteNetlinkMessage::DelLink(message) } else { RouteNetlinkMessage::SetLink(message) };
        Request::new(message, 0)
    };
    let requests: Vec<Request> =
        old.iter().map(|vlan| request(vlan, true)).chain(new.map(|vlan| request(vlan, false))).collect();
    if requests.is_empty() {
        return Ok(());
    }
    let answers = namespace.route.batch(requests);
    let refusal = match answers {
        Ok(answers) => answers.into_iter().find_map(Result::err),
        Err(refusal) => Some(refusal),
    };
    match refusal {
        None => Ok(()),
        Some(refusal) => Err(no_port(namespace, link.index, refusal, "failed to setup vlan tag on interface")),
    }
}

/// The parts of a range whose VLANs satisfy `take`, without flags (deleting needs none).
fn runs(range: &PortVlan, take: impl Fn(u16) -> bool) -> Vec<PortVlan> {
    let mut runs: Vec<PortVlan> = Vec::new();
    for vlan in (range.first..=range.last).filter(|vlan| take(*vlan)) {
        match runs.last_mut() {
            Some(run) if run.last + 1 == vlan => run.last = vlan,
            _ => runs.push(PortVlan { first: vlan, last: vlan, pvid: false, untagged: false }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vlan(first: u16, last: u16) -> PortVlan {
        PortVlan { first, last, pvid: false, untagged: false }
    }

    #[test]
    fn ranges_come_as_begin_and_end() {
        let told = [(6, 1), (8, 10), (16, 20), (0, 30)];
        let own = PortVlan { pvid: true, untagged: true, ..vlan(1, 1) };
        assert_eq!(ranges(told.into_iter()), [own, vlan(10, 20), vlan(30, 30)]);
    }

    #[test]
    fn what_is_not_wanted_is_deleted_in_runs() {
        assert_eq!(runs(&vlan(1, 9), |vlan| vlan != 4 && vlan != 5), [vlan(1, 3), vlan(6, 9)]);
    }

    #[test]
    fn impossible_vlans_are_refused() {
        for (first, last, pvid) in [(0, 1, false), (5, 4, false), (1, 4095, false), (1, 2, true)] {
            assert!(check(&PortVlan { first, last, pvid, untagged: false }).is_err());
        }
        assert!(check(&PortVlan { pvid: true, ..vlan(7, 7) }).is_ok());
    }
}
