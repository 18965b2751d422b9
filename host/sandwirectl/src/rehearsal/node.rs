//! The node of a rehearsal: a root directory in the namespaces of this process (`apart`), with which it goes.

use super::Content;
use crate::component;
use crate::generation::{self, About};
use crate::install::DIRECTORIES;
use crate::{files, policy};
use anyhow::{Context, Result, anyhow};
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{chdir, chroot};
use sandwire_policy::{header, paths};
use sandwire_runtime::engine::{TARGET, WASMTIME_VERSION};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The container's namespace.
pub(super) const NETNS: &str = "/run/netns/pod";
/// The network's configuration.
pub(super) const NETWORK: &str = "/etc/cni/net.d/10-try.conflist";

/// Where the new root is made: a directory that every machine has. Only this process sees it changed.
const ROOT: &str = "/tmp";
/// What programs of the machine need to run on the node. Of /usr/lib all but our own directory.
const PROGRAMS: [&str; 8] = ["/bin", "/sbin", "/lib", "/lib64", "/usr/bin", "/usr/sbin", "/usr/local", "/usr/share"];
const LIBRARIES: &str = "/usr/lib";
const SETTINGS: [&str; 10] = [
    "/etc/alternatives",
    "/etc/group",
    "/etc/hosts",
    "/etc/iproute2",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
];
const DEVICES: [&str; 7] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/pts"];

/// Proof that this process is on it.
pub(super) struct Node {
    /// `None` when it is gone.
    pub(super) container: Option<File>,
}

impl Node {
    /// Makes the node, and makes it this process's, which is in namespaces of its own already.
    pub(super) fn enter(content: &Content) -> Result<Self> {
        root().context("could not make a root directory of its own")?;
        write(content).context("could not fill the node")?;
        Ok(Self { container: Some(pod().context("could not make the pod's network namespace")?) })
    }

    /// Takes the pod away without a word to anybody, as a crash does.
    pub(super) fn end_pod(&mut self) -> Result<()> {
        self.container = None;
        umount2(NETNS, MntFlags::MNT_DETACH).context("could not take the pod's network namespace away")?;
        fs::remove_file(NETNS).with_context(|| format!("could not remove {NETNS}"))
    }
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("could not mount {} at {}", from.display(), to.display()))
}

/// `path` of the machine at the same place of the new root, as far as the machine has it.
fn share(path: &Path) -> Result<()> {
    let at = inside(path);
    let Ok(meta) = fs::metadata(path) else { return Ok(()) };
    if meta.is_dir() {
        fs::create_dir_all(&at)?;
    } else {
        at.parent().map_or(Ok(()), fs::create_dir_all)?;
        File::create(&at)?;
    }
    bind(path, &at)
}

/// What was shared to be read only: what runs on the node may be root's, and the machine is not its.
fn read_only(path: &Path) {
    // In a user namespace the flags that a mount has must stay (mount_namespaces(7)).
    let kept = statvfs(path).map_or(FsFlags::empty(), |found| found.flags());
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (has, flag) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        if kept.contains(has) {
            flags |= flag;
        }
    }
    // What this does not do, modes still do for who is not root.
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).ok();
}

fn inside(path: &Path) -> PathBuf {
    Path::new(ROOT).join(path.strip_prefix("/").unwrap_or(path))
}

/// A file system of the kernel's that shows the new namespaces; the machine's where that is not allowed.
fn kernels(kind: &str, at: &str) -> Result<()> {
    let inside = inside(Path::new(at));
    fs::create_dir_all(&inside)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if mount(Some(kind), &inside, Some(kind), flags, None::<&str>).is_ok() {
        return Ok(());
    }
    bind(Path::new(at), &inside)?;
    if kind == "sysfs" {
        read_only(&inside);
    }
    Ok(())
}

fn root() -> Result<()> {
    let here = std::env::current_dir().ok();
    let here_open = open(".", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).ok();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("tmpfs"), ROOT, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=755"))?;
    kernels("proc", "/proc")?;
    kernels("sysfs", "/sys")?;
    let libraries = fs::read_dir(LIBRARIES).into_iter().flatten().flatten();
    let libraries = libraries.filter(|entry| entry.file_name() != "sandwire").map(|entry| entry.path());
    for path in PROGRAMS.iter().chain(&SETTINGS).map(PathBuf::from).chain(libraries) {
        share(&path)?;
        read_only(&inside(&path));
    }
    for path in DEVICES {
        share(Path::new(path))?;
    }
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, inside(Path::new("/dev")).join(link))?;
    }
    for path in ["/etc/cni/net.d", "/var/lib/cni", "/run", "/tmp"] {
        fs::create_dir_all(inside(Path::new(path)))?;
    }
    // The author's own scripts, where they are. Its path may lead through what is covered by now; the descriptor does not.
    let shared = here.as_deref().zip(here_open).filter(|(here, _)| !inside(here).exists());
    if let Some((here, open)) = &shared {
        fs::create_dir_all(inside(here))?;
        bind(Path::new(&format!("/proc/self/fd/{}", open.as_raw_fd())), &inside(here))?;
        read_only(&inside(here));
    }
    chroot(ROOT)?;
    let here = here.filter(|here| here.is_dir()).unwrap_or_else(|| PathBuf::from("/"));
    chdir(&here)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=755"))?;
    fs::create_dir_all("/run/netns")?;
    Ok(())
}

/// Program, links, components, policy and the generation made of them, as `install` leaves them.
fn write(content: &Content) -> Result<()> {
    for (path, mode) in [(paths::BIN_DIR, 0o755)].into_iter().chain(DIRECTORIES) {
        files::make_dir(Path::new(path), mode)?;
    }
    files::write_new(Path::new(NETWORK), &content.network, 0o644)?;
    files::write_new(Path::new(paths::POLICY), content.policy.as_bytes(), 0o644)?;
    files::write_new(&Path::new(paths::BIN_DIR).join("sandwire"), &content.binary, 0o755)?;
    let parsed = policy::parse(&content.policy)?;
    let mut generation = BTreeMap::new();
    for (plugin, (bytes, compiled)) in &content.components {
        let grant = parsed.compile(plugin, WASMTIME_VERSION, TARGET).ok_or_else(|| {
            anyhow!("the policy has no {}; its lines: sandwirectl inspect {plugin}.wasm", header(plugin))
        })?;
        generation.insert(grant.compiled.clone(), compiled.clone());
        generation.insert(format!("{plugin}.json"), serde_json::to_vec_pretty(&grant)?);
        files::write_new(&Path::new(paths::PLUGINS).join(format!("{plugin}.wasm")), bytes, 0o644)?;
        files::link(&Path::new(paths::BIN_DIR).join(plugin), Path::new("sandwire"))?;
    }
    let about = About {
        sandwire: env!("CARGO_PKG_VERSION").to_owned(),
        wasmtime: WASMTIME_VERSION.to_owned(),
        engine: crate::apply::engine_sum()?,
        policy: component::digest(content.policy.as_bytes()),
        files: BTreeMap::new(),
    };
    generation::write(&generation::lock()?, about, &generation)?;
    Ok(())
}

/// A network namespace with a name, as ip(8) makes them.
fn pod() -> Result<File> {
    File::create(NETNS)?;
    let made = std::thread::spawn(|| -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        bind(Path::new("/proc/thread-self/ns/net"), Path::new(NETNS))
    });
    made.join().map_err(|_| anyhow!("a thread panicked"))??;
    File::open(NETNS).with_context(|| format!("could not open {NETNS}"))
}
