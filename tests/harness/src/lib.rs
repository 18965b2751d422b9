//! What proves Sandwire: nodes and pods made of real namespaces, calls as a container runtime makes them, a look at everything
//! that a call may leave behind, and the runner of the plugins' cases (`README.md` beside this crate is the format).
//!
//! ```no_run
//! use sandwire_harness::{Node, Verb};
//! # fn main() -> anyhow::Result<()> {
//! let node = Node::installed()?;
//! let pod = node.pod("a")?;
//! let config = serde_json::json!({"cniVersion": "1.1.0", "name": "n", "type": "loopback"});
//! let before = node.snapshot()?;
//! node.cni("loopback", Verb::Add, &pod, "lo", &config)?.result()?;
//! node.cni("loopback", Verb::Del, &pod, "lo", &config)?.done()?;
//! node.snapshot()?.assert_same_attachments(&before)?;
//! # Ok(()) }
//! ```

pub mod agent;
pub mod cases;
mod cni;
pub mod dhcp;
mod install;
pub mod matching;
mod node;
mod pod;
mod run;
mod snapshot;
pub mod versions;

pub use cni::{Call, CniError, Outcome, Verb};
pub use install::{Installation, repository};
pub use node::{Node, Place, start};
pub use pod::Pod;
pub use run::Finished;
pub use snapshot::Snapshot;

/// Where Debian's containernetworking-plugins are.
pub const NATIVE: &str = "/usr/lib/cni";
/// Where ours are installed.
pub const OURS: &str = "/opt/cni/bin";
