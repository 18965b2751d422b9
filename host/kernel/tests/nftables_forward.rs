//! What may be forwarded to and from pods: past other programs' chains that drop, and not past ours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod nft;
#[path = "support/mod.rs"]
mod support;
#[path = "nft/world.rs"]
mod world;

use nft::{in_netns, ip, nft_script, owner, ruleset, run};
use sandwire_kernel::linux::Nftables;
use sandwire_kernel::{Ingress, PortForward, Rule, RuleOwner};
use std::os::fd::OwnedFd;
use support::inside;
use world::{World, at, client, connect, own_client, tcp, tcp_server, udp, udp_server};

fn firewall(container_id: &str) -> RuleOwner {
    RuleOwner { plugin: "firewall".into(), ..owner(container_id) }
}

fn forward(addresses: [&str; 2], ingress: Ingress, bridge: Option<&str>) -> Vec<Rule> {
    let rule =
        |address: &str| Rule::Forward { address: address.parse().unwrap(), ingress, bridge: bridge.map(str::to_owned) };
    addresses.map(rule).to_vec()
}

const POD: [&str; 2] = ["10.1.2.3", "fd00:1::3"];
const NEIGHBOUR: [&str; 2] = ["10.1.2.4", "fd00:1::4"];
const STRANGER: [&str; 2] = ["10.1.3.3", "fd00:2::3"];
const OUTSIDE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

/// Whether a question of each family and its answer arrive; both or neither.
fn talks(from: &OwnedFd, to: &OwnedFd, addresses: [&str; 2], arrives: bool) -> bool {
    let results = addresses.map(|address| {
        let server = udp_server(to, at(address, 4000));
        udp(&server, client(from, at(address, 4000)), at(address, 4000), arrives).is_some()
    });
    assert_eq!(results[0], results[1], "the families differ: {}", ruleset());
    results[0]
}

fn assert_talks(from: &OwnedFd, to: &OwnedFd, addresses: [&str; 2], arrives: bool, why: &str) {
    assert_eq!(talks(from, to, addresses, arrives), arrives, "{why}: {}", ruleset());
}

fn drop_all() {
    for program in ["iptables", "ip6tables"] {
        run(program, &["-P", "FORWARD", "DROP"]);
    }
}

#[test]
fn what_iptables_drops_is_let_through_for_pods() {
    in_netns(|| {
        let world = World::new();
        drop_all();
        let mut nft = Nftables::open().unwrap();
        assert_talks(&world.pod, &world.outside, OUTSIDE, false, "before");
        let wanted = forward(POD, Ingress::Open, None);
        nft.apply(&firewall("c1"), "forward", &wanted).unwrap();
        assert_eq!(nft.verify(&firewall("c1"), "forward", &wanted).unwrap(), Vec::<String>::new());
        assert_talks(&world.pod, &world.outside, OUTSIDE, true, "what a pod starts");
        assert_talks(&world.outside, &world.pod, POD, false, "what others start is the policy's business");
        assert_talks(&world.stranger, &world.outside, OUTSIDE, false, "another pod");

        // What is published is let through.
        let web = tcp_server(&world.pod, at("10.1.2.3", 80));
        let port = Rule::ForwardPort(PortForward {
            protocol: 6,
            host_ip: None,
            host_port: 8080,
            to: "10.1.2.3".parse().unwrap(),
            to_port: 80,
            masquerade: true,
            extra: Vec::new(),
        });
        nft.apply(&RuleOwner { plugin: "portmap".into(), ..owner("c1") }, "ports", &[port]).unwrap();
        assert!(tcp(&web, connect(&world.outside, at("192.0.2.1", 8080))).is_some(), "{}", ruleset());
        nft.clear(&RuleOwner { plugin: "portmap".into(), ..owner("c1") }).unwrap();

        // iptables' own tools read the table, and count.
        let listed = run("iptables", &["-S", "FORWARD"]);
        assert!(
            listed.contains(
                "-A FORWARD -m comment --comment \"sandwire: of containers\" -m mark --mark 0x1000/0x1000 -j ACCEPT"
            ),
            "{listed}"
        );
        run("iptables", &["-A", "FORWARD", "-s", "198.51.100.1", "-j", "DROP"]);
        run("ip6tables-save", &[]);
        // A second pod needs no second rule, and the first's DEL leaves it.
        nft.apply(&firewall("c2"), "forward", &forward(NEIGHBOUR, Ingress::Open, None)).unwrap();
        assert_eq!(run("iptables", &["-S", "FORWARD"]).matches("sandwire").count(), 1);
        nft.clear(&firewall("c1")).unwrap();
        assert_talks(&world.pod, &world.outside, OUTSIDE, false, "after DEL");
        assert_talks(&world.neighbour, &world.outside, OUTSIDE, true, "the second pod");
        nft.clear(&firewall("c2")).unwrap();
        let rest = ruleset();
        assert!(!rest.contains("sandwire") && rest.contains("198.51.100.1"), "{rest}");
    });
}

