//! The values that cross the [`crate::Kernel`] trait: validated, typed, without file descriptors or paths.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::error::KernelError;

mod dhcp;
mod firewall;

pub use dhcp::{DhcpAsk, DhcpLease, DhcpOption, DhcpRequest, boot_time};
pub use firewall::{FirewallObject, Ingress, PortForward, Rule, RuleHolder, RuleOwner};

/// Which of the two namespaces of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Netns {
    /// The node's: the one the CNI binary was started in.
    Host,
    /// The container's.
    Container,
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "the host's namespace",
            Self::Container => "the container's namespace",
        })
    }
}

/// A link by its interface index, which is unique in its namespace and, unlike a name, never reused while the
/// namespace lives (the kernel counts up).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId {
    /// Where it lives.
    pub netns: Netns,
    /// Interface index.
    pub index: u32,
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = KernelError;

    fn try_from(text: String) -> Result<Self, KernelError> {
        text.parse()
    }
}

impl FromStr for Mac {
    type Err = KernelError;

    /// As Go's `net.ParseMAC`: six groups of two hex digits between `:` or `-`, or three of four between `.`.
    fn from_str(text: &str) -> Result<Self, KernelError> {
        let bad = || KernelError::Invalid(format!("{text:?} is no MAC address; it looks like 0a:58:0a:01:02:03"));
        let (separators, length): (&[char], _) = if text.contains('.') { (&['.'], 4) } else { (&[':', '-'], 2) };
        let groups: Vec<&str> = text.split(separators).collect();
        // `from_str_radix` takes a sign.
        let hex = |group: &&str| group.len() == length && group.bytes().all(|digit| digit.is_ascii_hexdigit());
        if groups.len() * length != 12 || !groups.iter().all(hex) {
            return Err(bad());
        }
        let [_, _, bytes @ ..] = u64::from_str_radix(&groups.concat(), 16).map_err(|_| bad())?.to_be_bytes();
        Ok(Self(bytes))
    }
}

/// Where and how a new link appears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSpec {
    /// The namespace it appears in and stays in.
    pub netns: Netns,
    /// 1 to 15 bytes, validated. `None`: the kernel crate picks `veth` and 8 hex digits and retries on a clash.
    pub name: Option<String>,
    /// `None`: the kernel picks a random one.
    pub mac: Option<Mac>,
    /// Bytes. `None`: the kernel's default.
    pub mtu: Option<u32>,
    /// A bridge or VRF in the same namespace.
    pub master: Option<LinkId>,
    /// Whether it is up when it appears (a veth's second end can't be: the kernel answers ENOTCONN; it is set up in
    /// a second message).
    pub up: bool,
    /// Transmit queue length, packets.
    pub txqlen: Option<u32>,
    /// ifalias.
    pub alias: Option<String>,
    /// Link group.
    pub group: Option<u32>,
}

impl DeviceSpec {
    /// A device of the kernel's defaults in `netns`.
    pub fn new(netns: Netns) -> Self {
        Self {
            netns,
            name: None,
            mac: None,
            mtu: None,
            master: None,
            up: false,
            txqlen: None,
            alias: None,
            group: None,
        }
    }
}

/// What is special to a bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BridgeSpec {
    /// Whether ports have VLANs of their own.
    pub vlan_filtering: bool,
}

/// Kinds of virtual links beside veth and bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VirtualKind {
    /// No partner at all.
    Dummy,
    /// `mode`: 1 private, 2 vepa, 4 bridge, 8 passthru, 16 source (IFLA_MACVLAN_MODE).
    Macvlan {
        /// The link it rides on.
        parent: LinkId,
        /// See above.
        mode: u32,
        /// Broadcasts that may wait to be delivered (IFLA_MACVLAN_BC_QUEUE_LEN); `None` is the kernel's 1000.
        broadcast_queue: Option<u32>,
    },
    /// `mode`: 0 l2, 1 l3, 2 l3s.
    Ipvlan {
        /// The link it rides on.
        parent: LinkId,
        /// See above.
        mode: u16,
    },
    /// 802.1Q.
    Vlan {
        /// The link it rides on.
        parent: LinkId,
        /// 0..=4094.
        id: u16,
    },
    /// VXLAN.
    Vxlan {
        /// VNI, 24 bits.
        id: u32,
        /// Outer source address.
        local: IpAddr,
        /// UDP port.
        port: u16,
        /// Whether the kernel learns MACs from what arrives.
        learning: bool,
    },
    /// A VRF with its routing table.
    Vrf {
        /// Routing table.
        table: u32,
    },
    /// An intermediate functional block: what is redirected to it comes back after its queueing discipline.
    Ifb,
}

