//! What is called: a plugin with its network, ours or Debian's.

use serde_json::{Value, json};

/// Whose plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The installed sandwire.
    Ours,
    /// Debian's containernetworking-plugins.
    Debians,
}

/// A plugin with a network.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// For people and tables.
    pub name: &'static str,
    /// Whose it is.
    pub whose: Whose,
    /// Its type.
    pub plugin: &'static str,
    /// CNI_IFNAME.
    pub ifname: &'static str,
    /// The network configuration.
    pub config: Value,
    /// Whether a BaGPipe agent is to be there.
    pub agent: bool,
}

/// The link that macvlans ride on.
const MASTER: &str = "ip link add m0 type veth peer name m0p; ip link set m0 up; ip link set m0p up";

impl Scenario {
    /// The loopback plugin.
    pub fn loopback() -> Self {
        let config = json!({"cniVersion": "1.1.0", "name": "lo", "type": "loopback"});
        Self { name: "loopback", whose: Whose::Ours, plugin: "loopback", ifname: "lo", config, agent: false }
    }

    /// An address of each family, no network.
    pub fn host_local() -> Self {
        let config = json!({"cniVersion": "1.1.0", "name": "net", "type": "host-local", "ipam": dual_stack()});
        Self { name: "host-local", whose: Whose::Ours, plugin: "host-local", ifname: "eth0", config, agent: false }
    }

    /// A bridge with a gateway, masquerading and an address of each family.
    pub fn bridge() -> Self {
        let config = json!({"cniVersion": "1.1.0", "name": "net", "type": "bridge", "bridge": "cni0", "isGateway": true,
            "ipMasq": true, "ipam": dual_stack()});
        Self { name: "bridge", whose: Whose::Ours, plugin: "bridge", ifname: "eth0", config, agent: false }
    }

    /// An attachment to a VPN of an agent, with an address of each family.
    pub fn bagpipe() -> Self {
        let config = json!({"cniVersion": "1.1.0", "name": "net", "type": "bagpipe", "importrt": "64512:90",
            "exportrt": "64512:90", "isGateway": false, "ipMasq": false, "mtu": "1500", "ipam": dual_stack()});
        Self { name: "bagpipe", whose: Whose::Ours, plugin: "bagpipe", ifname: "eth0", config, agent: true }
    }

    /// A macvlan with an address of each family.
    pub fn macvlan() -> Self {
        let config =
            json!({"cniVersion": "1.1.0", "name": "net", "type": "macvlan", "master": "m0", "ipam": dual_stack()});
        Self { name: "macvlan", whose: Whose::Ours, plugin: "macvlan", ifname: "eth0", config, agent: false }
    }

    /// The settings that tuning has, of an interface that is there anyway (whose MAC of zeros can't be given back).
    pub fn tuning() -> Self {
        let config = json!({"cniVersion": "1.1.0", "name": "net", "type": "tuning", "mtu": 1400, "txQLen": 77,
            "allmulti": true, "promisc": true,
            "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "500"},
            "prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "lo", "sandbox": "/run/netns/pod-a"}]}});
        Self { name: "tuning", whose: Whose::Ours, plugin: "tuning", ifname: "lo", config, agent: false }
    }

    /// What is on the node beforehand.
    pub(crate) fn before(&self) -> &'static str {
        if self.plugin == "macvlan" { MASTER } else { "" }
    }

    /// One network that both implementations know: bridge, gateway, masquerading, one IPv4 address.
    pub fn compared_bridge(whose: Whose) -> Self {
        let config = json!({"cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "cni0", "isGateway": true,
            "ipMasq": true, "ipam": one_address()});
        let name = match whose {
            Whose::Ours => "Sandwire's bridge",
            Whose::Debians => "Debian's bridge",
        };
        Self { name, whose, plugin: "bridge", ifname: "eth0", config, agent: false }
    }

    /// The same for address management alone.
    pub fn compared_host_local(whose: Whose) -> Self {
        let config = json!({"cniVersion": "1.0.0", "name": "net", "type": "host-local", "ipam": one_address()});
        let name = match whose {
            Whose::Ours => "Sandwire's host-local",
            Whose::Debians => "Debian's host-local",
        };
        Self { name, whose, plugin: "host-local", ifname: "eth0", config, agent: false }
    }
}

fn one_address() -> Value {
    json!({"type": "host-local", "subnet": "10.1.2.0/24", "routes": [{"dst": "0.0.0.0/0"}]})
}

fn dual_stack() -> Value {
    json!({"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1:2::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]})
}
