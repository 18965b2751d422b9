//! Configurations that several files use.

use serde_json::{Value, json};

pub(crate) const BRIDGE: &str = "/opt/cni/bin/bridge";

/// A bridge with a gateway and host-local.
pub(crate) fn bridge() -> Value {
    json!({"cniVersion": "1.0.0", "name": "mynet", "type": "bridge", "bridge": "cni0", "isGateway": true,
        "ipam": {"type": "host-local", "subnet": "10.1.2.0/24", "routes": [{"dst": "0.0.0.0/0"}]}})
}

/// The network of the article of 2016, as it stood there.
pub(crate) fn mynet() -> Value {
    json!({"name": "mynet", "type": "bagpipe", "importrt": "64512:90", "exportrt": "64512:90", "isGateway": false,
        "ipMasq": false, "mtu": "1500",
        "ipam": {"type": "host-local", "subnet": "10.1.2.0/24", "routes": [{"dst": "0.0.0.0/0"}]}})
}