/// What is special to a tap device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TapSpec {
    /// User id that may open it beside who may administer the namespace; with neither this nor `group` anybody may.
    pub owner: Option<u32>,
    /// The same of a group.
    pub group: Option<u32>,
    /// Several descriptors may be opened, one for each queue.
    pub multi_queue: bool,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Of which whole bytes count.
    pub bits_per_second: u64,
    /// What may go at once after a pause; of which whole bytes count.
    pub burst_bits: u64,
    /// How long something may wait for its turn, in microseconds, before it is dropped.
    pub latency_us: u32,
}

/// What `change_link` changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChanges {
    /// Up or down.
    pub up: Option<bool>,
    /// Ethernet address.
    pub mac: Option<Mac>,
    /// Bytes.
    pub mtu: Option<u32>,
    /// Packets.
    pub txqlen: Option<u32>,
    /// Promiscuous mode.
    pub promisc: Option<bool>,
    /// Receive all multicast.
    pub allmulti: Option<bool>,
    /// ifalias.
    pub alias: Option<String>,
    /// Link group.
    pub group: Option<u32>,
    /// New name; the link must be down on older kernels.
    pub name: Option<String>,
}

/// What the kernel says of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    /// Namespace and index.
    pub id: LinkId,
    /// Name.
    pub name: String,
    /// "veth", "bridge", ...; "" for a physical device or loopback.
    pub kind: String,
    /// `None` for links without an Ethernet address.
    pub mac: Option<Mac>,
    /// Bytes.
    pub mtu: u32,
    /// IFF_UP.
    pub up: bool,
    /// IFF_LOOPBACK.
    pub loopback: bool,
    /// RFC 2863 text: "up", "down", "lowerlayerdown", "unknown", ...
    pub operstate: &'static str,
    /// Index of the bridge or VRF it is a port of.
    pub master: Option<u32>,
    /// IFLA_LINK: a veth's peer, a VLAN's parent; an index in the namespace of `link_netnsid`, or in its own.
    pub parent: Option<u32>,
    /// IFLA_LINK_NETNSID, the id that this namespace has for the peer's; `None` when it is the same namespace.
    pub link_netnsid: Option<i32>,
    /// Promiscuity set by a user of the device or by IFF_PROMISC.
    pub promisc: bool,
    /// IFF_ALLMULTI.
    pub allmulti: bool,
    /// Packets.
    pub txqlen: u32,
    /// ifalias.
    pub alias: Option<String>,
    /// Link group.
    pub group: u32,
    /// IFLA_BR_VLAN_FILTERING of a bridge.
    pub vlan_filtering: Option<bool>,
    /// Device and permanent address of a link that is hardware: which one it is in whatever namespace, under whatever name.
    pub hardware: Option<String>,
    /// Other facts by their key in `namespaces.link-info.extra`: "vlan.id", "macvlan.mode", "vxlan.id", ...
    pub extra: Vec<(String, String)>,
}

impl LinkInfo {
    /// Kinds of links that ride on another one, their parent.
    pub const RIDERS: [&'static str; 3] = ["macvlan", "ipvlan", "vlan"];

    /// Whether it outlives its namespace: the kernel destroys links that were made on demand (`default_device_exit_net`).
    /// (Before Linux 5.14 nothing is said of the device.)
    pub fn is_hardware(&self) -> bool {
        !self.loopback && (self.hardware.is_some() || self.kind.is_empty())
    }

    /// Whether it is of one of these.
    pub fn rides(&self) -> bool {
        Self::RIDERS.contains(&self.kind.as_str())
    }
}

/// An address to put on a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressSpec {
    /// Address and prefix length; host bits are kept.
    pub address: IpNet,
    /// IFA_F_NODAD: usable at once. For addresses that an address manager guarantees to be unique.
    pub no_dad: bool,
    /// IFA_F_NOPREFIXROUTE.
    pub no_prefix_route: bool,
    /// Point-to-point peer.
    pub peer: Option<IpNet>,
    /// rtnetlink(7) scope; `None`: universe.
    pub scope: Option<u8>,
    /// IFA_LABEL.
    pub label: Option<String>,
    /// IFA_RT_PRIORITY of the prefix route.
    pub metric: Option<u32>,
}

