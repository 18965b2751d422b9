//! Ways to die that still print a CNI error object: a runtime that gets nothing on stdout can only report an exit status.
#![allow(unsafe_code)]

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::cell::UnsafeCell;
use std::io::Write;

/// What a fault of native code leaves time for: fixed bytes, one write, exit.
const FAULT: &[u8] = b"{\n    \"code\": 999,\n    \"msg\": \"sandwire crashed\",\n    \"details\": \"a fault in native code: a compiled component or sandwire itself is damaged; run: sandwirectl apply  and, if it comes again, report it. What was begun is taken back by the next call for this attachment\"\n}";

extern "C" fn on_fault(signal: libc::c_int) {
    // SAFETY: write and _exit are async-signal-safe (signal-safety(7)); the bytes are static.
    unsafe {
        if !sandwire_runtime::answer::is_delivered() {
            libc::write(1, FAULT.as_ptr().cast(), FAULT.len());
        }
        libc::_exit(128 + signal);
    }
}

/// Where the handlers run: what wasmtime wants at least (`allocate_sigaltstack`), or it would map one of its own for every
/// call. What lies below it is the program's own data, so it is far larger than anything that runs on it.
#[repr(align(16))]
struct Stack(UnsafeCell<[u8; 256 << 10]>);
// SAFETY: nobody but the kernel uses it.
unsafe impl Sync for Stack {}
static STACK: Stack = Stack(UnsafeCell::new([0; 256 << 10]));

/// Installs the handlers. Wasmtime's own come later and are asked first: they take the faults of guests and pass on
/// what is not theirs.
pub(crate) fn install() {
    let stack = libc::stack_t { ss_sp: STACK.0.get().cast(), ss_flags: 0, ss_size: size_of::<Stack>() };
    // SAFETY: the stack is static and nobody else's.
    unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) };
    let action = SigAction::new(SigHandler::Handler(on_fault), SaFlags::SA_ONSTACK, SigSet::empty());
    for signal in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT] {
        // SAFETY: the handler does only async-signal-safe things.
        let _ = unsafe { sigaction(signal, &action) };
    }
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string().replace('\n', " ");
        let _ = writeln!(std::io::stderr(), "sandwire: critical: {text}");
    }));
}
