//! One run of a program under ptrace(2), undisturbed or with one fault at one of its calls.
//!
//! What `strace -f -e inject=CALL:signal=SIGKILL:when=N` (or `:error=E`) does, but for one thing: strace counts in every
//! task from 1, so `when=1` hits the caller and each of its helpers. Here a fault is for one process, and happens once.

#![allow(unsafe_code)]

use crate::calls::{self, Kind};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// A call that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a call ends with, unseen by the program, to be made again at once: a sysctl of the network that finds RTNL taken
/// does (`restart_syscall`, net/ipv4/devinet.c), again and again. How often is a matter of who else uses the network.
const ERESTARTNOINTR: u64 = (-513i64).cast_unsigned();

/// What is done to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process that is about to make the call is killed; the call is not made.
    Kill,
    /// All processes of the run are killed, as a cgroup is.
    KillAll,
    /// The call is not made and fails with this.
    Error(Errno),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kill => f.write_str("SIGKILL"),
            Self::KillAll => f.write_str("SIGKILL to all"),
            Self::Error(errno) => write!(f, "{errno:?}"),
        }
    }
}

/// A call that a program makes, told from its others by the first three.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// 0: the program that was started; 1, 2 ...: the ones it started, in their order.
    pub process: usize,
    /// The system call's name.
    pub call: &'static str,
    /// The how many-th of its name, among those that count, in its process; from 1.
    pub index: usize,
    /// The how many-th of its name in its task, reading ones included: strace's `when=`.
    pub when: usize,
    /// What it is about: a path, a socket.
    pub about: String,
    /// The program that made it.
    pub program: String,
}

impl Point {
    fn is(&self, other: &Self) -> bool {
        (self.process, self.call, self.index) == (other.process, other.call, other.index)
    }
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} #{} ({}", self.call, self.index, self.about)?;
        match self.process {
            0 => f.write_str(")"),
            n => write!(f, ", by process {n}, {})", self.program),
        }
    }
}

/// How a run went.
#[derive(Debug)]
pub struct Run {
    /// The calls that count, in their order.
    pub points: Vec<Point>,
    /// Whether the fault happened: the call that it was for was made.
    pub hit: bool,
    /// Exit status of the program; none when a signal ended it.
    pub exit: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs `command` with `input` on standard input; `fault` at that call. Returns when all its processes have ended.
/// To be called in the namespaces that the program is to have, on a thread without other children.
///
/// # Errors
/// When it can't be started or traced, or hangs.
pub fn run(mut command: Command, input: &[u8], fault: Option<(&Point, Fault)>) -> Result<Run> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: one system call between fork and exec, async-signal-safe.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    let mut child = sandwire_harness::start(&mut command).context("can't start the program")?;
    // A pipe takes 64 KiB without a reader.
    child.stdin.take().context("no stdin")?.write_all(input).context("feeding the program")?;
    let root = Pid::from_raw(i32::try_from(child.id())?);
    let (over, hangs) = channel::<()>();
    let guard = std::thread::spawn(move || {
        let late = hangs.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if late {
            // Gone by itself in the meantime: nothing to be done.
            let _ = kill(root, Signal::SIGKILL);
        }
        late
    });
    let mut tracer =
        Tracer { root, tasks: BTreeMap::new(), processes: Vec::new(), points: Vec::new(), fault, hit: false };
    let status = tracer.follow();
    drop(over);
    let late = guard.join().unwrap_or(true);
    let exit = status?;
    if late {
        bail!("no end after {PATIENCE:?}; killed");
    }
    let Tracer { points, hit, .. } = tracer;
    Ok(Run { points, hit, exit, stdout: rest(&mut child, true)?, stderr: rest(&mut child, false)? })
}

