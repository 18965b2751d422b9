//! Why a host function did not do something: either the guest is told (a case of `error` in `wit/types.wit`), or the
//! call ends (a trap: a broken handle, a host fault).

use crate::bindings::types;
use crate::deadline::Deadline;
use sandwire_kernel::KernelError;
use sandwire_state::StateError;

/// The result of a host function.
pub(crate) type Answer<T> = Result<T, Refusal>;

/// See the module.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The guest gets this.
    Guest(types::Error),
    /// The guest is ended.
    Trap(wasmtime::Error),
}

impl Refusal {
    /// `denied`: the text names the missing grant.
    pub(crate) fn denied(text: impl Into<String>) -> Self {
        Self::Guest(types::Error::Denied(text.into()))
    }

    /// `denied`: what the guest may not do, and what in the policy would let it (`Grant::to_allow`).
    pub(crate) fn not_granted(what: impl std::fmt::Display, remedy: impl std::fmt::Display) -> Self {
        Self::denied(format!("may not {what}: {remedy}"))
    }

    /// `invalid`: the arguments can never work.
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::Guest(types::Error::Invalid(text.into()))
    }

    /// `not-found`.
    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self::Guest(types::Error::NotFound(text.into()))
    }

    /// `conflict`.
    pub(crate) fn conflict(text: impl Into<String>) -> Self {
        Self::Guest(types::Error::Conflict(text.into()))
    }

    /// `exhausted`: a quota is used up.
    pub(crate) fn exhausted(text: impl Into<String>) -> Self {
        Self::Guest(types::Error::Exhausted(text.into()))
    }

    /// `unsupported`: not in this release.
    pub(crate) fn unsupported(what: &str) -> Self {
        KernelError::unsupported(what).into()
    }

    /// `other`.
    pub(crate) fn other(text: impl Into<String>) -> Self {
        Self::Guest(types::Error::Other(text.into()))
    }

    /// The text, for logs and undo reports.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Guest(error) => text_of(error).to_owned(),
            Self::Trap(error) => format!("{error:#}"),
        }
    }
}

/// The text of any case.
pub(crate) fn text_of(error: &types::Error) -> &str {
    use types::Error as E;
    match error {
        E::NotFound(t)
        | E::Exists(t)
        | E::Conflict(t)
        | E::Invalid(t)
        | E::Denied(t)
        | E::Unsupported(t)
        | E::Busy(t)
        | E::Exhausted(t)
        | E::Timeout(t)
        | E::Unreachable(t)
        | E::Other(t) => t,
    }
}

/// A lock that somebody else has: the deadline mostly ends the guest that is told.
fn waited(text: String) -> types::Error {
    Deadline::waited_for(&text);
    types::Error::Busy(text)
}

impl From<KernelError> for Refusal {
    fn from(error: KernelError) -> Self {
        use types::Error as E;
        Self::Guest(match error {
            KernelError::NotFound(t) => E::NotFound(t),
            KernelError::Exists(t) => E::Exists(t),
            KernelError::Conflict(t) => E::Conflict(t),
            KernelError::Invalid(t) => E::Invalid(t),
            KernelError::Denied(t) => E::Other(t),
            KernelError::Unsupported(t) => E::Unsupported(t),
            KernelError::Busy(t) => waited(t),
            KernelError::Timeout(t) => E::Timeout(t),
            KernelError::Unheard(t) | KernelError::Other(t) => E::Other(t),
        })
    }
}

impl From<StateError> for Refusal {
    fn from(error: StateError) -> Self {
        use types::Error as E;
        Self::Guest(match error {
            StateError::NotFound(t) => E::NotFound(t),
            StateError::Exists(t) => E::Exists(t),
            StateError::Conflict(t) => E::Conflict(t),
            StateError::Invalid(t) => E::Invalid(t),
            StateError::Busy(t) => waited(t),
            StateError::Exhausted(t) => E::Exhausted(t),
            StateError::Other(t) => E::Other(t),
        })
    }
}

impl From<wasmtime::component::ResourceTableError> for Refusal {
    // A handle that is not in the table was forged or used after it was dropped; a full table is a limit. Neither is
    // something a correct guest can react to.
    fn from(error: wasmtime::component::ResourceTableError) -> Self {
        Self::Trap(error.into())
    }
}

impl From<wasmtime::Error> for Refusal {
    fn from(error: wasmtime::Error) -> Self {
        Self::Trap(error)
    }
}
