//! Links, addresses, routes and queueing disciplines of a network namespace by four netlink dumps: a look after every step has to cost less than
//! the step, and each program that is started to look costs more.

use anyhow::{Context, Result, bail};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::tc::{TcAttribute, TcMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// In its namespace.
    pub index: u32,
    /// "veth", "bridge", empty for what the kernel made.
    pub kind: String,
    /// Set up.
    pub up: bool,
    /// Index of its bridge.
    pub master: Option<u32>,
    /// Index of a veth's other end, or of what a macvlan rides on, in that one's namespace.
    pub peer: Option<u32>,
    /// In bytes.
    pub mtu: u32,
    /// "02:00:00:00:00:01".
    pub mac: String,
    /// Receives all multicast packets.
    pub allmulti: bool,
    /// "10.1.2.3/24", without link-local ones, which the kernel gives when it gets to it.
    pub addresses: BTreeSet<String>,
}

/// A network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// By name.
    pub links: BTreeMap<String, Link>,
    /// Destinations of the main table, "10.1.2.0/24", with the link that each leaves by.
    pub routes: BTreeSet<(String, String)>,
    /// Link and kind of each that somebody set: "ingress", or "tbf" at the root.
    pub qdiscs: BTreeSet<(String, String)>,
    /// Those below /proc/sys/net that plugins set.
    pub sysctls: BTreeMap<String, String>,
}

/// What the kernel gives a link by itself.
const DEFAULT_QDISCS: [&str; 5] = ["noqueue", "noop", "mq", "pfifo_fast", "fq_codel"];
/// Of a namespace as a whole.
pub(crate) const PORT_RANGE: &str = "ipv4/ip_local_port_range";

/// Of a link: what plugins set for it.
pub(crate) fn of_link(name: &str) -> [String; 3] {
    [
        format!("ipv4/conf/{name}/arp_filter"),
        format!("ipv6/conf/{name}/accept_ra"),
        format!("ipv4/conf/{name}/route_localnet"),
    ]
}

impl Network {
    /// The calling thread's.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn here() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE).context("netlink")?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let mut names = BTreeMap::new();
        let mut network = Self::default();
        for message in dump(&socket, RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
            let RouteNetlinkMessage::NewLink(message) = message else { continue };
            let (name, link) = link(&message);
            names.insert(link.index, name.clone());
            network.links.insert(name, link);
        }
        for message in dump(&socket, RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
            let RouteNetlinkMessage::NewAddress(message) = message else { continue };
            let of = names.get(&message.header.index).and_then(|name| network.links.get_mut(name));
            if let (Some(address), Some(link)) = (address(&message), of) {
                link.addresses.insert(address);
            }
        }
        for message in dump(&socket, RouteNetlinkMessage::GetRoute(RouteMessage::default()))? {
            let RouteNetlinkMessage::NewRoute(message) = message else { continue };
            if let Some((destination, out)) = route(&message) {
                let out = names.get(&out).cloned().unwrap_or_default();
                network.routes.insert((destination, out));
            }
        }
        for message in dump(&socket, RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()))? {
            let RouteNetlinkMessage::NewQueueDiscipline(message) = message else { continue };
            let kind =
                message.attributes.iter().find_map(|a| if let TcAttribute::Kind(kind) = a { Some(kind) } else { None });
            let kind = kind.cloned().unwrap_or_default();
            let link = u32::try_from(message.header.index).ok().and_then(|index| names.get(&index)).cloned();
            if !DEFAULT_QDISCS.contains(&kind.as_str()) {
                network.qdiscs.insert((link.unwrap_or_default(), kind));
            }
        }
        let mut keys = vec![PORT_RANGE.to_owned()];
        keys.extend(network.links.keys().filter(|name| *name != "lo").flat_map(|name| of_link(name)));
        for key in keys {
            // None without IPv6, or when the link has just gone.
            if let Ok(value) = std::fs::read_to_string(format!("/proc/sys/net/{key}")) {
                network.sysctls.insert(key, value.trim().to_owned());
            }
        }
        Ok(network)
    }

    /// The name of a link.
    pub fn name_of(&self, index: u32) -> Option<&str> {
        self.links.iter().find(|(_, link)| link.index == index).map(|(name, _)| name.as_str())
    }
}

fn dump(socket: &Socket, what: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
    let mut request = NetlinkMessage::from(what);
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)?;
            let length = usize::try_from(message.header.length)?.next_multiple_of(4);
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => bail!("netlink: {error}"),
                NetlinkPayload::InnerMessage(message) => found.push(message),
                _ => {}
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

fn link(message: &LinkMessage) -> (String, Link) {
    let mut name = String::new();
    let mut link = Link {
        index: message.header.index,
        kind: String::new(),
        up: message.header.flags.contains(LinkFlags::Up),
        master: None,
        peer: None,
        mtu: 0,
        mac: String::new(),
        allmulti: message.header.flags.contains(LinkFlags::Allmulti),
        addresses: BTreeSet::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name.clone_from(text),
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => {
                link.mac = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
            }
            LinkAttribute::LinkInfo(infos) => {
                let kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
                link.kind = kind.unwrap_or_default();
            }
            _ => {}
        }
    }
    (name, link)
}

/// None for a link-local one.
fn address(message: &AddressMessage) -> Option<String> {
    // IFA_LOCAL is the link's own where there is a peer, which IFA_ADDRESS then is (linux/if_addr.h).
    let local =
        message.attributes.iter().find_map(|a| if let AddressAttribute::Local(ip) = a { Some(ip) } else { None });
    let plain =
        message.attributes.iter().find_map(|a| if let AddressAttribute::Address(ip) = a { Some(ip) } else { None });
    let ip = local.or(plain)?;
    let linklocal = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    (!linklocal).then(|| format!("{ip}/{}", message.header.prefix_len))
}

fn route(message: &RouteMessage) -> Option<(String, u32)> {
    const MAIN: u8 = 254;
    if message.header.table != MAIN {
        return None;
    }
    let mut out = None;
    let mut destination = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => destination = (*ip).into(),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => destination = (*ip).into(),
            RouteAttribute::Oif(index) => out = Some(*index),
            _ => {}
        }
    }
    let linklocal = matches!(destination, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let destination = format!("{destination}/{}", message.header.destination_prefix_length);
    out.filter(|_| !linklocal).map(|out| (destination, out))
}
