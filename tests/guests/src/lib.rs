//! Hostile and conforming guests, built, and put on a node of the harness with a policy of their own.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let bench = sandwire_guests::Bench::new("hostile", "limits = { deadline_ms = 300 }", "")?;
//! bench.stopped("spin", &serde_json::json!({}), 115, "did not finish")?;
//! # Ok(()) }
//! ```

mod build;
pub mod contract;
pub mod wit;

pub use build::{component, dummy, granted_by_all};

use anyhow::{Context, Result, bail};
use sandwire_harness::{CniError, Installation, Node, Outcome, Place, Pod, Snapshot, Verb};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::process::Command;

/// A node with one guest on it, a pod, and what was there before the guest was called.
pub struct Bench {
    /// The node.
    pub node: Node,
    /// Its pod.
    pub pod: Pod,
    /// Everything as it was before the first call.
    pub before: Snapshot,
    plugin: String,
}

impl Bench {
    /// A node with `guest` granted all that it imports. `entry`: further lines under its name in the policy; `head`: other
    /// tables of the policy.
    ///
    /// # Errors
    /// When the guest can't be built, or the policy not be put into force.
    pub fn new(guest: &str, entry: &str, head: &str) -> Result<Self> {
        let bytes = component(guest)?;
        let imports: Vec<String> = granted_by_all(bytes)?.iter().map(|name| format!("{name:?}")).collect();
        Self::of(guest, bytes, &format!("imports = [{}]\n{entry}", imports.join(", ")), head)
    }

    /// A node with these bytes as plugin `name`, and this as its entry in the policy.
    ///
    /// # Errors
    /// When the policy can't be put into force.
    pub fn of(name: &str, bytes: &[u8], entry: &str, head: &str) -> Result<Self> {
        let node = Node::installed()?;
        let policy = node.read("/etc/sandwire/policy.toml")?.context("no policy")?;
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let policy = format!(
            "{}\n{head}\n[plugins.{name}]\ncomponent = \"sha256:{digest}\"\n{entry}\n",
            String::from_utf8(policy)?
        );
        node.write("/etc/sandwire/policy.toml", policy.clone())?;
        node.write(format!("/usr/lib/sandwire/plugins/{name}.wasm"), bytes)?;
        node.sh(&format!("ln -s sandwire /opt/cni/bin/{name}"))?;
        let mut apply = Command::new(Installation::sandwirectl());
        apply.arg("apply").env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let applied = node.run(&Place::Host, apply, b"")?;
        // A component that it refuses is refused when it is called, too. A policy that it can't read is the test's fault.
        if node.read(format!("/var/lib/sandwire/active/{name}.json"))?.is_none() {
            bail!("sandwirectl apply: {}{}\n{policy}", applied.stdout, applied.stderr);
        }
        let pod = node.pod("a")?;
        let before = node.snapshot()?;
        Ok(Self { node, pod, before, plugin: name.to_owned() })
    }

    /// Look again: what was changed since (by the test, not by the guest) is how it has to be.
    ///
    /// # Errors
    /// When the node can't be looked at.
    pub fn look(&mut self) -> Result<()> {
        self.before = self.node.snapshot()?;
        Ok(())
    }

    /// A configuration of the guest for this act, with more keys.
    pub fn config(&self, act: &str, more: &Value) -> Value {
        let mut config = json!({"cniVersion": "1.1.0", "name": "net", "type": self.plugin, "act": act});
        if let (Some(config), Some(more)) = (config.as_object_mut(), more.as_object()) {
            config.extend(more.clone());
        }
        config
    }

    /// One call for the pod's `eth0`; GC and STATUS go without a pod.
    ///
    /// # Errors
    /// When it hangs.
    pub fn call(&self, verb: Verb, config: &Value) -> Result<Outcome> {
        let call = self.node.call(&self.plugin, verb).config(config);
        match verb {
            Verb::Gc | Verb::Status | Verb::Version => call.run(),
            _ => call.pod(&self.pod).ifname("eth0").run(),
        }
    }

    /// ADD with this act.
    ///
    /// # Errors
    /// When it hangs.
    pub fn act(&self, act: &str, more: &Value) -> Result<Outcome> {
        self.call(Verb::Add, &self.config(act, more))
    }

    /// ADD with this act fails with this code and text, and the node is as it was.
    ///
    /// # Errors
    /// With what differs.
    pub fn stopped(&self, act: &str, more: &Value, code: u32, text: &str) -> Result<CniError> {
        let outcome = self.act(act, more)?;
        let error = outcome.error_with(code, text).with_context(|| format!("{act} {more}"))?;
        self.unchanged().with_context(|| format!("after {act} {more}, which failed with {error:?}"))?;
        Ok(error)
    }

    /// The node is as it was, shared things included.
    ///
    /// # Errors
    /// With what differs.
    pub fn unchanged(&self) -> Result<()> {
        self.node.snapshot()?.assert_unchanged(&self.before)
    }
}
