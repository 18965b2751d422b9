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

/// The same, with a DHCP server at its other end.
const SERVED: &str = "ip netns add outside; ip link add m0 type veth peer name wire netns outside; ip link set m0 up
    ip -n outside addr add 10.1.2.1/24 dev wire; ip -n outside link set wire up";

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

    /// A macvlan with an address of a DHCP server.
    pub fn dhcp() -> Self {
        let config =
            json!({"cniVersion": "1.1.0", "name": "net", "type": "macvlan", "master": "m0", "ipam": {"type": "dhcp"}});
        Self { name: "dhcp", whose: Whose::Ours, plugin: "macvlan", ifname: "eth0", config, agent: false }
    }

    /// Whether a DHCP server is to be there.
    pub(crate) fn needs_server(&self) -> bool {
        self.config.pointer("/ipam/type").is_some_and(|manager| manager == "dhcp")
    }

    /// The settings that tuning has, of an interface that is there anyway (whose MAC of zeros can't be given back).
    pub fn tuning() -> Self {
        let config = json!({"cniVersion": "1.1.0", "name": "net", "type": "tuning", "mtu": 1400, "txQLen": 77,
            "allmulti": true, "promisc": true,
            "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "500"},
            "prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "lo", "sandbox": "/run/netns/pod-a"}]}});
        Self { name: "tuning", whose: Whose::Ours, plugin: "tuning", ifname: "lo", config, agent: false }
    }

    /// Limits both ways of a veth that somebody has made ([`Scenario::before`]).
    pub fn bandwidth() -> Self {
        let interfaces = json!([{"name": "vetha"}, {"name": "vethb"}, {"name": "eth0", "sandbox": "/run/netns/pod-a"}]);
        let config = json!({"cniVersion": "1.1.0", "name": "net", "type": "bandwidth", "prevResult": {"interfaces": interfaces,
            "ips": [{"address": "10.1.2.2/24", "interface": 2}]},
            "ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000});
        Self { name: "bandwidth", whose: Whose::Ours, plugin: "bandwidth", ifname: "eth0", config, agent: false }
    }

    /// A rule for the address of an interface that somebody has made. (Routes that it moves DEL leaves to whose interface it is.)
    pub fn sbr() -> Self {
        let interfaces = json!([{"name": "peer0"}, {"name": "eth0", "sandbox": "/run/netns/pod-a"}]);
        let config = json!({"cniVersion": "1.1.0", "name": "net", "type": "sbr", "table": 77, "prevResult": {"interfaces": interfaces,
            "ips": [{"address": "10.1.2.3/24", "gateway": "10.1.2.1", "interface": 1}]}});
        Self { name: "sbr", whose: Whose::Ours, plugin: "sbr", ifname: "eth0", config, agent: false }
    }

    /// A tap device with an owner and an address of each family.
    pub fn tap() -> Self {
        let config = json!({"cniVersion": "1.1.0", "name": "net", "type": "tap", "owner": 1, "group": 1,
            "mac": "02:00:00:00:00:01", "ipam": dual_stack()});
        Self { name: "tap", whose: Whose::Ours, plugin: "tap", ifname: "eth0", config, agent: false }
    }

    /// An interface of the node in the pod, with an address of each family; one for each pod.
    pub fn host_device() -> Self {
        let config = json!({"cniVersion": "1.1.0", "name": "net", "type": "host-device", "device": "eth7", "ipam": dual_stack()});
        Self { name: "host-device", whose: Whose::Ours, plugin: "host-device", ifname: "eth0", config, agent: false }
    }

    /// What has to be there before a call for the pods that exist, as a script: what earlier plugins of a chain make.
    pub fn before(&self) -> &'static str {
        match self.plugin {
            "macvlan" if self.needs_server() => SERVED,
            "macvlan" => MASTER,
            "host-device" => "for n in 7 8; do ip link add eth$n type veth peer name wire$n; ip link set wire$n up; done",
            "bandwidth" => {
                "for pod in a b; do [ ! -e /run/netns/pod-$pod ] ||
                    ip link add veth$pod up type veth peer name eth0 netns pod-$pod; done"
            }
            "sbr" => {
                "for pod in a:3 b:4; do netns=pod-${pod%:*}; [ ! -e /run/netns/$netns ] || {
                    ip -n $netns link add eth0 up type veth peer name peer0; ip -n $netns link set peer0 up
                    ip -n $netns addr add 10.1.2.${pod#*:}/24 dev eth0; ip -n $netns route add default via 10.1.2.1; }; done"
            }
            _ => "",
        }
    }

    /// A point-to-point link with masquerading and an address of each family.
    pub fn ptp() -> Self {
        let config = json!({"cniVersion": "1.1.0", "name": "net", "type": "ptp", "ipMasq": true, "ipam": dual_stack()});
        Self { name: "ptp", whose: Whose::Ours, plugin: "ptp", ifname: "eth0", config, agent: false }
    }

    /// Addresses of the configuration, no network and no state.
    pub fn static_addresses() -> Self {
        let config = json!({"cniVersion": "1.1.0", "name": "net", "type": "static",
            "ipam": {"type": "static", "addresses": [{"address": "10.1.2.9/24", "gateway": "10.1.2.1"}]}});
        Self { name: "static", whose: Whose::Ours, plugin: "static", ifname: "eth0", config, agent: false }
    }

    /// Ports of both families, one of UDP, behind a plugin that gave the addresses.
    pub fn portmap() -> Self {
        let config = json!({"cniVersion": "1.1.0", "name": "net", "type": "portmap", "runtimeConfig": {"portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 8053, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.1"}]},
            "prevResult": addresses()});
        Self { name: "portmap", whose: Whose::Ours, plugin: "portmap", ifname: "eth0", config, agent: false }
    }

    /// An isolated address of each family; any link of the node may stand for the bridge.
    pub fn firewall() -> Self {
        let config = json!({"cniVersion": "1.1.0", "name": "net", "type": "firewall", "ingressPolicy": "isolated",
            "prevResult": addresses()});
        Self { name: "firewall", whose: Whose::Ours, plugin: "firewall", ifname: "eth0", config, agent: false }
    }

    /// The configuration for a pod. What a runtime gives a plugin of a chain is another for each: two can't have one address
    /// or one port.
    pub(crate) fn config_of(&self, pod: &str) -> Value {
        let is_shared = self.config.get("prevResult").is_none() && self.plugin != "host-device";
        if pod != "pod-b" || is_shared {
            return self.config.clone();
        }
        let text = self.config.to_string().replace("\"eth7\"", "\"eth8\"");
        let text = text.replace("10.1.2.3/", "10.1.2.4/").replace("fd00:1:2::3/", "fd00:1:2::4/");
        let text = text.replace(":8080", ":8081").replace(":8053", ":8054");
        serde_json::from_str(&text).unwrap_or_default()
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

fn addresses() -> Value {
    json!({"cniVersion": "1.1.0", "interfaces": [{"name": "lo"}],
        "ips": [{"address": "10.1.2.3/24"}, {"address": "fd00:1:2::3/64"}]})
}

fn one_address() -> Value {
    json!({"type": "host-local", "subnet": "10.1.2.0/24", "routes": [{"dst": "0.0.0.0/0"}]})
}

fn dual_stack() -> Value {
    json!({"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1:2::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]})
}
