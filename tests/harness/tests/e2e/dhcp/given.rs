//! What is asked, what is given, and who gives it back.

use super::renewed::{age, repair};
use super::*;
use sandwire_harness::{Verb, cases};

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
    // Said to the server and to all, once: the second DEL has nothing to give back.
    assert!(count(&bench.node, "DHCPRELEASE") <= 2, "{}", log(&bench.node));
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

/// Two of them have one hardware address, and neither hears what is sent to an address that it does not have yet. Runs in the virtual
/// machine too (`tests/vm`), whose kernel has them.
#[test]
fn on_ipvlans() {
    let bench = Bench::new(DIRECT);
    let _server = serve(&bench.node, &[]);
    let config = network("ipvlan", &json!({}));
    let added = bench.call(false, Verb::Add, &config, None);
    if cases::kernel_lacks("ipvlan").unwrap() {
        let error = added.error().unwrap();
        assert!(error.text().contains("ipvlan"), "{error:?}");
        bench.nothing_left();
        return;
    }
    let result = added.result().unwrap();
    let other = bench.node.pod("b").unwrap();
    let second = bench.node.cni("ipvlan", Verb::Add, &other, "eth0", &config).unwrap().result().unwrap();
    assert_ne!(address(&second), address(&result));
    let given = leases(&bench.node);
    assert!(given.len() == 2 && given[0][0] == given[1][0], "{given:?}");
    ping(&bench);
    age(&bench.node, 70);
    assert_eq!(repair(&bench.node, &[]).len(), 2);
    assert_eq!(repair(&bench.node, &[]), Vec::<Value>::new());
    bench.call(false, Verb::Check, &config, Some(&result)).done().unwrap();
    for (pod, result) in [(&bench.pod, &result), (&other, &second)] {
        bench.node.cni("ipvlan", Verb::Del, pod, "eth0", &config).unwrap().done().unwrap();
        given_back(&bench.node, &address(result));
    }
}
