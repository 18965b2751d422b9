//! A node: one thread that left the machine's mount and network namespaces and works on behalf of the tests.
//!
//! No child process holds the namespaces: a thread may have its own, and what it spawns inherits them. So they go with the thread,
//! however the test ends, and there is nothing to clean up.

use crate::pod::Pod;
use crate::run::{self, Finished};
use crate::{Call, Installation, Outcome, Snapshot, Verb};
use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Folders whose content is the node's alone. Their parents are overlaid first, because not every machine has them and making
/// a mount point must not leave a trace there.
const PRIVATE: [&str; 6] =
    ["/etc/cni", "/etc/sandwire", "/var/lib/sandwire", "/var/lib/cni", "/usr/lib/sandwire", "/opt/cni"];
const OVERLAID: [&str; 4] = ["/etc", "/var/lib", "/usr/lib", "/opt"];
/// Any command that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(90);

type Job = Box<dyn FnOnce() + Send>;

/// A machine of its own as far as the network and the folders of CNI are concerned.
pub struct Node {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    children: Mutex<Vec<Child>>,
}

/// In which network namespace of a node something is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The node's own: what a plugin calls the host.
    Host,
    /// The one behind this path, as the node sees it.
    Netns(PathBuf),
}

/// Starts a program that may have been written a moment ago: a child that another test forked in between has it open for
/// writing until its own execve(2), and the kernel refuses to run it for so long (ETXTBSY).
///
/// # Errors
/// When it can't be started.
pub fn start(command: &mut Command) -> std::io::Result<Child> {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match command.spawn() {
            Err(error)
                if error.kind() == std::io::ErrorKind::ExecutableFileBusy && std::time::Instant::now() < until =>
            {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            started => return started,
        }
    }
}

impl Node {
    /// A node with `lo` up, the folders of CNI and Sandwire empty, and nothing installed.
    ///
    /// # Errors
    /// Without root or a kernel that has namespaces and overlayfs.
    pub fn new() -> Result<Self> {
        let (jobs, todo) = channel::<Job>();
        let (ready, setup) = channel();
        let thread = std::thread::Builder::new().name("node".into()).spawn(move || {
            let done = leave_the_machine();
            let failed = done.is_err();
            if ready.send(done).is_err() || failed {
                return;
            }
            for job in todo {
                job();
            }
        })?;
        setup.recv().context("the node's thread died")??;
        let node = Self { jobs: Some(jobs), thread: Some(thread), children: Mutex::default() };
        node.sh("ip link set lo up")?;
        Ok(node)
    }

    /// A node with Sandwire installed as `sandwirectl install` does it.
    ///
    /// # Errors
    /// When `make build` wasn't run, or the installation fails: with its output.
    pub fn installed() -> Result<Self> {
        let node = Self::new()?;
        Installation::get()?.put_on(&node)?;
        Ok(node)
    }

