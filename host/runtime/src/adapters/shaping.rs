//! `shaping` and `conntrack`: not in this release (docs/contract.md).

use crate::bindings::conntrack;
use crate::bindings::firewall::Protocol;
use crate::bindings::shaping::{self, Rate};
use crate::guest::Guest;
use crate::handles::{LinkHandle, NetnsHandle};
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

impl conntrack::Host for Guest {
    fn flush(&mut self, _: Resource<NetnsHandle>, _: Protocol, _: Option<String>, _: u16) -> Answer<u32> {
        Err(Refusal::unsupported("forget tracked connections"))
    }
}