fn rest(child: &mut Child, out: bool) -> Result<String> {
    let mut bytes = Vec::new();
    match (out, child.stdout.as_mut(), child.stderr.as_mut()) {
        (true, Some(stream), _) => stream.read_to_end(&mut bytes)?,
        (false, _, Some(stream)) => stream.read_to_end(&mut bytes)?,
        _ => 0,
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[derive(Default)]
struct Process {
    tgid: i32,
    counts: BTreeMap<&'static str, usize>,
}

#[derive(Default)]
struct Task {
    process: usize,
    /// Its first stop, which only says that it is traced, is over.
    begun: bool,
    /// What its present call is to return.
    returns: Option<Errno>,
    /// The call that the kernel told itself to make again.
    restarts: Option<u64>,
    counts: BTreeMap<u64, usize>,
}

struct Tracer<'f> {
    root: Pid,
    tasks: BTreeMap<i32, Task>,
    processes: Vec<Process>,
    points: Vec<Point>,
    fault: Option<(&'f Point, Fault)>,
    hit: bool,
}

impl Tracer<'_> {
    /// Until no process is left; how the first one ended.
    fn follow(&mut self) -> Result<Option<i32>> {
        // The stop after exec. Another thread's children are none of ours.
        let first = waitpid(self.root, Some(WaitPidFlag::__WALL))?;
        if !matches!(first, WaitStatus::Stopped(_, Signal::SIGTRAP)) {
            bail!("the program did not start: {first:?}");
        }
        let options = ptrace::Options::PTRACE_O_TRACESYSGOOD
            | ptrace::Options::PTRACE_O_TRACEFORK
            | ptrace::Options::PTRACE_O_TRACEVFORK
            | ptrace::Options::PTRACE_O_TRACECLONE
            | ptrace::Options::PTRACE_O_TRACEEXEC
            | ptrace::Options::PTRACE_O_EXITKILL;
        ptrace::setoptions(self.root, options)?;
        self.task(self.root)?.begun = true;
        resume(self.root, None)?;
        let mut exit = None;
        loop {
            let any = Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD);
            match waitpid(None, any) {
                Err(Errno::ECHILD) => return Ok(exit),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("wait"),
                Ok(WaitStatus::Exited(pid, code)) => {
                    if pid == self.root {
                        exit = Some(code);
                    }
                    self.tasks.remove(&pid.as_raw());
                }
                Ok(WaitStatus::Signaled(pid, ..)) => {
                    self.tasks.remove(&pid.as_raw());
                }
                Ok(WaitStatus::PtraceSyscall(pid)) => match self.syscall(pid) {
                    Ok(()) => resume(pid, None)?,
                    // Killed between its stop and our question.
                    Err(error) if error.downcast_ref() == Some(&Errno::ESRCH) => {}
                    Err(error) => return Err(error),
                },
                Ok(WaitStatus::PtraceEvent(pid, ..)) => resume(pid, None)?,
                Ok(WaitStatus::Stopped(pid, signal)) => {
                    let task = self.task(pid)?;
                    let announced = std::mem::replace(&mut task.begun, true);
                    resume(pid, (announced || signal != Signal::SIGSTOP).then_some(signal))?;
                }
                Ok(other) => bail!("unexpected: {other:?}"),
            }
        }
    }

    fn task(&mut self, pid: Pid) -> Result<&mut Task> {
        let raw = pid.as_raw();
        if !self.tasks.contains_key(&raw) {
            let tgid = group(raw);
            let known = self.processes.iter().position(|process| process.tgid == tgid);
            let process = known.unwrap_or_else(|| {
                self.processes.push(Process { tgid, ..Process::default() });
                self.processes.len() - 1
            });
            self.tasks.insert(raw, Task { process, ..Task::default() });
        }
        self.tasks.get_mut(&raw).context("no task")
    }

    fn syscall(&mut self, pid: Pid) -> Result<()> {
        let info = ptrace::syscall_info(pid)?;
        match info.op {
            libc::PTRACE_SYSCALL_INFO_ENTRY => self.enter(pid),
            libc::PTRACE_SYSCALL_INFO_EXIT => {
                let mut registers = ptrace::getregs(pid)?;
                let task = self.task(pid)?;
                if registers.rax == ERESTARTNOINTR {
                    task.restarts = Some(registers.orig_rax);
                }
                if let Some(errno) = task.returns.take() {
                    registers.rax = i64::from(errno as i32).wrapping_neg().cast_unsigned();
                    ptrace::setregs(pid, registers)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn enter(&mut self, pid: Pid) -> Result<()> {
        let mut registers = ptrace::getregs(pid)?;
        let task = self.task(pid)?;
        task.begun = true;
        let (process, when) = (task.process, task.counts.entry(registers.orig_rax).or_default());
        *when += 1;
        let when = *when;
        if task.restarts == Some(registers.orig_rax) {
            task.restarts = None;
            return Ok(());
        }
        let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10];
        let tgid = self.processes.get(process).context("no process")?.tgid;
        let Some(Kind { call, about }) = calls::changing(tgid, registers.orig_rax, arguments) else { return Ok(()) };
        let index = self.processes.get_mut(process).context("no process")?.counts.entry(call).or_default();
        *index += 1;
        let point = Point { process, call, index: *index, when, about, program: program(tgid) };
        let now = match self.fault {
            Some((at, fault)) if !self.hit && at.is(&point) => Some(fault),
            _ => None,
        };
        self.points.push(point);
        match now {
            None => return Ok(()),
            // A task that is killed in the stop before its call does not make it (ptrace_report_syscall_entry).
            Some(Fault::Kill) => kill(Pid::from_raw(tgid), Signal::SIGKILL)?,
            Some(Fault::KillAll) => {
                for process in &self.processes {
                    // Most have ended before.
                    let _ = kill(Pid::from_raw(process.tgid), Signal::SIGKILL);
                }
            }
            Some(Fault::Error(errno)) => {
                registers.orig_rax = u64::MAX;
                ptrace::setregs(pid, registers)?;
                self.task(pid)?.returns = Some(errno);
            }
        }
        self.hit = true;
        Ok(())
    }
}

fn resume(pid: Pid, signal: Option<Signal>) -> Result<()> {
    match ptrace::syscall(pid, signal) {
        // It was killed meanwhile; its end is reported next.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).context("resuming the program"),
    }
}

/// The process that a task belongs to.
fn group(task: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{task}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line.and_then(|text| text.trim().parse().ok()).unwrap_or(task)
}

fn program(process: i32) -> String {
    let exe = std::fs::read_link(format!("/proc/{process}/exe")).unwrap_or_default();
    exe.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A write that found RTNL taken was counted for each time that the kernel made it, 61 times at worst.
    #[test]
    fn a_call_that_the_kernel_makes_again_counts_once() {
        let node = sandwire_harness::Node::new().unwrap();
        let _pod = node.pod("a").unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // To move a link to another namespace takes long, under RTNL.
                    node.sh("ip link add v0 type veth peer name v1; ip link set v1 netns pod-a; ip link del v0")
                        .unwrap();
                }
            });
            let counts: Result<Vec<usize>> = (0..20)
                .map(|_| {
                    let mut command = Command::new("/bin/sh");
                    let script = "for n in $(seq 50); do echo 1 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv4/ip_forward; done";
                    command.args(["-ec", script]);
                    let traced = || std::thread::spawn(move || run(command, b"", None)).join().unwrap();
                    let run = node.within(traced)??;
                    Ok(run.points.iter().filter(|point| (point.process, point.call) == (0, "write")).count())
                })
                .collect();
            over.store(true, Ordering::Relaxed);
            // Not before: the other thread would never end.
            assert_eq!(counts.unwrap(), [100; 20]);
        });
    }
}
