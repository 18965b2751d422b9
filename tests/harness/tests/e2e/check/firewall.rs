//! CHECK of firewall: what lets through, each policy, and the rules in other programs' chains.

use super::*;

fn config(policy: &str) -> Value {
    json!({"name": "mynet", "type": "firewall", "ingressPolicy": policy,
        "prevResult": {"interfaces": [{"name": "br-p"}, {"name": "vetha"}, {"name": "eth0", "sandbox": "/run/netns/pod-a"}],
            "ips": [{"address": "10.1.2.3/24", "interface": 2}, {"address": "fd00:1::3/64", "interface": 2}]}})
}

/// Whatever the policy.
const LETTING_THROUGH: [Row; 9] = [
    host(
        "not let through",
        "lose sandwire-forward forwarded4 10.1.2.3",
        "firewall rules are missing: forwarding for 10.1.2.3",
    ),
    host(
        "IPv6 not let through",
        "lose sandwire-forward forwarded6 fd00:1::3",
        "forwarding for fd00:1::3, of the bridges open to anyone: the element is missing from set forwarded6",
    ),
    host(
        "nothing marked",
        "nft flush chain inet sandwire-forward before",
        "the rules of chain before of table inet sandwire-forward are not as they were made",
    ),
    host(
        "something before the marks",
        "nft insert rule inet sandwire-forward before accept",
        "the rules of chain before of table inet sandwire-forward are not as they were made",
    ),
    host(
        "marks that stay",
        "nft flush chain inet sandwire-forward after",
        "the rules of chain after of table inet sandwire-forward are not as they were made",
    ),
    host("no records", "nft flush set inet sandwire-forward owners", "its record is missing from set owners"),
    host("not counted", "lose sandwire-forward open4 10.1.2.3", "the element is missing from map open4"),
    host(
        "no rule that counts",
        "nft delete rule inet sandwire-forward ingress handle $(rule inet sandwire-forward ingress open6)",
        "the rule of map open6 is missing from chain ingress of table inet sandwire-forward, or was changed",
    ),
    host("no table", "nft delete table inet sandwire-forward", "the element is missing from set forwarded4"),
];

#[test]
fn open() {
    at_every_version(&config("open"), &LETTING_THROUGH, &[]);
    let results: [Change; 2] = [
        ("another address", |r| r["ips"][0]["address"] = "10.1.2.4/24".into(), "forwarding for 10.1.2.4"),
        (
            "an interface of another plugin",
            |r| r["interfaces"].as_array_mut().unwrap().push(json!({"name": "tun7"})),
            "",
        ),
    ];
    at_every_version(&config("open"), &[], &results);
}

const POLICIES: [Row; 6] = [
    host(
        "no address with the policy",
        "lose sandwire-forward ingress4-br-p 10.1.2.3",
        "forwarding for 10.1.2.3, of the bridges open to bridge br-p: the element is missing from map ingress4-br-p",
    ),
    host(
        "no IPv6 address with the policy",
        "lose sandwire-forward policed6 fd00:1::3",
        "forwarding for fd00:1::3, of the bridges open to bridge br-p: the element is missing from set policed6",
    ),
    host(
        "no rule of the policy",
        "nft delete rule inet sandwire-forward ingress handle $(rule inet sandwire-forward ingress ingress4-br-p)",
        "the rule of map ingress4-br-p is missing from chain ingress of table inet sandwire-forward, or was changed",
    ),
    host(
        "a policy of another bridge",
        "nft replace rule inet sandwire-forward ingress handle $(rule inet sandwire-forward ingress ingress6-br-p) iifname br-q counter drop comment ingress6-br-p",
        "the rule of map ingress6-br-p is missing from chain ingress of table inet sandwire-forward, or was changed",
    ),
    host("no bridge", "ip link del br-p", "ingress policy \"same-bridge\"")
        .mended("ip link add br-p type bridge; ip link set br-p up"),
    host("another bridge", "ip link add br-q type bridge", "").mended("ip link del br-q"),
];

#[test]
fn same_bridge() {
    at_every_version(&config("same-bridge"), &POLICIES, &[]);
    let results: [Change; 2] = [
        (
            "no interfaces",
            |r| r["interfaces"] = json!([]),
            "interface needs to be set for ingress policy \"same-bridge\"",
        ),
        ("a bridge without a name", |r| r["interfaces"][0]["name"] = "".into(), "got empty bridge name"),
    ];
    at_every_version(&config("same-bridge"), &[], &results);
}

const ISOLATION: [Row; 4] = [
    host(
        "no address that is isolated",
        "lose sandwire-forward isolated4-br-p 10.1.2.3",
        "forwarding for 10.1.2.3, of the bridges open to no bridge: the element is missing from map isolated4-br-p",
    ),
    host(
        "neighbours within the bridge",
        "nft delete element bridge sandwire-forward within4 '{ 10.1.2.3 }'",
        "dropping of what its neighbours on the bridge send to 10.1.2.3: the element is missing from map within4",
    ),
    host(
        "no rule within the bridge",
        "nft delete rule bridge sandwire-forward forward handle $(rule bridge sandwire-forward forward within6)",
        "the rule of map within6 is missing from chain forward of table bridge sandwire-forward, or was changed",
    ),
    host(
        "no table of the bridge",
        "nft delete table bridge sandwire-forward",
        "dropping of what its neighbours on the bridge send to fd00:1::3: the element is missing from map within6",
    ),
];

#[test]
fn isolated() {
    at_every_version(&config("isolated"), &ISOLATION, &[]);
}

/// Chains of others that drop; an administrator's rules that go first.
const OTHERS: &str = "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP; iptables -N CNI-ADMIN; iptables -A CNI-ADMIN -s 192.0.2.66 -j DROP
    nft add table inet firewalld; nft add chain inet firewalld filter_FORWARD '{ type filter hook forward priority 10; policy drop; }'";

const IN_OTHERS: [Row; 8] = [
    host(
        "not let through by iptables",
        "iptables -D FORWARD 2",
        "chain FORWARD of table ip filter, which may drop what is let through",
    ),
    host("not let through by ip6tables", "ip6tables -F FORWARD", "chain FORWARD of table ip6 filter, which may drop"),
    host(
        "not let through by firewalld",
        "nft flush chain inet firewalld filter_FORWARD",
        "chain filter_FORWARD of table inet firewalld, which may drop",
    ),
    host(
        "a rule of that name that drops",
        "iptables -R FORWARD 2 -m comment --comment 'sandwire: of containers' -m mark --mark 0x1000/0x1000 -j DROP",
        "chain FORWARD of table ip filter, which may drop",
    )
    .mended("iptables -F FORWARD"),
    host("no rules of the administrator first", "iptables -D FORWARD 1", "no longer goes to CNI-ADMIN first"),
    host("an administrator without rules", "iptables -D FORWARD 1; iptables -F CNI-ADMIN", "")
        .mended("iptables -A CNI-ADMIN -s 192.0.2.66 -j DROP"),
    host("a rule of others", "iptables -I FORWARD -s 192.0.2.9 -j ACCEPT", "").mended("iptables -F FORWARD"),
    host("no iptables", "iptables -F; iptables -X; nft delete table ip filter", "").mended(OTHERS),
];

#[test]
fn in_chains_of_others() {
    for version in versions::ALL.into_iter().filter(|version| versions::has_check(version)) {
        let bench = Bench::new(config("open"), version);
        bench.node.sh(OTHERS).unwrap();
        bench.rows(&IN_OTHERS, &[]);
    }
}
