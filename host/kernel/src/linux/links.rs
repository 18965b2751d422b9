//! Looking at links and changing them.

use super::LinuxKernel;
use super::attributes::Attributes;
use super::netns::Namespace;
use super::socket::{Received, Refusal, Request, i32_at, text_of, u32_at};
use crate::{KernelError, LinkChanges, LinkId, LinkInfo, Mac, Netns, Outcome};
use netlink_packet_core::DefaultNla;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use nix::errno::Errno;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};
use std::collections::HashSet;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// `struct ifinfomsg` (linux/rtnetlink.h).
pub(super) const IFINFOMSG: usize = 16;
pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
const RTM_NEWNSID: u16 = 88;
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
const IFF_PROMISC: u32 = 0x100;
const IFF_ALLMULTI: u32 = 0x200;

// linux/if_link.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_TXQLEN: u16 = 13;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
pub(super) const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_PROMISCUITY: u16 = 30;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_PERM_ADDRESS: u16 = 54;
const IFLA_PARENT_DEV_NAME: u16 = 56;
/// One more than the largest of these.
const KINDS: usize = 57;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_MACVLAN_BC_QUEUE_LEN: u16 = 7;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VRF_TABLE: u16 = 1;
pub(super) const IFLA_BRPORT_MODE: u16 = 4;
pub(super) const IFLA_BRPORT_LEARNING: u16 = 8;
pub(super) const IFLA_BRPORT_UNICAST_FLOOD: u16 = 9;
pub(super) const IFLA_BRPORT_NEIGH_SUPPRESS: u16 = 32;
pub(super) const IFLA_BRPORT_ISOLATED: u16 = 33;

/// RFC 2863 states by their number (linux/if.h).
const OPERSTATES: [&str; 7] = ["unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"];

/// RTM_GETLINK by name, without the statistics, which are most of an answer.
pub(super) fn get_by_name(name: &str) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(without_statistics(LinkUnspec::new_with_name(name).build()))
}

fn get_by_index(index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(without_statistics(LinkUnspec::new_with_index(index).build()))
}

fn without_statistics(mut message: LinkMessage) -> LinkMessage {
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

pub(super) fn by_name(namespace: &mut Namespace, name: &str) -> Outcome<LinkInfo> {
    seen_by_name(namespace, name).map(|(info, _)| info)
}

/// The same, with all that the kernel said.
pub(super) fn seen_by_name(namespace: &mut Namespace, name: &str) -> Outcome<(LinkInfo, Received)> {
    let netns = namespace.netns;
    let answer = namespace.route.get(get_by_name(name));
    only(netns, answer, format_args!("link {name:?}"))
}

pub(super) fn by_index(namespace: &mut Namespace, index: u32) -> Outcome<LinkInfo> {
    let netns = namespace.netns;
    let answer = namespace.route.get(get_by_index(index));
    only(netns, answer, format_args!("the link with index {index}")).map(|(info, _)| info)
}

fn only(
    netns: Netns,
    answer: Result<Received, Refusal>,
    what: std::fmt::Arguments<'_>,
) -> Outcome<(LinkInfo, Received)> {
    match answer {
        Ok(received) => parse(netns, &received)
            .map(|info| (info, received))
            .ok_or_else(|| KernelError::Other(format!("the kernel answered nothing about {what} in {netns}"))),
        Err(refusal) => Err(unseen(netns, refusal, what)),
    }
}

fn unseen(netns: Netns, refusal: Refusal, what: std::fmt::Arguments<'_>) -> KernelError {
    match refusal.errno {
        Errno::ENODEV => KernelError::NotFound(format!("{what} is not in {netns}")),
        _ => refusal.into_error(format_args!("could not look at {what} in {netns}")),
    }
}

/// What the kernel said of a link.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) netns: Netns,
    pub(super) name: String,
    pub(super) received: Received,
    pub(super) at: Instant,
}

/// For how long it is as good as a new answer: less than another program that this call starts or waits for needs to change it.
const FRESH: Duration = Duration::from_millis(1);

/// What a link's IPv6 is set to, by its number in `IFLA_INET6_CONF`; `None` when the kernel does not tell.
pub(super) fn ipv6_setting(kernel: &mut LinuxKernel, netns: Netns, name: &str, number: usize) -> Outcome<Option<i32>> {
    const IFLA_INET6_CONF: u16 = 2;
    let is_it = |seen: &mut Seen| seen.netns == netns && seen.name == name && seen.at.elapsed() < FRESH;
    let received = match kernel.seen.take_if(is_it) {
        // The kernel says it with the link.
        Some(seen) => seen.received,
        None => seen_by_name(kernel.namespace(netns)?, name)?.1,
    };
    let families = Attributes::after(&received.payload, IFINFOMSG).nested(IFLA_AF_SPEC);
    let ipv6 = families.and_then(|families| families.nested(libc::AF_INET6 as u16));
    Ok(ipv6.and_then(|ipv6| i32_at(ipv6.get(IFLA_INET6_CONF)?, number * size_of::<i32>())))
}

