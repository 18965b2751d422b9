//! The comparison can fail: whatever is tampered with by hand is named.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use sandwire_harness::Place;
use sandwire_model::World;
use sandwire_model::script::Step;
use sandwire_model::state::State;
use std::collections::BTreeSet;
use std::path::PathBuf;

const UP: &str = "
    add plain/a/eth0
    add plain/b/eth0
    add masq/a/eth1
    add vpn/b/eth2
    add vpngw/a/eth3
    add flat/c/eth4
    add pool/c/eth5
    add loop/a/lo
    add routed/a/eth6
    add mac/a/eth7
    add fixed/a/eth8
    add chain/a/eth10
    add chain/c/eth10
    add chain/d/eth10
    del plain/b/eth0";

fn world() -> World {
    let mut world = World::new().unwrap();
    Step::parse_all(UP).unwrap().iter().for_each(|step| world.step(step).unwrap());
    assert_eq!(world.differences(true).unwrap(), Vec::<String>::new());
    world
}

/// Where, what is done there, and what must be said. `$masq` is the host end of that network's attachment.
const TAMPERED: &[(&str, &str, &str)] = &[
    ("a", "ip link del eth0", "plain/a/eth0: there is no interface in the pod"),
    ("a", "ip link set eth0 down", "plain/a/eth0: its interface is \"veth\", up false"),
    ("a", "ip addr flush dev eth0", "plain/a/eth0: its interface has {}"),
    ("a", "ip addr add 10.1.0.77/24 dev eth0", "10.1.0.77/24"),
    ("a", "ip route del 198.18.3.0/24", "masq/a/eth1: no route to 198.18.3.0/24"),
    ("a", "ip link set lo down", "loop/a/lo: lo is down"),
    ("a", "ip link add tun9 type veth peer name tun8", "the interface tun9 of pod a is left"),
    ("b", "ip link add eth0 type bridge", "the interface eth0 of pod b is left"),
    ("", "ip link del $masq", "masq/a/eth1: there is no interface in the pod"),
    ("", "ip link set $masq nomaster", "masq/a/eth1: $masq is a port of \"\", not of \"br-masq\""),
    ("", "ip link set $masq master br-plain", "masq/a/eth1: $masq is a port of \"br-plain\""),
    ("", "ip link set $vpn nomaster", "vpn/b/eth2: $vpn is a port of \"\", not of \"evpn---"),
    ("", "ip link add vethdeadbeef type veth peer name left1", "the link vethdeadbeef (veth) is left"),
    ("", "ip link add br-other type bridge", "the link br-other (bridge) is left"),
    ("", "rm /var/lib/cni/networks/plain/10.1.0.2", "plain/a/eth0: it has the leases {}"),
    ("", "printf 'pod-a\\r\\neth0' >/var/lib/cni/networks/plain/10.1.0.99", "plain/a/eth0: it has the leases"),
    (
        "",
        "printf 'pod-b\\r\\neth0' >/var/lib/cni/networks/plain/10.1.0.99",
        "the lease plain/10.1.0.99 of \"pod-b/eth0\" is left",
    ),
    ("", ": >/var/lib/cni/networks/plain/10.1.0.99", "network plain has 1 lease files without an owner"),
    ("", ": >/var/lib/cni/networks/plain/.tmp-1", "/var/lib/cni/networks/plain/.tmp-1 is no lease"),
    (
        "",
        "printf 'pod-b\\r\\neth0' >/var/lib/cni/networks/plain/10.1.0.2",
        "the lease plain/10.1.0.2 of \"pod-b/eth0\" is left",
    ),
    ("", "nft flush ruleset", "masq/a/eth1: the firewall has no inet sandwire masq4-10.3.0.0/24 10.3.0.2"),
    ("", "nft flush ruleset", "masq/a/eth1: the firewall has no bridge sandwire guarded $masq"),
    (
        "",
        "nft flush ruleset",
        "chain/a/eth10: the firewall has no inet sandwire-ports owners ports4 tcp 8181 10.10.0.2 80",
    ),
    (
        "",
        "nft add table ip t; nft add chain ip t c; nft add rule ip t c ip saddr 10.3.0.77 drop",
        "a rule about 10.3.0.77 is left",
    ),
    (
        "",
        "nft add table ip t; nft add chain ip t c; nft add rule ip t c iifname vethdeadbeef drop",
        "a rule about vethdeadbeef is left",
    ),
    // Point-to-point links.
    ("", "ip link del $routed", "routed/a/eth6: there is no interface in the pod"),
    (
        "",
        "ip addr flush dev $routed",
        "routed/a/eth6: $routed has {}, not the gateways {\"10.7.0.1/32\", \"fd00:7::1/128\"}",
    ),
    ("", "ip route del 10.7.0.2", "routed/a/eth6: the host has no route to 10.7.0.2/32 by $routed"),
    ("", "echo 1 >/proc/sys/net/ipv6/conf/$routed/accept_ra", "routed/a/eth6: ipv6/conf/$routed/accept_ra is"),
    ("a", "ip route del 10.7.0.1", "routed/a/eth6: no route to 10.7.0.1/32"),
    // macvlan and static.
    ("", "ip link del m0", "mac/a/eth7: there is no interface in the pod"),
    ("a", "ip link del eth8; ip link add eth8 type bridge", "fixed/a/eth8: its interface is \"bridge\""),
    ("a", "ip addr del 10.9.0.9/24 dev eth8", "fixed/a/eth8: its interface has {\"fd00:9::9/64\"}"),
    ("a", "ip link set eth8 address 02:00:00:00:00:77", "fixed/a/eth8: its interface has MAC 02:00:00:00:00:77"),
    // portmap.
    (
        "",
        "nft delete element inet sandwire-ports ports4 '{ tcp . 8181 }'",
        "chain/a/eth10: the firewall has no inet sandwire-ports ports4 tcp . 8181",
    ),
    (
        "",
        "nft delete element inet sandwire hairpin6-fd00_10__/64 '{ fd00:10::2 . tcp . 8181 }'",
        "chain/a/eth10: the firewall has no inet sandwire hairpin6-fd00_10__/64 fd00:10::2 . tcp . 8181",
    ),
    (
        "",
        "nft add element inet sandwire-ports ports4 '{ tcp . 9999 comment \"x, portmap/ports, net: chain, if: eth10, id: pod-b\" : \"ports4\" }'",
        "chain/b/eth10: the firewall still has inet sandwire-ports ports4 tcp . 9999",
    ),
    (
        "",
        "nft add element inet sandwire-ports ports4 '{ tcp . 9999 : \"ports4\" }'",
        "inet sandwire-ports ports4 tcp . 9999 (\"\") is nobody's",
    ),
    // The port that two want, which the last has.
    (
        "",
        "nft delete element inet sandwire-ports ports4 '{ udp . 9053 }'",
        "chain/d/eth10: the firewall has no inet sandwire-ports ports4 udp . 9053",
    ),
    (
        "",
        "echo 0 >/proc/sys/net/ipv4/conf/br-chain/route_localnet",
        "chain/a/eth10: ipv4/conf/br-chain/route_localnet is",
    ),
    // firewall.
    (
        "",
        "nft delete element inet sandwire-forward policed4 '{ 10.10.0.2 }'",
        "chain/a/eth10: the firewall has no inet sandwire-forward policed4 10.10.0.2",
    ),
    (
        "",
        "nft delete element bridge sandwire-forward within6 '{ fd00:10::3 }'",
        "chain/c/eth10: the firewall has no bridge sandwire-forward within6 fd00:10::3",
    ),
    ("", "nft add table inet sandwire-other", "inet sandwire-other of the firewall is left without an element"),
    // bandwidth.
    ("", "tc qdisc del dev $chain root", "$chain has no tbf"),
    ("", "tc qdisc del dev $chain ingress", "$chain has no ingress"),
    ("", "tc qdisc add dev $masq ingress", "ingress of $masq is left"),
    ("", "ip link del $ifb", "$ifb has no tbf"),
    ("", "ip link add bwp000000000000 type ifb", "the link bwp000000000000 (ifb) is left"),
    // tuning.
    (
        "a",
        "ip link set eth10 mtu 1500",
        "chain/a/eth10: its interface has MTU 1500, MAC 02:00:00:00:0a:00, all-multicast true",
    ),
    ("a", "echo 0 >/proc/sys/net/ipv4/conf/eth10/arp_filter", "chain/a/eth10: ipv4/conf/eth10/arp_filter is"),
    ("b", "echo 20000 30000 >/proc/sys/net/ipv4/ip_local_port_range", "ipv4/ip_local_port_range of pod b is left at"),
    ("", "rm -r /run/sandwire/journal/networks/masq*", "masq/a/eth1: it has no journal"),
    (
        "",
        "cd /run/sandwire/journal/networks; f=$(grep -rl pod-a plain*); sed s/pod-a/pod-b/ $f >$f.2",
        "the journal plain/pod-b/eth0 is left",
    ),
    (
        "",
        ": >/run/sandwire/journal/networks/empty; rm /run/sandwire/journal/networks/empty; mkdir -p /run/sandwire/journal/networks/x; : >/run/sandwire/journal/networks/x/y",
        "the journal /run/sandwire/journal/networks/x/y is left",
    ),
];

