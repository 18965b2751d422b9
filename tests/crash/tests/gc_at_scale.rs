//! GC of many stale attachments at once: links with their bridges, journals, leases of ours and of native host-local,
//! firewall rules. SOAK=1 makes 5,000 of them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use sandwire_crash::Scenario;
use sandwire_harness::{Node, Verb};
use sandwire_kernel::linux::LinuxKernel;
use sandwire_kernel::{Kernel, Netns, Rule, RuleOwner};
use sandwire_state::journal::{Attachment, Journal, Side, Undo};
use sandwire_state::leases::Store;
use serde_json::json;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, Instant};

const NETWORK: &str = "net";
/// A bridge has at most 1,023 ports (BR_PORT_BITS).
const PORTS: usize = 1000;

struct Stale {
    container_id: String,
    link: String,
    v4: IpAddr,
    v6: IpAddr,
}

impl Stale {
    fn number(n: usize) -> Self {
        let low = u32::try_from(n).unwrap();
        Self {
            container_id: format!("stale-{n}"),
            link: format!("veth{n:08x}"),
            v4: Ipv4Addr::from(0x0a09_0000 + 256 + low).into(),
            v6: Ipv6Addr::from((0xfd00_0009 << 96) + 256 + u128::from(low)).into(),
        }
    }

    fn attachment(&self) -> Attachment {
        Attachment { network: NETWORK.into(), container_id: self.container_id.clone(), ifname: "eth0".into() }
    }
}

/// Both ends on the node: how many links there are is what matters, and a thousand namespaces take minutes to go.
fn make_links(node: &Node, stale: &[Stale]) {
    let mut batch = String::new();
    for (n, one) in stale.iter().enumerate() {
        if n % PORTS == 0 {
            writeln!(batch, "link add many{} type bridge", n / PORTS).unwrap();
        }
        writeln!(batch, "link add {} master many{} type veth peer name p{n}", one.link, n / PORTS).unwrap();
    }
    node.write("/mnt/batch", batch).unwrap();
    node.sh("ip -batch /mnt/batch").unwrap();
}

/// As the host does it for a bridge with masquerading: leases, rules and a journal that ends with a commit.
fn make_state(stale: &[Stale]) {
    let mut kernel = LinuxKernel::open(None).unwrap();
    let indexes: HashMap<String, u32> =
        kernel.links(Netns::Host).unwrap().into_iter().map(|info| (info.name, info.id.index)).collect();
    let directory = Path::new("/var/lib/cni/networks").join(NETWORK);
    let mut store = Store::open(&directory, Path::new("/var/lib/sandwire/leases")).unwrap();
    for one in stale {
        let attachment = one.attachment();
        store.reserve(&attachment.owner(), 0, one.v4).unwrap();
        // Native host-local's.
        std::fs::write(directory.join(one.v6.to_string()), format!("{}\r\neth0", one.container_id)).unwrap();
        let owner = RuleOwner {
            plugin: "bridge".into(),
            network: NETWORK.into(),
            container_id: one.container_id.clone(),
            ifname: "eth0".into(),
        };
        let rule = Rule::Masquerade { source: one.v4, except: vec!["10.9.0.0/16".parse().unwrap()] };
        kernel.apply_rules(Netns::Host, &owner, "masquerade", &[rule]).unwrap();

        let mut journal = Journal::open(Path::new("/run/sandwire/journal"), &attachment).unwrap();
        journal.begin("ADD", "bridge", None).unwrap();
        let link = Undo::DeleteLink { side: Side::Host, name: one.link.clone(), index: Some(indexes[&one.link]) };
        let release = |address| Undo::ReleaseLease { directory: directory.clone(), address: Some(address) };
        let rules = Undo::ClearRules {
            side: Side::Host,
            plugin: "bridge".into(),
            label: "masquerade".into(),
            rules: json!([]),
            taken: false,
        };
        for (plugin, undo) in [
            ("bridge/host-local", release(one.v4)),
            ("bridge/host-local", release(one.v6)),
            ("bridge", Undo::Shared { what: "bridge".into(), held: None }),
            ("bridge", link),
            ("bridge", rules),
        ] {
            let id = journal.intend(plugin, &undo).unwrap();
            journal.done(id, None).unwrap();
        }
        journal.commit(Some(&json!({"netns": "/run/netns/gone"}))).unwrap();
    }
    kernel.finish();
}

fn collect(count: usize) {
    let node = Node::installed().unwrap();
    let (valid, other) = (node.pod("valid").unwrap(), node.pod("other").unwrap());
    let config = Scenario::bridge().config;
    node.cni("bridge", Verb::Add, &valid, "eth0", &config).unwrap().result().unwrap();
    // Not valid, but of another network.
    let mut elsewhere = config.clone();
    elsewhere["name"] = "another".into();
    elsewhere["bridge"] = "cni1".into();
    elsewhere["ipam"] = json!({"type": "host-local", "subnet": "10.3.0.0/24"});
    node.cni("bridge", Verb::Add, &other, "eth0", &elsewhere).unwrap().result().unwrap();
    let before = node.snapshot().unwrap();

    let began = Instant::now();
    let stale: Vec<Stale> = (0..count).map(Stale::number).collect();
    make_links(&node, &stale);
    node.within(move || make_state(&stale)).unwrap();
    let made = began.elapsed();
    let there = node.snapshot().unwrap().attachments_since(&before).len();
    assert!(there >= 6 * count, "{there} lines for {count} attachments");

    let mut gc = config.clone();
    gc["cni.dev/valid-attachments"] = json!([{"containerID": valid.id, "ifname": "eth0"}]);
    let outcome = node.call("bridge", Verb::Gc).config(&gc).run().unwrap();
    outcome.done().unwrap();
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
    node.cni("bridge", Verb::Check, &valid, "eth0", &config).unwrap();
    let text = format!(
        "\nGC of {count} stale attachments: {:.2} s, {:.2} ms each (made in {:.1} s)\n",
        outcome.duration.as_secs_f64(),
        outcome.duration.as_secs_f64() * 1e3 / count as f64,
        made.as_secs_f64(),
    );
    std::io::stdout().write_all(text.as_bytes()).unwrap();
    // Not a measurement: ten times what it takes on a busy machine with two cores.
    assert!(outcome.duration < Duration::from_secs(5) + Duration::from_millis(5) * u32::try_from(count).unwrap());
}

#[test]
fn many_at_once() {
    collect(if std::env::var_os("SOAK").is_some() { 5000 } else { 600 });
}