    /// Run `job` on the node: its files and its network.
    ///
    /// # Errors
    /// When the job panicked.
    pub fn within<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (answer, result) = channel();
        let jobs = self.jobs.as_ref().ok_or_else(|| anyhow!("the node is gone"))?;
        let boxed: Job = Box::new(move || {
            // Nobody listens only when the asking thread panicked.
            let _ = answer.send(job());
        });
        jobs.send(boxed).map_err(|_| anyhow!("the node's thread died"))?;
        result.recv().context("the node's thread died")
    }

    /// As `within`, in a network namespace of the node.
    ///
    /// # Errors
    /// When the namespace can't be entered, or the job panicked.
    pub fn at<T: Send + 'static>(&self, place: &Place, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let Place::Netns(path) = place else { return self.within(job) };
        let path = path.clone();
        self.within(move || {
            std::thread::spawn(move || -> Result<T> {
                // A test may have put a fifo there, which nobody writes.
                let file = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&path);
                let file = file.with_context(|| format!("netns {}", path.display()))?;
                setns(&file, CloneFlags::CLONE_NEWNET).with_context(|| format!("netns {}", path.display()))?;
                Ok(job())
            })
            .join()
            .map_err(|_| anyhow!("a job in a pod panicked"))?
        })?
    }

    /// Start `command` on the node with its three streams piped. The caller waits for it.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn spawn(&self, place: &Place, mut command: Command) -> Result<Child> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let program = command.get_program().to_string_lossy().into_owned();
        self.at(place, move || start(&mut command))?.with_context(|| format!("can't start {program}"))
    }

    /// Start a program that lives as long as the node (a daemon, a capture). Killed with the node.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn background(&self, place: &Place, mut command: Command) -> Result<()> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = self.at(place, move || start(&mut command))??;
        if let Ok(mut children) = self.children.lock() {
            children.push(child);
        }
        Ok(())
    }

    /// Run `command` to its end, with `input` on its standard input.
    ///
    /// # Errors
    /// When it can't be started or doesn't end in time. A failing command is no error here: see `Finished`.
    pub fn run(&self, place: &Place, command: Command, input: &[u8]) -> Result<Finished> {
        let started = std::time::Instant::now();
        let child = self.spawn(place, command)?;
        run::finish(child, input, started, PATIENCE)
    }

    /// `sh -c script` in the host's namespace; its standard output.
    ///
    /// # Errors
    /// When it exits with anything but 0: with its output.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.sh_at(&Place::Host, script)
    }

    /// `sh -c script` in a namespace of the node; its standard output.
    ///
    /// # Errors
    /// When it exits with anything but 0: with its output.
    pub fn sh_at(&self, place: &Place, script: &str) -> Result<String> {
        let mut command = Command::new("/bin/sh");
        command.args(["-ec", script]).env_clear().env("PATH", run::PATH).env("HOME", "/root");
        self.run(place, command, b"")?.success().with_context(|| format!("{script}  ({place:?})"))
    }

    /// Make a pod: an empty network namespace at `/run/netns/pod-NAME`.
    ///
    /// # Errors
    /// When there is one of that name.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        Pod::make(self, name)
    }

    /// One CNI call with ours, in the usual environment.
    ///
    /// # Errors
    /// When the plugin can't be started or hangs. A CNI error is no error here: see `Outcome`.
    pub fn cni(&self, plugin: &str, verb: Verb, pod: &Pod, ifname: &str, config: &Value) -> Result<Outcome> {
        self.call(plugin, verb).pod(pod).ifname(ifname).config(config).run()
    }

    /// One CNI call, to be described further.
    pub fn call(&self, plugin: &str, verb: Verb) -> Call<'_> {
        Call::new(self, plugin, verb)
    }

    /// All that a call may change.
    ///
    /// # Errors
    /// When one of the looking programs fails.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::take(self)
    }

    /// What a view of a kernel expectation shows (`README.md`, "The kernel and the files").
    ///
    /// # Errors
    /// When there is no such view.
    pub fn view(&self, place: &Place, name: &str) -> Result<Vec<Value>> {
        crate::snapshot::view(self, place, name)
    }

    /// The content of a file of the node; none when it isn't there.
    ///
    /// # Errors
    /// When it can't be read for another reason.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Option<Vec<u8>>> {
        let path = path.as_ref().to_owned();
        self.within(move || match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        })?
    }

    /// Write a file of the node, with the folders above it.
    ///
    /// # Errors
    /// As `std::fs::write`.
    pub fn write(&self, path: impl AsRef<Path>, content: impl Into<Vec<u8>>) -> Result<()> {
        let (path, content) = (path.as_ref().to_owned(), content.into());
        self.within(move || {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(&path, content).with_context(|| path.display().to_string())
        })?
    }

    /// The regular files below a folder of the node, with their content; empty when there is no such folder.
    ///
    /// # Errors
    /// When one can't be read.
    pub fn files(&self, below: &str) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let below = PathBuf::from(below);
        self.within(move || {
            let mut found = Vec::new();
            walk(&below, u64::MAX, &mut found)?;
            found.sort();
            Ok(found.into_iter().map(|(path, _, content)| (path, content)).collect())
        })?
    }

    /// The same with their lengths, and the content of those alone that are shorter than `limit`.
    pub(crate) fn files_shorter_than(&self, limit: u64, below: &str) -> Result<Vec<(PathBuf, u64, Vec<u8>)>> {
        let below = PathBuf::from(below);
        self.within(move || {
            let mut found = Vec::new();
            walk(&below, limit, &mut found)?;
            Ok(found)
        })?
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Ok(mut children) = self.children.lock() {
            for child in children.iter_mut() {
                // Fails only when it ended by itself.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Path, length, and content of those that are shorter than `limit`.
fn walk(folder: &Path, limit: u64, found: &mut Vec<(PathBuf, u64, Vec<u8>)>) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| folder.display().to_string()),
    };
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), limit, found)?;
        } else if kind.is_file() {
            let length = match entry.metadata() {
                Ok(meta) => meta.len(),
                Err(error) => return Err(error).with_context(|| entry.path().display().to_string()),
            };
            if length >= limit {
                found.push((entry.path(), length, Vec::new()));
                continue;
            }
            match std::fs::read(entry.path()) {
                Ok(content) => found.push((entry.path(), length, content)),
                // A namespace that is bound there is no text.
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                    found.push((entry.path(), length, Vec::new()))
                }
                Err(error) => return Err(error).with_context(|| entry.path().display().to_string()),
            }
        }
    }
    Ok(())
}

fn leave_the_machine() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("a node needs root: unshare")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).context("private /")?;
    tmpfs("/mnt")?;
    for folder in OVERLAID {
        let scratch = format!("/mnt/{}", folder.trim_start_matches('/').replace('/', "-"));
        std::fs::create_dir_all(format!("{scratch}/upper"))?;
        std::fs::create_dir_all(format!("{scratch}/work"))?;
        let options = format!("lowerdir={folder},upperdir={scratch}/upper,workdir={scratch}/work");
        mount(Some("overlay"), folder, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .with_context(|| format!("overlay on {folder}"))?;
    }
    for folder in PRIVATE {
        std::fs::create_dir_all(folder)?;
        tmpfs(folder)?;
    }
    tmpfs("/run")?;
    std::fs::create_dir_all("/run/netns")?;
    std::fs::create_dir_all("/opt/cni/bin")?;
    // A sysfs shows the network of whoever mounted it.
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).context("/sys")
}

fn tmpfs(at: &str) -> Result<()> {
    mount(Some("node"), at, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).with_context(|| format!("tmpfs on {at}"))
}