pub(super) fn all(namespace: &mut Namespace) -> Outcome<Vec<LinkInfo>> {
    let netns = namespace.netns;
    let message = RouteNetlinkMessage::GetLink(without_statistics(LinkMessage::default()));
    let objects = namespace
        .route
        .dump(&message)
        .map_err(|refusal| refusal.into_error(format_args!("could not list the links of {netns}")))?;
    Ok(objects.iter().filter_map(|object| parse(netns, object)).collect())
}

/// A link's name for an error text; its index when it can't be found out.
pub(super) fn name_of(namespace: &mut Namespace, index: u32) -> String {
    by_index(namespace, index).map_or_else(|_| format!("index {index}"), |info| info.name)
}

/// An RTM_NEWLINK message.
pub(super) fn parse(netns: Netns, received: &Received) -> Option<LinkInfo> {
    if received.kind != RTM_NEWLINK {
        return None;
    }
    let payload = received.payload.as_slice();
    let flags = u32_at(payload, 8)?;
    let attributes = Attributes::after(payload, IFINFOMSG).by_kind::<KINDS>();
    let of = |kind: u16| attributes.get(usize::from(kind)).copied().flatten();
    let number = |kind| u32_at(of(kind)?, 0);
    let link = of(IFLA_LINKINFO).map(|info| Attributes::after(info, 0));
    let kind = link.and_then(|info| info.text(IFLA_INFO_KIND)).unwrap_or_default();
    let data = link.and_then(|info| info.nested(IFLA_INFO_DATA));
    let mut extra = data.map(|data| extra_of(&kind, data)).unwrap_or_default();
    let mut vlan_filtering = None;
    if kind == "bridge" {
        vlan_filtering = data.and_then(|data| data.u8(IFLA_BR_VLAN_FILTERING)).map(|value| value != 0);
    }
    if let Some(port) = link.filter(|info| info.text(IFLA_INFO_SLAVE_KIND).as_deref() == Some("bridge"))
        && let Some(port) = port.nested(IFLA_INFO_SLAVE_DATA)
    {
        let flag = |kind| (port.u8(kind).unwrap_or(0) != 0).to_string();
        extra.push(("port.hairpin".into(), flag(IFLA_BRPORT_MODE)));
        extra.push(("port.isolated".into(), flag(IFLA_BRPORT_ISOLATED)));
    }
    // Every pod's is one of these, and looking for what they have not takes time.
    let hardware = if matches!(kind.as_str(), "veth" | "bridge") { None } else { hardware_of(of) };
    Some(LinkInfo {
        id: LinkId { netns, index: u32_at(payload, 4)? },
        name: text_of(of(IFLA_IFNAME)?),
        kind,
        mac: of(IFLA_ADDRESS).and_then(|bytes| Some(Mac(bytes.try_into().ok()?))),
        mtu: number(IFLA_MTU).unwrap_or(0),
        up: flags & IFF_UP != 0,
        loopback: flags & IFF_LOOPBACK != 0,
        operstate: of(IFLA_OPERSTATE)
            .and_then(|state| OPERSTATES.get(usize::from(*state.first()?)))
            .copied()
            .unwrap_or("unknown"),
        master: number(IFLA_MASTER),
        parent: number(IFLA_LINK).filter(|index| *index != 0),
        link_netnsid: of(IFLA_LINK_NETNSID).and_then(|id| i32_at(id, 0)),
        promisc: flags & IFF_PROMISC != 0 || number(IFLA_PROMISCUITY).is_some_and(|count| count > 0),
        allmulti: flags & IFF_ALLMULTI != 0,
        txqlen: number(IFLA_TXQLEN).unwrap_or(0),
        alias: of(IFLA_IFALIAS).map(text_of).filter(|alias| !alias.is_empty()),
        group: number(IFLA_GROUP).unwrap_or(0),
        vlan_filtering,
        hardware,
        extra,
    })
}

