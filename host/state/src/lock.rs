//! Waiting for another process, without polling.

use crate::{Outcome, StateError};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// flock(2), blocking. A signal ends the wait: that is how the call's deadline reaches it (SIGALRM with a handler
/// installed without SA_RESTART, from a timer that repeats, since one that fires just before the wait begins is lost).
pub(crate) fn flock(file: File, how: FlockArg, path: &Path) -> Outcome<Flock<File>> {
    Flock::lock(file, how).map_err(|(_, errno)| match errno {
        Errno::EINTR => busy(path),
        errno => StateError::io("lock", path, errno),
    })
}

/// The text of a wait that a signal ended.
pub(crate) fn busy(path: &Path) -> StateError {
    let holders = holders(path);
    let who = match holders.is_empty() {
        true => String::new(),
        false => format!(" (held by process {}: end it if it hangs)", holders.join(", ")),
    };
    StateError::Busy(format!("another call held {} until this one's deadline; try again later{who}", path.display()))
}

/// Who has a lock of a file, as `123 (bridge)`; as far as this process can see (proc(5), /proc/locks).
fn holders(path: &Path) -> Vec<String> {
    let Ok(inode) = std::fs::metadata(path).map(|meta| meta.ino()) else { return Vec::new() };
    let inode = format!(":{inode}");
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let mut found: Vec<String> = Vec::new();
    for line in locks.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        // One that waits has an arrow for its second word; a lock of an open file (F_OFD_SETLK) has no process.
        let [_, _, _, _, process, file, ..] = words.as_slice() else { continue };
        let Ok(id) = process.parse::<u32>() else { continue };
        if !file.ends_with(&inode) || id == 0 || id == std::process::id() {
            continue;
        }
        let name = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
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
        let mut other = std::process::Command::new("flock").arg(&path).args(["sleep", "100"]).spawn().unwrap();
        while holders(&path).is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let text = busy(&path).to_string();
        assert!(text.contains(&format!("(held by process {} (flock): ", other.id())), "{text}");
        other.kill().unwrap();
        other.wait().unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}
