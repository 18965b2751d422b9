//! Beyond its own attachment: other pods' links, the node's settings, routes, rules, files, agents, plugins.

use crate::{Act, NOTHING, succeeded, text};
use sandwire_plugin::bindings::imports::sandwire::cni::configure;
use sandwire_plugin::host::{
    self, addresses,
    addresses::Address,
    delegate, devices, endpoint, files, firewall, leases, links,
    links::{Changes, Device},
    namespaces::{Link, Netns},
    routes,
    routes::Route,
    shared, sysctl,
};
use sandwire_plugin::{Attachment, Failure};
use serde_json::Value;

pub(crate) const ACTS: &[(&str, Act)] = &[
    ("host-link", host_link),
    ("list-links", list_links),
    ("change-link", change_link),
    ("rename-link", rename_link),
    ("remove-link", remove_link),
    ("ride-on", ride_on),
    ("enslave-to", enslave_to),
    ("write-sysctl", write_sysctl),
    ("ensure-sysctl", ensure_sysctl),
    ("ensure-bridge", ensure_bridge),
    ("ensure-address", ensure_address),
    ("masquerade", masquerade),
    ("host-route", host_route),
    ("host-route-batch", host_route_batch),
    ("host-address", host_address),
    ("host-peer-address", host_peer_address),
    ("data-dir", data_dir),
    ("read-file", read_file),
    ("own-file", own_file),
    ("remove-own-file", remove_own_file),
    ("call", call),
    ("call-undo", call_undo),
    ("delegate", run_delegate),
    ("delegate-itself", delegate_itself),
    ("retain", retain),
    ("bad-names", bad_names),
    ("add-rule", add_rule),
    ("remove-rule", remove_rule),
    ("reserve-table", reserve_table),
    ("make-tap", make_tap),
    ("take", take),
    ("take-and-remove", take_and_remove),
    ("take-and-lose", take_and_lose),
    ("take-and-rename", take_and_rename),
    ("take-and-give-back", take_and_give_back),
    ("take-and-forget", take_and_forget),
    ("take-the-other-end", take_the_other_end),
    ("find-device", find_device),
    ("driver", driver),
];

fn place(config: &Value) -> Result<Netns, Failure> {
    match text(config, "place") {
        "host" => Ok(host::netns()),
        _ => host::require_container(),
    }
}

fn named(config: &Value) -> Result<Link, Failure> {
    Ok(place(config)?.link(text(config, "link"))?)
}

/// The node's end of a veth of this attachment.
fn own_host_end() -> Result<Link, Failure> {
    let container = host::require_container()?;
    let node = host::netns();
    let (outside, _) = links::create_veth(&Device::new(&node).up(), &Device::new(&container).named("eth0"))?;
    Ok(outside)
}

fn host_link(config: &Value) -> Result<String, Failure> {
    let info = host::netns().link(text(config, "link"))?.info()?;
    succeeded(&format!("saw {}", info.name))
}

fn list_links(config: &Value) -> Result<String, Failure> {
    let seen: Vec<String> = place(config)?.links()?.into_iter().map(|info| info.name).collect();
    Err(Failure::new(203, seen.join(" ")))
}

fn change_link(config: &Value) -> Result<String, Failure> {
    links::change(&named(config)?, &Changes::up(false))?;
    succeeded("changed it")
}

fn rename_link(config: &Value) -> Result<String, Failure> {
    links::move_to(&named(config)?, &place(config)?, "renamed")?;
    succeeded("renamed it")
}

fn remove_link(config: &Value) -> Result<String, Failure> {
    links::remove(&named(config)?)?;
    succeeded("removed it")
}

fn ride_on(config: &Value) -> Result<String, Failure> {
    let parent = host::netns().link(text(config, "link"))?;
    links::create_macvlan(&Device::new(&host::netns()).named("rider"), &parent, links::MacvlanMode::Bridge)?;
    succeeded("a macvlan on it")
}

fn enslave_to(config: &Value) -> Result<String, Failure> {
    let master = host::netns().link(text(config, "link"))?;
    links::set_master(&own_host_end()?, Some(&master))?;
    succeeded("a port of it")
}

fn write_sysctl(config: &Value) -> Result<String, Failure> {
    sysctl::write(&place(config)?, text(config, "key"), "1")?;
    succeeded("wrote it")
}

