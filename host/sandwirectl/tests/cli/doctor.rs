//! `doctor` and `inspect`: what they say.

use crate::node::{COMPONENT, Desk, POLICY, component_with};
use sandwire_harness::repository;

/// What is done to a healthy node, a part of the failing line, a part of its remedy.
#[test]
fn every_failure_is_named_with_its_remedy() {
    let rows = [
        ("rm /opt/cni/bin/loopback", "FAIL  /opt/cni/bin/loopback: missing", "ln -s sandwire /opt/cni/bin/loopback"),
        ("chmod 777 /opt/cni/bin/sandwire", "FAIL  /opt/cni/bin/sandwire: its mode 0777", "sandwirectl install"),
        ("rm /opt/cni/bin/sandwire", "FAIL  /opt/cni/bin/sandwire: No such file", "sandwirectl install"),
        ("chown 1 /usr/lib/sandwire/plugins", "FAIL  /usr/lib/sandwire/plugins: it belongs to user 1", "chown root:"),
        ("chmod o+w /run/sandwire/journal", "FAIL  /run/sandwire/journal: its mode 0702", "chmod go-w"),
        (
            "rm -r /usr/lib/sandwire/plugins",
            "FAIL  /usr/lib/sandwire/plugins: the directory of components is missing",
            "sandwirectl install",
        ),
        ("rm /etc/sandwire/policy.toml", "FAIL  /etc/sandwire/policy.toml: there is no policy", "sandwirectl install"),
        ("echo >> /etc/sandwire/policy.toml", "it is not what generation 1 was made from", "sandwirectl apply"),
        ("echo x >> /etc/sandwire/policy.toml", "FAIL  /etc/sandwire/policy.toml: ", "mend it"),
        (
            "rm /var/lib/sandwire/active",
            "FAIL  /var/lib/sandwire/active: no generation is in force",
            "sandwirectl apply",
        ),
        (
            "for file in /var/lib/sandwire/active/*.cwasm; do printf x >> $file; done",
            "FAIL  plugin loopback: damaged",
            "sandwirectl apply",
        ),
        (
            "printf x >> /usr/lib/sandwire/plugins/loopback.wasm",
            "FAIL  plugin loopback: stale",
            "apply would refuse the plugin: calls use the compiled one until then; put the right file back",
        ),
        (
            "printf '\\0\\2\\1x' >> /usr/lib/sandwire/plugins/loopback.wasm; sed -i \"s/sha256:[0-9a-f]*/sha256:$(sha256sum < /usr/lib/sandwire/plugins/loopback.wasm | cut -c1-64)/\" /etc/sandwire/policy.toml",
            "FAIL  plugin loopback: stale",
            "calls use that one until you run: sandwirectl apply",
        ),
        (
            "chmod 666 /var/lib/sandwire/generations/1/loopback.json",
            "FAIL  plugin loopback: damaged",
            "loopback.json is missing, was changed or can be changed by others; run: sandwirectl apply",
        ),
        (
            "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys",
            "FAIL  sysctls of the node: /proc/sys/net/ipv4/ip_forward can't be written",
            "remount,rw,bind /proc/sys",
        ),
        (
            "rm -r /run/sandwire; echo > /run/sandwire",
            "FAIL  /run/sandwire/journal can be written: /run/sandwire is no directory",
            "rm /run/sandwire",
        ),
        (
            r#"ln -sf /bin/true /opt/cni/bin/loopback; mkdir -p /etc/cni/net.d; echo '{"name":"n","type":"loopback"}' > /etc/cni/net.d/1.conf"#,
            "FAIL  /opt/cni/bin/loopback: another program",
            "--replace",
        ),
        (
            "sed -i 's/\"engine\": \"/&0/' /var/lib/sandwire/active/.generation",
            "FAIL  plugin loopback: stale",
            "compiled by another release",
        ),
        (
            "chmod 777 /var/lib/sandwire/generations/1",
            "FAIL  /var/lib/sandwire/generations/1: its mode 0777",
            "sandwirectl apply",
        ),
        (
            "mkdir /mnt/ro && mount --bind /var/lib/sandwire/leases /var/lib/sandwire/leases && mount -o remount,bind,ro /var/lib/sandwire/leases",
            "FAIL  /var/lib/sandwire/leases can be written: /var/lib/sandwire/leases: Read-only file system",
            "findmnt -T",
        ),
        (
            "mount -t tmpfs -o size=8k tmpfs /run/sandwire/journal && chmod 700 /run/sandwire/journal && head -c 4096 /dev/zero > /run/sandwire/journal/.full",
            "FAIL  /run/sandwire/journal can be written: the file system of /run/sandwire/journal is full",
            "df -i",
        ),
        (
            "sed -i 's/\"links\",//' /etc/sandwire/policy.toml && sandwirectl apply",
            "FAIL  plugin loopback: not granted",
            "imports = [",
        ),
        (
            "chmod 666 /var/lib/sandwire/generations/1/.generation",
            "FAIL  /var/lib/sandwire/generations/1: its mode 0666",
            "sandwirectl apply",
        ),
        (
            r#"mkdir -p /etc/cni/net.d; echo '{"name":"n","type":"loopback"}' > /etc/cni/net.d/1.conf; echo '{' > /etc/cni/net.d/2.conf"#,
            "note  /etc/cni/net.d/2.conf: ",
            "mend it",
        ),
        ("mkdir -p /etc/cni/net.d; echo '{' > /etc/cni/net.d/1.conf", "FAIL  /etc/cni/net.d/1.conf: ", "mend it"),
        (
            r#"mkdir -p /etc/cni/net.d; echo '{"name":"n","type":"loopbak"}' > /etc/cni/net.d/1.conf"#,
            "FAIL  /etc/cni/net.d/1.conf: there is no plugin \"loopbak\" in /opt/cni/bin, /usr/lib/cni",
            "correct the configuration",
        ),
        (
            r#"mkdir -p /etc/cni/net.d; echo '{"name":"n","type":"loopback","ipam":{"type":"loopback"}}' > /etc/cni/net.d/1.conf"#,
            "FAIL  /etc/cni/net.d/1.conf: plugin \"loopback\" may not run the address manager \"loopback\"",
            "write  delegates = [\"loopback\"]  under [plugins.loopback]",
        ),
        (
            r#"cd /etc/sandwire; sed -i 's/"links",/"links", "delegate",/' policy.toml; echo 'delegates = ["*"]' >> policy.toml; sandwirectl apply;
            cp /bin/true /opt/cni/bin/native; mkdir -p /etc/cni/net.d; echo '{"name":"n","type":"loopback","ipam":{"type":"native"}}' > /etc/cni/net.d/1.conf"#,
            "FAIL  /etc/cni/net.d/1.conf: plugin \"loopback\" may not execute the native address manager \"native\"",
            "write  native_delegates = [\"native\"]  under",
        ),
        ("ln -sf /bin/true /opt/cni/bin/loopback", "note  /opt/cni/bin/loopback: another program", "--replace"),
    ];
    for (deed, line, remedy) in rows {
        let desk = Desk::installed();
        let well = desk.run(&["doctor"]).good();
        assert!(!well.contains("FAIL") && well.contains("nothing is wrong"), "{well}");
        desk.node.sh(&deed.replace("sandwirectl", env!("CARGO_BIN_EXE_sandwirectl"))).unwrap();
        let said = desk.run(&["doctor"]);
        assert_eq!(said.code, i32::from(line.starts_with("FAIL") || line.starts_with("it is")), "{deed}: {}", said.out);
        let at = said.out.find(line).unwrap_or_else(|| panic!("{deed}: {line} is not in\n{}", said.out));
        assert!(said.out[at..].lines().take(2).any(|text| text.contains(remedy)), "{deed}: {}", said.out);
    }
}

