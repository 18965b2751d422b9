//! A signal, such as the one of a call's deadline, ends every wait for a lock with `Busy`, and what waited leaves nothing.
#![allow(missing_docs, unsafe_code, clippy::unwrap_used)]

use nix::fcntl::{Flock, FlockArg};
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use sandwire_state::journal::{Attachment, Journal, NetworkLock};
use sandwire_state::leases::Store;
use sandwire_state::{Owner, StateError, kv};
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

extern "C" fn nothing(_: i32) {}

/// Runs `wait` in a thread that gets SIGALRM again and again, as from a repeating timer.
fn interrupted<T: Send>(wait: impl FnOnce() -> Result<T, StateError> + Send) -> StateError {
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, so it is safe to run at any point of the program.
    unsafe { sigaction(Signal::SIGALRM, &action).unwrap() };
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let ended = &ended;
        let thread = scope.spawn(move || {
            tell.send(pthread_self()).unwrap();
            let result = wait();
            ended.store(true, Ordering::Release);
            // Stay until the last signal was sent to this thread.
            std::thread::sleep(Duration::from_millis(50));
            result.err().unwrap()
        });
        let target = told.recv().unwrap();
        while !ended.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(10));
            pthread_kill(target, Signal::SIGALRM).unwrap();
        }
        thread.join().unwrap()
    })
}

fn lock(path: std::path::PathBuf) -> Flock<File> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap();
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).unwrap()
}

fn assert_busy(error: &StateError, what: &str) {
    assert!(matches!(error, StateError::Busy(text) if text.contains(what)), "{error:?}");
}

#[test]
fn leases() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("n1");
    std::fs::create_dir(&directory).unwrap();
    let held = lock(directory.join("lock"));
    let (owner, address) = (Owner::new("a", "eth0"), "10.0.0.1".parse().unwrap());
    let mut store = Store::open(&directory, &place.path().join("index")).unwrap();
    assert_busy(&interrupted(|| store.reserve(&owner, 0, address)), "n1/lock");
    assert_busy(&interrupted(|| store.release(&owner)), "n1/lock");
    drop(held);
    assert_eq!(store.all().unwrap(), []);
}

#[test]
fn notes() {
    let place = tempfile::tempdir().unwrap();
    let notes = kv::Notes::open(place.path(), "p", "net", None);
    notes.set("k", "1").unwrap();
    let held = lock(place.path().join("net/lock"));
    assert_busy(&interrupted(|| notes.set("k", "2")), "net/lock");
    assert_eq!(notes.get("k").unwrap().unwrap(), "1");
    drop(held);
}

#[test]
fn journals() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path();
    let attachment = |id: &str| Attachment { network: "net".into(), container_id: id.into(), ifname: "eth0".into() };
    let first = Journal::open(root, &attachment("a")).unwrap();
    // The same attachment waits, another does not, GC does.
    assert_busy(&interrupted(|| Journal::open(root, &attachment("a"))), "locks/net");
    drop(Journal::open(root, &attachment("b")).unwrap());
    assert_busy(&interrupted(|| NetworkLock::take(root, "net")), "locks/net");
    drop(first);
    let all = NetworkLock::take(root, "net").unwrap();
    assert_busy(&interrupted(|| Journal::open(root, &attachment("a"))), "locks/net");
    drop(Journal::open(root, &Attachment { network: "other".into(), ..attachment("a") }).unwrap());
    all.remove_if_empty();
    drop(Journal::open(root, &attachment("a")).unwrap());
}
