//! The networks that a script works on, and the attachments that can be.

use std::fmt;

/// The plugin of attachments that Debian's own host-local makes, called directly.
pub const NATIVE: &str = "native host-local";
/// The link that macvlans ride on.
pub const MASTER: &str = "m0";
/// Its other end.
pub const MASTERS_PEER: &str = "m0p";

/// Who gives a network's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ipam {
    /// Nobody.
    None,
    /// host-local, so many of each family.
    Leases(usize),
    /// static: the same ones to each.
    Static,
}

/// A network, as one plugin knows it: two entries with the same name are two plugins that share its lease directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Net {
    /// Name of the network.
    pub name: &'static str,
    /// The plugin; or [`NATIVE`].
    pub plugin: &'static str,
    /// Interface names that are used with it. No other network has them: a DEL takes away what has the name.
    pub ifnames: &'static [&'static str],
    /// The bridge of its own; that of an agent's network is the agent's.
    pub bridge: &'static str,
    /// Its addresses.
    pub ipam: Ipam,
    /// Addresses are masqueraded.
    pub masquerades: bool,
    /// What comes after the plugin, in a runtime's list.
    pub chain: &'static [&'static str],
}

impl Net {
    /// Attached by an agent.
    pub fn has_agent(&self) -> bool {
        self.plugin == "bagpipe"
    }

    /// Native host-local's: it knows neither journal nor boot, GC nor STATUS.
    pub fn is_native(&self) -> bool {
        self.plugin == NATIVE
    }

    /// Looks at no namespace: host-local, whoever's, gives an address and no more.
    pub fn is_without_netns(&self) -> bool {
        self.is_native() || self.plugin == "host-local"
    }

    /// Makes an interface.
    pub fn has_link(&self) -> bool {
        self.has_host_end() || self.plugin == "macvlan"
    }

    /// Makes a veth.
    pub fn has_host_end(&self) -> bool {
        matches!(self.plugin, "bridge" | "bagpipe" | "ptp")
    }

    /// Gives addresses that nobody else has.
    pub fn has_leases(&self) -> bool {
        self.addresses() > 0
    }

    /// How many of them of each family.
    pub fn addresses(&self) -> usize {
        if let Ipam::Leases(count) = self.ipam { count } else { 0 }
    }

    /// Promises addresses.
    pub fn has_addresses(&self) -> bool {
        self.ipam != Ipam::None
    }

    /// Makes firewall rules.
    pub fn has_rules(&self) -> bool {
        self.masquerades || self.has("portmap") || self.has("firewall")
    }

    /// Whether this plugin comes after the first.
    pub fn has(&self, plugin: &str) -> bool {
        self.chain.contains(&plugin)
    }

    /// All plugins, in a runtime's order.
    pub fn plugins(&self) -> impl Iterator<Item = &'static str> {
        let first = if self.is_native() { "host-local" } else { self.plugin };
        std::iter::once(first).chain(self.chain.iter().copied())
    }
}

const fn net(
    name: &'static str,
    plugin: &'static str,
    ifnames: &'static [&'static str],
    bridge: &'static str,
    addresses: usize,
    masquerades: bool,
) -> Net {
    let ipam = if addresses > 0 { Ipam::Leases(addresses) } else { Ipam::None };
    Net { name, plugin, ifnames, bridge, ipam, masquerades, chain: &[] }
}

const AFTERWARDS: &[&str] = &["portmap", "firewall", "bandwidth", "tuning"];

/// All of them; native host-local's entries after those that have their names.
pub const NETWORKS: [Net; 16] = [
    net("plain", "bridge", &["eth0", "eth9"], "br-plain", 253, false),
    net("tight", "bridge", &["net1"], "br-tight", 2, false),
    net("masq", "bridge", &["eth1"], "br-masq", 253, true),
    net("vpn", "bagpipe", &["eth2"], "", 253, false),
    net("vpngw", "bagpipe", &["eth3"], "", 253, true),
    net("flat", "bridge", &["eth4"], "br-flat", 0, false),
    net("pool", "host-local", &["eth5"], "", 253, false),
    net("loop", "loopback", &["lo"], "", 0, false),
    net("routed", "ptp", &["eth6"], "", 253, true),
    net("mac", "macvlan", &["eth7"], "", 253, false),
    Net { ipam: Ipam::Static, ..net("fixed", "macvlan", &["eth8"], "", 0, false) },
    Net { chain: AFTERWARDS, ..net("chain", "bridge", &["eth10"], "br-chain", 253, true) },
    net("plain", NATIVE, &["nat0"], "", 253, false),
    net("tight", NATIVE, &["nat1"], "", 2, false),
    net("masq", NATIVE, &["nat2"], "", 253, false),
    net("pool", NATIVE, &["nat5"], "", 253, false),
];

/// The pods.
pub const PODS: [&str; 4] = ["a", "b", "c", "d"];

/// One interface of one pod in one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// The network.
    pub net: Net,
    /// The pod.
    pub pod: &'static str,
    /// The interface.
    pub ifname: &'static str,
}

impl Attachment {
    /// Each that can be.
    pub fn all() -> Vec<Self> {
        let of_net = |net: &Net| {
            let net = *net;
            PODS.iter().flat_map(move |pod| net.ifnames.iter().map(move |ifname| Self { net, pod, ifname }))
        };
        NETWORKS.iter().flat_map(of_net).collect()
    }

    /// "plain/a/eth0", as scripts have it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::all().into_iter().find(|attachment| attachment.to_string() == text)
    }

    /// CNI_CONTAINERID.
    pub fn container_id(&self) -> String {
        format!("pod-{}", self.pod)
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.net.name, self.pod, self.ifname)
    }
}

/// A network by its name, as our plugin knows it.
pub fn network(name: &str) -> Option<Net> {
    NETWORKS.iter().find(|net| net.name == name).copied()
}
