//! Many containers at once, and many containers in all. `cargo test --test nftables_load -- --nocapture` prints figures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod nft;

use nft::{in_netns, masquerade, nft_script, owner, ruleset};
use sandwire_kernel::linux::Nftables;
use sandwire_kernel::{Ingress, Mac, PortForward, Rule, RuleOwner};
use std::process::Command;
use std::sync::Barrier;
use std::time::{Duration, Instant};

fn rules(number: u32, networks: u32) -> Vec<Rule> {
    let network = number % networks;
    let [_, _, high, low] = number.to_be_bytes();
    vec![
        masquerade(&format!("10.{network}.{high}.{low}"), &[&format!("10.{network}.0.0/16")]),
        masquerade(&format!("fd00:{network:x}::{number:x}"), &[&format!("fd00:{network:x}::/64")]),
        Rule::SpoofCheck { port: format!("veth{number}"), mac: Mac([2, 0, 0, 0, high, low]) },
    ]
}

/// The kernel knows sockets, not processes: each thread has its own.
fn eight_at_once(round: impl Fn(&mut Nftables, &RuleOwner, u32) + Sync + Send + 'static) -> Duration {
    in_netns(move || {
        let start = Instant::now();
        let barrier = Barrier::new(8);
        std::thread::scope(|scope| {
            for worker in 0..8 {
                let (barrier, round) = (&barrier, &round);
                scope.spawn(move || {
                    let mut nft = Nftables::open().unwrap();
                    barrier.wait();
                    for number in 0..25 {
                        round(&mut nft, &owner(&format!("c{worker}-{number}")), worker * 1000 + number);
                    }
                });
            }
        });
        let elapsed = start.elapsed();
        assert_eq!(ruleset(), "", "nothing is left");
        elapsed
    })
}

/// The hardest case: the tables come and go all the time.
#[test]
fn eight_at_once_that_come_and_go() {
    let elapsed = eight_at_once(|nft, owner, number| {
        let rules = rules(number, 1);
        nft.apply(owner, "a", &rules).unwrap();
        assert_eq!(nft.verify(owner, "a", &rules).unwrap(), Vec::<String>::new());
        nft.clear(owner).unwrap();
    });
    println!("8 at once, 200 containers come and go: {elapsed:?}");
}

#[test]
fn eight_at_once_with_ports_that_come_and_go() {
    let elapsed = eight_at_once(|nft, owner, number| {
        let rules = ports_and_forwarding(number);
        nft.apply(owner, "a", &rules).unwrap();
        assert_eq!(nft.verify(owner, "a", &rules).unwrap(), Vec::<String>::new());
        nft.clear(owner).unwrap();
    });
    println!("8 at once, 200 containers with ports come and go: {elapsed:?}");
}

#[test]
fn eight_at_once_in_eight_networks() {
    let elapsed = eight_at_once(|nft, owner, number| {
        let rules = rules(number, 8);
        nft.apply(owner, "a", &rules).unwrap();
        nft.clear(owner).unwrap();
        assert!(!nft.verify(owner, "a", &rules).unwrap().is_empty());
    });
    println!("8 at once, 200 containers come and go in 8 networks: {elapsed:?}");
}

#[test]
fn eight_fight_for_one_address() {
    let elapsed = eight_at_once(|nft, owner, number| {
        let rules = [
            masquerade("10.1.2.3", &["10.1.2.0/24"]),
            Rule::SpoofCheck { port: "veth0".into(), mac: Mac([2, 0, 0, 0, 0, number as u8]) },
        ];
        nft.apply(owner, "a", &rules).unwrap();
        nft.clear(owner).unwrap();
    });
    println!("8 at once fight for one address, 200 times: {elapsed:?}");
}

#[test]
fn others_who_change_the_firewall_don_t_disturb() {
    in_netns(|| {
        nft_script("add table inet other; add set inet other s { type inet_service; }");
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    nft_script("add element inet other s { 80 }; delete element inet other s { 80 }");
                }
            });
            let mut nft = Nftables::open().unwrap();
            for number in 0..50 {
                let pod = owner(&format!("c{number}"));
                nft.apply(&pod, "a", &rules(number, 1)).unwrap();
                nft.clear(&pod).unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert!(!ruleset().contains("sandwire"), "{}", ruleset());
    });
}

/// strace lets the thread's `number`th read of an answer fail as it does when the kernel found no room for one.
fn losing_answer<T>(number: u32, body: impl FnOnce() -> T) -> T {
    let thread = nix::unistd::gettid().to_string();
    let inject = format!("inject=recvfrom:error=ENOBUFS:when={number}");
    let mut strace = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-p", &thread, "-e", "trace=recvfrom", "-e", &inject])
        .spawn()
        .expect("these tests need strace");
    let traced = || std::fs::read_to_string("/proc/thread-self/status").unwrap().contains("TracerPid:\t0\n");
    while traced() {
        std::thread::yield_now();
    }
    let result = body();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(strace.id() as i32), nix::sys::signal::Signal::SIGINT).unwrap();
    strace.wait().unwrap();
    result
}

