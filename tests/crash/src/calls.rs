//! Which system calls change something outside of their process, or tell it what was changed.

use std::path::PathBuf;

/// A call that counts.
pub(crate) struct Kind {
    pub(crate) call: &'static str,
    /// A path or the kind of a descriptor.
    pub(crate) about: String,
}

/// Whether call `number` of `process` counts, by its first four arguments.
///
/// Not counted: what changes nothing but the process itself (memory, signals, closing, opening to read), a pipe between
/// processes of one call, a receive that does not wait (how many of those there are is a matter of timing).
pub(crate) fn changing(process: i32, number: u64, arguments: [u64; 4]) -> Option<Kind> {
    let [a, b, c, d] = arguments;
    let number = i64::try_from(number).ok()?;
    let fd = |fd: u64| -> String {
        let link = std::fs::read_link(format!("/proc/{process}/fd/{fd}")).unwrap_or_default();
        link.to_string_lossy().into_owned()
    };
    let kind = |call, about: String| Some(Kind { call, about: readable(&about) });
    match number {
        libc::SYS_sendto => kind("sendto", fd(a)),
        libc::SYS_sendmsg => kind("sendmsg", fd(a)),
        libc::SYS_sendmmsg => kind("sendmmsg", fd(a)),
        libc::SYS_recvfrom if !dont_wait(d) => kind("recvfrom", fd(a)),
        libc::SYS_recvmsg if !dont_wait(c) => kind("recvmsg", fd(a)),
        libc::SYS_connect => kind("connect", fd(a)),
        libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev | libc::SYS_pwritev => {
            let to = fd(a);
            let own = to.starts_with("pipe:") && a != 1;
            (!own && !to.starts_with("anon_inode:") && to != "/dev/null").then_some(())?;
            let about = if a == 1 { "standard output".into() } else { to };
            let call = match number {
                libc::SYS_write => "write",
                libc::SYS_pwrite64 => "pwrite64",
                libc::SYS_writev => "writev",
                _ => "pwritev",
            };
            kind(call, about)
        }
        libc::SYS_openat if writing(c) => kind("openat", path(process, b)).filter(|kind| kind.about != "/dev/null"),
        libc::SYS_open if writing(b) => kind("open", path(process, a)).filter(|kind| kind.about != "/dev/null"),
        libc::SYS_creat => kind("creat", path(process, a)),
        libc::SYS_rename => kind("rename", path(process, a)),
        libc::SYS_renameat => kind("renameat", path(process, b)),
        libc::SYS_renameat2 => kind("renameat2", path(process, b)),
        libc::SYS_unlink => kind("unlink", path(process, a)),
        libc::SYS_unlinkat => kind("unlinkat", path(process, b)),
        libc::SYS_rmdir => kind("rmdir", path(process, a)),
        libc::SYS_link => kind("link", path(process, b)),
        libc::SYS_linkat => kind("linkat", path(process, d)),
        libc::SYS_symlink => kind("symlink", path(process, b)),
        libc::SYS_symlinkat => kind("symlinkat", path(process, c)),
        libc::SYS_mkdir => kind("mkdir", path(process, a)),
        libc::SYS_mkdirat => kind("mkdirat", path(process, b)),
        libc::SYS_flock => kind("flock", fd(a)),
        // F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW.
        libc::SYS_fcntl if matches!(b, 6 | 7 | 37 | 38) => kind("fcntl", fd(a)),
        libc::SYS_utimensat => kind("utimensat", fd(a)),
        libc::SYS_ftruncate => kind("ftruncate", fd(a)),
        libc::SYS_truncate => kind("truncate", path(process, a)),
        libc::SYS_fallocate => kind("fallocate", fd(a)),
        libc::SYS_chmod => kind("chmod", path(process, a)),
        libc::SYS_fchmod => kind("fchmod", fd(a)),
        libc::SYS_fchmodat => kind("fchmodat", path(process, b)),
        libc::SYS_fchown => kind("fchown", fd(a)),
        libc::SYS_setns => kind("setns", fd(a)),
        libc::SYS_unshare => kind("unshare", String::new()),
        libc::SYS_mount => kind("mount", path(process, b)),
        libc::SYS_umount2 => kind("umount2", path(process, a)),
        libc::SYS_fork => kind("fork", String::new()),
        libc::SYS_vfork => kind("vfork", String::new()),
        libc::SYS_clone if a & THREAD == 0 => kind("clone", String::new()),
        libc::SYS_clone3 if word(process, a) & THREAD == 0 => kind("clone3", String::new()),
        libc::SYS_execve => kind("execve", path(process, a)),
        _ => None,
    }
}

const THREAD: u64 = libc::CLONE_THREAD.cast_unsigned() as u64;

fn dont_wait(flags: u64) -> bool {
    flags & u64::from(libc::MSG_DONTWAIT.cast_unsigned()) != 0
}

fn writing(flags: u64) -> bool {
    let changes = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
    flags & u64::from(changes.cast_unsigned()) != 0
}

fn word(process: i32, address: u64) -> u64 {
    let bytes = memory(process, address, 8);
    bytes.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// The path at `address`, to its zero.
fn path(process: i32, address: u64) -> String {
    let mut text = memory(process, address, 256);
    if !text.contains(&0) {
        // It goes on in the next page, as the stack happens to lie.
        let read = u64::try_from(text.len()).unwrap_or(0);
        text.extend(memory(process, address.wrapping_add(read), 256));
    }
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// Up to `most` bytes at `address`, as far as its page goes: the next one may not be there.
fn memory(process: i32, address: u64, most: u64) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let most = most.min(4096 - address % 4096);
    let mut bytes = vec![0; usize::try_from(most).unwrap_or(0)];
    let file = std::fs::File::open(PathBuf::from(format!("/proc/{process}/mem")));
    let read = file.and_then(|file| file.read_at(&mut bytes, address)).unwrap_or(0);
    bytes.truncate(read);
    bytes
}

/// Without what differs from run to run: numbers of sockets and processes.
fn readable(about: &str) -> String {
    match about.split_once(":[") {
        Some((kind, _)) => kind.to_owned(),
        None => about.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path across the end of a page was cut there: "/dev/nul" then counted as a file that is written.
    #[test]
    fn a_path_goes_on_in_the_next_page() {
        let mut room = vec![0u8; 3 * 4096];
        let start = room.as_ptr() as usize;
        let boundary = (start / 4096 + 1) * 4096 - start;
        for before in [1, 4, 8, 9, 10] {
            room.fill(1);
            let at = boundary - before;
            room[at..at + 10].copy_from_slice(b"/dev/null\0");
            let me = i32::try_from(std::process::id()).unwrap();
            assert_eq!(path(me, (start + at) as u64), "/dev/null", "{before} bytes before the end");
        }
    }
}
