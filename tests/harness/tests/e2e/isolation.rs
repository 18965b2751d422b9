//! Who may talk to whom, by traffic of both families through the installed plugins: ingress policies between pods of one
//! bridge, of two, and the outside; and frames with another's source. (What each rule does: host/kernel/tests,
//! nftables_forward.)

use sandwire_harness::{Node, Place, Pod, Verb};
use serde_json::{Value, json};

/// What is attached: a pod of a network, with the policy that the network has.
struct Attached {
    pod: Pod,
    network: &'static str,
    policy: &'static str,
    result: Value,
}

struct World {
    node: Node,
    outside: Pod,
}

/// Name and bridge of a network, and what its addresses begin with.
const NETWORKS: [(&str, &str, &str, &str); 3] = [
    ("one", "br-1", "10.1.1", "fd00:1:1:"),
    ("two", "br-2", "10.1.2", "fd00:1:2:"),
    ("free", "br-f", "10.1.3", "fd00:1:3:"),
];

const OUTSIDE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

impl World {
    /// A node that forwards nothing of its own accord, and another machine.
    fn new() -> Self {
        let node = Node::installed().unwrap();
        let outside = node.pod("outside").unwrap();
        node.sh("ip link add out0 type veth peer name eth0 netns pod-outside; ip link set out0 up
             ip addr add 192.0.2.1/24 dev out0; ip addr add 2001:db8::1/64 dev out0 nodad
             echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
            .unwrap();
        node.sh_at(
            &outside.place(),
            "ip link set eth0 up; ip addr add 192.0.2.2/24 dev eth0; ip addr add 2001:db8::2/64 dev eth0 nodad
             ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8::1",
        )
        .unwrap();
        Self { node, outside }
    }

    fn plugins(network: &str, policy: &str) -> Vec<Value> {
        let (name, bridge, ipv4, ipv6) = *NETWORKS.iter().find(|(name, ..)| *name == network).unwrap();
        let mut bridge = json!({"type": "bridge", "bridge": bridge, "isGateway": true, "macspoofchk": network != "free", "ipam": {
            "type": "host-local", "ranges": [[{"subnet": format!("{ipv4}.0/24")}], [{"subnet": format!("{ipv6}:/64")}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}});
        let mut firewall = json!({"type": "firewall", "ingressPolicy": policy});
        for config in [&mut bridge, &mut firewall] {
            (config["cniVersion"], config["name"]) = ("1.1.0".into(), name.into());
        }
        if policy.is_empty() { vec![bridge] } else { vec![bridge, firewall] }
    }

    fn attach(&self, name: &str, network: &'static str, policy: &'static str) -> Attached {
        let pod = self.node.pod(name).unwrap();
        let result = Self::plugins(network, policy).into_iter().fold(Value::Null, |result, mut config| {
            config["prevResult"] = result;
            self.node.cni(config["type"].as_str().unwrap(), Verb::Add, &pod, "eth0", &config).unwrap().result().unwrap()
        });
        Attached { pod, network, policy, result }
    }

    fn detach(&self, attached: &Attached) {
        for mut config in Self::plugins(attached.network, attached.policy).into_iter().rev() {
            config["prevResult"] = attached.result.clone();
            let plugin = config["type"].as_str().unwrap().to_owned();
            self.node.cni(&plugin, Verb::Del, &attached.pod, "eth0", &config).unwrap().done().unwrap();
        }
    }

    /// Whether a question of each family is answered.
    fn reaches(&self, from: &Place, to: [&str; 2], most: u8) -> [bool; 2] {
        to.map(|address| self.node.sh_at(from, &format!("ping -n -c 1 -W {most} {address}")).is_ok())
    }

    /// `pass`: both families must; otherwise neither may.
    fn assert_reaches(&self, from: &Place, to: [&str; 2], pass: bool, why: &str) {
        let seen = self.reaches(from, to, if pass { 5 } else { 1 });
        assert_eq!(seen, [pass; 2], "IPv4 and IPv6, {why}: {}", self.node.sh("nft list ruleset").unwrap());
    }

    fn nothing_left(&self) {
        assert_eq!(self.node.sh("nft list ruleset | grep sandwire || true").unwrap(), "");
    }
}

impl Attached {
    fn addresses(&self) -> [&str; 2] {
        [0, 1].map(|n| self.result["ips"][n]["address"].as_str().unwrap().split('/').next().unwrap())
    }

    fn place(&self) -> Place {
        self.pod.place()
    }
}

/// Two pods of one bridge, a pod of another with the same policy, and one of a network without any.
fn policy(policy: &'static str, neighbours: bool, strangers: bool) {
    let world = World::new();
    let [a, b, c] =
        [("a", "one"), ("b", "one"), ("c", "two")].map(|(name, network)| world.attach(name, network, policy));
    let free = world.attach("free", "free", "");
    let outside = world.outside.place();
    for (from, to, pass, why) in [
        (&a, &b, neighbours, "neighbours"),
        (&b, &a, neighbours, "neighbours, the other way round"),
        (&a, &c, strangers, "another bridge"),
        (&c, &a, strangers, "another bridge, the other way round"),
        // As in the reference: only what bridges with a policy send is looked at.
        (&free, &a, true, "from a network without a policy"),
        (&a, &free, true, "to a network without a policy"),
    ] {
        world.assert_reaches(&from.place(), to.addresses(), pass, &format!("{policy}: {why}"));
    }
    for pod in [&a, &c] {
        world.assert_reaches(&pod.place(), OUTSIDE, true, &format!("{policy}: to the outside"));
        world.assert_reaches(&outside, pod.addresses(), true, &format!("{policy}: from the outside"));
        world.assert_reaches(&Place::Host, pod.addresses(), true, &format!("{policy}: from the node"));
    }
    // A policy ends with the last pod that has it, and not before.
    world.detach(&b);
    world.assert_reaches(&c.place(), a.addresses(), strangers, &format!("{policy}: when a neighbour is gone"));
    [&a, &c].iter().for_each(|pod| world.detach(pod));
    world.detach(&free);
    world.nothing_left();
}

#[test]
fn open() {
    policy("open", true, true);
}

#[test]
fn same_bridge() {
    policy("same-bridge", true, false);
}

#[test]
fn isolated() {
    policy("isolated", false, false);
}

/// A node whose own chains drop what is forwarded: pods get out, answers get in, and policies hold all the same.
#[test]
fn on_a_node_that_drops() {
    let world = World::new();
    world.node.sh("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP").unwrap();
    let [a, b, c] =
        [("a", "one"), ("b", "one"), ("c", "two")].map(|(name, network)| world.attach(name, network, "same-bridge"));
    let free = world.attach("free", "free", "");
    world.assert_reaches(&a.place(), OUTSIDE, true, "what a pod starts");
    world.assert_reaches(&world.outside.place(), a.addresses(), false, "what others start is the node's own business");
    world.assert_reaches(&free.place(), OUTSIDE, false, "a pod without the plugin");
    world.assert_reaches(&a.place(), b.addresses(), true, "neighbours");
    world.assert_reaches(&c.place(), a.addresses(), false, "let through for one bridge is not for another");
    [&a, &b, &c].iter().for_each(|pod| world.detach(pod));
    world.assert_reaches(&a.place(), OUTSIDE, false, "after DEL");
    world.detach(&free);
    world.nothing_left();
}

/// What a place has received: echo requests of IPv4 and of IPv6, since the last look.
fn received(world: &World, place: &Place) -> [u64; 2] {
    let text = world.node.sh_at(place, "nft reset counters table inet look").unwrap();
    let mut packets = text.split("packets ").skip(1).map(|rest| rest.split(' ').next().unwrap().parse().unwrap());
    [packets.next().unwrap(), packets.next().unwrap()]
}

const LOOK: &str = "nft 'table inet look { counter a { }; counter b { }; chain c { type filter hook input priority 0
    icmp type echo-request counter name a; icmpv6 type echo-request counter name b; }; }'";

/// What a pod sends with another's source arrives nowhere: not at the gateway, not at a neighbour, not outside. That it would
/// is seen on a bridge that doesn't check.
#[test]
fn spoofed_frames_are_dropped() {
    let world = World::new();
    for (network, pods, checked) in [("one", ["a", "b"], true), ("free", ["c", "d"], false)] {
        let [a, b] = pods.map(|name| world.attach(name, network, "open"));
        let mac = |attached: &Attached| attached.result["interfaces"][2]["mac"].as_str().unwrap().to_owned();
        let gateways = [0, 1].map(|n| a.result["ips"][n]["gateway"].as_str().unwrap().to_owned());
        let gateways = [gateways[0].as_str(), gateways[1].as_str()];
        let places = [
            (Place::Host, gateways, "the gateway"),
            (b.place(), b.addresses(), "a neighbour"),
            (world.outside.place(), OUTSIDE, "the outside"),
        ];
        // The node and the other machine know each other from here on.
        for (_, to, what) in &places {
            world.assert_reaches(&a.place(), *to, true, what);
        }
        let bridge = a.result["interfaces"][0]["mac"].as_str().unwrap();
        let known = [(gateways, bridge.to_owned()), (b.addresses(), mac(&b))];
        let mut sources = vec![(mac(&a), true), ("02:00:00:00:00:99".into(), !checked), (mac(&a), true)];
        if checked {
            // On the other bridge the neighbour would lose what is sent to it.
            sources.insert(2, (mac(&b), false));
        }
        for (source, arrives) in sources {
            world.node.sh_at(&a.place(), &format!("ip link set eth0 address {source}")).unwrap();
            // Who is who need not be asked: only what the pod sends is in question, not whether answers find it.
            for (addresses, mac) in &known {
                for address in addresses {
                    let script = format!("ip neigh replace {address} lladdr {mac} dev eth0");
                    world.node.sh_at(&a.place(), &script).unwrap();
                }
            }
            for (place, to, what) in &places {
                world.node.sh_at(place, &format!("nft list table inet look >/dev/null 2>&1 || {LOOK}")).unwrap();
                received(&world, place);
                world.reaches(&a.place(), *to, 1);
                let seen = received(&world, place).map(|packets| packets > 0);
                assert_eq!(seen, [arrives; 2], "IPv4 and IPv6 as {source} on {network} to {what}");
            }
            // Its neighbour loses nothing by it.
            world.assert_reaches(&b.place(), gateways, true, "a neighbour");
        }
        [&a, &b].iter().for_each(|pod| world.detach(pod));
    }
    world.nothing_left();
}
