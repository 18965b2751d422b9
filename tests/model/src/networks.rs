//! The networks that a script works on, and the attachments that can be.

use serde_json::{Value, json};

/// The plugin of attachments that Debian's own host-local makes, called directly.
pub const NATIVE: &str = "native host-local";

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

    /// Native host-local's: it knows neither journal nor boot, GC nor STATUS.
    pub fn is_native(&self) -> bool {
        self.plugin == NATIVE
    }

    /// Makes an interface.
    pub fn has_link(&self) -> bool {
        matches!(self.plugin, "bridge" | "bagpipe")
    }

    /// Gives addresses.
    pub fn has_leases(&self) -> bool {
        self.addresses > 0
    }

    /// Its configuration. Native host-local gets the same as our plugin's delegate does, in the newest version that it knows.
    pub fn config(&self) -> Value {
        if self.is_native() {
            let mut config = network(self.name).map_or_else(|| json!({}), |net| net.config());
            if let Some(members) = config.as_object_mut() {
                members.insert("cniVersion".into(), "1.0.0".into());
            }
            return config;
        }
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

/// All of them; native host-local's entries after those that have their names.
pub const NETWORKS: [Net; 12] = [
    net("plain", "bridge", &["eth0", "eth9"], "br-plain", 253, false),
    net("tight", "bridge", &["net1"], "br-tight", 2, false),
    net("masq", "bridge", &["eth1"], "br-masq", 253, true),
    net("vpn", "bagpipe", &["eth2"], "", 253, false),
    net("vpngw", "bagpipe", &["eth3"], "", 253, true),
    net("flat", "bridge", &["eth4"], "br-flat", 0, false),
    net("pool", "host-local", &["eth5"], "", 253, false),
    net("loop", "loopback", &["lo"], "", 0, false),
    net("plain", NATIVE, &["nat0"], "", 253, false),
    net("tight", NATIVE, &["nat1"], "", 2, false),
    net("masq", NATIVE, &["nat2"], "", 253, false),
    net("pool", NATIVE, &["nat5"], "", 253, false),
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

/// A network by its name, as our plugin knows it.
pub fn network(name: &str) -> Option<Net> {
    NETWORKS.iter().find(|net| net.name == name).copied()
}
