//! More than its share: time, memory, handles, bytes.

use crate::{Act, NOTHING, succeeded};
use sandwire_plugin::host::{self, delegate, firewall, kv, leases, links, log, namespaces::Netns, random};
use sandwire_plugin::{Failure, HostError};
use serde_json::Value;
use std::hint::black_box;

pub(crate) const ACTS: &[(&str, Act)] = &[
    ("spin", spin),
    ("allocate", allocate),
    ("flood-netns", flood_netns),
    ("flood-links", flood_links),
    ("flood-rulesets", flood_rulesets),
    ("flood-stores", flood_stores),
    ("long-string", long_string),
    ("long-list", long_list),
    ("flood-log", flood_log),
    ("forge-log", forge_log),
    ("recurse", recurse),
    ("random-flood", random_flood),
    ("flood-notes", flood_notes),
    ("flood-devices", flood_devices),
    ("flood-leases", flood_leases),
    ("flood-journal", flood_journal),
    ("flood-faults", flood_faults),
    ("flood-delegates", flood_delegates),
];

fn spin(_: &Value) -> Result<String, Failure> {
    let mut n: u64 = 0;
    while black_box(n) != u64::MAX {
        n = black_box(n).wrapping_add(2);
    }
    succeeded("an endless loop ended")
}

/// 200 MB in steps, each written to: where memory ends is not ours to choose.
fn allocate(_: &Value) -> Result<String, Failure> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for _ in 0..200 {
        all.push(vec![black_box(1); 1 << 20]);
    }
    black_box(&all);
    succeeded("200 MB")
}

fn flood_netns(_: &Value) -> Result<String, Failure> {
    for _ in 0..1_000_000 {
        std::mem::forget(host::netns());
    }
    succeeded("a million handles")
}

fn flood_links(_: &Value) -> Result<String, Failure> {
    let container = host::require_container()?;
    for _ in 0..100_000 {
        std::mem::forget(container.link("lo")?);
    }
    succeeded("100,000 links")
}

fn flood_rulesets(_: &Value) -> Result<String, Failure> {
    let node = host::netns();
    for _ in 0..100_000 {
        std::mem::forget(firewall::open(&node, "x")?);
    }
    succeeded("100,000 rulesets")
}

fn flood_stores(_: &Value) -> Result<String, Failure> {
    for _ in 0..100_000 {
        std::mem::forget(leases::open(None)?);
    }
    succeeded("100,000 stores")
}

fn long_string(_: &Value) -> Result<String, Failure> {
    host::netns().link(&"a".repeat(10 << 20))?;
    succeeded("a name of 10 MB")
}

fn long_list(_: &Value) -> Result<String, Failure> {
    let rules = firewall::open(&host::netns(), "x")?;
    rules.masquerade("10.9.0.2", &vec!["10.0.0.0/8".to_owned(); 1 << 20]);
    succeeded("a list of a million")
}

/// The call goes on; the log must not.
fn flood_log(_: &Value) -> Result<String, Failure> {
    for n in 0..10_000_u32 {
        log::log(log::Level::Error, "flood", &format!("line {n} {}", "x".repeat(200)));
    }
    Ok(NOTHING.to_owned())
}

/// A line that pretends to be another's, and one that drives the operator's terminal.
fn forge_log(_: &Value) -> Result<String, Failure> {
    log::log(log::Level::Info, "a\nsandwire: error: forged", "b\r\nsandwire: error: forged\u{1b}[2J\u{0}\u{85}c");
    Ok(NOTHING.to_owned())
}

#[allow(unconditional_recursion, reason = "a stack that overflows is the act")]
fn deeper(n: u64) -> u64 {
    let page = black_box([n; 64]);
    deeper(page.iter().sum::<u64>()).wrapping_add(black_box(1))
}

fn recurse(_: &Value) -> Result<String, Failure> {
    deeper(black_box(1));
    succeeded("endless recursion ended")
}

fn random_flood(_: &Value) -> Result<String, Failure> {
    random::bytes(u32::MAX);
    succeeded("4 GB of random bytes")
}

fn flood_notes(_: &Value) -> Result<String, Failure> {
    let value = "x".repeat(60_000);
    for n in 0..10_000 {
        kv::set(kv::Scope::Attachment, &format!("note-{n}"), &value)?;
    }
    succeeded("600 MB of notes")
}

/// Each handle is dropped, so that only a limit on what is made can stop this.
fn flood_devices(_: &Value) -> Result<String, Failure> {
    let node: Netns = host::netns();
    for n in 0..20_000 {
        let (one, other) = (format!("flood{n}"), format!("peer{n}"));
        links::create_veth(&links::Device::new(&node).named(&one), &links::Device::new(&node).named(&other))?;
    }
    succeeded("20,000 links")
}

/// What is to be undone is written before it is looked at.
fn flood_journal(_: &Value) -> Result<String, Failure> {
    for n in 0..1000 {
        let key = format!("{n}{}", "x".repeat(700 << 10));
        match kv::set(kv::Scope::Attachment, &key, "") {
            Err(HostError::Exhausted(text)) => return Err(Failure::new(11, text)),
            _ => continue,
        }
    }
    succeeded("700 MB of journal")
}

/// Each is told, at `commit`.
fn flood_faults(_: &Value) -> Result<String, Failure> {
    let rules = firewall::open(&host::netns(), "x")?;
    let address = "\u{1}".repeat(900 << 10);
    for _ in 0..500 {
        rules.masquerade(&address, &[]);
    }
    rules.commit()?;
    succeeded("rules for no address")
}

fn flood_delegates(config: &Value) -> Result<String, Failure> {
    let mut leaf = config.clone();
    if let Some(object) = leaf.as_object_mut() {
        object.insert("when".into(), "never".into());
    }
    for _ in 0..1000 {
        delegate::add("hostile", &leaf.to_string(), &[])?;
    }
    succeeded("1,000 delegates")
}

fn flood_leases(_: &Value) -> Result<String, Failure> {
    let store = leases::open(None)?;
    for high in 0..=255 {
        for low in 0..=255 {
            store.reserve(0, &format!("10.66.{high}.{low}"))?;
        }
    }
    succeeded("a whole network's addresses")
}