fn name_of(world: &World, text: &str) -> String {
    let end = |net: &str| {
        let up = world.model.states().find_map(|(attachment, state)| match state {
            State::Up(up) if attachment.net.name == net => up.host_end.clone(),
            _ => None,
        });
        up.unwrap()
    };
    let ends = ["masq", "vpn", "routed", "chain"];
    let filled = ends.iter().fold(text.to_owned(), |text, net| text.replace(&format!("${net}"), &end(net)));
    let chain = world.model.states().find(|(a, _)| a.to_string() == "chain/a/eth10").unwrap().0;
    filled.replace("$ifb", &sandwire_model::rules::ifb_of(chain))
}

/// What is said now and was not before; or that it could not be done.
fn new_differences(world: &World, place: &str, script: &str) -> Result<BTreeSet<String>, String> {
    let before: BTreeSet<String> = world.differences(true).unwrap().into_iter().collect();
    let at =
        if place.is_empty() { Place::Host } else { Place::Netns(PathBuf::from(format!("/run/netns/pod-{place}"))) };
    world.node().sh_at(&at, &name_of(world, script)).map_err(|error| format!("{error:#}"))?;
    Ok(world.differences(true).unwrap().into_iter().filter(|line| !before.contains(line)).collect())
}

#[test]
fn what_is_tampered_with() {
    let mut used = world();
    for (place, script, says) in TAMPERED {
        let noticed = |world: &World, new: &BTreeSet<String>| {
            let says = name_of(world, says);
            new.iter().any(|line| line.contains(&says))
        };
        // In a node where other things are broken already, as long as these do not hide it.
        if new_differences(&used, place, script).is_ok_and(|new| noticed(&used, &new)) {
            continue;
        }
        used = world();
        let new = new_differences(&used, place, script).unwrap();
        assert!(noticed(&used, &new), "{script}: {new:#?}");
    }
}