/// "virtio0 52:54:00:00:07:01"
fn hardware_of<'a>(attribute: impl Fn(u16) -> Option<&'a [u8]>) -> Option<String> {
    let device = text_of(attribute(IFLA_PARENT_DEV_NAME)?);
    let address = attribute(IFLA_PERM_ADDRESS).unwrap_or_default();
    let address: Vec<String> = address.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("{device} {}", address.join(":")))
}

/// What else is told of a link, under the keys of `namespaces.link-info.extra` in `wit/`.
fn extra_of(kind: &str, data: Attributes<'_>) -> Vec<(String, String)> {
    let one = |key: &str, value: Option<String>| value.map(|value| (key.to_owned(), value)).into_iter().collect();
    match kind {
        "vlan" => one("vlan.id", data.u16(IFLA_VLAN_ID).map(|id| id.to_string())),
        "macvlan" => {
            let mut facts: Vec<_> = one("macvlan.mode", data.u32(IFLA_MACVLAN_MODE).map(macvlan_mode));
            let queue = data.u32(IFLA_MACVLAN_BC_QUEUE_LEN);
            facts.extend(queue.map(|length| ("macvlan.bcqueuelen".to_owned(), length.to_string())));
            facts
        }
        "ipvlan" => one("ipvlan.mode", data.u16(IFLA_IPVLAN_MODE).map(ipvlan_mode)),
        "vxlan" => one("vxlan.id", data.u32(IFLA_VXLAN_ID).map(|id| id.to_string())),
        "vrf" => one("vrf.table", data.u32(IFLA_VRF_TABLE).map(|table| table.to_string())),
        _ => Vec::new(),
    }
}

fn macvlan_mode(mode: u32) -> String {
    match mode {
        1 => "private".into(),
        2 => "vepa".into(),
        4 => "bridge".into(),
        8 => "passthru".into(),
        16 => "source".into(),
        other => other.to_string(),
    }
}

fn ipvlan_mode(mode: u16) -> String {
    match mode {
        0 => "l2".into(),
        1 => "l3".into(),
        2 => "l3s".into(),
        other => other.to_string(),
    }
}

/// The id that `namespace` has for the namespace behind `other`; `None` when it has none.
pub(super) fn nsid_of(namespace: &mut Namespace, other: RawFd) -> Outcome<Option<i32>> {
    const NETNSA_NSID: u16 = 1;
    let mut message = NsidMessage::default();
    message.attributes.push(NsidAttribute::Fd(other.cast_unsigned()));
    let netns = namespace.netns;
    let received = namespace
        .route
        .request(RouteNetlinkMessage::GetNsId(message), 0)
        .map_err(|refusal| refusal.into_error(format_args!("could not find out how {netns} numbers the other one")))?;
    let id = received
        .iter()
        .filter(|object| object.kind == RTM_NEWNSID)
        // struct rtgenmsg, one byte, padded to four.
        .find_map(|object| Attributes::after(&object.payload, 4).i32(NETNSA_NSID));
    Ok(id.filter(|id| *id >= 0))
}

/// IFLA_IFALIAS without the final zero that the typed attribute adds: the kernel takes it as part of the alias, and
/// no alias at all is one of length 0 (`dev_set_alias`).
pub(super) fn alias(text: &str) -> LinkAttribute {
    LinkAttribute::Other(DefaultNla::new(IFLA_IFALIAS, text.as_bytes().to_vec()))
}

pub(super) fn change(namespace: &mut Namespace, index: u32, changes: &LinkChanges) -> Outcome<()> {
    let mut builder = LinkUnspec::new_with_index(index);
    if let Some(up) = changes.up {
        builder = if up { builder.up() } else { builder.down() };
    }
    if let Some(on) = changes.promisc {
        builder = builder.promiscuous(on);
    }
    if let Some(on) = changes.allmulti {
        builder = builder.allmulticast(on);
    }
    if let Some(mac) = changes.mac {
        builder = builder.address(mac.0.to_vec());
    }
    if let Some(mtu) = changes.mtu {
        builder = builder.mtu(mtu);
    }
    if let Some(length) = changes.txqlen {
        builder = builder.txqueuelen(length);
    }
    if let Some(text) = &changes.alias {
        builder = builder.append_extra_attribute(alias(text));
    }
    if let Some(group) = changes.group {
        builder = builder.link_group(group);
    }
    if let Some(name) = &changes.name {
        builder = builder.name(name.as_str());
    }
    set(namespace, builder.build(), index, "change")
}

