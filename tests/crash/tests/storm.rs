//! 200 pods added and removed, 16 at a time, with SIGKILLs in between: nothing is left, no address is given twice, no call
//! takes longer than its deadline. SOAK=1 goes on for forty rounds.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use sandwire_crash::Scenario;
use sandwire_harness::{Node, Place, Pod, Verb};
use sandwire_state::journal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PODS: usize = 200;
const AT_ONCE: usize = 16;
/// The policy's default.
const DEADLINE: Duration = Duration::from_secs(30);

struct Storm {
    node: Node,
    pods: Vec<Pod>,
    config: Value,
    /// Address and family's pods that hold it, as far as an ADD has said so.
    held: Mutex<BTreeMap<String, String>>,
    longest: AtomicU64,
    kills: AtomicU64,
    calls: AtomicU64,
    random: AtomicU64,
}

impl Storm {
    /// SplitMix64; in which order the threads ask differs from run to run, as the kills do.
    fn below(&self, limit: u64) -> u64 {
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    /// What it printed; none when it was killed before it came to its end.
    fn call(&self, verb: Verb, pod: &Pod, kill: bool) -> Option<String> {
        let call = self.node.call("bridge", verb).pod(pod).ifname("eth0").config(&self.config);
        let (command, stdin) = call.command().unwrap();
        let began = Instant::now();
        let mut child = self.node.spawn(&Place::Host, command).unwrap();
        child.stdin.take().unwrap().write_all(&stdin).unwrap();
        if kill {
            std::thread::sleep(Duration::from_micros(self.below(25_000)));
            // It may have ended by itself.
            let _ = child.kill();
        }
        let output = child.wait_with_output().unwrap();
        let took = began.elapsed();
        assert!(took < DEADLINE, "{} of {} took {took:?}", verb.name(), pod.id);
        self.longest.fetch_max(u64::try_from(took.as_millis()).unwrap(), Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        if output.status.code().is_none() {
            self.kills.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let text = String::from_utf8(output.stdout).unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} of {}: {text} {log}", verb.name(), pod.id);
        Some(text)
    }

    /// Whether the last ADD came to its end, whoever heard of it.
    fn is_committed(&self, pod: &Pod) -> bool {
        let id = pod.id.clone();
        let all = self.node.within(|| journal::list(Path::new("/run/sandwire/journal"), Some("net"))).unwrap().unwrap();
        let mine = all.into_iter().find(|summary| summary.attachment.container_id == id);
        mine.is_some_and(|summary| summary.uncommitted == 0)
    }

    fn add(&self, pod: &Pod) {
        let kill = self.below(3) == 0;
        let mut answer = self.call(Verb::Add, pod, kill);
        // Killed on its way out, it was an ADD that succeeded; a second one is refused then, as by the reference.
        if answer.is_none() && self.below(2) == 0 && !self.is_committed(pod) {
            answer = self.call(Verb::Add, pod, false);
        }
        let Some(text) = answer else { return };
        let result: Value = serde_json::from_str(&text).unwrap();
        let mut held = self.held.lock().unwrap();
        for ip in result["ips"].as_array().unwrap() {
            let address = ip["address"].as_str().unwrap().to_owned();
            if let Some(other) = held.insert(address.clone(), pod.id.clone()) {
                panic!("{address} was given to {} while {other} has it", pod.id);
            }
        }
    }

    fn del(&self, pod: &Pod) {
        // From now on it may be given to another.
        self.held.lock().unwrap().retain(|_, holder| *holder != pod.id);
        let kill = self.below(3) == 0;
        if self.call(Verb::Del, pod, kill).is_none() {
            self.call(Verb::Del, pod, false).unwrap();
        }
    }

    fn everywhere(&self, each: fn(&Self, &Pod)) {
        let next = Mutex::new(self.pods.iter());
        std::thread::scope(|scope| {
            let worker = || {
                loop {
                    // Not held while the pod is worked on.
                    let pod = next.lock().unwrap().next();
                    let Some(pod) = pod else { return };
                    each(self, pod);
                }
            };
            let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
            for worker in workers {
                worker.join().unwrap();
            }
        });
    }

    /// What killed ADDs left goes, and nothing else does.
    fn collect(&self) {
        let held = self.held.lock().unwrap();
        let mut config = self.config.clone();
        config["cni.dev/valid-attachments"] =
            held.values().map(|id| json!({"containerID": id, "ifname": "eth0"})).collect();
        let outcome = self.node.call("bridge", Verb::Gc).config(&config).run().unwrap();
        outcome.done().unwrap();
        let files = self.node.files("/var/lib/cni/networks/net").unwrap();
        let mut leases: Vec<String> = files
            .into_iter()
            .filter_map(|(path, _)| path.file_name()?.to_str()?.parse::<std::net::IpAddr>().ok())
            .map(|address| address.to_string())
            .collect();
        leases.sort();
        let mut wanted: Vec<String> =
            held.keys().filter_map(|address| Some(address.split_once('/')?.0.to_owned())).collect();
        wanted.sort();
        assert_eq!(leases, wanted);
    }
}

#[test]
fn pods_by_the_hundred_and_sigkill() {
    let node = Node::installed().unwrap();
    let pods = (0..PODS).map(|n| node.pod(&n.to_string()).unwrap()).collect();
    let before = node.snapshot().unwrap();
    let seed = u64::from(std::process::id());
    let storm = Storm {
        node,
        pods,
        config: Scenario::bridge().config,
        held: Mutex::default(),
        longest: AtomicU64::default(),
        kills: AtomicU64::default(),
        calls: AtomicU64::default(),
        random: AtomicU64::new(seed),
    };
    let rounds = if std::env::var_os("SOAK").is_some() { 40 } else { 3 };
    for _ in 0..rounds {
        storm.everywhere(Storm::add);
        storm.collect();
        storm.everywhere(Storm::del);
    }
    storm.node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
    let text = format!(
        "\nstorm: {rounds} rounds of {PODS} pods, {AT_ONCE} at a time: {} calls, {} of them killed, the longest took {} ms\n",
        storm.calls.load(Ordering::Relaxed),
        storm.kills.load(Ordering::Relaxed),
        storm.longest.load(Ordering::Relaxed),
    );
    std::io::stdout().write_all(text.as_bytes()).unwrap();
    assert!(storm.kills.load(Ordering::Relaxed) > 0);
}
