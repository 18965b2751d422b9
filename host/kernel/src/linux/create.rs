//! Making links, each where it will stay.

use super::LinuxKernel;
use super::links;
use super::netns::Namespace;
use super::socket::{Received, Refusal};
use crate::{BridgeSpec, DeviceSpec, KernelError, LinkChanges, LinkId, LinkInfo, Netns, Outcome, VirtualKind};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoVeth, InfoVlan, InfoVrf, InfoVxlan, LinkAttribute,
    LinkInfo as Info, LinkMessage,
};
use nix::errno::Errno;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::{AsRawFd, RawFd};

/// As the reference (`makeVeth`).
const NAME_TRIES: usize = 10;

/// Of the kernel's random source, which the standard library seeds its hash tables with.
pub(super) fn random() -> u32 {
    let bits = RandomState::new().build_hasher().finish();
    (bits ^ bits >> 32) as u32
}

/// The given name, or a random one in the reference's form (`RandomVethName`).
fn name_for(device: &DeviceSpec) -> String {
    device.name.clone().unwrap_or_else(|| format!("veth{:08x}", random()))
}

/// What `rtnl_create_link` takes for a new link, also for a peer: names, MAC, MTU, queues, group.
fn base(device: &DeviceSpec, name: &str) -> LinkMessageBuilder<LinkUnspec> {
    let mut builder = LinkUnspec::new_with_name(name);
    if let Some(mac) = device.mac {
        builder = builder.address(mac.0.to_vec());
    }
    if let Some(mtu) = device.mtu {
        builder = builder.mtu(mtu);
    }
    if let Some(length) = device.txqlen {
        builder = builder.txqueuelen(length);
    }
    if let Some(group) = device.group {
        builder = builder.link_group(group);
    }
    builder
}

/// The message for the link itself, which may also be up and have a master at once.
fn whole(device: &DeviceSpec, name: &str, info: Vec<Info>) -> LinkMessage {
    let mut builder = base(device, name);
    if device.up {
        builder = builder.up();
    }
    if let Some(master) = device.master {
        builder = builder.controller(master.index);
    }
    builder.append_extra_attribute(LinkAttribute::LinkInfo(info)).build()
}

/// What the kernel takes only of a link that exists: the alias of any, and of a veth's second end master and state
/// (`veth_newlink` gives the peer neither).
fn rest(device: &DeviceSpec, index: u32, is_peer: bool) -> Option<LinkMessage> {
    let mut builder = LinkUnspec::new_with_index(index);
    let mut any = false;
    if let Some(alias) = &device.alias {
        builder = builder.append_extra_attribute(links::alias(alias));
        any = true;
    }
    if let Some(master) = device.master.filter(|_| is_peer) {
        builder = builder.controller(master.index);
        any = true;
    }
    if device.up && is_peer {
        builder = builder.up();
        any = true;
    }
    any.then(|| builder.build())
}

pub(super) fn check(device: &DeviceSpec) -> Outcome<()> {
    // "eth%d" is the kernel's pattern for the next free number (`dev_alloc_name`): the link would have another name than the one that
    // is asked for, written down and looked for again.
    if let Some(name) = device.name.as_ref().filter(|name| name.contains('%')) {
        return Err(KernelError::Invalid(format!("a link can't be named {name:?}: the kernel takes % for a pattern")));
    }
    match device.master {
        Some(master) if master.netns != device.netns => {
            Err(KernelError::Invalid(format!("a link of {} can't have a master in {}", device.netns, master.netns)))
        }
        _ => Ok(()),
    }
}

