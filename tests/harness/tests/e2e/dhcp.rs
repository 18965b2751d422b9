//! Addresses of a DHCP server, Debian's dnsmasq: given, renewed, and given back by whoever has to; what it is told and asked for;
//! beside the reference and its daemon.

use crate::common::{Bench, apply};
use crate::ctl::ctl_status;
use sandwire_harness::dhcp::{self, Server};
use sandwire_harness::{NATIVE, Node, OURS, Place, Verb};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

/// A bridge with an uplink to the server.
const BRIDGED: &str = "ip netns add outside
    ip link add cni0 type bridge; ip link set cni0 up
    ip link add uplink type veth peer name wire netns outside; ip link set uplink master cni0 up
    ip -n outside addr add 10.1.2.1/24 dev wire; ip -n outside link set wire up";
/// An interface of the node that leads to it.
const DIRECT: &str = "ip netns add outside
    ip link add eth7 type veth peer name wire netns outside; ip link set eth7 up
    ip -n outside addr add 10.1.2.1/24 dev wire; ip -n outside link set wire up";

/// A server with more of dnsmasq's options.
fn serve(node: &Node, options: &[&str]) -> Server {
    Server::start(node, options).unwrap()
}

fn log(node: &Node) -> String {
    dhcp::log(node).unwrap()
}

fn leases(node: &Node) -> Vec<[String; 4]> {
    dhcp::leases(node).unwrap()
}

/// How many messages of this kind the server has seen or sent.
fn count(node: &Node, kind: &str) -> usize {
    log(node).matches(&format!(" {kind}(wire) ")).count()
}