fn ensure_sysctl(config: &Value) -> Result<String, Failure> {
    shared::ensure_sysctl(&place(config)?, text(config, "key"), "1")?;
    succeeded("made sure of it")
}

fn ensure_bridge(config: &Value) -> Result<String, Failure> {
    let node = host::netns();
    let device = Device::new(&node).up();
    let name = text(config, "link");
    shared::ensure_bridge(&if name.is_empty() { device } else { device.named(name) }, false)?;
    succeeded("made sure of it")
}

fn ensure_address(config: &Value) -> Result<String, Failure> {
    shared::ensure_address(&named(config)?, &Address::new(text(config, "address")), true)?;
    succeeded("gave it an address")
}

fn masquerade(config: &Value) -> Result<String, Failure> {
    let rules = firewall::open(&host::netns(), "masquerade")?;
    rules.masquerade(text(config, "address"), &[]);
    rules.commit()?;
    succeeded("masqueraded")
}

fn host_route(config: &Value) -> Result<String, Failure> {
    routes::add(&own_host_end()?, &Route::new(text(config, "address")))?;
    succeeded("a route of the node")
}

fn host_route_batch(config: &Value) -> Result<String, Failure> {
    configure::apply(&own_host_end()?, &[], &[Route::new(text(config, "address"))])?;
    succeeded("a route of the node")
}

/// An address with a prefix is a route, and a single one makes its traffic the node's own.
fn host_address(config: &Value) -> Result<String, Failure> {
    let address = Address::new(text(config, "address"));
    match text(config, "how") {
        "configure" => configure::apply(&own_host_end()?, &[address], &[])?,
        _ => addresses::add(&own_host_end()?, &address)?,
    }
    succeeded("an address of the node")
}

fn host_peer_address(config: &Value) -> Result<String, Failure> {
    let mut address = Address::new("192.0.2.1/32");
    address.extra.push(("peer".into(), text(config, "address").into()));
    addresses::add(&own_host_end()?, &address)?;
    succeeded("a peer's route")
}

fn data_dir(config: &Value) -> Result<String, Failure> {
    let store = leases::open(Some(text(config, "dir")))?;
    store.reserve(0, "10.9.0.9")?;
    succeeded("kept a lease there")
}

fn read_file(config: &Value) -> Result<String, Failure> {
    let found = files::read(text(config, "file"))?;
    succeeded(&format!("read {} bytes", found.len()))
}

fn own_file(config: &Value) -> Result<String, Failure> {
    let found = files::read_own(text(config, "dir"), text(config, "suffix"))?;
    succeeded(&format!("read {} bytes", found.len()))
}

fn remove_own_file(config: &Value) -> Result<String, Failure> {
    files::remove_own(text(config, "dir"), text(config, "suffix"))?;
    succeeded("removed it")
}

fn request(config: &Value) -> endpoint::Call {
    let mut call = endpoint::Call::new(text(config, "method"), text(config, "path"));
    for (key, value) in config.get("headers").and_then(Value::as_object).into_iter().flatten() {
        call = call.header(key, value.as_str().unwrap_or_default());
    }
    call.body = text(config, "body").to_owned();
    call
}

fn call(config: &Value) -> Result<String, Failure> {
    let reply = endpoint::send(text(config, "endpoint"), &request(config), None)?;
    Err(Failure::new(204, format!("answered {}", reply.status)))
}

fn call_undo(config: &Value) -> Result<String, Failure> {
    let allowed = endpoint::Call::new("GET", "/ping");
    endpoint::send(text(config, "endpoint"), &allowed, Some(&request(config).as_undo(&[])))?;
    succeeded("an undo that policy does not allow")
}

/// With the configuration as it is, or with another network's name.
fn run_delegate(config: &Value) -> Result<String, Failure> {
    let mut config = config.clone();
    let plugin = text(&config, "plugin").to_owned();
    if let (Some(name), Some(object)) = (config.get("as").cloned(), config.as_object_mut()) {
        object.insert("name".into(), name);
    }
    delegate::add(&plugin, &config.to_string(), &[])?;
    succeeded("ran it")
}

fn delegate_itself(config: &Value) -> Result<String, Failure> {
    delegate::add("hostile", &config.to_string(), &[])
}