#[test]
fn an_administrators_chain_goes_first() {
    in_netns(|| {
        let world = World::new();
        drop_all();
        run("iptables", &["-N", "CNI-ADMIN"]);
        run("iptables", &["-A", "CNI-ADMIN", "-d", "192.0.2.2", "-j", "DROP"]);
        run("iptables", &["-A", "FORWARD", "-j", "ACCEPT", "-d", "203.0.113.1"]);
        let mut nft = Nftables::open().unwrap();
        nft.apply(&firewall("c1"), "forward", &forward(POD, Ingress::Open, None)).unwrap();
        let server = udp_server(&world.outside, at("192.0.2.2", 4000));
        let to = at("192.0.2.2", 4000);
        assert!(udp(&server, client(&world.pod, to), to, false).is_none());
        run("iptables", &["-F", "CNI-ADMIN"]);
        assert!(udp(&server, client(&world.pod, to), to, true).is_some());
        nft.clear(&firewall("c1")).unwrap();
        assert!(!ruleset().contains("sandwire"), "{}", ruleset());
        run("iptables", &["-X", "CNI-ADMIN"]);
    });
}

/// firewalld's tables as it makes them: what its zones don't accept is rejected at the end of a chain of its own.
#[test]
fn what_firewalld_rejects_is_let_through_for_pods() {
    in_netns(|| {
        let world = World::new();
        nft_script(
            "table inet firewalld {
                chain filter_FORWARD {
                    type filter hook forward priority filter + 10; policy accept;
                    ct state { established, related } accept
                    ct status dnat accept
                    iifname \"lo\" accept
                    reject with icmpx type admin-prohibited
                }
            }",
        );
        let mut nft = Nftables::open().unwrap();
        assert_talks(&world.pod, &world.outside, OUTSIDE, false, "before");
        let wanted = forward(POD, Ingress::Open, None);
        nft.apply(&firewall("c1"), "forward", &wanted).unwrap();
        assert_talks(&world.pod, &world.outside, OUTSIDE, true, "what a pod starts");
        // A reload takes the rule away: CHECK says so, and the next ADD brings it back for all.
        nft_script("delete table inet firewalld");
        assert!(nft.verify(&firewall("c1"), "forward", &wanted).unwrap().is_empty(), "nothing drops now");
        nft_script(
            "table inet firewalld { chain filter_FORWARD {
                type filter hook forward priority filter + 10; policy accept; reject; }; }",
        );
        let missing = nft.verify(&firewall("c1"), "forward", &wanted).unwrap().join("; ");
        assert!(missing.contains("chain filter_FORWARD of table inet firewalld"), "{missing}");
        nft.apply(&firewall("c2"), "forward", &forward(NEIGHBOUR, Ingress::Open, None)).unwrap();
        assert!(nft.verify(&firewall("c1"), "forward", &wanted).unwrap().is_empty());
        nft.clear(&firewall("c1")).unwrap();
        nft.clear(&firewall("c2")).unwrap();
        assert!(!ruleset().contains("sandwire"), "{}", ruleset());
    });
}

/// kube-proxy's nftables mode has tables of its own, and reads and writes no other.
#[test]
fn other_tables_stay_as_they_are() {
    in_netns(|| {
        let script = "table ip kube-proxy {
                chain services { accept; }
                chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }
                chain filter-forward { type filter hook forward priority -110; policy accept; ct state new accept; }
            }";
        nft_script(script);
        let before = ruleset();
        let mut nft = Nftables::open().unwrap();
        nft.apply(&firewall("c1"), "forward", &forward(POD, Ingress::Isolated, Some("br0"))).unwrap();
        assert!(ruleset().starts_with(&before), "{}", ruleset());
        nft.clear(&firewall("c1")).unwrap();
        assert_eq!(ruleset(), before);
    });
}

