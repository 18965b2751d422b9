//! Where the reference succeeds without a thought: on nodes and for callers that are not as a sandbox would have them.

use sandwire_harness::{Node, Verb};
use serde_json::{Value, json};

fn host_local() -> Value {
    json!({"cniVersion": "1.0.0", "name": "net", "type": "host-local",
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}]], "resolvConf": "/etc/resolv.conf"}})
}

/// Root of the reference has CAP_DAC_OVERRIDE. An installer, a backup or another node's copy leaves such directories.
#[test]
fn leases_in_directories_of_others() {
    for (place, deed) in [
        ("all", "chown -R 1000:1000 /var/lib/cni"),
        ("the top", "chown 1000:1000 /var/lib/cni; rm -r /var/lib/cni/networks"),
        ("the usual place", "chown 1000:1000 /var/lib/cni/networks"),
        ("the network's", "chown 1000 /var/lib/cni/networks/net; chmod 700 /var/lib/cni/networks/net"),
        ("the lock", "chown 1000 /var/lib/cni/networks/net/lock; chmod 600 /var/lib/cni/networks/net/lock"),
        ("nobody's lock", "chmod 0 /var/lib/cni/networks/net/lock"),
        ("not writable", "chmod 555 /var/lib/cni/networks /var/lib/cni/networks/net"),
        (
            "resolv.conf",
            "rm -f /etc/resolv.conf; echo nameserver 192.0.2.53 >/etc/resolv.conf; chown 1000 /etc/resolv.conf; chmod 600 /etc/resolv.conf",
        ),
    ] {
        let node = Node::installed().unwrap();
        let pods = ["a", "b"].map(|name| node.pod(name).unwrap());
        node.write("/etc/resolv.conf", "nameserver 192.0.2.53\n").unwrap();
        let call = |verb, pod| node.cni("host-local", verb, pod, "eth0", &host_local()).unwrap();
        call(Verb::Add, &pods[0]).result().unwrap();
        node.sh(deed).unwrap();
        let lost = place == "the top";
        if !lost {
            call(Verb::Check, &pods[0]).done().unwrap();
        }
        call(Verb::Add, &pods[1]).result().unwrap_or_else(|error| panic!("{place}: {error:#}"));
        for pod in &pods {
            call(Verb::Del, pod).done().unwrap_or_else(|error| panic!("{place}: {error:#}"));
        }
        assert_eq!(node.sh("find /var/lib/cni/networks -name '10.*'").unwrap().trim(), "", "{place}");
    }
}

/// Programs that want an address and have no container call host-local like this, and so does its own documentation.
#[test]
fn an_address_without_a_namespace() {
    let node = Node::installed().unwrap();
    node.write("/etc/resolv.conf", "").unwrap();
    for netns in ["/dev/null", "host", "/var/run/netns/none"] {
        let call = |verb| {
            let call = node.call("host-local", verb).config(&host_local()).env("CNI_CONTAINERID", "vm");
            call.ifname("dummy0").env("CNI_NETNS", netns).run().unwrap()
        };
        call(Verb::Add).result().unwrap();
        call(Verb::Check).done().unwrap();
        call(Verb::Del).done().unwrap();
    }
    let bridge = json!({"cniVersion": "1.0.0", "name": "net", "type": "bridge", "ipam": {}});
    let call = node.call("bridge", Verb::Add).config(&bridge).env("CNI_CONTAINERID", "vm").ifname("eth0");
    call.env("CNI_NETNS", "/dev/null").run().unwrap().error_with(999, "unknown FS magic").unwrap();
}

/// With forceAddress whoever comes last has the bridge's address: no pod is worse for that.
#[test]
fn a_gateway_that_another_displaced() {
    let node = Node::installed().unwrap();
    let pods = ["a", "b"].map(|name| node.pod(name).unwrap());
    let config = |name: &str, ranges: &[&str]| {
        let ranges: Vec<Value> = ranges.iter().map(|subnet| json!([{"subnet": subnet}])).collect();
        json!({"cniVersion": "1.0.0", "name": name, "type": "bridge", "isGateway": true, "forceAddress": true,
            "ipam": {"type": "host-local", "ranges": ranges}})
    };
    let (first, second) = (config("n1", &["10.1.2.0/24"]), config("n2", &["10.1.3.0/24", "10.1.4.0/24"]));
    let check = |pod, config: &Value, result: &Value| {
        let mut config = config.clone();
        config["prevResult"] = result.clone();
        node.cni("bridge", Verb::Check, pod, "eth0", &config).unwrap()
    };
    let add = |pod, config| node.cni("bridge", Verb::Add, pod, "eth0", config).unwrap().result().unwrap();
    let (one, two) = (add(&pods[0], &first), add(&pods[1], &second));
    check(&pods[0], &first, &one).done().unwrap();
    check(&pods[1], &second, &two).done().unwrap();
    node.sh("ip -4 addr flush dev cni0").unwrap();
    check(&pods[0], &first, &one).error_with(999, "has no gateway address 10.1.2.1/24").unwrap();
}

/// systemd gives every card alternative names, and configurations for many nodes use them.
#[test]
fn a_master_by_its_other_name() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    node.sh(
        "ip link add m0 type veth peer name m1; ip link set m0 up; ip link property add dev m0 altname enp3s0f0np0",
    )
    .unwrap();
    let mut config = json!({"cniVersion": "1.0.0", "name": "net", "type": "macvlan", "master": "enp3s0f0np0",
        "ipam": {"type": "host-local", "subnet": "10.1.2.0/24"}});
    let call = |verb, config: &Value| node.cni("macvlan", verb, &pod, "eth0", config).unwrap();
    config["prevResult"] = call(Verb::Add, &config).result().unwrap();
    call(Verb::Check, &config).done().unwrap();
}

/// A SIP server's ports. Each one by itself would be a walk through all connections: half a minute for these.
#[test]
fn a_thousand_udp_ports() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let bridge = json!({"cniVersion": "1.0.0", "name": "net", "type": "bridge", "isGateway": true,
        "ipam": {"type": "host-local", "subnet": "10.1.2.0/24"}});
    let result = node.cni("bridge", Verb::Add, &pod, "eth0", &bridge).unwrap().result().unwrap();
    let ports: Vec<Value> =
        (10_000..12_500).map(|port| json!({"hostPort": port, "containerPort": port, "protocol": "udp"})).collect();
    let config = json!({"cniVersion": "1.0.0", "name": "net", "type": "portmap", "capabilities": {"portMappings": true},
        "runtimeConfig": {"portMappings": ports}, "prevResult": result});
    node.cni("portmap", Verb::Add, &pod, "eth0", &config).unwrap().result().unwrap();
    node.cni("portmap", Verb::Del, &pod, "eth0", &config).unwrap().done().unwrap();
    assert!(!node.sh("nft list ruleset").unwrap().contains("10999"));
}

/// The kernel would give the link another name than the one that is written down.
#[test]
fn a_name_that_is_a_pattern() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let before = node.snapshot().unwrap();
    for (ifname, bridge) in [("eth%d", "cni0"), ("eth0", "cni%d")] {
        let config = json!({"cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": bridge, "ipam": {}});
        let outcome = node.cni("bridge", Verb::Add, &pod, ifname, &config).unwrap();
        let error = outcome.error().unwrap();
        assert!(format!("{error:?}").contains("the kernel takes % for a pattern"), "{error:?}");
    }
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
}
