//! What survives a call: leases in host-local's own files, notes of plugins, and the journal of privileged operations.
//!
//! Nothing here starts a thread, and nothing is fsynced: a crash of a process leaves every file valid at any point, and
//! after a power loss the container that a lost last record speaks of is gone as well.

pub mod journal;
pub mod kv;
pub mod leases;

mod error;
mod lock;
mod names;

pub use error::StateError;

use serde::{Deserialize, Serialize};

/// The result of an operation on state.
pub type Outcome<T> = Result<T, StateError>;

/// Who holds a lease or a note in a network: an interface of a container (CNI specification, section 2: an attachment
/// is known by container id and interface name, never by its namespace's path).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`; empty for a lease that a release of host-local before 0.8.3 made.
    pub ifname: String,
}

impl Owner {
    /// The attachment of this container and interface.
    pub fn new(container_id: impl Into<String>, ifname: impl Into<String>) -> Self {
        Self { container_id: container_id.into(), ifname: ifname.into() }
    }
}
