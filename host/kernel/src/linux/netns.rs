//! Network namespaces: opening them, comparing them, and the one short visit to the container's.

use super::socket::{Refusal, Socket, describe, error_of};
use super::sysctl::SysctlRoot;
use crate::{KernelError, Netns, Outcome};
use nix::errno::Errno;
use nix::fcntl::{Flock, OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{FsType, NSFS_MAGIC, PROC_SUPER_MAGIC, statfs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// The namespace of this thread: /proc/self is the whole process's and names the first thread's.
const OWN: &str = "/proc/thread-self/ns/net";

/// How often the way back from the container's namespace is tried.
const RETURNS: usize = 10;

/// Opens what CNI_NETNS names, with the reference's checks and texts (pkg/ns, `IsNSorErr`).
///
/// # Errors
/// `NotFound` with `failed to Statfs "p": no such file or directory`, `Invalid` with `unknown FS magic on "p": %x`
/// or when it is a namespace of another kind.
pub fn open_netns(path: impl AsRef<Path>) -> Outcome<OwnedFd> {
    let path = path.as_ref();
    // The path is the runtime's, but a fifo there would block an open for reading and a device would do whatever its driver does.
    // As in the reference who can exchange it between the two calls is trusted with it; through /proc/self/fd of a descriptor that only
    // names it (O_PATH) it would certainly be the file that was looked at, and opening it take three times as long.
    let failed = |errno: Errno| error_of(errno)(format!("failed to Statfs {path:?}: {}", describe(errno)));
    let magic: FsType = statfs(path).map_err(failed)?.filesystem_type();
    if magic != NSFS_MAGIC && magic != PROC_SUPER_MAGIC {
        return Err(KernelError::Invalid(format!("unknown FS magic on {path:?}: {:x}", magic.0)));
    }
    let how = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let fd = open(path, how, Mode::empty())
        .map_err(|errno| error_of(errno)(format!("failed to open netns {path:?}: {}", describe(errno))))?;
    if !is_network_namespace(fd.as_fd()) {
        return Err(KernelError::Invalid(format!(
            "error switching to ns {}: invalid argument (it is no network namespace)",
            path.display()
        )));
    }
    Ok(fd)
}

/// The network namespace that a thread was in, and a socket that was opened there.
#[derive(Debug)]
pub struct OwnNetns {
    fd: OwnedFd,
    route: Socket,
}

impl AsFd for OwnNetns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The network namespace that this thread is in.
///
/// # Errors
/// When no socket can be opened, and for those without CAP_NET_ADMIN when /proc is not mounted.
pub fn open_own() -> Outcome<OwnNetns> {
    let route = Socket::open()?;
    let fd = match namespace_of(route.fd()) {
        Some(fd) => fd,
        None => open(OWN, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| Refusal::new(errno).into_error(format!("could not open {OWN}; is /proc mounted?")))?,
    };
    Ok(OwnNetns { fd, route })
}

/// The namespace of a socket, for those who may administer it: a tenth of what the way through /proc costs, where the
/// directories of a new process are made when they are looked into.
#[allow(unsafe_code)]
fn namespace_of(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
    // linux/sockios.h, Linux 4.9
    const SIOCGSKNS: libc::Ioctl = 0x894c;
    // SAFETY: SIOCGSKNS takes no argument and touches no memory of ours.
    let fd = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
    // SAFETY: a new descriptor (`open_related_ns`), closed on exec, that nobody else has.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether two descriptors are of one namespace.
///
/// # Errors
/// What fstat(2) fails with.
pub fn same_netns(own: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> Outcome<bool> {
    let identity = |fd: BorrowedFd<'_>| {
        fstat(fd)
            .map(|s| (s.st_dev, s.st_ino))
            .map_err(|errno| Refusal::new(errno).into_error("could not look at a network namespace"))
    };
    Ok(identity(own)? == identity(fd)?)
}

/// A procfs file that is no namespace passes the reference's check of the filesystem; setns(2) would refuse it later.
#[allow(unsafe_code)]
fn is_network_namespace(fd: BorrowedFd<'_>) -> bool {
    // linux/nsfs.h: _IO(0xb7, 3)
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: NS_GET_NSTYPE takes no argument and touches no memory of ours.
    unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) == libc::CLONE_NEWNET }
}

/// A number that no other namespace of this boot has or had (SO_NETNS_COOKIE, Linux 5.14; the inode's is given again).
/// None of a kernel that does not say.
#[allow(unsafe_code)]
pub(crate) fn cookie(socket: BorrowedFd<'_>) -> Option<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    let (to, length) = ((&raw mut cookie).cast(), &raw mut length);
    // SAFETY: the kernel writes at most `length` bytes to `cookie`, which has them, and how many these were to `length`.
    let answer = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, to, length) };
    (answer == 0 && cookie != 0).then_some(cookie)
}