/// Makes a veth pair in one message, each end where it will stay.
///
/// The peer is created inside its namespace (IFLA_NET_NS_FD) rather than moved there: `__dev_change_net_namespace`
/// waits out RCU under RTNL, 20 ms that stall every other network change of the node. One queue each way, because a
/// queue per CPU costs RCU grace periods when the link goes and serves nothing in a container.
pub(super) fn veth(kernel: &mut LinuxKernel, a: &DeviceSpec, b: &DeviceSpec) -> Outcome<(LinkId, LinkId)> {
    check(a)?;
    check(b)?;
    // The first end of the message can be up and a port at once, the second can't. The host's goes first if equal.
    let weight =
        |device: &DeviceSpec| (u8::from(device.up) + u8::from(device.master.is_some()), device.netns == Netns::Host);
    let swapped = weight(b) > weight(a);
    let (first, second) = if swapped { (b, a) } else { (a, b) };
    let second_fd =
        if first.netns == second.netns { None } else { Some(kernel.namespace(second.netns)?.fd.as_raw_fd()) };
    let mut tries = 0;
    let (made, names) = loop {
        tries += 1;
        let names = (name_for(first), name_for(second));
        let message = veth_message(first, second, &names, second_fd);
        match make(kernel.namespace(first.netns)?, message, &names.0) {
            Ok(made) => break (made, names),
            Err(refusal) if refusal.errno == Errno::EEXIST => {
                let taken = taken(kernel, first, second, &names)?;
                if taken.is_none_or(|device| device.name.is_none()) && tries < NAME_TRIES {
                    continue;
                }
                return Err(exists(first, second, &names, taken));
            }
            Err(refusal) => return Err(refusal.into_error("failed to make veth pair")),
        }
    };
    let one = made.id;
    let outcome = finish_veth(kernel, first, second, &made, &names.1);
    // What it got after it was announced, and what its peer's state made of its own, the announcement does not say.
    let as_announced = first.master.is_none() && first.alias.is_none() && rest(second, 0, true).is_none();
    kernel.announced = Some(made).filter(|_| as_announced && outcome.is_ok());
    match outcome {
        Ok(two) if swapped => Ok((two, one)),
        Ok(two) => Ok((one, two)),
        Err(error) => {
            // All or nothing: the caller has no handle by which to take back half a pair.
            let gone = links::delete_many(kernel.namespace(one.netns)?, &[one.index]).is_ok();
            let error = error.context("failed to make veth pair");
            Err(if gone { error.refused() } else { error.half_done() })
        }
    }
}

fn veth_message(
    first: &DeviceSpec,
    second: &DeviceSpec,
    names: &(String, String),
    second_fd: Option<RawFd>,
) -> LinkMessage {
    let one_queue = |builder: LinkMessageBuilder<LinkUnspec>| {
        builder
            .append_extra_attribute(LinkAttribute::NumTxQueues(1))
            .append_extra_attribute(LinkAttribute::NumRxQueues(1))
    };
    let mut peer = one_queue(base(second, &names.1));
    if let Some(fd) = second_fd {
        peer = peer.setns_by_fd(fd);
    }
    let info = vec![Info::Kind(InfoKind::Veth), Info::Data(InfoData::Veth(InfoVeth::Peer(peer.build())))];
    let mut message = whole(first, &names.0, info);
    message.attributes.extend([LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)]);
    message
}

/// Creates a link in the namespace that is asked, and learns its index.
///
/// The kernel's own announcement is the answer (NLM_F_ECHO, `rtnl_configure_link`). Asking afterwards would make this
/// process bring the link's queues to what its carrier is (`rtnl_getlink`, `linkwatch_sync_dev`): a veth whose peer is
/// still down has none, so it would wait out RCU for the whole node under RTNL, 0.1 to 0.7 ms. Before Linux 6.2 nothing is
/// echoed, and it has to ask.
fn make(namespace: &mut Namespace, message: LinkMessage, name: &str) -> Result<LinkInfo, Refusal> {
    let netns = namespace.netns;
    let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO;
    let echoed = namespace.route.request(RouteNetlinkMessage::NewLink(message), flags)?;
    let its_own = |objects: &[Received]| objects.iter().find_map(|object| links::parse(netns, object));
    if let Some(made) = its_own(&echoed).filter(|made| made.name == name) {
        return Ok(made);
    }
    // It is made.
    let half = |refusal: Refusal| Refusal { unheard: true, ..refusal };
    let found = namespace.route.request(links::get_by_name(name), 0).map_err(half)?;
    its_own(&found).ok_or_else(|| half(Refusal::new(Errno::ENODEV)))
}

