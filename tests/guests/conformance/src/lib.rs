//! A plugin that calls every function of the contract and says what each answered.
//!
//! What it is for: `docs/contract.md` says which functions work, and this is what that is compared with; CHECK and
//! STATUS must refuse whatever changes something, and this tries all of it; and a component that imports everything is
//! what a change of `wit/` must not break, so its binary is kept (`wit/fixtures`).
//!
//! It speaks through the CNI error object: code 200, and in `details` a line `INTERFACE FUNCTION OUTCOME` for each call.

// The lines are the product; a helper that hid the calls would hide what is proven.
#![allow(clippy::too_many_lines)]

mod exercise;

#[cfg(target_family = "wasm")]
mod component {
    use crate::exercise::{self, Subject};
    use sandwire_plugin::bindings::{attach, check, gc, status};
    use sandwire_plugin::glue::{NetworkRequest, Request};
    use sandwire_plugin::{Attachment, Failure};

    struct Conformance;

    fn of(request: &Request) -> Subject<'_> {
        Subject { ifname: &request.ifname, config: &request.config }
    }

    fn network(request: &NetworkRequest) -> Subject<'_> {
        Subject { ifname: "", config: &request.config }
    }

    impl attach::exports::sandwire::cni::attach::Guest for Conformance {
        fn add(request: Request) -> Result<String, Failure> {
            exercise::add(&of(&request), &request.sandbox)
        }

        fn del(request: Request) -> Result<(), Failure> {
            exercise::run(&of(&request))
        }
    }

    impl check::exports::sandwire::cni::check::Guest for Conformance {
        fn check(request: Request) -> Result<(), Failure> {
            exercise::run(&of(&request))
        }
    }

    impl gc::exports::sandwire::cni::gc::Guest for Conformance {
        fn gc(request: NetworkRequest, _: Option<Vec<Attachment>>) -> Result<(), Failure> {
            exercise::run(&network(&request))
        }
    }

    impl status::exports::sandwire::cni::status::Guest for Conformance {
        fn status(request: NetworkRequest) -> Result<(), Failure> {
            exercise::run(&network(&request))
        }
    }

    attach::export_attach!(Conformance);
    check::export_check!(Conformance);
    gc::export_gc!(Conformance);
    status::export_status!(Conformance);
}

// Native builds have no exports, but the same must compile and be in use.
#[cfg(not(target_family = "wasm"))]
const _: () = {
    let _ = (exercise::add, exercise::run);
};
