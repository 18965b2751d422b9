//! Leases of DHCP servers, which somebody has to renew: a CNI plugin is gone when its pod runs. The reference has a daemon for it,
//! whose leases end with it; here the journal has them, and who is called by a timer renews what is due (RFC 2131, section 4.4.5).

use super::attachments::netns_of;
use super::{Finding, Kind, Options, Remedy, in_time, journal_of};
use crate::deadline::Deadline;
use crate::session::dhcp::Held;
use nix::sys::signal::Signal;
use sandwire_kernel::linux::{LinuxKernel, Needs, open_netns, open_own, same_netns};
use sandwire_kernel::{DhcpLease, DhcpRequest, Kernel, KernelError, LinkChanges, LinkInfo, boot_time};
use sandwire_policy::paths;
use sandwire_state::journal::{self, Attachment, Entry, State, Summary};
use sandwire_state::{Outcome, StateError};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

/// A server of the pod's own network answers in milliseconds. A DEL of the pod waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(4);
/// The same for one that was silent when others asked.
const LITTLE: Duration = Duration::from_secs(1);
/// More than one conversation of each kind takes.
const TALK: Duration = Duration::from_secs(15);
/// How many have to ask in vain before the others do not wait for the same server. Of one alone it may be the pod's own doing.
const IN_VAIN: usize = 2;

pub(super) fn mend(options: &Options) -> Outcome<Vec<Finding>> {
    let mut round = Round::default();
    let mut findings = Vec::new();
    for summary in journal::list(Path::new(paths::JOURNAL), None)? {
        for entry in &summary.pending {
            let attachment = &summary.attachment;
            findings.extend(match held(entry) {
                None => None,
                Some(Err(why)) => Some(Finding::about(Kind::DueLease, attachment, why, Remedy::Told)),
                Some(Ok(held)) => round.look_at(options, attachment, entry.id, &held)?,
            });
            if round.is_stopped {
                return Ok(findings);
            }
        }
    }
    Ok(findings)
}

/// What an attachment has, if it is known to have it.
fn held(entry: &Entry) -> Option<Result<Held, String>> {
    if entry.state != State::Done {
        return None;
    }
    let held = Held::of(&entry.undo)?;
    Some(held.map_err(|error| format!("another release wrote down its lease: {error}; it is not renewed by this one")))
}

/// The leases that an attachment has of DHCP servers, as far as this release can read them.
pub fn leased(summary: &Summary) -> impl Iterator<Item = DhcpLease> {
    summary.pending.iter().filter_map(held).filter_map(Result::ok).map(|held| held.lease)
}

/// Whether a signal asks for the end, and not the time limit of one attachment.
fn is_to_stop() -> bool {
    Deadline::signal().is_some_and(|signal| signal != Signal::SIGALRM)
}

fn now() -> Outcome<u64> {
    boot_time().map_err(|error| StateError::Other(error.to_string()))
}

fn how_old(lease: &DhcpLease, now: u64) -> String {
    match lease.left(now) {
        Some(left) => format!("it lasts for {left} s more, of {} s", lease.seconds),
        None => "its time is over".to_owned(),
    }
}

fn finding(attachment: &Attachment, held: &Held, text: &str, remedy: Remedy) -> Finding {
    let text = format!("{} of server {}: {text}", held.lease.address, held.lease.server);
    let address = Some(IpAddr::V4(held.lease.address));
    Finding { address, ..Finding::about(Kind::DueLease, attachment, text, remedy) }
}

/// What one run has seen of servers.
#[derive(Debug, Default)]
struct Round {
    /// Which have not answered, in which network, once for each pod that asked.
    silent: Vec<(String, Ipv4Addr)>,
    /// A signal asks for the end.
    is_stopped: bool,
}

