//! The lease that the attachment has of a DHCP server: it is where the journal says how to give it back, so that whoever ends the
//! attachment gives it back, and `sandwirectl repair`, which renews it, finds it.

use super::Session;
use crate::refusal::{Answer, Refusal};
use crate::undo::Fate;
use sandwire_cni::Command;
use sandwire_kernel::{
    DhcpAsk, DhcpLease, DhcpOption, DhcpRequest, Kernel, KernelError, LinkChanges, LinkId, LinkInfo, Netns, Outcome,
    boot_time,
};
use sandwire_state::journal::{Side, State, Undo};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// How often what was just offered is not given (RFC 2131, section 3.1.5: begin again) before there is no use in it.
const TRIES: usize = 4;
/// What has to be left of the call's time to take back what it did, and to say why.
const REST: Duration = Duration::from_secs(5);
/// What it waits at least: within it a server on the same network answers.
const LEAST: Duration = Duration::from_secs(2);
/// How long it waits for a server that has offered something, before it asks the others again.
const OFFERED: Duration = Duration::from_secs(8);
/// Bytes of a client identifier after its type (RFC 2132, section 9.14: its length is one byte).
const CLIENT_NAME_BYTES: usize = 254;
/// Where what is sent to an address of the node goes, on whatever link that is (LOOPBACK_IFINDEX). Of the table the kernel says "main"
/// as long as there are no policy rules (`fib_trie_unmerge`).
const LOOPBACK: u32 = 1;

/// A lease as the journal has it, and where it was given.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) netns: Option<u64>,
    pub(crate) lease: DhcpLease,
}

impl Held {
    /// None of an undo that is of no lease; an error of one that another release wrote.
    pub(crate) fn of(undo: &Undo) -> Option<Result<Self, serde_json::Error>> {
        let Undo::ReleaseDhcp { index, name, netns, lease } = undo else { return None };
        let lease = serde_json::from_value(lease.clone());
        Some(lease.map(|lease| Self { index: *index, name: name.clone(), netns: *netns, lease }))
    }

