//! Waiting for another process, without polling.

use crate::{Outcome, StateError};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{major, minor};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// flock(2), blocking. A signal ends the wait: that is how the call's deadline reaches it (SIGALRM with a handler
/// installed without SA_RESTART, from a timer that repeats, since one that fires just before the wait begins is lost).
pub(crate) fn flock(file: File, how: FlockArg, path: &Path) -> Outcome<Flock<File>> {
    Flock::lock(file, how).map_err(|(_, errno)| match errno {
        Errno::EINTR | Errno::EWOULDBLOCK => busy(path),
        errno => StateError::io("lock", path, errno),
    })
}

/// The text of a wait that a signal ended.
pub(crate) fn busy(path: &Path) -> StateError {
    held(path, "held by process", ": end it if it hangs")
}

/// The same of a part of a file that calls have in common: which of them has the part the kernel does not say.
pub(crate) fn busy_part(path: &Path) -> StateError {
    held(path, "by one of the processes", "")
}

fn held(path: &Path, whose: &str, then: &str) -> StateError {
    let holders = holders(path);
    let who = if holders.is_empty() { String::new() } else { format!(" ({whose} {}{then})", holders.join(", ")) };
    StateError::Busy(format!("another call held {} until this one's deadline; try again later{who}", path.display()))
}

/// Who has a lock of a file, as `123 (bridge)`; as far as this process can see (proc(5), /proc/locks).
fn holders(path: &Path) -> Vec<String> {
    let Ok(meta) = std::fs::metadata(path) else { return Vec::new() };
    let this = format!("{:02x}:{:02x}:{}", major(meta.dev()), minor(meta.dev()), meta.ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let mut found: Vec<String> = Vec::new();
    for line in locks.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        // One that waits has an arrow for its second word; a lock of an open file (F_OFD_SETLK) has no process.
        let [_, _, _, _, process, file, ..] = words.as_slice() else { continue };
        let Ok(id) = process.parse::<u32>() else { continue };
        if *file != this || id == std::process::id() {
            continue;
        }
        // Who has ended may have left it to a child; another process may have its number.
        let Ok(name) = std::fs::read_to_string(format!("/proc/{id}/comm")) else { continue };
        let holder = format!("{id} ({})", name.trim_end().replace(char::is_control, "?"));
        if !found.contains(&holder) {
            found.push(holder);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_it() {
        let path = std::env::temp_dir().join(format!("sandwire-lock-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        assert_eq!(holders(&path), Vec::<String>::new());
        let mut other = std::process::Command::new("flock")
            .arg(&path)
            .arg("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // It is not there at once; and who reads /proc/locks while others lock and unlock may miss one.
        let wanted = format!("(held by process {} (flock): ", other.id());
        let mut text = String::new();
        for _ in 0..2000 {
            text = busy(&path).to_string();
            if text.contains(&wanted) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(text.contains(&wanted), "{text}");
        // Its end: so no child of it stays behind.
        drop(other.stdin.take());
        other.wait().unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}
