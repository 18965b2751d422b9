//! Ports of the node that lead to a pod: from another machine, from the node, from the pod itself and from its neighbours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod nft;
#[path = "support/mod.rs"]
mod support;
#[path = "nft/world.rs"]
mod world;

use nft::{in_netns, ip, nft_script, owner, ruleset, run};
use sandwire_kernel::linux::Nftables;
use sandwire_kernel::{KernelError, PortForward, Rule, RuleOwner};
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;
use support::inside;
use world::{World, at, client, connect, own_client, own_connect, tcp, tcp_server, udp, udp_server};

const TCP: u8 = 6;
const UDP: u8 = 17;

fn portmap(container_id: &str) -> RuleOwner {
    RuleOwner { plugin: "portmap".into(), ..owner(container_id) }
}

fn port(protocol: u8, host_port: u16, to: &str, to_port: u16) -> PortForward {
    let to: IpAddr = to.parse().unwrap();
    let network = if to.is_ipv4() { "10.1.2.0/24" } else { "fd00:1::/64" };
    PortForward {
        protocol,
        host_ip: None,
        host_port,
        to,
        to_port,
        masquerade: true,
        extra: vec![("masquerade-from".into(), network.into())],
    }
}

fn with(forward: PortForward, key: &str, value: &str) -> PortForward {
    let mut forward = forward;
    forward.extra.push((key.into(), value.into()));
    forward
}

fn rules(forwards: impl IntoIterator<Item = PortForward>) -> Vec<Rule> {
    forwards.into_iter().map(Rule::ForwardPort).collect()
}

fn text(source: Option<IpAddr>) -> String {
    source.map(|ip| ip.to_string()).unwrap_or_default()
}

#[test]
fn a_port_is_reached_from_everywhere() {
    for br_netfilter in [true, false] {
        in_netns(move || reached_from_everywhere(br_netfilter));
    }
}

fn reached_from_everywhere(br_netfilter: bool) {
    let world = World::new();
    for family in ["ip", "ip6"] {
        // A kernel without br_netfilter has no such key.
        let key = format!("/proc/sys/net/bridge/bridge-nf-call-{family}tables");
        let _ = std::fs::write(key, if br_netfilter { "1" } else { "0" });
    }
    let mut nft = Nftables::open().unwrap();
    let wanted =
        rules(["10.1.2.3", "fd00:1::3"].into_iter().flat_map(|to| [port(TCP, 8080, to, 80), port(UDP, 8053, to, 53)]));
    nft.apply(&portmap("c1"), "ports", &wanted).unwrap();
    assert_eq!(nft.verify(&portmap("c1"), "ports", &wanted).unwrap(), Vec::<String>::new());
    let listed = ruleset();
    assert!(listed.contains("table inet sandwire-ports"), "{listed}");

    for (pod, node, bridge, far, neighbour) in [
        ("10.1.2.3", "192.0.2.1", "10.1.2.1", "192.0.2.2", "10.1.2.4"),
        ("fd00:1::3", "2001:db8::1", "fd00:1::1", "2001:db8::2", "fd00:1::4"),
    ] {
        let web = tcp_server(&world.pod, at(pod, 80));
        let dns = udp_server(&world.pod, at(pod, 53));
        let (t, u) = (at(node, 8080), at(node, 8053));
        // From another machine the source stays.
        assert_eq!(text(tcp(&web, connect(&world.outside, t))), far);
        assert_eq!(text(udp(&dns, client(&world.outside, u), u, true)), far);
        // From the node itself.
        assert!(tcp(&web, own_connect(t)).is_some(), "{node} from the node");
        assert!(udp(&dns, own_client(u), u, true).is_some());
        // By hairpin, from the pod and from a neighbour, which has an address of the same network.
        assert_eq!(text(tcp(&web, connect(&world.pod, t))), bridge);
        assert_eq!(text(udp(&dns, client(&world.pod, u), u, true)), bridge);
        assert_eq!(text(tcp(&web, connect(&world.neighbour, t))), bridge);
        assert_eq!(text(udp(&dns, client(&world.neighbour, u), u, true)), bridge);
        // Past the port the neighbour is seen as it is.
        assert_eq!(text(tcp(&web, connect(&world.neighbour, at(pod, 80)))), neighbour);
    }
    // IPv6 has no forwarding of loopback addresses.
    let (web, dns) = (tcp_server(&world.pod, at("10.1.2.3", 80)), udp_server(&world.pod, at("10.1.2.3", 53)));
    assert_eq!(text(tcp(&web, own_connect(at("127.0.0.1", 8080)))), "10.1.2.1");
    assert_eq!(text(udp(&dns, own_client(at("127.0.0.1", 8053)), at("127.0.0.1", 8053), true)), "10.1.2.1");

    nft.clear(&portmap("c1")).unwrap();
    assert_eq!(ruleset(), "");
    assert!(tcp(&web, connect(&world.outside, at("192.0.2.1", 8080))).is_none());
}