    /// The link that it was given on; none when that is gone, or another one: a runtime may start a sandbox again at the same path,
    /// and each namespace counts its links from 1.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn link(&self, kernel: &mut (dyn Kernel + Send)) -> Outcome<Option<LinkInfo>> {
        let is_another = || self.netns.is_some() && kernel.identity(Netns::Container) != self.netns;
        if !kernel.has_container() || is_another() {
            return Ok(None);
        }
        match kernel.link_info(LinkId { netns: Netns::Container, index: self.index }) {
            Ok(info) => Ok((info.name == self.name).then_some(info)),
            Err(KernelError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How it is taken back.
    ///
    /// # Errors
    /// When it can't be written as JSON.
    pub(crate) fn undo(&self) -> serde_json::Result<Undo> {
        let lease = serde_json::to_value(&self.lease)?;
        Ok(Undo::ReleaseDhcp { index: self.index, name: self.name.clone(), netns: self.netns, lease })
    }
}

fn is_lease(undo: &Undo) -> bool {
    matches!(undo, Undo::ReleaseDhcp { .. })
}

/// Whether it is the lease of this address.
pub(super) fn gave(undo: &Undo, address: IpAddr) -> bool {
    let Undo::ReleaseDhcp { lease, .. } = undo else { return false };
    lease.get("address").and_then(serde_json::Value::as_str).and_then(|text| text.parse().ok()) == Some(address)
}

impl Session {
    /// Gets a lease for the attachment's interface, or finds the one that it has. Brings the interface up.
    ///
    /// # Errors
    /// As `perform`; `timeout` when no server answers, `exhausted` when they do not give what they offer.
    pub(crate) fn acquire_dhcp(&mut self, plugin: &str, send: Vec<DhcpOption>, ask: Vec<u8>) -> Answer<DhcpLease> {
        self.may_make()?;
        self.must_be_provided(&send)?;
        let attachment = &self.subject.attachment;
        let name = attachment.ifname.clone();
        // As the reference's (`generateClientID`): a server that knows a pod of its knows it here.
        let client = format!("{}/{}/{name}", attachment.container_id, attachment.network);
        let client = client.bytes().take(CLIENT_NAME_BYTES);
        let ask = DhcpAsk { client: std::iter::once(0).chain(client).collect(), send, ask };
        let link = self.ready_for_dhcp(plugin, &name)?;
        if let Some(lease) = self.held_dhcp()? {
            self.remember_held(IpAddr::V4(lease.address));
            return Ok(lease);
        }
        // What is there is over, or was another interface's of this name: nobody would find it once there is a new one.
        if self.has_made(is_lease) {
            self.release_dhcp_if(|_| true)?;
        }
        let netns = self.kernel()?.identity(Netns::Container);
        let end = Instant::now() + self.deadline.left().saturating_sub(REST).max(LEAST);
        let left = || end.saturating_duration_since(Instant::now());
        let mut last = None;
        for _ in 0..TRIES {
            // Who has offered something needs time to give it, too.
            let patience = left().saturating_sub(LEAST).max(left() / 2);
            let lease = match self.kernel()?.dhcp_discover(link, &ask, None, patience) {
                Ok(lease) => lease,
                Err(error) => {
                    // Not the server's silence, if the call is to end.
                    self.deadline.check()?;
                    return Err(error.into());
                }
            };
            if self.is_the_nodes(lease.address)? {
                let what = format!("its server has offered {}, which is the node's own address", lease.address);
                last = Some(KernelError::Conflict(what));
                continue;
            }
            let mut held = Held { index: link.index, name: name.clone(), netns, lease };
            let written = |error: serde_json::Error| Refusal::other(error.to_string());
            // With the address in it: who is killed before the server's answer is there leaves what gives it back.
            let undo = held.undo().map_err(written)?;
            let intent = self.intend(plugin, &undo)?;
            match self.kernel()?.dhcp_request(link, &held.lease, DhcpRequest::Offered, left().min(OFFERED)) {
                Ok(Some(lease)) => {
                    held.lease = lease;
                    self.done(intent, Some(&held.undo().map_err(written)?))?;
                    self.remember_held(IpAddr::V4(held.lease.address));
                    return Ok(held.lease);
                }
                Ok(None) => {
                    last = Some(KernelError::Other(format!("its server refused {} then", held.lease.address)));
                    self.never_happened(intent)?;
                }
                Err(error) if error.may_have_happened() => {
                    // It may have given it all the same.
                    let _ = self.release_dhcp_if(|other| *other == undo)?;
                    self.deadline.check()?;
                    last = Some(error);
                }
                Err(error) => {
                    self.never_happened(intent)?;
                    return Err(error.into());
                }
            }
            if left().is_zero() {
                break;
            }
        }
        let why = last.map(|error| format!(": {error}")).unwrap_or_default();
        Err(Refusal::exhausted(format!("DHCP servers on link {name:?} have offered addresses and not given them{why}")))
    }

    /// What a client says of itself decides what servers, and the DNS beside them, make of it: whose address it gets, by which name
    /// others find it. It is the configuration's word.
    fn must_be_provided(&self, send: &[DhcpOption]) -> Answer<()> {
        let given = |option: &&DhcpOption| self.given.provides_option(option.code, &option.value, &self.subject.args);
        match send.iter().find(|option| !given(option)) {
            None => Ok(()),
            Some(option) => Err(Refusal::denied(format!(
                "may not send DHCP option {} with {:?}: the configuration does not provide it (\"provide\" of \"ipam\")",
                option.code,
                String::from_utf8_lossy(&option.value)
            ))),
        }
    }

    /// Rules of the node are made for the addresses that the attachment holds, and a server may be another pod.
    fn is_the_nodes(&mut self, address: Ipv4Addr) -> Answer<bool> {
        // A node without a route there does not have it.
        let found = self.kernel()?.lookup_route(Netns::Host, IpAddr::V4(address)).ok();
        Ok(found.and_then(|found| found.link).is_some_and(|link| link.index == LOOPBACK))
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

    /// What the attachment has on its interface as it is, if its time is not over.
    ///
    /// # Errors
    /// The kernel's; when the time can't be told.
    pub(crate) fn held_dhcp(&mut self) -> Answer<Option<DhcpLease>> {
        let entries = self.journal.iter().flat_map(|journal| journal.pending());
        let done = entries.filter(|entry| entry.state == State::Done).filter_map(|entry| Held::of(&entry.undo));
        let held: Vec<Held> = done.filter_map(Result::ok).collect();
        let now = boot_time()?;
        for one in held.into_iter().rev().filter(|one| one.lease.left(now).is_some()) {
            if let Some(kernel) = self.kernel_if_open()
                && one.link(kernel)?.is_some()
            {
                return Ok(Some(one.lease));
            }
        }
        Ok(None)
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
        self.may_change()?;
        if !self.has_made(is_lease) {
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
        let undos = entries.map(|entry| &entry.undo);
        let leases: Vec<Undo> = undos.filter(|undo| is_lease(undo) && which(undo)).cloned().collect();
        let mut released = None;
        for undo in &leases {
            if give_back(self, undo) == Fate::Undone {
                released = Held::of(undo).and_then(Result::ok).map(|held| held.lease.address).or(released);
            }
        }
        if self.subject.verb == Command::Add && !leases.is_empty() {
            self.forget_held();
        }
        self.taken_back(|undo| leases.contains(undo))?;
        Ok(released)
    }
}

/// Gives a lease back. What can't be told to its server the server finds out when the lease's time is over, as it does of a
/// client that was switched off: nothing of the node is left, and no DEL is to wait or fail for it. But it is tried again: nobody
/// else will.
pub(crate) fn give_back(session: &mut Session, undo: &Undo) -> Fate {
    let Some(kernel) = session.kernel_if_open() else {
        return Fate::Failed("giving back a DHCP lease: this call was opened without network namespaces".into());
    };
    let told = match Held::of(undo) {
        None => Ok(()),
        Some(Ok(held)) => tell(kernel, &held).or_else(|_| tell(kernel, &held)).map_err(|error| error.to_string()),
        Some(Err(error)) => Err(format!("the journal has no lease that this release knows: {error}")),
    };
    if let Err(why) = told {
        crate::log::note(
            "warn",
            &format!(
                "a lease could not be given back to its DHCP server, which keeps it until its time is over ({}): {why}",
                undo.link().map(|(_, name)| name).unwrap_or_default()
            ),
        );
    }
    Fate::Undone
}

fn tell(kernel: &mut (dyn Kernel + Send), held: &Held) -> Outcome<()> {
    // Another may have it by now. (Of what was only offered nobody knows whether it was given.)
    let is_over = held.lease.obtained != 0 && boot_time().is_ok_and(|now| held.lease.left(now).is_none());
    match held.link(kernel)? {
        Some(link) if !is_over => kernel.dhcp_release(link.id, &held.lease),
        // It went with its namespace, or with its interface.
        _ => Ok(()),
    }
}
