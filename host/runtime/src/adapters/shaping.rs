//! `shaping`: not in this release (docs/contract.md).

use crate::bindings::shaping::{self, Rate};
use crate::guest::Guest;
use crate::handles::LinkHandle;
use crate::refusal::{Answer, Refusal};
use wasmtime::component::Resource;

fn later<T>() -> Answer<T> {
    Err(Refusal::unsupported("limit bandwidth"))
}

impl shaping::Host for Guest {
    fn limit_output(&mut self, _: Resource<LinkHandle>, _: Rate) -> Answer<()> {
        later()
    }

    fn limit_input(&mut self, _: Resource<LinkHandle>, _: String, _: Rate) -> Answer<Resource<LinkHandle>> {
        later()
    }

    fn limits(&mut self, _: Resource<LinkHandle>) -> Answer<(Option<Rate>, Option<Rate>)> {
        later()
    }

    fn clear(&mut self, _: Resource<LinkHandle>) -> Answer<()> {
        later()
    }
}
