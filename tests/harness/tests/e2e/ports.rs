//! The everyday chain: bridge, portmap and firewall, and what reaches the container by its ports, through the installed
//! binary. What each rule does to packets is in host/kernel/tests (nftables_ports, nftables_forward).

use sandwire_harness::{Node, Place, Pod, Verb};
use serde_json::{Value, json};

struct Chain {
    node: Node,
    outside: Pod,
}

const PLUGINS: [&str; 3] = ["bridge", "portmap", "firewall"];

/// Accepts or receives once at each address and answers with the address that it sees.
const SERVER: &str = r#"import socket, sys, threading
def serve(kind, address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    s = socket.socket(family, kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, port))
    if kind == socket.SOCK_STREAM:
        s.listen()
        while True:
            c, source = s.accept()
            c.sendall(source[0].encode()); c.close()
    while True:
        _, source = s.recvfrom(9)
        s.sendto(source[0].encode(), source)
for address in sys.argv[1:]:
    for kind, port in ((socket.SOCK_STREAM, 80), (socket.SOCK_DGRAM, 53)):
        threading.Thread(target=serve, args=(kind, address, port), daemon=True).start()
threading.Event().wait(60)
"#;

const CLIENT: &str = r#"import socket, sys
kind, address, port = sys.argv[1:]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
s = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
s.settimeout(2)
s.connect((address, int(port)))
if kind == "udp": s.send(b"?")
print(s.recv(99).decode())
"#;

impl Chain {
    fn new() -> Self {
        let node = Node::installed().unwrap();
        let outside = node.pod("outside").unwrap();
        node.write("/run/server.py", SERVER).unwrap();
        node.write("/run/client.py", CLIENT).unwrap();
        node.sh("ip link add out0 type veth peer name eth0 netns pod-outside; ip link set out0 up
             ip addr add 192.0.2.1/24 dev out0; ip addr add 2001:db8::1/64 dev out0 nodad
             iptables -P FORWARD DROP; ip6tables -P FORWARD DROP")
            .unwrap();
        node.sh_at(
            &outside.place(),
            "ip link set eth0 up; ip addr add 192.0.2.2/24 dev eth0; ip addr add 2001:db8::2/64 dev eth0 nodad
             ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8::1",
        )
        .unwrap();
        Self { node, outside }
    }

    fn config(plugin: &str, ports: &Value) -> Value {
        let mut config = match plugin {
            "bridge" => json!({"bridge": "br-t", "isGateway": true, "hairpinMode": true, "ipam": {"type": "host-local",
                "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1:2::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}),
            "portmap" => json!({"runtimeConfig": {"portMappings": ports}}),
            _ => json!({"backend": "iptables", "ingressPolicy": "same-bridge"}),
        };
        for (key, value) in [("cniVersion", "1.1.0"), ("name", "mynet"), ("type", plugin)] {
            config[key] = value.into();
        }
        config
    }

    fn attach(&self, pod: &Pod, ports: &Value) -> Value {
        let mut result: Option<Value> = None;
        for plugin in PLUGINS {
            let mut config = Self::config(plugin, ports);
            if let Some(result) = &result {
                config["prevResult"] = result.clone();
            }
            result = Some(self.node.cni(plugin, Verb::Add, pod, "eth0", &config).unwrap().result().unwrap());
        }
        let result = result.unwrap();
        for plugin in PLUGINS {
            let mut config = Self::config(plugin, ports);
            config["prevResult"] = result.clone();
            self.node.cni(plugin, Verb::Check, pod, "eth0", &config).unwrap().done().unwrap();
        }
        result
    }

    fn detach(&self, pod: &Pod, result: &Value) {
        for plugin in PLUGINS.into_iter().rev() {
            let mut config = Self::config(plugin, &json!([]));
            config["prevResult"] = result.clone();
            self.node.cni(plugin, Verb::Del, pod, "eth0", &config).unwrap().done().unwrap();
        }
    }

    fn serve(&self, pod: &Pod, result: &Value) {
        let addresses: Vec<&str> = result["ips"]
            .as_array()
            .unwrap()
            .iter()
            .map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap())
            .collect();
        let script = format!("setsid python3 /run/server.py {} >/dev/null 2>&1 & sleep 1", addresses.join(" "));
        self.node.sh_at(&pod.place(), &script).unwrap();
    }

    /// The source that the container sees.
    fn seen(&self, from: &Place, kind: &str, to: &str) -> Option<String> {
        let port = if kind == "tcp" { 8080 } else { 8053 };
        let answer = self.node.sh_at(from, &format!("python3 /run/client.py {kind} {to} {port}"));
        answer.ok().map(|text| text.trim().to_owned())
    }
}

#[test]
fn ports_through_the_whole_chain() {
    let chain = Chain::new();
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8053, "containerPort": 53, "protocol": "udp"}]);
    let [pod, neighbour] = ["a", "b"].map(|name| chain.node.pod(name).unwrap());
    let result = chain.attach(&pod, &ports);
    let other = chain.attach(&neighbour, &json!([]));
    chain.serve(&pod, &result);
    for kind in ["tcp", "udp"] {
        let seen = |from: &Place, to: &str| chain.seen(from, kind, to).unwrap_or_default();
        for (node, gateway, far) in
            [("192.0.2.1", "10.1.2.1", "192.0.2.2"), ("2001:db8::1", "fd00:1:2::1", "2001:db8::2")]
        {
            assert_eq!(seen(&chain.outside.place(), node), far, "{kind} from another machine");
            assert!(!seen(&Place::Host, node).is_empty(), "{kind} from the node to {node}");
            assert_eq!(seen(&pod.place(), node), gateway, "{kind} by hairpin");
            assert_eq!(seen(&neighbour.place(), node), gateway, "{kind} from a neighbour");
        }
        assert_eq!(seen(&Place::Host, "127.0.0.1"), "10.1.2.1", "{kind} by 127.0.0.1");
    }
    chain.detach(&pod, &result);
    assert_eq!(chain.seen(&chain.outside.place(), "tcp", "192.0.2.1"), None);
    assert_eq!(chain.seen(&chain.outside.place(), "udp", "192.0.2.1"), None);
    chain.detach(&neighbour, &other);
    chain.node.sh("test -z \"$(nft list ruleset | grep sandwire; ip -br link | grep veth)\"").unwrap();
}

