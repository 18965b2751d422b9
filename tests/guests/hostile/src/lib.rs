//! A plugin that does what a plugin must not. The configuration says which act: `{"act": "spin", ...}`, in ADD unless
//! `"when"` names another verb. Every other call succeeds with an empty result.
//!
//! One component for all acts: what a call needs is what its policy grants, so each test grants what its act could be
//! tempted by, and proves that it is stopped all the same.

mod claims;
mod dhcp;
mod lies;
mod limits;
mod reach;
mod undo;

use sandwire_plugin::Failure;
use serde_json::Value;

/// What an act gets: the configuration.
pub type Act = fn(&Value) -> Result<String, Failure>;

/// Every act by its name. A test looks whether each is proven to be harmless.
pub fn acts() -> Vec<(&'static str, Act)> {
    [claims::ACTS, dhcp::ACTS, limits::ACTS, lies::ACTS, reach::ACTS, undo::ACTS].concat()
}

/// A result without anything in it.
pub(crate) const NOTHING: &str = "{\"cniVersion\":\"1.1.0\"}";

/// A text of the configuration.
pub(crate) fn text<'a>(config: &'a Value, key: &str) -> &'a str {
    config.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// An attempt that succeeded although it must not: the test sees this in place of the refusal.
pub(crate) fn succeeded(what: &str) -> Result<String, Failure> {
    Err(Failure::new(201, format!("NOT STOPPED: {what}")))
}

/// Does what the configuration says, if it is meant for this verb.
pub fn perform(verb: &str, config: &str) -> Result<String, Failure> {
    let config: Value = serde_json::from_str(config).map_err(|error| Failure::internal(error.to_string()))?;
    let when = config.get("when").and_then(Value::as_str).unwrap_or("ADD");
    if when != verb {
        return Ok(NOTHING.to_owned());
    }
    let name = text(&config, "act");
    match acts().into_iter().find(|(act, _)| *act == name) {
        Some((_, act)) => act(&config),
        None => Err(Failure::internal(format!("there is no act {name:?}"))),
    }
}

#[cfg(target_family = "wasm")]
mod component {
    use crate::perform;
    use sandwire_plugin::bindings::{attach, check, gc, status};
    use sandwire_plugin::glue::{NetworkRequest, Request};
    use sandwire_plugin::{Attachment, Failure};

    struct Hostile;

    impl attach::exports::sandwire::cni::attach::Guest for Hostile {
        fn add(request: Request) -> Result<String, Failure> {
            perform("ADD", &request.config)
        }

        fn del(request: Request) -> Result<(), Failure> {
            perform("DEL", &request.config).map(|_| ())
        }
    }

    impl check::exports::sandwire::cni::check::Guest for Hostile {
        fn check(request: Request) -> Result<(), Failure> {
            perform("CHECK", &request.config).map(|_| ())
        }
    }

    impl gc::exports::sandwire::cni::gc::Guest for Hostile {
        fn gc(request: NetworkRequest, _: Option<Vec<Attachment>>) -> Result<(), Failure> {
            perform("GC", &request.config).map(|_| ())
        }
    }

    impl status::exports::sandwire::cni::status::Guest for Hostile {
        fn status(request: NetworkRequest) -> Result<(), Failure> {
            perform("STATUS", &request.config).map(|_| ())
        }
    }

    attach::export_attach!(Hostile);
    check::export_check!(Hostile);
    gc::export_gc!(Hostile);
    status::export_status!(Hostile);
}