pub(super) fn set_master(namespace: &mut Namespace, index: u32, master: Option<u32>) -> Outcome<()> {
    let message = LinkUnspec::new_with_index(index).controller(master.unwrap_or(0)).build();
    match master {
        Some(master) => match namespace.route.request(RouteNetlinkMessage::SetLink(message), 0) {
            Ok(_) => Ok(()),
            Err(refusal) => {
                let netns = namespace.netns;
                let (port, bridge) = (name_of(namespace, index), name_of(namespace, master));
                Err(refusal.into_error(format_args!("failed to connect {port:?} to bridge {bridge:?} in {netns}")))
            }
        },
        None => set(namespace, message, index, "detach"),
    }
}

fn set(namespace: &mut Namespace, message: LinkMessage, index: u32, verb: &str) -> Outcome<()> {
    match namespace.route.request(RouteNetlinkMessage::SetLink(message), 0) {
        Ok(_) => Ok(()),
        Err(refusal) => {
            let (netns, name) = (namespace.netns, name_of(namespace, index));
            Err(refusal.into_error(format_args!("could not {verb} link {name:?} in {netns}")))
        }
    }
}

/// How many go at once. All of a group go under one hold of RTNL, for which every other call of the node has to wait:
/// for 500 that is a third of a second.
const AT_ONCE: usize = 500;

/// Deletes links of one namespace in groups: the kernel waits out RCU once for a whole group, 0.6 ms a link instead of
/// 10 to 20. Links that are gone already are no error.
///
/// RTM_DELLINK by IFLA_GROUP takes *every* link of the group, so the number is one that nobody uses, and who is in the
/// group is looked at again before it is deleted; when that fails they are deleted one by one.
pub(super) fn delete_many(namespace: &mut Namespace, indexes: &[u32]) -> Outcome<()> {
    let present = all(namespace)?;
    let there: HashSet<u32> = present.iter().map(|link| link.id.index).collect();
    let wanted: Vec<u32> = indexes.iter().copied().filter(|index| there.contains(index)).collect();
    for some in wanted.chunks(AT_ONCE) {
        if some.len() > 1
            && let Some(group) = free_group(&present)
            && delete_group(namespace, some, group)?
        {
            continue;
        }
        delete_each(namespace, some)?;
    }
    Ok(())
}

fn delete_each(namespace: &mut Namespace, wanted: &[u32]) -> Outcome<()> {
    let netns = namespace.netns;
    let requests = wanted
        .iter()
        .map(|index| Request::new(RouteNetlinkMessage::DelLink(LinkUnspec::new_with_index(*index).build()), 0));
    let answers = namespace
        .route
        .batch(requests.collect())
        .map_err(|refusal| refusal.into_error(format_args!("could not delete {} links of {netns}", wanted.len())))?;
    for (answer, index) in answers.into_iter().zip(wanted) {
        match answer {
            Ok(_) => {}
            Err(refusal) if refusal.errno == Errno::ENODEV => {}
            Err(refusal) => {
                let name = name_of(namespace, *index);
                return Err(refusal.into_error(format_args!("could not delete link {name:?} of {netns}")));
            }
        }
    }
    Ok(())
}

fn free_group(present: &[LinkInfo]) -> Option<u32> {
    (0..10).map(|_| super::create::random() | 1 << 31).find(|group| present.iter().all(|link| link.group != *group))
}

/// Whether all of `wanted` are gone.
fn delete_group(namespace: &mut Namespace, wanted: &[u32], group: u32) -> Outcome<bool> {
    let requests = wanted.iter().map(|index| {
        Request::new(RouteNetlinkMessage::SetLink(LinkUnspec::new_with_index(*index).link_group(group).build()), 0)
    });
    let failed = |refusal: Refusal| refusal.into_error("could not delete a group of links");
    namespace.route.batch(requests.collect()).map_err(failed)?;
    let members: Vec<u32> =
        all(namespace)?.into_iter().filter(|link| link.group == group).map(|link| link.id.index).collect();
    if members.is_empty() || !members.iter().all(|index| wanted.contains(index)) {
        return Ok(false);
    }
    let message = RouteNetlinkMessage::DelLink(LinkMessageBuilder::<LinkUnspec>::new().link_group(group).build());
    Ok(namespace.route.request(message, 0).is_ok() && members.len() == wanted.len())
}

/// Whether a notification says that this link has left its namespace.
pub(super) fn is_gone(kind: u16, payload: &[u8], index: u32) -> bool {
    // A bridge port's removal is told with AF_BRIDGE first, while the link is still there.
    kind == RTM_DELLINK && payload.first() == Some(&(libc::AF_UNSPEC as u8)) && u32_at(payload, 4) == Some(index)
}
