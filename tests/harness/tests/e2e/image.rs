//! The memory image that calls begin with: used when it is good, and when it is not, every call works without it.

use crate::common::bridge;
use sandwire_harness::{Installation, Node, Place, Pod, Verb};
use std::process::Command;

const IMAGE: &str = "/var/lib/sandwire/active/image";
const BRIDGE: &str = "/opt/cni/bin/bridge";

/// For how many plugins there is one, of how many that can run.
fn used(node: &Node) -> Option<(usize, usize)> {
    let about = node.sh("env -i /opt/cni/bin/sandwire 2>&1").unwrap();
    let told = about.lines().find_map(|line| line.strip_prefix("memory image: ")).unwrap_or_else(|| panic!("{about}"));
    if told == "none" {
        return None;
    }
    let numbers: Vec<usize> = told.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert_eq!(told, format!("used for {} of {} plugins", numbers[0], numbers[1]));
    Some((numbers[0], numbers[1]))
}

fn is_used(node: &Node) -> bool {
    used(node).is_some_and(|(ready, all)| ready == all && all > 10)
}

fn add_and_del(node: &Node, pod: &Pod, what: &str) {
    let before = node.snapshot().unwrap();
    let add = node.cni("bridge", Verb::Add, pod, "eth0", &bridge()).unwrap();
    add.result().unwrap_or_else(|error| panic!("{what}: {error:#}"));
    node.cni("bridge", Verb::Check, pod, "eth0", &{
        let mut config = bridge();
        config["prevResult"] = add.result().unwrap();
        config
    })
    .unwrap()
    .done()
    .unwrap_or_else(|error| panic!("{what}: {error:#}"));
    let del = node.cni("bridge", Verb::Del, pod, "eth0", &bridge()).unwrap();
    del.done().unwrap_or_else(|error| panic!("{what}: {error:#}"));
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
}

fn sandwirectl(node: &Node, arguments: &[&str]) -> String {
    let mut command = Command::new(Installation::sandwirectl());
    command.args(arguments);
    let finished = node.run(&Place::Host, command, b"").unwrap();
    format!("{}{}", finished.stdout, finished.stderr)
}

/// A call under strace: what it answers, and its trace.
fn traced(node: &Node, pod: &Pod, options: &[&str]) -> (sandwire_harness::Finished, String) {
    let (call, stdin) = node.call("bridge", Verb::Add).pod(pod).ifname("eth0").config(&bridge()).command().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/mnt/trace"]).args(options).arg(BRIDGE);
    strace.env_clear().envs(call.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let finished = node.run(&Place::Host, strace, &stdin).unwrap();
    (finished, String::from_utf8(node.read("/mnt/trace").unwrap().unwrap()).unwrap())
}

/// Neither policy nor tables of a component are read again, and its code is mapped where the image has it.
#[test]
fn what_every_call_would_do_alike_is_done_before() {
    let node = Node::installed().unwrap();
    assert!(is_used(&node));
    let (finished, trace) = traced(&node, &node.pod("a").unwrap(), &[]);
    assert!(finished.status.success(), "{finished:?}");
    let opened = |what: &str| trace.lines().any(|line| line.contains("open") && line.contains(what));
    assert!(!opened("bridge.json") && !opened("host-local.json"), "{trace}");
    assert!(opened("\"bridge-") && opened("\"host-local-"), "{trace}");
    assert_eq!(trace.matches("mremap(").count(), 2, "{trace}");
    // Made executable by mapping it so: nothing was decoded at another place first.
    let executable: Vec<&str> = trace.lines().filter(|line| line.contains("PROT_EXEC")).collect();
    assert!(executable.len() == 2 && executable.iter().all(|line| line.contains("mmap(0x")), "{executable:?}");
    // Both were started before: their memories, which end with what nobody may touch, are mapped where they were then.
    let memories: Vec<&str> =
        trace.lines().filter(|line| line.contains("mmap(") && line.contains("PROT_NONE")).collect();
    assert!(memories.len() == 2 && memories.iter().all(|line| line.contains("mmap(0x")), "{memories:?}");
    // Nothing of them runs when they are started: an apply finds that out.
    for plugin in ["bridge", "host-local", "bagpipe", "dhcp"] {
        let grant = node.read(format!("/var/lib/sandwire/active/{plugin}.json")).unwrap().unwrap();
        let grant: serde_json::Value = serde_json::from_slice(&grant).unwrap();
        assert_eq!(grant["no_start"], true, "{plugin}");
    }
}

/// An image that is missing, damaged, of another program or not root's alone, or whose place is taken.
#[test]
fn without_a_good_one_calls_work() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    add_and_del(&node, &pod, "with");
    node.sh(&format!("cp -a {IMAGE} /mnt/kept")).unwrap();
    let byte = |at: usize| format!("printf x | dd of={IMAGE} bs=1 seek={at} conv=notrunc status=none");
    for change in [
        format!("rm {IMAGE}"),
        format!("truncate -s 0 {IMAGE}"),
        format!("truncate -s 100 {IMAGE}"),
        format!("truncate -s 100000 {IMAGE}"),
        format!("echo >> {IMAGE}"),
        // The format's name, and the build.
        byte(0),
        byte(8),
        byte(23),
        format!("chmod o+w {IMAGE}"),
        format!("chgrp 1000 {IMAGE}; chmod g+w {IMAGE}"),
        format!("chown 1000 {IMAGE}"),
        format!("rm {IMAGE}; ln -s /mnt/kept {IMAGE}"),
        format!("rm {IMAGE}; mkdir {IMAGE}"),
        format!("rm {IMAGE}; mkfifo {IMAGE}"),
        format!("cp /bin/true {IMAGE}"),
    ] {
        node.sh(&change).unwrap();
        assert!(!is_used(&node), "{change}");
        add_and_del(&node, &pod, &change);
        node.sh(&format!("rm -rf {IMAGE}; cp -a /mnt/kept {IMAGE}")).unwrap();
        assert!(is_used(&node), "{change}");
    }
    // What others can write is no place for one, and neither for the rest.
    node.sh("chmod o+w /var/lib/sandwire/active/").unwrap();
    assert!(!is_used(&node));
    let error = node.cni("bridge", Verb::Add, &pod, "eth0", &bridge()).unwrap().error().unwrap();
    assert_eq!(error.code, 113, "{error:?}");
}

