//! The CNI error object.

use crate::go_json;
use serde::{Deserialize, Serialize};

/// Error codes. 0 to 99 belong to the specification (SPEC.md, "Error"), 100 and above to whoever prints them; 999 is what
/// the Go library makes of an error that has no code.
pub mod code {
    /// The plugin does not speak the configuration's `cniVersion`.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A field of the configuration is not supported; the message has key and value.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is unknown or gone: the runtime need not call DEL.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// A CNI_* variable is missing or invalid.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO: u32 = 5;
    /// Text could not be decoded.
    pub const DECODE: u32 = 6;
    /// The network configuration is invalid.
    pub const INVALID_CONFIG: u32 = 7;
    /// CNI_NETNS is not a namespace a container may be given (the Go library's own code).
    pub const INVALID_NETNS: u32 = 8;
    /// A passing condition: try again later.
    pub const TRY_AGAIN: u32 = 11;
    /// STATUS: ADD can't be served now.
    pub const NOT_AVAILABLE: u32 = 50;
    /// STATUS: ADD can't be served, and existing containers may have limited connectivity.
    pub const LIMITED_CONNECTIVITY: u32 = 51;
    /// Anything without a code of its own.
    pub const INTERNAL: u32 = 999;

    /// Policy does not grant what the plugin asked for.
    pub const POLICY_DENIED: u32 = 110;
    /// The plugin has no component on this node.
    pub const COMPONENT_MISSING: u32 = 111;
    /// The compiled component belongs to another source, engine or machine.
    pub const COMPONENT_STALE: u32 = 112;
    /// The component's file could have been written by somebody other than root.
    pub const COMPONENT_UNTRUSTED: u32 = 113;
    /// The component trapped.
    pub const GUEST_TRAPPED: u32 = 114;
    /// The time allowed to the call has passed.
    pub const DEADLINE: u32 = 115;
    /// The component exceeded a limit: memory, handles, bytes.
    pub const LIMIT: u32 = 116;
    /// Sandwire is not set up on this node, or not completely.
    pub const NOT_INSTALLED: u32 = 117;
}

/// What a failed call prints on stdout. Made by the constructors, one per code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(default)]
#[error("{}", self.text())]
pub struct Error {
    /// See [`code`].
    pub code: u32,
    /// What failed, on what and why, in one line.
    pub msg: String,
    /// What else helps; empty when there is nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl Default for Error {
    fn default() -> Self {
        Self::new(code::INTERNAL, String::new())
    }
}

/// One constructor per code.
macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident = $code:ident;)*) => { impl Error { $(
        $(#[$doc])*
        pub fn $name(msg: impl Into<String>) -> Self {
            Self::new(code::$code, msg)
        }
    )* } };
}

constructors! {
    /// [`code::INCOMPATIBLE_VERSION`].
    incompatible_version = INCOMPATIBLE_VERSION;
    /// [`code::UNSUPPORTED_FIELD`].
    unsupported_field = UNSUPPORTED_FIELD;
    /// [`code::UNKNOWN_CONTAINER`].
    unknown_container = UNKNOWN_CONTAINER;
    /// [`code::INVALID_ENVIRONMENT`].
    invalid_environment = INVALID_ENVIRONMENT;
    /// [`code::IO`].
    io = IO;
    /// [`code::DECODE`].
    decode = DECODE;
    /// [`code::INVALID_CONFIG`].
    invalid_config = INVALID_CONFIG;
    /// [`code::INVALID_NETNS`].
    invalid_netns = INVALID_NETNS;
    /// [`code::TRY_AGAIN`].
    try_again = TRY_AGAIN;
    /// [`code::NOT_AVAILABLE`].
    not_available = NOT_AVAILABLE;
    /// [`code::LIMITED_CONNECTIVITY`].
    limited_connectivity = LIMITED_CONNECTIVITY;
    /// [`code::INTERNAL`].
    internal = INTERNAL;
    /// [`code::POLICY_DENIED`].
    policy_denied = POLICY_DENIED;
    /// [`code::COMPONENT_MISSING`].
    component_missing = COMPONENT_MISSING;
    /// [`code::COMPONENT_STALE`].
    component_stale = COMPONENT_STALE;
    /// [`code::COMPONENT_UNTRUSTED`].
    component_untrusted = COMPONENT_UNTRUSTED;
    /// [`code::GUEST_TRAPPED`].
    guest_trapped = GUEST_TRAPPED;
    /// [`code::DEADLINE`].
    deadline = DEADLINE;
    /// [`code::LIMIT`].
    limit = LIMIT;
    /// [`code::NOT_INSTALLED`].
    not_installed = NOT_INSTALLED;
}

impl Error {
    /// An error of any code, without details.
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// The same error with these details.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The same error with `context` and ": " before its message.
    #[must_use]
    pub fn context(mut self, context: impl std::fmt::Display) -> Self {
        self.msg = format!("{context}: {}", self.msg);
        self
    }

    /// The object as the Go library prints it: four spaces of indentation, no newline at the end, `<`, `>` and `&`
    /// escaped, no `details` when there are none and never a `cniVersion` (SPEC.md lists one; no plugin prints it).
    pub fn to_json(&self) -> String {
        go_json::to_string_indent(self).unwrap_or_else(|_| format!("{{\n    \"code\": {}\n}}", self.code))
    }

    /// Reads what a delegate printed before it exited with an error. None when it is no error object, in which case a
    /// caller quotes the text itself.
    pub fn from_json(text: &[u8]) -> Option<Self> {
        let error: Self = go_json::from_slice(text).ok()?;
        (!error.msg.is_empty()).then_some(error)
    }

    /// `err.Error()` of the Go library, which is what reaches users through the runtime.
    fn text(&self) -> String {
        if self.details.is_empty() { self.msg.clone() } else { format!("{}; {}", self.msg, self.details) }
    }
}

impl From<go_json::JsonError> for Error {
    fn from(error: go_json::JsonError) -> Self {
        Self::decode(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_the_go_library() {
        let error = Error::invalid_environment("required env variables [CNI_PATH] missing");
        assert_eq!(
            error.to_json(),
            "{\n    \"code\": 4,\n    \"msg\": \"required env variables [CNI_PATH] missing\"\n}"
        );
        let error = Error::invalid_config("a <b>").with_details("\"c\" & d\n");
        assert_eq!(
            error.to_json(),
            "{\n    \"code\": 7,\n    \"msg\": \"a \\u003cb\\u003e\",\n    \"details\": \"\\\"c\\\" \\u0026 d\\n\"\n}"
        );
        assert_eq!(error.to_string(), "a <b>; \"c\" & d\n");
        assert_eq!(error.context("x").to_string(), "x: a <b>; \"c\" & d\n");
    }

    #[test]
    fn reads_a_delegates_answer() {
        let error = Error::try_again("later").with_details("d");
        assert_eq!(Error::from_json(error.to_json().as_bytes()), Some(error));
        let old = br#"{"cniVersion": "1.0.0", "Code": 7, "msg": "m", "details": null}"#;
        assert_eq!(Error::from_json(old), Some(Error::invalid_config("m")));
        for text in ["", "panic: x", "{}", "[]", r#"{"code": 7}"#, r#"{"code": -7, "msg": "m"}"#] {
            assert_eq!(Error::from_json(text.as_bytes()), None, "{text}");
        }
    }
}