/// The peer's index, and what it can get only now.
fn finish_veth(
    kernel: &mut LinuxKernel,
    first: &DeviceSpec,
    second: &DeviceSpec,
    made: &LinkInfo,
    second_name: &str,
) -> Outcome<LinkId> {
    // IFLA_LINK of a veth is its peer's index in the peer's namespace.
    let two = match made.parent {
        Some(index) => LinkId { netns: second.netns, index },
        None => links::by_name(kernel.namespace(second.netns)?, second_name)?.id,
    };
    apply_rest(kernel.namespace(first.netns)?, rest(first, made.id.index, false))?;
    apply_rest(kernel.namespace(second.netns)?, rest(second, two.index, true))?;
    Ok(two)
}

fn apply_rest(namespace: &mut Namespace, message: Option<LinkMessage>) -> Outcome<()> {
    let Some(message) = message else { return Ok(()) };
    let netns = namespace.netns;
    match namespace.route.request(RouteNetlinkMessage::SetLink(message), 0) {
        Ok(_) => Ok(()),
        Err(refusal) => Err(refusal.into_error(format_args!("could not set up the new link in {netns}"))),
    }
}

/// Which end's name is in use.
fn taken<'a>(
    kernel: &mut LinuxKernel,
    first: &'a DeviceSpec,
    second: &'a DeviceSpec,
    names: &(String, String),
) -> Outcome<Option<&'a DeviceSpec>> {
    for (device, name) in [(first, &names.0), (second, &names.1)] {
        match links::by_name(kernel.namespace(device.netns)?, name) {
            // A given name that is taken is the answer; a generated one is tried again.
            Ok(_) => return Ok(Some(device)),
            Err(KernelError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn exists(
    first: &DeviceSpec,
    second: &DeviceSpec,
    names: &(String, String),
    taken: Option<&DeviceSpec>,
) -> KernelError {
    let (pod, host) = if first.netns == Netns::Container { (&names.0, &names.1) } else { (&names.1, &names.0) };
    let which = match taken {
        Some(device) if device == first => format!(" ({:?} in {})", names.0, first.netns),
        Some(_) => format!(" ({:?} in {})", names.1, second.netns),
        None => String::new(),
    };
    KernelError::Exists(format!("container veth name ({pod:?}) peer provided ({host:?}) already exists{which}"))
}

/// Makes a link that has no partner, in place.
fn single(kernel: &mut LinuxKernel, device: &DeviceSpec, info: Vec<Info>, parent: Option<LinkId>) -> Outcome<LinkId> {
    check(device)?;
    let name = name_for(device);
    // A link whose parent is in the other namespace is asked for there, to appear here.
    let asked = parent.map_or(device.netns, |parent| parent.netns);
    let ask = |kernel: &mut LinuxKernel, mut message: LinkMessage| -> Outcome<Result<(), Refusal>> {
        message.attributes.extend(parent.map(|parent| LinkAttribute::Link(parent.index)));
        if asked != device.netns {
            message.attributes.push(LinkAttribute::NetNsFd(kernel.namespace(device.netns)?.fd.as_raw_fd()));
        }
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        Ok(kernel.namespace(asked)?.route.request(RouteNetlinkMessage::NewLink(message), flags).map(drop))
    };
    let context = || format!("could not create {name:?} in {}", device.netns);
    let id = match ask(kernel, whole(device, &name, info.clone()))? {
        Ok(()) => links::by_name(kernel.namespace(device.netns)?, &name).map_err(KernelError::half_done)?.id,
        // Before Linux 6.14 a new link's name is looked up where it is asked for, not where it is to appear
        // (`__rtnl_newlink`): a container's "eth0" can't ride on the node's. So it appears under another name first. (To ask
        // where it appears would not help: then it is registered in its parent's namespace and moved.)
        Err(refusal)
            if refusal.errno == Errno::EEXIST
                && asked != device.netns
                && matches!(links::by_name(kernel.namespace(device.netns)?, &name), Err(KernelError::NotFound(_))) =>
        {
            let other = format!("veth{:08x}", random());
            let first = DeviceSpec { up: false, ..device.clone() };
            ask(kernel, whole(&first, &other, info))?.map_err(|refusal| refusal.into_error(context()))?;
            let namespace = kernel.namespace(device.netns)?;
            let id = links::by_name(namespace, &other).map_err(KernelError::half_done)?.id;
            let changes =
                LinkChanges { name: Some(name.clone()), up: device.up.then_some(true), ..LinkChanges::default() };
            if let Err(error) = links::change(namespace, id.index, &changes) {
                return Err(taken_back(namespace, id, error.context(context())));
            }
            id
        }
        Err(refusal) => return Err(refusal.into_error(context())),
    };
    let namespace = kernel.namespace(device.netns)?;
    match apply_rest(namespace, rest(device, id.index, false)) {
        Ok(()) => Ok(id),
        Err(error) => Err(taken_back(namespace, id, error.context(context()))),
    }
}

/// Deletes what can't be finished; the error says whether that worked.
fn taken_back(namespace: &mut Namespace, id: LinkId, error: KernelError) -> KernelError {
    if links::delete_many(namespace, &[id.index]).is_ok() { error.refused() } else { error.half_done() }
}

pub(super) fn bridge(kernel: &mut LinuxKernel, device: &DeviceSpec, bridge: &BridgeSpec) -> Outcome<LinkId> {
    let mut info = vec![Info::Kind(InfoKind::Bridge)];
    // Only when wanted: a kernel without CONFIG_BRIDGE_VLAN_FILTERING refuses the attribute.
    if bridge.vlan_filtering {
        info.push(Info::Data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(true)])));
    }
    single(kernel, device, info, None).map_err(|error| match error {
        KernelError::Unsupported(text) if bridge.vlan_filtering => KernelError::Unsupported(format!(
            "{text}; this kernel's bridges can't filter VLANs (CONFIG_BRIDGE_VLAN_FILTERING)"
        )),
        error => error,
    })
}

