//! CHECK of portmap: each element, rule and chain that a port depends on.

use super::*;

const ROWS: [Row; 22] = [
    host(
        "no port",
        "lose sandwire-ports ports4 'tcp . 8080'",
        "missing hostport rules: forwarding of tcp port 8080 of every address to 10.1.2.3 port 80: the element is missing from map ports4",
    ),
    host(
        "no IPv6 port",
        "lose sandwire-ports ports6 'tcp . 8080'",
        "tcp port 8080 of every address to fd00:1::3 port 80: the element is missing from map ports6",
    ),
    host(
        "no port of an address",
        "lose sandwire-ports hostip4 '192.0.2.1 . udp . 8053'",
        "udp port 8053 of 192.0.2.1 to 10.1.2.3 port 53: the element is missing from map hostip4",
    ),
    host(
        "another container's port",
        "lose sandwire-ports ports4 'tcp . 8080'; nft add element inet sandwire-ports ports4 '{ tcp . 8080 comment \"other\" : \"ports4\" }'",
        "the element in map ports4 of table inet sandwire-ports is another attachment's (other)",
    ),
    host(
        "a port that leads nowhere",
        "lose sandwire-ports ports4-to 'tcp . 8080'",
        "tcp port 8080 of every address to 10.1.2.3 port 80: the element is missing from set ports4-to",
    ),
    host(
        "a port that leads to another address",
        "lose sandwire-ports ports4-to 'tcp . 8080'; nft add element inet sandwire-ports ports4-to '{ tcp . 8080 : 10.1.2.9 . 80 }'",
        "to 10.1.2.3 port 80: the element in map ports4-to of table inet sandwire-ports leads elsewhere",
    ),
    host(
        "a port that leads to another port",
        "lose sandwire-ports ports6-to 'tcp . 8080'; nft add element inet sandwire-ports ports6-to '{ tcp . 8080 : fd00:1::3 . 81 }'",
        "to fd00:1::3 port 80: the element in map ports6-to of table inet sandwire-ports leads elsewhere",
    ),
    host(
        "no masquerading of neighbours",
        "lose sandwire hairpin4-10.1.2.0/24 '10.1.2.3 . tcp . 8080'",
        "masquerading of 10.1.2.0/24 towards 10.1.2.3 by tcp port 8080: the element is missing from map hairpin4",
    ),
    host(
        "no masquerading of IPv6 neighbours",
        "lose sandwire hairpin6-fd00_1__/64 'fd00:1::3 . tcp . 8080'",
        "masquerading of fd00:1::/64 towards fd00:1::3 by tcp port 8080: the element is missing from map hairpin6",
    ),
    host(
        "no masquerading of 127.0.0.1",
        "lose sandwire loopback4 '10.1.2.3 . udp . 8053'",
        "masquerading of 127.0.0.0/8 towards 10.1.2.3 by udp port 8053: the element is missing from map loopback4",
    ),
    host(
        "no records of ports",
        "nft flush set inet sandwire-ports owners",
        "its record is missing from set owners of table inet sandwire-ports",
    ),
    host(
        "no records of masquerading",
        "nft flush set inet sandwire owners",
        "its record is missing from set owners of table inet sandwire",
    ),
    host(
        "no rule of a map",
        "nft delete rule inet sandwire-ports ports handle $(rule inet sandwire-ports ports ports4)",
        "the rule of map ports4 is missing from chain ports of table inet sandwire-ports, or was changed",
    ),
    host(
        "another rule of a map",
        "nft replace rule inet sandwire-ports ports handle $(rule inet sandwire-ports ports hostip4) counter comment hostip4",
        "the rule of map hostip4 is missing from chain ports of table inet sandwire-ports, or was changed",
    ),
    host(
        "no rule of masquerading",
        "nft delete rule inet sandwire postrouting handle $(rule inet sandwire postrouting loopback4)",
        "the rule of map loopback4 is missing from chain postrouting of table inet sandwire, or was changed",
    ),
    host(
        "no way in from other machines",
        "nft flush chain inet sandwire-ports prerouting",
        "the rules of chain prerouting of table inet sandwire-ports are not as they were made",
    ),
    host(
        "something before the way in",
        "nft insert rule inet sandwire-ports prerouting accept",
        "the rules of chain prerouting of table inet sandwire-ports are not as they were made",
    ),
    host(
        "no way in from the node",
        "nft flush chain inet sandwire-ports output",
        "the rules of chain output of table inet sandwire-ports are not as they were made",
    ),
    host(
        "nothing that guards 127.0.0.1",
        "nft flush chain inet sandwire-ports localnet",
        "the rules of chain localnet of table inet sandwire-ports are not as they were made",
    ),
    host("no table", "nft delete table inet sandwire-ports", "the element is missing from map ports4"),
    host(
        "a table of others",
        "nft add table inet others; nft add chain inet others c '{ type nat hook prerouting priority -100; }'",
        "",
    )
    .mended("nft delete table inet others"),
    host(
        "another container's port beside",
        "nft add element inet sandwire-ports ports4 '{ tcp . 8081 : \"ports4\" }'; nft add element inet sandwire-ports ports4-to '{ tcp . 8081 : 10.1.2.9 . 80 }'",
        "",
    )
    .mended("nft delete table inet sandwire-ports"),
];

#[test]
fn portmap() {
    let config = json!({"name": "mynet", "type": "portmap",
        "runtimeConfig": {"portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 8053, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.1"}]},
        "prevResult": {"interfaces": [{"name": "br-p"}, {"name": "vetha"}, {"name": "eth0", "sandbox": "/run/netns/pod-a"}],
            "ips": [{"address": "10.1.2.3/24", "interface": 2}, {"address": "fd00:1::3/64", "interface": 2}]}});
    at_every_version(&config, &ROWS, &[]);
    // Of another address, or port, there is none.
    let results: [Change; 2] = [
        (
            "another address",
            |r| r["ips"][0]["address"] = "10.1.2.4/24".into(),
            "tcp port 8080 of every address to 10.1.2.4 port 80",
        ),
        ("an address of another plugin's interface", |r| r["ips"][1]["interface"] = 1.into(), ""),
    ];
    at_every_version(&config, &[], &results);
}
