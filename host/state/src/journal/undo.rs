//! How to take an operation back: data, so that another process, or another release, can do it after a crash.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// In which network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The node's.
    Host,
    /// The container's; gone with it, and then there is nothing to undo.
    Container,
}

/// Takes back one operation. Applying it twice, or when its object is gone, does nothing.
///
/// `index` and `name` of a link go together: the index alone may have been given to another link since.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "kebab-case")]
pub enum Undo {
    /// Delete a link that was made.
    DeleteLink {
        /// Where it is.
        side: Side,
        /// Its name.
        name: String,
        /// Its index, once known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<u32>,
    },
    /// Write the value that a sysctl had.
    RestoreSysctl {
        /// Where.
        side: Side,
        /// Below `/proc/sys/net`, with slashes.
        key: String,
        /// The value it had.
        value: String,
        /// What was written, as the kernel then has it, once known: what somebody has written since is not ours to take back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wrote: Option<String>,
        /// Which namespace it was, as `Kernel::identity` tells them apart. The container's may be another one by now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        netns: Option<u64>,
    },
    /// Give a link the attributes that it had; the ones that were not changed are absent.
    RestoreLink {
        /// Where it is.
        side: Side,
        /// Its index.
        index: u32,
        /// Its name.
        name: String,
        /// Administratively up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        up: Option<bool>,
        /// Hardware address, `0a:58:0a:01:02:03`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mac: Option<String>,
        /// MTU in bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mtu: Option<u32>,
        /// Transmit queue length in packets.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        txqlen: Option<u32>,
        /// Promiscuous.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        promisc: Option<bool>,
        /// All multicast.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        allmulti: Option<bool>,
        /// Alias; empty for none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        alias: Option<String>,
        /// The name it had before it was renamed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        renamed_from: Option<String>,
    },
    /// Move a link back to the namespace it came from.
    MoveLink {
        /// Where it is now.
        side: Side,
        /// The name it has there.
        name: String,
        /// Where it was.
        to: Side,
        /// The name it had there.
        former_name: String,
        /// Its index where it is now, once known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<u32>,
        /// Of a link of the node that the attachment has taken.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        taken: Option<Taken>,
    },
    /// Give a link the master that it had.
    SetMaster {
        /// Where it is.
        side: Side,
        /// Its index.
        index: u32,
        /// Its name.
        name: String,
        /// The master's index; none for no master.
        master: Option<u32>,
    },
    /// Remove an address that was added.
    RemoveAddress {
        /// Where.
        side: Side,
        /// Index of the link.
        index: u32,
        /// Name of the link.
        name: String,
        /// CIDR.
        address: String,
    },
    /// Remove a route that was added.
    RemoveRoute {
        /// Where.
        side: Side,
        /// Index of the link.
        index: u32,
        /// Name of the link.
        name: String,
        /// As the kernel room writes it.
        route: serde_json::Value,
    },
    /// Give back a route that was removed.
    RestoreRoute {
        /// Where.
        side: Side,
        /// Index of the link.
        index: u32,
        /// Name of the link.
        name: String,
        /// As the kernel room writes it.
        route: serde_json::Value,
    },
    /// Remove a policy rule that was added.
    RemovePolicyRule {
        /// Where.
        side: Side,
        /// As the kernel room writes it.
        rule: serde_json::Value,
        /// Which namespace it was, as for a sysctl.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        netns: Option<u64>,
    },
    /// Take bandwidth limits from a link.
    ClearLimits {
        /// Where.
        side: Side,
        /// Index of the link.
        index: u32,
        /// Name of the link.
        name: String,
        /// Of what leaves.
        output: bool,
        /// Of what arrives.
        input: bool,
    },
    /// Give a lease back.
    ReleaseLease {
        /// `<dataDir>/<network>`.
        directory: PathBuf,
        /// The one address; none for all that the attachment has there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<std::net::IpAddr>,
    },
    /// Give an address back to the DHCP server that it is of, by the link that it was asked for on.
    ReleaseDhcp {
        /// Index of the link, in the container.
        index: u32,
        /// Name of the link.
        name: String,
        /// Which namespace it was, as for a sysctl.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        netns: Option<u64>,
        /// As the kernel room writes it.
        lease: serde_json::Value,
    },
    /// Remove firewall rules.
    ClearRules {
        /// Where.
        side: Side,
        /// Whose rules.
        plugin: String,
        /// The guest's name for them.
        label: String,
        /// As the kernel room writes them.
        rules: serde_json::Value,
        /// Whether something was taken from another attachment for them, which gets it back.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        taken: bool,
    },
    /// Call an agent.
    Call {
        /// Policy's name of the agent.
        endpoint: String,
        /// HTTP method.
        method: String,
        /// Path and query.
        path: String,
        /// Header lines beyond the host's own.
        headers: Vec<(String, String)>,
        /// Body.
        body: String,
        /// Status codes beside 2xx that mean it is done.
        done: Vec<u16>,
    },
    /// Run a native delegate's DEL.
    Delegate {
        /// Its type.
        plugin: String,
        /// The network configuration it had.
        config: String,
        /// The interface's name.
        ifname: String,
    },
    /// Remove a note that was made.
    RemoveNote {
        /// Whose.
        plugin: String,
        /// "attachment" or "network".
        scope: String,
        /// Its key.
        key: String,
    },
    /// Made sure of for the network and relied on by others: never undone for one attachment.
    Shared {
        /// What, for people.
        what: String,
        /// What somebody else's link was given, to be given again to another one in its place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        held: Option<Held>,
    },
}

