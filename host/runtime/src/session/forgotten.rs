//! Tracked connections that are forgotten: a plugin asks for one port after the other, and each time the kernel would walk through
//! all connections of the node, 20 ms where there is room for 262,144 of them.

use super::Session;
use crate::refusal::Answer;
use sandwire_kernel::Netns;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What one walk has done already, until anything else is asked of the kernel.
#[derive(Debug)]
pub(super) struct Forgotten {
    netns: Netns,
    protocol: u8,
    /// Ports that were not asked for yet, and how many connections each had.
    ports: BTreeMap<u16, u32>,
}

impl Session {
    /// Forgets connections that were first sent to a port that the runtime maps to the attachment, of one address or of any; how
    /// many. With the first port goes what was sent to the others.
    ///
    /// # Errors
    /// As `change`.
    pub(crate) fn forget_connections(
        &mut self,
        netns: Netns,
        protocol: u8,
        destination: Option<IpAddr>,
        port: u16,
    ) -> Answer<u32> {
        self.may_change()?;
        if let Some(done) = &mut self.forgotten
            && (done.netns, done.protocol, destination) == (netns, protocol, None)
            && let Some(count) = done.ports.remove(&port)
        {
            return Ok(count);
        }
        let all = match destination {
            Some(_) => BTreeSet::from([port]),
            None => self.given.ports(protocol),
        };
        let counts = self.change(|kernel| kernel.flush_connections(netns, protocol, destination, &all))?;
        let count = |of: &u16| counts.get(of).copied().unwrap_or(0);
        if destination.is_none() {
            let ports = all.iter().filter(|of| **of != port).map(|of| (*of, count(of))).collect();
            self.forgotten = Some(Forgotten { netns, protocol, ports });
        }
        Ok(count(&port))
    }
}
