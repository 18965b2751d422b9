//! Firewall rules, and whose they are.

use super::Mac;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Whose firewall rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleOwner {
    /// Plugin type ("bridge").
    pub plugin: String,
    /// Network name.
    pub network: String,
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
}

/// Who has something in our tables: all that can be told from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleHolder {
    pub(crate) network: [u8; 8],
    pub(crate) attachment: [u8; 8],
    /// "bridge/masquerade, net: mynet, if: eth0, id: 0123", cut where nft's room for it ends.
    pub text: String,
    /// Addresses that are masqueraded.
    pub addresses: Vec<std::net::IpAddr>,
    /// Ports whose frames are checked.
    pub ports: Vec<String>,
}

/// Something of ours in the node's firewall: a table with all that is in it, or one rule in a chain of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallObject {
    /// "inet", "ip", "ip6", "bridge".
    pub family: &'static str,
    /// The table.
    pub table: &'static str,
    /// Chain and comment of a rule.
    pub rule: Option<(&'static str, &'static str)>,
}

impl std::fmt::Display for FirewallObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { family, table, rule } = self;
        match rule {
            None => write!(f, "table {family} {table}"),
            Some((chain, comment)) => write!(f, "rule \"{comment}\" of chain {chain} of table {family} {table}"),
        }
    }
}

/// One wanted firewall rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// Masquerade what leaves from `source` except towards `except` and multicast.
    Masquerade {
        /// The container's address.
        source: IpAddr,
        /// Destinations that keep the source, normally the network of the address.
        except: Vec<IpNet>,
    },
    /// Drop frames that arrive by the bridge port `port` whose Ethernet source is not `mac`.
    SpoofCheck {
        /// Name of the bridge port.
        port: String,
        /// The one source that may pass.
        mac: Mac,
    },
    /// Send what arrives for a port of the host to the container.
    ForwardPort(PortForward),
    /// Let forwarded traffic of an address through.
    Forward {
        /// The container's address.
        address: IpAddr,
        /// Who may start it.
        ingress: Ingress,
        /// Name of the bridge that limits it.
        bridge: Option<String>,
    },
}

/// A port of the host that is a container's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortForward {
    /// IPPROTO_TCP 6, UDP 17, SCTP 132.
    pub protocol: u8,
    /// `None`: every local address.
    pub host_ip: Option<IpAddr>,
    /// Port of the host.
    pub host_port: u16,
    /// The container's address.
    pub to: IpAddr,
    /// The container's port.
    pub to_port: u16,
    /// Also masquerade hairpin and localhost traffic.
    pub masquerade: bool,
    /// Keys of `firewall.port-forward.extra`.
    pub extra: Vec<(String, String)>,
}

/// Who may start traffic to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ingress {
    /// Anyone.
    Open,
    /// Ports of the same bridge.
    SameBridge,
    /// Nobody.
    Isolated,
}
