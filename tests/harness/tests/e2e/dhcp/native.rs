//! Beside the reference: the same of both, and each with the other.

use super::*;
use sandwire_harness::{NATIVE, OURS, Place, Verb};
use std::process::Command;

/// The reference's, without which its plugin can do nothing. It ends with the node.
fn daemon(node: &Node) {
    let mut command = Command::new(format!("{NATIVE}/dhcp"));
    command.args(["daemon", "-socketpath", "/run/cni/dhcp.sock"]).env_clear();
    node.background(&Place::Host, command).unwrap();
    until(node, "the daemon listens", || node.sh("test -S /run/cni/dhcp.sock").is_ok());
}

/// A result without what every attachment has of its own.
fn shape(result: &Value) -> Value {
    let mut shape = result.clone();
    // Empty in Debian's 1.1.1 (docs/compatibility.md).
    shape.as_object_mut().unwrap().remove("dns");
    for interface in shape["interfaces"].as_array_mut().unwrap() {
        interface["mac"].take();
        let sandbox = interface["sandbox"].take();
        interface["sandbox"] = sandbox.is_string().into();
        if interface["name"].as_str().unwrap().starts_with("veth") {
            interface["name"] = "veth".into();
        }
    }
    for ip in shape["ips"].as_array_mut().unwrap() {
        ip["address"] = ip["address"].as_str().unwrap().split('/').next_back().unwrap().into();
    }
    shape
}

#[test]
fn as_the_native_one() {
    let bench = Bench::new(BRIDGED);
    daemon(&bench.node);
    let other = bench.node.pod("b").unwrap();
    for (options, request) in [
        (&[][..], json!([])),
        (&["--dhcp-option=121,10.9.0.0/16,10.1.2.7,0.0.0.0/0,10.1.2.1"][..], json!([{"option": "121"}])),
        (&["--dhcp-option=33,192.168.7.0,10.1.2.7,10.0.0.0,10.1.2.8"][..], json!([{"option": "33"}])),
        (&[][..], json!([{"skipDefault": true, "option": "subnet-mask"}])),
    ] {
        let _server = serve(&bench.node, options);
        let config = network("bridge", &json!({"request": request}));
        let native = |verb| bench.node.call("bridge", verb).pod(&other).ifname("eth0").native().config(&config).run();
        let ours = bench.call(false, Verb::Add, &config, None).result().unwrap();
        let theirs = native(Verb::Add).unwrap().result().unwrap();
        assert_eq!(shape(&ours), shape(&theirs), "{request}");
        let routes = [(&bench.pod, &ours), (&other, &theirs)]
            .map(|(pod, result)| bench.node.sh_at(&pod.place(), "ip route").unwrap().replace(&address(result), "MINE"));
        assert_eq!(routes[0], routes[1], "{request}");
        bench.call(false, Verb::Del, &config, Some(&ours)).done().unwrap();
        given_back(&bench.node, &address(&ours));
        native(Verb::Del).unwrap().done().unwrap();
        bench.nothing_left();
    }
}

/// A folder of CNI_PATH with nothing but dhcp from `folder`, so that it is clear who runs.
fn only_dhcp(node: &Node, folder: &str) {
    node.sh(&format!("mkdir /mnt/only && ln -s {folder}/dhcp /mnt/only/dhcp")).unwrap();
}

/// ADD, CHECK, ping of the gateway, DEL, DEL of the plugin at `main`, with the one address manager that it finds; its address.
fn life(bench: &Bench, main: &str, plugin: &str) -> String {
    let call = |verb, prev: Option<&Value>| {
        let mut config = network(plugin, &json!({}));
        if let Some(prev) = prev {
            config["prevResult"] = prev.clone();
        }
        let call = bench.node.call(plugin, verb).pod(&bench.pod).ifname("eth0").config(&config);
        call.program(format!("{main}/{plugin}")).path("/mnt/only").run().unwrap()
    };
    let result = call(Verb::Add, None).result().unwrap();
    assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": "10.1.2.1"}]), "{result}");
    ping(bench);
    call(Verb::Check, Some(&result)).done().unwrap();
    call(Verb::Del, Some(&result)).done().unwrap();
    call(Verb::Del, None).done().unwrap();
    bench.nothing_left();
    address(&result)
}

/// Debian's macvlan asks for DEL of the address while there is a way to the server; its bridge removes that way first, and then
/// not even its own can give anything back.
#[test]
fn native_plugins_with_ours() {
    for (plugin, script, released) in [("bridge", BRIDGED, false), ("macvlan", DIRECT, true)] {
        let bench = Bench::new(script);
        let _server = serve(&bench.node, &[]);
        only_dhcp(&bench.node, OURS);
        let address = life(&bench, NATIVE, plugin);
        if released {
            given_back(&bench.node, &address);
        }
    }
}

#[test]
fn our_plugins_with_the_native_one() {
    for (plugin, script) in [("bridge", BRIDGED), ("macvlan", DIRECT)] {
        let bench = Bench::new(script);
        let _server = serve(&bench.node, &[]);
        daemon(&bench.node);
        only_dhcp(&bench.node, NATIVE);
        life(&bench, OURS, plugin);
    }
}