impl Round {
    fn look_at(
        &mut self,
        options: &Options,
        attachment: &Attachment,
        id: u64,
        held: &Held,
    ) -> Outcome<Option<Finding>> {
        let now = now()?;
        let Some(how) = held.lease.due(now) else { return Ok(None) };
        let say = |text: &str, remedy| Ok(Some(finding(attachment, held, text, remedy)));
        if options.dry_run {
            return say(&how_old(&held.lease, now), Remedy::WouldMend);
        }
        let is_silent = self.is_silent(attachment, held);
        if is_silent && how == DhcpRequest::Renew {
            return say(&format!("not renewed: its server is silent; {}", how_old(&held.lease, now)), Remedy::Left);
        }
        // Whatever is wrong with one must not keep the others from being renewed.
        match in_time(|| self.one(attachment, id, held, if is_silent { LITTLE } else { PATIENCE })) {
            Ok(found) => Ok(found),
            Err(error) => say(&format!("not renewed: {error}"), Remedy::Left),
        }
    }

    fn is_silent(&self, attachment: &Attachment, held: &Held) -> bool {
        let is_it =
            |(network, server): &&(String, Ipv4Addr)| *network == attachment.network && *server == held.lease.server;
        self.silent.iter().filter(is_it).count() >= IN_VAIN
    }

    /// One of them, under its attachment's lock, if it is still what it was.
    fn one(&mut self, attachment: &Attachment, id: u64, seen: &Held, patience: Duration) -> Outcome<Option<Finding>> {
        let mut journal = match journal_of(attachment)? {
            Ok(journal) => journal,
            Err(busy) => {
                self.is_stopped = is_to_stop();
                return Ok(Some(busy));
            }
        };
        let is_it = |entry: &Entry| entry.id == id && matches!(held(entry), Some(Ok(held)) if held == *seen);
        let is_there = journal.pending().into_iter().any(is_it);
        // Of an ADD that was killed: taken back, not renewed.
        if !is_there || journal.uncommitted().iter().any(|entry| entry.id == id) {
            journal.remove_if_empty()?;
            return Ok(None);
        }
        // The time for the lock is no time for talking.
        let io = |error: std::io::Error| StateError::Other(format!("could not set a time limit: {error}"));
        Deadline::arm(TALK).map_err(io)?;
        let say = |text: &str, remedy| Ok(Some(finding(attachment, seen, text, remedy)));
        let path = netns_of(journal.facts().values()).unwrap_or_default().to_owned();
        let (mut kernel, link) = match open(&path, seen) {
            Ok(Some(open)) => open,
            Ok(None) => {
                let text = format!(
                    "not renewed: {path:?} is not its namespace any more, or {:?} there another interface: the pod is gone and its DEL is to come, or the path is another mount namespace's",
                    seen.name
                );
                return say(&text, Remedy::Told);
            }
            Err(error) => return say(&format!("could not look into {path}: {error}"), Remedy::Left),
        };
        let before = now()?;
        if seen.lease.left(before).is_none() && !link.up {
            return Ok(Some(expired(attachment, seen, "its interface is down")));
        }
        match keep_on(&mut kernel, &link, seen, before, patience) {
            Ok(lease) => {
                let text = format!("renewed for {} s", lease.seconds);
                let undo = Held { lease, ..seen.clone() }.undo();
                let undo = undo.map_err(|error| StateError::Other(error.to_string()))?;
                journal.done_again(id, &undo)?;
                say(&text, Remedy::Mended)
            }
            Err(_) if Deadline::interrupted() => {
                self.is_stopped = is_to_stop();
                say("not renewed: it took too long, or was asked to stop", Remedy::Left)
            }
            Err(why) => {
                if why.is_silence {
                    self.silent.push((attachment.network.clone(), seen.lease.server));
                }
                let now = now()?;
                // Only if servers were really asked, and did not give it.
                if seen.lease.left(now).is_some() || !why.is_word {
                    return say(&format!("not renewed: {}; {}", why.text, how_old(&seen.lease, now)), Remedy::Left);
                }
                Ok(Some(self::down(&mut kernel, &link, attachment, seen, &why.text)))
            }
        }
    }
}