/// A component's file, or a grant, that is not the one of then: each call reads what is there now.
#[test]
fn what_has_changed_since_is_read_again() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    for change in ["touch /var/lib/sandwire/active/bridge*", "touch /var/lib/sandwire/active/host-local*"] {
        node.sh(change).unwrap();
        add_and_del(&node, &pod, change);
    }
    let (ready, all) = used(&node).unwrap();
    assert_eq!(ready + 2, all);
    let told = sandwirectl(&node, &["doctor"]);
    assert!(told.contains(&format!("note  memory image: calls of 2 of {all} plugins")), "{told}");
    node.sh("sed -i 's/\"refused\": null/\"refused\": \"because\"/' /var/lib/sandwire/active/bridge.json").unwrap();
    let error = node.cni("bridge", Verb::Add, &pod, "eth0", &bridge()).unwrap().error().unwrap();
    assert!(error.text().contains("because"), "{error:?}");
}

/// Whatever the kernel refuses while it is mapped: without an image, or an error; never half of one.
#[test]
fn what_the_kernel_refuses_on_the_way() {
    let node = Node::installed().unwrap();
    let before = node.snapshot().unwrap();
    let mut number = 0;
    let mut add = |fault: &str| {
        number += 1;
        let pod = node.pod(&format!("pod{number}")).unwrap();
        let (finished, trace) = traced(&node, &pod, &["-e", &format!("inject={fault}")]);
        assert!(trace.contains("(INJECTED)"), "{fault}: {trace}");
        node.cni("bridge", Verb::Del, &pod, "eth0", &bridge()).unwrap().done().unwrap();
        finished
    };
    // Code and memory of both components, each of their parts.
    let parts = (7..=18).map(|number| format!("mmap:error=EEXIST:when={number}"));
    for fault in parts.chain(["mmap:error=ENOMEM:when=10", "mmap:error=ENOMEM:when=18"].map(str::to_owned)) {
        let finished = add(&fault);
        assert!(finished.status.success(), "{fault}: {finished:?}");
    }
    for fault in [
        "openat:error=EIO:when=1",
        "fstat:error=EIO:when=1",
        "fstat:error=EIO:when=2",
        "pread64:error=EIO:when=1",
        "pread64:retval=100:when=1",
        "mmap:error=ENOMEM:when=1",
        "mmap:error=EEXIST:when=1",
        "mmap:error=ENOMEM:when=2",
        "mmap:error=ENOMEM:when=3",
        "mmap:error=ENOMEM:when=4",
        // The number by which the first component's file is known.
        "fcntl:error=EMFILE:when=11",
    ] {
        let finished = add(fault);
        assert!(finished.status.success(), "{fault}: {finished:?}");
    }
    for fault in ["mremap:error=ENOMEM:when=1", "mremap:error=ENOMEM:when=2"] {
        let finished = add(fault);
        let error: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
        assert!(error["code"] == 116 && !finished.status.success(), "{fault}: {finished:?}");
    }
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
}

