//! `apply`, `rollback`, and what compiles.

use crate::node::{COMPONENT, Desk, POLICY, component_with, digest, exists};
use std::io::Write;
use std::process::{Command, Stdio};

#[test]
fn a_new_generation_is_switched_to_and_three_are_kept() {
    let desk = Desk::installed();
    for n in 2..=5 {
        desk.node.sh(&format!("echo '# {n}' >> {POLICY}")).unwrap();
        let said = desk.run(&["apply"]).good();
        assert!(said.contains(&format!("generation {n} is in force: 0 compiled, 1 kept, 0 refused")), "{said}");
        assert_eq!(desk.active(), format!("generations/{n}"));
    }
    assert_eq!(desk.node.sh("ls /var/lib/sandwire/generations").unwrap(), "3\n4\n5\n");
    let said = desk.run(&["apply"]).good();
    assert!(said.contains("generation 5 is already in force"), "{said}");

    desk.run(&["rollback"]).good();
    assert_eq!(desk.active(), "generations/4");
    desk.run(&["rollback"]).good();
    let said = desk.run(&["rollback"]).bad();
    assert!(said.contains("generation 3 is the oldest that is kept (3, 4, 5)"), "{said}");
    let said = desk.run(&["rollback", "9"]).bad();
    assert!(said.contains("there is no generation 9; there are: 3, 4, 5"), "{said}");
    desk.run(&["rollback", "5"]).good();
    assert_eq!(desk.active(), "generations/5");
    // A number is never given twice: who saw generation 5 shall not see another under its name.
    desk.run(&["rollback", "4"]).good();
    desk.node.sh(&format!("echo '# other' >> {POLICY}")).unwrap();
    desk.run(&["apply"]).good();
    assert_eq!(desk.active(), "generations/6");
    assert!(exists(&desk, "/var/lib/sandwire/generations/4"));
}

/// The others go on; this one says at every call why it doesn't run.
#[test]
fn a_component_that_is_not_the_pinned_one_is_refused() {
    let desk = Desk::installed();
    let pinned = digest(&desk, COMPONENT);
    desk.node.write(COMPONENT, component_with("x", "")).unwrap();
    let found = digest(&desk, COMPONENT);
    let said = desk.run(&["apply"]).bad();
    for part in [&pinned, &found, "1 refused", &format!("component = {found:?}  under [plugins.loopback]")] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let grant: serde_json::Value = serde_json::from_str(&desk.text("/var/lib/sandwire/active/loopback.json")).unwrap();
    assert!(grant["refused"].as_str().unwrap().contains(&found), "{grant}");
    let said = desk.run(&["plugins"]).bad();
    assert!(said.contains("refused") && said.contains(&found), "{said}");

    desk.node.sh(&format!("rm {COMPONENT}")).unwrap();
    let said = desk.run(&["apply"]).bad();
    assert!(said.contains(&format!("{COMPONENT} is missing")), "{said}");
}

#[test]
fn a_broken_component_is_refused_with_the_compilers_words() {
    let desk = Desk::installed();
    let pinned = digest(&desk, COMPONENT);
    desk.node.sh(&format!("truncate -s -100 {COMPONENT}")).unwrap();
    desk.edit(POLICY, &pinned, &digest(&desk, COMPONENT));
    let said = desk.run(&["apply"]).bad();
    assert!(said.contains("plugin \"loopback\" can't run") && said.contains("no valid component"), "{said}");
}

#[test]
fn an_import_that_is_not_granted_is_told() {
    let desk = Desk::installed();
    desk.edit(POLICY, "\"links\",", "");
    let said = desk.run(&["apply"]).good();
    assert!(
        said.contains("it imports links, which policy does not grant")
            && said.contains("write  imports = [\"addresses\", \"container-netns\", \"links\"]  under"),
        "{said}"
    );
}

#[test]
fn a_policy_that_others_can_write_is_not_read() {
    let desk = Desk::installed();
    desk.node.sh(&format!("chmod 666 {POLICY}")).unwrap();
    let said = desk.run(&["apply"]).bad();
    assert!(said.contains("can't be trusted") && said.contains("chmod go-w"), "{said}");
}

#[test]
fn mistakes_of_the_policy_come_with_their_lines() {
    let desk = Desk::installed();
    let line = desk.text(POLICY).lines().position(|line| line == "deadline_ms = 30000").unwrap() + 1;
    desk.edit(POLICY, "deadline_ms = 30000", "deadline = 30000");
    let said = desk.run(&["apply"]).bad();
    assert!(said.contains(&format!("{POLICY}:{line}: unknown key \"deadline\" in [limits]; did you mean")), "{said}");
    assert_eq!(desk.active(), "generations/1");
}