/// Why a lease goes on no longer.
struct Refused {
    text: String,
    /// Nobody has answered.
    is_silence: bool,
    /// Servers were asked for it: it is not something of this node that failed.
    is_word: bool,
}

impl Refused {
    fn by(error: &KernelError) -> Self {
        let is_silence = matches!(error, KernelError::Timeout(_));
        Self { text: error.to_string(), is_silence, is_word: is_silence }
    }
}

/// Renews a lease. A server that knows it no longer (its own disk was lost) may give it once more: the pod keeps the address, and
/// nobody else has it. As the reference, a refusal alone takes nothing from the pod before the lease's time is over.
fn keep_on(
    kernel: &mut LinuxKernel,
    link: &LinkInfo,
    held: &Held,
    now: u64,
    patience: Duration,
) -> Result<DhcpLease, Refused> {
    let how = held.lease.due(now).unwrap_or(DhcpRequest::Renew);
    let is_over = held.lease.left(now).is_none();
    let asked = kernel.dhcp_request(link.id, &held.lease, how, patience);
    match asked {
        Ok(Some(lease)) => return Ok(lease),
        Ok(None) => {}
        Err(error) if !is_over || !matches!(error, KernelError::Timeout(_)) => return Err(Refused::by(&error)),
        Err(_) => {}
    }
    let by = |error: KernelError| Refused::by(&error);
    let wants = held.lease.address;
    let offer = kernel.dhcp_discover(link.id, &held.lease.ask, Some(wants), patience).map_err(by)?;
    let refused = |text: String| Refused { text, is_silence: false, is_word: true };
    if offer.address != wants {
        return Err(refused(format!("server {} refuses it, and offers {}", offer.server, offer.address)));
    }
    let given = kernel.dhcp_request(link.id, &offer, DhcpRequest::Offered, patience).map_err(by)?;
    given.ok_or_else(|| refused("its server refuses it".into()))
}

/// As the reference (`downIface`): the server may give the address to another.
fn down(kernel: &mut LinuxKernel, link: &LinkInfo, attachment: &Attachment, held: &Held, why: &str) -> Finding {
    // Before Linux 5.14 it may be another pod's, at the same path: eth0, with the same index, are nearly all.
    if held.netns.is_none() {
        return expired(attachment, held, why);
    }
    let down = LinkChanges { up: Some(false), ..LinkChanges::default() };
    if let Err(error) = kernel.change_link(link.id, &down) {
        return expired(attachment, held, &format!("{why}; its interface could not be set down: {error}"));
    }
    expired(attachment, held, &format!("{why}; its interface was set down"))
}

fn expired(attachment: &Attachment, held: &Held, why: &str) -> Finding {
    let text = format!(
        "its time is over: {why}. The pod has no address until it is attached again, and what the node does for that address (published ports, firewall rules) goes with its DEL: see that the DHCP server answers, and replace the pod"
    );
    Finding { kind: Kind::ExpiredLease, ..finding(attachment, held, &text, Remedy::Left) }
}

/// The kernel with the pod's namespace, and the link there; none when it is another one by now, or gone.
fn open(path: &str, held: &Held) -> Result<Option<(LinuxKernel, LinkInfo)>, KernelError> {
    let netns = match open_netns(path) {
        Ok(netns) => netns,
        Err(KernelError::NotFound(_) | KernelError::Invalid(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let own = open_own()?;
    // A path below /proc is another process's by now.
    if same_netns(own.as_fd(), netns.as_fd())? {
        return Ok(None);
    }
    let needs = Needs { dhcp: true, ..Needs::default() };
    let mut kernel = LinuxKernel::open_with(own, Some(netns.as_fd()), needs)?;
    kernel.set_interrupted(Deadline::interrupted);
    Ok(held.link(&mut kernel)?.map(|link| (kernel, link)))
}