impl AddressSpec {
    /// This address and nothing else.
    pub fn new(address: IpNet) -> Self {
        Self { address, no_dad: false, no_prefix_route: false, peer: None, scope: None, label: None, metric: None }
    }
}

/// An address that a link has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressInfo {
    /// Address and prefix length.
    pub address: IpNet,
    /// Point-to-point peer.
    pub peer: Option<IpAddr>,
    /// rtnetlink(7) scope.
    pub scope: u8,
    /// Duplicate address detection is not over.
    pub tentative: bool,
    /// Duplicate address detection failed.
    pub dad_failed: bool,
    /// IFA_F_PERMANENT.
    pub permanent: bool,
}

/// How a route is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteMode {
    /// `Exists` when there is one to this destination.
    Add,
    /// Another one beside it (ECMP).
    Append,
    /// In its place.
    Replace,
}

/// A route out of one link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// Destination; `0.0.0.0/0` or `::/0` is the default route.
    pub dst: IpNet,
    /// Gateway.
    pub via: Option<IpAddr>,
    /// Preferred source.
    pub src: Option<IpAddr>,
    /// 0 universe, 253 link, 254 host; `None`: universe with a gateway, else link for IPv4.
    pub scope: Option<u8>,
    /// `None`: main.
    pub table: Option<u32>,
    /// Metric.
    pub priority: Option<u32>,
    /// RTAX_MTU, bytes.
    pub mtu: Option<u32>,
    /// RTAX_ADVMSS, bytes.
    pub advmss: Option<u32>,
    /// RTNH_F_ONLINK.
    pub onlink: bool,
    /// rtm_protocol; `None`: boot.
    pub protocol: Option<u8>,
}

impl RouteSpec {
    /// A route to `dst` with the kernel's defaults.
    pub fn new(dst: IpNet) -> Self {
        Self {
            dst,
            via: None,
            src: None,
            scope: None,
            table: None,
            priority: None,
            mtu: None,
            advmss: None,
            onlink: false,
            protocol: None,
        }
    }
}

/// A route that a namespace has. Multipath routes are one entry per next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// The route.
    pub route: RouteSpec,
    /// Out of which link; `None` for unreachable, blackhole and the like.
    pub link: Option<LinkId>,
}

/// A policy rule: what it fits is looked up in its table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// Source; it or `dst` says of which family the rule is.
    pub src: Option<IpNet>,
    /// Destination.
    pub dst: Option<IpNet>,
    /// Routing table.
    pub table: u32,
    /// The lowest comes first; `None`: before all others but `local`'s.
    pub priority: Option<u32>,
    /// Name of the link that it arrived by.
    pub iif: Option<String>,
    /// Name of the link that its socket is bound to.
    pub oif: Option<String>,
    /// Mark and mask.
    pub fwmark: Option<(u32, u32)>,
    /// For all that it does not fit.
    pub not: bool,
}

impl PolicyRule {
    /// What comes from `src` is looked up in `table`.
    pub fn from(src: IpNet, table: u32) -> Self {
        Self { src: Some(src), dst: None, table, priority: None, iif: None, oif: None, fwmark: None, not: false }
    }
}

impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.not { "policy rule \"not" } else { "policy rule \"" })?;
        let space = if self.not { " " } else { "" };
        match (self.src, self.dst) {
            (Some(src), None) => write!(f, "{space}from {src}"),
            (src, Some(dst)) => {
                write!(f, "{space}from {} to {dst}", src.map_or("all".to_owned(), |src| src.to_string()))
            }
            (None, None) => write!(f, "{space}from all"),
        }?;
        write!(f, " lookup {}\"", self.table)
    }
}

/// Settings of a bridge port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BridgePort {
    /// Frames may leave by the port they came from.
    pub hairpin: bool,
    /// No traffic to other isolated ports.
    pub isolated: bool,
    /// `None`: as it is.
    pub learning: Option<bool>,
    /// `None`: as it is.
    pub flood: Option<bool>,
    /// `None`: as it is.
    pub neigh_suppress: Option<bool>,
}

/// A range of VLANs of a bridge port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortVlan {
    /// 1..=4094.
    pub first: u16,
    /// Same as `first` for one VLAN.
    pub last: u16,
    /// Untagged frames that arrive belong here.
    pub pvid: bool,
    /// Frames leave untagged.
    pub untagged: bool,
}
