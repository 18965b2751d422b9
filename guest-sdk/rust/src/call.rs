//! What the runtime asked for.

use crate::bindings::imports::sandwire::cni::types::{NetworkRequest, Request};
use crate::{CniResult, Failure, code, go_json};
use serde::de::DeserializeOwned;

/// Which command of CNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Attach.
    Add,
    /// Detach. Must succeed when there is nothing to detach.
    Del,
    /// Look whether everything is as ADD left it, and change nothing.
    Check,
}

/// One CNI call for one attachment.
#[derive(Debug, Clone)]
pub struct Call {
    verb: Verb,
    request: Request,
}

impl Call {
    pub(crate) fn new(verb: Verb, request: Request) -> Self {
        Self { verb, request }
    }

    /// ADD, DEL or CHECK.
    pub fn verb(&self) -> Verb {
        self.verb
    }

    /// CNI_CONTAINERID.
    pub fn container_id(&self) -> &str {
        &self.request.container_id
    }

    /// CNI_IFNAME.
    pub fn ifname(&self) -> &str {
        &self.request.ifname
    }

    /// What a result puts into `interfaces[].sandbox`; empty when the container is gone. Nothing to open.
    pub fn sandbox(&self) -> &str {
        &self.request.sandbox
    }

    /// The values of these keys of CNI_ARGS, with their exact case; the last one of each counts.
    ///
    /// # Errors
    /// Code 4 for a key that is not among them, unless `IgnoreUnknown` is true: a misspelt `IP` must not silently give
    /// another address.
    pub fn args<const N: usize>(&self, known: [&str; N]) -> Result<[Option<&str>; N], Failure> {
        Ok(sandwire_cni::args::load(&self.request.args, known)?)
    }

    /// All pairs of CNI_ARGS in their order, for a plugin whose configuration names keys of its own choice (dhcp's
    /// `fromArg`). A part without `=` has an empty key.
    pub fn all_args(&self) -> &[(String, String)] {
        &self.request.args
    }

    /// A key of `request.extra` in the contract.
    pub fn extra(&self, key: &str) -> Option<&str> {
        self.request.extra.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// The network configuration as the runtime sent it, without prevResult.
    pub fn config_text(&self) -> &str {
        &self.request.config
    }

    /// The network configuration. Keys match as in Go: without regard to case, `null` as absent.
    ///
    /// # Errors
    /// Code 6 when it doesn't fit `T`; say whose configuration with [`crate::OrFail`].
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        parse(&self.request.config)
    }

    /// The result of the plugin before this one in ADD, of the whole ADD in DEL and CHECK.
    ///
    /// # Errors
    /// Code 6 when it is no CNI result.
    pub fn prev_result(&self) -> Result<Option<CniResult>, Failure> {
        self.request.prev_result.as_deref().map(result).transpose()
    }

    /// The same where it must be there (CHECK).
    ///
    /// # Errors
    /// Code 7 with the reference's text when there is none.
    pub fn require_prev_result(&self) -> Result<CniResult, Failure> {
        self.prev_result()?.ok_or_else(|| Failure::config("Required prevResult missing"))
    }
}

/// A CNI call for a network and no attachment (GC, STATUS).
#[derive(Debug, Clone)]
pub struct NetworkCall {
    request: NetworkRequest,
}

impl NetworkCall {
    pub(crate) fn new(request: NetworkRequest) -> Self {
        Self { request }
    }

    /// The network configuration as the runtime sent it.
    pub fn config_text(&self) -> &str {
        &self.request.config
    }

    /// See [`Call::config`].
    ///
    /// # Errors
    /// See [`Call::config`].
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        parse(&self.request.config)
    }
}

/// A network configuration or a part of one, its keys matched as in Go: without regard to case, `null` as absent.
///
/// # Errors
/// Code 6 when it does not fit `T`.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    go_json::from_str(text).map_err(|error| Failure::new(code::DECODE, error.to_string()))
}

/// A CNI result in the shape of 1.1.0.
pub(crate) fn result(text: &str) -> Result<CniResult, Failure> {
    go_json::from_str(text).map_err(|error| Failure::new(code::DECODE, format!("could not parse the result: {error}")))
}

/// The text that `attach.add` gives to the host.
pub(crate) fn result_text(result: &CniResult) -> Result<String, Failure> {
    serde_json::to_string(result).map_err(|error| Failure::internal(error.to_string()))
}
