//! The journal: what is found again after any end of a call.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;
use sandwire_state::journal::{Attachment, Journal, NetworkLock, Side, State, Undo, list, path};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

fn attachment(id: &str) -> Attachment {
    Attachment { network: "net".into(), container_id: id.into(), ifname: "eth0".into() }
}

fn delete(name: &str) -> Undo {
    Undo::DeleteLink { side: Side::Host, name: name.into(), index: None }
}

fn names(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path())
            } else {
                found.push(entry.path().strip_prefix(root).unwrap().display().to_string())
            }
        }
    }
    found.sort();
    found
}

fn file(root: &Path) -> PathBuf {
    root.join(names(root).into_iter().find(|name| name.starts_with("networks/")).unwrap())
}

#[test]
fn an_attachments_life() {
    let place = tempfile::tempdir().unwrap();
    let root = &place.path().join("journal");
    let mut add = Journal::open(root, &attachment("a")).unwrap();
    add.begin("ADD", "bridge", None).unwrap();
    assert_eq!(names(root), ["locks/net"]);
    let link = add.intend("bridge", &delete("veth1")).unwrap();
    add.done(link, Some(&Undo::DeleteLink { side: Side::Host, name: "veth1".into(), index: Some(7) })).unwrap();
    let lease = add.intend("host-local", &Undo::ReleaseLease { directory: "/l/net".into(), address: None }).unwrap();
    add.done(lease, None).unwrap();
    assert_eq!(add.uncommitted().len(), 2);
    add.commit(Some(&json!({"ips": ["10.0.0.2/24"]}))).unwrap();
    assert_eq!((add.uncommitted().len(), add.pending().len()), (0, 2));
    drop(add);

    // The next plugin of the chain fails; what the first did stays.
    let mut chained = Journal::open(root, &attachment("a")).unwrap();
    chained.begin("ADD", "portmap", None).unwrap();
    let rules = Undo::ClearRules {
        side: Side::Host,
        plugin: "portmap".into(),
        label: "x".into(),
        rules: json!([1, 2]),
        taken: false,
    };
    let rules = chained.intend("portmap", &rules).unwrap();
    drop(chained);
    let mut next = Journal::open(root, &attachment("a")).unwrap();
    assert_eq!(
        next.uncommitted().iter().map(|entry| (entry.id, entry.state)).collect::<Vec<_>>(),
        [(rules, State::Intended)]
    );
    next.undone(rules).unwrap();
    assert!(next.undone(rules).is_err());
    assert_eq!(next.facts()["bridge"], json!({"ips": ["10.0.0.2/24"]}));
    assert!(!next.remove_if_empty().unwrap());

    let summary = &list(root, None).unwrap()[0];
    assert_eq!(
        (summary.attachment.clone(), summary.pending.len(), summary.uncommitted, summary.damaged),
        (attachment("a"), 2, 0, 0)
    );
    assert_eq!(summary.pending[0].undo, Undo::DeleteLink { side: Side::Host, name: "veth1".into(), index: Some(7) });

    let mut del = Journal::open(root, &attachment("a")).unwrap();
    del.begin("DEL", "bridge", None).unwrap();
    for id in del.pending().iter().rev().map(|entry| entry.id).collect::<Vec<_>>() {
        del.failed(id).unwrap();
        del.failed(id).unwrap();
        assert_eq!(del.pending().last().unwrap().state, State::Failed);
        del.undone(id).unwrap();
    }
    assert!(del.remove_if_empty().unwrap());
    assert_eq!(names(root), [""; 0]);
    assert_eq!(list(root, Some("net")).unwrap(), []);
}

