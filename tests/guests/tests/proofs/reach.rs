//! With every interface granted, a plugin still reaches its own attachment and what policy lists, and nothing else.

use sandwire_guests::Bench;
use sandwire_harness::Verb;
use sandwire_harness::agent::Agent;
use serde_json::{Value, json};

/// The entry of a policy that is as wide as an operator would make it by mistake.
const WIDE: &str = r#"links = { change = ["*"] }"#;

/// Another pod, attached by the shipped bridge; the name of its veth in the host's namespace.
fn neighbour(bench: &mut Bench) -> String {
    let pod = bench.node.pod("b").unwrap();
    let config = json!({"cniVersion": "1.0.0", "name": "other", "type": "bridge", "bridge": "cni0"});
    let result = bench.node.cni("bridge", Verb::Add, &pod, "eth0", &config).unwrap().result().unwrap();
    bench.node.sh("ip link add eth0 type veth peer name eth0peer; ip link set eth0 up").unwrap();
    bench.look().unwrap();
    result["interfaces"][1]["name"].as_str().unwrap().to_owned()
}

#[test]
fn links_of_the_node() {
    let mut bench = Bench::new("hostile", r#"links = { see = ["cni0"] }"#, "").unwrap();
    let veth = neighbour(&mut bench);
    for link in [veth.as_str(), "eth0", "lo"] {
        for act in ["host-link", "ride-on", "enslave-to"] {
            bench.stopped(act, &json!({"link": link}), 999, "not found").unwrap();
        }
        bench.stopped("change-link", &json!({"place": "host", "link": link}), 999, "not found").unwrap();
    }
    // Who wrote the configuration knows of a link that it names; a pod's is nobody's.
    let named = |link: &str| json!({"link": link, "master": link});
    let error =
        bench.stopped("host-link", &named("eth0"), 110, "may not use link \"eth0\": to allow it write").unwrap();
    assert!(error.text().contains("links = { see = [\"cni0\"], use = [\"eth0\"] }"), "{error:?}");
    bench.stopped("host-link", &named(&veth), 999, "not found").unwrap();
    let seen = bench.act("list-links", &json!({"place": "host"})).unwrap().error_with(203, "").unwrap();
    assert_eq!(seen.msg, "cni0");
    // To be seen is not to be used.
    for act in ["ride-on", "enslave-to"] {
        bench.stopped(act, &json!({"link": "cni0"}), 110, "links.use").unwrap();
    }
    for act in ["change-link", "rename-link", "remove-link"] {
        bench
            .stopped(act, &json!({"place": "host", "link": "cni0"}), 110, "only links that this attachment made")
            .unwrap();
    }
    bench
        .stopped(
            "ensure-address",
            &json!({"place": "host", "link": "cni0", "address": "10.9.0.1/24"}),
            110,
            "links.change",
        )
        .unwrap();
}

/// A pattern of everything speaks of bridges; the veths of other pods and the node's own interfaces are still none.
#[test]
fn a_wide_pattern() {
    let mut bench = Bench::new("hostile", WIDE, "").unwrap();
    let veth = neighbour(&mut bench);
    for act in ["change-link", "rename-link", "remove-link"] {
        for link in [veth.as_str(), "eth0", "cni0"] {
            bench
                .stopped(act, &json!({"place": "host", "link": link}), 110, "only links that this attachment made")
                .unwrap();
        }
    }
    for link in [veth.as_str(), "eth0"] {
        bench
            .stopped("ensure-address", &json!({"place": "host", "link": link, "address": "10.9.0.1/24"}), 110, "")
            .unwrap();
    }
    bench.stopped("ride-on", &json!({"link": veth}), 110, "").unwrap();
    bench.stopped("ensure-bridge", &json!({"link": "eth0"}), 110, "").unwrap();
    bench.stopped("ensure-bridge", &json!({"link": "eth0", "bridge": "eth0"}), 999, "").unwrap();
    bench.stopped("ensure-bridge", &json!({}), 7, "").unwrap();
}

#[test]
fn a_bridge_that_policy_does_not_list() {
    let bench = Bench::new("hostile", r#"links = { change = ["cni0"] }"#, "").unwrap();
    let error = bench.stopped("ensure-bridge", &json!({"link": "br9"}), 110, "make or use bridge \"br9\"").unwrap();
    assert!(error.text().contains("links = { change = [\"cni0\", \"br9\"] }"), "{error:?}");
}

/// Other interfaces of the same pod belong to other attachments.
#[test]
fn other_interfaces_of_the_pod() {
    let mut bench = Bench::new("hostile", "", "").unwrap();
    bench.node.sh_at(&bench.pod.place(), "ip link add eth0 type veth peer name eth0peer; ip link set eth0 up").unwrap();
    bench.look().unwrap();
    for act in ["change-link", "rename-link", "remove-link"] {
        let config = bench.config(act, &json!({"link": "eth0"}));
        let outcome = bench.node.cni("hostile", Verb::Add, &bench.pod, "net1", &config).unwrap();
        outcome.error_with(110, "only links that this attachment made").unwrap();
        bench.unchanged().unwrap();
        // And its own, when it was there before this ADD, is not removed by it.
        if act == "remove-link" {
            bench.stopped(act, &json!({"link": "eth0"}), 110, "only links that this ADD made").unwrap();
        }
        let del = bench.config(act, &json!({"link": "eth0", "when": "DEL"}));
        bench.node.cni("hostile", Verb::Del, &bench.pod, "net1", &del).unwrap();
        bench.unchanged().unwrap();
    }
}

#[test]
fn sysctls() {
    let mut bench = Bench::new(
        "hostile",
        r#"sysctls = ["ipv4/ip_forward"]
links = { change = ["*"] }"#,
        "",
    )
    .unwrap();
    let veth = neighbour(&mut bench);
    // Plain writes to what is shared are refused even when `shared` may make sure of it.
    for key in [
        "ipv4/ip_forward",
        "ipv4/conf/all/forwarding",
        "ipv4/conf/default/rp_filter",
        "ipv4/conf/lo/forwarding",
        "core/somaxconn",
    ] {
        bench.stopped("write-sysctl", &json!({"place": "host", "key": key}), 110, "write sysctl").unwrap();
    }
    for key in [format!("ipv4/conf/{veth}/forwarding"), "ipv4/conf/eth0/forwarding".into(), "kernel/hostname".into()] {
        bench.stopped("write-sysctl", &json!({"place": "host", "key": key}), 110, "write sysctl").unwrap();
    }
    for key in [
        "../kernel/hostname",
        "ipv4/../../kernel/hostname",
        "ipv4",
        "",
        "/ipv4/ip_forward",
        "ipv4//ip_forward",
        "ipv4/conf/\0/x",
    ] {
        for act in ["write-sysctl", "ensure-sysctl"] {
            bench.stopped(act, &json!({"place": "host", "key": key}), 7, "no sysctl below /proc/sys/net").unwrap();
        }
    }
    // `links.change` covers the settings of bridges, not of all links, of other pods' and of the node's interfaces.
    let others =
        ["ipv4/conf/all/forwarding", "ipv6/conf/default/accept_ra", "ipv4/conf/eth0/forwarding", "ipv4/tcp_syncookies"];
    for key in others.map(str::to_owned).into_iter().chain([format!("ipv4/conf/{veth}/forwarding")]) {
        bench.stopped("ensure-sysctl", &json!({"place": "host", "key": key}), 110, "set sysctl").unwrap();
    }
}

#[test]
fn rules_for_addresses_of_others() {
    let bench = Bench::new("hostile", "", "").unwrap();
    for address in ["10.1.2.3", "8.8.8.8", "0.0.0.0", "::"] {
        bench.stopped("masquerade", &json!({"address": address}), 110, "does not hold that address").unwrap();
    }
    bench.stopped("masquerade", &json!({"address": "0.0.0.0/0"}), 7, "no IP address").unwrap();
}

#[test]
fn routes_of_the_node() {
    let bench = Bench::new("hostile", "", "").unwrap();
    for (address, text) in [
        ("8.8.8.8/32", "does not hold"),
        ("2001:4860:4860::8888/128", "does not hold"),
        ("0.0.0.0/0", "only to single addresses"),
        ("::/0", "only to single addresses"),
        ("10.0.0.0/8", "only to single addresses"),
    ] {
        for act in ["host-route", "host-route-batch"] {
            bench.stopped(act, &json!({"address": address}), 110, text).unwrap();
        }
    }
}

/// An address brings a route to its prefix, and makes its own traffic the node's.
/// A rule of the node decides over everybody's traffic; one of the pod over its own, and not over that of the pod's other networks.
#[test]
fn policy_rules() {
    let mut bench = Bench::new("hostile", WIDE, "").unwrap();
    let node = json!({"place": "host", "from": "10.9.0.1/32"});
    for act in ["add-rule", "remove-rule", "reserve-table"] {
        bench.stopped(act, &node, 110, "may not change the policy rules of the node").unwrap();
    }
    let prev = json!({"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.1/24"}]});
    let from = |from: &str, table: u32| json!({"from": from, "table": table, "prevResult": prev});
    for source in ["0.0.0.0/0", "10.9.0.0/24", "10.9.0.2/32", "::/0"] {
        bench.stopped("add-rule", &from(source, 100), 110, "one address that the attachment holds").unwrap();
    }
    // Those of the kernel, and of the pod's other attachments.
    bench.node.sh_at(&bench.pod.place(), "ip rule add from 10.9.0.1 lookup 77").unwrap();
    bench.look().unwrap();
    for (source, table) in [("0.0.0.0/0", 254), ("0.0.0.0/0", 255), ("10.9.0.1/32", 77)] {
        bench.stopped("remove-rule", &from(source, table), 110, "it is not the attachment's").unwrap();
    }
    bench.act("add-rule", &from("10.9.0.1/32", 100)).unwrap().error_with(201, "add-rule").unwrap();
    for source in ["10.9.0.1", ""] {
        bench.stopped("add-rule", &from(source, 100), 7, "no address with a prefix length").unwrap();
    }
    let rules = bench.node.sh_at(&bench.pod.place(), "ip rule").unwrap();
    assert!(rules.contains("from 10.9.0.1 lookup 77") && !rules.contains("lookup 100"), "{rules}");
}

