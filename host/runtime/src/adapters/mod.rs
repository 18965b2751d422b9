//! One file for each WIT interface. They translate, check the grant, and nothing else: what an operation does lives in
//! the kernel, state or endpoint room, and every change goes through `Session::perform`.

mod addresses;
mod bridging;
mod configure;
mod conntrack;
mod delegate;
mod devices;
mod dhcp;
mod endpoint;
mod files;
mod firewall;
mod kv;
mod leases;
mod links;
mod log;
mod namespaces;
mod neighbours;
mod random;
mod routes;
mod shaping;
mod shared;
mod sysctl;
mod wait;

pub(crate) mod parse;

use crate::bindings::types;
use crate::guest::Guest;
use crate::refusal::Refusal;

impl types::Host for Guest {
    fn convert_error(&mut self, refusal: Refusal) -> wasmtime::Result<types::Error> {
        match refusal {
            Refusal::Guest(error) => Ok(error),
            Refusal::Trap(trap) => Err(trap),
        }
    }
}
