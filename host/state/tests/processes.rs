//! The lease store under many processes at once, native host-local among them; under processes that are killed; on file
//! systems that are full or read-only; and what it costs.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use sandwire_state::leases::{Range, Store};
use sandwire_state::{Owner, StateError};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const NATIVE: &str = "/usr/lib/cni/host-local";
/// Tells this program, run by itself, what to do instead of testing: `directory|index|what|how often|name`.
const WORK: &str = "SANDWIRE_STATE_TEST_WORK";

fn pool(last: &str) -> [Range; 1] {
    [Range { first: "10.77.0.2".parse().unwrap(), last: last.parse().unwrap() }]
}

/// The other processes of these tests run this; by itself it is a small test of the same work.
#[test]
fn worker() {
    let Ok(work) = std::env::var(WORK) else {
        let temporary = tempfile::tempdir().unwrap();
        assert_eq!(churn(&temporary.path().join("n"), &temporary.path().join("i"), 10, "self"), 10);
        return;
    };
    let [directory, index, what, times, name] = work.split('|').collect::<Vec<_>>()[..] else { panic!("{work}") };
    let (directory, index, times) = (Path::new(directory), Path::new(index), times.parse().unwrap());
    match what {
        "churn" => assert_eq!(churn(directory, index, times, name), times),
        "take" => {
            let mut store = Store::open(directory, index).unwrap();
            for n in 0..times {
                store.reserve_next(&Owner::new(format!("{name}-{n}"), "eth0"), 0, &pool("10.77.255.254"), &[]).unwrap();
            }
        }
        other => panic!("{other}"),
    }
}

/// Takes an address and gives two thirds back, again and again; how often that worked.
fn churn(directory: &Path, index: &Path, times: usize, name: &str) -> usize {
    let mut done = 0;
    for n in 0..times {
        let mut store = Store::open(directory, index).unwrap();
        let owner = Owner::new(format!("{name}-{n}"), "eth0");
        let address = store.reserve_next(&owner, 0, &pool("10.77.255.254"), &[]).unwrap();
        assert_eq!(store.held(&owner).unwrap()[0].address, address);
        if n % 3 > 0 {
            assert_eq!(store.release(&owner).unwrap(), [address]);
        }
        done += 1;
    }
    done
}

fn start(directory: &Path, index: &Path, what: &str, times: usize, name: &str) -> Child {
    let work = format!("{}|{}|{what}|{times}|{name}", directory.display(), index.display());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "worker", "--nocapture", "--test-threads=1"]).env(WORK, work);
    command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap()
}

fn native(directory: &Path, verb: &str, id: &str, last: &str) -> Child {
    let (root, network) = (directory.parent().unwrap(), directory.file_name().unwrap().to_str().unwrap());
    let config = format!(
        r#"{{"cniVersion":"1.0.0","name":"{network}","type":"x","ipam":{{"type":"host-local","dataDir":"{}",
            "ranges":[[{{"subnet":"10.77.0.0/16","rangeStart":"10.77.0.2","rangeEnd":"{last}"}}]]}}}}"#,
        root.display()
    );
    let mut command = Command::new(NATIVE);
    command.env_clear().envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", id), ("CNI_IFNAME", "eth0")]);
    command.envs([("CNI_NETNS", "/dev/null"), ("CNI_PATH", "/usr/lib/cni")]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    child
}

/// Each lease by its file, which must be whole and of its own owner.
fn files(directory: &Path) -> BTreeMap<IpAddr, String> {
    let mut leases = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        assert!(!name.starts_with(".tmp"), "left over: {name}");
        if let Ok(address) = name.parse() {
            let content = std::fs::read_to_string(entry.path()).unwrap();
            leases.insert(
                address,
                content.strip_suffix("\r\neth0").unwrap_or_else(|| panic!("{name}: {content:?}")).to_owned(),
            );
        }
    }
    leases
}

fn agrees(directory: &Path, index: &Path) -> BTreeMap<IpAddr, String> {
    let files = files(directory);
    let mut store = Store::open(directory, index).unwrap();
    let known: BTreeMap<IpAddr, String> =
        store.all().unwrap().into_iter().map(|lease| (lease.address, lease.owner.container_id)).collect();
    assert_eq!(files, known);
    for (address, id) in &files {
        assert_eq!(store.held(&Owner::new(id.clone(), "eth0")).unwrap()[0].address, *address);
    }
    files
}

fn place() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let temporary = tempfile::tempdir().unwrap();
    let (directory, index) = (temporary.path().join("networks/n1"), temporary.path().join("index"));
    (temporary, directory, index)
}

