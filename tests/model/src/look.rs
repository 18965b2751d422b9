//! Links, addresses and routes of a network namespace by three netlink dumps: a look after every step has to cost less than
//! the step, and each program that is started to look costs more.

use anyhow::{Context, Result, bail};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
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
    /// Index of a veth's other end, in that end's namespace.
    pub peer: Option<u32>,
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
        addresses: BTreeSet::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name.clone_from(text),
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                let kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(InfoKind::Veth) => Some("veth".to_owned()),
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
