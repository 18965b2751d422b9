//! Leases of DHCP servers, which somebody has to renew: a CNI plugin is gone when its pod runs. The reference has a daemon for it,
//! whose leases end with it; here the journal has them, and who is called by a timer renews what is due (RFC 2131, section 4.4.5).

use super::attachments::netns_of;
use super::{Finding, Kind, Options, Remedy, in_time, journal_of};
use crate::deadline::Deadline;
use crate::session::dhcp::undo_of;
use sandwire_kernel::linux::{LinuxKernel, Needs, open_netns, open_own};
use sandwire_kernel::{DhcpLease, DhcpRequest, Kernel, KernelError, LinkChanges, LinkId, LinkInfo, Netns, boot_time};
use sandwire_policy::paths;
use sandwire_state::journal::{self, Attachment, Entry, Journal, State, Undo};
use sandwire_state::{Outcome, StateError};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

/// A server of the pod's own network answers in milliseconds. A DEL of the pod waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(4);

pub(super) fn mend(options: &Options) -> Outcome<Vec<Finding>> {
    let mut findings = Vec::new();
    // Of all the pods that have their addresses of one server, which is down, not each is to wait for it.
    let mut silent: Vec<Ipv4Addr> = Vec::new();
    for summary in journal::list(Path::new(paths::JOURNAL), None)? {
        // What is left over is taken back, not renewed.
        if summary.has_left_over() {
            continue;
        }
        let now = now()?;
        for lease in summary.pending.iter().filter_map(Held::of) {
            let Some(how) = lease.lease.due(now) else { continue };
            let may_wait = how == DhcpRequest::Renew && silent.contains(&lease.lease.server);
            let found = match () {
                () if options.dry_run => {
                    Some(lease.finding(&summary.attachment, how_old(&lease.lease, now), Remedy::WouldMend))
                }
                () if may_wait => Some(lease.finding(&summary.attachment, "its server is silent".into(), Remedy::Left)),
                () => in_time(|| one(&summary.attachment, &lease, &mut silent))?,
            };
            findings.extend(found);
        }
    }
    Ok(findings)
}

fn now() -> Outcome<u64> {
    boot_time().map_err(|errno| StateError::Other(format!("could not tell the time: {}", errno.desc())))
}

fn how_old(lease: &DhcpLease, now: u64) -> String {
    match lease.left(now) {
        Some(left) => format!("it lasts for {left} s more, of {} s", lease.seconds),
        None => format!("its {} s are over", lease.seconds),
    }
}

/// A lease that an attachment has.
#[derive(Debug, Clone, PartialEq)]
struct Held {
    id: u64,
    index: u32,
    name: String,
    netns: Option<u64>,
    lease: DhcpLease,
}

impl Held {
    fn of(entry: &Entry) -> Option<Self> {
        match &entry.undo {
            Undo::ReleaseDhcp { index, name, netns, lease } if entry.state == State::Done => Some(Self {
                id: entry.id,
                index: *index,
                name: name.clone(),
                netns: *netns,
                lease: serde_json::from_value(lease.clone()).ok()?,
            }),
            _ => None,
        }
    }

    fn finding(&self, attachment: &Attachment, text: String, remedy: Remedy) -> Finding {
        let text = format!("{} of server {}: {text}", self.lease.address, self.lease.server);
        let address = Some(IpAddr::V4(self.lease.address));
        Finding { address, ..Finding::about(Kind::DueLease, attachment, text, remedy) }
    }
}

/// One of them, under its attachment's lock, if it is still what it was.
fn one(attachment: &Attachment, held: &Held, silent: &mut Vec<Ipv4Addr>) -> Outcome<Option<Finding>> {
    let mut journal = match journal_of(attachment)? {
        Ok(journal) => journal,
        Err(busy) => return Ok(Some(busy)),
    };
    if !journal.pending().into_iter().any(|entry| Held::of(entry).as_ref() == Some(held)) {
        journal.remove_if_empty()?;
        return Ok(None);
    }
    let Some(path) = netns_of(journal.facts().values()).map(str::to_owned) else { return Ok(None) };
    let finding = |text: String, remedy| Ok(Some(held.finding(attachment, text, remedy)));
    let (mut kernel, link) = match open(&path, held) {
        Ok(Some(open)) => open,
        // The pod is gone, and with it who would use the address: DEL or GC of the attachment is to come.
        Ok(None) => return Ok(None),
        Err(error) => return finding(format!("could not look into {path}: {error}"), Remedy::Left),
    };
    let now = now()?;
    let is_over = held.lease.left(now).is_none();
    if is_over && !link.up {
        return expired(attachment, held, "its interface is down");
    }
    let how = held.lease.due(now).unwrap_or(DhcpRequest::Renew);
    let why = match kernel.dhcp_request(link.id, &held.lease, how, PATIENCE) {
        Ok(Some(lease)) => {
            keep(&mut journal, held, &lease)?;
            return finding(format!("renewed for {} s", lease.seconds), Remedy::Mended);
        }
        // Its time is over when the server says so (RFC 2131, section 4.4.5).
        Ok(None) => "its server refuses to renew it".to_owned(),
        Err(error) => {
            silent.push(held.lease.server);
            if !is_over {
                return finding(format!("not renewed: {error}; {}", how_old(&held.lease, now)), Remedy::Left);
            }
            error.to_string()
        }
    };
    // As the reference (`downIface`): the server may give the address to another.
    let down = LinkChanges { up: Some(false), ..LinkChanges::default() };
    match kernel.change_link(link.id, &down) {
        Ok(()) => {
            // From here on nobody takes it for the attachment's (CHECK).
            keep(&mut journal, held, &DhcpLease { seconds: 0, ..held.lease.clone() })?;
            expired(attachment, held, &format!("{why}; its interface was set down"))
        }
        Err(error) => expired(attachment, held, &format!("{why}; its interface could not be set down: {error}")),
    }
}

fn expired(attachment: &Attachment, held: &Held, why: &str) -> Outcome<Option<Finding>> {
    let text = format!(
        "{why}: the pod has no address until it is attached again (see that the DHCP server answers, then replace the pod)"
    );
    Ok(Some(Finding { kind: Kind::ExpiredLease, ..held.finding(attachment, text, Remedy::Left) }))
}

fn keep(journal: &mut Journal, held: &Held, lease: &DhcpLease) -> Outcome<()> {
    let link = LinkId { netns: Netns::Container, index: held.index };
    let undo = undo_of(link, &held.name, held.netns, lease).map_err(|refusal| StateError::Other(refusal.text()))?;
    journal.done_again(held.id, &undo)
}

/// The kernel with the pod's namespace, and the link there; none when it is another one by now, or gone.
fn open(path: &str, held: &Held) -> Result<Option<(LinuxKernel, LinkInfo)>, KernelError> {
    let netns = match open_netns(path) {
        Ok(netns) => netns,
        Err(KernelError::NotFound(_) | KernelError::Invalid(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let needs = Needs { dhcp: true, ..Needs::default() };
    let mut kernel = LinuxKernel::open_with(open_own()?, Some(netns.as_fd()), needs)?;
    kernel.set_interrupted(Deadline::interrupted);
    if held.netns.is_some() && kernel.identity(Netns::Container) != held.netns {
        return Ok(None);
    }
    match kernel.link_info(LinkId { netns: Netns::Container, index: held.index }) {
        Ok(link) if link.name == held.name => Ok(Some((kernel, link))),
        Ok(_) | Err(KernelError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
