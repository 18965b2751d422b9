//! The lease store on real directories: its form, its index, and native host-local's hand in it.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;
use sandwire_state::leases::{Lease, Made, Range, Store, directories};
use sandwire_state::{Owner, StateError};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

struct Place {
    _temporary: tempfile::TempDir,
    directory: PathBuf,
    index: PathBuf,
}

impl Place {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let (directory, index) = (temporary.path().join("networks/n1"), temporary.path().join("index"));
        Self { _temporary: temporary, directory, index }
    }

    fn store(&self) -> Store {
        Store::open(&self.directory, &self.index).unwrap()
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::create_dir_all(&self.directory).unwrap();
        std::fs::write(self.directory.join(name), content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.join(name)).unwrap()
    }

    fn names(&self) -> BTreeSet<String> {
        std::fs::read_dir(&self.directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn range(first: &str, last: &str) -> Range {
    Range { first: ip(first), last: ip(last) }
}

fn owner(id: &str) -> Owner {
    Owner::new(id, "eth0")
}

fn text<T: std::fmt::Debug>(result: Result<T, StateError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn the_form_is_host_locals() {
    let place = Place::new();
    let mut store = place.store();
    assert_eq!(store.held(&owner("a")).unwrap(), []);
    assert_eq!(store.release(&owner("a")).unwrap(), [] as [IpAddr; 0]);
    assert_eq!(store.available(&[range("10.0.0.1", "10.0.0.6")]).unwrap(), 6);
    assert!(!place.directory.exists() && !place.index.exists());

    assert_eq!(store.reserve_next(&owner("abc"), 0, &[range("10.9.0.2", "10.9.0.6")], &[]).unwrap(), ip("10.9.0.2"));
    assert_eq!(store.reserve_next(&owner("abc"), 1, &[range("fd00:1::2", "fd00:1::9")], &[]).unwrap(), ip("fd00:1::2"));
    assert_eq!(
        place.names(),
        ["10.9.0.2", "fd00:1::2", "last_reserved_ip.0", "last_reserved_ip.1", "lock"].map(String::from).into()
    );
    assert_eq!(place.read("10.9.0.2"), "abc\r\neth0");
    assert_eq!(place.read("last_reserved_ip.1"), "fd00:1::2");
    let mode = |name: &str| std::fs::metadata(place.directory.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("."), mode("10.9.0.2"), mode("lock")), (0o755, 0o600, 0o750));
    for entry in std::fs::read_dir(&place.index).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    }

    let lease = |set, address: &str| Lease { set: Some(set), address: ip(address), owner: owner("abc") };
    assert_eq!(store.all().unwrap(), [lease(0, "10.9.0.2"), lease(1, "fd00:1::2")]);
    assert_eq!(store.held(&owner("abc")).unwrap().len(), 2);
    assert_eq!(store.held(&Owner::new("abc", "eth1")).unwrap(), []);
    assert_eq!(store.release(&owner("abc")).unwrap(), [ip("10.9.0.2"), ip("fd00:1::2")]);
    assert_eq!(place.names(), ["last_reserved_ip.0", "last_reserved_ip.1", "lock"].map(String::from).into());
}

#[test]
fn goes_round_and_says_when_it_ends() {
    let place = Place::new();
    let mut store = place.store();
    let ranges = [range("10.0.0.1", "10.0.0.3"), range("10.0.1.254", "10.0.2.1")];
    let skip = [ip("10.0.0.1")];
    let mut got = Vec::new();
    for n in 0..6 {
        got.push(store.reserve_next(&owner(&n.to_string()), 0, &ranges, &skip).unwrap().to_string());
    }
    assert_eq!(got, ["10.0.0.2", "10.0.0.3", "10.0.1.254", "10.0.1.255", "10.0.2.0", "10.0.2.1"]);
    let full = store.reserve_next(&owner("x"), 0, &ranges, &skip);
    assert!(matches!(full, Err(StateError::Exhausted(_))));
    assert_eq!(text(full), "no IP addresses available in range set: 10.0.0.1-10.0.0.3,10.0.1.254-10.0.2.1");
    assert_eq!(store.available(&ranges).unwrap(), 1);
    // The address given back last is not the next one given: the cursor stands behind it.
    store.release(&owner("1")).unwrap();
    store.release(&owner("4")).unwrap();
    assert_eq!(store.reserve_next(&owner("x"), 0, &ranges, &skip).unwrap(), ip("10.0.0.3"));
    assert_eq!(store.reserve_next(&owner("y"), 0, &ranges, &skip).unwrap(), ip("10.0.2.0"));
    // A cursor that can't be read starts from the beginning.
    store.release(&owner("0")).unwrap();
    store.release(&owner("x")).unwrap();
    place.write("last_reserved_ip.0", "10.0.0.300");
    assert_eq!(store.reserve_next(&owner("z"), 0, &ranges, &skip).unwrap(), ip("10.0.0.2"));
}

#[test]
fn an_owner_gets_one_address_of_a_set() {
    let place = Place::new();
    let mut store = place.store();
    let pool = [range("10.0.0.1", "10.0.0.9")];
    store.reserve_next(&owner("a"), 0, &pool, &[]).unwrap();
    let again = store.reserve_next(&owner("a"), 0, &pool, &[]);
    assert!(matches!(again, Err(StateError::Exists(_))));
    assert_eq!(text(again), "10.0.0.1 has been allocated to a, duplicate allocation is not allowed");
    assert_eq!(store.reserve_next(&Owner::new("a", "eth1"), 0, &pool, &[]).unwrap(), ip("10.0.0.2"));
    assert_eq!(store.reserve_next(&owner("a"), 1, &[range("10.0.1.1", "10.0.1.9")], &[]).unwrap(), ip("10.0.1.1"));
    for bad in [
        Owner::new("", "eth0"),
        Owner::new("a", ""),
        Owner::new("a\r\nb", "eth0"),
        Owner::new("a", "e\n"),
        Owner::new(" ", "e"),
    ] {
        assert!(matches!(store.reserve_next(&bad, 0, &pool, &[]), Err(StateError::Invalid(_))), "{bad:?}");
    }
}

#[test]
fn a_requested_address_is_taken_once() {
    let place = Place::new();
    let mut store = place.store();
    store.reserve(&owner("a"), 0, ip("10.0.0.7")).unwrap();
    assert_eq!(place.read("last_reserved_ip.0"), "10.0.0.7");
    assert!(matches!(store.reserve(&owner("a"), 0, ip("10.0.0.7")), Err(StateError::Exists(_))));
    let taken = store.reserve(&owner("b"), 0, ip("10.0.0.7"));
    assert!(matches!(taken, Err(StateError::Conflict(_))));
    assert_eq!(text(taken), "10.0.0.7 is held by container a, interface \"eth0\"");
    assert!(!store.release_address(&owner("b"), ip("10.0.0.7")).unwrap());
    assert!(store.release_address(&owner("a"), ip("10.0.0.7")).unwrap());
    assert!(!store.release_address(&owner("a"), ip("10.0.0.7")).unwrap());
    store.reserve(&owner("b"), 0, ip("10.0.0.7")).unwrap();
    // An IPv4 address written as IPv6 is the same address.
    assert!(matches!(store.reserve(&owner("c"), 0, ip("::ffff:10.0.0.7")), Err(StateError::Conflict(_))));
}

#[test]
fn many_are_given_back_at_once_and_nobody_elses() {
    let place = Place::new();
    let mut store = place.store();
    for (id, address) in [("a", "10.0.0.7"), ("a", "fd00::7"), ("b", "10.0.0.8"), ("b", "fd00::8"), ("c", "10.0.0.9")] {
        store.reserve(&owner(id), 0, ip(address)).unwrap();
    }
    let of = [
        (owner("a"), None),
        (owner("b"), Some(ip("10.0.0.9"))),
        (owner("b"), Some(ip("10.0.0.8"))),
        (owner("b"), Some(ip("10.0.0.8"))),
        (owner("nobody"), None),
    ];
    assert_eq!(store.release_each(&of).unwrap(), [ip("10.0.0.7"), ip("10.0.0.8"), ip("fd00::7")]);
    assert!(store.release_each(&of).unwrap().is_empty());
    // What was taken meanwhile is another's.
    store.reserve(&owner("d"), 0, ip("10.0.0.8")).unwrap();
    assert!(store.release_each(&of).unwrap().is_empty());
    let left: Vec<IpAddr> = store.all().unwrap().into_iter().map(|lease| lease.address).collect();
    assert_eq!(left, [ip("10.0.0.8"), ip("10.0.0.9"), ip("fd00::8")]);
}

#[test]
fn empty_files_of_a_crashed_host_local_are_free() {
    let place = Place::new();
    place.write("10.0.0.1", "");
    place.write("10.0.0.2", " \n");
    place.write("10.0.0.3", "other\r\neth0");
    let mut store = place.store();
    let pool = [range("10.0.0.1", "10.0.0.3")];
    assert_eq!(store.available(&pool).unwrap(), 2);
    store.reserve(&owner("a"), 0, ip("10.0.0.2")).unwrap();
    assert_eq!(store.reserve_next(&owner("b"), 0, &pool, &[]).unwrap(), ip("10.0.0.1"));
    assert!(matches!(store.reserve_next(&owner("c"), 0, &pool, &[]), Err(StateError::Exhausted(_))));
    // One that appears without the lock being held, after the index was made.
    store.release(&owner("b")).unwrap();
    place.write("10.0.0.1", "");
    assert_eq!(store.reserve_next(&owner("c"), 0, &pool, &[]).unwrap(), ip("10.0.0.1"));
    assert_eq!(place.read("10.0.0.1"), "c\r\neth0");
    place.write("10.0.0.9", "");
    let kept = [owner("a"), owner("c"), owner("other")];
    assert_eq!(store.retain(&kept).unwrap(), [ip("10.0.0.9")]);
}

#[test]
fn empty_files_can_be_removed_alone() {
    let place = Place::new();
    place.write("10.0.0.1", "");
    place.write("10.0.0.2", " \r\n");
    place.write("10.0.0.3", "\0\0\0");
    place.write("10.0.0.4", "other\r\neth0");
    place.write("notes", "");
    nix::unistd::mkfifo(&place.directory.join("10.0.0.5"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut store = place.store();
    let survey = store.survey().unwrap();
    assert_eq!(
        (survey.empty, survey.unreadable),
        (vec![ip("10.0.0.1"), ip("10.0.0.2"), ip("10.0.0.3")], vec![ip("10.0.0.5")])
    );
    assert_eq!(store.remove_empty().unwrap(), [ip("10.0.0.1"), ip("10.0.0.2"), ip("10.0.0.3")]);
    assert_eq!(store.remove_empty().unwrap(), [] as [IpAddr; 0]);
    assert_eq!(place.names(), ["10.0.0.4", "10.0.0.5", "lock", "notes"].map(String::from).into());
    // What is removed so is free for the next one at once.
    store.reserve(&owner("a"), 0, ip("10.0.0.1")).unwrap();
}

#[test]
fn leases_without_an_interface_are_honoured() {
    let place = Place::new();
    place.write("10.0.0.1", "old");
    place.write("10.0.0.2", "mixed");
    place.write("10.0.0.3", "mixed\r\neth0");
    let mut store = place.store();
    let pool = [range("10.0.0.1", "10.0.0.9")];
    assert!(matches!(store.reserve_next(&owner("old"), 0, &pool, &[]), Err(StateError::Exists(_))));
    assert_eq!(
        store.held(&owner("old")).unwrap(),
        [Lease { set: None, address: ip("10.0.0.1"), owner: Owner::new("old", "") }]
    );
    // As the reference: the old form only when there is none of the new.
    assert_eq!(store.release(&owner("mixed")).unwrap(), [ip("10.0.0.3")]);
    assert_eq!(store.release(&owner("mixed")).unwrap(), [ip("10.0.0.2")]);
    assert_eq!(store.retain(&[Owner::new("old", "net1")]).unwrap(), [] as [IpAddr; 0]);
    assert_eq!(store.retain(&[]).unwrap(), [ip("10.0.0.1")]);
}

#[test]
fn what_is_no_lease_is_neither_given_nor_removed() {
    let place = Place::new();
    place.write("notes.txt", "a\r\neth0");
    place.write("fd00:0::1", "a\r\neth0");
    std::fs::create_dir(place.directory.join("10.0.0.1")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", place.directory.join("10.0.0.2")).unwrap();
    nix::unistd::mkfifo(&place.directory.join("10.0.0.3"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut store = place.store();
    assert_eq!(store.reserve_next(&owner("a"), 0, &[range("10.0.0.1", "10.0.0.4")], &[]).unwrap(), ip("10.0.0.4"));
    for address in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        assert!(store.reserve(&owner("b"), 0, ip(address)).is_err(), "{address}");
    }
    assert_eq!(store.retain(&[]).unwrap(), [ip("10.0.0.4")]);
    assert_eq!(store.all().unwrap(), []);
    assert_eq!(place.names().len(), 7);
}

#[test]
fn a_whole_ipv6_subnet() {
    let place = Place::new();
    let mut store = place.store();
    let pool = [range("fd00::1", "fd00::ffff:ffff:ffff:ffff")];
    assert_eq!(store.available(&pool).unwrap(), u64::MAX);
    assert_eq!(store.available(&[range("fd00::", "fdff::")]).unwrap(), u64::MAX);
    place.write("last_reserved_ip.0", "fd00::ffff:ffff:ffff:fffe");
    assert_eq!(store.reserve_next(&owner("a"), 0, &pool, &[]).unwrap(), ip("fd00::ffff:ffff:ffff:ffff"));
    assert_eq!(store.reserve_next(&owner("b"), 0, &pool, &[ip("fd00::1")]).unwrap(), ip("fd00::2"));
    assert_eq!(store.available(&pool).unwrap(), u64::MAX - 2);
    let top = [range("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")];
    store.reserve_next(&owner("c"), 1, &top, &[]).unwrap();
    store.reserve_next(&owner("d"), 1, &top, &[]).unwrap();
    assert!(matches!(store.reserve_next(&owner("e"), 1, &top, &[]), Err(StateError::Exhausted(_))));
}

#[test]
fn leases_of_an_earlier_boot_go_when_the_pool_runs_dry() {
    let place = Place::new();
    let pool = [range("10.0.0.1", "10.0.0.4")];
    let mut before = place.store().in_boot("one");
    before.reserve_next(&owner("a"), 0, &pool, &[]).unwrap();
    before.reserve_next(&owner("b"), 0, &pool, &[]).unwrap();
    // Native host-local's say nothing of their boot.
    place.write("10.0.0.3", "native\r\neth0");
    let mut after = place.store().in_boot("two");
    assert_eq!(after.reserve_next(&owner("c"), 0, &pool, &[]).unwrap(), ip("10.0.0.4"));
    assert_eq!(after.all().unwrap().len(), 4);
    // STATUS must not call a node unfit that can reclaim.
    assert_eq!(after.available(&pool).unwrap(), 2);
    assert_eq!(place.store().in_boot("one").available(&pool).unwrap(), 1);
    assert_eq!(after.reserve_next(&owner("d"), 0, &pool, &[]).unwrap(), ip("10.0.0.1"));
    assert_eq!(after.reserve_next(&owner("e"), 0, &pool, &[]).unwrap(), ip("10.0.0.2"));
    assert!(matches!(after.reserve_next(&owner("f"), 0, &pool, &[]), Err(StateError::Exhausted(_))));
    let owners: Vec<String> = after.all().unwrap().into_iter().map(|lease| lease.owner.container_id).collect();
    assert_eq!(owners, ["d", "e", "native", "c"]);
    assert_eq!(after.reclaim_earlier_boots().unwrap(), [] as [IpAddr; 0]);
    assert_eq!(
        place.store().in_boot("three").reclaim_earlier_boots().unwrap(),
        [ip("10.0.0.1"), ip("10.0.0.2"), ip("10.0.0.4")]
    );
}

/// The names of containers outlive a reboot (podman's, or one attached by hand), and so do addresses that are asked for.
#[test]
fn a_lease_of_an_earlier_boot_is_in_nobodys_way() {
    let place = Place::new();
    let pool = [range("10.0.0.1", "10.0.0.9")];
    let mut before = place.store().in_boot("one");
    for id in ["a", "b"] {
        before.reserve_next(&owner(id), 0, &pool, &[]).unwrap();
    }
    place.write("10.0.0.5", "native\r\neth0");
    let mut after = place.store().in_boot("two");
    // The same container again: a new lease, and the old one is gone.
    assert_eq!(after.reserve_next(&owner("a"), 0, &pool, &[]).unwrap(), ip("10.0.0.3"));
    assert_eq!(
        after.held(&owner("a")).unwrap().iter().map(|lease| lease.address).collect::<Vec<_>>(),
        [ip("10.0.0.3")]
    );
    assert!(matches!(after.reserve_next(&owner("a"), 0, &pool, &[]), Err(StateError::Exists(_))));
    // Its own address, and another's, asked for by name.
    after.reserve(&owner("b"), 0, ip("10.0.0.2")).unwrap();
    assert!(matches!(after.reserve(&owner("b"), 0, ip("10.0.0.2")), Err(StateError::Exists(_))));
    let mut third = place.store().in_boot("three");
    third.reserve(&owner("c"), 0, ip("10.0.0.2")).unwrap();
    assert_eq!(place.read("10.0.0.2"), "c\r\neth0");
    // Of native host-local's nothing is known.
    assert!(matches!(third.reserve(&owner("c"), 0, ip("10.0.0.5")), Err(StateError::Conflict(_))));
    assert!(matches!(third.reserve_next(&owner("native"), 0, &pool, &[]), Err(StateError::Exists(_))));
    let made: Vec<(String, Made)> =
        third.survey().unwrap().leases.into_iter().map(|lease| (lease.owner.container_id, lease.made)).collect();
    let wanted = [("c", Made::ThisBoot), ("a", Made::EarlierBoot), ("native", Made::Unknown)];
    assert_eq!(made, wanted.map(|(id, made)| (id.to_owned(), made)));
}

/// A disk may have another number after a reboot.
#[test]
fn the_boot_of_a_lease_outlives_the_number_of_its_device() {
    use std::os::unix::fs::FileExt;
    let place = Place::new();
    let pool = [range("10.0.0.1", "10.0.0.2")];
    let mut before = place.store().in_boot("one");
    before.reserve_next(&owner("a"), 0, &pool, &[]).unwrap();
    before.reserve_next(&owner("b"), 0, &pool, &[]).unwrap();
    for entry in std::fs::read_dir(&place.index).unwrap() {
        let file = std::fs::OpenOptions::new().write(true).open(entry.unwrap().path()).unwrap();
        file.write_all_at(&0xabcd_u64.to_le_bytes(), 8).unwrap();
    }
    // Still this boot: made again from the files, and nothing is reclaimed.
    assert!(matches!(
        place.store().in_boot("one").reserve_next(&owner("c"), 0, &pool, &[]),
        Err(StateError::Exhausted(_))
    ));
    assert_eq!(place.store().in_boot("two").reserve_next(&owner("c"), 0, &pool, &[]).unwrap(), ip("10.0.0.1"));
}

#[test]
fn the_index_knows_its_directory() {
    let place = Place::new();
    assert_eq!(directories(&place.index).unwrap(), [] as [PathBuf; 0]);
    let pool = [range("10.0.0.1", "10.0.255.254")];
    let mut store = place.store();
    // Beyond the index's first size, so that it has grown.
    for n in 0..600 {
        store.reserve_next(&owner(&n.to_string()), 0, &pool, &[]).unwrap();
    }
    let other = place.directory.with_file_name("n".repeat(200));
    Store::open(&other, &place.index).unwrap().reserve_next(&owner("a"), 0, &pool, &[]).unwrap();
    std::fs::write(place.index.join("damaged"), "x").unwrap();
    assert_eq!(directories(&place.index).unwrap(), [place.directory.clone(), other]);
    let long = place.directory.join("d".repeat(250)).join("e".repeat(250));
    let long = (0..13).fold(long, |path, _| path.join("f".repeat(250)));
    Store::open(&long, &place.index).unwrap().reserve_next(&owner("a"), 0, &pool, &[]).unwrap();
    assert!(directories(&place.index).unwrap().contains(&long), "{} bytes", long.as_os_str().len());
}

#[test]
fn a_lost_or_damaged_index_is_made_again() {
    let place = Place::new();
    let mut store = place.store();
    let pool = [range("10.0.0.1", "10.0.3.254")];
    let damages: [&dyn Fn(&Path); 6] = [
        &|file| std::fs::remove_file(file).unwrap(),
        &|file| std::fs::write(file, "").unwrap(),
        &|file| std::fs::write(file, vec![0xff; 10_000]).unwrap(),
        &|file| std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(5_000).unwrap(),
        // More leases than any memory could hold, in a header that is right otherwise.
        &|file| {
            use std::os::unix::fs::FileExt;
            std::fs::OpenOptions::new().write(true).open(file).unwrap().write_all_at(&[0xff; 8], 48).unwrap();
        },
        &|file| {
            std::fs::remove_file(file).unwrap();
            std::os::unix::fs::symlink("/dev/null", file).unwrap();
        },
    ];
    for (n, damage) in damages.iter().enumerate() {
        for m in 0..50 {
            store.reserve_next(&owner(&format!("{n}-{m}")), 0, &pool, &[]).unwrap();
        }
        for entry in std::fs::read_dir(&place.index).unwrap() {
            damage(&entry.unwrap().path());
        }
        assert_eq!(store.all().unwrap().len(), 50 * (n + 1));
        assert!(matches!(store.reserve_next(&owner(&format!("{n}-7")), 0, &pool, &[]), Err(StateError::Exists(_))));
    }
    assert!(Path::new("/dev/null").exists());
    // Where no index can be, everything works from the files alone.
    let blocked = place.index.join("file");
    std::fs::write(&blocked, "").unwrap();
    let mut store = Store::open(&place.directory, &blocked).unwrap();
    assert_eq!(store.all().unwrap().len(), 300);
    let address = store.reserve_next(&owner("x"), 0, &pool, &[]).unwrap();
    assert_eq!(store.release(&owner("x")).unwrap(), [address]);
}

/// A model of one pool, and what an outsider does to the directory meanwhile.
#[derive(Debug, Clone)]
enum Step {
    Next(u8),
    Take(u8, u8),
    Release(u8),
    Retain(Vec<u8>),
    NativeAdd(u8, u8),
    NativeDel(u8),
    Empty(u8),
    Pause,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u8..12).prop_map(Step::Next),
        2 => (0u8..12, 0u8..20).prop_map(|(who, address)| Step::Take(who, address)),
        4 => (0u8..12).prop_map(Step::Release),
        1 => prop::collection::vec(0u8..12, 0..8).prop_map(Step::Retain),
        2 => (0u8..12, 0u8..20).prop_map(|(who, address)| Step::NativeAdd(who, address)),
        2 => (0u8..20).prop_map(Step::NativeDel),
        1 => (0u8..20).prop_map(Step::Empty),
        1 => Just(Step::Pause),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_a_model(steps in steps()) {
        let place = Place::new();
        place.write("lock", "");
        let address = |n: u8| ip(&format!("10.0.{}.{}", u8::from(n >= 6), n.wrapping_add(250)));
        // 10.0.0.250 to 10.0.1.13, over the edge of a block.
        let pool = [Range { first: address(0), last: address(19) }];
        let mut model: BTreeMap<IpAddr, u8> = BTreeMap::new();
        let name = |n: u8| owner(&format!("c{n}"));
        for step in steps {
            // A store per call, as in life.
            let mut store = place.store();
            match step {
                Step::Next(who) => {
                    let has = model.values().any(|holder| *holder == who);
                    match store.reserve_next(&name(who), 0, &pool, &[]) {
                        Ok(given) => {
                            prop_assert!(!has && pool[0].first <= given && given <= pool[0].last);
                            prop_assert!(model.insert(given, who).is_none());
                        }
                        Err(StateError::Exists(_)) => prop_assert!(has),
                        Err(StateError::Exhausted(_)) => prop_assert_eq!(model.len(), 20),
                        Err(other) => prop_assert!(false, "{}", other),
                    }
                }
                Step::Take(who, n) => match store.reserve(&name(who), 0, address(n)) {
                    Ok(()) => prop_assert!(model.insert(address(n), who).is_none()),
                    Err(StateError::Exists(_)) => prop_assert_eq!(model.get(&address(n)), Some(&who)),
                    Err(StateError::Conflict(_)) => prop_assert_ne!(model.get(&address(n)).copied().unwrap_or(who), who),
                    Err(other) => prop_assert!(false, "{}", other),
                },
                Step::Release(who) => {
                    let wanted: Vec<IpAddr> = model.iter().filter(|(_, holder)| **holder == who).map(|(ip, _)| *ip).collect();
                    prop_assert_eq!(store.release(&name(who)).unwrap(), wanted);
                    model.retain(|_, holder| *holder != who);
                }
                Step::Retain(valid) => {
                    store.retain(&valid.iter().map(|n| name(*n)).collect::<Vec<_>>()).unwrap();
                    model.retain(|_, holder| valid.contains(holder));
                }
                Step::NativeAdd(who, n) => {
                    if let std::collections::btree_map::Entry::Vacant(free) = model.entry(address(n)) {
                        // An empty file that is in its way stays so for native host-local; somebody cleaned up.
                        let _ = std::fs::remove_file(place.directory.join(address(n).to_string()));
                        place.write(&address(n).to_string(), &format!("c{who}\r\neth0"));
                        free.insert(who);
                    }
                }
                Step::NativeDel(n) => {
                    if model.remove(&address(n)).is_some() {
                        std::fs::remove_file(place.directory.join(address(n).to_string())).unwrap();
                    }
                }
                Step::Empty(n) => {
                    if !model.contains_key(&address(n)) {
                        place.write(&address(n).to_string(), "");
                    }
                }
                Step::Pause => std::thread::sleep(Duration::from_millis(25)),
            }
            let all: BTreeMap<IpAddr, u8> = store.all().unwrap().into_iter().map(|lease| (lease.address, lease.owner.container_id[1..].parse().unwrap())).collect();
            prop_assert_eq!(&all, &model);
            prop_assert_eq!(store.available(&pool).unwrap(), 20 - model.len() as u64);
            for who in 0..12 {
                let held: BTreeSet<IpAddr> = store.held(&name(who)).unwrap().into_iter().map(|lease| lease.address).collect();
                let wanted: BTreeSet<IpAddr> = model.iter().filter(|(_, holder)| **holder == who).map(|(ip, _)| *ip).collect();
                prop_assert_eq!(held, wanted);
            }
        }
    }
}
