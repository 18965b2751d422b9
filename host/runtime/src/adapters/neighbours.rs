//! `neighbours`: not in this release (docs/contract.md).

use crate::bindings::neighbours::{self, FdbEntry, Neighbour};
use crate::guest::Guest;
use crate::handles::LinkHandle;
use crate::refusal::{Answer, Refusal};
use wasmtime::component::Resource;

fn later<T>() -> Answer<T> {
    Err(Refusal::unsupported("read or write neighbour and forwarding entries"))
}

impl neighbours::Host for Guest {
    fn set(&mut self, _: Resource<LinkHandle>, _: String, _: String) -> Answer<()> {
        later()
    }

    fn remove(&mut self, _: Resource<LinkHandle>, _: String) -> Answer<()> {
        later()
    }

    fn get(&mut self, _: Resource<LinkHandle>) -> Answer<Vec<Neighbour>> {
        later()
    }

    fn set_fdb(
        &mut self,
        _: Resource<LinkHandle>,
        _: String,
        _: Option<String>,
        _: Vec<(String, String)>,
    ) -> Answer<()> {
        later()
    }

    fn remove_fdb(&mut self, _: Resource<LinkHandle>, _: String, _: Option<String>) -> Answer<()> {
        later()
    }

    fn get_fdb(&mut self, _: Resource<LinkHandle>) -> Answer<Vec<FdbEntry>> {
        later()
    }
}