#[test]
fn only_what_is_sent_to_the_node_is_taken() {
    in_netns(|| {
        let world = World::new();
        let mut nft = Nftables::open().unwrap();
        nft.apply(&portmap("c1"), "ports", &rules([port(TCP, 80, "10.1.2.3", 80)])).unwrap();
        // CVE-2025-67499: the pods' own traffic to that port of the outside, by way of the node.
        let theirs = tcp_server(&world.outside, at("192.0.2.2", 80));
        assert_eq!(text(tcp(&theirs, connect(&world.neighbour, at("192.0.2.2", 80)))), "10.1.2.4");
        assert_eq!(text(tcp(&theirs, own_connect(at("192.0.2.2", 80)))), "192.0.2.1");
    });
}

#[test]
fn the_nodes_loopback_stays_its_own() {
    in_netns(|| {
        let world = World::new();
        // route_localnet alone lets pods reach what listens on 127.0.0.1 (CVE-2020-8558).
        let own = UdpSocket::bind("127.0.0.1:9000").unwrap();
        own.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let sender = inside(&world.pod, || {
            ip("address del 127.0.0.1/8 dev lo");
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
            ip("route add 127.0.0.1/32 via 10.1.2.1 src 10.1.2.3");
            UdpSocket::bind("10.1.2.3:0").unwrap()
        });
        let is_reached = |from: &UdpSocket| {
            from.send_to(b"?", "127.0.0.1:9000").unwrap();
            own.recv_from(&mut [0; 4]).is_ok()
        };
        assert!(is_reached(&sender), "the test can't tell: it is not reached without our rules either");
        let mut nft = Nftables::open().unwrap();
        nft.apply(&portmap("c1"), "ports", &rules([port(TCP, 8080, "10.1.2.3", 80)])).unwrap();
        assert!(!is_reached(&sender), "a pod reaches the node's 127.0.0.1");
        assert!(is_reached(&UdpSocket::bind("127.0.0.1:0").unwrap()), "the node itself does");
    });
}

