//! What this kernel has of what a case's file `needs` names.

use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// `SANDWIRE_KERNEL=full`: this kernel is the one that has everything (`tests/vm`). Then only the cases that need it are run,
/// and a feature that is lacking is an error: no other machine runs their `steps`.
pub fn is_said_to_be_full() -> bool {
    std::env::var_os("SANDWIRE_KERNEL").is_some_and(|value| value == "full")
}

/// Whether this kernel lacks one of the features, as the file `needs` names them.
///
/// # Errors
/// When one is unknown, or is lacking where `SANDWIRE_KERNEL=full` says that nothing is.
pub fn lacks(needs: &str) -> Result<bool> {
    let mut lacking = Vec::new();
    for feature in needs.split_whitespace() {
        if !has(feature)? {
            lacking.push(feature);
        }
    }
    if is_said_to_be_full() && !lacking.is_empty() {
        bail!("SANDWIRE_KERNEL=full, but this kernel lacks {}", lacking.join(", "));
    }
    Ok(!lacking.is_empty())
}

/// Tried, not read from a configuration that the kernel may not show. Once: trying takes a node.
fn has(feature: &str) -> Result<bool> {
    static TRIED: Mutex<BTreeMap<String, bool>> = Mutex::new(BTreeMap::new());
    let Ok(mut tried) = TRIED.lock() else { bail!("trying a feature panicked") };
    if let Some(has) = tried.get(feature) {
        return Ok(*has);
    }
    let attempt = match feature {
        "vlan-filtering" => {
            "ip link add probe type bridge vlan_filtering 1 && test \"$(cat /sys/class/net/probe/bridge/vlan_filtering)\" = 1"
        }
        "dummy" => "ip link add probe type dummy",
        "vlan" => "ip link add probe0 type veth peer name probe1 && ip link add link probe0 name probe type vlan id 5",
        "ipvlan" => "ip link add probe0 type veth peer name probe1 && ip link add link probe0 name probe type ipvlan",
        "vrf" => "ip link add probe type vrf table 10",
        other => bail!("{other:?} is no feature that the runner can probe"),
    };
    let has = crate::Node::new()?.sh(attempt).is_ok();
    tried.insert(feature.to_owned(), has);
    Ok(has)
}