/// How a link of the node was that an attachment has taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Taken {
    /// Whether it was up.
    pub up: bool,
    /// Its alias; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub alias: String,
    /// Whether it is one that outlives its namespace.
    pub lasting: bool,
    /// Which hardware it is, as the kernel room writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<String>,
    /// Which namespace it was taken into, as for a sysctl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u64>,
}

/// What the network holds of a link of the node that Sandwire does not make: an agent's bridge, which is another one after
/// the agent was started again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Held {
    /// A gateway's address.
    Address {
        /// Name of the link.
        link: String,
        /// As the kernel room writes it.
        address: serde_json::Value,
    },
    /// A gateway's MAC.
    Mac {
        /// Name of the link.
        link: String,
        /// `0a:58:0a:01:02:03`.
        mac: String,
    },
}

impl Held {
    /// Name of the link.
    pub fn link(&self) -> &str {
        match self {
            Self::Address { link, .. } | Self::Mac { link, .. } => link,
        }
    }
}

impl Undo {
    /// Index and name of the link of the node that this deletes: an attachment's end there, once its index is known.
    pub fn node_link(&self) -> Option<(u32, &str)> {
        match self {
            Self::DeleteLink { side: Side::Host, name, index: Some(index) } => Some((*index, name)),
            _ => None,
        }
    }

    /// Set a link up again, or down.
    pub fn restore_state(side: Side, index: u32, name: &str, up: bool) -> Self {
        Self::RestoreLink {
            side,
            index,
            name: name.to_owned(),
            up: Some(up),
            mac: None,
            mtu: None,
            txqlen: None,
            promisc: None,
            allmulti: None,
            alias: None,
            renamed_from: None,
        }
    }

    /// In which namespace it is done; none for what is in neither.
    pub fn side(&self) -> Option<Side> {
        match self {
            Self::DeleteLink { side, .. }
            | Self::RestoreSysctl { side, .. }
            | Self::RestoreLink { side, .. }
            | Self::MoveLink { side, .. }
            | Self::SetMaster { side, .. }
            | Self::RemoveAddress { side, .. }
            | Self::RemoveRoute { side, .. }
            | Self::RestoreRoute { side, .. }
            | Self::RemovePolicyRule { side, .. }
            | Self::ClearLimits { side, .. }
            | Self::ClearRules { side, .. } => Some(*side),
            Self::ReleaseDhcp { .. } => Some(Side::Container),
            Self::ReleaseLease { .. }
            | Self::Call { .. }
            | Self::Delegate { .. }
            | Self::RemoveNote { .. }
            | Self::Shared { .. } => None,
        }
    }

    /// Index and name of the link that it is about, once the index is known.
    pub fn link(&self) -> Option<(u32, &str)> {
        match self {
            Self::DeleteLink { index, name, .. } | Self::MoveLink { index, name, .. } => {
                index.map(|index| (index, name.as_str()))
            }
            Self::RestoreLink { index, name, .. }
            | Self::SetMaster { index, name, .. }
            | Self::RemoveAddress { index, name, .. }
            | Self::RemoveRoute { index, name, .. }
            | Self::RestoreRoute { index, name, .. }
            | Self::ClearLimits { index, name, .. }
            | Self::ReleaseDhcp { index, name, .. } => Some((*index, name)),
            _ => None,
        }
    }
}