#[test]
fn no_address_twice_under_64_processes_and_native_ones() {
    let (_temporary, directory, index) = place();
    let ours: Vec<Child> = (0..64).map(|n| start(&directory, &index, "churn", 12, &format!("p{n}"))).collect();
    let mut natives = 0;
    for round in 0..6 {
        let added: Vec<Child> =
            (0..8).map(|n| native(&directory, "ADD", &format!("native-{round}-{n}"), "10.77.3.254")).collect();
        natives += added.into_iter().filter_map(|mut child| child.wait().unwrap().success().then_some(())).count();
        for mut child in (0..4).map(|n| native(&directory, "DEL", &format!("native-{round}-{n}"), "10.77.3.254")) {
            assert!(child.wait().unwrap().success());
            natives -= 1;
        }
    }
    for mut child in ours {
        assert!(child.wait().unwrap().success());
    }
    let left = agrees(&directory, &index);
    // Each of ours kept 4 of 12 (n = 0, 3, 6, 9), the native ones 4 of 8. A second lease of an address would be missing.
    assert_eq!(natives, 24);
    assert_eq!(left.len(), 64 * 4 + 24);
}

#[test]
fn killed_at_any_time_the_store_stays_valid() {
    let (_temporary, directory, index) = place();
    let mut kept = BTreeMap::new();
    for round in 0..60u64 {
        let mut child = start(&directory, &index, "churn", 100_000, &format!("r{round}"));
        std::thread::sleep(Duration::from_micros(3_000 + round * 977 % 20_000));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "the worker must have been at work");
        if directory.exists() {
            let now = agrees(&directory, &index);
            assert!(kept.iter().all(|(address, id)| now.get(address) == Some(id)), "a lease was lost");
            kept = now;
        }
        if round % 10 == 9 {
            // With GC between, so that the pool lasts, and native host-local as the judge of the store.
            Store::open(&directory, &index).unwrap().retain(&[]).unwrap();
            assert!(native(&directory, "ADD", "judge", "10.77.3.254").wait().unwrap().success());
            assert!(native(&directory, "DEL", "judge", "10.77.3.254").wait().unwrap().success());
            assert_eq!(agrees(&directory, &index).len(), 0);
            kept.clear();
        }
    }
}

/// Runs in a mount namespace of its own, with a small tmpfs at `path`.
fn with_tmpfs(path: &Path, options: &str, test: impl FnOnce() + Send) {
    std::fs::create_dir_all(path).unwrap();
    std::thread::scope(|scope| {
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
            test();
        };
        scope.spawn(inside).join().unwrap();
    });
}

