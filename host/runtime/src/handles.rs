//! What a guest's handles stand for. A handle carries why the guest may hold it, so that a function that changes
//! something need not find out again.

// The bindings name these types, and what they name must be `pub`.
#![allow(unreachable_pub)]

use sandwire_kernel::{LinkId, Netns, Rule};
use sandwire_state::leases::Store;
use std::path::PathBuf;

/// `namespaces.netns`.
#[derive(Debug, Clone, Copy)]
pub struct NetnsHandle {
    /// Which of the two.
    pub netns: Netns,
}

/// What a guest may do with a link, each including what stands before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Look at it.
    See,
    /// Make it a master or parent.
    Use,
    /// A shared link (a bridge): change it through `shared`.
    Change,
    /// Made by this attachment, or in its container.
    Own,
}

/// `namespaces.link`.
#[derive(Debug, Clone)]
pub struct LinkHandle {
    /// Where it is.
    pub id: LinkId,
    /// Its name when the handle was made, for error texts.
    pub name: String,
    /// What the guest may do.
    pub right: Right,
}

/// `leases.store`.
pub struct StoreHandle {
    /// The open store.
    pub store: Store,
    /// Its directory, for the journal.
    pub directory: PathBuf,
}

/// `firewall.ruleset`: collects until `verify` or `commit`.
#[derive(Debug, Clone)]
pub struct RulesetHandle {
    /// In which namespace.
    pub netns: Netns,
    /// The guest's name for this set.
    pub label: String,
    /// What was asked for so far.
    pub rules: Vec<Rule>,
    /// What was wrong with what was asked for.
    pub faults: Vec<String>,
    /// Whether one of the faults is that policy does not allow it.
    pub denied: bool,
}