#[test]
fn the_mark_is_seen_by_nobody_else() {
    in_netns(|| {
        let world = World::new();
        nft_script(
            "table inet look { chain c { type filter hook postrouting priority 0; meta mark & 0x1000 != 0 counter drop; }; }",
        );
        let mut nft = Nftables::open().unwrap();
        nft.apply(&firewall("c1"), "forward", &forward(POD, Ingress::Open, None)).unwrap();
        assert_talks(&world.pod, &world.outside, OUTSIDE, true, "after the forward hook");
    });
}

#[test]
fn same_bridge_keeps_other_bridges_out() {
    in_netns(|| {
        let world = World::new();
        let mut nft = Nftables::open().unwrap();
        assert_talks(&world.stranger, &world.pod, POD, true, "before");
        nft.apply(&firewall("c1"), "forward", &forward(POD, Ingress::SameBridge, Some("br0"))).unwrap();
        // As in the reference, networks without a policy are not kept out.
        assert_talks(&world.stranger, &world.pod, POD, true, "a bridge without a policy");
        let wanted = forward(STRANGER, Ingress::SameBridge, Some("br1"));
        nft.apply(&firewall("c3"), "forward", &wanted).unwrap();
        assert!(nft.verify(&firewall("c3"), "forward", &wanted).unwrap().is_empty());
        assert_talks(&world.stranger, &world.pod, POD, false, "another bridge");
        assert_talks(&world.pod, &world.stranger, STRANGER, false, "the other way round");
        nft.apply(&firewall("c2"), "forward", &forward(NEIGHBOUR, Ingress::SameBridge, Some("br0"))).unwrap();
        assert_talks(&world.neighbour, &world.pod, POD, true, "the same bridge");
        assert_talks(&world.outside, &world.pod, POD, true, "the outside");
        assert_talks(&world.pod, &world.outside, OUTSIDE, true, "to the outside");
        for container in ["c1", "c2", "c3"] {
            nft.clear(&firewall(container)).unwrap();
        }
        assert_eq!(ruleset(), "");
        assert_talks(&world.stranger, &world.pod, POD, true, "after DEL");
    });
}

#[test]
fn isolated_keeps_neighbours_out_too() {
    for br_netfilter in ["1", "0"] {
        in_netns(move || {
            let world = World::new();
            for family in ["ip", "ip6"] {
                // A kernel without br_netfilter has no such key.
                let _ = std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{family}tables"), br_netfilter);
            }
            let mut nft = Nftables::open().unwrap();
            let wanted = forward(POD, Ingress::Isolated, Some("br0"));
            nft.apply(&firewall("c1"), "forward", &wanted).unwrap();
            assert!(nft.verify(&firewall("c1"), "forward", &wanted).unwrap().is_empty());
            nft.apply(&firewall("c2"), "forward", &forward(NEIGHBOUR, Ingress::Isolated, Some("br0"))).unwrap();
            nft.apply(&firewall("c3"), "forward", &forward(STRANGER, Ingress::Isolated, Some("br1"))).unwrap();
            assert_talks(&world.neighbour, &world.pod, POD, false, "a neighbour");
            assert_talks(&world.pod, &world.neighbour, NEIGHBOUR, false, "the other way round");
            assert_talks(&world.stranger, &world.pod, POD, false, "another bridge");
            assert_talks(&world.pod, &world.outside, OUTSIDE, true, "to the outside");
            assert_talks(&world.outside, &world.pod, POD, true, "the outside");
            // The node itself, which is the gateway.
            for address in POD {
                let server = udp_server(&world.pod, at(address, 4000));
                assert!(udp(&server, own_client(at(address, 4000)), at(address, 4000), true).is_some());
            }
            for container in ["c1", "c2", "c3"] {
                nft.clear(&firewall(container)).unwrap();
            }
            assert_eq!(ruleset(), "");
            // That its neighbour did not answer is something that the pod remembers for a while.
            for netns in [&world.neighbour, &world.pod] {
                inside(netns, || ip("neigh flush all"));
            }
            assert_talks(&world.neighbour, &world.pod, POD, true, "after DEL");
        });
    }
}