/// On a disk the journal would undo, after a reboot, what the next boot made.
#[test]
fn a_journal_on_a_disk_is_found() {
    let desk = Desk::installed();
    // A file system of its own that is no tmpfs.
    desk.node.sh("mkdir -p /mnt/a /mnt/b /mnt/w; mount -t overlay overlay -o lowerdir=/mnt/a,upperdir=/mnt/b,workdir=/mnt/w /run/sandwire/journal").unwrap();
    let said = desk.run(&["doctor"]).bad();
    assert!(
        said.contains("FAIL  /run/sandwire/journal is forgotten at a reboot") && said.contains("mount a tmpfs on /run"),
        "{said}"
    );
}

#[test]
fn an_agent_fails_only_where_a_configuration_needs_it() {
    let desk = Desk::installed();
    let agent = "\n[endpoints.near]\naddress = \"unix:/run/near.sock\"\nallow = [\"GET /ping\"]\n";
    let policy = desk.text(POLICY).replace("\"addresses\",", "\"addresses\", \"endpoint\",");
    desk.node.write(POLICY, format!("{policy}endpoints = [\"near\"]\n{agent}")).unwrap();
    desk.run(&["apply"]).good();
    let said = desk.run(&["doctor"]).good();
    assert!(said.contains("note  agent near at unix:/run/near.sock"), "{said}");
    desk.node.write("/etc/cni/net.d/1.conflist", r#"{"name":"n","plugins":[{"type":"loopback"}]}"#).unwrap();
    let said = desk.run(&["doctor"]).bad();
    assert!(said.contains("FAIL  agent near at unix:/run/near.sock") && said.contains("loopback need it"), "{said}");
}

/// The kernel's checks are made in namespaces that go again.
#[test]
fn probing_the_kernel_leaves_nothing() {
    let desk = Desk::installed();
    let before = desk.node.snapshot().unwrap();
    let checks = desk.json(&["doctor"]);
    let of = |what: &str| {
        checks
            .as_array()
            .unwrap()
            .iter()
            .find(|check| check["what"].as_str().unwrap().starts_with(what))
            .unwrap()
            .clone()
    };
    for what in ["network namespaces", "bridge", "veth", "addresses", "nf_tables"] {
        assert_eq!(of(what)["verdict"], "ok", "{}", of(what));
    }
    desk.node.snapshot().unwrap().assert_unchanged(&before).unwrap();
}

/// Without the power to make namespaces, doctor says so and how to get it.
#[test]
fn a_doctor_without_power_says_what_it_lacks() {
    let desk = Desk::installed();
    let script = format!(
        "setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin {} doctor || true",
        env!("CARGO_BIN_EXE_sandwirectl")
    );
    let said = desk.node.sh(&script).unwrap();
    assert!(
        said.contains("FAIL  network namespaces: could not make a network namespace") && said.contains("CAP_SYS_ADMIN"),
        "{said}"
    );
}

#[test]
fn inspect_shows_capabilities_and_the_lines_to_paste() {
    let desk = Desk::installed();
    let said = desk.run(&["inspect", COMPONENT]).good();
    for part in [
        "contract  sandwire:cni@0.1.0",
        "container-netns  look into the container's network namespace",
        "exports   attach, check",
        "[plugins.loopback]\ncomponent = \"sha256:",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // The lines are a policy.
    let lines = said.split_once("sandwirectl apply:\n\n").unwrap().1;
    desk.node.write(POLICY, format!("version = 1\n{lines}")).unwrap();
    let said = desk.run(&["apply"]).good();
    assert!(said.contains("0 refused") && !said.contains("does not grant"), "{said}");

    desk.node.write("/mnt/v.wasm", component_with("version", "1.2.3")).unwrap();
    assert_eq!(desk.json(&["inspect", "/mnt/v.wasm"])["version"], "1.2.3");
    let bridge = repository().join("out/plugins/bridge.wasm");
    let wants = desk.json(&["inspect", bridge.to_str().unwrap()])["wants"].clone();
    let links = wants.as_array().unwrap().iter().find(|want| want["name"] == "links").unwrap().clone();
    assert!(links["functions"].as_array().unwrap().contains(&"create-veth".into()), "{links}");
}