/// That something happened is written with what comes next. Who is killed before it leaves what was intended; who ends, and leaves
/// something, what is known of it.
#[test]
fn what_happened_is_written_before_the_end() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path();
    let known = |name: &str| Undo::DeleteLink { side: Side::Host, name: name.into(), index: Some(7) };
    let add = |container: &str| {
        let mut add = Journal::open(root, &attachment(container)).unwrap();
        add.begin("ADD", "bridge", None).unwrap();
        let link = add.intend("bridge", &delete(container)).unwrap();
        add.done(link, Some(&known(container))).unwrap();
        assert_eq!((add.pending()[0].state, &add.pending()[0].undo), (State::Done, &known(container)));
        add
    };
    let found = |container: &str| {
        let found = Journal::open(root, &attachment(container)).unwrap();
        let entry = found.pending()[0].clone();
        (found.pending().len(), entry.state, entry.undo)
    };
    drop(add("killed"));
    assert_eq!(found("killed"), (1, State::Intended, delete("killed")));
    assert!(!add("ended").remove_if_empty().unwrap());
    assert_eq!(found("ended"), (1, State::Done, known("ended")));
    let mut next = add("next");
    next.intend("bridge", &delete("another")).unwrap();
    drop(next);
    assert_eq!(found("next"), (2, State::Done, known("next")));
}

#[test]
fn it_knows_in_which_namespaces_something_was_done() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path();
    let mut journal = Journal::open(root, &attachment("a")).unwrap();
    assert!(journal.namespaces().is_empty());
    let link = |name: &str| Undo::DeleteLink { side: Side::Container, name: name.into(), index: Some(2) };
    let mut first = 0;
    for (netns, name) in [(Some(7), "eth0"), (None, "eth1"), (Some(9), "eth2")] {
        journal.begin("ADD", "bridge", netns).unwrap();
        let id = journal.intend("bridge", &link(name)).unwrap();
        journal.done(id, None).unwrap();
        first = if netns == Some(7) { id } else { first };
    }
    // What a call is given in which nothing was done says nothing.
    journal.begin("DEL", "bridge", Some(11)).unwrap();
    journal.undone(first).unwrap();
    drop(journal);
    let journal = Journal::open(root, &attachment("a")).unwrap();
    assert_eq!(journal.namespaces().into_iter().collect::<Vec<_>>(), [9]);
    assert_eq!(journal.pending().iter().map(|entry| entry.netns).collect::<Vec<_>>(), [None, Some(9)]);
    drop(journal);
    // As an earlier release wrote it.
    let file = path(root, &attachment("a"));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(r#","netns":9"#, "")).unwrap();
    let journal = Journal::open(root, &attachment("a")).unwrap();
    assert!(journal.namespaces().is_empty() && journal.damaged() == 0, "{text}");
    assert_eq!(journal.pending().len(), 2);
}

#[test]
fn an_add_that_is_undone_leaves_the_journal_as_it_was() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path();
    let mut add = Journal::open(root, &attachment("a")).unwrap();
    add.begin("ADD", "bridge", None).unwrap();
    let kept = add.intend("bridge", &delete("veth1")).unwrap();
    add.commit(Some(&json!({"x": 1}))).unwrap();
    drop(add);
    let before = std::fs::read(file(root)).unwrap();

    let mut again = Journal::open(root, &attachment("a")).unwrap();
    again.begin("ADD", "bridge", None).unwrap();
    for round in 0..3 {
        let ids: Vec<u64> = (0..3).map(|n| again.intend("bridge", &delete(&format!("{round}-{n}"))).unwrap()).collect();
        again.done(ids[1], None).unwrap();
        again.failed(ids[2]).unwrap();
        assert_eq!(Journal::pending(&again).len(), 4);
        ids.iter().rev().for_each(|id| again.undone(*id).unwrap());
        assert_eq!((again.pending().len(), again.uncommitted().len()), (1, 0));
        assert_eq!(std::fs::read(file(root)).unwrap(), before);
    }
    // Going on after that is written down as if nothing had been.
    let new = again.intend("bridge", &delete("new")).unwrap();
    drop(again);
    let mut next = Journal::open(root, &attachment("a")).unwrap();
    assert_eq!(next.uncommitted().iter().map(|entry| entry.id).collect::<Vec<_>>(), [new]);

    // What a call says of an earlier one's operations is never cut off.
    next.begin("ADD", "bridge", None).unwrap();
    let own = next.intend("bridge", &delete("own")).unwrap();
    next.undone(kept).unwrap();
    next.undone(own).unwrap();
    next.undone(new).unwrap();
    drop(next);
    let last = Journal::open(root, &attachment("a")).unwrap();
    assert_eq!(last.pending().len(), 0);
    assert!(last.remove_if_empty().unwrap());
}