/// Without a limit of the stack the kernel maps from below upwards, and where descriptors are closed it gives their numbers away.
#[test]
fn wherever_the_caller_lets_things_be() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let used = node.sh("ulimit -s unlimited; env -i /opt/cni/bin/sandwire 2>&1").unwrap();
    assert!(used.contains("memory image: used"), "{used}");
    let (call, stdin) = node.call("bridge", Verb::Add).pod(&pod).ifname("eth0").config(&bridge()).command().unwrap();
    for limits in ["ulimit -s unlimited", "ulimit -v 400000", "ulimit -n 45"] {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{limits}; exec {BRIDGE}")]).env_clear();
        shell.envs(call.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let finished = node.run(&Place::Host, shell, &stdin).unwrap();
        assert!(finished.status.success(), "{limits}: {finished:?}");
        node.cni("bridge", Verb::Del, &pod, "eth0", &bridge()).unwrap().done().unwrap();
    }
    // Its directory would be standard input, and then nobody's.
    let closed =
        node.sh("env -i /opt/cni/bin/sandwire <&- 2>&1; env -i /opt/cni/bin/sandwire <&- >&- 2>/mnt/said").unwrap();
    assert!(closed.contains("memory image: none"), "{closed}");
}

/// `apply` and `install` make one and `rollback` too, unless policy says that there shall be none; `doctor` tells.
#[test]
fn it_is_made_with_each_generation() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    node.sh(&format!("rm {IMAGE}")).unwrap();
    let told = sandwirectl(&node, &["doctor"]);
    assert!(told.contains("note  memory image: ") && told.contains("run: sandwirectl apply"), "{told}");
    let told = sandwirectl(&node, &["apply"]);
    assert!(told.contains("nothing changed") && is_used(&node), "{told}");
    assert!(sandwirectl(&node, &["doctor"]).contains("ok    memory image: "));
    // Two are never at the same place.
    let base = |node: &Node| node.read(IMAGE).unwrap().unwrap()[24..32].to_vec();
    let place = base(&node);
    sandwirectl(&node, &["apply"]);
    assert_ne!(place, base(&node));

    let policy = String::from_utf8(node.read("/etc/sandwire/policy.toml").unwrap().unwrap()).unwrap();
    node.write("/etc/sandwire/policy.toml", policy.replacen("version = 1", "version = 1\nmemory_image = false", 1))
        .unwrap();
    let told = sandwirectl(&node, &["apply"]);
    assert!(!is_used(&node) && node.read(IMAGE).unwrap().is_none(), "{told}");
    add_and_del(&node, &pod, "policy wants none");
    let told = sandwirectl(&node, &["doctor"]);
    assert!(told.contains("ok    memory image: none, as policy says"), "{told}");
    node.write("/etc/sandwire/policy.toml", policy).unwrap();
    let told = sandwirectl(&node, &["rollback"]);
    assert!(is_used(&node), "{told}");
    add_and_del(&node, &pod, "rolled back");

    // A program that others can write is not run for it.
    node.sh("chmod o+w /opt/cni/bin/sandwire").unwrap();
    let told = sandwirectl(&node, &["apply"]);
    assert!(told.contains("there is no memory image") && told.contains("others than root"), "{told}");
    assert!(node.read(IMAGE).unwrap().is_none());
}

