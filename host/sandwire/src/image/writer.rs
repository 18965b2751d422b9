//! Writes the image: data and heap as they are once every plugin is ready.

#![allow(unsafe_code)]

use super::{ARENA, Header, MAGIC, PAGE, SEGMENTS, Segment, base, loader};
use crate::heap;
use sandwire_cni::{Error, code};
use sandwire_runtime::prepared;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes the image of a generation into its directory, in place of the one that is there.
///
/// # Errors
/// Code `IO` when it can't be written; of `prepared::prepare`; and when what this process holds can't be another's.
pub(crate) fn write(directory: &Path) -> Result<(), Error> {
    prepared::prepare(directory, heap::together)?;
    let name = OsStr::from_bytes(prepared::IMAGE.to_bytes());
    let path = directory.join(name);
    // Until it is complete.
    let unfinished = path.with_extension("new");
    let failed = |error: std::io::Error| Error {
        code: code::IO,
        msg: format!("could not write the memory image {}", path.display()),
        details: error.to_string(),
    };
    let old = std::fs::remove_file(&unfinished);
    old.or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
        .map_err(failed)?;
    // Root's alone: it says where everything is in every call.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished).map_err(failed)?;
    let here = elsewhere().map_err(failed)?;
    let written =
        write_to(&file, &here).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&unfinished, &path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&unfinished);
        failed(error)
    })
}

/// Where the kernel's own pages are (vdso(7)): every process has them somewhere else.
fn elsewhere() -> std::io::Result<Vec<(usize, usize)>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let hex = |text: &str| usize::from_str_radix(text, 16).ok();
    let range = |line: &str| {
        let (from, to) = line.split_once(' ')?.0.split_once('-')?;
        Some((hex(from)?, hex(to)?))
    };
    Ok(maps.lines().filter(|line| line.contains("[v")).filter_map(range).collect())
}

/// A part of this process.
fn bytes(at: usize, length: usize) -> &'static [u8] {
    // SAFETY: only for parts of the program's data and of the arena, which are there until the process ends; nothing is made or
    // changed while they are written.
    unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(at), length) }
}

fn is_empty(page: usize) -> bool {
    bytes(page, PAGE).iter().all(|byte| *byte == 0)
}

/// From here on nothing may be allocated that has to outlive the process, nor any state be changed.
fn write_to(mut file: &File, elsewhere: &[(usize, usize)]) -> std::io::Result<()> {
    let base = base();
    // SAFETY: a program of ours begins there: this one.
    let (build, (from, fixed, to)) = unsafe { (loader::build(base), loader::data(base)) };
    if (base + from..base + to).contains(&heap::thread()) {
        return Err(std::io::Error::other(
            "what is the thread's own lies in the program's data, and would be every call's",
        ));
    }
    let build = build.ok_or_else(|| std::io::Error::other("this program has no build id (--build-id)"))?;
    let used = heap::kept();
    let mut header =
        Header { magic: MAGIC, build, base, length: PAGE, count: 0, segments: [Segment::default(); SEGMENTS] };
    let mut add = |from: usize, to: usize, writable: bool| {
        let segment = header
            .segments
            .get_mut(header.count)
            .ok_or_else(|| std::io::Error::other(format!("the program's data is in more than {SEGMENTS} parts")))?;
        *segment = Segment { at: from, length: to - from, offset: header.length, writable: usize::from(writable) };
        header.count += 1;
        header.length += to - from;
        Ok::<(), std::io::Error>(())
    };
    // What is only relocated nobody writes to again.
    add(from, fixed, false)?;
    let mut page = fixed;
    while page < to {
        let begin = page;
        while page < to && !is_empty(base + page) {
            page += PAGE;
        }
        if page > begin {
            add(begin, page, true)?;
        }
        page += PAGE;
    }
    add(ARENA, ARENA + used.next_multiple_of(PAGE), true)?;

    let parts = header.segments.get(..header.count).unwrap_or_default();
    for part in parts.iter().filter(|part| part.writable != 0 && part.at < ARENA) {
        let words = bytes(base + part.at, part.length).chunks_exact(size_of::<usize>());
        let word = |word: &[u8]| word.try_into().map(usize::from_ne_bytes).unwrap_or_default();
        if words.map(word).any(|word| elsewhere.iter().any(|(from, to)| (*from..*to).contains(&word))) {
            return Err(std::io::Error::other("the program knows an address of the kernel's vdso, which moves"));
        }
    }
    // SAFETY: numbers alone, without gaps between them.
    let head = unsafe { std::slice::from_raw_parts((&raw const header).cast::<u8>(), size_of::<Header>()) };
    let mut first = [0; PAGE];
    first.iter_mut().zip(head).for_each(|(to, from)| *to = *from);
    file.write_all(&first)?;
    parts.iter().try_for_each(|part| file.write_all(bytes(base + part.at, part.length)))
}
