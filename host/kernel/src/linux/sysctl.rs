//! Keys below /proc/sys/net of either namespace.

use super::socket::{Refusal, describe, error_of};
use super::{LinuxKernel, links};
use crate::{KernelError, Netns, Outcome};
use netlink_packet_core::DefaultNla;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use rtnetlink::LinkUnspec;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

/// The directories of a container's /proc/sys/net that are opened while there, unless all are asked for. `/proc/sys/net` itself
/// always shows the *current* namespace of whoever looks through it; a directory below it stays in the one it was looked up in
/// (`sysctl_head_grab` holds that namespace's table), also for interfaces made later.
const DIRECTORIES: [&str; 3] = ["ipv4", "ipv6", "core"];
const NET: &str = "/proc/sys/net";
/// More than any value below net/; keeps a file of another kind from filling the memory.
const VALUE_BYTES: u64 = 64 << 10;

/// The way to a namespace's keys.
#[derive(Debug)]
pub(crate) enum SysctlRoot {
    /// Of the namespace that the process is in.
    Current,
    /// Of another one, by name of the first segment.
    Directories {
        opened: Vec<(String, OwnedFd)>,
        /// Whether there are no others.
        all: bool,
    },
}

impl SysctlRoot {
    pub(crate) fn current() -> Self {
        Self::Current
    }

    /// In the namespace whose keys they are to be. `all`: whatever directories it has (netfilter, unix ...).
    pub(crate) fn open_directories(all: bool) -> Outcome<Self> {
        let mut names: Vec<String> = DIRECTORIES.map(str::to_owned).into();
        if all && let Ok(entries) = std::fs::read_dir(NET) {
            let others = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            names.extend(others.filter(|name| !DIRECTORIES.contains(&name.as_str())));
        }
        let mut directories = Vec::new();
        for name in names {
            let path = format!("{NET}/{name}");
            match openat(AT_FDCWD, path.as_str(), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            {
                Ok(fd) => directories.push((name, fd)),
                // A kernel without IPv6; what is no directory.
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(errno) => return Err(Refusal::new(errno).into_error(format!("could not open {path}"))),
            }
        }
        Ok(Self::Directories { opened: directories, all })
    }

    fn open(&self, netns: Netns, key: &str, flags: OFlag) -> Outcome<File> {
        let failed = |errno: Errno| match errno {
            Errno::ENOENT | Errno::ENOTDIR => {
                KernelError::NotFound(format!("{netns} has no sysctl net/{key}: {}", describe(errno)))
            }
            _ => error_of(errno)(format!("could not open sysctl net/{key} of {netns}: {}", describe(errno))),
        };
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let fd = match self {
            Self::Current => openat(AT_FDCWD, format!("{NET}/{key}").as_str(), flags, Mode::empty()),
            Self::Directories { opened, all } => {
                let (first, rest) = key.split_once('/').unwrap_or((key, ""));
                match opened.iter().find(|(name, _)| *name == first) {
                    Some((_, directory)) if !rest.is_empty() => openat(directory.as_fd(), rest, flags, Mode::empty()),
                    Some(_) => Err(Errno::EISDIR),
                    None if *all || DIRECTORIES.contains(&first) => Err(Errno::ENOENT),
                    None => {
                        return Err(KernelError::Unsupported(format!(
                            "sysctl net/{key} of {netns} can't be reached; a plugin that needs it names it in  sysctls  of its policy"
                        )));
                    }
                }
            }
        };
        fd.map(File::from).map_err(failed)
    }
}

/// No key may lead out of /proc/sys/net, whoever validated it before, or be cut short: in a message the kernel takes a name up to
/// its first zero, which would be another link's (`nla_strscpy`).
fn check(key: &str) -> Outcome<()> {
    let bad = key.bytes().any(|b| b == 0) || key.split('/').any(|s| s.is_empty() || s == "." || s == "..");
    if bad { Err(KernelError::Invalid(format!("{key:?} is no sysctl key below net/"))) } else { Ok(()) }
}

pub(super) fn read(kernel: &mut LinuxKernel, netns: Netns, key: &str) -> Outcome<String> {
    check(key)?;
    if let Some((interface, number)) = told_of_links(key)
        && let Some(value) = links::ipv6_setting(kernel, netns, interface, number)?
    {
        return Ok(value.to_string());
    }
    let file = kernel.namespace(netns)?.sysctl.open(netns, key, OFlag::O_RDONLY)?;
    let mut bytes = Vec::new();
    file.take(VALUE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|e| io_error(&e, format!("could not read sysctl net/{key} of {netns}")))?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
}

pub(super) fn write(kernel: &mut LinuxKernel, netns: Netns, key: &str, value: &str) -> Outcome<Option<String>> {
    let before = read(kernel, netns, key)?;
    if before == value {
        return Ok(None);
    }
    set(kernel, netns, key, value)?;
    Ok(Some(before))
}

pub(super) fn set(kernel: &mut LinuxKernel, netns: Netns, key: &str, value: &str) -> Outcome<()> {
    check(key)?;
    if let Some((interface, on)) = arp_notify(key, value) {
        return set_arp_notify(kernel, netns, interface, on);
    }
    let mut file = kernel.namespace(netns)?.sysctl.open(netns, key, OFlag::O_WRONLY)?;
    // The kernel takes one write as one value (`proc_dointvec` ignores writes at another position).
    file.write_all(value.as_bytes())
        .map_err(|e| io_error(&e, format!("could not write {value:?} to sysctl net/{key} of {netns}")))
}

/// The key of one interface in this family: the interface and what follows it. None of what can't be its name in a message: the
/// file says then what is wrong.
fn of_interface<'k>(key: &'k str, family: &str) -> Option<(&'k str, &'k str)> {
    let (interface, name) = key.strip_prefix(family)?.strip_prefix("/conf/")?.split_once('/')?;
    let is_name = interface.len() < libc::IFNAMSIZ && !matches!(interface, "all" | "default");
    is_name.then_some((interface, name))
}

