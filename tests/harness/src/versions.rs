//! What a result of spec 1.1.0 looks like in the other versions: the harness's own reading of the specification, so that ours is
//! compared with something that wasn't derived from it.

use serde_json::{Map, Value, json};

/// Every version of the specification.
pub const ALL: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Whether a plugin can be asked to CHECK with a configuration of this version.
pub fn has_check(version: &str) -> bool {
    !version.starts_with("0.") || version == "0.4.0"
}

/// Whether GC and STATUS exist at this version.
pub fn has_gc(version: &str) -> bool {
    version == "1.1.0"
}

/// Whether prevResult is sent with DEL at this version (libcni: from 0.4.0 on).
pub fn del_gets_result(version: &str) -> bool {
    has_check(version)
}

/// `result`, in the shape of 1.1.0, as a plugin must print it at `version`. Nothing is converted that isn't there, so that
/// expectations may be partial.
pub fn from_newest(result: &Value, version: &str) -> Value {
    let mut result = result.clone();
    let Some(object) = result.as_object_mut() else { return result };
    match version {
        "1.1.0" | "1.0.0" => {}
        "0.1.0" | "0.2.0" => result = flat(object),
        _ => {
            each(object, "interfaces", |interface| {
                for newer in ["mtu", "socketPath", "pciID"] {
                    interface.remove(newer);
                }
            });
            each(object, "ips", |ip| {
                if let Some(family) = ip.get("address").and_then(family) {
                    ip.insert("version".into(), family.into());
                }
            });
        }
    }
    if let Some(object) = result.as_object_mut() {
        object.insert("cniVersion".into(), version.into());
    }
    result
}

fn each(object: &mut Map<String, Value>, key: &str, change: impl Fn(&mut Map<String, Value>)) {
    let Some(Value::Array(list)) = object.get_mut(key) else { return };
    list.iter_mut().filter_map(Value::as_object_mut).for_each(change);
}

fn family(address: &Value) -> Option<&'static str> {
    address.as_str().map(|text| if text.contains(':') { "6" } else { "4" })
}

/// `ip4` and `ip6`: the first address of each family, with the routes of that family.
fn flat(newest: &Map<String, Value>) -> Value {
    let mut out = Map::new();
    for (key, wanted) in [("ip4", "4"), ("ip6", "6")] {
        let list = |key: &str| newest.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let Some(ip) = list("ips").into_iter().find(|ip| ip.get("address").and_then(family) == Some(wanted)) else {
            continue;
        };
        let mut part = Map::new();
        part.insert("ip".into(), ip.get("address").cloned().unwrap_or_default());
        if let Some(gateway) = ip.get("gateway") {
            part.insert("gateway".into(), gateway.clone());
        }
        let routes: Vec<Value> = list("routes")
            .iter()
            .filter(|route| route.get("dst").and_then(family) == Some(wanted))
            .map(|route| match route.get("gw") {
                Some(gateway) => json!({"dst": route["dst"], "gw": gateway}),
                None => json!({"dst": route["dst"]}),
            })
            .collect();
        if !routes.is_empty() {
            part.insert("routes".into(), routes.into());
        }
        out.insert(key.into(), part.into());
    }
    if let Some(dns) = newest.get("dns") {
        out.insert("dns".into(), dns.clone());
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        let newest = json!({"interfaces": [{"name": "eth0", "mtu": 1500}],
            "ips": [{"address": "10.1.2.2/24", "gateway": "10.1.2.1", "interface": 0}, {"address": "fd00::2/64"}],
            "routes": [{"dst": "0.0.0.0/0", "priority": 5}, {"dst": "::/0", "gw": "fd00::1"}]});
        assert_eq!(
            from_newest(&newest, "0.2.0"),
            json!({"cniVersion": "0.2.0",
                "ip4": {"ip": "10.1.2.2/24", "gateway": "10.1.2.1", "routes": [{"dst": "0.0.0.0/0"}]},
                "ip6": {"ip": "fd00::2/64", "routes": [{"dst": "::/0", "gw": "fd00::1"}]}})
        );
        let old = from_newest(&newest, "0.4.0");
        assert_eq!(old["ips"][1]["version"], "6");
        assert_eq!(old["interfaces"][0], json!({"name": "eth0"}));
        assert_eq!(from_newest(&newest, "1.0.0")["interfaces"][0]["mtu"], 1500);
    }
}
