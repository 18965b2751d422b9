//! The CNI protocol, all of it and nothing else: no file, no socket, no clock.
//!
//! The host program reads an [`Environment`] and an [`Invocation`] and prints a [`CniResult`] or an [`Error`]; plugins use
//! the same types inside the sandbox, so there is one parser, one conversion between versions and one spelling of each
//! message. Because nothing here does I/O, all of it builds for `wasm32-unknown-unknown`.
//!
//! Facts are from SPEC.md 1.1.0 of containernetworking/cni and from its Go library at v1.3.0, which every reference plugin
//! is built on: where the two differ, runtimes have seen the library.

pub mod addr;
pub mod args;
mod config;
mod environment;
mod error;
pub mod go_json;
mod go_text;
mod invocation;
pub mod names;
mod result;
mod version;

pub use config::{Attachment, NetworkConfig};
pub use environment::{Command, Environment, same_netns_error};
pub use error::{Error, code};
pub use invocation::Invocation;
pub use result::{CniResult, Dns, Interface, IpConfig, Route};
pub use version::{Family, Version, version_answer};

/// The result of anything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;
