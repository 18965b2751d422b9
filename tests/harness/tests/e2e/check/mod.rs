//! CHECK: each thing that it compares is tampered with, one at a time, and must be named; what later plugins of a chain may
//! change must not; and each at every version of the specification that has CHECK. (That no ADD leaves a state that CHECK
//! complains of is seen in every case: the runner makes a CHECK after each ADD.)

mod firewall;
mod macvlan;
mod portmap;
mod ptp;
mod tuning;

use sandwire_harness::agent::Agent;
use sandwire_harness::{Node, Pod, Verb, versions};
use serde_json::{Value, json};

/// What is changed in a result, how, and the words that name it.
type Change = (&'static str, fn(&mut Value), &'static str);

/// What scripts may use: `lose TABLE SET KEY` takes an element away, `rule FAMILY TABLE CHAIN GROUP` says the handle of a
/// group's rule.
const SHELL: &str = "lose() { nft delete element inet $1 $2 \"{ $3 }\"; }
rule() { nft -a list chain $1 $2 $3 | sed -n \"s,.*comment .$4. # handle ,,p\"; }
";

/// One change. `$VETH` is the host end.
struct Row {
    what: &'static str,
    host: &'static str,
    pod: &'static str,
    /// What CHECK must say; empty: nothing.
    says: &'static str,
    /// In the host, before the attachment is made again.
    mend: &'static str,
}

const fn host(what: &'static str, host: &'static str, says: &'static str) -> Row {
    Row { what, host, pod: "", says, mend: "" }
}

const fn pod(what: &'static str, pod: &'static str, says: &'static str) -> Row {
    Row { what, host: "", pod, says, mend: "" }
}

impl Row {
    const fn mended(self, mend: &'static str) -> Self {
        Self { mend, ..self }
    }
}

struct Bench {
    // Before the node: it must end first.
    agent: Option<Agent>,
    node: Node,
    pod: Pod,
    plugin: &'static str,
    ifname: &'static str,
    config: Value,
}

impl Bench {
    fn new(mut config: Value, version: &str) -> Self {
        let node = Node::installed().unwrap();
        let pod = node.pod("a").unwrap();
        config["cniVersion"] = version.into();
        let all = [
            "bridge",
            "bagpipe",
            "firewall",
            "host-local",
            "loopback",
            "macvlan",
            "portmap",
            "ptp",
            "static",
            "tuning",
        ];
        let plugin = all.into_iter().find(|name| config["type"] == *name);
        match plugin {
            Some("macvlan") => drop(node.sh(MASTER).unwrap()),
            Some("tuning") => drop(node.sh(TUNED).unwrap()),
            Some("firewall") => drop(node.sh("ip link add br-p type bridge; ip link set br-p up").unwrap()),
            _ => {}
        }
        if !config["prevResult"].is_null() {
            config["prevResult"] = versions::from_newest(&config["prevResult"], version);
        }
        let agent = (plugin == Some("bagpipe")).then(|| Agent::tcp(&node, "127.0.0.1:8082").unwrap());
        let ifname = if plugin == Some("loopback") { "lo" } else { "eth0" };
        Self { agent, node, pod, plugin: plugin.unwrap(), ifname, config }
    }

    fn call(&self, verb: Verb, result: Option<&Value>) -> sandwire_harness::Outcome {
        let mut config = self.config.clone();
        if let Some(result) = result {
            config["prevResult"] = result.clone();
        }
        self.node.cni(self.plugin, verb, &self.pod, self.ifname, &config).unwrap()
    }

    fn veth(result: &Value) -> String {
        let all = result["interfaces"].as_array().into_iter().flatten();
        let name = all.filter_map(|interface| interface["name"].as_str()).find(|name| name.starts_with("veth"));
        name.unwrap_or_default().to_owned()
    }

    /// Each row on a fresh attachment, and the result changed by each of `results`.
    fn rows(&self, rows: &[Row], results: &[Change]) {
        for row in rows {
            let result = self.call(Verb::Add, None).result().unwrap_or_else(|e| panic!("before {}: {e:#}", row.what));
            self.call(Verb::Check, Some(&result)).done().unwrap_or_else(|e| panic!("before {}: {e:#}", row.what));
            let veth = Self::veth(&result);
            self.node.sh(&format!("{SHELL}{}", row.host.replace("$VETH", &veth))).unwrap();
            self.node.sh_at(&self.pod.place(), row.pod).unwrap();
            let outcome = self.call(Verb::Check, Some(&result));
            if row.says.is_empty() {
                outcome.done().unwrap_or_else(|e| panic!("{} is no reason to complain: {e:#}", row.what));
            } else {
                let error = outcome.error().unwrap_or_else(|e| panic!("{} is not noticed: {e:#}", row.what));
                assert!(error.text().contains(&row.says.replace("$VETH", &veth)), "{}: {error:?}", row.what);
            }
            self.call(Verb::Del, Some(&result)).done().unwrap_or_else(|e| panic!("after {}: {e:#}", row.what));
            self.node.sh(row.mend).unwrap();
        }
        let result = self.call(Verb::Add, None).result().unwrap();
        for (what, change, says) in results {
            let mut changed = result.clone();
            change(&mut changed);
            let outcome = self.call(Verb::Check, Some(&changed));
            match says.is_empty() {
                true => outcome.done().unwrap_or_else(|e| panic!("{what} is no reason to complain: {e:#}")),
                false => {
                    let error = outcome.error().unwrap_or_else(|e| panic!("{what} is not noticed: {e:#}"));
                    assert!(error.text().contains(says), "{what}: {error:?}");
                }
            }
        }
        self.call(Verb::Del, Some(&result)).done().unwrap();
        assert!(self.agent.as_ref().is_none_or(|agent| agent.attached().is_empty()));
    }
}

const MASTER: &str = "ip link add m0 type veth peer name m0p; ip link set m0 up; ip link set m0p up";
/// An interface of an earlier plugin of the chain.
const TUNED: &str =
    "ip -n pod-a link add eth0 address 02:00:00:00:00:0e type veth peer name peer0; ip -n pod-a link set eth0 up";

fn at_every_version(config: &Value, rows: &[Row], results: &[Change]) {
    for version in versions::ALL.into_iter().filter(|version| versions::has_check(version)) {
        Bench::new(config.clone(), version).rows(rows, results);
    }
}

/// What any plugin later in a chain, or the workload, may do to a pod's network.
const TOLERATED: [Row; 6] = [
    pod("another address", "ip addr add 10.77.0.1/24 dev eth0", ""),
    pod("another route", "ip route add 198.18.77.0/24 dev eth0", ""),
    pod("another MTU", "ip link set eth0 mtu 1400", ""),
    pod("another interface", "ip link add tun7 type veth peer name tun8", ""),
    pod("a sysctl", "echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_ignore", ""),
    host("a queueing discipline", "tc qdisc add dev $VETH root pfifo limit 100", ""),
];

const LEASES: [Row; 2] = [
    host(
        "no lease",
        "rm /var/lib/cni/networks/mynet/*:* /var/lib/cni/networks/mynet/10.*",
        "Failed to find address added by container pod-a",
    ),
    host("no lease of one range", "rm /var/lib/cni/networks/mynet/*:*", "is not leased to container pod-a any more"),
];

/// Of an interface with an address of each family, a default route and one by 10.1.2.7.
const POD: [Row; 11] = [
    pod("no interface", "ip link del eth0", "eth0"),
    pod(
        "no IPv4 address",
        "ip addr del $(ip -br -4 addr show eth0 | grep -o '10[^ ]*') dev eth0",
        "Failed to match addr 10.1.2.",
    ),
    pod(
        "no IPv6 address",
        "ip addr del $(ip -br -6 addr show eth0 | grep -o 'fd00[^ ]*') dev eth0",
        "Failed to match addr fd00:1:2::",
    ),
    pod(
        "another prefix length",
        "a=$(ip -br -4 addr show eth0 | grep -o '10[^/]*'); ip addr add $a/25 dev eth0; ip addr del $a/24 dev eth0",
        "Failed to match addr 10.1.2.",
    ),
    pod(
        "no route to its IPv4 network",
        "ip route del 10.1.2.0/24",
        "Failed to find Gateway 10.1.2.1 for interface eth0",
    ),
    pod(
        "no route to its IPv6 network",
        "ip -6 route del fd00:1:2::/64",
        "Failed to find Gateway fd00:1:2::1 for interface eth0",
    ),
    pod("no default route", "ip route del default", "Expected Route {Dst:0.0.0.0/0"),
    pod("no IPv6 default route", "ip -6 route del default", "Expected Route {Dst:::/0"),
    pod(
        "no route",
        "ip route del 10.9.0.0/16",
        "Expected Route {Dst:10.9.0.0/16 GW:10.1.2.7} not found in routing table",
    ),
    pod(
        "a route by another gateway",
        "ip route replace 10.9.0.0/16 via 10.1.2.8",
        "Expected Route {Dst:10.9.0.0/16 GW:10.1.2.7}",
    ),
    // Multus and the like move the default route of a pod to another network's interface.
    pod("another default route", "ip route replace default via 10.1.2.9", ""),
];

fn ipam() -> Value {
    json!({"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1:2::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "10.9.0.0/16", "gw": "10.1.2.7"}]})
}

#[test]
fn bridge() {
    let config = json!({"name": "mynet", "type": "bridge", "bridge": "br-t", "isGateway": true, "ipMasq": true,
        "promiscMode": true, "macspoofchk": true, "ipam": ipam()});
    at_every_version(&config, &POD, &[]);
    at_every_version(&config, &LEASES, &[]);
    at_every_version(&config, &TOLERATED, &[]);
    let own = [
        host("no bridge", "ip link del br-t", "Interface name br-t not found"),
        host(
            "another thing of its name",
            "ip link del br-t; ip link add br-t type veth peer name tmp0",
            "Interface br-t does not have link type of bridge",
        )
        .mended("ip link del br-t"),
        host(
            "another MAC of the bridge",
            "ip link set br-t address 02:00:00:00:00:98",
            "Bridge interface br-t Mac doesn't match",
        ),
        host(
            "no promiscuous bridge",
            "ip link set br-t promisc off",
            "configured Promisc Mode true doesn't match current state: false",
        ),
        host("no port", "ip link set $VETH nomaster", "CNI veth created for bridge br-t was not found"),
        host(
            "a port of another bridge",
            "ip link add br-o type bridge; ip link set $VETH master br-o",
            "CNI veth created for bridge br-t was not found",
        )
        .mended("ip link del br-o"),
        host(
            "another name of the port",
            "ip link set $VETH down; ip link set $VETH name other0",
            "Interface name $VETH not found",
        ),
        host(
            "another MAC of the port",
            "ip link set $VETH address 02:00:00:00:00:97",
            "Interface $VETH Mac doesn't match",
        ),
        pod(
            "another MAC",
            "ip link set eth0 address 02:00:00:00:00:99",
            "doesn't match container Mac: 02:00:00:00:00:99",
        ),
        pod(
            "an interface that is no veth",
            "ip link del eth0; ip link add eth0 type bridge",
            "Container interface eth0 not of type veth",
        ),
        host("no gateway on the bridge", "ip addr del 10.1.2.1/24 dev br-t", "br-t has no gateway address 10.1.2.1/24"),
        host("no rules", "nft flush ruleset", "rules of the MAC spoof check are missing"),
    ];
    let mut unspoofed = config.clone();
    unspoofed["macspoofchk"] = false.into();
    let masquerading = [host("no masquerading", "nft flush ruleset", "masquerading rules are missing")];
    at_every_version(&unspoofed, &masquerading, &[]);
    // Another network on the same bridge may ask for what this one does not; and a bridge without a gateway's address has
    // the lowest of its ports' MACs, whichever those are.
    let mut shared = unspoofed;
    shared["promiscMode"] = false.into();
    at_every_version(
        &shared,
        &[host("a promiscuous bridge", "ip link set br-t promisc on", "").mended("ip link set br-t promisc off")],
        &[],
    );
    shared["isGateway"] = false.into();
    shared["bridge"] = "br-u".into();
    let lower = host(
        "a port with a lower MAC",
        "ip link add low0 address 00:00:00:00:00:02 type veth peer name low1; ip link set low0 master br-u",
        "",
    );
    at_every_version(&shared, &[lower.mended("ip link del low0")], &[]);
    at_every_version(
        &config,
        &own,
        &[
            (
                "an interface of another plugin",
                |r| r["interfaces"].as_array_mut().unwrap().push(json!({"name": "tun7", "sandbox": "/elsewhere"})),
                "",
            ),
            (
                "an address of another plugin's interface",
                |r| {
                    let sandbox = r["interfaces"][2]["sandbox"].clone();
                    let at = r["interfaces"].as_array().unwrap().len();
                    r["interfaces"]
                        .as_array_mut()
                        .unwrap()
                        .push(json!({"name": "net9", "mac": "02:00:00:00:00:01", "sandbox": sandbox}));
                    r["ips"]
                        .as_array_mut()
                        .unwrap()
                        .push(json!({"version": "4", "address": "10.66.0.9/24", "interface": at}));
                },
                "",
            ),
            ("no interfaces", |r| r["interfaces"] = json!([]), "Interface name missing"),
            (
                "an interface without sandbox",
                |r| drop(r["interfaces"][2].as_object_mut().unwrap().remove("sandbox")),
                "doesn't match configured netns",
            ),
            ("a port with one", |r| r["interfaces"][1]["sandbox"] = "/elsewhere".into(), "should not be in sandbox"),
            (
                "a bridge with one",
                |r| r["interfaces"][0]["sandbox"] = "/elsewhere".into(),
                "Interface br-t should not be in sandbox",
            ),
            (
                "an address that is not there",
                |r| r["ips"][0]["address"] = "10.1.2.99/24".into(),
                "Failed to match addr 10.1.2.99/24 on interface eth0",
            ),
        ],
    );
}

#[test]
fn bagpipe() {
    let config = json!({"name": "mynet", "type": "bagpipe", "importrt": "64512:90", "exportrt": "64512:90",
        "isGateway": true, "ipMasq": true, "mtu": "1500", "ipam": ipam()});
    at_every_version(&config, &POD, &[]);
    at_every_version(&config, &LEASES, &[]);
    at_every_version(&config, &TOLERATED, &[]);
    // How the agent is asked to know something else of the same port.
    const TELL: &str = "i=$(ip -br link show type bridge | grep -o '^evpn---[0-9a-f]*' | cut -c 8-)
        tell() { curl -sf -H 'Content-Type: application/json' -d \"{\\\"vpn_instance_id\\\":\\\"$i\\\",\\\"vpn_type\\\":\\\"evpn\\\",\\\"import_rt\\\":[],\\\"export_rt\\\":[],\\\"local_port\\\":{\\\"linuxif\\\":\\\"$1\\\"},\\\"mac_address\\\":\\\"$2\\\",\\\"ip_address\\\":\\\"$3\\\"}\" http://127.0.0.1:8082/$4; }\n";
    let tell = |script: &str| -> &'static str { Box::leak(format!("{TELL}{script}").into_boxed_str()) };
    let own = [
        host("no bridge", "ip link del $(ip -br link show type bridge | grep -o '^evpn---[0-9a-f]*')", "$VETH is a port of no bridge, not of evpn---"),
        host("another bridge", "ip link add br-o type bridge; ip link set $VETH master br-o", "$VETH is a port of br-o, not of evpn---")
            .mended("ip link del br-o"),
        pod("another MAC", "ip link set eth0 address 02:00:00:00:00:99", "has MAC address 02:00:00:00:00:99, but"),
        host("another MAC at the agent", tell("tell $VETH 02:00:00:00:00:01 10.1.2.2/24 attach_localport"), "with MAC 02:00:00:00:00:01, the pod has"),
        host(
            "another address at the agent",
            tell("m=$(curl -s http://127.0.0.1:8082/looking-glass/vpns/instances/$i/ports | grep -o '[0-9a-f:]\\{17\\}'); tell $VETH $m 10.1.2.77/24 attach_localport"),
            "with address 10.1.2.77/24, the pod has 10.1.2.",
        ),
        host(
            "another port at the agent",
            tell("ip link add other0 type veth peer name other1; tell other0 02:00:00:00:00:01 10.1.2.77/24 attach_localport; tell $VETH x x detach_localport; ip link set $VETH master evpn---$i"),
            "has no port $VETH",
        )
        .mended(tell("tell other0 x x detach_localport; ip link del other0")),
        host(
            "an agent that was started again",
            tell("tell $VETH x x detach_localport; ip link add evpn---$i type bridge; ip link set $VETH master evpn---$i"),
            "knows no VPN instance",
        )
        .mended(tell("ip link del evpn---$i")),
        host("no gateway on the bridge", tell("ip addr del 10.1.2.1/24 dev evpn---$i"), "has no gateway address 10.1.2.1/24"),
        host("another MAC of the gateway", tell("ip link set evpn---$i address 02:00:00:00:00:98"), "has MAC 02:00:00:00:00:98, the network's gateway has 0a:58:"),
        host("no masquerading", "nft flush ruleset", "masquerading rules are missing"),
    ];
    let results: [Change; 2] = [
        ("no interfaces", |r| r["interfaces"] = json!([]), "prevResult has no interface \"eth0\" in a sandbox"),
        (
            "an interface of another plugin",
            |r| r["interfaces"].as_array_mut().unwrap().push(json!({"name": "tun7", "sandbox": "/elsewhere"})),
            "",
        ),
    ];
    at_every_version(&config, &own, &results);
}

#[test]
fn host_local() {
    at_every_version(&json!({"name": "mynet", "type": "host-local", "ipam": ipam()}), &LEASES, &[]);
}

#[test]
fn loopback() {
    let rows = [
        pod("lo is down", "ip link set lo down", "loopback interface is down"),
        pod("another address", "ip addr add 127.0.0.7/8 dev lo", ""),
    ];
    at_every_version(&json!({"name": "lo", "type": "loopback"}), &rows, &[]);
}

/// It has no state of its own: what its result said is all that there is to compare.
#[test]
fn static_addresses() {
    let addresses = json!([{"address": "10.1.2.9/24", "gateway": "10.1.2.1"}, {"address": "fd00:1:2::9/64"}]);
    let config = json!({"name": "mynet", "type": "static", "ipam": {"type": "static", "addresses": addresses}});
    let results: [Change; 4] = [
        (
            "another gateway",
            |r| r["ips"][0]["gateway"] = "10.1.2.7".into(),
            "static: Failed to match addr 10.1.2.9 on interface eth0",
        ),
        (
            "no gateway",
            |r| drop(r["ips"][0].as_object_mut().unwrap().remove("gateway")),
            "static: Failed to match addr 10.1.2.9 on interface eth0",
        ),
        ("a gateway that was not asked for", |r| r["ips"][1]["gateway"] = "fd00:1:2::1".into(), ""),
        ("another address", |r| r["ips"][0]["address"] = "10.1.2.8/24".into(), ""),
    ];
    at_every_version(&config, &[], &results);
}

/// A delegate's own words come through, whatever its name; and without one there is nobody to ask.
#[test]
fn of_a_network_without_addresses() {
    at_every_version(
        &json!({"name": "flat", "type": "bridge", "bridge": "br-t"}),
        &[
            pod("another address", "ip addr add 10.77.0.1/24 dev eth0", ""),
            host("no port", "ip link set $VETH nomaster", "CNI veth created for bridge br-t was not found"),
        ],
        &[],
    );
}