/// What is said again and again takes the place of what was said before, and nothing else's.
#[test]
fn said_again() {
    let place = tempfile::tempdir().unwrap();
    let root = &place.path().join("journal");
    let lease =
        |n: u32| Undo::ReleaseDhcp { index: 2, name: "eth0".into(), netns: None, lease: json!({ "seconds": n }) };
    let mut add = Journal::open(root, &attachment("a")).unwrap();
    add.begin("ADD", "bridge", None).unwrap();
    let id = add.intend("dhcp", &lease(1)).unwrap();
    add.done(id, Some(&lease(2))).unwrap();
    add.commit(Some(&json!({}))).unwrap();
    drop(add);
    let mut length = None;
    for n in 3..8 {
        let mut again = Journal::open(root, &attachment("a")).unwrap();
        again.done_again(id, &lease(n)).unwrap();
        again.done_again(id, &lease(n + 1)).unwrap();
        assert_eq!(again.pending()[0].undo, lease(n + 1));
        drop(again);
        let now = std::fs::metadata(file(root)).unwrap().len();
        assert_eq!(*length.get_or_insert(now), now);
        let found = Journal::open(root, &attachment("a")).unwrap();
        assert_eq!((found.pending().len(), &found.pending()[0].undo), (1, &lease(n + 1)));
        assert!(found.uncommitted().is_empty());
    }
    // Nothing else is left of that, and what a crash left is no obstacle, and nobody's journal.
    assert_eq!(names(root).len(), 2, "{:?}", names(root));
    std::fs::write(root.join("0123.new"), "{").unwrap();
    assert_eq!(list(root, None).unwrap().len(), 1);
    let mut again = Journal::open(root, &attachment("a")).unwrap();
    again.done_again(id, &lease(8)).unwrap();
    again.done_again(id, &lease(8)).unwrap();
    drop(again);
    assert_eq!(names(root).len(), 3, "{:?}", names(root));
    // Not what was done of another operation.
    let mut other = Journal::open(root, &attachment("a")).unwrap();
    other.begin("ADD", "portmap", None).unwrap();
    let link = other.intend("portmap", &delete("veth1")).unwrap();
    other.done(link, None).unwrap();
    other.commit(None::<&()>).unwrap();
    other.done_again(id, &lease(9)).unwrap();
    drop(other);
    let found = Journal::open(root, &attachment("a")).unwrap();
    assert_eq!(found.pending().iter().map(|entry| entry.state).collect::<Vec<_>>(), [State::Done, State::Done]);
    assert_eq!(found.pending()[0].undo, lease(9));
}

#[test]
fn a_call_that_does_nothing_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let root = &place.path().join("journal");
    for verb in ["ADD", "CHECK", "DEL"] {
        let mut journal = Journal::open(root, &attachment("a")).unwrap();
        journal.begin(verb, "loopback", None).unwrap();
        journal.commit(None::<&()>).unwrap();
        assert!(journal.remove_if_empty().unwrap());
    }
    assert_eq!(names(root), [""; 0]);
    // But one that has something to show is kept.
    let mut journal = Journal::open(root, &attachment("a")).unwrap();
    journal.begin("ADD", "loopback", None).unwrap();
    journal.commit(Some(&json!({"x": 1}))).unwrap();
    drop(journal);
    assert_eq!(list(root, Some("net")).unwrap()[0].facts["loopback"], json!({"x": 1}));
}

#[test]
fn names_of_every_length_and_kind() {
    let place = tempfile::tempdir().unwrap();
    let long = "x".repeat(100_000);
    let keys = [("net", "a"), (long.as_str(), long.as_str()), ("..", "../../etc"), ("net.lock", "\"\n\r\0"), ("", "")];
    for (network, id) in keys {
        let key = Attachment { network: network.into(), container_id: id.into(), ifname: "eth0".into() };
        let mut journal = Journal::open(place.path(), &key).unwrap();
        journal.begin("ADD", "p\n", None).unwrap();
        journal.intend("p\n", &delete("\u{0}\n\"")).unwrap();
    }
    let found = list(place.path(), None).unwrap();
    assert_eq!(found.len(), keys.len());
    for (network, id) in keys {
        let one = &list(place.path(), Some(network)).unwrap()[0];
        assert_eq!((one.attachment.container_id.as_str(), one.damaged), (id, 0));
        assert_eq!(one.pending[0].undo, delete("\u{0}\n\""));
    }
    assert!(!place.path().parent().unwrap().join("etc").exists());
}