/// The keys that ADD reads of a link, which the kernel tells with it (`inet6_fill_ifla6_attrs`), by their number there: in a new
/// namespace, or of a new link, the file takes four times as long to be found.
fn told_of_links(key: &str) -> Option<(&str, usize)> {
    // linux/ipv6.h, DEVCONF_*
    match of_interface(key, "ipv6")? {
        (interface, "accept_ra") => Some((interface, 3)),
        (interface, "disable_ipv6") => Some((interface, 26)),
        _ => None,
    }
}

/// The interface whose `arp_notify` this is, and what it is to be.
fn arp_notify<'k>(key: &'k str, value: &str) -> Option<(&'k str, u32)> {
    let (interface, name) = of_interface(key, "ipv4")?;
    match value {
        "0" | "1" if name == "arp_notify" => Some((interface, u32::from(value == "1"))),
        _ => None,
    }
}

/// The one key that nearly every plugin writes, on an interface that has just been made: below /proc/sys each part of its path
/// is looked up for the first time, three inodes made for a write of one byte, which takes ten times as long as this message
/// (`inet_set_link_af` does what a write to the file does, and nothing more for this key: `devinet_conf_proc`).
fn set_arp_notify(kernel: &mut LinuxKernel, netns: Netns, interface: &str, on: u32) -> Outcome<()> {
    const IFLA_INET_CONF: u16 = 1;
    const IPV4_DEVCONF_ARP_NOTIFY: u16 = 22;
    let mut spec = on.to_ne_bytes().to_vec();
    for kind in [IPV4_DEVCONF_ARP_NOTIFY, IFLA_INET_CONF, libc::AF_INET as u16] {
        let length = spec.len() as u16 + 4;
        spec.splice(0..0, length.to_ne_bytes().into_iter().chain(kind.to_ne_bytes()));
    }
    let attribute = LinkAttribute::Other(DefaultNla::new(links::IFLA_AF_SPEC, spec));
    let message = LinkUnspec::new_with_name(interface).append_extra_attribute(attribute).build();
    match kernel.namespace(netns)?.route.request(RouteNetlinkMessage::SetLink(message), 0) {
        Ok(_) => Ok(()),
        Err(refusal) => Err(refusal.into_error(format_args!(
            "could not write {on} to sysctl net/ipv4/conf/{interface}/arp_notify of {netns}"
        ))),
    }
}

fn io_error(error: &std::io::Error, what: String) -> KernelError {
    Refusal::new(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))).into_error(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_lead_elsewhere_are_refused() {
        for key in
            ["", "/", "/etc/passwd", "ipv4/", "ipv4//x", "../kernel/hostname", "ipv4/../../kernel", "a\0b", "ipv4/."]
        {
            assert!(matches!(check(key), Err(KernelError::Invalid(_))), "{key:?}");
        }
        assert_eq!(arp_notify("ipv4/conf/eth0.10/arp_notify", "1"), Some(("eth0.10", 1)));
        for (key, value) in
            [("all", "1"), ("default", "1"), ("a/b", "1"), ("sixteen-letters-", "1"), ("eth0", "2"), ("eth0", "")]
        {
            assert_eq!(arp_notify(&format!("ipv4/conf/{key}/arp_notify"), value), None, "{key} {value}");
        }
        assert_eq!(arp_notify("ipv4/conf/eth0/arp_ignore", "1"), None);
        assert_eq!(told_of_links("ipv6/conf/br0.7/accept_ra"), Some(("br0.7", 3)));
        for key in [
            "ipv6/conf/all/accept_ra",
            "ipv6/conf/eth0/accept_ra/x",
            "ipv6/neigh/eth0/accept_ra",
            "ipv4/conf/eth0/accept_ra",
        ] {
            assert_eq!(told_of_links(key), None, "{key}");
        }
        for key in ["ipv4/ip_forward", "ipv6/conf/eth0.10/accept_dad"] {
            assert_eq!(check(key), Ok(()), "{key}");
        }
    }
}
