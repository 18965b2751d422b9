//! What each plugin may do on this node: the operator's `policy.toml`, and the compiled form of it that every call reads.

pub mod grant;
pub mod paths;

pub use grant::{Endpoint, Grant, Limits, LinkRules, matches_any};
