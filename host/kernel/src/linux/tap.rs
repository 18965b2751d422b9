//! Tap devices: Ethernet links whose other end is a program's (a virtual machine's) that opens them later.
//!
//! The only kind of link that is not made by netlink (`tun_validate` refuses it) but by ioctl(2) on /dev/net/tun. A descriptor of
//! that makes devices in the namespace it was opened in (`tun_chr_open`), one each.

#![allow(unsafe_code)]

use super::netns::Namespace;
use super::socket::{Refusal, describe};
use super::{LinuxKernel, links};
use crate::{DeviceSpec, KernelError, LinkChanges, LinkId, Netns, Outcome, TapSpec};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The kernel's device for them. Its module is loaded by who opens it.
const DEVICE: &str = "/dev/net/tun";

// linux/if_tun.h
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETPERSIST: libc::Ioctl = 0x4004_54cb;
const TUNSETOWNER: libc::Ioctl = 0x4004_54cc;
const TUNSETGROUP: libc::Ioctl = 0x4004_54ce;
const IFF_TAP: u16 = 0x0002;
const IFF_MULTI_QUEUE: u16 = 0x0100;
/// No header before each frame.
const IFF_NO_PI: u16 = 0x1000;
/// Another device of the name is an error, and not what is opened.
const IFF_TUN_EXCL: u16 = 0x8000;

/// The descriptor for one device.
#[derive(Debug)]
pub(super) enum Tun {
    /// Of the container's namespace.
    Ready(OwnedFd),
    /// There is none, and why.
    Missing(String),
    /// There was one.
    Used,
}

impl Tun {
    /// Of the namespace that this thread is in.
    pub(super) fn open() -> Self {
        match open(DEVICE, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(tun) => Self::Ready(tun),
            Err(errno) => Self::Missing(format!("could not open {DEVICE}: {}", describe(errno))),
        }
    }

    /// Nobody has asked for one.
    pub(super) fn unasked() -> Self {
        Self::Missing(format!("{DEVICE} was not opened: tap devices were not asked for when the namespace was"))
    }
}

/// Sets one number of a tap device.
fn set(tun: BorrowedFd<'_>, request: libc::Ioctl, value: u32) -> nix::Result<()> {
    // SAFETY: these requests take a number and touch no memory of ours.
    Errno::result(unsafe { libc::ioctl(tun.as_raw_fd(), request, libc::c_ulong::from(value)) }).map(drop)
}

/// Makes the device of this name, which goes with the descriptor until it is told to persist.
fn attach(tun: BorrowedFd<'_>, name: &str, flags: u16) -> nix::Result<()> {
    // SAFETY: an ifreq is numbers and arrays of them.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays 0: the end of the name.
    let room = request.ifr_name.len().saturating_sub(1);
    if name.len() > room {
        return Err(Errno::EINVAL);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = flags.cast_signed();
    // SAFETY: the kernel reads and writes an ifreq (`__tun_chr_ioctl`), which outlives the call.
    Errno::result(unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETIFF, &raw mut request) }).map(drop)
}

/// Makes a tap device in the container, with all that is asked of it, or none.
pub(super) fn create(kernel: &mut LinuxKernel, device: &DeviceSpec, tap: &TapSpec) -> Outcome<LinkId> {
    super::create::check(device)?;
    let Some(name) = device.name.as_deref() else {
        return Err(KernelError::Invalid("a tap device needs a name".into()));
    };
    if device.netns == Netns::Host {
        return Err(KernelError::unsupported("make tap devices of the node"));
    }
    let context = format!("could not create tap {name:?} in {}", device.netns);
    let tun = match std::mem::replace(&mut kernel.tun, Tun::Used) {
        Tun::Ready(tun) => tun,
        Tun::Missing(why) => return Err(KernelError::Unsupported(format!("{context}: {why}"))),
        Tun::Used => return Err(KernelError::Conflict(format!("{context}: one call can make one"))),
    };
    let mut flags = IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL;
    if tap.multi_queue {
        flags |= IFF_MULTI_QUEUE;
    }
    let refused = |errno: Errno| Refusal::new(errno).into_error(&context);
    attach(tun.as_fd(), name, flags).map_err(|errno| match errno {
        Errno::EBUSY => KernelError::Exists(format!("{context}: a link of that name is there")),
        errno => refused(errno),
    })?;
    // Until it persists the device goes when the descriptor is closed: also when this process is killed.
    for (request, id) in [(TUNSETOWNER, tap.owner), (TUNSETGROUP, tap.group)] {
        if let Some(id) = id {
            set(tun.as_fd(), request, id).map_err(refused)?;
        }
    }
    let namespace = kernel.namespace(device.netns)?;
    let id = finish(namespace, device, name).map_err(|error| error.context(&context).refused())?;
    set(tun.as_fd(), TUNSETPERSIST, 1).map_err(refused)?;
    Ok(id)
}

fn finish(namespace: &mut Namespace, device: &DeviceSpec, name: &str) -> Outcome<LinkId> {
    let id = links::by_name(namespace, name)?.id;
    if let Some(master) = device.master {
        links::set_master(namespace, id.index, Some(master.index))?;
    }
    let changes = LinkChanges {
        up: device.up.then_some(true),
        mac: device.mac,
        mtu: device.mtu,
        txqlen: device.txqlen,
        alias: device.alias.clone(),
        group: device.group,
        ..LinkChanges::default()
    };
    links::change(namespace, id.index, &changes)?;
    Ok(id)
}
