//! `install` and `uninstall`.

use crate::node::{COMPONENT, Desk, POLICY, component, component_with, digest, exists};

#[test]
fn twice_is_once() {
    let desk = Desk::new();
    let first = desk.install().good();
    assert!(
        first.contains("wrote the first policy") && first.contains("generation 1 is in force: 1 compiled"),
        "{first}"
    );
    let installed = desk.node.snapshot().unwrap();
    let second = desk.install().good();
    assert!(second.contains("everything was installed already") && second.contains("nothing changed"), "{second}");
    desk.node.snapshot().unwrap().assert_unchanged(&installed).unwrap();
}

#[test]
fn a_careless_umask_shuts_nobody_out() {
    let desk = Desk::new();
    let script = format!(
        "umask 077; {} install --from /mnt/from --binary {}",
        env!("CARGO_BIN_EXE_sandwirectl"),
        crate::node::binary().display()
    );
    desk.node.sh(&script).unwrap();
    let modes = desk.node.sh("stat -c '%a %n' /opt/cni/bin/sandwire /usr/lib/sandwire /usr/lib/sandwire/plugins /var/lib/sandwire/generations/1 /var/lib/sandwire/generations/1/loopback.json /run/sandwire/journal").unwrap();
    assert_eq!(
        modes,
        "755 /opt/cni/bin/sandwire\n755 /usr/lib/sandwire\n755 /usr/lib/sandwire/plugins\n755 /var/lib/sandwire/generations/1\n644 /var/lib/sandwire/generations/1/loopback.json\n700 /run/sandwire/journal\n"
    );
}

/// A new release pins its components anew; the rest of the operator's file stays as it was, comments too.
#[test]
fn an_upgrade_changes_only_digests() {
    let desk = Desk::installed();
    desk.edit(POLICY, "memory_mib = 64\n", "memory_mib = 64  # as agreed\n");
    desk.run(&["apply"]).good();
    let (before, policy) = (digest(&desk, COMPONENT), desk.text(POLICY));
    desk.ship(&component_with("version", "9.8.7"));
    let said = desk.install().good();
    let after = digest(&desk, COMPONENT);
    assert_ne!(before, after);
    assert!(said.contains(&format!("[plugins.loopback] is pinned to {after} now, before: {before}")), "{said}");
    assert_eq!(desk.text(POLICY), policy.replace(&before, &after));
    assert_eq!(desk.json(&["plugins"])[0]["version"], "9.8.7");
    assert_eq!(desk.active(), "generations/3");
}

/// Interrupted between components and policy, the next run still knows that the pin was its own.
#[test]
fn an_interrupted_upgrade_is_finished() {
    let desk = Desk::installed();
    let new = component_with("x", "");
    desk.ship(&new);
    desk.node.write(COMPONENT, new).unwrap();
    let said = desk.install().good();
    assert!(said.contains("is pinned to") && said.contains("0 refused"), "{said}");
}

/// A component that the operator put there, and pinned, is no business of the installer.
#[test]
fn the_operators_own_component_stays() {
    let desk = Desk::installed();
    let shipped = digest(&desk, COMPONENT);
    desk.node.write(COMPONENT, component_with("mine", "")).unwrap();
    let mine = digest(&desk, COMPONENT);
    desk.edit(POLICY, &shipped, &mine);
    let said = desk.install().good();
    assert!(said.contains("is not one that was shipped") && said.contains("0 refused"), "{said}");
    assert_eq!(digest(&desk, COMPONENT), mine);
    desk.run(&["uninstall"]).good();
    assert!(exists(&desk, COMPONENT) && exists(&desk, POLICY), "without --purge the operator's files stay");
    desk.run(&["uninstall", "--purge"]).good();
    assert!(!exists(&desk, COMPONENT) && !exists(&desk, POLICY));
}

#[test]
fn what_is_no_component_is_not_installed() {
    let desk = Desk::new();
    let before = desk.node.snapshot().unwrap();
    let core = b"\0asm\x01\0\0\0".as_slice();
    let whole = component();
    for (bytes, why) in [
        (b"#!/bin/sh\n".as_slice(), "no WebAssembly"),
        (core, "a core module, not a component"),
        (&whole[..whole.len() / 2], "no valid component"),
    ] {
        desk.ship(bytes);
        let said = desk.install().bad();
        assert!(said.contains("loopback.wasm can't be installed") && said.contains(why), "{said}");
    }
    for (name, why) in
        [("sandwire", "it is the host program itself"), ("a b", "use letters, digits"), ("", "use letters")]
    {
        desk.ship(&whole);
        let file = format!("/mnt/from/plugins/{name}.wasm");
        desk.node.write(&file, whole.clone()).unwrap();
        let said = desk.install().bad();
        assert!(said.contains("can't name a plugin: ") && said.contains(why), "{said}");
        desk.node.sh(&format!("rm '{file}'")).unwrap();
    }
    desk.node.snapshot().unwrap().assert_unchanged(&before).unwrap();
}