#[test]
fn a_port_of_one_address_goes_before_the_same_of_all() {
    in_netns(|| {
        let world = World::new();
        let mut nft = Nftables::open().unwrap();
        let of_one = |to: &str, host_ip: &str| PortForward {
            host_ip: Some(host_ip.parse().unwrap()),
            ..port(TCP, 8080, to, 80)
        };
        nft.apply(&portmap("c1"), "ports", &rules([port(TCP, 8080, "10.1.2.3", 80), port(TCP, 8080, "fd00:1::3", 80)]))
            .unwrap();
        let one = rules([of_one("10.1.2.4", "192.0.2.1"), of_one("fd00:1::4", "2001:db8::1")]);
        nft.apply(&portmap("c2"), "ports", &one).unwrap();
        assert!(nft.verify(&portmap("c2"), "ports", &one).unwrap().is_empty());
        for (first, second, node, other) in
            [("10.1.2.3", "10.1.2.4", "192.0.2.1", "10.1.2.1"), ("fd00:1::3", "fd00:1::4", "2001:db8::1", "fd00:1::1")]
        {
            let (all, one) = (tcp_server(&world.pod, at(first, 80)), tcp_server(&world.neighbour, at(second, 80)));
            assert!(tcp(&one, connect(&world.outside, at(node, 8080))).is_some(), "{node}");
            assert!(tcp(&all, connect(&world.outside, at(other, 8080))).is_some(), "{other}");
        }
        nft.clear(&portmap("c1")).unwrap();
        nft.clear(&portmap("c2")).unwrap();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn whom_it_is_masqueraded_for() {
    in_netns(|| {
        let world = World::new();
        let mut nft = Nftables::open().unwrap();
        let web = tcp_server(&world.pod, at("10.1.2.3", 80));
        let seen = || text(tcp(&web, connect(&world.outside, at("192.0.2.1", 8080))));
        let all = with(port(TCP, 8080, "10.1.2.3", 80), "masquerade-all", "true");
        nft.apply(&portmap("c1"), "ports", &rules([all])).unwrap();
        assert_eq!(seen(), "10.1.2.1");
        let none = PortForward { masquerade: false, ..port(TCP, 8080, "10.1.2.3", 80) };
        nft.apply(&portmap("c1"), "ports", &rules([none])).unwrap();
        assert_eq!(seen(), "192.0.2.2");
        assert!(!ruleset().contains("masquerade"), "{}", ruleset());
    });
}

#[test]
fn conditions_are_kept() {
    in_netns(|| {
        let world = World::new();
        let mut nft = Nftables::open().unwrap();
        let web = tcp_server(&world.pod, at("10.1.2.3", 80));
        let reached = |node: &str| tcp(&web, connect(&world.outside, at(node, 8080))).is_some();
        for (key, value, is_reached) in [
            ("only-destination", "192.0.2.0/24", true),
            ("not-destination", "192.0.2.1", false),
            ("only-source", "192.0.2.2", true),
            ("not-source", "192.0.2.0/25", false),
            ("only-input", "out0", true),
            ("only-input", "br0", false),
            ("not-input", "br0", true),
        ] {
            let wanted = rules([with(port(TCP, 8080, "10.1.2.3", 80), key, value)]);
            nft.apply(&portmap("c1"), "ports", &wanted).unwrap();
            assert!(nft.verify(&portmap("c1"), "ports", &wanted).unwrap().is_empty());
            assert_eq!(reached("192.0.2.1"), is_reached, "{key} {value}");
        }
        nft.clear(&portmap("c1")).unwrap();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn who_has_a_port_last_has_it() {
    in_netns(|| {
        let mut nft = Nftables::open().unwrap();
        let (one, two) = (rules([port(TCP, 8080, "10.1.2.3", 80)]), rules([port(TCP, 8080, "10.1.2.4", 81)]));
        nft.apply(&portmap("c1"), "ports", &one).unwrap();
        nft.apply(&portmap("c2"), "ports", &two).unwrap();
        assert!(nft.verify(&portmap("c2"), "ports", &two).unwrap().is_empty());
        let missing = nft.verify(&portmap("c1"), "ports", &one).unwrap().join("; ");
        assert!(missing.contains("another attachment's") && missing.contains("leads elsewhere"), "{missing}");
        // A DEL of the first does not take it from the second.
        nft.clear(&portmap("c1")).unwrap();
        assert!(nft.verify(&portmap("c2"), "ports", &two).unwrap().is_empty());
        nft.clear(&portmap("c2")).unwrap();
        assert_eq!(ruleset(), "");
        // One set of rules can't have it twice.
        let twice = rules([port(TCP, 8080, "10.1.2.3", 80), port(TCP, 8080, "10.1.2.3", 81)]);
        assert!(matches!(nft.apply(&portmap("c1"), "ports", &twice), Err(KernelError::Invalid(_))));
    });
}

#[test]
fn what_is_tampered_with_is_named_and_mended() {
    in_netns(|| {
        let mut nft = Nftables::open().unwrap();
        let wanted = rules([port(TCP, 8080, "10.1.2.3", 80)]);
        let table = "inet sandwire-ports";
        for (tampering, named) in [
            (format!("flush map {table} ports4"), "missing from map ports4"),
            (format!("flush map {table} ports4-to"), "missing from set ports4-to"),
            (format!("flush set {table} owners"), "its record is missing"),
            (format!("flush chain {table} ports"), "the rule of map ports4"),
            (format!("flush chain {table} prerouting"), "chain prerouting"),
            (format!("flush chain {table} output"), "chain output"),
            (format!("flush chain {table} localnet"), "chain localnet"),
            (
                format!(
                    "delete element {table} ports4-to {{ tcp . 8080 }}; add element {table} ports4-to {{ tcp . 8080 : 10.1.2.9 . 80 }}"
                ),
                "leads elsewhere",
            ),
            ("flush chain inet sandwire postrouting".to_owned(), "the rule of map hairpin4-10.1.2.0/24"),
        ] {
            nft.apply(&portmap("c1"), "ports", &wanted).unwrap();
            assert_eq!(nft.verify(&portmap("c1"), "ports", &wanted).unwrap(), Vec::<String>::new());
            nft_script(&tampering);
            let missing = nft.verify(&portmap("c1"), "ports", &wanted).unwrap().join("; ");
            assert!(missing.contains(named), "{tampering}: {missing}");
            nft.clear(&portmap("c1")).unwrap();
            // Another container's ADD mends what all share.
            nft.apply(&portmap("c2"), "ports", &rules([port(TCP, 8081, "10.1.2.4", 80)])).unwrap();
            nft.clear(&portmap("c2")).unwrap();
            nft_script("flush ruleset");
        }
        nft.apply(&portmap("c1"), "ports", &wanted).unwrap();
        nft_script(&format!("flush chain {table} output"));
        let other = rules([port(TCP, 8081, "10.1.2.4", 80)]);
        nft.apply(&portmap("c2"), "ports", &other).unwrap();
        assert!(nft.verify(&portmap("c1"), "ports", &wanted).unwrap().is_empty(), "{}", ruleset());
    });
}

#[test]
fn gc_keeps_what_is_valid() {
    in_netns(|| {
        let mut nft = Nftables::open().unwrap();
        let of = |last: u16| rules([port(TCP, 8000 + last, &format!("10.1.2.{last}"), 80)]);
        for last in 3..6 {
            nft.apply(&portmap(&format!("c{last}")), "ports", &of(last)).unwrap();
        }
        nft.retain("net1", &[("c4".into(), "eth0".into())]).unwrap();
        assert!(nft.verify(&portmap("c4"), "ports", &of(4)).unwrap().is_empty());
        assert!(!ruleset().contains("10.1.2.3 ") && !ruleset().contains("10.1.2.5 "), "{}", ruleset());
        nft.retain("net1", &[]).unwrap();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn connections_are_forgotten() {
    in_netns(|| {
        let world = World::new();
        let mut nft = Nftables::open().unwrap();
        nft.apply(&portmap("c1"), "ports", &rules([port(UDP, 8053, "10.1.2.3", 53)])).unwrap();
        let to = at("192.0.2.1", 8053);
        let (one, two) = (udp_server(&world.pod, at("10.1.2.3", 53)), udp_server(&world.neighbour, at("10.1.2.4", 53)));
        let talker = client(&world.outside, to)();
        let again = || talker.try_clone().unwrap();
        assert!(udp(&one, again, to, true).is_some());
        // The port becomes another's, and a client that goes on talking would still talk to the first.
        nft.apply(&portmap("c2"), "ports", &rules([port(UDP, 8053, "10.1.2.4", 53)])).unwrap();
        let flush = |nft: &mut Nftables, protocol, destination: Option<&str>, ports: &[u16]| -> Vec<(u16, u32)> {
            let destination = destination.map(|text| text.parse().unwrap());
            nft.flush(protocol, destination, &ports.iter().copied().collect()).unwrap().into_iter().collect()
        };
        assert_eq!(flush(&mut nft, UDP, None, &[8053]), [], "done by itself");
        assert_eq!(flush(&mut nft, UDP, None, &[8053, 9999]), []);
        assert!(udp(&two, again, to, true).is_some());
        let listed = || run("conntrack", &["-L", "-p", "udp", "--orig-port-dst", "8053"]).lines().count();
        assert_eq!(listed(), 1);
        assert_eq!(flush(&mut nft, TCP, None, &[8053]), []);
        assert_eq!(flush(&mut nft, UDP, Some("192.0.2.9"), &[8053, 9999]), []);
        assert_eq!(flush(&mut nft, UDP, None, &[8052, 8054]), []);
        assert_eq!(listed(), 1);
        for (destination, ports) in [(Some("192.0.2.1"), &[8053][..]), (None, &[8053]), (None, &[8052, 8053, 8054])] {
            assert_eq!(flush(&mut nft, UDP, destination, ports), [(8053, 1)]);
            assert_eq!(listed(), 0);
            assert!(udp(&two, again, to, true).is_some());
        }
        // DEL.
        nft.clear(&portmap("c2")).unwrap();
        assert_eq!(listed(), 0);
        assert!(udp(&two, again, to, false).is_none(), "after DEL nothing arrives, however long the client talks");
        assert!(matches!(nft.flush(1, None, &[1].into()), Err(KernelError::Invalid(_))));
    });
}