/// What is compiled of components fills tables when they are started for it: by then who writes it has nothing left that a call has not.
#[test]
fn who_writes_it_is_confined_like_a_call() {
    let node = Node::installed().unwrap();
    node.sh("strace -o /mnt/trace /opt/cni/bin/sandwire prepare /var/lib/sandwire/active").unwrap();
    let trace = String::from_utf8(node.read("/mnt/trace").unwrap().unwrap()).unwrap();
    let first = |what: &str| trace.find(what).unwrap_or_else(|| panic!("no {what}: {trace}"));
    for wall in
        ["landlock_restrict_self(", "effective=0, permitted=0", "PR_SET_NO_NEW_PRIVS", "SECCOMP_SET_MODE_FILTER"]
    {
        assert!(first(wall) < first(".cwasm\""), "{wall}: {trace}");
    }
    assert!(is_used(&node));
}

/// A component that would be large there is not started for it, and takes nothing from the others.
#[test]
fn what_would_be_large_in_it_is_not_started() {
    let node = Node::installed().unwrap();
    let size = |node: &Node| node.read(IMAGE).unwrap().unwrap().len();
    let (before, number) = (size(&node), used(&node).unwrap().1);
    let plugin = |module: &str, times: usize| {
        let instances = "(core instance (instantiate $m))".repeat(times);
        let text = format!(
            r#"(component
               (core module $code (func (export "f")))
               (core instance $code (instantiate $code))
               (func $f (canon lift (core func $code "f")))
               (component $attach (import "f" (func $f)) (export "add" (func $f)) (export "del" (func $f)))
               (instance $attach (instantiate $attach (with "f" (func $f))))
               (export "sandwire:cni/attach@0.1.0" (instance $attach))
               (core module $m {module}) {instances})"#
        );
        wat::parse_str(text).unwrap()
    };
    // Tables of 56 MB, one of 8 MB, more than there is room for in the image, functions in instances.
    let functions = format!("(table 5000 funcref) (elem declare func $f) (func $f) {}", "(func)".repeat(5000));
    let policy = String::from_utf8(node.read("/etc/sandwire/policy.toml").unwrap().unwrap()).unwrap();
    for (module, times) in [
        ("(table 100000 funcref)", 70),
        ("(table 1000000 funcref)", 1),
        ("(table 100000 funcref)", 99),
        (functions.as_str(), 90),
    ] {
        node.write("/usr/lib/sandwire/plugins/large.wasm", plugin(module, times)).unwrap();
        let digest = node.sh("sha256sum < /usr/lib/sandwire/plugins/large.wasm").unwrap();
        let digest = digest.split(' ').next().unwrap();
        node.write(
            "/etc/sandwire/policy.toml",
            format!("{policy}\n[plugins.large]\ncomponent = \"sha256:{digest}\"\nimports = []\n"),
        )
        .unwrap();
        let told = sandwirectl(&node, &["apply"]);
        assert_eq!(used(&node), Some((number + 1, number + 1)), "{told}");
        assert!(size(&node) < before + (1 << 20), "{} bytes: {told}", size(&node));
    }
}

/// Who asks the program for one gets it for a directory that is a generation of root's, or is told why not.
#[test]
fn asked_for_by_hand() {
    let node = Node::installed().unwrap();
    for (directory, wanted) in [
        ("/nowhere", "could not open /nowhere"),
        ("/etc/passwd", "could not open /etc/passwd"),
        ("/mnt/open", "lets others write it"),
    ] {
        node.sh("mkdir -p /mnt/open; chmod 777 /mnt/open").unwrap();
        let said = node.sh(&format!("/opt/cni/bin/sandwire prepare {directory} && exit 1; true")).unwrap();
        let error: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert!(error["msg"].as_str().unwrap().contains(wanted), "{directory}: {said}");
    }
    // Without addresses to be had there is none, and no crash.
    let said =
        node.sh("ulimit -v 60000; /opt/cni/bin/sandwire prepare /var/lib/sandwire/active && exit 1; true").unwrap();
    assert!(said.contains("no place of its own"), "{said}");
    // A full disk leaves nothing half written.
    node.sh("mkdir /mnt/full; mount -t tmpfs -o size=32m,mode=755 tmpfs /mnt/full; cp -a /var/lib/sandwire/active/. /mnt/full/; rm /mnt/full/image; fallocate -l 32m /mnt/full/filler 2>/dev/null || dd if=/dev/zero of=/mnt/full/filler status=none || true").unwrap();
    let said = node
        .sh("/opt/cni/bin/sandwire prepare /mnt/full && exit 1; ls -a /mnt/full | grep '^image' || true; umount /mnt/full")
        .unwrap();
    assert!(said.contains("No space left") && !said.lines().any(|line| line.starts_with("image")), "{said}");
}
