//! The lease that the attachment has of a DHCP server: it is where the journal says how to give it back, so that whoever ends the
//! attachment gives it back, and `sandwirectl repair`, which renews it, finds it.

use super::Session;
use crate::refusal::{Answer, Refusal};
use sandwire_cni::Command;
use sandwire_kernel::{
    DhcpAsk, DhcpLease, DhcpOption, DhcpRequest, Kernel, KernelError, LinkChanges, LinkId, Netns, Outcome, boot_time,
};
use sandwire_state::journal::{Side, State, Undo};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// How often an address is refused that was just offered (RFC 2131, section 3.1.5: begin again) before there is no use in it.
const TRIES: usize = 4;
/// What has to be left of the call's time to take back what it did, and to say why.
const REST: Duration = Duration::from_secs(5);
/// What it waits at least: within it a server on the same network answers.
const LEAST: Duration = Duration::from_secs(2);
/// RFC 2132, section 9.14.
const CLIENT_IDENTIFIER: u8 = 61;
/// Longer than any reference client identifier (RFC 2132, section 9.14: the length is one byte, and the type takes one).
const CLIENT_NAME_BYTES: usize = 254;

/// How to take it back.
pub(crate) fn undo_of(link: LinkId, name: &str, netns: Option<u64>, lease: &DhcpLease) -> Answer<Undo> {
    let lease = serde_json::to_value(lease).map_err(|error| Refusal::other(error.to_string()))?;
    Ok(Undo::ReleaseDhcp { index: link.index, name: name.to_owned(), netns, lease })
}

impl Session {
    /// Gets a lease for the attachment's interface, or finds the one that it has. Brings the interface up.
    ///
    /// # Errors
    /// As `perform`; `timeout` when no server answers, `exhausted` when they refuse what they offer.
    pub(crate) fn acquire_dhcp(&mut self, plugin: &str, send: Vec<DhcpOption>, ask: Vec<u8>) -> Answer<DhcpLease> {
        self.may_make()?;
        // Who says that it is another client gets, or gives back, that one's address.
        let is_another = |option: &&DhcpOption| {
            option.code == CLIENT_IDENTIFIER && !self.given.identifies_client(&option.value, &self.subject.args)
        };
        if let Some(option) = send.iter().find(is_another) {
            let identifier = String::from_utf8_lossy(&option.value);
            return Err(Refusal::denied(format!(
                "may not ask as DHCP client {identifier:?}: the configuration does not provide this identifier"
            )));
        }
        if let Some(lease) = self.held_dhcp()? {
            self.remember_held(IpAddr::V4(lease.address));
            return Ok(lease);
        }
        let attachment = &self.subject.attachment;
        let name = attachment.ifname.clone();
        // As the reference's (`generateClientID`): a server that knows a pod of its knows it here.
        let client = format!("{}/{}/{name}", attachment.container_id, attachment.network);
        let client = client.bytes().take(CLIENT_NAME_BYTES);
        let ask = DhcpAsk { client: std::iter::once(0).chain(client).collect(), send, ask };
        let link = self.ready_for_dhcp(plugin, &name)?;
        let netns = self.kernel()?.identity(Netns::Container);
        let end = Instant::now() + self.deadline.left().saturating_sub(REST).max(LEAST);
        let left = || end.saturating_duration_since(Instant::now());
        for _ in 0..TRIES {
            let offer = self.kernel()?.dhcp_discover(link, &ask, left())?;
            // With the address in it: who is killed before the server's answer is there leaves what gives it back.
            let intent = self.intend(plugin, &undo_of(link, &name, netns, &offer)?)?;
            match self.kernel()?.dhcp_request(link, &offer, DhcpRequest::Offered, left()) {
                Ok(Some(lease)) => {
                    self.done(intent, Some(&undo_of(link, &name, netns, &lease)?))?;
                    self.remember_held(IpAddr::V4(lease.address));
                    return Ok(lease);
                }
                Ok(None) => self.never_happened(intent)?,
                Err(error) => {
                    if !error.may_have_happened() {
                        self.never_happened(intent)?;
                    }
                    return Err(error.into());
                }
            }
        }
        Err(Refusal::exhausted(format!(
            "DHCP servers on link {name:?} have refused {TRIES} addresses that they had offered"
        )))
    }

    /// The interface, up: nothing can be asked on another.
    fn ready_for_dhcp(&mut self, plugin: &str, name: &str) -> Answer<LinkId> {
        let info = self.kernel()?.link_by_name(Netns::Container, name)?;
        // One without an Ethernet address is refused by who asks, and left as it is.
        if info.up || info.mac.is_none() {
            return Ok(info.id);
        }
        let up = LinkChanges { up: Some(true), ..LinkChanges::default() };
        if self.was_created(info.id) {
            self.change(|kernel| kernel.change_link(info.id, &up))?;
        } else {
            let undo = Undo::restore_state(Side::Container, info.id.index, name, false);
            self.perform(plugin, undo, |kernel| kernel.change_link(info.id, &up), |()| None)?;
        }
        Ok(info.id)
    }