#[test]
fn gc_has_the_network_for_itself() {
    let place = tempfile::tempdir().unwrap();
    for id in ["b", "a"] {
        let mut journal = Journal::open(place.path(), &attachment(id)).unwrap();
        journal.begin("ADD", "bridge", None).unwrap();
        journal.intend("bridge", &delete(id)).unwrap();
    }
    // A call that was killed between making its file and writing the first line to it, or within that.
    let folder = place.path().join("networks/net");
    std::fs::write(folder.join("blank"), "").unwrap();
    std::fs::write(folder.join("begun"), "{\"attachment\":{\"netw").unwrap();
    let gc = NetworkLock::take(place.path(), "net").unwrap();
    let found: Vec<Attachment> = gc.attachments().unwrap().into_iter().map(|summary| summary.attachment).collect();
    assert_eq!(found, [attachment("a"), attachment("b")]);
    for attachment in found {
        let mut journal = gc.journal(&attachment.owner()).unwrap();
        let ids: Vec<u64> = journal.uncommitted().iter().map(|entry| entry.id).collect();
        ids.into_iter().for_each(|id| journal.undone(id).unwrap());
        assert!(journal.remove_if_empty().unwrap());
    }
    gc.remove_if_empty();
    assert_eq!(names(place.path()), [""; 0]);
}

#[test]
fn what_gc_took_back_together_is_struck_out_unless_the_journal_goes() {
    let place = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(place.path(), &attachment("a")).unwrap();
    journal.begin("ADD", "bridge", None).unwrap();
    let ids: Vec<u64> = ["x", "y", "z"].map(|name| journal.intend("bridge", &delete(name)).unwrap()).into();
    drop(journal);
    let gc = NetworkLock::take(place.path(), "net").unwrap();
    let pending = || gc.attachments().unwrap()[0].pending.len();
    let some = ids[..2].iter().copied().collect();
    let mut journal = gc.journal(&attachment("a").owner()).unwrap();
    journal.undone_all(&some).unwrap();
    assert!(!journal.remove_if_empty().unwrap());
    assert_eq!(pending(), 1);
    let mut journal = gc.journal(&attachment("a").owner()).unwrap();
    journal.undone_all(&ids[2..].iter().copied().collect()).unwrap();
    // Killed here, nothing was written: the next GC finds it to be undone once more.
    assert_eq!(pending(), 1);
    assert!(journal.remove_if_empty().unwrap());
    gc.remove_if_empty();
    assert_eq!(names(place.path()), [""; 0]);
}

#[test]
fn damage_is_counted_and_kept() {
    let place = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(place.path(), &attachment("a")).unwrap();
    journal.begin("ADD", "bridge", None).unwrap();
    let id = journal.intend("bridge", &delete("a")).unwrap();
    drop(journal);
    let path = file(place.path());
    std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"{\"intend-2\":{}}\n\xff\xfe\n{\"und")
        .unwrap();
    let mut journal = Journal::open(place.path(), &attachment("a")).unwrap();
    assert_eq!((journal.damaged(), journal.pending().len()), (2, 1));
    journal.undone(id).unwrap();
    // What a later release wrote down may still have to be undone.
    assert!(!journal.remove_if_empty().unwrap());
    assert_eq!(list(place.path(), None).unwrap()[0].damaged, 2);
    // Another attachment's file under this name is not believed.
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|_| String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into());
    std::fs::write(&path, text.replace("\"container_id\":\"a\"", "\"container_id\":\"b\"")).unwrap();
    assert!(Journal::open(place.path(), &attachment("a")).unwrap_err().to_string().contains("another attachment"));
}

