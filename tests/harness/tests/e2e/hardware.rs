//! Hardware by its identity, in a pod and back. Only the virtual machine has some that a test can have (`tests/vm/run`), and there the
//! node is the machine itself: the kernel gives what outlives its namespace to the first one of all. On other machines the
//! same calls find nothing.

use sandwire_harness::{Installation, Node, Pod, Verb, cases};
use serde_json::{Value, json};

/// Of the card that `tests/vm/run` puts into the machine.
const MAC: &str = "52:54:00:00:07:01";

struct Bench {
    node: Node,
    pod: Pod,
}

impl Bench {
    /// A shell script in the network namespace of the machine.
    fn machine(&self, script: &str) -> String {
        self.node.write("/run/script", script).unwrap();
        // A sysfs shows the network of whoever mounted it.
        let there = "mount -t sysfs sysfs /sys; exec sh -e /run/script";
        self.node
            .sh(&format!("nsenter --net=/proc/1/ns/net unshare --mount sh -ec '{there}'"))
            .unwrap()
            .trim()
            .to_owned()
    }

    /// A call there: whether it succeeds, and what it prints.
    fn call(&self, verb: &str, netns: &str, config: &Value) -> (bool, Value) {
        self.node.write("/run/config", config.to_string()).unwrap();
        let answer = self.machine(&format!(
            "export CNI_COMMAND={verb} CNI_CONTAINERID=pod-a CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin CNI_NETNS={netns}
             /opt/cni/bin/host-device </run/config >/run/answer && echo done || cat /run/answer"
        ));
        let printed = self.node.sh("cat /run/answer").unwrap();
        (answer == "done", serde_json::from_str(&printed).unwrap_or_default())
    }

    fn add(&self, config: &Value) {
        let (done, answer) = self.call("ADD", "/run/netns/pod-a", config);
        assert!(done, "{config}: {answer}");
        assert_eq!(answer["interfaces"][0]["mac"], MAC);
        let inside = self.node.sh_at(&self.pod.place(), "ip -j link show eth0").unwrap();
        assert!(inside.contains(MAC), "{inside}");
    }

    fn del(&self, netns: &str, config: &Value) {
        let (done, answer) = self.call("DEL", netns, config);
        assert!(done, "{config}: {answer}");
    }

    /// The name of the card's interface on the machine, and its alias; empty while a pod has it.
    fn card(&self) -> Value {
        let links: Vec<Value> = serde_json::from_str(&self.machine("ip -j link")).unwrap();
        let card = links.into_iter().find(|link| link["address"] == MAC).unwrap_or_default();
        json!([card["ifname"], card["ifalias"]])
    }
}

fn config(key: &str, id: &str) -> Value {
    let mut config = json!({"cniVersion": "1.1.0", "name": "mynet", "type": "host-device",
        "ipam": {"type": "host-local", "subnet": "10.1.2.0/24"}});
    match key {
        "deviceID" => config["runtimeConfig"] = json!({key: id}),
        key => config[key] = id.into(),
    }
    config
}

#[test]
fn a_card() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let bench = Bench { node, pod };
    if !cases::kernel_is_full() {
        for (key, text) in [("pciBusID", "error with host device"), ("deviceID", "not found or unsupported")] {
            let call = bench.node.call("host-device", Verb::Add).pod(&bench.pod).ifname("eth0");
            let error = call.config(&config(key, "ffff:ff:1f.7")).run().unwrap().error().unwrap();
            assert!(error.text().contains(text) && error.text().contains("\"ffff:ff:1f.7\" not found"), "{error:?}");
        }
        return;
    }
    bench.machine("modprobe virtio_net; for i in $(seq 100); do ls /sys/bus/pci/devices/*/virtio*/net/* 2>/dev/null && break; sleep 0.1; done");
    let device = bench.machine(&format!(
        "for card in /sys/bus/pci/devices/*/virtio*/net/*; do [ \"$(cat $card/address)\" != {MAC} ] || {{ cd $card/../../..; pwd -P; }}; done"
    ));
    let address = device.rsplit('/').next().unwrap();
    let before = bench.card();
    assert!(before[0].is_string() && before[1].is_null(), "{before}");

    for (key, id) in [("pciBusID", address), ("deviceID", address), ("kernelpath", &device), ("hwaddr", MAC)] {
        let config = config(key, id);
        bench.add(&config);
        assert_eq!(bench.card(), json!([null, null]), "{key}");
        bench.del("/run/netns/pod-a", &config);
        assert_eq!(bench.card(), before, "{key}");
    }

    // A pod that died: the kernel puts the card onto the node under the name that it had in the pod.
    let config = config("pciBusID", address);
    bench.add(&config);
    bench.pod.drop_netns(&bench.node).unwrap();
    bench.del("", &config);
    assert_eq!(bench.card(), before);
    bench
        .node
        .sh("! ls /var/lib/cni/networks/mynet/10.1.2.* && ! find /run/sandwire/journal -type f | grep .")
        .unwrap();

    // The same when something holds its namespace: then the next call has to do it.
    bench.pod.make_netns(&bench.node).unwrap();
    bench.add(&config);
    bench.node.sh_at(&bench.pod.place(), "sleep 1000 >/dev/null 2>&1 & echo $! >/run/holder").unwrap();
    bench.pod.drop_netns(&bench.node).unwrap();
    bench.del("", &config);
    assert_eq!(bench.card(), json!([null, null]));
    bench.node.sh("kill $(cat /run/holder)").unwrap();
    bench.machine(&format!("for i in $(seq 200); do ip link | grep -q {MAC} && break; sleep 0.05; done"));
    assert_eq!(bench.card(), json!(["eth0", before[0]]));
    bench.del("", &config);
    assert_eq!(bench.card(), before);

    // Without a DEL: GC, and repair.
    let mut none = config.clone();
    none["cni.dev/valid-attachments"] = json!([]);
    for how in ["GC", "repair"] {
        bench.pod.make_netns(&bench.node).unwrap();
        bench.add(&config);
        bench.pod.drop_netns(&bench.node).unwrap();
        bench.machine(&format!("for i in $(seq 200); do ip link | grep -q {MAC} && break; sleep 0.05; done"));
        match how {
            "GC" => assert!(bench.call("GC", "", &none).0),
            _ => drop(bench.machine(&format!("{} repair", Installation::sandwirectl().display()))),
        }
        assert_eq!(bench.card(), before, "{how}");
    }
    bench
        .node
        .sh("! ls /var/lib/cni/networks/mynet/10.1.2.* && ! find /run/sandwire/journal -type f | grep .")
        .unwrap();

    // A program drives it: there are addresses, and no interface.
    bench.machine(&format!("modprobe uio_pci_generic; cd /sys/bus/pci/devices/{address}; echo {address} >driver/unbind; echo uio_pci_generic >driver_override; echo {address} >/sys/bus/pci/drivers_probe"));
    bench.pod.make_netns(&bench.node).unwrap();
    let (done, answer) = bench.call("ADD", "/run/netns/pod-a", &config);
    assert!(done && answer["interfaces"] == json!([{"name": "eth0", "sandbox": "/run/netns/pod-a"}]), "{answer}");
    assert!(answer["ips"][0]["address"].is_string(), "{answer}");
    bench.del("/run/netns/pod-a", &config);
    bench.node.sh("! ls /var/lib/cni/networks/mynet/10.1.2.*").unwrap();
}
