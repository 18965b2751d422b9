//! CHECK of ptp: the routes by the gateway, and the host's end.

use super::*;

/// On a point-to-point link nothing is reached but by the gateway.
const POINT_TO_POINT: [Row; 12] = [
    pod("no route to the gateway", "ip route del 10.1.2.1", "ptp: no route to gateway 10.1.2.1 by interface eth0"),
    pod("no IPv6 route to the gateway", "ip -6 route del fd00:1:2::1", "ptp: no route to gateway fd00:1:2::1"),
    pod(
        "its network on the link",
        "ip route replace 10.1.2.0/24 dev eth0",
        "ptp: no route to 10.1.2.0/24 by gateway 10.1.2.1",
    ),
    pod("no route", "ip route del 10.9.0.0/16", "Expected Route {Dst:10.9.0.0/16 GW:<nil>} not found in routing table"),
    pod("another MAC", "ip link set eth0 address 02:00:00:00:00:99", "doesn't match container Mac: 02:00:00:00:00:99"),
    pod(
        "an interface that is no veth",
        "ip link del eth0; ip link add eth0 type bridge",
        "Error: Container interface eth0 not of type veth/p2p",
    ),
    host(
        "another MAC of the host's end",
        "ip link set $VETH address 02:00:00:00:00:97",
        "doesn't match host Mac: 02:00",
    ),
    host(
        "another name of the host's end",
        "ip link set $VETH down; ip link set $VETH name other0",
        "the host's end of interface eth0 is other0, which prevResult does not have",
    ),
    host("no gateway", "ip addr del 10.1.2.1/32 dev $VETH", "Interface $VETH has no gateway address 10.1.2.1/32"),
    host("no IPv6 gateway", "ip addr del fd00:1:2::1/128 dev $VETH", "$VETH has no gateway address fd00:1:2::1/128"),
    host(
        "no route of the host",
        "ip route del $(ip -4 route show dev $VETH | cut -d ' ' -f 1)",
        "is not by interface $VETH but by none",
    ),
    host("no masquerading", "nft flush ruleset", "masquerading rules are missing"),
];

#[test]
fn ptp() {
    let config = json!({"name": "mynet", "type": "ptp", "ipMasq": true, "ipam": {
        "type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1:2::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "10.9.0.0/16"}]}});
    // Those that go by another gateway can't be there.
    let by_the_gateway = ["no route", "a route by another gateway", "another default route"];
    let ordinary: Vec<Row> = POD.into_iter().filter(|row| !by_the_gateway.contains(&row.what)).collect();
    at_every_version(&config, &ordinary, &[]);
    at_every_version(&config, &LEASES, &[]);
    at_every_version(&config, &TOLERATED, &[]);
    let results: [Change; 5] = [
        (
            "an interface of another plugin",
            |r| r["interfaces"].as_array_mut().unwrap().push(json!({"name": "tun7", "sandbox": "/elsewhere"})),
            "",
        ),
        ("no interfaces", |r| r["interfaces"] = json!([]), "doesn't match configured netns"),
        (
            "an interface without sandbox",
            |r| drop(r["interfaces"][1].as_object_mut().unwrap().remove("sandbox")),
            "doesn't match configured netns",
        ),
        ("no host's end", |r| drop(r["interfaces"][0]["name"].take()), "which prevResult does not have"),
        (
            "an address that is not there",
            |r| r["ips"][0]["address"] = "10.1.2.99/24".into(),
            "Failed to match addr 10.1.2.99/24 on interface eth0",
        ),
    ];
    at_every_version(&config, &POINT_TO_POINT, &results);
}
