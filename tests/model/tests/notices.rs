//! The comparison can fail: whatever is tampered with by hand is named.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use sandwire_harness::Place;
use sandwire_model::World;
use sandwire_model::script::Step;
use sandwire_model::state::State;
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
    del plain/b/eth0";

fn world() -> World {
    let mut world = World::new().unwrap();
    Step::parse_all(UP).unwrap().iter().for_each(|step| world.step(step).unwrap());
    assert_eq!(world.differences(true).unwrap(), Vec::<String>::new());
    world
}

/// Where, what is done there, and what must be said. `$masq` is the host end of that network's attachment.
const TAMPERED: [(&str, &str, &str); 26] = [
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
    ("", "nft flush ruleset", "masq/a/eth1: no rule masquerades [10.3.0.2, fd00:3::2]"),
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

#[test]
fn what_is_tampered_with() {
    for (place, script, says) in TAMPERED {
        let world = world();
        let end = |net: &str| {
            let up = world.model.states().find_map(|(attachment, state)| match state {
                State::Up(up) if attachment.net.name == net => up.host_end.clone(),
                _ => None,
            });
            up.unwrap()
        };
        let fill = |text: &str| text.replace("$masq", &end("masq")).replace("$vpn", &end("vpn"));
        let at =
            if place.is_empty() { Place::Host } else { Place::Netns(PathBuf::from(format!("/run/netns/pod-{place}"))) };
        world.node().sh_at(&at, &fill(script)).unwrap();
        let differences = world.differences(true).unwrap();
        assert!(differences.iter().any(|line| line.contains(&fill(says))), "{script}: {differences:#?}");
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
