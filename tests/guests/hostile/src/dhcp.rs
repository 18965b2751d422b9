//! Addresses of DHCP servers: as another client, with the protocol's own words, when nothing may be made, and after they went back.

use crate::{Act, NOTHING, succeeded, text};
use sandwire_plugin::host::dhcp::{self, Lease, Setting};
use sandwire_plugin::host::{self, links};
use sandwire_plugin::{Failure, HostError};
use serde_json::{Value, json};

pub(crate) const ACTS: &[(&str, Act)] = &[
    ("acquire", acquire),
    ("acquire-outside-add", acquire_outside_add),
    ("acquire-twice", acquire_twice),
    ("acquire-and-claim", acquire_and_claim),
    ("acquire-and-use-after-release", acquire_and_use_after_release),
    ("acquire-and-forget", acquire_and_forget),
    ("release-nothing", release_nothing),
    ("remove-the-leased", remove_the_leased),
];

/// `"send"` is a list of codes with texts, or with how many bytes; `"ask"` how many codes are asked for.
fn ask(config: &Value) -> Result<Lease, Failure> {
    let setting = |option: &Value| {
        let value = match &option[1] {
            Value::String(text) => text.clone().into_bytes(),
            bytes => vec![b'x'; bytes.as_u64().and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()],
        };
        Setting { code: option[0].as_u64().and_then(|code| code.try_into().ok()).unwrap_or_default(), value }
    };
    let send: Vec<Setting> = config["send"].as_array().into_iter().flatten().map(setting).collect();
    let ask = config["ask"].as_u64().and_then(|codes| codes.try_into().ok()).unwrap_or(0);
    Ok(dhcp::acquire(&send, &vec![1; ask])?)
}

fn acquire(config: &Value) -> Result<String, Failure> {
    succeeded(&format!("got {}", ask(config)?.address))
}

/// The host may carry on without the plugin in DEL: an act that fails there is not seen, and one that succeeds is.
fn acquire_outside_add(_: &Value) -> Result<String, Failure> {
    match (dhcp::acquire(&[], &[]), dhcp::held()?) {
        (Err(HostError::Denied(_)), None) => Ok(NOTHING.to_owned()),
        other => succeeded(&format!("an address outside of ADD: {other:?}")),
    }
}

/// Both times it is the same; then it is left as it is.
fn acquire_twice(config: &Value) -> Result<String, Failure> {
    let leases = [ask(config)?, ask(config)?];
    let same = |lease: &Lease| (lease.address.clone(), lease.server.clone(), lease.settings.len());
    let [first, second] = leases.each_ref().map(same);
    let held = dhcp::held()?.as_ref().map(same);
    match first == second && held == Some(second) {
        true => Err(Failure::new(203, format!("twice the same: {}", first.0))),
        false => succeeded("two leases"),
    }
}

/// A result with more than the address that it got.
fn acquire_and_claim(config: &Value) -> Result<String, Failure> {
    let lease = ask(config)?;
    let claimed = text(config, "claim").replace("LEASED", &lease.address);
    Ok(json!({"cniVersion": "1.1.0", "ips": [{"address": claimed, "gateway": config.get("gateway")}]}).to_string())
}

fn acquire_and_use_after_release(config: &Value) -> Result<String, Failure> {
    let lease = ask(config)?;
    match dhcp::release()? {
        Some(released) if released == lease.address && dhcp::held()?.is_none() => {}
        other => return succeeded(&format!("kept {}: {other:?}", lease.address)),
    }
    Ok(json!({"cniVersion": "1.1.0", "ips": [{"address": format!("{}/24", lease.address)}]}).to_string())
}

/// Nobody is told of it.
fn acquire_and_forget(config: &Value) -> Result<String, Failure> {
    ask(config)?;
    Ok(NOTHING.to_owned())
}

/// With an interface goes its lease.
fn remove_the_leased(_: &Value) -> Result<String, Failure> {
    links::remove(&host::require_container()?.link("eth0")?)?;
    succeeded("removed")
}

fn release_nothing(_: &Value) -> Result<String, Failure> {
    match (dhcp::held()?, dhcp::release()?, dhcp::release()?) {
        (None, None, None) => Err(Failure::new(203, "there was nothing")),
        (held, first, second) => succeeded(&format!("gave back {held:?}, {first:?}, {second:?}")),
    }
}