/// GC: nobody is to keep anything.
fn retain(_: &Value) -> Result<String, Failure> {
    let store = leases::open(None)?;
    let released = store.retain(&[])?;
    let stranger = Attachment { container_id: "nobody".into(), ifname: "eth0".into() };
    let more = store.retain(&[stranger])?;
    if released.is_empty() && more.is_empty() { Ok(NOTHING.to_owned()) } else { succeeded("released leases in use") }
}

/// Names that would be paths, options or other families' in whatever reads them next.
fn bad_names(_: &Value) -> Result<String, Failure> {
    let (node, container) = (host::netns(), host::require_container()?);
    let names = ["", ".", "..", "a/b", "../eth0", "sixteen-bytes-ab", "a b", "a\0b", "a:b", "a\nb"];
    for name in names {
        if container.link(name).is_ok() || links::create_dummy(&Device::new(&node).named(name)).is_ok() {
            return succeeded(&format!("{name:?}"));
        }
    }
    for address in ["", "10.0.0.1", "10.0.0.1/33", "10.0.0.1/-1", "::/129", "10.0.0.1/24\n", "10.0.0.256/24"] {
        let lo = container.link("lo")?;
        if addresses::add(&lo, &Address::new(address)).is_ok() {
            return succeeded(&format!("{address:?}"));
        }
    }
    Err(Failure::new(205, "all refused"))
}

/// From a source, to a table.
fn rule(config: &Value) -> routes::Rule {
    let table = config.get("table").and_then(Value::as_u64).and_then(|table| u32::try_from(table).ok());
    let src = Some(text(config, "from").into());
    routes::Rule { src, dst: None, table: table.unwrap_or(100), priority: None, extra: Vec::new() }
}

fn add_rule(config: &Value) -> Result<String, Failure> {
    routes::add_rule(&place(config)?, &rule(config))?;
    succeeded("add-rule")
}

fn remove_rule(config: &Value) -> Result<String, Failure> {
    routes::remove_rule(&place(config)?, &rule(config))?;
    succeeded("remove-rule")
}

fn reserve_table(config: &Value) -> Result<String, Failure> {
    routes::reserve_table(&place(config)?, 100)?;
    succeeded("reserve-table")
}

fn make_tap(config: &Value) -> Result<String, Failure> {
    links::create_tap(&Device::new(&place(config)?).named("tap0"), &[])?;
    succeeded("make-tap")
}

/// Takes a link of the node into the container, under the name `as`.
fn taken(config: &Value) -> Result<Link, Failure> {
    let link = host::netns().link(text(config, "link"))?;
    links::move_to(&link, &host::require_container()?, text(config, "as"))?;
    Ok(link)
}

fn take(config: &Value) -> Result<String, Failure> {
    links::change(&taken(config)?, &Changes::up(true))?;
    succeeded("take")
}

fn take_and_remove(config: &Value) -> Result<String, Failure> {
    links::remove(&taken(config)?)?;
    succeeded("remove")
}

fn take_and_lose(config: &Value) -> Result<String, Failure> {
    links::move_to(&taken(config)?, &host::netns(), "lost0")?;
    succeeded("lose")
}

fn take_and_rename(config: &Value) -> Result<String, Failure> {
    links::move_to(&taken(config)?, &host::require_container()?, "mine0")?;
    succeeded("rename")
}

fn take_and_give_back(config: &Value) -> Result<String, Failure> {
    let link = taken(config)?;
    links::change(&link, &Changes { mtu: Some(1300), ..Changes::default() })?;
    links::move_to(&link, &host::netns(), text(config, "link"))?;
    succeeded("give back")
}

/// The alias is what another implementation goes by.
fn take_and_forget(config: &Value) -> Result<String, Failure> {
    links::change(&taken(config)?, &Changes { extra: vec![("alias".into(), "other0".into())], ..Changes::default() })?;
    succeeded("forget")
}

fn take_the_other_end(config: &Value) -> Result<String, Failure> {
    links::remove(&taken(config)?.peer()?)?;
    succeeded("remove")
}

fn find_device(config: &Value) -> Result<String, Failure> {
    let info = devices::find(&place(config)?, text(config, "id"))?.info()?;
    succeeded(&format!("found {}", info.name))
}

fn driver(config: &Value) -> Result<String, Failure> {
    succeeded(&devices::driver(text(config, "id"))?)
}
