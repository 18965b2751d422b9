//! What each plugin may do on this node: the operator's `policy.toml`, and the compiled form of it that every call reads.

#[cfg(feature = "file")]
pub mod file;
pub mod grant;
mod names;
pub mod paths;
mod proposal;

pub use grant::{ENABLED, Endpoint, Grant, Limits, LinkRules, compiled_name, entry, matches_any};
pub use names::{check_name, check_plugin, header};