#[test]
fn the_last_of_a_network_removes_its_lock_while_others_come() {
    let place = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let root = place.path();
            scope.spawn(move || {
                for n in 0..200 {
                    // Two threads share each attachment.
                    let mut journal = Journal::open(root, &attachment(&format!("{}", thread % 2))).unwrap();
                    assert_eq!(journal.pending().len(), 0, "{thread} {n}");
                    journal.begin("ADD", "p", None).unwrap();
                    let id = journal.intend("p", &delete("x")).unwrap();
                    journal.undone(id).unwrap();
                    assert!(journal.remove_if_empty().unwrap());
                }
            });
        }
    });
    assert_eq!(list(place.path(), None).unwrap(), []);
}

#[test]
fn costs_little() {
    // /dev/shm is a tmpfs, as /run is.
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut times = Vec::new();
    for n in 0..200 {
        let key = attachment(&format!("{n:064}"));
        let start = Instant::now();
        let mut journal = Journal::open(place.path(), &key).unwrap();
        journal.begin("ADD", "bridge", None).unwrap();
        for name in ["veth0123abcd", "address", "route", "masquerade"] {
            let id = journal.intend("bridge", &delete(name)).unwrap();
            journal.done(id, None).unwrap();
        }
        journal
            .commit(Some(
                &json!({"ips": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1"}], "mac": "0a:58:0a:00:00:02"}),
            ))
            .unwrap();
        drop(journal);
        times.push(start.elapsed());
    }
    times.sort();
    let mut dels = Vec::new();
    for n in 0..200 {
        let start = Instant::now();
        let mut journal = Journal::open(place.path(), &attachment(&format!("{n:064}"))).unwrap();
        journal.begin("DEL", "bridge", None).unwrap();
        for id in journal.pending().iter().map(|entry| entry.id).collect::<Vec<_>>() {
            journal.undone(id).unwrap();
        }
        assert!(journal.remove_if_empty().unwrap());
        dels.push(start.elapsed());
    }
    dels.sort();
    println!("journal of 4 operations: ADD {} us, DEL {} us", times[100].as_micros(), dels[100].as_micros());
    assert!(times[100].as_micros() < 2_000 && dels[100].as_micros() < 2_000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]
    /// Cut anywhere (a process killed within a write), the journal still knows everything that had begun.
    #[test]
    fn cut_anywhere(cut in 0.0f64..1.0, undone in prop::collection::btree_set(0u64..6, 0..6)) {
        let place = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(place.path(), &attachment("a")).unwrap();
        journal.begin("ADD", "p", None).unwrap();
        // After each step: how long the file was, and what was pending.
        let mut history = Vec::new();
        for n in 0..6u64 {
            let id = journal.intend("p", &delete(&n.to_string())).unwrap();
            let mut note = |journal: &Journal| {
                let ids: Vec<u64> = journal.pending().iter().map(|entry| entry.id).collect();
                history.push((std::fs::metadata(file(place.path())).unwrap().len(), ids));
            };
            note(&journal);
            journal.done(id, None).unwrap();
            note(&journal);
            if undone.contains(&n) {
                journal.undone(id).unwrap();
                note(&journal);
            }
        }
        drop(journal);
        let path = file(place.path());
        let length = (std::fs::metadata(&path).unwrap().len() as f64 * cut) as u64;
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
        let wanted = history.into_iter().rev().find(|(at, _)| *at <= length).map(|(_, ids)| ids).unwrap_or_default();
        let mut journal = Journal::open(place.path(), &attachment("a")).unwrap();
        prop_assert_eq!(journal.pending().iter().map(|entry| entry.id).collect::<Vec<_>>(), wanted.clone());
        prop_assert_eq!((journal.uncommitted().len(), journal.damaged()), (wanted.len(), 0));
        // And it can be gone on with.
        journal.begin("ADD", "p", None).unwrap();
        let id = journal.intend("p", &delete("new")).unwrap();
        prop_assert!(!wanted.contains(&id));
        drop(journal);
        prop_assert_eq!(Journal::open(place.path(), &attachment("a")).unwrap().pending().len(), wanted.len() + 1);
    }
}
