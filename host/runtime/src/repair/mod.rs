//! What is out of step between the journal, the kernel, the leases and the agents, and mending it: what the next call for
//! an attachment would do, without waiting for one.
//!
//! Takes the locks that calls take, one attachment and one store at a time, so that it may run beside them. It enters
//! a container for its DHCP lease alone (`dhcp`): a path that the journal knows may be another container's by now, and what is in a
//! container goes with it.

mod agents;
mod attachments;
mod dhcp;
mod gateways;
mod journals;
mod leases;
mod ports;
mod rules;

pub use dhcp::leased;
pub use ports::{host_interfaces, unplugged};

use crate::deadline::Deadline;
use sandwire_cni::Error;
use sandwire_policy::paths;
use sandwire_state::journal::{Attachment, Journal};
use sandwire_state::{Outcome, StateError};
use serde::Serialize;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How to go about it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only look.
    pub dry_run: bool,
    /// Where native delegates are, as in CNI_PATH: the journal may want one's DEL.
    pub path: Vec<PathBuf>,
}

/// What is out of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An ADD that was killed: what it did is still there.
    Unfinished,
    /// An undo that could not be done when it was to be: an agent was down, a file system full.
    Kept,
    /// The container's namespace and the node's end of its interface are both gone, without a DEL.
    Gone,
    /// The journal of an attachment has lines that can't be read.
    Damaged,
    /// A journal file without a line: a call that was killed before it did anything.
    BlankJournal,
    /// A journal file that does not say whose it is.
    UnreadableJournal,
    /// Firewall rules in our tables of an attachment that the journal does not know.
    OrphanedRules,
    /// An agent has a port that is named as ours, and that the journal does not know.
    UnknownRegistration,
    /// An agent has forgotten an attachment.
    LostRegistration,
    /// The node's end of an attachment is in no bridge any more.
    LostPort,
    /// The bridge of an agent lacks the address or the MAC of a gateway.
    LostGateway,
    /// An agent with which the journal can't be compared.
    SilentAgent,
    /// A lease of a DHCP server was due to be renewed.
    DueLease,
    /// The time of one is over: the pod has lost its address.
    ExpiredLease,
    /// The address of an attachment is not leased to it any more.
    LostLease,
    /// A lease of an earlier boot.
    EarlierBoot,
    /// A lease file without an owner: a crash of native host-local.
    EmptyLease,
    /// A lease of somebody that the journal does not know.
    UnknownHolder,
    /// Something in a lease directory that is named as an address and is no lease.
    UnreadableLease,
    /// Another call has it now.
    Busy,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    /// It is as it should be now.
    Mended,
    /// A run that does not only look would try.
    WouldMend,
    /// It was tried; not all could be done, and the rest is kept for the next time.
    Left,
    /// Nothing was tried: the text says who can.
    Told,
}

/// One thing that is out of step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// In which network.
    pub network: String,
    /// Whose, if anybody's.
    pub container_id: Option<String>,
    /// The interface; empty when a lease does not say.
    pub interface: Option<String>,
    /// Which address, if it is about one.
    pub address: Option<IpAddr>,
    /// For people: what is there, why, and what to do if this did not.
    pub text: String,
    /// What came of it.
    pub remedy: Remedy,
}

impl Finding {
    fn about(kind: Kind, attachment: &Attachment, text: String, remedy: Remedy) -> Self {
        Self {
            kind,
            network: attachment.network.clone(),
            container_id: Some(attachment.container_id.clone()),
            interface: Some(attachment.ifname.clone()),
            address: None,
            text,
            remedy,
        }
    }

    /// Whether the node is not as it should be (any more). A lease of somebody that the journal does not know is no
    /// fault: native plugins write no journal. Nor is a lease that the next run renews.
    pub fn is_open(&self) -> bool {
        let passes = matches!(self.kind, Kind::UnknownHolder | Kind::Busy)
            || (self.kind == Kind::DueLease && matches!(self.remedy, Remedy::WouldMend | Remedy::Told));
        self.remedy != Remedy::Mended && !passes
    }
}

/// Looks for what is out of step, and mends it unless `options` say to only look.
///
/// # Errors
/// When the journal or the lease directories can't be read. What can't be mended is a finding.
pub fn repair(options: &Options) -> Result<Vec<Finding>, Error> {
    let failed = |error: StateError| Error::internal(format!("could not look for what is out of step: {error}"));
    // First whose each journal is; and after the attachments, for what they give back is not to be looked at.
    let mut findings = journals::mend(options).map_err(failed)?;
    findings.extend(attachments::mend(options).map_err(failed)?);
    findings.extend(agents::mend(options).map_err(failed)?);
    // After the agents, which make the bridges.
    findings.extend(gateways::mend(options).map_err(failed)?);
    findings.extend(ports::look().map_err(failed)?);
    findings.extend(dhcp::mend(options).map_err(failed)?);
    findings.extend(leases::mend(options).map_err(failed)?);
    findings.extend(rules::mend(options).map_err(failed)?);
    Ok(findings)
}

/// The journal of an attachment, for as long as its lock is held; or, when a call has it, that finding.
fn journal_of(attachment: &Attachment) -> Outcome<Result<Journal, Finding>> {
    match Journal::open(Path::new(paths::JOURNAL), attachment) {
        Ok(journal) => Ok(Ok(journal)),
        Err(StateError::Busy(why)) => {
            let text = format!("{why}: a call of it runs, and is left to itself");
            Ok(Err(Finding::about(Kind::Busy, attachment, text, Remedy::Told)))
        }
        Err(error) => Err(error),
    }
}

/// How long to wait for a call that has the attachment or the network; then it is left to that call.
const PATIENCE: Duration = Duration::from_secs(10);

/// Does something that waits for a lock, at most 10 s: then it is `Busy`.
///
/// # Errors
/// That, and what the work answers.
pub fn in_time<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let io = |error: std::io::Error| StateError::Other(format!("could not set a time limit: {error}"));
    let deadline = Deadline::arm(PATIENCE).map_err(io)?;
    let done = work();
    deadline.disarm();
    done
}
