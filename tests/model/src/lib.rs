//! Random sequences of everything that can happen to a node's attachments, on the real kernel through the installed binary,
//! each step compared with a small model of what must exist.
//!
//! A network is a list of plugins, called as a runtime calls it (`networks.rs`). A step is an ADD, DEL, CHECK, GC or STATUS of
//! such a list, one that is killed at any time, some at the same time, a pod's namespace that goes or comes back, an agent that
//! fails or is started again, an interface that somebody else made, a part of an attachment that somebody broke, firewall rules
//! that somebody flushed, a master that goes, or a reboot. After every step what is compared completely: links of the host and
//! the pods with their addresses, MACs, masters, other ends and routes, buckets and the devices that they are on, sysctls that
//! plugins set, lease files, journals, and what the agent knows. The firewall is compared after steps that can change it and
//! after every 16th: each attachment has exactly its own elements and records. When a script is over, everything is deleted and
//! the harness's snapshot (neighbours, notes, every sysctl too) must be what it was.
//!
//! `MODEL_SEED` runs a seed again, `MODEL_STEPS` and `MODEL_SECONDS` say how much (per worker), `MODEL_WORKERS` on how many
//! nodes at once, `MODEL_NETS` with which networks; `MODEL_SCRIPT` names a file with one script to run. A failure is printed as
//! a short script; put into `scripts/`, it is run by every test from then on.

pub mod compare;
pub mod configs;
mod look;
pub mod networks;
pub mod observed;
mod random;
pub mod rules;
mod run;
pub mod script;
mod shrink;
pub mod state;
mod world;

pub use look::{Link, Network};
pub use random::Random;
pub use run::{Report, folder, random as run_random, script as run_script};
pub use world::World;
