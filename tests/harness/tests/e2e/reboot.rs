//! What a reboot leaves behind, and who may take it. A file bound over the kernel's boot id stands in for the reboot: no
//! variable and no option does.

use crate::common::bridge;
use crate::ctl::{ctl, json};
use sandwire_harness::{Node, Outcome, Verb};
use serde_json::{Value, json as value};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The node comes up again: another boot, no journal, and no namespace of a pod.
pub(crate) fn reboot(node: &Node, id: &str) {
    let bind = format!("mountpoint -q {BOOT_ID} || {{ : > /mnt/boot-id; mount --bind /mnt/boot-id {BOOT_ID}; }}");
    node.sh(&format!("{bind}; echo {id} > /mnt/boot-id; rm -rf /run/sandwire")).unwrap();
    assert_eq!(node.sh(&format!("cat {BOOT_ID}")).unwrap().trim(), id);
}

/// 10.1.2.2 to 10.1.2.4.
fn pool() -> Value {
    value!({"cniVersion": "1.1.0", "name": "pool", "type": "host-local",
        "ipam": {"type": "host-local", "subnet": "10.1.2.0/24", "rangeEnd": "10.1.2.4"}})
}

/// With the namespace that every call of host-local names: it makes nothing there.
fn node() -> Node {
    let node = Node::installed().unwrap();
    node.pod("any").unwrap();
    node
}

fn host_local(node: &Node, verb: Verb, name: &str, config: &Value) -> Outcome {
    let call = node.call("host-local", verb).env("CNI_CONTAINERID", name).env("CNI_NETNS", "/run/netns/pod-any");
    call.ifname("eth0").config(config).run().unwrap()
}

fn add(node: &Node, name: &str) -> Outcome {
    host_local(node, Verb::Add, name, &pool())
}

fn address(outcome: &Outcome) -> String {
    outcome.result().unwrap()["ips"][0]["address"].as_str().unwrap().to_owned()
}

fn native_add(node: &Node, name: &str) -> String {
    let mut config = pool();
    config["cniVersion"] = "1.0.0".into();
    let call = node.call("host-local", Verb::Add).env("CNI_CONTAINERID", name).env("CNI_NETNS", "/run/netns/pod-any");
    address(&call.ifname("eth0").native().config(&config).run().unwrap())
}

fn collect(node: &Node, valid: Option<Value>) {
    let mut config = pool();
    if let Some(valid) = valid {
        config["cni.dev/valid-attachments"] = valid;
    }
    node.call("host-local", Verb::Gc).config(&config).run().unwrap().done().unwrap();
}

fn holders(node: &Node) -> Vec<(String, String)> {
    let leases = json(node, &["leases"]);
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    leases.as_array().unwrap().iter().map(|row| (text(row, "container_id"), text(row, "boot"))).collect()
}

fn holders_are(node: &Node, wanted: &[(&str, &str)]) {
    let wanted: Vec<(String, String)> = wanted.iter().map(|(id, boot)| ((*id).into(), (*boot).into())).collect();
    assert_eq!(holders(node), wanted);
}

#[test]
fn a_full_pool_takes_back_what_an_earlier_boot_gave() {
    let node = node();
    reboot(&node, "first");
    assert_eq!(address(&add(&node, "a")), "10.1.2.2/24");
    assert_eq!(address(&add(&node, "b")), "10.1.2.3/24");
    assert_eq!(native_add(&node, "native"), "10.1.2.4/24");
    add(&node, "c").error_with(11, "no IP addresses available in range set: 10.1.2.1-10.1.2.4").unwrap();
    let full = node.call("host-local", Verb::Status).config(&pool()).run().unwrap();
    full.error_with(50, "0 of 3 addresses are free").unwrap();

    reboot(&node, "second");
    // Fit for new pods, before anybody has taken anything back.
    node.call("host-local", Verb::Status).config(&pool()).run().unwrap().done().unwrap();
    holders_are(&node, &[("a", "earlier"), ("b", "earlier"), ("native", "unknown")]);
    assert_eq!(address(&add(&node, "c")), "10.1.2.2/24");
    assert_eq!(address(&add(&node, "d")), "10.1.2.3/24");
    // Native host-local's files say nothing of their boot: a guess could hand out a live address.
    add(&node, "e").error_with(11, "no IP addresses available").unwrap();
    holders_are(&node, &[("c", "this"), ("d", "this"), ("native", "unknown")]);
}

#[test]
fn gc_takes_back_what_an_earlier_boot_gave() {
    let node = node();
    reboot(&node, "first");
    add(&node, "a").result().unwrap();
    native_add(&node, "native");
    reboot(&node, "second");
    add(&node, "b").result().unwrap();
    // The runtime says that it is still there: that is believed.
    collect(
        &node,
        Some(value!([{"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "eth0"},
        {"containerID": "native", "ifname": "eth0"}])),
    );
    holders_are(&node, &[("a", "earlier"), ("native", "unknown"), ("b", "this")]);
    // It says nothing: what ended with its boot is certain, all else is not.
    collect(&node, None);
    holders_are(&node, &[("native", "unknown"), ("b", "this")]);
    // Only GC takes a native one.
    collect(&node, Some(value!([{"containerID": "b", "ifname": "eth0"}])));
    holders_are(&node, &[("b", "this")]);
}

/// podman keeps a container's id over a reboot; the reference then says "duplicate allocation is not allowed" for ever.
#[test]
fn the_same_container_is_attached_again() {
    let node = Node::installed().unwrap();
    reboot(&node, "first");
    let pod = node.pod("a").unwrap();
    node.cni("bridge", Verb::Add, &pod, "eth0", &bridge()).unwrap().result().unwrap();
    pod.drop_netns(&node).unwrap();
    node.sh("while ip link show type veth | grep -q .; do sleep 0.02; done; ip link del cni0").unwrap();
    reboot(&node, "second");
    let before = node.snapshot().unwrap();
    pod.make_netns(&node).unwrap();
    let result = node.cni("bridge", Verb::Add, &pod, "eth0", &bridge()).unwrap().result().unwrap();
    assert_eq!(result["ips"][0]["address"], "10.1.2.3/24", "{result}");
    holders_are(&node, &[("pod-a", "this")]);
    node.cni("bridge", Verb::Del, &pod, "eth0", &bridge()).unwrap().done().unwrap();
    let left = node.snapshot().unwrap().attachments_since(&before);
    assert!(left.iter().all(|line| line.starts_with("- file /var/lib/cni/networks/mynet/10.1.2.2")), "{left:?}");
}

#[test]
fn an_address_that_is_asked_for_is_not_kept_by_the_dead() {
    let node = node();
    reboot(&node, "first");
    let mut config = pool();
    config["args"] = value!({"cni": {"ips": ["10.1.2.3"]}});
    assert_eq!(address(&host_local(&node, Verb::Add, "a", &config)), "10.1.2.3/24");
    host_local(&node, Verb::Add, "b", &config).error_with(999, "is not available in range set").unwrap();
    reboot(&node, "second");
    assert_eq!(address(&host_local(&node, Verb::Add, "b", &config)), "10.1.2.3/24");
    holders_are(&node, &[("b", "this")]);
}

#[test]
fn repair_takes_back_what_an_earlier_boot_gave() {
    let node = node();
    reboot(&node, "first");
    add(&node, "a").result().unwrap();
    native_add(&node, "native");
    reboot(&node, "second");
    add(&node, "b").result().unwrap();
    ctl(&node, &["repair"]);
    holders_are(&node, &[("native", "unknown"), ("b", "this")]);
}