/// One of the two namespaces, as far as it is reached without being in it: sockets and directories belong for ever to
/// the namespace they were opened in.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) netns: Netns,
    /// For IFLA_NET_NS_FD and NETNSA_FD.
    pub(crate) fd: OwnedFd,
    pub(crate) route: Socket,
    /// For notifications; opened with the namespace because nobody can come back later to do it.
    pub(crate) events: Option<Socket>,
    /// For the helper that deletes (`delete.rs`), which can't share `route`: both would read each other's answers.
    pub(crate) delete: Option<Socket>,
    pub(crate) sysctl: SysctlRoot,
    /// Against others who look for a free routing table of it.
    pub(crate) lock: Option<Flock<OwnedFd>>,
    /// Tables of it that this call was given.
    pub(crate) given_tables: Vec<u32>,
}

impl Namespace {
    /// The current one. Its further sockets are opened when needed, for the process stays here.
    pub(crate) fn host(OwnNetns { fd, route }: OwnNetns) -> Self {
        Self {
            netns: Netns::Host,
            fd,
            route,
            events: None,
            delete: None,
            sysctl: SysctlRoot::current(),
            lock: None,
            given_tables: Vec::new(),
        }
    }

    /// The container's, and what `also` opens there.
    ///
    /// After this nothing needs setns(2), and so no CAP_SYS_ADMIN, any more. When the way back fails the process is in
    /// the wrong namespace, where everything it does next would hit the container instead of the node: it aborts.
    pub(crate) fn visit<T>(
        host: &OwnedFd,
        container: BorrowedFd<'_>,
        all_sysctls: bool,
        also: impl FnOnce() -> Outcome<T>,
    ) -> Outcome<(Self, T)> {
        let fd = container
            .try_clone_to_owned()
            .map_err(|e| KernelError::Other(format!("could not keep the container's namespace open: {e}")))?;
        setns(&fd, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Refusal::new(errno).into_error("could not enter the container's network namespace"))?;
        let sysctls = || SysctlRoot::open_directories(all_sysctls);
        let opened = (|| Ok((Socket::open()?, Socket::open()?, Socket::open()?, sysctls()?, also()?)))();
        // It fails for want of memory only, which passes (`create_new_namespaces`).
        if (0..RETURNS).all(|_| setns(host, CloneFlags::CLONE_NEWNET).is_err()) {
            std::process::abort();
        }
        let (route, events, delete, sysctl, also) = opened?;
        let events = Some(events);
        let delete = Some(delete);
        Ok((
            Self { netns: Netns::Container, fd, route, events, delete, sysctl, lock: None, given_tables: Vec::new() },
            also,
        ))
    }

    /// The socket for notifications, to be put back.
    pub(crate) fn take_events(&mut self) -> Outcome<Socket> {
        let socket = self.events.take();
        self.or_new(socket)
    }

    /// A socket for one deletion.
    pub(crate) fn take_delete(&mut self) -> Outcome<Socket> {
        let socket = self.delete.take();
        self.or_new(socket)
    }

    fn or_new(&self, socket: Option<Socket>) -> Outcome<Socket> {
        match (socket, self.netns) {
            (Some(socket), _) => Ok(socket),
            (None, Netns::Host) => Socket::open(),
            (None, Netns::Container) => {
                Err(KernelError::Busy("the socket that was opened in the container's namespace is in use".into()))
            }
        }
    }
}
