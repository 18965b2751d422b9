//! The end of a call's time, and signals that ask it to end sooner.
//!
//! SIGALRM from a timer, SIGTERM and SIGINT increment the engine's epoch: the guest traps at its next function entry or
//! loop, without a second thread. They are installed without SA_RESTART, so a blocked host call returns EINTR.
#![allow(unsafe_code)]

use crate::answer;
use crate::refusal::{Answer, Refusal};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use wasmtime::Engine;

static ENGINE: OnceLock<Engine> = OnceLock::new();
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// How long undoing may take after the deadline: each of its steps has a time limit of its own as well.
const GRACE: Duration = Duration::from_secs(10);

/// Ticks of the timer since it was last armed.
static TICKS: AtomicI32 = AtomicI32::new(0);

/// What a host function waited for when the time was over: the guest is ended by then, and can't tell.
static WAITED: Mutex<Option<String>> = Mutex::new(None);

/// Milliseconds between ticks.
const TICK: i32 = 100;

/// Ticks after which this process ends without any further care: something blocks that neither a signal nor a time-out
/// of its own gets out of. The journal has what was done; the next call takes it back.
const LAST_TICK: i32 = 15_000 / TICK;

const STUCK: &[u8] = b"{\n    \"code\": 115,\n    \"msg\": \"sandwire was stuck past its deadline\",\n    \"details\": \"a system call did not return; what was begun is taken back by the next call for this attachment\"\n}";

extern "C" fn on_signal(signal: libc::c_int) {
    // Only async-signal-safe operations: atomics, increment_epoch, which is documented as such, poll, write and _exit.
    if signal == libc::SIGALRM && TICKS.fetch_add(1, Ordering::SeqCst) >= LAST_TICK {
        // What it is stuck in may be the writing of its answer, for a reader that reads no more: a pipe that can be written to has
        // place for a page (pipe(7)), and one that can't would keep this process for ever.
        let is_delivered = answer::is_delivered();
        let mut stdout = libc::pollfd { fd: 1, events: libc::POLLOUT, revents: 0 };
        // SAFETY: async-signal-safe (signal-safety(7)); the bytes are static, and there is one pollfd.
        unsafe {
            if !is_delivered && libc::poll(&raw mut stdout, 1, 0) == 1 {
                libc::write(1, STUCK.as_ptr().cast(), STUCK.len());
            }
            libc::_exit(i32::from(!is_delivered));
        }
    }
    let _ = SIGNAL.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
    if let Some(engine) = ENGINE.get() {
        engine.increment_epoch();
    }
}

/// When a call has to be over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    /// The whole time allowed.
    pub(crate) limit: Duration,
    start: Instant,
}

impl Deadline {
    /// Arms the timer and the handlers.
    ///
    /// # Errors
    /// The system call that failed.
    pub(crate) fn arm(limit: Duration) -> std::io::Result<Self> {
        let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::empty(), SigSet::empty());
        for signal in [Signal::SIGALRM, Signal::SIGTERM, Signal::SIGINT] {
            // SAFETY: the handler does only async-signal-safe things (above).
            unsafe { sigaction(signal, &action) }?;
        }
        let deadline = Self { limit, start: Instant::now() };
        deadline.set_timer(limit);
        Ok(deadline)
    }

    /// Lets the signals reach this engine's guests.
    pub(crate) fn watch(engine: &Engine) {
        let _ = ENGINE.set(engine.clone());
    }

    fn set_timer(&self, first: Duration) {
        TICKS.store(0, Ordering::SeqCst);
        let timer = libc::itimerval {
            // Again and again: a signal that comes between a check and the blocking call after it would be lost.
            it_interval: libc::timeval { tv_sec: 0, tv_usec: (TICK * 1000).into() },
            it_value: libc::timeval {
                tv_sec: i32::try_from(first.as_secs()).unwrap_or(i32::MAX).into(),
                tv_usec: i32::try_from(first.subsec_micros()).unwrap_or(0).max(1).into(),
            },
        };
        // SAFETY: a valid itimerval, and no old value is asked for.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
    }

    /// Starts the time for undoing: what was asked to end has ended, and no further signal cuts this short.
    pub(crate) fn begin_undo(&self) {
        SIGNAL.store(0, Ordering::SeqCst);
        self.set_timer(GRACE);
        let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            // SAFETY: ignoring a signal runs no code of ours.
            let _ = unsafe { sigaction(signal, &ignore) };
        }
    }

    /// Ends it: signals do again what they did before, and no timer runs. For a program that goes on after a call's work.
    pub(crate) fn disarm(&self) {
        let timer = libc::itimerval {
            it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
            it_value: libc::timeval { tv_sec: 0, tv_usec: 0 },
        };
        // SAFETY: a valid itimerval, and no old value is asked for.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
        SIGNAL.store(0, Ordering::SeqCst);
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            // SAFETY: the default action runs no code of ours.
            let _ = unsafe { sigaction(signal, &default) };
        }
    }

    /// What is left of the time.
    pub(crate) fn left(&self) -> Duration {
        self.limit.saturating_sub(self.start.elapsed())
    }

    /// The signal that came, if any.
    pub(crate) fn signal() -> Option<Signal> {
        Signal::try_from(SIGNAL.load(Ordering::SeqCst)).ok()
    }

    /// Whether a blocked operation should give up.
    pub(crate) fn interrupted() -> bool {
        SIGNAL.load(Ordering::SeqCst) != 0
    }

    /// Keeps the text of a wait that the deadline ended.
    pub(crate) fn waited_for(text: &str) {
        *WAITED.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.to_owned());
    }

    /// The text of the last one.
    pub(crate) fn waited() -> Option<String> {
        WAITED.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the call has to end, for people.
    pub(crate) fn reason(&self) -> Option<String> {
        match Self::signal()? {
            Signal::SIGALRM => Some(format!("did not finish within its {} s", self.limit.as_secs_f32())),
            signal => Some(format!("was asked to stop by {signal}")),
        }
    }

    /// A trap when the time is over: host functions check before they start something.
    ///
    /// # Errors
    /// The trap.
    pub(crate) fn check(&self) -> Answer<()> {
        match Self::interrupted() {
            true => Err(Refusal::Trap(wasmtime::Trap::Interrupt.into())),
            false => Ok(()),
        }
    }
}
