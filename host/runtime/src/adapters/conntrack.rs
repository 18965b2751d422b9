//! `conntrack`: tracked connections that were first sent to a port are forgotten.

use super::firewall::number;
use super::parse;
use crate::bindings::conntrack;
use crate::bindings::firewall::Protocol;
use crate::guest::Guest;
use crate::handles::NetnsHandle;
use crate::refusal::{Answer, Refusal};
use wasmtime::component::Resource;

impl conntrack::Host for Guest {
    fn flush(&mut self, ns: Resource<NetnsHandle>, protocol: Protocol, dst: Option<String>, port: u16) -> Answer<u32> {
        let netns = parse::netns(&self.table, &ns)?.netns;
        let dst = dst.as_deref().map(parse::ip).transpose()?;
        let protocol = number(protocol);
        let session = self.session()?;
        if !session.given.has_port(protocol, port) {
            return Err(Refusal::denied(format!(
                "may not forget connections to port {port}: it is none that the runtime maps to the attachment"
            )));
        }
        // Nothing to undo: what goes on talking is tracked anew.
        session.forget_connections(netns, protocol, dst, port)
    }
}
