//! What this process has mapped, so that another can have it at the same place.

use std::ffi::c_void;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::{with_exposed_provenance, with_exposed_provenance_mut};

/// A part of what is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    at: usize,
    length: usize,
    access: libc::c_int,
    /// Of the plugin's file: from which byte on. Otherwise it is nobody's, and zero.
    offset: Option<i64>,
}

/// All of a process (proc_pid_maps(5)), but for the stack, which grows by itself.
pub(super) fn all() -> std::io::Result<Vec<Range>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let hex = |text: &str| usize::from_str_radix(text, 16).ok();
    // from-to, access, offset, device, inode, name.
    let range = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        let (access, offset) = (words.next()?, i64::try_from(hex(words.next()?)?).ok()?);
        // Not by which inode: overlayfs has two for a file.
        let is_of_a_file = words.nth(1)? != "0";
        let (from, to) = (hex(from)?, hex(to)?);
        let may = |letter, what| if access.contains(letter) { what } else { 0 };
        let access = may('r', libc::PROT_READ) | may('w', libc::PROT_WRITE) | may('x', libc::PROT_EXEC);
        let range = Range { at: from, length: to - from, access, offset: is_of_a_file.then_some(offset) };
        (words.next() != Some("[stack]")).then_some(range)
    };
    Ok(maps.lines().filter_map(range).collect())
}

/// What there is of them now that was not there before: by addresses, since the kernel makes one of two that lie beside each other.
pub(super) fn since(before: &[Range]) -> std::io::Result<Vec<Range>> {
    let mut new = Vec::new();
    for range in all()? {
        let (mut from, end) = (range.at, range.end());
        let old = before.iter().filter(|old| old.at < end && range.at < old.end());
        // In the order of their addresses, as the kernel lists them.
        for (at, next) in old.map(|old| (old.at, old.end())).chain([(end, end)]) {
            if at > from {
                new.push(range.part(from, at));
            }
            from = next.max(from);
        }
    }
    Ok(new)
}

/// Those of `within`, of a file and not to be written to, if that is all of it.
pub(super) fn code(within: std::ops::Range<*const u8>) -> std::io::Result<Option<Vec<Range>>> {
    let (from, to) = (within.start.addr(), within.end.addr());
    let is_code = |range: &Range| range.offset.is_some() && range.access & libc::PROT_WRITE == 0;
    let code: Vec<Range> =
        all()?.into_iter().filter(|range| is_code(range) && (from..to).contains(&range.at)).collect();
    let end = code.iter().fold(from, |end, range| if range.at == end { range.end() } else { end });
    Ok((end >= to).then(|| with_its_head(code)))
}

/// The page with the file's head, which nobody reads again, as a part of the code behind it: one thing less to map.
fn with_its_head(mut code: Vec<Range>) -> Vec<Range> {
    if let [head, text, ..] = code.as_mut_slice()
        && (head.length, head.offset) == (PAGE, Some(0))
        && (text.at, text.offset) == (head.end(), i64::try_from(PAGE).ok())
    {
        *text = Range { access: text.access, length: head.length + text.length, ..*head };
        code.remove(0);
    }
    code
}

const PAGE: usize = 4096;

impl Range {
    fn end(&self) -> usize {
        self.at + self.length
    }

    fn part(&self, from: usize, to: usize) -> Self {
        let offset = self.offset.map(|offset| offset + i64::try_from(from - self.at).unwrap_or_default());
        Self { at: from, length: to - from, offset, ..*self }
    }

    /// Maps it; false when something else is there, or the kernel refuses.
    pub(super) fn map(&self, file: &OwnedFd) -> bool {
        match self.offset {
            Some(offset) => self.at_its_place(self.access, libc::MAP_PRIVATE, (file.as_raw_fd(), offset)),
            None => self.at_its_place(self.access, NOTHING, (-1, 0)),
        }
    }

    /// Keeps everything else away from where it would be: wasmtime takes what is there for it.
    pub(super) fn hold(&self) {
        self.at_its_place(libc::PROT_NONE, NOTHING, (-1, 0));
    }

    fn at_its_place(&self, access: libc::c_int, how: libc::c_int, (file, offset): (i32, i64)) -> bool {
        let at: *mut c_void = with_exposed_provenance_mut(self.at);
        // SAFETY: nothing is there yet, or it fails. The file is a compiled component of root's, and was one when its pages were
        // linked (`Generation::map`); they are not written to, but for copies of this process.
        unsafe { libc::mmap(at, self.length, access, how | libc::MAP_FIXED_NOREPLACE, file, offset) == at }
    }

    /// Whether what is there is what `map` would put there.
    pub(super) fn is_unchanged(&self, file: &File) -> std::io::Result<bool> {
        if self.access & libc::PROT_READ == 0 {
            return Ok(self.access == libc::PROT_NONE);
        }
        // SAFETY: this process has it mapped, to be read, and nothing else runs that could write to it.
        let bytes: &[u8] = unsafe { std::slice::from_raw_parts(with_exposed_provenance(self.at), self.length) };
        let Some(offset) = self.offset else { return Ok(bytes.iter().all(|byte| *byte == 0)) };
        let mut there = [0; 4096];
        let mut from = offset.cast_unsigned();
        for part in bytes.chunks(there.len()) {
            // Behind the file's end a page is zero.
            there.fill(0);
            from += u64::try_from(file.read_at(&mut there, from)?).unwrap_or_default();
            if !there.starts_with(part) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

const NOTHING: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
