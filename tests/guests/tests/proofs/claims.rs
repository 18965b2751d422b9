//! What a plugin says of itself counts for nothing: which addresses, ports and configurations are the attachment's, the runtime
//! and the address manager say.

use sandwire_guests::Bench;
use sandwire_harness::Verb;
use serde_json::json;

/// What somebody trusted has said before.
fn earlier() -> serde_json::Value {
    json!({"cniVersion": "1.1.0", "interfaces": [{"name": "eth0"}], "ips": [{"address": "10.9.0.5/24", "gateway": "10.9.0.1"}]})
}

#[test]
fn addresses_that_nobody_gave() {
    let bench = Bench::new("hostile", "delegates = [\"hostile\"]", "").unwrap();
    let error = bench.stopped("claim", &json!({"address": "10.96.0.1/32"}), 110, "did not give it").unwrap();
    assert!(error.details.contains("own_addresses = true"), "{error:?}");
    // What was given before may be said again.
    let config = bench.config("claim", &json!({"address": "10.9.0.5/24", "prevResult": earlier()}));
    bench.call(Verb::Add, &config).unwrap().result().unwrap();

    // A port that leads to it would lead to the node's own services.
    bench.stopped("claim", &json!({"address": "127.0.0.1/8"}), 110, "did not give it").unwrap();
    // With another prefix or gateway it is another network's.
    for claim in [json!({"address": "10.9.0.5/8"}), json!({"address": "10.9.0.5/24", "gateway": "10.9.0.66"})] {
        let mut claim = claim;
        claim["prevResult"] = earlier();
        bench.stopped("claim", &claim, 110, "did not give it").unwrap();
    }
    let address = json!({"address": "10.96.0.1/32"});
    bench.stopped("claim-by-delegate", &address, 110, "with a configuration of its own").unwrap();
    // A plugin that writes its delegates' configurations holds what their address managers give, and nobody else's word.
    let entry = "delegates = [\"hostile\"]\nown_addresses = true";
    let meta = Bench::new("hostile", entry, "").unwrap();
    meta.stopped("claim-by-delegate", &address, 110, "does not hold that address").unwrap();
    let config = meta.config("claim", &json!({"address": "10.96.0.1/32"}));
    meta.call(Verb::Add, &config).unwrap().result().unwrap();
}

#[test]
fn another_configuration_for_the_address_manager() {
    let ipam = json!({"ipam": {"type": "host-local", "subnet": "10.8.0.0/24"}});
    let bench = Bench::new("hostile", "delegates = [\"*\"]", "").unwrap();
    let error = bench.stopped("another-configuration", &ipam, 110, "with a configuration of its own").unwrap();
    assert!(error.details.contains("own_addresses = true"), "{error:?}");
    // A pattern is for address managers: the configuration names none here.
    bench.stopped("delegate", &json!({"plugin": "macvlan"}), 110, "may not run plugin \"macvlan\"").unwrap();
    // As it is, it may be handed on.
    let same = json!({"plugin": "host-local", "ipam": ipam["ipam"]});
    bench.act("delegate", &same).unwrap().error_with(201, "ran it").unwrap();
}

/// What the address manager gets is the host's text, however the guest's is read.
#[test]
fn equal_keys_in_a_delegates_configuration() {
    let bench = Bench::new("hostile", "delegates = [\"*\"]", "").unwrap();
    let ipam = json!({"ipam": {"type": "host-local", "subnet": "10.8.0.0/24"}});
    let result = bench.act("equal-keys", &ipam).unwrap().result().unwrap();
    let addresses: Vec<&str> =
        result["ips"].as_array().unwrap().iter().map(|ip| ip["address"].as_str().unwrap()).collect();
    assert_eq!(addresses, ["10.8.0.2/24"]);
    assert_eq!(bench.node.sh("ls /run/cni-evil 2>/dev/null || echo nothing").unwrap().trim(), "nothing");
}

#[test]
fn addresses_that_were_given_back() {
    let bench = Bench::new("hostile", "delegates = [\"*\"]", "").unwrap();
    let ipam = json!({"ipam": {"type": "host-local", "subnet": "10.8.0.0/24"}});
    bench.act("given-back", &ipam).unwrap().error_with(110, "did not give it").unwrap();
    let bench = Bench::new("hostile", "delegates = [\"*\"]", "").unwrap();
    let error = bench.act("given-back-with-its-route", &ipam).unwrap().error_with(110, "gave an address back").unwrap();
    assert_eq!(bench.node.sh("ip route show 10.8.0.2").unwrap(), "", "{error:?}");
}

/// A component that imports nothing is no address manager for that: the configuration names it, or it is none.
#[test]
fn a_claim_without_a_namespace() {
    let bench = Bench::new("hostile", "", "").unwrap();
    let call = |kind: &str| {
        let addresses = json!([{"address": "10.96.0.1/32"}]);
        let config = json!({"cniVersion": "1.0.0", "name": "net", "type": "static", "ipam": {"type": kind, "addresses": addresses}});
        bench.node.cni("static", Verb::Add, &bench.pod, "eth0", &config).unwrap()
    };
    call("other").error_with(110, "did not give it").unwrap();
    call("static").result().unwrap();
}

