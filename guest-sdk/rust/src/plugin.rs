//! What a plugin is: one type with `add` and `del`, and the optional verbs it has.

use crate::call::Verb;
use crate::{Attachment, Call, CniResult, Failure, NetworkCall};

/// The two verbs that every plugin has.
pub trait Plugin {
    /// Whether a panic's place and text are written to the log before the call ends. Without it the runtime is told that
    /// the plugin trapped, and nothing more: a component has no stderr. It costs the import of `log`, which an operator
    /// grants, and 2 KB.
    const SAYS_PANICS: bool = false;

    /// Attaches the container's interface.
    ///
    /// No clean-up code: when this fails, the host undoes all that was done, newest first.
    ///
    /// # Errors
    /// The CNI error object.
    fn add(call: &Call) -> Result<CniResult, Failure>;

    /// Detaches. The namespace, the interface, prevResult and the agent may all be gone, and it is called again until
    /// it succeeds: what is missing is no error ([`crate::OrGone`]).
    ///
    /// # Errors
    /// The CNI error object.
    fn del(call: &Call) -> Result<(), Failure>;
}

/// CHECK. The host refuses every change while it runs.
pub trait Check {
    /// Whether everything is as ADD left it; what later plugins of the chain changed is tolerated.
    ///
    /// # Errors
    /// What is not as ADD left it.
    fn check(call: &Call) -> Result<(), Failure>;
}

/// GC, for state that the host can't know. Leases, rules, links, notes and endpoint calls it collects by itself.
pub trait Gc {
    /// `valid`: the attachments to keep; `None` when the runtime did not say.
    ///
    /// # Errors
    /// The CNI error object.
    fn gc(call: &NetworkCall, valid: Option<&[Attachment]>) -> Result<(), Failure>;
}

/// STATUS: whether an ADD would work now.
pub trait Status {
    /// # Errors
    /// Code 50 (not available) or 51 (not available, and what is there may have limited connectivity).
    fn status(call: &NetworkCall) -> Result<(), Failure>;
}

/// Makes a type the plugin of this component: `export!(Ptp);`, with the optional verbs it has
/// `export!(Ptp: check, status);`. What is not named is not exported, and the host answers it.
#[macro_export]
macro_rules! export {
    ($plugin:ty) => {
        $crate::export!($plugin: );
    };
    ($plugin:ty: $($verb:ident),* $(,)?) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Component;
            impl $crate::bindings::attach::exports::sandwire::cni::attach::Guest for Component {
                fn add(request: $crate::glue::Request) -> ::core::result::Result<::std::string::String, $crate::Failure> {
                    $crate::glue::add::<$plugin>(request)
                }
                fn del(request: $crate::glue::Request) -> ::core::result::Result<(), $crate::Failure> {
                    $crate::glue::del::<$plugin>(request)
                }
            }
            $crate::bindings::attach::export_attach!(Component);
            $($crate::__export_verb!($verb $plugin, Component);)*
        };
        // Native builds (unit tests) have no exports, but the same must compile and be in use.
        #[cfg(not(target_family = "wasm"))]
        const _: () = {
            let _ = ($crate::glue::add::<$plugin>, $crate::glue::del::<$plugin>);
            $(let _ = $crate::glue::$verb::<$plugin>;)*
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_verb {
    (check $plugin:ty, $component:ident) => {
        impl $crate::bindings::check::exports::sandwire::cni::check::Guest for $component {
            fn check(request: $crate::glue::Request) -> ::core::result::Result<(), $crate::Failure> {
                $crate::glue::check::<$plugin>(request)
            }
        }
        $crate::bindings::check::export_check!($component);
    };
    (gc $plugin:ty, $component:ident) => {
        impl $crate::bindings::gc::exports::sandwire::cni::gc::Guest for $component {
            fn gc(
                request: $crate::glue::NetworkRequest,
                valid: ::core::option::Option<::std::vec::Vec<$crate::Attachment>>,
            ) -> ::core::result::Result<(), $crate::Failure> {
                $crate::glue::gc::<$plugin>(request, valid)
            }
        }
        $crate::bindings::gc::export_gc!($component);
    };
    (status $plugin:ty, $component:ident) => {
        impl $crate::bindings::status::exports::sandwire::cni::status::Guest for $component {
            fn status(request: $crate::glue::NetworkRequest) -> ::core::result::Result<(), $crate::Failure> {
                $crate::glue::status::<$plugin>(request)
            }
        }
        $crate::bindings::status::export_status!($component);
    };
}

/// What [`export!`] expands to calls of.
#[doc(hidden)]
pub mod glue {
    use super::{Attachment, Call, Check, Failure, Gc, NetworkCall, Plugin, Status, Verb};
    use crate::host::log;

    pub use crate::bindings::imports::sandwire::cni::types::{NetworkRequest, Request};

    fn prepare<P: Plugin>() {
        if P::SAYS_PANICS {
            say_panics();
        }
    }

    /// Each call has a component of its own, so this is set once in its life.
    pub fn say_panics() {
        std::panic::set_hook(Box::new(|panic| log::log(log::Level::Critical, "panic", &panic.to_string())));
    }

    /// The `attach.add` export.
    pub fn add<P: Plugin>(request: Request) -> Result<String, Failure> {
        prepare::<P>();
        crate::call::result_text(&P::add(&Call::new(Verb::Add, request))?)
    }

    /// The `attach.del` export.
    pub fn del<P: Plugin>(request: Request) -> Result<(), Failure> {
        prepare::<P>();
        P::del(&Call::new(Verb::Del, request))
    }

    /// The `check.check` export.
    pub fn check<P: Check + Plugin>(request: Request) -> Result<(), Failure> {
        prepare::<P>();
        P::check(&Call::new(Verb::Check, request))
    }

    /// The `gc.gc` export.
    pub fn gc<P: Gc + Plugin>(request: NetworkRequest, valid: Option<Vec<Attachment>>) -> Result<(), Failure> {
        prepare::<P>();
        P::gc(&NetworkCall::new(request), valid.as_deref())
    }

    /// The `status.status` export.
    pub fn status<P: Status + Plugin>(request: NetworkRequest) -> Result<(), Failure> {
        prepare::<P>();
        P::status(&NetworkCall::new(request))
    }
}