/// Tap devices are a power of their own, and of the pod alone.
#[test]
fn tap_devices() {
    let bench = Bench::new("hostile", WIDE, "").unwrap();
    bench.stopped("make-tap", &json!({}), 110, "may not make tap devices: to allow it write  tap = true").unwrap();
    let bench = Bench::new("hostile", &format!("{WIDE}\ntap = true"), "").unwrap();
    bench.stopped("make-tap", &json!({"place": "host"}), 999, "tap devices of the node").unwrap();
    bench.act("make-tap", &json!({})).unwrap().error_with(201, "make-tap").unwrap();
}

/// A link of the node is taken when policy lists it and the configuration names it, and goes back.
#[test]
fn links_that_are_taken() {
    let mut bench = Bench::new("hostile", r#"links = { take = ["up*", "veth*", "lo"] }"#, "").unwrap();
    let veth = neighbour(&mut bench);
    bench.node.sh("ip link add up0 type veth peer name other0; ip link set up0 up alias mine").unwrap();
    bench.look().unwrap();
    let named = |link: &str| json!({"link": link, "device": link, "as": "eth0"});
    bench.stopped("take", &named("other0"), 110, r#"links = { take = ["up*", "veth*", "lo", "other0"] }"#).unwrap();
    for link in [veth.as_str(), "lo"] {
        bench.stopped("take", &named(link), 110, "it is no link that can be taken").unwrap();
    }
    bench.stopped("take", &json!({"link": "up0", "as": "eth0"}), 110, "the configuration does not name it").unwrap();
    bench.stopped("take", &json!({"link": "up0", "device": "up0", "as": "eth5"}), 110, "can get one name").unwrap();
    for (act, text) in [
        ("take-and-remove", "it is the node's"),
        ("take-and-lose", "where it goes back to under that name, in DEL"),
        ("take-and-rename", "where it goes back to under that name, in DEL"),
        ("take-and-give-back", "where it goes back to under that name, in DEL"),
        ("take-and-forget", "may not change the alias"),
    ] {
        bench.stopped(act, &named("up0"), 110, text).unwrap();
    }
    bench.stopped("take-the-other-end", &named("up0"), 999, "the peer of link \"eth0\" not found").unwrap();
    bench.stopped("take", &named("up0"), 201, "take").unwrap();
    bench
        .stopped("change-link", &json!({"place": "host", "link": "up0", "device": "up0"}), 110, "may not change")
        .unwrap();
    for act in ["ride-on", "enslave-to"] {
        bench.stopped(act, &named("up0"), 110, "").unwrap();
    }
}

#[test]
fn hardware() {
    let bench = Bench::new("hostile", r#"devices = ["/sys/devices/virtual*"]"#, "").unwrap();
    let known = "/sys/devices/virtual";
    for act in ["find-device", "driver"] {
        let id = |id: &str, named: &str| json!({"place": "host", "id": id, "kernelpath": named});
        bench
            .stopped(act, &id("/sys/devices/pci0", "/sys/devices/pci0"), 110, "to allow it write  devices = [")
            .unwrap();
        bench.stopped(act, &id(known, "/sys/devices/virtual/net"), 110, "the configuration does not name it").unwrap();
        let outside = "/sys/devices/virtual/../../class";
        bench.stopped(act, &id(outside, outside), 7, "is no path of a device").unwrap();
    }
    bench.stopped("find-device", &json!({"place": "host", "id": known, "kernelpath": known}), 201, "found lo").unwrap();
}

#[test]
fn addresses_of_the_node() {
    let bench = Bench::new("hostile", "", "").unwrap();
    for address in ["8.8.8.8/32", "10.0.0.1/8", "169.254.169.254/32", "0.0.0.1/0", "2001:4860:4860::8888/128"] {
        for how in ["add", "configure"] {
            bench.stopped("host-address", &json!({"address": address, "how": how}), 110, "address").unwrap();
        }
    }
    for address in ["8.8.8.8/32", "10.0.0.0/8"] {
        bench.stopped("host-peer-address", &json!({"address": address}), 110, "").unwrap();
    }
}

#[test]
fn files_and_directories() {
    let bench = Bench::new(
        "hostile",
        r#"data_dirs = ["/var/lib/cni/*"]
files = { allowed = "/etc/hostname", fifo = "/run/fifo" }"#,
        "",
    )
    .unwrap();
    // Opening it must not wait for a writer.
    bench.node.sh("mkfifo /run/fifo").unwrap();
    bench.stopped("read-file", &json!({"file": "fifo"}), 7, "is no regular file").unwrap();
    for dir in ["/etc", "/var/lib/cni/networks/../../../../etc", "/var/lib/cni/../../../tmp", "relative", "", "/"] {
        bench.stopped("data-dir", &json!({"dir": dir}), 110, "data_dirs").unwrap();
    }
    for file in ["/etc/shadow", "/etc/hostname", "../etc/shadow", "", "allowed/../x"] {
        bench.stopped("read-file", &json!({"file": file}), 110, "to allow it write  files = { ").unwrap();
    }
    bench.stopped("read-file", &json!({"file": "allowed"}), 201, "read").unwrap();
}

/// The one file that is the attachment's own by its name, in a directory of policy's.
#[test]
fn a_file_of_its_own() {
    let mut bench = Bench::new("hostile", r#"data_dirs = ["/run/cni/*"]"#, "").unwrap();
    bench.node.sh("mkdir -p /run/cni/kept /run/elsewhere && cd /run/cni/kept && echo mine > pod-a_eth0.json && echo other > pod-b_eth0.json && ln -s pod-b_eth0.json pod-a_eth0.link").unwrap();
    bench.look().unwrap();
    for dir in ["/etc", "/run/cni/../elsewhere", "/run/cni/kept/../../elsewhere", "relative", "", "/"] {
        bench.stopped("own-file", &json!({"dir": dir, "suffix": ".json"}), 110, "data_dirs").unwrap();
        bench.stopped("remove-own-file", &json!({"dir": dir, "suffix": ".json"}), 110, "data_dirs").unwrap();
    }
    for suffix in ["/../pod-b_eth0.json", ".json\0", "/x", "\n"] {
        bench
            .stopped("own-file", &json!({"dir": "/run/cni/kept", "suffix": suffix}), 7, "can't end a file's name")
            .unwrap();
    }
    bench.stopped("own-file", &json!({"dir": "/run/cni/kept", "suffix": ".link"}), 999, "pod-a_eth0.link").unwrap();
    bench.stopped("own-file", &json!({"dir": "/run/cni/kept", "suffix": ".json"}), 201, "read 5 bytes").unwrap();
    // An ADD that fails could not bring it back.
    bench.stopped("remove-own-file", &json!({"dir": "/run/cni/kept", "suffix": ".json"}), 110, "only DEL may").unwrap();
    assert_eq!(bench.node.read("/run/cni/kept/pod-a_eth0.json").unwrap().as_deref(), Some(&b"mine\n"[..]));
}

const AGENT: &str = r#"
[endpoints.agent]
address = "http://127.0.0.1:8082"
allow = ["GET /ping", "GET /looking-glass/*"]
[endpoints.other]
address = "http://127.0.0.1:8083"
allow = ["GET /ping"]
"#;

/// A call with these parts.
fn request(method: &str, path: &str) -> Value {
    json!({"endpoint": "agent", "method": method, "path": path})
}

#[test]
fn agents() {
    let mut bench = Bench::new("hostile", r#"endpoints = ["agent"]"#, AGENT).unwrap();
    let agent = Agent::tcp(&bench.node, "127.0.0.1:8082").unwrap();
    bench.look().unwrap();
    bench.stopped("call", &request("GET", "/ping"), 204, "answered 200").unwrap();
    assert_eq!(agent.take_calls().len(), 1);

    for endpoint in ["other", "bagpipe", "http://127.0.0.1:8082", ""] {
        let call = json!({"endpoint": endpoint, "method": "GET", "path": "/ping"});
        let error = bench.stopped("call", &call, 110, "call endpoint").unwrap();
        assert!(error.text().contains(&format!("endpoints = [\"agent\", {endpoint:?}]")), "{error:?}");
    }
    for (method, path) in [
        ("POST", "/ping"),
        ("get", "/ping"),
        ("GET", "/attach_localport"),
        ("GET", "/ping/../attach_localport"),
        ("GET", "/looking-glass/../attach_localport"),
        ("GET", "/looking-glass/%2e%2e/attach_localport"),
        ("GET", "/looking-glass/%2E./attach_localport"),
        ("GET", "/looking-glass/..;/attach_localport"),
        ("GET", "/looking-glass/..\\attach_localport"),
        ("GET", "/looking-glass/x HTTP/1.1\r\nHost: x\r\n\r\nPOST /attach_localport"),
        ("GET", "/looking-glass/x\u{0}"),
        ("GET", "/looking-glass/\u{e9}"),
        ("GET", "http://127.0.0.1:8083/ping"),
        ("GET", "//127.0.0.1:8083/ping"),
        ("GET", "/ping#x"),
        ("GET", "/looking-glass/a#/../../attach_localport"),
        ("GET /ping HTTP/1.1\r\nX:", "/ping"),
    ] {
        bench.stopped("call", &request(method, path), 110, "not among the calls that policy allows").unwrap();
    }
    bench.stopped("call-undo", &request("POST", "/detach_localport"), 110, "not among the calls").unwrap();
    assert!(agent.take_calls().is_empty(), "an agent was called");
}

/// One request goes out, whatever the headers and the body say about where it ends.
#[test]
fn smuggled_requests() {
    let mut bench = Bench::new("hostile", r#"endpoints = ["agent"]"#, AGENT).unwrap();
    let agent = Agent::tcp(&bench.node, "127.0.0.1:8082").unwrap();
    bench.look().unwrap();
    let smuggled = "POST /attach_localport HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
    for (key, value) in [
        ("Content-Length", "0"),
        ("content-length", "5"),
        ("Transfer-Encoding", "chunked"),
        ("Transfer-Encoding", "identity"),
        ("Connection", "keep-alive"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Expect", "100-continue"),
        ("Host", "elsewhere"),
        ("X\r\nContent-Length", "0"),
        ("X", "a\r\nContent-Length: 0"),
        ("X", "a\nContent-Length: 0"),
        ("X: y\r\n\r\n", ""),
        ("", "empty"),
    ] {
        let mut call = request("GET", "/ping");
        call["headers"] = json!({key: value});
        call["body"] = smuggled.into();
        let outcome = bench.act("call", &call).unwrap();
        let error = outcome.error().unwrap();
        assert!(error.code == 110, "{key:?}: {value:?} went out: {error:?}");
        bench.unchanged().unwrap();
        assert!(agent.take_calls().is_empty(), "{key:?}: {value:?}");
    }
}

#[test]
fn other_plugins() {
    let entry = "delegates = [\"hostile\", \"native*\"]\nown_addresses = true";
    let mut bench = Bench::new("hostile", entry, "").unwrap();
    bench.node.sh("cp /bin/true /opt/cni/bin/native1").unwrap();
    bench.look().unwrap();
    let error =
        bench.stopped("delegate", &json!({"plugin": "loopback"}), 110, "may not run plugin \"loopback\"").unwrap();
    assert!(
        error.details.contains("to allow it write  delegates = [\"hostile\", \"native*\", \"loopback\"]"),
        "{error:?}"
    );
    for plugin in ["../bin/sh", "/bin/sh", "", ".", "..", "sandwire"] {
        bench.stopped("delegate", &json!({"plugin": plugin}), 110, "may not run plugin").unwrap();
    }
    // A native plugin can do anything: it has a grant of its own.
    let named = |plugin: &str| json!({"plugin": plugin, "ipam": {"type": plugin}});
    bench.stopped("delegate", &named("native1"), 110, "may not execute the native plugin").unwrap();
    bench.stopped("delegate", &named("native/../../../bin/sh"), 999, "invalid plugin name").unwrap();
    bench.stopped("delegate", &json!({"plugin": "hostile", "as": "another"}), 110, "for another network").unwrap();
    bench.stopped("delegate-itself", &json!({}), 999, "in a row").unwrap();
}

#[test]
fn names_that_are_paths() {
    let bench = Bench::new("hostile", "", "").unwrap();
    bench.stopped("bad-names", &json!({}), 205, "all refused").unwrap();
}

/// GC of a plugin that wants to keep nothing: what the runtime lists is kept all the same.
#[test]
fn leases_in_use() {
    let mut bench = Bench::new("hostile", "", "").unwrap();
    let pod = bench.pod.clone();
    bench.node.write("/var/lib/cni/networks/net/10.9.0.7", format!("{}\r\neth0", pod.id)).unwrap();
    bench.node.write("/var/lib/cni/networks/net/10.9.0.8", "gone\r\neth0").unwrap();
    bench.look().unwrap();
    let config = |valid: Value| bench.config("retain", &json!({"when": "GC", "cni.dev/valid-attachments": valid}));
    let both = json!([{"containerID": pod.id, "ifname": "eth0"}, {"containerID": "gone", "ifname": "eth0"}]);
    let all = |bench: &Bench| bench.node.snapshot().unwrap().assert_same_attachments(&bench.before);
    bench.call(Verb::Gc, &config(both)).unwrap().done().unwrap();
    all(&bench).unwrap();
    // Without a list nothing is known, and nothing collected.
    let mut unsaid = bench.config("retain", &json!({"when": "GC"}));
    bench.call(Verb::Gc, &unsaid).unwrap().done().unwrap();
    all(&bench).unwrap();
    // Neither in ADD, whatever is in the list.
    unsaid["when"] = "ADD".into();
    bench.call(Verb::Add, &unsaid).unwrap().error_with(110, "only GC may").unwrap();
    all(&bench).unwrap();
}
