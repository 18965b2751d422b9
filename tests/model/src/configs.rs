//! What a runtime sends for each network: one configuration for each plugin of its list, with what it adds for a pod.

use crate::networks::{MASTER, Net, PODS, network};
use serde_json::{Value, json};

/// A port of the node that leads to a pod.
#[derive(Debug, Clone, Copy)]
pub struct Port {
    /// "tcp".
    pub protocol: &'static str,
    /// Of the node.
    pub host: u16,
    /// Of the pod.
    pub container: u16,
    /// Of this address of the node alone.
    pub address: Option<&'static str>,
    /// Two pods want it: the last one has it.
    pub contended: bool,
}

/// The pods that want the same port of the node.
pub const CONTENDERS: [&str; 2] = ["c", "d"];

/// What the sysctl of the pod as a whole is set to, and what it was.
pub const PORT_RANGE: [&str; 2] = ["20000\t30000", "32768\t60999"];
/// The MTU that tuning sets.
pub const TUNED_MTU: u32 = 1400;

/// A pod's number, from 0.
fn number(pod: &str) -> u16 {
    PODS.iter().position(|other| *other == pod).and_then(|place| u16::try_from(place).ok()).unwrap_or_default()
}

/// The MAC that tuning sets.
pub fn tuned_mac(pod: &str) -> String {
    format!("02:00:00:00:0a:0{}", number(pod))
}

/// The ports of a pod.
pub fn ports(pod: &str) -> Vec<Port> {
    let port = |protocol, host, container, address| Port {
        protocol,
        host: host + number(pod),
        container,
        address,
        contended: false,
    };
    let mut ports = vec![
        port("tcp", 8181, 80, None),
        port("udp", 8053, 53, None),
        port("tcp", 8441, 443, Some("192.0.2.1")),
        port("tcp", 8441, 443, Some("2001:db8::1")),
    ];
    if CONTENDERS.contains(&pod) {
        ports.push(Port { protocol: "udp", host: 9053, container: 53, address: None, contended: true });
    }
    ports
}

/// Who may start traffic to a pod: each policy has one.
pub fn ingress_policy(pod: &str) -> &'static str {
    match pod {
        "c" => "isolated",
        "d" => "open",
        _ => "same-bridge",
    }
}

impl Net {
    /// The configurations of all its plugins, in their order, for a pod or for the network as a whole.
    pub fn configs(&self, pod: Option<&str>) -> Vec<(&'static str, Value)> {
        self.plugins().map(|plugin| (plugin, self.config(plugin, pod))).collect()
    }

    /// Native host-local gets the same as our plugin's delegate does, in the newest version that it knows.
    fn config(&self, plugin: &'static str, pod: Option<&str>) -> Value {
        let mut config = match plugin {
            _ if self.is_native() => {
                let ours = network(self.name).map(|net| net.config(net.plugin, pod));
                ours.unwrap_or_else(|| json!({}))
            }
            _ if plugin == self.plugin => self.first(),
            _ => afterwards(plugin, pod),
        };
        if let Some(members) = config.as_object_mut() {
            let version = if self.is_native() { "1.0.0" } else { "1.1.0" };
            members.insert("cniVersion".into(), version.into());
            members.insert("name".into(), self.name.into());
            if !self.is_native() {
                members.insert("type".into(), plugin.into());
            }
        }
        config
    }

    fn first(&self) -> Value {
        let ipam = |subnets: &[&str], route: &str| {
            let ranges: Vec<Value> = subnets.iter().map(|subnet| json!([{"subnet": subnet}])).collect();
            json!({"type": "host-local", "ranges": ranges, "routes": [{"dst": route}]})
        };
        match self.name {
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
            "pool" => json!({"ipam": ipam(&["10.6.0.0/24"], "198.18.6.0/24")}),
            "routed" => json!({"ipMasq": true, "mtu": 1450,
                "ipam": ipam(&["10.7.0.0/24", "fd00:7::/64"], "198.18.7.0/24")}),
            "mac" => json!({"master": MASTER, "mtu": 1450,
                "ipam": ipam(&["10.8.0.0/24", "fd00:8::/64"], "198.18.8.0/24")}),
            "fixed" => json!({"master": MASTER, "ipam": {"type": "static",
                "addresses": [{"address": "10.9.0.9/24"}, {"address": "fd00:9::9/64"}],
                "routes": [{"dst": "198.18.9.0/24", "gw": "10.9.0.1"}]}}),
            "chain" => json!({"bridge": "br-chain", "isGateway": true, "ipMasq": true,
                "ipam": ipam(&["10.10.0.0/24", "fd00:10::/64"], "198.18.10.0/24")}),
            _ => json!({}),
        }
    }
}

fn afterwards(plugin: &str, pod: Option<&str>) -> Value {
    let runtime = pod.map(|pod| (pod, ports(pod)));
    match plugin {
        "portmap" => match runtime {
            Some((_, ports)) => {
                let mappings: Vec<Value> = ports
                    .iter()
                    .map(|port| {
                        json!({"hostPort": port.host, "containerPort": port.container, "protocol": port.protocol,
                            "hostIP": port.address.unwrap_or_default()})
                    })
                    .collect();
                json!({"runtimeConfig": {"portMappings": mappings}})
            }
            None => json!({}),
        },
        "firewall" => json!({"ingressPolicy": ingress_policy(pod.unwrap_or_default())}),
        "bandwidth" => json!({"ingressRate": 80_000_000, "ingressBurst": 8_000_000,
            "egressRate": 160_000_000, "egressBurst": 16_000_000}),
        "tuning" => json!({"mtu": TUNED_MTU, "allmulti": true, "runtimeConfig": {"mac": pod.map(tuned_mac)},
            "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.ipv4.ip_local_port_range": "20000 30000"}}),
        _ => json!({}),
    }
}