/// A generation that was tampered with is not a source for the next one.
#[test]
fn a_changed_compiled_component_is_made_anew() {
    let desk = Desk::installed();
    desk.node.sh("for file in /var/lib/sandwire/active/*.cwasm; do printf x >> $file; done").unwrap();
    let said = desk.run(&["plugins"]).bad();
    assert!(said.contains("damaged"), "{said}");
    let said = desk.run(&["apply"]).good();
    assert!(said.contains("generation 2 is in force: 1 compiled, 0 kept"), "{said}");
    desk.run(&["plugins"]).good();
}

/// Who can write the directory can write its list of digests too.
#[test]
fn a_generation_that_others_can_write_is_neither_kept_nor_returned_to() {
    let desk = Desk::installed();
    desk.node.sh("chmod 777 /var/lib/sandwire/generations/1").unwrap();
    let said = desk.run(&["apply"]).good();
    assert!(said.contains("generation 2 is in force: 1 compiled, 0 kept"), "{said}");
    let said = desk.run(&["rollback"]).bad();
    assert!(said.contains("could be changed by others than root"), "{said}");
    assert_eq!(desk.active(), "generations/2");
}

/// What an interrupted run left is in nobody's way.
#[test]
fn an_unfinished_generation_is_replaced() {
    let desk = Desk::installed();
    desk.node.sh(&format!("mkdir /var/lib/sandwire/generations/.2; echo >> {POLICY}")).unwrap();
    desk.node.sh("echo half > /var/lib/sandwire/generations/.2/loopback.json").unwrap();
    desk.run(&["apply"]).good();
    assert_eq!(desk.active(), "generations/2");
    assert!(!exists(&desk, "/var/lib/sandwire/generations/.2"));
}

#[test]
fn only_one_changes_generations_at_a_time() {
    let desk = Desk::installed();
    let tool = env!("CARGO_BIN_EXE_sandwirectl");
    let script = format!("exec 9>/var/lib/sandwire/generations/.lock; flock 9; ! {tool} apply 2>&1");
    let said = desk.node.sh(&script).unwrap();
    assert!(said.contains("another sandwirectl is changing the generations"), "{said}");
}

/// The compiler reads hostile input: it has no power by the time it reads.
#[test]
fn the_compiler_gives_up_all_privilege_before_it_reads() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sandwirectl"))
        .arg("compile-component")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let file = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", child.id())).unwrap();
    // Waits in read(2) for the component, privilege gone. The syscall file needs no polling of time, only of progress.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !file("status").contains("NoNewPrivs:\t1") {
        assert!(std::time::Instant::now() < deadline, "{}", file("status"));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let status = file("status");
    for line in [
        "Uid:\t65534\t65534\t65534\t65534",
        "Gid:\t65534\t65534\t65534\t65534",
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
    ] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let limits = file("limits");
    for (limit, value) in [
        ("Max address space", "4294967296"),
        ("Max cpu time", "300"),
        ("Max file size", "0"),
        ("Max core file size", "0"),
    ] {
        let line = limits.lines().find(|line| line.starts_with(limit)).unwrap();
        assert_eq!(line[limit.len()..].split_whitespace().next(), Some(value), "{line}");
    }
    child.stdin.take().unwrap().write_all(b"\0asm").unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(!done.status.success() && done.stdout.is_empty() && !done.stderr.is_empty(), "{done:?}");
}

/// The default policy is what the shipped plugins import: less and they fail, more and it is a power for nothing.
#[test]
fn the_default_policy_fits_the_shipped_plugins() {
    let desk = Desk::new();
    let (binary, components) = (crate::node::binary(), sandwire_harness::repository().join("out/plugins"));
    let (binary, components) = (binary.to_str().unwrap(), components.to_str().unwrap());
    desk.run(&["install", "--binary", binary, "--components", components]).good();
    let plugins = desk.json(&["plugins"]);
    assert_eq!(plugins.as_array().unwrap().len(), sandwire_policy::file::SHIPPED.len(), "{plugins}");
    for row in plugins.as_array().unwrap() {
        let plugin = row["plugin"].as_str().unwrap();
        let grant = desk.text(&format!("/var/lib/sandwire/active/{plugin}.json"));
        let grant: serde_json::Value = serde_json::from_str(&grant).unwrap();
        assert_eq!(grant["imports"], row["imports"], "{plugin}");
        assert_eq!(grant["wasi"], false, "{plugin}");
    }
}