/// What runs native plugins is root, and takes no word of the guest's for what belongs to the call.
#[test]
fn native_plugins_beside_the_one_that_is_named() {
    let entry = "delegates = [\"*\", \"native2\"]\nnative_delegates = [\"*\"]";
    let mut bench = Bench::new("hostile", entry, "").unwrap();
    let script = "for n in 1 2; do printf '#!/bin/sh\\necho ran >>/run/native.log\\n' >/opt/cni/bin/native$n; chmod 755 /opt/cni/bin/native$n; done; touch /run/native.log";
    bench.node.sh(script).unwrap();
    bench.look().unwrap();
    let ipam = json!({"type": "native1"});
    let other = json!({"plugin": "native2", "ipam": ipam});
    bench.stopped("delegate", &other, 999, "only the one that \"ipam\" names").unwrap();
    let verb = json!({"plugin": "native1", "ipam": ipam, "cni.dev/valid-attachments": []});
    bench.stopped("delegate-verb", &verb, 999, "GC does not belong to this call").unwrap();
    assert_eq!(bench.node.read("/run/native.log").unwrap().as_deref(), Some(&b""[..]));
}

#[test]
fn gateways_of_bridges() {
    let mut bench = Bench::new("hostile", "links = { change = [\"*\"] }", "").unwrap();
    bench.node.sh("ip link add cni0 up type bridge; ip addr add 10.9.0.254/24 dev cni0").unwrap();
    bench.look().unwrap();
    for address in ["10.96.0.1/12", "10.9.0.1/8", "10.9.0.5/24", "10.9.0.254/24"] {
        let config = json!({"address": address, "prevResult": earlier()});
        bench.stopped("gateway-of-a-bridge", &config, 110, "no gateway").unwrap();
    }
    let mut force = json!({"address": "10.9.0.1/24", "force": true, "prevResult": earlier()});
    bench.stopped("gateway-of-a-bridge", &force, 110, "does not say \"forceAddress\"").unwrap();
    force["forceAddress"] = true.into();
    bench.act("gateway-of-a-bridge", &force).unwrap().error_with(201, "an address of the bridge").unwrap();
}

#[test]
fn sysctls_are_not_switched_off() {
    let entry = |more: &str| {
        format!("links = {{ change = [\"*\"] }}\nsysctls = [\"ipv4/conf/*/route_localnet\", \"ipv4/ip_forward\"{more}]")
    };
    let mut bench = Bench::new("hostile", &entry(""), "").unwrap();
    bench.node.sh("sysctl -qw net.ipv4.ip_forward=1").unwrap();
    bench.look().unwrap();
    let forwarding = json!({"key": "ipv4/ip_forward"});
    let error = bench.stopped("switch-off", &forwarding, 110, "set sysctl ipv4/ip_forward=0").unwrap();
    assert!(error.text().contains("\"ipv4/ip_forward=0\""), "{error:?}");
    // Of all links at once: a pattern is not meant to be that.
    let all = json!({"place": "host", "key": "ipv4/conf/all/route_localnet"});
    bench.stopped("ensure-sysctl", &all, 110, "set sysctl").unwrap();
    let wide = Bench::new("hostile", &entry(", \"ipv4/ip_forward=0\""), "").unwrap();
    wide.act("switch-off", &forwarding).unwrap().error_with(201, "switched it off").unwrap();
}

#[test]
fn ports_of_the_node() {
    let bench = Bench::new("hostile", "", "").unwrap();
    let mappings = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
    for port in [22, 443, 6443, 10250] {
        let config = json!({"port": port, "to": "10.9.0.5", "prevResult": earlier(), "runtimeConfig": mappings});
        bench.stopped("forward-port", &config, 110, "the runtime does not map it").unwrap();
    }
    let other = json!({"port": 8080, "to": "10.9.0.6", "prevResult": earlier(), "runtimeConfig": mappings});
    bench.stopped("forward-port", &other, 110, "does not hold that address").unwrap();
    bench.stopped("forget-port", &json!({"runtimeConfig": mappings}), 110, "none that the runtime maps").unwrap();
}

/// "*" is the bridge of the configuration, and few are made.
#[test]
fn bridges_of_others() {
    let mut bench = Bench::new("hostile", "links = { change = [\"*\"] }", "").unwrap();
    bench.node.sh("ip link add br-other up type bridge; ip link add cni0 up type bridge").unwrap();
    bench.look().unwrap();
    let other = json!({"link": "br-other"});
    bench.stopped("ensure-bridge", &other, 110, "make or use bridge \"br-other\"").unwrap();
    bench.stopped("enslave-to", &other, 110, "links.use").unwrap();
    let named = json!({"link": "br-other", "bridge": "br-other"});
    bench.act("ensure-bridge", &named).unwrap().error_with(201, "made sure of it").unwrap();
    let many = Bench::new("hostile", "links = { change = [\"flood*\"] }", "").unwrap();
    many.act("flood-bridges", &json!({})).unwrap().error_with(11, "4 shared links").unwrap();
    assert_eq!(many.node.sh("ip -br link show type bridge | wc -l").unwrap().trim(), "4");
}

/// The uplink of a node is no bridge: a macvlan on it would get its traffic.
#[test]
fn an_uplink_is_nothing_to_ride_on() {
    let mut bench = Bench::new("hostile", "links = { change = [\"*\"] }", "").unwrap();
    bench.node.sh("ip link add eth9 type veth peer name eth9peer; ip link set eth9 up").unwrap();
    bench.look().unwrap();
    bench.stopped("ride-on", &json!({"link": "eth9"}), 110, "links.use").unwrap();
}

/// DEL moves back what was moved, by its number too.
#[test]
fn a_name_that_became_another_links() {
    let bench = Bench::new("hostile", "", "").unwrap();
    let act = json!({"link": "wg0"});
    bench.act("give-a-name-free", &act).unwrap().result().unwrap();
    bench.node.sh("ip link add wg0 type bridge").unwrap();
    bench.call(Verb::Del, &bench.config("give-a-name-free", &act)).unwrap().done().unwrap();
    bench.node.sh("ip link show wg0 >/dev/null && ip link del wg0").unwrap();
    bench.node.snapshot().unwrap().assert_same_attachments(&bench.before).unwrap();
}