#[test]
fn what_is_tampered_with_is_named() {
    in_netns(|| {
        drop_all();
        let mut nft = Nftables::open().unwrap();
        let wanted = forward(POD, Ingress::Isolated, Some("br0"));
        for (tampering, named) in [
            ("flush map inet sandwire-forward isolated4-br0", "missing from map isolated4-br0"),
            ("flush set inet sandwire-forward forwarded4", "missing from set forwarded4"),
            ("flush set inet sandwire-forward policed6", "missing from set policed6"),
            ("flush chain inet sandwire-forward before", "chain before"),
            ("flush chain inet sandwire-forward after", "chain after"),
            ("flush chain inet sandwire-forward ingress", "the rule of map isolated4-br0"),
            ("flush chain bridge sandwire-forward forward", "the rule of map within4"),
            ("flush map bridge sandwire-forward within6", "missing from map within6"),
            ("flush chain ip filter FORWARD", "chain FORWARD of table ip filter"),
            ("flush chain ip6 filter FORWARD", "chain FORWARD of table ip6 filter"),
        ] {
            nft.apply(&firewall("c1"), "forward", &wanted).unwrap();
            assert_eq!(nft.verify(&firewall("c1"), "forward", &wanted).unwrap(), Vec::<String>::new());
            nft_script(tampering);
            let missing = nft.verify(&firewall("c1"), "forward", &wanted).unwrap().join("; ");
            assert!(missing.contains(named), "{tampering}: {missing}");
            nft.clear(&firewall("c1")).unwrap();
            assert!(!ruleset().contains("sandwire"), "{tampering}: {}", ruleset());
        }
    });
}

#[test]
fn gc_takes_the_last_rule_too() {
    in_netns(|| {
        drop_all();
        let before = ruleset();
        let mut nft = Nftables::open().unwrap();
        nft.apply(&firewall("c1"), "forward", &forward(POD, Ingress::Isolated, Some("br0"))).unwrap();
        nft.apply(&firewall("c2"), "forward", &forward(NEIGHBOUR, Ingress::SameBridge, Some("br0"))).unwrap();
        nft.retain("net1", &[("c2".into(), "eth0".into())]).unwrap();
        assert!(!ruleset().contains("10.1.2.3") && ruleset().contains("10.1.2.4"), "{}", ruleset());
        nft.retain("net1", &[]).unwrap();
        assert_eq!(ruleset(), before);
    });
}

/// With a policy by bridges the address is in the group of its bridge, and a later pod's bridge may be another one: what both
/// have in common, the set of addresses that are let through, must not refuse the later pod.
#[test]
fn an_address_of_a_pod_that_is_gone_goes_to_whoever_has_it_next() {
    in_netns(|| {
        drop_all();
        let before = ruleset();
        let mut nft = Nftables::open().unwrap();
        let policies = [
            (Ingress::SameBridge, Some("br0")),
            (Ingress::SameBridge, Some("br1")),
            (Ingress::Open, None),
            (Ingress::Isolated, Some("br0")),
            (Ingress::Isolated, Some("br1")),
            (Ingress::SameBridge, Some("br0")),
        ];
        for (number, (ingress, bridge)) in policies.into_iter().enumerate() {
            let next = firewall(&format!("c{number}"));
            let rules = forward(POD, ingress, bridge);
            nft.apply(&next, "forward", &rules).unwrap();
            assert_eq!(nft.verify(&next, "forward", &rules), Ok(Vec::new()));
            // Not the group of the one before, nor its record.
            assert_eq!(
                ruleset().matches("10.1.2.3").count(),
                mentions(format!("c{number}"), ingress, bridge),
                "{}",
                ruleset()
            );
        }
        // Their DEL comes late, and takes nothing of its.
        let last = forward(POD, Ingress::SameBridge, Some("br0"));
        for number in 0..5 {
            nft.clear(&firewall(&format!("c{number}"))).unwrap();
            assert_eq!(nft.verify(&firewall("c5"), "forward", &last), Ok(Vec::new()));
        }
        nft.clear(&firewall("c5")).unwrap();
        assert_eq!(ruleset(), before);
    });
}

/// How often the ruleset names the address of a pod that is there alone.
fn mentions(container_id: String, ingress: Ingress, bridge: Option<&'static str>) -> usize {
    in_netns(move || {
        drop_all();
        let mut nft = Nftables::open().unwrap();
        nft.apply(&firewall(&container_id), "forward", &forward(POD, ingress, bridge)).unwrap();
        ruleset().matches("10.1.2.3").count()
    })
}
