//! Configurations, and a node with a pod, that several files use.

use sandwire_harness::{Installation, Node, Outcome, Place, Pod, Snapshot, Verb};
use serde_json::{Value, json};
use std::process::Command;

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

/// A node with a pod, as it was before anything is called.
pub(crate) struct Bench {
    pub(crate) node: Node,
    pub(crate) pod: Pod,
    pub(crate) before: Snapshot,
}

impl Bench {
    /// `script` makes what has to be on the node.
    pub(crate) fn new(script: &str) -> Self {
        let node = Node::installed().unwrap();
        node.sh(script).unwrap();
        let pod = node.pod("a").unwrap();
        let before = node.snapshot().unwrap();
        Self { node, pod, before }
    }

    /// A call of ours or of the native plugin.
    pub(crate) fn call(&self, native: bool, verb: Verb, config: &Value, prev: Option<&Value>) -> Outcome {
        let mut config = config.clone();
        if let Some(prev) = prev {
            config["prevResult"] = prev.clone();
        }
        let plugin = config["type"].as_str().unwrap().to_owned();
        let call = self.node.call(&plugin, verb).pod(&self.pod).ifname("eth0").config(&config);
        if native { call.native() } else { call }.run().unwrap()
    }

    pub(crate) fn nothing_left(&self) {
        self.node.snapshot().unwrap().assert_same_attachments(&self.before).unwrap();
    }

    /// The native plugin has run a DEL that our journal does not know of.
    pub(crate) fn only_a_journal_left(&self) {
        let differences = self.node.snapshot().unwrap().attachments_since(&self.before);
        assert!(differences.iter().all(|line| line.contains("/run/sandwire/journal/")), "{differences:?}");
    }
}

/// Puts a policy into force.
pub(crate) fn apply(node: &Node, policy: &str) {
    node.write("/etc/sandwire/policy.toml", policy).unwrap();
    let mut apply = Command::new(Installation::sandwirectl());
    apply.arg("apply").env_clear().env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin");
    node.run(&Place::Host, apply, b"").unwrap().success().unwrap();
}
