//! Runs a plugin component for one CNI call.
//!
//! [`verbs::run`] is the whole of it: environment and configuration have become an [`sandwire_cni::Invocation`], the
//! plugin's grant is read, namespaces are opened, privilege is dropped, the component is mapped and called, what it did
//! is committed or undone.

pub mod answer;
pub mod confine;
pub mod engine;
pub mod imports;
pub mod prepared;
pub mod repair;
pub mod room;
pub mod stores;
pub mod verbs;

mod adapters;
mod bindings;
mod collect;
mod deadline;
mod delegation;
mod endpoint;
mod guest;
mod handles;
mod host_end;
mod log;
mod native;
mod privilege;
mod published;
mod refusal;
mod session;
mod store;
mod undo;