#[test]
fn a_lost_answer_is_asked_for_again() {
    in_netns(|| {
        let pod = owner("c1");
        for number in 1..=16 {
            let mut nft = Nftables::open().unwrap();
            losing_answer(number, || nft.apply(&pod, "a", &rules(1, 1))).unwrap();
            assert_eq!(nft.verify(&pod, "a", &rules(1, 1)).unwrap(), Vec::<String>::new());
            losing_answer(number, || nft.clear(&pod)).unwrap();
            assert_eq!(ruleset(), "");
        }
    });
}

/// Two addresses with a port each, a hairpin and a loopback rule, and what may be forwarded.
fn ports_and_forwarding(number: u32) -> Vec<Rule> {
    let [_, _, high, low] = number.to_be_bytes();
    let addresses = [format!("10.1.{high}.{low}"), format!("fd00:1::{number:x}")];
    let addresses = addresses.map(|address| address.parse::<std::net::IpAddr>().unwrap());
    let networks = ["10.1.0.0/16", "fd00:1::/64"];
    let ports = addresses.into_iter().zip(networks).map(|(to, network)| {
        Rule::ForwardPort(PortForward {
            // For UDP all tracked connections are looked through besides, which is no matter of how many containers there are.
            protocol: 6,
            host_ip: None,
            host_port: 10_000 + number as u16,
            to,
            to_port: 80,
            masquerade: true,
            extra: vec![("masquerade-from".into(), network.into())],
        })
    });
    let forwards = addresses.into_iter().map(|address| Rule::Forward {
        address,
        ingress: Ingress::Isolated,
        bridge: Some("br0".into()),
    });
    ports.chain(forwards).collect()
}

/// Microseconds.
fn median(times: &[Duration]) -> u128 {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2].as_micros()
}

#[test]
fn the_last_of_5000_costs_what_the_first_did() {
    the_last_costs_what_the_first_did("2 addresses, 1 port of a bridge", |number| rules(number, 1));
}

#[test]
fn the_last_of_5000_with_ports_costs_what_the_first_did() {
    the_last_costs_what_the_first_did("2 ports of the node, 2 isolated addresses", ports_and_forwarding);
}

fn the_last_costs_what_the_first_did(what: &str, rules: impl Fn(u32) -> Vec<Rule> + Send + 'static) {
    const PODS: u32 = 5000;
    let (adds, dels) = in_netns(move || {
        let mut nft = Nftables::open().unwrap();
        // So that the first is not the only one: creating the tables is not what is compared here.
        nft.apply(&owner("base"), "a", &rules(PODS)).unwrap();
        let mut time = |number: u32, add: bool| {
            let pod = owner(&format!("c{number}"));
            let start = Instant::now();
            if add { nft.apply(&pod, "a", &rules(number)).map(drop) } else { nft.clear(&pod) }.unwrap();
            start.elapsed()
        };
        let adds: Vec<Duration> = (0..PODS).map(|number| time(number, true)).collect();
        let dels: Vec<Duration> = (0..PODS).map(|number| time(number, false)).collect();
        let start = Instant::now();
        nft.retain("net1", &[]).unwrap();
        println!("gc of the last one: {:?}", start.elapsed());
        assert_eq!(ruleset(), "");
        (adds, dels)
    });
    let [first, last] = [median(&adds[..200]), median(&adds[adds.len() - 200..])];
    println!("apply ({what}), median of 200: first {first} us, of 5000 {last} us");
    // Deletions begin with 5000 there.
    let [full, empty] = [median(&dels[..200]), median(&dels[dels.len() - 200..])];
    println!("clear, median of 200: of 5000 {full} us, last {empty} us");
    assert!(last < 2 * first + 50 && full < 2 * empty + 50, "the cost grows with the number of containers");
}

#[test]
fn gc_of_many() {
    const PODS: u32 = 2000;
    in_netns(|| {
        let mut nft = Nftables::open().unwrap();
        for number in 0..PODS {
            nft.apply(&owner(&format!("c{number}")), "a", &rules(number, 1)).unwrap();
        }
        let valid: Vec<_> = (0..PODS / 2).map(|number| (format!("c{number}"), "eth0".to_owned())).collect();
        let start = Instant::now();
        nft.retain("net1", &valid).unwrap();
        println!("gc of {} stale beside {} valid: {:?}", PODS / 2, PODS / 2, start.elapsed());
        assert!(nft.verify(&owner("c999"), "a", &rules(999, 1)).unwrap().is_empty());
        assert_eq!(nft.verify(&owner("c1000"), "a", &rules(1000, 1)).unwrap().len(), 7);
    });
}