/// Who publishes a port last has it; when it goes, or its ADD fails, the one that lives on has it again.
#[test]
fn a_port_that_is_taken_comes_back() {
    let chain = Chain::new();
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    let [first, second, third] = ["a", "b", "c"].map(|name| chain.node.pod(name).unwrap());
    let results = [chain.attach(&first, &ports), chain.attach(&second, &ports)];
    chain.serve(&first, &results[0]);
    let answers = || chain.seen(&chain.outside.place(), "tcp", "192.0.2.1").is_some();
    let check = |result: &Value| {
        let mut config = Chain::config("portmap", &ports);
        config["prevResult"] = result.clone();
        chain.node.cni("portmap", Verb::Check, &first, "eth0", &config).unwrap()
    };
    assert!(!answers(), "the second has it");
    check(&results[0]).error_with(999, "missing hostport rules").unwrap();
    chain.detach(&second, &results[1]);
    assert!(answers(), "the first has it again");
    check(&results[0]).done().unwrap();
    // One whose ADD fails after it has taken it.
    let mut config = Chain::config("portmap", &ports);
    config["prevResult"] = results[1].clone();
    chain.node.write("/mnt/config", config.to_string()).unwrap();
    chain
        .node
        .sh(&format!(
            "export CNI_COMMAND=ADD CNI_CONTAINERID=pod-c CNI_NETNS={} CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin
            ! /opt/cni/bin/portmap </mnt/config >/dev/full",
            third.netns.display()
        ))
        .unwrap();
    assert!(answers(), "a failed ADD took it");
    check(&results[0]).done().unwrap();
    // Two more that die without a DEL, and GC.
    let results = [results[0].clone(), chain.attach(&second, &ports), chain.attach(&third, &ports)];
    assert!(!answers());
    let mut config = Chain::config("portmap", &ports);
    config["cni.dev/valid-attachments"] = json!([{"containerID": first.id, "ifname": "eth0"}]);
    chain.node.call("portmap", Verb::Gc).config(&config).run().unwrap().done().unwrap();
    assert!(answers(), "GC gave it to nobody");
    for (pod, result) in [(&third, &results[2]), (&second, &results[1]), (&first, &results[0])] {
        chain.detach(pod, result);
    }
    assert!(!answers());
    // One that died without a DEL gets nothing back, and nobody's port is taken for it.
    let other = json!([{"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}]);
    let both = json!([ports[0], other[0]]);
    let gone = chain.node.pod("e").unwrap();
    let dead = chain.attach(&gone, &both);
    gone.drop_netns(&chain.node).unwrap();
    chain.node.sh("while ip -br link | grep -q ^veth; do sleep 0.02; done").unwrap();
    let results = [dead, chain.attach(&second, &ports), chain.attach(&third, &other)];
    chain.serve(&third, &results[2]);
    let published = || {
        let rules = chain.node.sh("nft list ruleset").unwrap();
        rules.lines().filter(|line| line.contains("8080 comment") && line.contains(" : 10.1.2.")).count()
    };
    assert!(published() > 0);
    chain.detach(&second, &results[1]);
    assert_eq!(published(), 0);
    // One that lives gets what is free, and not what somebody else has by now.
    let fourth = chain.node.pod("d").unwrap();
    let living = chain.attach(&fourth, &both);
    chain.serve(&fourth, &living);
    let results = [results[0].clone(), chain.attach(&second, &ports), results[2].clone()];
    let mut config = Chain::config("portmap", &other);
    config["prevResult"] = results[2].clone();
    chain.node.cni("portmap", Verb::Add, &third, "eth0", &config).unwrap().result().unwrap();
    chain.detach(&second, &results[1]);
    assert!(answers(), "8080 is the fourth's again");
    let rules = chain.node.sh("nft list ruleset | grep 8081").unwrap();
    let address = results[2]["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap();
    assert!(rules.contains(address), "8081 is the third's: {rules}");
    for (pod, result) in [(&fourth, &living), (&third, &results[2]), (&gone, &results[0])] {
        chain.detach(pod, result);
    }
    chain.node.sh("test -z \"$(nft list ruleset | grep sandwire; ip -br link | grep veth)\"").unwrap();
}

/// A range as `podman run -p 20000-21999:...` publishes it: more than a netlink socket sends at once by default.
#[test]
fn thousands_of_ports_of_one_pod() {
    let chain = Chain::new();
    let pod = chain.node.pod("many").unwrap();
    let mapping = |port: u32| json!({"hostPort": port, "containerPort": 80, "protocol": "tcp"});
    let ports: Vec<Value> = (20_000..22_000).chain([8080]).map(mapping).collect();
    let result = chain.attach(&pod, &ports.into());
    chain.serve(&pod, &result);
    for node in ["192.0.2.1", "2001:db8::1"] {
        assert!(chain.seen(&chain.outside.place(), "tcp", node).is_some(), "the last of them at {node}");
    }
    chain.detach(&pod, &result);
    chain.node.sh("test -z \"$(nft list ruleset | grep sandwire; ip -br link | grep veth)\"").unwrap();
}
