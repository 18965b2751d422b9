//! Write a CNI plugin as a sandboxed component.
//!
//! A plugin is one type with two functions, [`Plugin::add`] and [`Plugin::del`], and, where it has them, [`Check`],
//! [`Gc`] and [`Status`]. [`export!`] makes it a component. It sees the configuration and the CNI call ([`Call`]), and does
//! everything else through functions of the host ([`host`]): it can open no file and no socket, and each module of
//! `host` that it calls is a line that an operator grants. What it does not call is not in its import list.
//!
//! What an author is spared:
//!
//! - **Clean-up.** When `add` fails, traps or takes too long, the host undoes what it had done, newest first. `del` must
//!   only tolerate what is gone already ([`OrGone`]).
//! - **CNI versions.** Configurations, results and prevResult have the shape of CNI 1.1.0; the host converts them to and
//!   from what the runtime speaks.
//! - **Go.** Keys of a configuration match as the reference plugins match them, without regard to case ([`parse`]).
//! - **Error codes.** A host function's refusal becomes a CNI error by `?`; [`OrFail`] puts before it what the plugin was
//!   doing.
//!
//! # A complete plugin
//!
//! This is `guest-sdk/rust/template`; copy the folder to begin one of your own.
//!
//! ```no_run
#![doc = include_str!("../template/src/lib.rs")]
//! # fn main() {}
//! ```
//!
//! # Building it
//!
//! ```sh
//! cargo build --profile plugin --target wasm32-unknown-unknown
//! sandwire-componentize target/wasm32-unknown-unknown/plugin/my_plugin.wasm my-plugin.wasm
//! sandwirectl inspect my-plugin.wasm
//! sandwirectl try my-plugin.wasm --network n.conf --before "ip link add br0 up type bridge"
//! ```
//!
//! `sandwire-componentize` refuses a plugin that imports anything but the contract: whatever reaches for the time, random
//! numbers or the environment is found here and not on a node.

#[doc(hidden)]
pub mod bindings;
mod call;
pub mod configure;
mod failure;
pub mod host;
pub mod ipam;
pub mod mac;
pub mod masquerade;
pub mod master;
#[cfg(any(test, all(target_arch = "wasm32", feature = "allocator")))]
mod memory;
mod plugin;
pub mod verify;

pub use bindings::imports::sandwire::cni::types::{Address, Attachment, Error as HostError, Route as HostRoute};
pub use call::{Call, NetworkCall, Verb, parse};
pub use failure::{Failure, OrFail, OrGone, OrUnavailable};
pub use host::namespaces::{Link, LinkInfo, Netns};
pub use ipam::Ipam;
pub use ipnet::IpNet;
#[doc(hidden)]
pub use plugin::glue;
pub use plugin::{Check, Gc, Plugin, Status};
pub use sandwire_cni::{CniResult, Dns, Interface, IpConfig, Route, addr, code, go_json};
