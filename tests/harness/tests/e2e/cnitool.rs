//! The CNI project's own runtime, libcni, in front: every verb it has, at every version, by its `cnitool`.

use sandwire_harness::{Node, Place, Pod, Verb, versions};
use serde_json::{Value, json};
use std::process::Command;

const TOOL: &str = "/var/tmp/sandwire-tools/bin/cnitool";

fn cnitool(node: &Node, verb: &str, network: &str, pod: &Pod) -> Result<String, String> {
    let mut command = Command::new(TOOL);
    command.args([verb, network]).arg(&pod.netns).env_clear();
    command
        .env("CNI_PATH", sandwire_harness::OURS)
        .env("NETCONFPATH", "/etc/cni/net.d")
        .env("PATH", "/usr/sbin:/usr/bin");
    let finished = node.run(&Place::Host, command, b"").unwrap();
    if finished.status.success() { Ok(finished.stdout) } else { Err(format!("{}{}", finished.stdout, finished.stderr)) }
}

#[test]
fn every_verb_at_every_version() {
    assert!(std::path::Path::new(TOOL).exists(), "{TOOL} is missing; run: tests/install-packages.sh");
    for version in versions::ALL {
        let node = Node::installed().unwrap();
        let pod = node.pod("a").unwrap();
        let list = json!({"cniVersion": version, "name": "mynet", "plugins": [
            {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
             "ipam": {"type": "host-local", "subnet": "10.1.2.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}]});
        node.write("/etc/cni/net.d/10-mynet.conflist", list.to_string()).unwrap();
        let before = node.snapshot().unwrap();
        let run = |verb: &str| cnitool(&node, verb, "mynet", &pod);

        let result: Value = serde_json::from_str(&run("add").unwrap()).unwrap();
        let address = ["/ips/0/address", "/ip4/ip"].iter().find_map(|at| result.pointer(at)).unwrap();
        assert_eq!(address, "10.1.2.2/24", "{version}: {result}");
        assert_eq!(result["cniVersion"], version);
        node.sh_at(&pod.place(), "ping -c 1 -W 5 10.1.2.1").unwrap();

        match run("check") {
            Ok(_) => assert!(versions::has_check(version), "{version}"),
            Err(text) => assert!(!versions::has_check(version), "CHECK at {version}: {text}"),
        }
        if versions::has_gc(version) {
            run("status").unwrap();
        }
        run("del").unwrap();
        run("del").unwrap();
        node.snapshot().unwrap().assert_same_attachments(&before).unwrap_or_else(|e| panic!("{version}: {e:#}"));

        if versions::has_gc(version) {
            // The pod dies without a DEL and its runtime forgets it. cnitool's GC comes without a list, which says nothing
            // of attachments that it doesn't know; one that lists nothing takes them.
            run("add").unwrap();
            pod.drop_netns(&node).unwrap();
            node.sh("rm -r /var/lib/cni/results").unwrap();
            run("gc").unwrap_or_else(|text| panic!("GC: {text}"));
            node.sh("ls /var/lib/cni/networks/mynet/10.1.2.*").unwrap();
            let mut config = list["plugins"][0].clone();
            for (key, value) in
                [("cniVersion", json!(version)), ("name", json!("mynet")), ("cni.dev/valid-attachments", json!([]))]
            {
                config[key] = value;
            }
            node.call("bridge", Verb::Gc).config(&config).run().unwrap().done().unwrap();
            node.snapshot().unwrap().assert_same_attachments(&before).unwrap_or_else(|e| panic!("{version}: {e:#}"));
        }
    }
}

/// STATUS tells what ADD would: a pool that is used up is code 50, before a pod has to find out.
#[test]
fn status_speaks_of_the_pool() {
    let node = Node::installed().unwrap();
    let pods: Vec<Pod> = ["a", "b"].map(|name| node.pod(name).unwrap()).into_iter().collect();
    let list = json!({"cniVersion": "1.1.0", "name": "small", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isGateway": true,
         "ipam": {"type": "host-local", "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.10", "rangeEnd": "10.1.2.10"}}]});
    node.write("/etc/cni/net.d/10-small.conflist", list.to_string()).unwrap();
    cnitool(&node, "status", "small", &pods[0]).unwrap();
    cnitool(&node, "add", "small", &pods[0]).unwrap();
    let text = cnitool(&node, "status", "small", &pods[0]).unwrap_err();
    assert!(text.contains("no IP addresses available"), "{text}");
    cnitool(&node, "add", "small", &pods[1]).unwrap_err();
    cnitool(&node, "del", "small", &pods[0]).unwrap();
    cnitool(&node, "status", "small", &pods[0]).unwrap();
}
