//! The same configurations and calls, given to Debian's native plugins and to ours, each on fresh nodes; what they print and
//! what the kernel then has is compared field by field.
//!
//! A seed makes a sequence: a network (one plugin, or a chain as a runtime calls it), a version, an environment, and some
//! calls. After each call its outcome is compared (result, or code and text of the error), and after those that may have
//! changed something the links, addresses, routes, rules, sysctls, VLANs, queueing disciplines and lease files of the host
//! and of the pods. Names that are random by design (`veth1a2b3c4d`) and MACs are numbered in the order in which they come
//! up. Firewalls are not compared as text, since ours are nftables by design and Debian's iptables: their effect is, by the
//! traffic tests of each plugin's cases.
//!
//! Where ours differs on purpose, `intended.tsv` has a line with the reason. A line speaks of one field, and one that no
//! sequence used is an error: it would hide a later mistake.
//!
//! `DIFFERENTIAL_SEED` runs one sequence alone and prints its configuration, `DIFFERENTIAL_SEQUENCES` says how many,
//! `DIFFERENTIAL_FIRST` from which one on.

pub mod generate;
pub mod intended;
mod look;
mod names;
mod sequence;

pub use generate::{Sequence, kind};
pub use intended::Intended;
pub use sequence::{Difference, run};