pub(super) fn other(kernel: &mut LinuxKernel, device: &DeviceSpec, kind: &VirtualKind) -> Outcome<LinkId> {
    use std::net::IpAddr;
    let (kind, data, parent) = match kind {
        VirtualKind::Dummy => (InfoKind::Dummy, None, None),
        VirtualKind::Ifb => (InfoKind::Ifb, None, None),
        VirtualKind::Macvlan { parent, mode, broadcast_queue } => {
            let mut data = vec![InfoMacVlan::Mode((*mode).into())];
            data.extend(broadcast_queue.map(InfoMacVlan::BcQueueLen));
            (InfoKind::MacVlan, Some(InfoData::MacVlan(data)), Some(*parent))
        }
        VirtualKind::Ipvlan { parent, mode } => {
            let data = InfoData::IpVlan(vec![InfoIpVlan::Mode((*mode).into())]);
            (InfoKind::IpVlan, Some(data), Some(*parent))
        }
        VirtualKind::Vlan { parent, id } => {
            (InfoKind::Vlan, Some(InfoData::Vlan(vec![InfoVlan::Id(*id)])), Some(*parent))
        }
        VirtualKind::Vxlan { id, local, port, learning } => {
            let local = match local {
                IpAddr::V4(local) => InfoVxlan::Local(*local),
                IpAddr::V6(local) => InfoVxlan::Local6(*local),
            };
            let data = vec![InfoVxlan::Id(*id), local, InfoVxlan::Port(*port), InfoVxlan::Learning(*learning)];
            (InfoKind::Vxlan, Some(InfoData::Vxlan(data)), None)
        }
        VirtualKind::Vrf { table } => (InfoKind::Vrf, Some(InfoData::Vrf(vec![InfoVrf::TableId(*table)])), None),
    };
    let info = std::iter::once(Info::Kind(kind)).chain(data.map(Info::Data)).collect();
    single(kernel, device, info, parent)
}