#[test]
fn a_full_disk_loses_no_lease() {
    let (_temporary, directory, index) = place();
    // 64 KiB: room for the index but not for many leases, each of a page.
    with_tmpfs(directory.parent().unwrap(), "size=64k", || {
        let mut store = Store::open(&directory, &index).unwrap();
        let mut given = BTreeMap::new();
        let error = loop {
            let id = format!("c{}", given.len());
            match store.reserve_next(&Owner::new(id.clone(), "eth0"), 0, &pool("10.77.3.254"), &[]) {
                Ok(address) => assert!(given.insert(address, id).is_none()),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains("No space left on device") && error.contains("make room"), "{error}");
        assert!(given.len() > 5);
        assert_eq!(agrees(&directory, &index), given);
        let (first, id) = given.pop_first().unwrap();
        assert_eq!(store.release(&Owner::new(id, "eth0")).unwrap(), [first]);
        store.reserve_next(&Owner::new("again", "eth0"), 0, &pool("10.77.3.254"), &[]).unwrap();
        assert_eq!(agrees(&directory, &index).len(), given.len() + 1);
    });
    // The index on a full disk: everything works without it.
    with_tmpfs(&index, "size=4k", || {
        let mut store = Store::open(&directory, &index).unwrap();
        for n in 0..100 {
            store.reserve_next(&Owner::new(format!("d{n}"), "eth0"), 0, &pool("10.77.3.254"), &[]).unwrap();
        }
        assert_eq!(agrees(&directory, &index).len(), 100);
    });
    // One that fits at first and can't grow.
    with_tmpfs(&index, "size=96k", || {
        let mut store = Store::open(&directory, &index).unwrap();
        for n in 100..500 {
            store.reserve_next(&Owner::new(format!("d{n}"), "eth0"), 0, &pool("10.77.3.254"), &[]).unwrap();
        }
        assert_eq!(agrees(&directory, &index).len(), 500);
    });
}

/// The node's tmpfs is full, whoever filled it: what is undone counts, and the file goes.
#[test]
fn a_full_disk_keeps_no_journal() {
    use sandwire_state::journal::{Attachment, Journal, Undo};
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path();
    with_tmpfs(root, "size=64k", || {
        let attachment = Attachment { network: "net".into(), container_id: "a".into(), ifname: "eth0".into() };
        let undo = Undo::Shared { what: "a bridge".into(), held: None };
        let mut journal = Journal::open(root, &attachment).unwrap();
        journal.begin("ADD", "bridge", None).unwrap();
        let ids = [0; 2].map(|_| journal.intend("bridge", &undo).unwrap());
        journal.commit(Some(&serde_json::json!({"netns": ""}))).unwrap();
        drop(journal);
        // Up to the last byte of the journal's own page.
        let mut fill = std::fs::File::create(root.join("fill")).unwrap();
        while std::io::Write::write(&mut fill, &[0; 4096]).is_ok() {}
        let mut journal = Journal::open(root, &attachment).unwrap();
        journal.begin("DEL", &"x".repeat(5000), None).unwrap();
        for id in ids {
            let error = journal.undone(id).unwrap_err().to_string();
            assert!(error.contains("No space left on device"), "{error}");
        }
        assert!(journal.remove_if_empty().unwrap());
        assert_eq!(sandwire_state::journal::list(root, None).unwrap(), []);
    });
}

/// One call can't fill it.
#[test]
fn a_journal_has_an_end() {
    use sandwire_state::StateError;
    use sandwire_state::journal::{Attachment, Journal, Undo};
    let temporary = tempfile::tempdir().unwrap();
    let attachment = Attachment { network: "net".into(), container_id: "a".into(), ifname: "eth0".into() };
    let mut journal = Journal::open(temporary.path(), &attachment).unwrap();
    journal.begin("ADD", "bridge", None).unwrap();
    let undo = Undo::Shared { what: "x".repeat(400 << 10), held: None };
    let written = (0..20).take_while(|_| journal.intend("bridge", &undo).is_ok()).count();
    assert_eq!(written, 10);
    assert!(matches!(journal.intend("bridge", &undo), Err(StateError::Exhausted(_))));
    // What it has begun it can still end, and small things still fit.
    let small = journal.intend("bridge", &Undo::Shared { what: "y".into(), held: None }).unwrap();
    journal.done(small, None).unwrap();
    assert_eq!(journal.pending().len(), 11);
}

#[test]
fn a_read_only_file_system_says_so() {
    let (_temporary, directory, index) = place();
    let networks = directory.parent().unwrap().to_owned();
    with_tmpfs(&networks, "size=1m", || {
        let read_only = |flag| {
            let flags = MsFlags::MS_REMOUNT | flag;
            mount(None::<&str>, &networks, None::<&str>, flags, None::<&str>).unwrap();
        };
        let owner = Owner::new("a", "eth0");
        let mut store = Store::open(&directory, &index).unwrap();
        read_only(MsFlags::MS_RDONLY);
        let error = store.reserve_next(&owner, 0, &pool("10.77.3.254"), &[]).unwrap_err().to_string();
        assert!(error.contains("read-only"), "{error}");
        assert_eq!(store.release(&owner).unwrap(), [] as [IpAddr; 0]);
        read_only(MsFlags::empty());
        let address = store.reserve_next(&owner, 0, &pool("10.77.3.254"), &[]).unwrap();
        read_only(MsFlags::MS_RDONLY);
        for error in [
            store.reserve_next(&Owner::new("b", "eth0"), 0, &pool("10.77.3.254"), &[]).unwrap_err(),
            store.release(&owner).unwrap_err(),
            store.retain(&[]).unwrap_err(),
        ] {
            assert!(matches!(&error, StateError::Other(text) if text.contains("read-only")), "{error}");
        }
        assert_eq!(store.held(&owner).unwrap()[0].address, address);
        assert_eq!(store.available(&pool("10.77.0.5")).unwrap(), 3);
        read_only(MsFlags::empty());
        assert_eq!(store.release(&owner).unwrap(), [address]);
    });
}

fn cpu_time() -> Duration {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    Duration::new(time.tv_sec() as u64, time.tv_nsec() as u32)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Each operation by a store of its own, as a process does it. In processor time: others are at work on this machine.
fn measure(directory: &Path, index: &Path, label: &str, range: &[Range]) -> Duration {
    let mut all = BTreeMap::<&str, Vec<Duration>>::new();
    for n in 0..60 {
        let owner = Owner::new(format!("measured-{n}"), "eth0");
        let mut timed = |what, work: &dyn Fn(&mut Store)| {
            let start = cpu_time();
            let mut store = Store::open(directory, index).unwrap();
            work(&mut store);
            all.entry(what).or_default().push(cpu_time() - start);
        };
        timed("reserve_next", &|store| {
            store.reserve_next(&owner, 0, range, &["10.77.0.1".parse().unwrap()]).unwrap();
        });
        timed("held", &|store| assert_eq!(store.held(&owner).unwrap().len(), 1));
        timed("release", &|store| assert_eq!(store.release(&owner).unwrap().len(), 1));
        timed("available", &|store| assert!(store.available(range).unwrap() > 0));
    }
    let medians: BTreeMap<&str, Duration> = all.into_iter().map(|(what, times)| (what, median(times))).collect();
    let text: Vec<String> = medians.iter().map(|(what, time)| format!("{what} {} us", time.as_micros())).collect();
    println!("{label:>32}: {}", text.join(", "));
    medians["reserve_next"] + medians["held"] + medians["release"]
}

#[test]
fn as_fast_with_60_000_leases_as_with_none() {
    let (temporary, directory, index) = place();
    // On a tmpfs: a disk that others use would be measured here, and ext4 passes over the inodes of files that were
    // deleted within the last seconds one by one (recently_deleted in fs/ext4/ialloc.c).
    with_tmpfs(temporary.path(), "size=1g,nr_inodes=200k", || figures(&directory, &index));
}

fn figures(directory: &Path, index: &Path) {
    let range = pool("10.77.255.254");
    let empty = measure(directory, index, "0 leases", &range);
    let fill = |name: &str, from: u32, to: u32| {
        let mut store = Store::open(directory, index).unwrap();
        for n in from..to {
            store.reserve_next(&Owner::new(format!("{name}-{n}"), "eth0"), 0, &range, &[]).unwrap();
        }
    };
    fill("c", 0, 1_000);
    measure(directory, index, "1,000 leases", &range);
    let start = Instant::now();
    fill("c", 1_000, 60_000);
    println!("{:>32}: {} us each", "59,000 more", start.elapsed().as_micros() / 59_000);
    let full = measure(directory, index, "60,000 leases", &range);

    // Nearly full: one hole in a /16, 60,000 addresses behind the cursor.
    fill("d", 0, 65_533 - 60_000 - 1);
    let cursor = directory.join("last_reserved_ip.0");
    std::fs::write(&cursor, "10.77.3.3").unwrap();
    let fullest = measure(directory, index, "65,532 of 65,533 leases", &range);

    // Fragmented: every third given back.
    let mut store = Store::open(directory, index).unwrap();
    for n in (0..60_000).step_by(3) {
        store.release(&Owner::new(format!("c-{n}"), "eth0")).unwrap();
    }
    let fragmented = measure(directory, index, "45,532 leases, full of holes", &range);

    // Somebody else was here: one rebuild, and all is as before.
    assert!(native(directory, "ADD", "native", "10.77.255.254").wait().unwrap().success());
    let find = || {
        let start = cpu_time();
        assert_eq!(Store::open(directory, index).unwrap().held(&Owner::new("native", "eth0")).unwrap().len(), 1);
        cpu_time() - start
    };
    let rebuild = find();
    for entry in std::fs::read_dir(index).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let (rebuild, nothing) = (rebuild.as_millis(), find().as_millis());
    println!("{:>32}: rebuild {rebuild} ms, from nothing {nothing} ms of processor time", "after native host-local");
    let after = measure(directory, index, "after that", &range);

    // What looks at every lease takes tens of milliseconds; the two are what a debug build on a busy machine may add to
    // the search for one hole in 256 bitmaps.
    let most = empty * 3 + Duration::from_millis(2);
    for (what, time) in
        [("60,000", full), ("nearly full", fullest), ("fragmented", fragmented), ("after native", after)]
    {
        assert!(time < most, "{what}: {time:?} against {empty:?} with none");
    }
}

#[test]
fn a_journal_on_a_full_disk_says_so_and_stays_whole() {
    use sandwire_state::journal::{Attachment, Journal, Undo};
    let (_temporary, _, root) = place();
    with_tmpfs(&root, "size=16k", || {
        let key = Attachment { network: "n".into(), container_id: "a".into(), ifname: "eth0".into() };
        let mut journal = Journal::open(&root, &key).unwrap();
        journal.begin("ADD", "p", None).unwrap();
        let mut written = 0;
        let error = loop {
            match journal.intend("p", &Undo::Shared { what: "x".repeat(700), held: None }) {
                Ok(_) => written += 1,
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains("No space left on device") && error.contains("make room"), "{error}");
        assert!(written > 3 && journal.pending().len() == written);
        drop(journal);
        let mut journal = Journal::open(&root, &key).unwrap();
        assert_eq!((journal.pending().len(), journal.damaged()), (written, 0));
        // There is always room to end it: what is short fits where the long line did not, or the file goes.
        let ids: Vec<u64> = journal.pending().iter().map(|entry| entry.id).collect();
        assert!(ids.iter().all(|id| journal.undone(*id).is_ok()) || !journal.pending().is_empty());
    });
}
