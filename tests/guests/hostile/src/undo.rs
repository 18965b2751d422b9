//! An attachment that is begun with everything there is, and then not finished.

use crate::{Act, NOTHING, succeeded, text};
use sandwire_plugin::Failure;
use sandwire_plugin::bindings::imports::sandwire::cni::configure;
use sandwire_plugin::host::{
    self,
    addresses::Address,
    delegate, endpoint, firewall, kv, leases, links,
    links::{Changes, Device},
    routes,
    routes::Route,
    sysctl,
};
use serde_json::Value;
use std::hint::black_box;

pub(crate) const ACTS: &[(&str, Act)] = &[("half-made", half_made), ("make-outside-add", make_outside_add)];

/// Whether a part is to be done: a kernel or a release may lack one.
fn wants(config: &Value, part: &str) -> bool {
    config.get("parts").and_then(Value::as_array).is_some_and(|parts| parts.iter().any(|p| p == part))
}

/// A veth, addresses, routes on both sides, a sysctl of the loopback that was there before, a lease, a delegate's lease,
/// rules, notes, a call to the agent; then the end that `"then"` names.
#[allow(clippy::panic, reason = "a panic is one of the ends")]
fn half_made(config: &Value) -> Result<String, Failure> {
    let (node, container) = (host::netns(), host::require_container()?);
    let store = leases::open(None)?;
    let leased =
        store.reserve_next(0, &[leases::Range { first: "10.9.0.10".into(), last: "10.9.0.20".into() }], &[])?;
    if wants(config, "delegate") {
        delegate::add("host-local", &config.to_string(), &[])?;
    }
    kv::set(kv::Scope::Attachment, "begun", "yes")?;
    let (outside, inside) = links::create_veth(&Device::new(&node).up(), &Device::new(&container).named("eth0"))?;
    links::create_veth(&Device::new(&node).named("extra0").up(), &Device::new(&node).named("extra1"))?;
    let addresses = [Address::new(format!("{leased}/24")).no_dad()];
    configure::apply(&inside, &addresses, &[Route::new("0.0.0.0/0").via("10.9.0.1")])?;
    routes::add(&outside, &Route::new(format!("{leased}/32")))?;
    // The loopback was there before: its changes are restored one by one.
    let lo = container.link("lo")?;
    configure::apply(&lo, &[Address::new("10.9.9.9/32")], &[])?;
    links::change(&lo, &Changes { mtu: Some(1400), ..Changes::default() })?;
    sysctl::write(&container, "ipv4/conf/lo/arp_notify", "1")?;
    if wants(config, "firewall") {
        let rules = firewall::open(&node, "masquerade")?;
        rules.masquerade(&leased, &["10.9.0.0/24".into()]);
        rules.spoof_check(&outside, "0a:58:0a:09:00:0a");
        rules.commit()?;
    }
    if wants(config, "agent") {
        let body = serde_json::json!({"vpn_instance_id": "hostile1", "vpn_type": "evpn", "local_port": {"linuxif": outside.info()?.name},
            "import_rt": ["64512:1"], "export_rt": ["64512:1"], "mac_address": "0a:58:0a:09:00:0a", "ip_address": leased});
        let undo = endpoint::Call::new("POST", "/detach_localport").json(&body).as_undo(&[404]);
        let reply =
            endpoint::send("agent", &endpoint::Call::new("POST", "/attach_localport").json(&body), Some(&undo))?;
        if reply.status != 200 {
            return Err(Failure::internal(format!("the agent answered {}: {}", reply.status, reply.body)));
        }
    }
    if wants(config, "routes") {
        // They were there before: one is replaced, the others are removed, what they lead to last.
        routes::replace(&lo, &Route::new("10.7.1.0/24").via("10.7.0.9"))?;
        routes::remove(&lo, &Route::new("10.7.2.0/24"))?;
        routes::remove(&lo, &Route::new("10.7.0.0/24"))?;
        let rule = routes::Rule {
            src: Some(format!("{leased}/32")),
            dst: None,
            table: routes::reserve_table(&container, 100)?,
            priority: None,
            extra: Vec::new(),
        };
        routes::add_rule(&container, &rule)?;
    }
    match text(config, "then") {
        "fail" => Err(Failure::new(206, "gave up")),
        "panic" => panic!("on purpose"),
        "trap" => {
            let zero = black_box(0_u32);
            Ok(format!("{}", black_box(1_u32).div_euclid(zero)))
        }
        "spin" => loop {
            black_box(config);
        },
        "garbage" => Ok("{".to_owned()),
        _ => Ok(NOTHING.to_owned()),
    }
}

/// DEL, GC: what is made there no later call takes back.
fn make_outside_add(_: &Value) -> Result<String, Failure> {
    let node = host::netns();
    let mut stopped = Vec::new();
    let mut tried = |what: &str, refused: bool| {
        if !refused {
            stopped.push(what.to_owned());
        }
    };
    let pair = links::create_veth(&Device::new(&node).named("left3"), &Device::new(&node).named("left4"));
    tried("a link", pair.is_err());
    if let Some(container) = host::container() {
        let pair = links::create_veth(&Device::new(&node), &Device::new(&container).named("left1"));
        tried("a veth", pair.is_err());
        if let Ok(lo) = container.link("lo") {
            tried("an address", configure::apply(&lo, &[Address::new("10.9.9.8/32")], &[]).is_err());
            tried("a route", routes::add(&lo, &Route::new("10.9.9.7/32")).is_err());
        }
    }
    if let Ok(store) = leases::open(None) {
        tried("a lease", store.reserve(0, "10.9.0.99").is_err());
    }
    tried("a bridge", host::shared::ensure_bridge(&Device::new(&node).named("left2"), false).is_err());
    let undo = endpoint::Call::new("POST", "/detach_localport").as_undo(&[]);
    let call = endpoint::Call::new("POST", "/attach_localport");
    tried("a call to be undone", endpoint::send("agent", &call, Some(&undo)).is_err());
    if stopped.is_empty() { Ok(NOTHING.to_owned()) } else { succeeded(&stopped.join(", ")) }
}
