//! Why the kernel did not do something.

/// The result of a kernel operation.
pub type Outcome<T> = Result<T, KernelError>;

/// One case per different reaction of a caller, as `error` in `wit/types.wit`. Each text names the object, and
/// what the kernel said of it (errno name and extended acknowledgement).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// The object is not there.
    #[error("{0}")]
    NotFound(String),
    /// Exactly this object is there already.
    #[error("{0}")]
    Exists(String),
    /// Something there contradicts the request.
    #[error("{0}")]
    Conflict(String),
    /// The arguments can never work.
    #[error("{0}")]
    Invalid(String),
    /// The kernel refuses it to this process (EPERM, EACCES).
    #[error("{0}")]
    Denied(String),
    /// This kernel, or this release of Sandwire, cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// Held by someone else now.
    #[error("{0}")]
    Busy(String),
    /// The time allowed has passed.
    #[error("{0}")]
    Timeout(String),
    /// The request was sent and its answer was not heard (ENOBUFS, a full buffer), or what had to follow it failed: it may
    /// have happened.
    #[error("{0}")]
    Unheard(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl KernelError {
    /// `Unsupported`, for an operation that this release does not have yet.
    pub fn unsupported(what: &str) -> Self {
        Self::Unsupported(format!("this release of Sandwire can't {what} yet"))
    }

    /// The same error with `context` before its text.
    pub fn context(self, context: impl std::fmt::Display) -> Self {
        let add = |text: String| format!("{context}: {text}");
        match self {
            Self::NotFound(t) => Self::NotFound(add(t)),
            Self::Exists(t) => Self::Exists(add(t)),
            Self::Conflict(t) => Self::Conflict(add(t)),
            Self::Invalid(t) => Self::Invalid(add(t)),
            Self::Denied(t) => Self::Denied(add(t)),
            Self::Unsupported(t) => Self::Unsupported(add(t)),
            Self::Busy(t) => Self::Busy(add(t)),
            Self::Timeout(t) => Self::Timeout(add(t)),
            Self::Unheard(t) => Self::Unheard(add(t)),
            Self::Other(t) => Self::Other(add(t)),
        }
    }

    /// The same error of an operation that did, or may have done, its first half: whoever keeps the way back keeps it.
    #[must_use]
    pub fn half_done(self) -> Self {
        Self::Unheard(self.to_string())
    }

    /// The same error of an operation that has taken its own half back.
    #[must_use]
    pub fn refused(self) -> Self {
        match self {
            Self::Unheard(t) => Self::Other(t),
            other => other,
        }
    }

    /// Whether the operation may have happened all the same.
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Unheard(_))
    }
}
