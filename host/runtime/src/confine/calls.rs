//! seccomp (linux/seccomp.h): the system calls that a call makes; all others fail with EPERM. They fail instead of ending the
//! process, so that one that nobody thought of is an error that says so, and what an ADD has done is taken back.
//!
//! A tree of comparisons, not a list: the kernel tries the filter for every number there is when it is set
//! (`seccomp_cache_prepare`), and afterwards asks it no more for those that it lets through whatever their arguments are.
#![allow(unsafe_code)]

use super::Allowed;
use libc::sock_filter;
use nix::errno::Errno;
use std::sync::OnceLock;

/// Memory, files, netlink and the helpers that are forked; what the standard library, tokio (for components that import WASI)
/// and musl do beside it. As runs of numbers, first and last, with what between them does no harm (`pause`, `times`) or nothing that
/// Landlock does not confine (`creat`, `symlink`): each run less is two steps less to compile for every pod.
const USUAL: [(i64, i64); 33] = [
    // poll, lseek, memory, signals' actions, ioctl, select
    (libc::SYS_read, libc::SYS_madvise),
    (libc::SYS_dup, libc::SYS_sendfile),
    // on sockets, which there are only of the families below
    (libc::SYS_connect, libc::SYS_getsockopt),
    (libc::SYS_fork, libc::SYS_vfork),
    (libc::SYS_exit, libc::SYS_wait4),
    (libc::SYS_uname, libc::SYS_uname),
    // locks, directories, names
    (libc::SYS_fcntl, libc::SYS_readlink),
    (libc::SYS_umask, libc::SYS_times),
    (libc::SYS_getuid, libc::SYS_getuid),
    (libc::SYS_getgid, libc::SYS_getgid),
    (libc::SYS_geteuid, libc::SYS_getegid),
    (libc::SYS_getppid, libc::SYS_setsid),
    (libc::SYS_sigaltstack, libc::SYS_sigaltstack),
    (libc::SYS_statfs, libc::SYS_fstatfs),
    (libc::SYS_prctl, libc::SYS_arch_prctl),
    (libc::SYS_gettid, libc::SYS_gettid),
    (libc::SYS_futex, libc::SYS_futex),
    (libc::SYS_sched_getaffinity, libc::SYS_sched_getaffinity),
    (libc::SYS_getdents64, libc::SYS_restart_syscall),
    // clocks, exit_group, epoll
    (libc::SYS_clock_gettime, libc::SYS_epoll_ctl),
    (libc::SYS_waitid, libc::SYS_waitid),
    (libc::SYS_openat, libc::SYS_mkdirat),
    (libc::SYS_newfstatat, libc::SYS_readlinkat),
    (libc::SYS_faccessat, libc::SYS_ppoll),
    (libc::SYS_set_robust_list, libc::SYS_get_robust_list),
    (libc::SYS_utimensat, libc::SYS_epoll_pwait),
    (libc::SYS_eventfd2, libc::SYS_pipe2),
    (libc::SYS_prlimit64, libc::SYS_prlimit64),
    (libc::SYS_renameat2, libc::SYS_renameat2),
    (libc::SYS_getrandom, libc::SYS_memfd_create),
    (libc::SYS_statx, libc::SYS_statx),
    (libc::SYS_close_range, libc::SYS_close_range),
    (libc::SYS_faccessat2, libc::SYS_faccessat2),
];

/// A namespace of its own would give capabilities inside of it, and with them half of the kernel to try.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP) as u32;

/// What becomes of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Yes,
    No,
    /// `socket` of these families.
    Families(&'static [i32]),
    /// `clone` without these flags.
    Without(u32),
    /// A signal to this process.
    ToItself,
}

/// A filter, in which it is not yet said for which process.
#[derive(Debug, Clone)]
struct Filter {
    steps: Vec<sock_filter>,
    /// Which step compares with the process' number.
    process: usize,
}

/// All that there can be, once somebody has made them (`ready`), by their number.
static FILTERS: OnceLock<Vec<Filter>> = OnceLock::new();

/// By what filters differ.
type Kind = [bool; 4];

fn kind_of(allowed: &Allowed) -> Kind {
    [allowed.tcp, allowed.unix, allowed.signals, allowed.modes]
}

fn number_of(kind: Kind) -> usize {
    kind.into_iter().fold(0, |number, bit| number * 2 + usize::from(bit))
}

/// Makes all filters, for calls that begin with this process' memory: 7 us of each.
pub(super) fn ready() {
    let bit = |number: usize, place: usize| number >> place & 1 == 1;
    let kinds = (0..1 << size_of::<Kind>()).map(|number| [3, 2, 1, 0].map(|place| bit(number, place)));
    if let Some(filters) = kinds.map(filter).collect() {
        let _ = FILTERS.set(filters);
    }
}

/// Of which families sockets may be.
fn families(tcp: bool, unix: bool) -> &'static [i32] {
    use libc::{AF_INET as V4, AF_INET6 as V6, AF_NETLINK as NETLINK, AF_UNIX as UNIX};
    match (tcp, unix) {
        (false, false) => &[NETLINK],
        (true, false) => &[NETLINK, V4, V6],
        (false, true) => &[NETLINK, UNIX],
        (true, true) => &[NETLINK, V4, V6, UNIX],
    }
}