#[test]
fn an_agent_that_forgot_or_remembers() {
    let mut forgetful = world();
    forgetful.restart_agent().unwrap();
    let differences = forgetful.differences(false).unwrap();
    assert!(differences.iter().any(|line| line.starts_with("vpn/b/eth2: the agent does not know")), "{differences:?}");

    let mut world = world();
    let vpn = *world.model.states().find(|(a, _)| a.net.name == "vpn").unwrap().0;
    world.model.set(vpn, State::Absent);
    let differences = world.differences(false).unwrap();
    assert!(differences.iter().any(|line| line.contains("the agent still has")), "{differences:?}");
}

/// The model expects something else: an address that two were given, an ADD that must not succeed.
#[test]
fn what_the_model_does_not_expect() {
    let mut world = world();
    let of = |world: &World, net: &str| {
        let found = world.model.states().find(|(a, _)| a.net.name == net).map(|(a, _)| *a);
        found.unwrap()
    };
    let state = world.model.state(&of(&world, "plain")).clone();
    let twin = sandwire_model::networks::Attachment::parse("plain/d/eth0").unwrap();
    world.model.set(twin, state);
    let differences = world.differences(false).unwrap();
    assert!(
        differences.iter().any(|line| line.contains("was given to plain/a/eth0 and to plain/d/eth0")),
        "{differences:?}"
    );
    let error = world.step(&Step::parse("check plain/d/eth0").unwrap()).unwrap_err();
    assert!(format!("{error:#}").contains("must succeed"), "{error:#}");
    let masq = of(&world, "masq");
    world.model.set(masq, State::Absent);
    world.model.foreign.insert(masq);
    let again = world.step(&Step::parse("del flat/c/eth4").unwrap()).unwrap_err();
    assert!(format!("{again:#}").contains("somebody made"), "{again:#}");
}
