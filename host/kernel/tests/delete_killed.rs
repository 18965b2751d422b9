//! Somebody kills every helper process as soon as it exists. In a program of its own: it kills all children.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandwire_kernel::{Kernel, Netns};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use support::*;

#[test]
fn killed_helpers_leave_no_link() {
    with_kernel(|kernel, _| {
        let (stop, killed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        // Children belong to the thread that forked them.
        let children = format!("/proc/self/task/{}/children", nix::unistd::gettid());
        let killer = std::thread::spawn({
            let (stop, killed) = (stop.clone(), killed.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let text = std::fs::read_to_string(&children).unwrap();
                    for pid in text.split_whitespace().map(|pid| pid.parse().unwrap()) {
                        if kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok() {
                            killed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            }
        });
        for _ in 0..100 {
            let (host, _) = pair(kernel, "veth1");
            kernel.delete_link(host).unwrap();
            for netns in [Netns::Host, Netns::Container] {
                assert_eq!(kernel.links(netns).unwrap().len(), 1);
            }
        }
        stop.store(true, Ordering::Relaxed);
        killer.join().unwrap();
        assert!(killed.load(Ordering::Relaxed) > 0, "the killer was never in time");
    });
}