/// Whether the kernel has filters.
pub(super) fn is_possible() -> bool {
    const GET_ACTION_AVAIL: u32 = 2;
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the kernel reads four bytes.
    unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) == 0 }
}

/// For this thread and what it starts, for good.
///
/// # Errors
/// ENOSYS where there are no filters.
pub(super) fn shut(allowed: &Allowed) -> nix::Result<()> {
    let mut program = program(allowed).ok_or(Errno::E2BIG)?;
    let length = u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies `len` instructions, which are there, and checks them.
    let set = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) };
    match Errno::result(set) {
        // Not compiled in; or shut, on a node that is a container itself.
        Err(Errno::EINVAL | Errno::EPERM) if !is_possible() => Err(Errno::ENOSYS),
        done => done.map(drop),
    }
}

// linux/filter.h, linux/bpf_common.h
const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const HAS: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const ANSWER: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
/// Where they are in `struct seccomp_data`; of an argument the lower half.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;
/// linux/audit.h: EM_X86_64, 64 bits, little endian.
const X86_64: u32 = 0xc000_003e;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

fn step(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// The filter for this process; none when a jump would be too far.
fn program(allowed: &Allowed) -> Option<Vec<sock_filter>> {
    let kind = kind_of(allowed);
    let ready = FILTERS.get().and_then(|filters| filters.get(number_of(kind)).cloned());
    let Filter { mut steps, process } = ready.or_else(|| filter(kind))?;
    steps.get_mut(process)?.k = std::process::id();
    Some(steps)
}

fn filter([tcp, unix, signals, modes]: Kind) -> Option<Filter> {
    let mut verdicts: Vec<(i64, i64, Verdict)> =
        USUAL.iter().map(|(first, last)| (*first, *last, Verdict::Yes)).collect();
    let mut also = |number, verdict| verdicts.push((number, number, verdict));
    also(libc::SYS_socket, Verdict::Families(families(tcp, unix)));
    also(libc::SYS_clone, Verdict::Without(NAMESPACES));
    also(libc::SYS_tkill, Verdict::ToItself);
    if signals {
        also(libc::SYS_kill, Verdict::Yes);
    }
    if modes {
        also(libc::SYS_chmod, Verdict::Yes);
    }
    verdicts.sort_unstable_by_key(|(first, ..)| *first);

    // From which number on which verdict holds, up to the next.
    let mut from = vec![(0, Verdict::No)];
    for (first, last, verdict) in verdicts {
        let (first, end) = (u32::try_from(first).ok()?, u32::try_from(last).ok()? + 1);
        if from.last().is_some_and(|(last, _)| *last == first) {
            from.pop();
        }
        if from.last().is_none_or(|(_, before)| *before != verdict) {
            from.push((first, verdict));
        }
        from.push((end, Verdict::No));
    }
    let mut tree = Tree::default();
    // Another architecture has other numbers (int 0x80).
    tree.steps.push(step(LOAD, ARCHITECTURE));
    tree.branch(step(IS, X86_64), None, Some(Verdict::No));
    tree.steps.push(step(LOAD, NUMBER));
    tree.search(&from)?;
    tree.finish()
}

/// A program of which it is not yet known where it ends.
#[derive(Default)]
struct Tree {
    steps: Vec<sock_filter>,
    /// Steps that jump to one of the two ends, and whether when they hold.
    open: Vec<(usize, bool, bool)>,
    /// The step that compares with the process' number.
    process: usize,
}

impl Tree {
    /// A comparison; where it leads when it holds and when not, if that is an end.
    fn branch(&mut self, step: sock_filter, holds: Option<Verdict>, else_: Option<Verdict>) {
        for (when, verdict) in [(true, holds), (false, else_)] {
            if let Some(verdict) = verdict {
                self.open.push((self.steps.len(), when, verdict == Verdict::Yes));
            }
        }
        self.steps.push(step);
    }

    /// The steps that find the verdict of the number that is loaded.
    fn search(&mut self, from: &[(u32, Verdict)]) -> Option<()> {
        let (below, above) = from.split_at(from.len() / 2);
        let Some((first, _)) = above.first().filter(|_| !below.is_empty()) else {
            self.special(from.first()?.1);
            return Some(());
        };
        let end = |part: &[(u32, Verdict)]| match part {
            [(_, verdict @ (Verdict::Yes | Verdict::No))] => Some(*verdict),
            _ => None,
        };
        let at = self.steps.len();
        self.branch(step(AT_LEAST, *first), end(above), end(below));
        if end(below).is_none() {
            self.search(below)?;
        }
        if end(above).is_none() {
            self.steps.get_mut(at)?.jt = u8::try_from(self.steps.len() - at - 1).ok()?;
            self.search(above)?;
        }
        Some(())
    }

    /// The steps of a verdict that asks for the first argument.
    fn special(&mut self, verdict: Verdict) {
        let (yes, no) = (Some(Verdict::Yes), Some(Verdict::No));
        self.steps.push(step(LOAD, FIRST_ARGUMENT));
        match verdict {
            Verdict::Yes | Verdict::No => self.branch(step(AT_LEAST, 0), Some(verdict), Some(verdict)),
            Verdict::Families(families) => {
                for (number, family) in families.iter().enumerate() {
                    let is_last = number + 1 == families.len();
                    self.branch(step(IS, family.unsigned_abs()), yes, no.filter(|_| is_last));
                }
            }
            Verdict::Without(flags) => self.branch(step(HAS, flags), no, yes),
            Verdict::ToItself => {
                self.process = self.steps.len();
                self.branch(step(IS, 0), yes, no);
            }
        }
    }

    /// With its two ends.
    fn finish(mut self) -> Option<Filter> {
        let end = self.steps.len();
        for (at, when, is_yes) in self.open {
            let distance = u8::try_from(end + usize::from(is_yes) - at - 1).ok()?;
            let step = self.steps.get_mut(at)?;
            *(if when { &mut step.jt } else { &mut step.jf }) = distance;
        }
        self.steps.extend([step(ANSWER, REFUSE), step(ANSWER, ALLOW)]);
        Some(Filter { steps: self.steps, process: self.process })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel's interpreter does with the few instructions that there are (`seccomp_is_const_allow` does the same).
    fn run(program: &[sock_filter], number: u32, architecture: u32, argument: u32) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let step = program[at];
            let jump = |holds: bool| usize::from(if holds { step.jt } else { step.jf }) + 1;
            at += match step.code {
                ANSWER => return step.k,
                LOAD => {
                    loaded = match step.k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        FIRST_ARGUMENT => argument,
                        other => panic!("{other}"),
                    };
                    1
                }
                IS => jump(loaded == step.k),
                AT_LEAST => jump(loaded >= step.k),
                HAS => jump(loaded & step.k != 0),
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn every_number_has_its_verdict() {
        for (tcp, unix, signals, modes) in [
            (false, false, false, false),
            (true, true, true, true),
            (true, false, false, true),
            (false, true, true, false),
        ] {
            let allowed = Allowed { tcp, unix, signals, modes, ..Allowed::default() };
            let program = program(&allowed).unwrap();
            // Those that were made before are the same.
            ready();
            let same = |(a, b): (&sock_filter, &sock_filter)| (a.code, a.jt, a.jf, a.k) == (b.code, b.jt, b.jf, b.k);
            assert!(program.iter().zip(&super::program(&allowed).unwrap()).all(same));
            assert!(program.len() < 100, "{} steps", program.len());
            for number in (0..1024).chain([0x4000_0000, 0x4000_003b, u32::MAX]) {
                let at = i64::from(number);
                let usual = USUAL.iter().any(|(first, last)| (*first..=*last).contains(&at));
                let wanted = match at {
                    libc::SYS_socket => tcp,
                    libc::SYS_clone => true,
                    libc::SYS_tkill => false,
                    libc::SYS_kill => signals,
                    libc::SYS_chmod => modes,
                    _ => usual,
                };
                let argument = if at == libc::SYS_socket { libc::AF_INET as u32 } else { 0 };
                let is_allowed = run(&program, number, X86_64, argument) == ALLOW;
                assert_eq!(is_allowed, wanted, "{number}");
                assert_eq!(run(&program, number, 0x4000_0003, argument), REFUSE, "{number} of i386");
            }
            let of = |number: i64, argument: i32| run(&program, number as u32, X86_64, argument as u32) == ALLOW;
            assert!(of(libc::SYS_socket, libc::AF_NETLINK) && !of(libc::SYS_socket, libc::AF_PACKET));
            assert_eq!((of(libc::SYS_socket, libc::AF_INET6), of(libc::SYS_socket, libc::AF_UNIX)), (tcp, unix));
            // The helper that closes sockets late: refused it would close them at once, and nobody would notice but by the time.
            assert!(of(libc::SYS_nanosleep, 0));
            assert!(of(libc::SYS_clone, libc::SIGCHLD) && !of(libc::SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD));
            assert!(of(libc::SYS_tkill, std::process::id() as i32) && !of(libc::SYS_tkill, 1));
        }
    }

    #[test]
    fn what_would_be_a_way_out_is_in_no_run() {
        for number in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_kill,
            libc::SYS_tgkill,
            libc::SYS_chmod,
            libc::SYS_fchmod,
            libc::SYS_fchmodat,
            libc::SYS_chown,
            libc::SYS_fchown,
            libc::SYS_fchownat,
            libc::SYS_mknod,
            libc::SYS_mknodat,
            libc::SYS_setxattr,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_chroot,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_keyctl,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_pidfd_send_signal,
            libc::SYS_open_by_handle_at,
            libc::SYS_clone3,
            libc::SYS_shmat,
            libc::SYS_capset,
            libc::SYS_setuid,
            libc::SYS_setpgid,
        ] {
            assert!(!USUAL.iter().any(|(first, last)| (*first..=*last).contains(&number)), "{number}");
        }
    }
}
