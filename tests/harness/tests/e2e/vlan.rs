//! VLANs of a bridge, beside what the cases say. Runs in the virtual machine too (`tests/vm`).

use crate::common::apply;
use sandwire_harness::{Node, Verb, cases};
use serde_json::json;

/// The gateway of a VLAN is a link of its own, "br-t.100", and its port has a name that nobody knows beforehand. Who may
/// change "br-t" makes both, so CHECK must find both again.
#[test]
fn a_gateway_under_a_narrow_policy() {
    let node = Node::installed().unwrap();
    let policy = String::from_utf8(node.read("/etc/sandwire/policy.toml").unwrap().unwrap()).unwrap();
    let (head, rest) = policy.split_once("[plugins.bridge]").unwrap();
    let narrow = rest.replacen("change = [\"*\"]", "change = [\"br-t\"]", 1);
    assert_ne!(narrow, rest);
    apply(&node, &format!("{head}[plugins.bridge]{narrow}"));

    let pod = node.pod("a").unwrap();
    let mut config = json!({"cniVersion": "1.1.0", "name": "mynet", "type": "bridge", "bridge": "br-t", "isGateway": true,
        "vlan": 100, "ipam": {"type": "host-local", "subnet": "10.1.2.0/24"}});
    let before = node.snapshot().unwrap();
    let added = node.cni("bridge", Verb::Add, &pod, "eth0", &config).unwrap();
    if cases::kernel_lacks("vlan-filtering").unwrap() {
        let error = added.error().unwrap();
        assert!(error.text().contains("CONFIG_BRIDGE_VLAN_FILTERING"), "{error:?}");
        node.snapshot().unwrap().assert_unchanged(&before).unwrap();
        return;
    }
    config["prevResult"] = added.result().unwrap();
    node.cni("bridge", Verb::Check, &pod, "eth0", &config).unwrap().done().unwrap();
    let port = node.sh("ip -j link show br-t.100 | jq -rj '.[0].link'").unwrap();
    node.sh(&format!("bridge vlan del dev {port} vid 100")).unwrap();
    let error = node.cni("bridge", Verb::Check, &pod, "eth0", &config).unwrap().error().unwrap();
    assert!(error.text().contains(&format!("VLAN 100 of port {port}")), "{error:?}");
    node.cni("bridge", Verb::Del, &pod, "eth0", &config).unwrap().done().unwrap();
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();

    config["bridge"] = "br-u".into();
    let error = node.cni("bridge", Verb::Add, &pod, "eth0", &config).unwrap().error().unwrap();
    assert!(error.text().contains("br-u"), "{error:?}");
}
