//! The networks that a script works on, and the attachments that can be.

use serde_json::{Value, json};

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Net {
    /// Name of the network.
    pub name: &'static str,
    /// The plugin.
    pub plugin: &'static str,
    /// Interface names that are used with it. No other network has them: a DEL takes away what has the name.
    pub ifnames: &'static [&'static str],
    /// The bridge of its own; that of an agent's network is the agent's.
    pub bridge: &'static str,
    /// How many addresses of each family it has; 0 without address management.
    pub addresses: usize,
    /// Addresses are masqueraded.
    pub masquerades: bool,
}

impl Net {
    /// Attached by an agent.
    pub fn has_agent(&self) -> bool {
        self.plugin == "bagpipe"
    }

    /// Makes an interface.
    pub fn has_link(&self) -> bool {
        matches!(self.plugin, "bridge" | "bagpipe")
    }

    /// Gives addresses.
    pub fn has_leases(&self) -> bool {
        self.addresses > 0
    }

    /// Its configuration.
    pub fn config(&self) -> Value {
        let ipam = |subnets: &[&str], route: &str| {
            let ranges: Vec<Value> = subnets.iter().map(|subnet| json!([{"subnet": subnet}])).collect();
            json!({"type": "host-local", "ranges": ranges, "routes": [{"dst": route}]})
        };
        let mut config = match self.name {
            "plain" => json!({"bridge": "br-plain", "isGateway": true,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]}}),
            "tight" => json!({"bridge": "br-tight", "ipam": {"type": "host-local",
                "ranges": [[{"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.7", "rangeEnd": "10.2.0.8"}]]}}),
            "masq" => json!({"bridge": "br-masq", "isGateway": true, "ipMasq": true, "macspoofchk": true,
                "ipam": ipam(&["10.3.0.0/24", "fd00:3::/64"], "198.18.3.0/24")}),
            "vpn" => json!({"importrt": "64512:90", "exportrt": "64512:90", "mtu": "1500",
                "ipam": ipam(&["10.4.0.0/24", "fd00:4::/64"], "198.18.4.0/24")}),
            "vpngw" => json!({"importrt": "64512:91", "exportrt": "64512:91", "isGateway": true, "ipMasq": true,
                "ipam": ipam(&["10.5.0.0/24"], "198.18.5.0/24")}),
            "flat" => json!({"bridge": "br-flat"}),
            _ => json!({}),
        };
        if let Some(members) = config.as_object_mut() {
            members.insert("cniVersion".into(), "1.1.0".into());
            members.insert("name".into(), self.name.into());
            members.insert("type".into(), self.plugin.into());
            if self.plugin == "host-local" {
                members.insert("ipam".into(), ipam(&["10.6.0.0/24"], "198.18.6.0/24"));
            }
        }
        config
    }
}

/// All of them.
pub const NETWORKS: [Net; 8] = [
    net("plain", "bridge", &["eth0", "eth9"], "br-plain", 253, false),
    net("tight", "bridge", &["net1"], "br-tight", 2, false),
    net("masq", "bridge", &["eth1"], "br-masq", 253, true),
    net("vpn", "bagpipe", &["eth2"], "", 253, false),
    net("vpngw", "bagpipe", &["eth3"], "", 253, true),
    net("flat", "bridge", &["eth4"], "br-flat", 0, false),
    net("pool", "host-local", &["eth5"], "", 253, false),
    net("loop", "loopback", &["lo"], "", 0, false),
];

const fn net(
    name: &'static str,
    plugin: &'static str,
    ifnames: &'static [&'static str],
    bridge: &'static str,
    addresses: usize,
    masquerades: bool,
) -> Net {
    Net { name, plugin, ifnames, bridge, addresses, masquerades }
}

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

impl std::fmt::Display for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.net.name, self.pod, self.ifname)
    }
}

/// A network by its name.
pub fn network(name: &str) -> Option<Net> {
    NETWORKS.iter().find(|net| net.name == name).copied()
}
