//! The node of a rehearsal: namespaces and a root directory of its own. All of it is gone when the process ends.

use super::Content;
use crate::component;
use crate::generation::{self, About};
use crate::{files, policy};
use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, chdir, chroot};
use sandwire_policy::paths;
use sandwire_runtime::engine::{TARGET, WASMTIME_VERSION};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The container's namespace.
pub(super) const NETNS: &str = "/run/netns/pod";
/// The network's configuration.
pub(super) const NETWORK: &str = "/etc/cni/net.d/10-try.conflist";

/// Where the new root is made: a directory that every machine has. Only this process sees it changed.
const ROOT: &str = "/tmp";
/// What programs of the machine need to run on the node. Of /usr/lib all but our own directory.
const PROGRAMS: [&str; 8] = ["/bin", "/sbin", "/lib", "/lib64", "/usr/bin", "/usr/sbin", "/usr/local", "/usr/share"];
const LIBRARIES: &str = "/usr/lib";
const SETTINGS: [&str; 8] = [
    "/etc/alternatives",
    "/etc/group",
    "/etc/iproute2",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/protocols",
    "/etc/services",
];
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Proof that this process is on it.
pub(super) struct Node {
    pub(super) container: File,
}

impl Node {
    /// Makes the node, and makes it this process's.
    ///
    /// # Errors
    /// When this machine does not let its users have namespaces.
    pub(super) fn enter(content: &Content) -> Result<Self> {
        namespaces()?;
        root().context("could not make a root directory of its own")?;
        write(content).context("could not fill the node")?;
        Ok(Self { container: pod().context("could not make the pod's network namespace")? })
    }
}

fn namespaces() -> Result<()> {
    let (user, group) = (Uid::effective(), Gid::effective());
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    if !user.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    separate(flags)?;
    if !user.is_root() {
        // Without setgroups a group could be given up, and with it a "no" that a file's mode has for that group.
        for (file, text) in
            [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {user} 1")), ("gid_map", format!("0 {group} 1"))]
        {
            fs::write(format!("/proc/self/{file}"), text)
                .with_context(|| format!("could not write /proc/self/{file}"))?;
        }
    }
    Ok(())
}

fn separate(flags: CloneFlags) -> Result<()> {
    // Only a process of one thread may (unshare(2)); those that fed the compiler are joined, which the kernel may hear of
    // a moment later.
    for _ in 0..100 {
        match unshare(flags) {
            Ok(()) => return Ok(()),
            Err(Errno::EINVAL) => std::thread::sleep(Duration::from_millis(2)),
            Err(errno @ (Errno::EPERM | Errno::ENOSPC | Errno::EUSERS)) => bail!(
                "this machine does not let its users make namespaces ({}): run it as root, or allow them: sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000; on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0",
                errno.desc()
            ),
            Err(errno) => return Err(errno).context("could not make namespaces"),
        }
    }
    bail!("could not make namespaces: the kernel says that this process has other threads")
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

fn inside(path: &Path) -> PathBuf {
    Path::new(ROOT).join(path.strip_prefix("/").unwrap_or(path))
}

fn root() -> Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("tmpfs"), ROOT, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=755"))?;
    for path in ["/proc", "/sys"].iter().chain(&PROGRAMS).chain(&SETTINGS).chain(&DEVICES) {
        share(Path::new(path))?;
    }
    for entry in fs::read_dir(LIBRARIES).into_iter().flatten().flatten() {
        if entry.file_name() != "sandwire" {
            share(&entry.path())?;
        }
    }
    for path in ["/etc/cni/net.d", "/var/lib/cni", "/run/netns", "/tmp"] {
        fs::create_dir_all(inside(Path::new(path)))?;
    }
    chroot(ROOT)?;
    chdir("/")?;
    // The kernel forgets a tmpfs with this namespace, and a node has its /run on one.
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=755"))?;
    fs::create_dir_all("/run/netns")?;
    Ok(())
}

/// Program, links, components, policy and the generation made of them, as `install` leaves them.
fn write(content: &Content) -> Result<()> {
    for (path, mode) in [
        (paths::BIN_DIR, 0o755),
        (paths::PLUGINS, 0o755),
        ("/etc/sandwire", 0o755),
        (paths::STATE, 0o755),
        (paths::GENERATIONS, 0o755),
        (paths::LEASE_INDEX, 0o700),
        (paths::NOTES, 0o700),
        (paths::LEASES, 0o755),
        (paths::JOURNAL, 0o700),
    ] {
        files::make_dir(Path::new(path), mode)?;
    }
    files::write_new(Path::new(NETWORK), &content.network, 0o644)?;
    files::write_new(Path::new(paths::POLICY), content.policy.as_bytes(), 0o644)?;
    files::write_new(&Path::new(paths::BIN_DIR).join("sandwire"), &content.binary, 0o755)?;
    let parsed = policy::parse(&content.policy)?;
    let mut generation = BTreeMap::new();
    for (plugin, (bytes, compiled)) in &content.components {
        let grant = parsed.compile(plugin, WASMTIME_VERSION, TARGET).ok_or_else(|| {
            anyhow!("the policy has no [plugins.{plugin}]; its lines: sandwirectl inspect {plugin}.wasm")
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
