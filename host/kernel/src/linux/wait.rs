//! Waiting for the kernel by its notifications, with a deadline.

use super::socket::{Refusal, Socket};
use super::{LinuxKernel, addresses, links};
use crate::{KernelError, LinkId, LinkInfo, Netns, Outcome};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// linux/rtnetlink.h, enum rtnetlink_groups.
pub(super) const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;

/// Runs `body` with a socket that hears `groups` of a namespace from before `body` starts, so that nothing that
/// happens between its first look and its first wait is missed.
pub(super) fn listening<T>(
    kernel: &mut LinuxKernel,
    netns: Netns,
    groups: &[u32],
    body: impl FnOnce(&mut LinuxKernel, &mut Socket) -> Outcome<T>,
) -> Outcome<T> {
    let mut socket = kernel.namespace(netns)?.take_events()?;
    let joined = groups.iter().try_for_each(|group| socket.join(*group));
    let result = match joined {
        Ok(()) => body(kernel, &mut socket),
        Err(refusal) => Err(refusal.into_error(format_args!("could not listen for changes in {netns}"))),
    };
    for group in groups {
        let _ = socket.leave(*group);
    }
    // What still queues is of no use to the next who listens.
    while socket.receive_now(|_, _| ()).is_ok() {}
    kernel.namespace(netns)?.events = Some(socket);
    result
}

/// What a wait ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// One of the descriptors can be read; which of the two.
    Readable(bool, bool),
    /// The deadline has passed, or the call's own ([`LinuxKernel::set_interrupted`]).
    Late,
}

/// Until one of two descriptors can be read.
pub(super) fn readable(
    first: BorrowedFd<'_>,
    second: Option<BorrowedFd<'_>>,
    deadline: Instant,
    interrupted: fn() -> bool,
) -> Outcome<Woken> {
    let of = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let mut descriptors: Vec<PollFd<'_>> = std::iter::once(first).chain(second).map(of).collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || interrupted() {
            return Ok(Woken::Late);
        }
        // Rounded up: a wait of 0 would spin until the deadline.
        let milliseconds = left.as_millis().saturating_add(1).min(i32::MAX as u128) as i32;
        let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
        match poll(&mut descriptors, timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => {
                let mut ready = descriptors.iter().map(|fd| fd.any().unwrap_or(true));
                return Ok(Woken::Readable(ready.next().unwrap_or(false), ready.next().unwrap_or(false)));
            }
            Err(errno) => return Err(Refusal::new(errno).into_error("could not wait for the kernel")),
        }
    }
}

/// Looks, and looks again after every notification, until `look` has an answer. `None` when time is up.
fn until<T>(
    kernel: &mut LinuxKernel,
    netns: Netns,
    groups: &[u32],
    timeout: Duration,
    mut look: impl FnMut(&mut LinuxKernel) -> Outcome<Option<T>>,
) -> Outcome<Option<T>> {
    let deadline = Instant::now().checked_add(timeout).unwrap_or_else(Instant::now);
    let interrupted = kernel.interrupted;
    listening(kernel, netns, groups, |kernel, socket| {
        loop {
            if let Some(answer) = look(kernel)? {
                return Ok(Some(answer));
            }
            if readable(socket.fd(), None, deadline, interrupted)? == Woken::Late {
                return Ok(None);
            }
            // What the notifications say doesn't matter, not even that some were lost (ENOBUFS): the next look is at
            // the kernel's present state.
            while socket.receive_now(|_, _| ()).is_ok() {}
        }
    })
}

/// As `netif_oper_up`: drivers that know no operational state say "unknown" and work.
fn is_up(link: &LinkInfo) -> bool {
    link.operstate == "up" || (link.operstate == "unknown" && link.up)
}

pub(super) fn link_up(kernel: &mut LinuxKernel, link: LinkId, timeout: Duration) -> Outcome<()> {
    let up = until(kernel, link.netns, &[RTNLGRP_LINK], timeout, |kernel| {
        let info = links::by_index(kernel.namespace(link.netns)?, link.index)?;
        Ok(is_up(&info).then_some(()))
    })?;
    if up.is_some() {
        return Ok(());
    }
    let info = links::by_index(kernel.namespace(link.netns)?, link.index)?;
    Err(KernelError::Timeout(format!(
        "link {:?} in {} is not up after {} ms: its operational state is {:?}{}",
        info.name,
        link.netns,
        timeout.as_millis(),
        info.operstate,
        if info.up { "" } else { ", and it is not set up" }
    )))
}

pub(super) fn addresses(kernel: &mut LinuxKernel, link: LinkId, timeout: Duration) -> Outcome<()> {
    let groups = [RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR];
    let settled = until(kernel, link.netns, &groups, timeout, |kernel| {
        let namespace = kernel.namespace(link.netns)?;
        let present = addresses::all(namespace, link.index)?;
        if let Some(failed) = present.iter().find(|address| address.dad_failed) {
            let name = links::name_of(namespace, link.index);
            return Err(KernelError::Conflict(format!(
                "link {name:?} has address {} in DADFAILED state: another host of its network has it too",
                failed.address.addr()
            )));
        }
        Ok((!present.iter().any(|address| address.tentative)).then_some(()))
    })?;
    if settled.is_some() {
        return Ok(());
    }
    let info = links::by_index(kernel.namespace(link.netns)?, link.index)?;
    Err(KernelError::Timeout(format!(
        "link {:?} in {} still has tentative addresses after {} ms; its operational state is {:?}",
        info.name,
        link.netns,
        timeout.as_millis(),
        info.operstate
    )))
}
