//! `wait`: the host listens for kernel events.

use super::parse;
use crate::bindings::wait;
use crate::guest::Guest;
use crate::handles::{LinkHandle, Right};
use crate::refusal::Answer;
use std::time::Duration;
use wasmtime::component::Resource;

impl wait::Host for Guest {
    fn link_up(&mut self, l: Resource<LinkHandle>, timeout_ms: u32) -> Answer<()> {
        let link = parse::link(&self.table, &l, Right::See, "look at")?;
        let session = self.session()?;
        let timeout = Duration::from_millis(timeout_ms.into()).min(session.deadline.left());
        Ok(session.kernel()?.wait_link_up(link.id, timeout)?)
    }

    fn addresses(&mut self, l: Resource<LinkHandle>, timeout_ms: u32) -> Answer<()> {
        let link = parse::link(&self.table, &l, Right::See, "look at")?;
        let session = self.session()?;
        let timeout = Duration::from_millis(timeout_ms.into()).min(session.deadline.left());
        Ok(session.kernel()?.wait_addresses(link.id, timeout)?)
    }
}