/// The server reads its socket when it gets to it.
fn until(node: &Node, what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "{what}: not yet; its log:\n{}", log(node));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A client identifier as dnsmasq writes it.
fn hex(bytes: &str) -> String {
    bytes.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn given_back(node: &Node, address: &str) {
    until(node, &format!("{address} is given back"), || {
        log(node).contains(&format!("DHCPRELEASE(wire) {address} "))
            && leases(node).iter().all(|[_, given, ..]| given != address)
    });
}

/// A network of this plugin; `ipam` has keys beside `type`.
fn network(plugin: &str, ipam: &Value) -> Value {
    let mut config = json!({"cniVersion": "1.0.0", "name": "mynet", "type": plugin, "ipam": {"type": "dhcp"}});
    match plugin {
        "bridge" => config["bridge"] = "cni0".into(),
        "macvlan" => config["master"] = "eth7".into(),
        _ => config["device"] = "eth7".into(),
    }
    config["ipam"].as_object_mut().unwrap().extend(ipam.as_object().unwrap().clone());
    config
}

fn bridge() -> Value {
    network("bridge", &json!({}))
}

/// A subnet, and nothing else.
fn bare() -> Value {
    network("bridge", &json!({"request": [{"skipDefault": true, "option": "subnet-mask"}]}))
}

/// A policy whose calls may take so long.
fn deadline(bench: &mut Bench, ms: u32) {
    let policy = String::from_utf8(bench.node.read("/etc/sandwire/policy.toml").unwrap().unwrap()).unwrap();
    let other = policy.replace("deadline_ms = 30000", &format!("deadline_ms = {ms}"));
    assert_ne!(policy, other);
    apply(&bench.node, &other);
    bench.before = bench.node.snapshot().unwrap();
}

/// The first address of a result, without its length.
fn address(result: &Value) -> String {
    result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().to_owned()
}

fn ping(bench: &Bench) {
    bench.node.sh_at(&bench.pod.place(), "ping -c 1 -W 5 10.1.2.1").unwrap();
}

#[test]
fn given_and_given_back() {
    let bench = Bench::new(BRIDGED);
    let _server = serve(&bench.node, &[]);
    let result = bench.call(false, Verb::Add, &bridge(), None).result().unwrap();
    let address = address(&result);
    assert_eq!(
        result["ips"],
        json!([{"address": format!("{address}/24"), "gateway": "10.1.2.1", "interface": 2}]),
        "{result}"
    );
    assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": "10.1.2.1"}]));
    let mac = result["interfaces"][2]["mac"].as_str().unwrap().to_owned();
    let client = hex("\0pod-a/mynet/eth0");
    assert_eq!(leases(&bench.node), [[mac, address.clone(), "*".into(), client]]);
    ping(&bench);
    bench.call(false, Verb::Check, &bridge(), Some(&result)).done().unwrap();

    bench.call(false, Verb::Del, &bridge(), Some(&result)).done().unwrap();
    given_back(&bench.node, &address);
    bench.nothing_left();
    bench.call(false, Verb::Del, &bridge(), None).done().unwrap();
    assert_eq!(count(&bench.node, "DHCPRELEASE"), 1);
}

#[test]
fn each_attachment_has_its_own() {
    let bench = Bench::new(BRIDGED);
    let _server = serve(&bench.node, &[]);
    let other = bench.node.pod("b").unwrap();
    let attachments = [(&bench.pod, "eth0"), (&bench.pod, "net1"), (&other, "eth0")];
    let call = |verb, (pod, ifname), config: &Value| bench.node.cni("bridge", verb, pod, ifname, config).unwrap();
    let given = attachments.map(|at| {
        let result = call(Verb::Add, at, &bare()).result().unwrap();
        (at, address(&result), result)
    });
    let held = || {
        let mut clients: Vec<String> = leases(&bench.node).into_iter().map(|[.., client]| client).collect();
        clients.sort();
        clients
    };
    assert_eq!(held(), ["\0pod-a/mynet/eth0", "\0pod-a/mynet/net1", "\0pod-b/mynet/eth0"].map(hex));
    call(Verb::Del, given[1].0, &bare()).done().unwrap();
    given_back(&bench.node, &given[1].1);
    assert_eq!(held(), ["\0pod-a/mynet/eth0", "\0pod-b/mynet/eth0"].map(hex));
    for (at, address, result) in [&given[0], &given[2]] {
        let mut config = bare();
        config["prevResult"] = result.clone();
        call(Verb::Check, *at, &config).done().unwrap();
        call(Verb::Del, *at, &config).done().unwrap();
        given_back(&bench.node, address);
    }
    bench.nothing_left();
}

#[test]
fn what_the_server_is_told() {
    let bench = Bench::new(BRIDGED);
    let _server = serve(&bench.node, &[]);
    let config = network(
        "bridge",
        &json!({"provide": [{"option": "host-name", "fromArg": "K8S_POD_NAME"}, {"option": "60", "value": "sand"},
            {"option": "user-class", "value": "gold"}, {"option": "dhcp-client-identifier", "value": "mine"}]}),
    );
    let call = |verb| {
        let call = bench.node.call("bridge", verb).pod(&bench.pod).ifname("eth0").config(&config);
        call.env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web-7").run().unwrap()
    };
    let result = call(Verb::Add).result().unwrap();
    let [[_, address, name, client]] = leases(&bench.node).try_into().unwrap();
    assert_eq!((address, name.as_str(), client), (self::address(&result), "web-7", hex("mine")));
    let log = log(&bench.node);
    for text in [" vendor class: sand\n", " user class: gold\n", " client provides name: web-7\n"] {
        // With the first message and with the second; more often when the machine was so busy that they were sent again.
        assert!(log.matches(text).count() >= 2, "{text}: {log}");
    }
    call(Verb::Del).done().unwrap();
    given_back(&bench.node, &self::address(&result));
    bench.nothing_left();
}

/// RFC 3442: what option 121 says counts, and no other route; where the router is 0.0.0.0 the network is on the link.
#[test]
fn what_the_server_is_asked_for() {
    let bench = Bench::new(BRIDGED);
    let option = "--dhcp-option=121,10.9.0.0/16,10.1.2.7,10.8.0.0/16,0.0.0.0,10.7.0.0/16,10.1.2.1";
    let _server = serve(&bench.node, &[option]);
    let mut config = network("bridge", &json!({"request": [{"option": "121"}], "priority": 50}));
    config["cniVersion"] = "1.1.0".into();
    let result = bench.call(false, Verb::Add, &config, None).result().unwrap();
    assert_eq!(result["ips"][0]["gateway"], "10.1.2.1");
    assert_eq!(
        result["routes"],
        json!([{"dst": "10.9.0.0/16", "gw": "10.1.2.7", "priority": 50},
            {"dst": "10.8.0.0/16", "gw": "0.0.0.0", "priority": 50, "scope": 253},
            {"dst": "10.7.0.0/16", "gw": "10.1.2.1", "priority": 50}])
    );
    let routes = bench.node.sh_at(&bench.pod.place(), "ip route").unwrap();
    for route in
        ["10.9.0.0/16 via 10.1.2.7 dev eth0 ", "10.8.0.0/16 dev eth0 scope link ", "10.7.0.0/16 via 10.1.2.1 dev eth0 "]
    {
        assert!(routes.contains(&format!("{route}metric 50")) && !routes.contains("default"), "{route}: {routes}");
    }
    bench.call(false, Verb::Check, &config, Some(&result)).done().unwrap();
    bench.call(false, Verb::Del, &config, Some(&result)).done().unwrap();
    // Who does not ask for it has the default route.
    let result = bench.call(false, Verb::Add, &bridge(), None).result().unwrap();
    assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": "10.1.2.1"}]));
    bench.call(false, Verb::Del, &bridge(), Some(&result)).done().unwrap();
    // Nor does anything come that is not asked for at all.
    let result = bench.call(false, Verb::Add, &bare(), None).result().unwrap();
    assert!(result["ips"][0]["gateway"].is_null() && result["routes"].is_null(), "{result}");
    assert!(log(&bench.node).contains(" requested options: 1:netmask\n"));
    bench.call(false, Verb::Check, &bare(), Some(&result)).done().unwrap();
    bench.call(false, Verb::Del, &bare(), Some(&result)).done().unwrap();
    given_back(&bench.node, &address(&result));
    bench.nothing_left();
}

#[test]
fn nobody_answers() {
    let mut bench = Bench::new(BRIDGED);
    deadline(&mut bench, 4000);
    let outcome = bench.call(false, Verb::Add, &bridge(), None);
    let error = outcome.error().unwrap();
    assert!(error.text().contains("DHCP") && error.text().contains("eth0"), "{error:?}");
    assert!(outcome.duration < Duration::from_secs(20), "the deadline is no limit: {outcome}");
    assert_eq!(bench.node.sh("find /run/sandwire/journal -type f").unwrap(), "");
    bench.nothing_left();
    bench.call(false, Verb::Del, &bridge(), None).done().unwrap();
    bench.nothing_left();
}

/// What nobody heard is said again.
#[test]
fn a_server_that_comes_late() {
    let bench = Bench::new(BRIDGED);
    let (result, _server) = std::thread::scope(|scope| {
        let add = scope.spawn(|| bench.call(false, Verb::Add, &bridge(), None));
        std::thread::sleep(Duration::from_millis(1200));
        let server = serve(&bench.node, &[]);
        (add.join().unwrap().result().unwrap(), server)
    });
    ping(&bench);
    bench.call(false, Verb::Del, &bridge(), Some(&result)).done().unwrap();
    given_back(&bench.node, &address(&result));
    bench.nothing_left();
}

/// What comes after the lease can't be done: a route by a router that is not there, a gateway where there is another.
#[test]
fn an_add_that_fails_later() {
    let mut with_gateway = bridge();
    with_gateway["isGateway"] = true.into();
    let with_routes = network("bridge", &json!({"request": [{"option": "121"}]}));
    for (config, why) in [(with_routes, "10.77.0.1"), (with_gateway, "10.1.3.1")] {
        let bench = Bench::new(BRIDGED);
        let _server = serve(&bench.node, &["--dhcp-option=121,10.9.0.0/16,10.77.0.1"]);
        bench.node.sh("ip addr add 10.1.3.1/24 dev cni0").unwrap();
        bench.call(false, Verb::Add, &config, None).error().unwrap();
        let log = log(&bench.node);
        let (_, given) = log.split_once(" DHCPACK(wire) ").unwrap_or_else(|| panic!("{why}: {log}"));
        given_back(&bench.node, given.split(' ').next().unwrap());
        assert_eq!(leases(&bench.node).len(), 0, "{why}");
        bench.nothing_left();
    }
}

#[test]
fn the_pod_is_gone() {
    let bench = Bench::new(BRIDGED);
    let _server = serve(&bench.node, &[]);
    bench.call(false, Verb::Add, &bridge(), None).result().unwrap();
    bench.pod.drop_netns(&bench.node).unwrap();
    until(&bench.node, "the veth is gone", || !bench.node.sh("ip -br link").unwrap().contains("\nveth"));
    bench.call(false, Verb::Del, &bridge(), None).done().unwrap();
    bench.nothing_left();
    // Its way was gone, so the server keeps it until its time is over.
    assert_eq!((leases(&bench.node).len(), count(&bench.node, "DHCPRELEASE")), (1, 0));
}

/// The pod's root has made something else of the interface, or nothing.
#[test]
fn what_the_pod_has_made_of_it() {
    let bench = Bench::new(BRIDGED);
    let _server = serve(&bench.node, &[]);
    for script in [
        "ip link set eth0 down",
        "ip link del eth0",
        "ip link set eth0 down; ip link set eth0 name mine",
        "ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:77 up; ip addr flush dev eth0",
        "ip link del eth0; ip link add eth0 type veth peer name eth9; ip link set eth0 up; ip addr add 10.1.2.1/24 dev eth0",
    ] {
        bench.call(false, Verb::Add, &bridge(), None).result().unwrap();
        bench.node.sh_at(&bench.pod.place(), script).unwrap();
        bench.call(false, Verb::Del, &bridge(), None).done().unwrap_or_else(|error| panic!("{script}: {error:#}"));
        bench.node.sh_at(&bench.pod.place(), "ip link del eth0 2>/dev/null || true").unwrap();
        bench.nothing_left();
    }
    // Whatever it was given then, it is the same client.
    bench.call(false, Verb::Add, &bridge(), None).result().unwrap();
    assert_eq!(leases(&bench.node).len(), 1);
    ping(&bench);
}

/// As if the attachment's lease had been given so many seconds earlier.
fn age(node: &Node, seconds: u64) {
    let mut aged = 0;
    for (path, bytes) in node.files("/run/sandwire/journal/networks").unwrap() {
        let mut text = String::new();
        for line in String::from_utf8(bytes).unwrap().lines() {
            let mut line: Value = serde_json::from_str(line).unwrap();
            aged += older(&mut line, seconds);
            text += &format!("{line}\n");
        }
        node.write(path, text).unwrap();
    }
    assert!(aged > 0, "the journal has no lease");
}

/// How many leases it has. What was only offered has the time 0.
fn older(value: &mut Value, seconds: u64) -> usize {
    match value {
        Value::Object(map) => {
            let given = map.get("obtained").and_then(Value::as_u64).filter(|at| *at > 0);
            if let Some(at) = given {
                let then = at.checked_sub(seconds).expect("the machine was started a moment ago");
                map.insert("obtained".into(), then.into());
            }
            usize::from(given.is_some()) + map.values_mut().map(|value| older(value, seconds)).sum::<usize>()
        }
        Value::Array(list) => list.iter_mut().map(|value| older(value, seconds)).sum(),
        _ => 0,
    }
}

/// What `sandwirectl repair` says.
fn repair(node: &Node, args: &[&str]) -> Vec<Value> {
    let text = ctl_status(node, &[&["repair", "--json"], args].concat()).1;
    // Warnings may follow.
    let first = serde_json::Deserializer::from_str(&text).into_iter().next();
    first.and_then(Result::ok).unwrap_or_else(|| panic!("{text}"))
}

/// The one thing that it says is about the lease of the bench's pod: its kind, its remedy and its text.
fn about_the_lease(node: &Node, args: &[&str], result: &Value) -> [String; 3] {
    let found = repair(node, args);
    let [finding] = found.as_slice() else { panic!("{found:?}") };
    let whose = ["network", "container_id", "interface", "address"].map(|key| finding[key].as_str().unwrap());
    assert_eq!(whose, ["mynet", "pod-a", "eth0", &address(result)]);
    ["kind", "remedy", "text"].map(|key| finding[key].as_str().unwrap().to_owned())
}

#[test]
fn repair_renews_what_is_half_over() {
    let bench = Bench::new(BRIDGED);
    let _server = serve(&bench.node, &[]);
    let result = bench.call(false, Verb::Add, &bridge(), None).result().unwrap();
    let said = || ["DHCPDISCOVER", "DHCPREQUEST", "DHCPACK"].map(|kind| count(&bench.node, kind));
    let before = said();
    age(&bench.node, 50);
    assert_eq!(repair(&bench.node, &[]), Vec::<Value>::new());
    age(&bench.node, 20);
    assert_eq!(about_the_lease(&bench.node, &["--dry-run"], &result)[..2], ["due-lease", "would-mend"]);
    assert_eq!(said(), before);
    assert_eq!(about_the_lease(&bench.node, &[], &result)[..2], ["due-lease", "mended"]);
    let after = said();
    assert!(after[0] == before[0] && after[1] > before[1] && after[2] > before[2], "{}", log(&bench.node));
    // From now on.
    assert_eq!(repair(&bench.node, &[]), Vec::<Value>::new());
    age(&bench.node, 50);
    assert_eq!(repair(&bench.node, &[]), Vec::<Value>::new());
    bench.call(false, Verb::Check, &bridge(), Some(&result)).done().unwrap();
    ping(&bench);
    bench.call(false, Verb::Del, &bridge(), Some(&result)).done().unwrap();
    given_back(&bench.node, &address(&result));
    bench.nothing_left();
}

/// The one that gave it does not answer any more, another one has its leases: it is asked when there is little time left.
#[test]
fn another_server_has_taken_over() {
    let bench = Bench::new(BRIDGED);
    let server = serve(&bench.node, &[]);
    let result = bench.call(false, Verb::Add, &bridge(), None).result().unwrap();
    drop(server);
    bench.node.sh("ip -n outside addr flush dev wire; ip -n outside addr add 10.1.2.2/24 dev wire").unwrap();
    let _server = serve(&bench.node, &["--dhcp-option=3,10.1.2.1"]);
    age(&bench.node, 110);
    assert_eq!(about_the_lease(&bench.node, &[], &result)[..2], ["due-lease", "mended"]);
    assert!(count(&bench.node, "DHCPACK") > 0, "{}", log(&bench.node));
    bench.call(false, Verb::Check, &bridge(), Some(&result)).done().unwrap();
    // And it is the one that gets it back.
    bench.call(false, Verb::Del, &bridge(), Some(&result)).done().unwrap();
    given_back(&bench.node, &address(&result));
    bench.node.sh("ip -n outside addr flush dev wire; ip -n outside addr add 10.1.2.1/24 dev wire").unwrap();
    bench.nothing_left();
}

/// Its time is over, or the server says that it is: somebody else may have the address by now.
#[test]
fn a_lease_that_is_lost() {
    for taken in [false, true] {
        let bench = Bench::new(BRIDGED);
        let server = serve(&bench.node, &[]);
        let result = bench.call(false, Verb::Add, &bridge(), None).result().unwrap();
        let check = || bench.call(false, Verb::Check, &bridge(), Some(&result));
        let up = || bench.node.sh_at(&bench.pod.place(), "ip -br link show up dev eth0").unwrap();
        check().done().unwrap();
        drop(server);
        let other = "02:00:00:00:00:99";
        let _server = taken.then(|| {
            bench.node.sh(&format!("sed -i 's/ [^ ]* / {other} /; s/ [^ ]*$/ 00:99/' /run/dnsmasq/leases")).unwrap();
            serve(&bench.node, &[])
        });
        age(&bench.node, if taken { 70 } else { 121 });
        if !taken {
            let error = check().error().unwrap();
            assert!(error.text().contains("has no lease any more"), "{error:?}");
        }
        about_the_lease(&bench.node, &["--dry-run"], &result);
        assert_ne!(up(), "");
        let [kind, remedy, text] = about_the_lease(&bench.node, &[], &result);
        assert_eq!([&kind, &remedy], ["expired-lease", "left"], "{text}");
        assert!(text.contains("set down") && text.contains("refuses") == taken, "{text}");
        assert_eq!((up().as_str(), count(&bench.node, "DHCPNAK") > 0), ("", taken), "{}", log(&bench.node));
        let error = check().error().unwrap();
        assert!(error.text().contains("has no lease any more"), "{error:?}");
        // There is no way back but a new attachment.
        repair(&bench.node, &[]);
        assert_eq!(up(), "");
        bench.call(false, Verb::Del, &bridge(), Some(&result)).done().unwrap();
        bench.nothing_left();
        // Whose it is now keeps it.
        assert!(
            !taken
                || matches!(leases(&bench.node).as_slice(), [[mac, given, ..]] if mac == other && *given == address(&result))
        );
    }
}

/// Whoever renews it came too late, and nobody has got the address meanwhile.
#[test]
fn a_lease_that_is_found_again() {
    let bench = Bench::new(BRIDGED);
    let _server = serve(&bench.node, &[]);
    let result = bench.call(false, Verb::Add, &bridge(), None).result().unwrap();
    age(&bench.node, 121);
    bench.call(false, Verb::Check, &bridge(), Some(&result)).error().unwrap();
    assert_eq!(about_the_lease(&bench.node, &[], &result)[..2], ["due-lease", "mended"]);
    bench.call(false, Verb::Check, &bridge(), Some(&result)).done().unwrap();
    ping(&bench);
    bench.call(false, Verb::Del, &bridge(), Some(&result)).done().unwrap();
    given_back(&bench.node, &address(&result));
    bench.nothing_left();
}

/// An interface that the address manager's own call does not make, and one that goes back to the node.
#[test]
fn other_interfaces() {
    for plugin in ["macvlan", "host-device"] {
        let bench = Bench::new(DIRECT);
        let _server = serve(&bench.node, &[]);
        let config = network(plugin, &json!({}));
        let result = bench.call(false, Verb::Add, &config, None).result().unwrap();
        assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": "10.1.2.1"}]), "{plugin}");
        ping(&bench);
        bench.call(false, Verb::Check, &config, Some(&result)).done().unwrap();
        bench.call(false, Verb::Del, &config, Some(&result)).done().unwrap();
        given_back(&bench.node, &address(&result));
        // It comes back down, as the reference leaves it.
        bench.node.sh("ip link set eth7 up").unwrap();
        bench.nothing_left();
        bench.call(false, Verb::Del, &config, None).done().unwrap();
    }
}

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
