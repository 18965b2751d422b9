//! How a plugin fails: the CNI error object, and what becomes of a host function's refusal.

use crate::{HostError, code};

pub use crate::bindings::imports::sandwire::cni::types::Failure;

impl Failure {
    /// A failure with a code of the specification's or of the plugin's own (100 and more).
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// What the reference plugins give for every error without a code of its own: 999.
    pub fn internal(msg: impl Into<String>) -> Self {
        Self::new(code::INTERNAL, msg)
    }

    /// The network configuration is wrong: 7.
    pub fn config(msg: impl Into<String>) -> Self {
        Self::new(code::INVALID_CONFIG, msg)
    }

    /// The same with `details`, which runtimes show after the message.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The same with `context: ` before its message.
    #[must_use]
    pub fn context(mut self, context: &str) -> Self {
        self.msg.insert_str(0, ": ");
        self.msg.insert_str(0, context);
        self
    }
}

/// The one place where a refusal of the host gets its CNI code. The message is the host's: it names the object, what
/// failed and what to do.
impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        use HostError as E;
        let (code, msg) = match error {
            E::Invalid(text) => (code::INVALID_CONFIG, text),
            E::Denied(text) => (code::POLICY_DENIED, text),
            // The runtime calls again after these; nothing is wrong with its request.
            E::Busy(text) | E::Exhausted(text) | E::Timeout(text) | E::Unreachable(text) => (code::TRY_AGAIN, text),
            E::NotFound(text) | E::Exists(text) | E::Conflict(text) | E::Unsupported(text) | E::Other(text) => {
                (code::INTERNAL, text)
            }
        };
        Self::new(code, msg)
    }
}

/// An error of the protocol crate (a wrong CNI_ARGS, a configuration that can't be decoded).
impl From<sandwire_cni::Error> for Failure {
    fn from(error: sandwire_cni::Error) -> Self {
        Self { code: error.code, msg: error.msg, details: error.details }
    }
}

/// Puts what the plugin was doing before the host's (or a delegate's) text: `could not make cni0: operation not
/// permitted`. The code stays.
pub trait OrFail<T> {
    /// `context` without a colon at its end.
    ///
    /// # Errors
    /// The same error as a [`Failure`], with context.
    fn or_fail(self, context: impl AsRef<str>) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> OrFail<T> for Result<T, E> {
    fn or_fail(self, context: impl AsRef<str>) -> Result<T, Failure> {
        self.map_err(|error| error.into().context(context.as_ref()))
    }
}

/// For STATUS, where what keeps an ADD from working makes the plugin unavailable.
pub trait OrUnavailable<T> {
    /// `context` without a colon at its end; `remedy` is what somebody can do about it.
    ///
    /// # Errors
    /// Code 50 ([`code::NOT_AVAILABLE`]) with the remedy in its details; what policy does not allow keeps its code and says
    /// itself what to do.
    fn or_unavailable(self, context: impl AsRef<str>, remedy: impl AsRef<str>) -> Result<T, Failure>;
}

impl<T> OrUnavailable<T> for Result<T, HostError> {
    fn or_unavailable(self, context: impl AsRef<str>, remedy: impl AsRef<str>) -> Result<T, Failure> {
        self.map_err(|error| match error {
            HostError::Denied(_) | HostError::Invalid(_) => Failure::from(error).context(context.as_ref()),
            error => Failure { code: code::NOT_AVAILABLE, ..Failure::from(error) }
                .context(context.as_ref())
                .with_details(remedy.as_ref()),
        })
    }
}

/// For DEL, where a thing that is gone is what was wanted.
pub trait OrGone<T> {
    /// `None` when the object is not there.
    ///
    /// # Errors
    /// Every other error.
    fn or_gone(self) -> Result<Option<T>, HostError>;
}

impl<T> OrGone<T> for Result<T, HostError> {
    fn or_gone(self) -> Result<Option<T>, HostError> {
        match self {
            Ok(found) => Ok(Some(found)),
            Err(HostError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_an_add_from_working_is_code_50_and_says_what_to_do() {
        let failure = |error| Err::<(), _>(error).or_unavailable("ipMasq", "load it").unwrap_err();
        let lacking = failure(HostError::Unsupported("no nf_tables".into()));
        assert_eq!((lacking.code, lacking.msg.as_str()), (code::NOT_AVAILABLE, "ipMasq: no nf_tables"));
        assert_eq!(lacking.details, "load it");
        assert_eq!(failure(HostError::Denied("not granted".into())).code, code::POLICY_DENIED);
    }

    #[test]
    fn context_stands_before_the_hosts_text_and_keeps_the_code() {
        let refused: Result<(), _> = Err(HostError::Denied("\"cni0\" may not be changed".into()));
        let failure = refused.or_fail("failed to set bridge addr").unwrap_err();
        assert_eq!(
            (failure.code, failure.msg.as_str()),
            (110, "failed to set bridge addr: \"cni0\" may not be changed")
        );
    }

    #[test]
    fn transient_errors_ask_to_try_again() {
        for error in [HostError::Busy(String::new()), HostError::Exhausted(String::new())] {
            assert_eq!(Failure::from(error).code, code::TRY_AGAIN);
        }
    }

    #[test]
    fn only_what_is_missing_is_gone() {
        assert_eq!(Err::<(), _>(HostError::NotFound("x".into())).or_gone(), Ok(None));
        assert!(Err::<(), _>(HostError::Busy("x".into())).or_gone().is_err());
    }
}