    /// What the attachment has, if its time is not over.
    ///
    /// # Errors
    /// When the time can't be told.
    pub(crate) fn held_dhcp(&mut self) -> Answer<Option<DhcpLease>> {
        let Some(now_in) = self.kernel_if_open().map(|kernel| kernel.identity(Netns::Container)) else {
            return Ok(None);
        };
        let entries = self.journal.iter().flat_map(|journal| journal.pending());
        let mut standing = entries.filter(|entry| entry.state == State::Done).filter_map(|entry| match &entry.undo {
            Undo::ReleaseDhcp { netns, lease, .. } if netns.is_none() || *netns == now_in => {
                serde_json::from_value::<DhcpLease>(lease.clone()).ok()
            }
            _ => None,
        });
        let now = boot_time().map_err(|errno| Refusal::other(format!("could not tell the time: {}", errno.desc())))?;
        Ok(standing.rfind(|lease| lease.left(now).is_some()))
    }

    /// Gives back all that the attachment has; what that was.
    ///
    /// # Errors
    /// The journal's, `denied` in CHECK and STATUS.
    pub(crate) fn release_dhcp(&mut self) -> Answer<Option<Ipv4Addr>> {
        self.may_change()?;
        self.release_dhcp_if(|_| true)
    }

    /// Gives back what was leased on a link before that goes: without it nobody can. (A plugin removes its interface first, and then
    /// has the address manager's DEL, because a file's address may be another's at once; a server's is not.) With the node's end of a
    /// veth goes the other.
    ///
    /// # Errors
    /// As `release_dhcp`.
    pub(crate) fn release_dhcp_on(&mut self, link: LinkId) -> Answer<()> {
        if !self.has_made(|undo| matches!(undo, Undo::ReleaseDhcp { .. })) {
            return Ok(());
        }
        let inside = match link.netns {
            Netns::Container => Some(link),
            Netns::Host => self.kernel()?.veth_peer(link).ok().map(|peer| peer.id),
        };
        let Some(inside) = inside.filter(|inside| inside.netns == Netns::Container) else { return Ok(()) };
        self.release_dhcp_if(|undo| undo.link().is_some_and(|(index, _)| index == inside.index)).map(drop)
    }

    fn release_dhcp_if(&mut self, which: impl Fn(&Undo) -> bool) -> Answer<Option<Ipv4Addr>> {
        let entries = self.journal.iter().flat_map(|journal| journal.pending());
        let leases = entries.map(|entry| &entry.undo).filter(|undo| matches!(undo, Undo::ReleaseDhcp { .. }));
        let held: Vec<Undo> = leases.filter(|undo| which(undo)).cloned().collect();
        let mut released = None;
        for undo in &held {
            give_back(self, undo);
            released = address_of(undo).or(released);
        }
        if self.subject.verb == Command::Add && !held.is_empty() {
            self.forget_held();
        }
        self.taken_back(|undo| held.contains(undo))?;
        Ok(released)
    }
}

fn address_of(undo: &Undo) -> Option<Ipv4Addr> {
    match undo {
        Undo::ReleaseDhcp { lease, .. } => serde_json::from_value(lease.get("address")?.clone()).ok(),
        _ => None,
    }
}

/// Gives a lease back. What can't be told to its server the server finds out when the lease's time is over, as it does of a
/// client that was switched off: nothing of the node is left, and no DEL is to wait or fail for it. But it is tried again: nobody
/// else will.
pub(crate) fn give_back(session: &mut Session, undo: &Undo) {
    let Some(kernel) = session.kernel_if_open() else { return };
    if let Err(error) = tell(kernel, undo).or_else(|_| tell(kernel, undo)) {
        let address = address_of(undo).map_or_else(|| "a lease".to_owned(), |address| address.to_string());
        crate::log::note(
            "warn",
            &format!(
                "{address} could not be given back to its DHCP server, which keeps it until its time is over: {error}"
            ),
        );
    }
}

fn tell(kernel: &mut (dyn Kernel + Send), undo: &Undo) -> Outcome<()> {
    let Undo::ReleaseDhcp { index, name, netns, lease } = undo else { return Ok(()) };
    // It went with its namespace, which may be another one by now, or with its interface.
    if !kernel.has_container() || (netns.is_some() && *netns != kernel.identity(Netns::Container)) {
        return Ok(());
    }
    let link = LinkId { netns: Netns::Container, index: *index };
    match kernel.link_info(link) {
        Ok(info) if info.name == *name => {}
        Ok(_) | Err(KernelError::NotFound(_)) => return Ok(()),
        Err(error) => return Err(error),
    }
    let lease = serde_json::from_value::<DhcpLease>(lease.clone())
        .map_err(|error| KernelError::Other(format!("the journal has no lease that this release knows: {error}")))?;
    kernel.dhcp_release(link, &lease)
}
