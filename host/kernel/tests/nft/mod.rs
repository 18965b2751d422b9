//! Namespaces, and `nft` to look at their firewall.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use nix::sched::{CloneFlags, unshare};
use sandwire_kernel::{Rule, RuleOwner};
use std::io::Write;
use std::process::{Command, Stdio};

/// Runs `body` in a thread in a namespace of its own, which vanishes with it.
pub fn in_netns<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        body()
    })
    .join()
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

pub fn owner(container_id: &str) -> RuleOwner {
    RuleOwner {
        plugin: "bridge".into(),
        network: "net1".into(),
        container_id: container_id.into(),
        ifname: "eth0".into(),
    }
}

pub fn masquerade(source: &str, except: &[&str]) -> Rule {
    Rule::Masquerade {
        source: source.parse().unwrap(),
        except: except.iter().map(|net| net.parse().unwrap()).collect(),
    }
}

/// All that the namespace of this thread has, as nft prints it.
pub fn ruleset() -> String {
    run("nft", &["list", "ruleset"])
}

/// Feeds `nft -f`.
pub fn nft_script(script: &str) {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{script}\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{script}");
}

/// Runs a program that must succeed; its output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The same with words separated by blanks.
pub fn ip(arguments: &str) -> String {
    run("ip", &arguments.split(' ').collect::<Vec<_>>())
}