#[test]
fn what_is_missing_is_named() {
    let desk = Desk::new();
    let said = desk.run(&["install"]).bad();
    assert!(said.contains("sandwire is missing: name the directory") || said.contains("--components"), "{said}");
    let said = desk.run(&["install", "--from", "/mnt/nowhere"]).bad();
    assert!(said.contains("/mnt/nowhere/sandwire is missing") && said.contains("--from"), "{said}");
}

/// The operator keeps it elsewhere.
#[test]
fn a_policy_behind_a_link() {
    let desk = Desk::installed();
    desk.node.sh("mv /etc/sandwire/policy.toml /mnt/policy.toml; ln -s /mnt/policy.toml /etc/sandwire/").unwrap();
    desk.ship(&component_with("another", "one"));
    let said = desk.install().good();
    assert!(said.contains("is pinned to"), "{said}");
    assert_eq!(desk.node.sh("readlink /etc/sandwire/policy.toml").unwrap().trim(), "/mnt/policy.toml");
    desk.node.sh("rm /mnt/policy.toml").unwrap();
    let said = desk.install().bad();
    assert!(said.contains("a link that leads to no file") && said.contains("put the policy there"), "{said}");
}

/// Backups and deduplication make second names: they change nothing.
#[test]
fn second_names_are_no_matter() {
    let desk = Desk::installed();
    desk.node.sh("cp -al /var/lib/sandwire/generations /var/lib/sandwire/kept; ip netns add pod").unwrap();
    desk.run(&["doctor"]).good();
    desk.node.write("/mnt/n.conf", r#"{"cniVersion":"1.0.0","name":"n","type":"loopback"}"#).unwrap();
    let call = ["call", "add", "--network", "/mnt/n.conf", "--container-id", "c", "--netns", "pod", "--ifname", "lo"];
    desk.run(&call).good();
}

/// Neither is overwritten: what is in the way, and what was kept before.
#[test]
fn a_kept_native_plugin_is_not_lost() {
    let desk = Desk::new();
    desk.node.sh("printf a > /opt/cni/bin/loopback; printf b > /opt/cni/bin/loopback.native").unwrap();
    let binary = crate::node::binary();
    let said = desk.run(&["install", "--from", "/mnt/from", "--binary", binary.to_str().unwrap(), "--replace"]).bad();
    assert!(said.contains("both exist") && said.contains("nothing was changed"), "{said}");
    assert!(said.contains("rm /opt/cni/bin/loopback.native"), "{said}");
    assert_eq!(desk.text("/opt/cni/bin/loopback") + &desk.text("/opt/cni/bin/loopback.native"), "ab");
}

/// "run: sandwirectl install" is what errors advise; by then nobody knows where the release was unpacked.
#[test]
fn what_is_installed_is_mended_from_itself() {
    let desk = Desk::installed();
    let tool = env!("CARGO_BIN_EXE_sandwirectl");
    let healthy = desk.node.snapshot().unwrap();
    desk.node
        .sh(&format!(
            "mkdir /mnt/tool && cp {tool} /mnt/tool/ && rm /opt/cni/bin/loopback && rm -r /var/lib/sandwire/notes"
        ))
        .unwrap();
    let said = desk.node.sh("/mnt/tool/sandwirectl install").unwrap();
    assert!(said.contains("linked /opt/cni/bin/loopback") && said.contains("made /var/lib/sandwire/notes"), "{said}");
    desk.node.sh("rm -r /mnt/tool").unwrap();
    desk.node.snapshot().unwrap().assert_unchanged(&healthy).unwrap();
    desk.node.sh(&format!("mkdir /mnt/tool && cp {tool} /mnt/tool/ && printf x >> /opt/cni/bin/sandwire")).unwrap();
    let said = desk.node.sh("! /mnt/tool/sandwirectl install 2>&1").unwrap();
    assert!(said.contains("no program of those that were installed is whole"), "{said}");
    // A generation of another release: what this tool compiles the installed program could not run.
    let desk = Desk::installed();
    desk.node.sh(&format!("mkdir /mnt/tool && cp {tool} /mnt/tool/ && rm /opt/cni/bin/loopback && sed -i 's/\"wasmtime\": \"/&0/' /var/lib/sandwire/active/.generation")).unwrap();
    let said = desk.node.sh("! /mnt/tool/sandwirectl install 2>&1").unwrap();
    assert!(said.contains("what is installed is not of this release") && said.contains("--from"), "{said}");
}

#[test]
fn other_directories_of_plugins_are_remembered() {
    let desk = Desk::installed();
    let binary = crate::node::binary();
    let install = ["install", "--from", "/mnt/from", "--binary", binary.to_str().unwrap()];
    desk.run(&[&install[..], &["--bin-dir", "/mnt/cni"]].concat()).good();
    desk.node.sh("cd /usr/lib/sandwire/plugins && sha256sum --quiet -c SHA256SUMS").unwrap();
    let said = desk.run(&["doctor"]).good();
    assert!(said.contains("/mnt/cni/loopback: leads to") && said.contains("/opt/cni/bin/loopback: leads to"), "{said}");
    let said = desk.run(&install).good();
    assert!(said.contains("everything was installed already"), "{said}");
    // One alone, and what both need stays.
    desk.run(&["uninstall", "--bin-dir", "/mnt/cni"]).good();
    assert!(!exists(&desk, "/mnt/cni/loopback") && !exists(&desk, "/mnt/cni/sandwire"));
    let said = desk.run(&["doctor"]).good();
    assert!(said.contains("/opt/cni/bin/loopback: leads to") && !said.contains("/mnt/cni"), "{said}");
    // A release goes to all of them, whichever is named.
    desk.run(&[&install[..], &["--bin-dir", "/mnt/cni"]].concat()).good();
    desk.node.sh("printf x >> /opt/cni/bin/sandwire").unwrap();
    let said = desk.run(&["doctor"]).bad();
    assert!(said.contains("FAIL  /opt/cni/bin/sandwire: it is not the program that sandwirectl installed"), "{said}");
    desk.run(&[&install[..], &["--bin-dir", "/mnt/cni"]].concat()).good();
    desk.run(&["doctor"]).good();
    desk.run(&["uninstall"]).good();
    assert!(!exists(&desk, "/mnt/cni/loopback") && !exists(&desk, "/mnt/cni/sandwire"));
    assert!(!exists(&desk, "/opt/cni/bin/loopback") && !exists(&desk, "/opt/cni/bin/sandwire"));
}

/// A plugin that is new in a release is of use at once; an entry that the operator took away is not.
#[test]
fn a_new_plugin_gets_its_entry_and_a_removed_one_does_not() {
    let desk = Desk::installed();
    let shipped = sandwire_harness::repository().join("out/plugins/static.wasm");
    desk.node.write("/mnt/from/plugins/static.wasm", std::fs::read(shipped).unwrap()).unwrap();
    let before = desk.text(POLICY);
    let said = desk.install().good();
    assert!(said.contains("policy: [plugins.static] was added") && said.contains("0 refused"), "{said}");
    let after = desk.text(POLICY);
    assert!(after.starts_with(&before) && after.contains("[plugins.static]\ncomponent = \"sha256:"), "{after}");
    desk.node.write(POLICY, before).unwrap();
    let said = desk.install().good();
    assert!(!said.contains("was added") && said.contains("static.wasm has no entry"), "{said}");
    assert!(!desk.text(POLICY).contains("[plugins.static]"));
}

/// A native program that has the name of a new plugin stays, and stands in the way of nothing else.
#[test]
fn a_new_plugin_does_not_take_a_native_ones_place() {
    let desk = Desk::installed();
    let shipped = sandwire_harness::repository().join("out/plugins/static.wasm");
    desk.node.write("/mnt/from/plugins/static.wasm", std::fs::read(shipped).unwrap()).unwrap();
    desk.node.sh("cp /bin/true /opt/cni/bin/static").unwrap();
    // Nor at the next one, which knows the plugin from this.
    for _ in 0..2 {
        let said = desk.install().good();
        assert!(said.contains("/opt/cni/bin/static is another program") && said.contains("--replace"), "{said}");
    }
    desk.node.sh("cmp /bin/true /opt/cni/bin/static && test ! -e /opt/cni/bin/static.native").unwrap();
}
