//! Source-based routing and tap devices: which way packets go, beside the native sbr, and what a program gets that opens the device.

use sandwire_harness::{Node, Outcome, Pod, Verb};
use serde_json::{Value, json};

fn network(name: &str, third: u8, default: bool) -> Value {
    let routes = if default { json!([{"dst": "0.0.0.0/0"}]) } else { json!([{"dst": "10.77.0.0/16"}]) };
    json!({"cniVersion": "1.0.0", "name": name, "type": "bridge", "bridge": format!("br-{name}"), "isGateway": true,
        "ipam": {"type": "host-local", "subnet": format!("10.{third}.0.0/24"), "rangeStart": format!("10.{third}.0.10"), "routes": routes}})
}

fn sbr(name: &str) -> Value {
    json!({"cniVersion": "1.0.0", "name": name, "type": "sbr"})
}

fn call(
    node: &Node,
    pod: &Pod,
    native: bool,
    verb: Verb,
    ifname: &str,
    config: &Value,
    prev: Option<&Value>,
) -> Outcome {
    let mut config = config.clone();
    if let Some(prev) = prev {
        config["prevResult"] = prev.clone();
    }
    let plugin = config["type"].as_str().unwrap().to_owned();
    let call = node.call(&plugin, verb).pod(pod).ifname(ifname).config(&config);
    if native { call.native() } else { call }.run().unwrap()
}

/// What leaves with the second interface's address leaves by it, whoever made it so, and goes with whoever takes it back.
#[test]
fn what_comes_from_an_interface_goes_by_it() {
    for (adds, deletes) in [(false, false), (false, true), (true, false)] {
        let node = Node::installed().unwrap();
        let pod = node.pod("a").unwrap();
        let before = node.snapshot().unwrap();
        let first = call(&node, &pod, false, Verb::Add, "eth0", &network("one", 1, true), None).result().unwrap();
        let second = call(&node, &pod, false, Verb::Add, "net1", &network("two", 2, false), None).result().unwrap();
        let chained = call(&node, &pod, adds, Verb::Add, "net1", &sbr("two"), Some(&second)).result().unwrap();
        assert_eq!(chained["ips"], second["ips"]);
        let way = |words: &str| node.sh_at(&pod.place(), &format!("ip route get {words}")).unwrap();
        for (words, wanted) in [
            ("192.0.2.1", "via 10.1.0.1 dev eth0"),
            ("192.0.2.1 from 10.1.0.10", "via 10.1.0.1 dev eth0"),
            ("192.0.2.1 from 10.2.0.10", "via 10.2.0.1 dev net1 table 100"),
            ("10.77.0.1 from 10.2.0.10", "via 10.2.0.1 dev net1 table 100"),
            ("10.77.0.1", "via 10.1.0.1 dev eth0"),
        ] {
            assert!(way(words).contains(wanted), "{words}: {}, and not {wanted}", way(words));
        }
        node.sh_at(&pod.place(), "ping -c 1 -W 2 -I 10.2.0.10 10.2.0.1").unwrap();
        if !adds {
            call(&node, &pod, false, Verb::Check, "net1", &sbr("two"), Some(&chained)).done().unwrap();
        }
        call(&node, &pod, deletes, Verb::Del, "net1", &sbr("two"), Some(&chained)).done().unwrap();
        assert!(!way("192.0.2.1 from 10.2.0.10").contains("net1"));
        call(&node, &pod, false, Verb::Del, "net1", &network("two", 2, false), Some(&second)).done().unwrap();
        if deletes {
            // The host knows still of what the native plugin has taken back.
            call(&node, &pod, false, Verb::Del, "net1", &sbr("two"), Some(&chained)).done().unwrap();
        }
        call(&node, &pod, false, Verb::Del, "eth0", &network("one", 1, true), Some(&first)).done().unwrap();
        node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
    }
}

/// Two interfaces of one pod that look for a free table at once, one of them by the native plugin, get two.
#[test]
fn at_once_in_one_pod() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let attach = |ifname: &str, third: u8| {
        call(&node, &pod, false, Verb::Add, ifname, &network(ifname, third, false), None).result().unwrap()
    };
    let prevs = [("net1", attach("net1", 1)), ("net2", attach("net2", 2)), ("net3", attach("net3", 3))];
    for round in 0..6 {
        std::thread::scope(|scope| {
            for (at, (ifname, prev)) in prevs.iter().enumerate() {
                let native = at == 2 && round % 2 == 0;
                let (node, pod) = (&node, &pod);
                scope.spawn(move || {
                    call(node, pod, native, Verb::Add, ifname, &sbr(ifname), Some(prev)).result().unwrap()
                });
            }
        });
        let rules = node.view(&pod.place(), "rule").unwrap();
        let mut tables: Vec<&str> =
            rules.iter().filter_map(|rule| rule["table"].as_str()).filter(|table| table.starts_with("10")).collect();
        tables.sort_unstable();
        assert_eq!(tables, ["100", "101", "102"], "{rules:?}");
        for (ifname, prev) in &prevs {
            call(&node, &pod, false, Verb::Del, ifname, &sbr(ifname), Some(prev)).done().unwrap();
            // DEL leaves the routes to whose interface it is.
            let third = ifname.trim_start_matches("net");
            let again = format!("for t in 100 101 102; do ip route flush table $t dev {ifname} 2>/dev/null || true; ip -6 route flush table $t dev {ifname} 2>/dev/null || true; done
                ip route replace 10.{third}.0.0/24 dev {ifname} scope link src 10.{third}.0.10; ip route replace 10.77.0.0/16 via 10.{third}.0.1 dev {ifname}");
            node.sh_at(&pod.place(), &again).unwrap();
        }
    }
}

const OPEN: &str = r#"
import fcntl, os, struct, subprocess
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454ca, struct.pack("16sH22x", b"eth0", 0x1002))
ping = subprocess.Popen(["ping", "-c", "3", "-W", "1", "10.1.2.1"], stdout=subprocess.DEVNULL)
while True:
    frame = os.read(tun, 2048)
    if frame[12:14] == b"\x08\x06" and frame[38:42] == bytes([10, 1, 2, 1]):
        print("asked for", ".".join(map(str, frame[38:42])), "by", frame[6:12].hex(":"))
        break
ping.kill()
ping.wait()
"#;

/// A virtual machine monitor opens the device by its name, and gets what the pod sends by it.
#[test]
fn a_program_has_the_other_end_of_a_tap_device() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let before = node.snapshot().unwrap();
    let config = json!({"cniVersion": "1.1.0", "name": "vms", "type": "tap", "mac": "02:00:00:00:00:07",
        "ipam": {"type": "host-local", "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.10"}});
    let result = call(&node, &pod, false, Verb::Add, "eth0", &config, None).result().unwrap();
    node.write("/run/open.py", OPEN).unwrap();
    let said = node.sh_at(&pod.place(), "timeout 20 python3 /run/open.py").unwrap();
    assert_eq!(said.trim(), "asked for 10.1.2.1 by 02:00:00:00:00:07");
    call(&node, &pod, false, Verb::Check, "eth0", &config, Some(&result)).done().unwrap();
    call(&node, &pod, false, Verb::Del, "eth0", &config, Some(&result)).done().unwrap();
    node.sh("rm /run/open.py").unwrap();
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
}
