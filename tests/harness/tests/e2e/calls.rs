//! What holds for every call, whatever the plugin: it may be killed, run beside others, see standard output closed; and a
//! component never runs with the privilege that the call began with.

use crate::common::{BRIDGE, bridge, mynet};
use sandwire_harness::agent::{Agent, Mode};
use sandwire_harness::{Node, Place, Pod, Verb};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An ADD that waits for its agent, which has got its call.
pub(crate) fn hanging_add(node: &Node, pod: &Pod, agent: &Agent) -> Child {
    agent.set(Mode::HangOnPost).unwrap();
    agent.take_calls();
    let (command, stdin) = node.call("bagpipe", Verb::Add).pod(pod).ifname("eth0").config(&mynet()).command().unwrap();
    let mut child = node.spawn(&Place::Host, command).unwrap();
    child.stdin.take().unwrap().write_all(&stdin).unwrap();
    let started = Instant::now();
    let mut calls = Vec::new();
    while !calls.iter().any(|path| path == "/attach_localport") {
        calls.extend(agent.take_calls().into_iter().map(|call| call.path));
        assert!(started.elapsed() < Duration::from_secs(10), "the agent gets no call to attach: {calls:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

pub(crate) fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success());
}

/// A runtime that gives up sends SIGTERM: the call undoes what it did and says so.
#[test]
fn terminated() {
    for name in ["TERM", "INT"] {
        let node = Node::installed().unwrap();
        let pod = node.pod("a").unwrap();
        let agent = Agent::tcp(&node, "127.0.0.1:8082").unwrap();
        let before = node.snapshot().unwrap();
        let child = hanging_add(&node, &pod, &agent);
        signal(&child, name);
        // What takes the attachment back may wait for the agent as long as any call to it.
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}: {text} {output:?}"));
        assert!(
            output.status.code() == Some(1) && error["code"].is_u64() && error["msg"].is_string(),
            "{name}: {error}"
        );
        node.snapshot().unwrap().assert_only_undo_left(&before).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        agent.set(Mode::Ok).unwrap();
        node.cni("bagpipe", Verb::Del, &pod, "eth0", &mynet()).unwrap().done().unwrap();
        node.snapshot().unwrap().assert_same_attachments(&before).unwrap_or_else(|e| panic!("{name}: {e:#}"));
    }
}

/// SIGKILL leaves everything where it was; the DEL that a runtime sends after any failed ADD finds it, without a result.
#[test]
fn killed() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let agent = Agent::tcp(&node, "127.0.0.1:8082").unwrap();
    let before = node.snapshot().unwrap();
    let mut child = hanging_add(&node, &pod, &agent);
    signal(&child, "KILL");
    child.wait().unwrap();
    let left = node.snapshot().unwrap().attachments_since(&before);
    assert!(left.iter().any(|line| line.contains("link")), "it had made a link by then: {left:?}");
    agent.set(Mode::Ok).unwrap();
    node.cni("bagpipe", Verb::Del, &pod, "eth0", &mynet()).unwrap().done().unwrap();
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
    assert!(agent.attached().is_empty());
}

/// The very first pods of a node come all at once: one bridge, no address twice, nothing lost, and all of it goes again.
#[test]
fn many_at_once() {
    const PODS: usize = 24;
    let node = Node::installed().unwrap();
    let mut config = bridge();
    config["ipMasq"] = true.into();
    let pods: Vec<Pod> = (0..PODS).map(|i| node.pod(&format!("p{i}")).unwrap()).collect();
    let before = node.snapshot().unwrap();
    let all = |verb: Verb| -> Vec<sandwire_harness::Outcome> {
        let (node, config) = (&node, &config);
        std::thread::scope(|scope| {
            let threads: Vec<_> = pods
                .iter()
                .map(|pod| scope.spawn(move || node.cni("bridge", verb, pod, "eth0", config).unwrap()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    };
    let mut addresses = BTreeSet::new();
    for outcome in all(Verb::Add) {
        let result = outcome.result().unwrap();
        assert!(addresses.insert(result["ips"][0]["address"].as_str().unwrap().to_owned()), "{addresses:?}");
    }
    for pod in &pods {
        node.sh_at(&pod.place(), "ping -c 1 -W 5 10.1.2.1").unwrap();
    }
    all(Verb::Del).iter().for_each(|outcome| outcome.done().unwrap());
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
}

/// Two interfaces of one pod, in one network and in two.
#[test]
fn two_interfaces_of_one_pod() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let before = node.snapshot().unwrap();
    let mut other = bridge();
    other["name"] = "other".into();
    other["bridge"] = "cni1".into();
    other["ipam"]["subnet"] = "10.9.9.0/24".into();
    other["ipam"]["routes"] = serde_json::json!([]);
    let mut plain = bridge();
    plain["ipam"]["routes"] = serde_json::json!([]);
    for (ifname, config, address) in
        [("eth0", &plain, "10.1.2.2/24"), ("eth1", &plain, "10.1.2.3/24"), ("net1", &other, "10.9.9.2/24")]
    {
        let result = node.cni("bridge", Verb::Add, &pod, ifname, config).unwrap().result().unwrap();
        assert_eq!(result["ips"][0]["address"], address);
    }
    // One goes, the others stay.
    node.cni("bridge", Verb::Del, &pod, "eth0", &plain).unwrap().done().unwrap();
    node.sh_at(
        &pod.place(),
        "! ip link show eth0 2>/dev/null; ip link show eth1; ping -c 1 -W 5 10.9.9.1; ping -c 1 -W 5 10.1.2.1",
    )
    .unwrap();
    node.cni("bridge", Verb::Del, &pod, "eth1", &plain).unwrap().done().unwrap();
    node.cni("bridge", Verb::Del, &pod, "net1", &other).unwrap().done().unwrap();
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
}

/// After a reboot the journal is empty and the leases are there: DEL and ADD with the same identity work.
#[test]
fn after_a_reboot() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let before = node.snapshot().unwrap();
    node.cni("bridge", Verb::Add, &pod, "eth0", &bridge()).unwrap().result().unwrap();
    pod.drop_netns(&node).unwrap();
    // The pod's veth goes with its namespace, when the kernel gets to it.
    node.sh("rm -rf /run/sandwire; ip link del cni0; for i in $(seq 100); do ip -o link | grep -q veth || exit 0; sleep 0.1; done; exit 1").unwrap();
    pod.make_netns(&node).unwrap();
    node.cni("bridge", Verb::Del, &pod, "eth0", &bridge()).unwrap().done().unwrap();
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
    node.cni("bridge", Verb::Add, &pod, "eth0", &bridge()).unwrap().result().unwrap();
    node.cni("bridge", Verb::Del, &pod, "eth0", &bridge()).unwrap().done().unwrap();
}

/// A result that nobody can read is a failed ADD: the runtime knows nothing of what was made.
#[test]
fn standard_output_closed() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let before = node.snapshot().unwrap();
    let (mut command, stdin) =
        node.call("bridge", Verb::Add).pod(&pod).ifname("eth0").config(&bridge()).command().unwrap();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = node.within(move || command.spawn()).unwrap().unwrap();
    drop(child.stdout.take());
    child.stdin.take().unwrap().write_all(&stdin).unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("the result could not be written to stdout; Broken pipe"), "{stderr}");
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
    // A disk that is full: nobody calls DEL, and the next ADD goes well.
    node.write("/mnt/config", bridge().to_string()).unwrap();
    let path = pod.netns.to_str().unwrap();
    let text = node
        .sh(&format!(
            "export CNI_COMMAND=ADD CNI_CONTAINERID=pod-a CNI_NETNS={path} CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin;
            /opt/cni/bin/bridge </mnt/config 2>&1 >/dev/full && exit 9; true"
        ))
        .unwrap();
    assert!(text.contains("ENOSPC") || text.contains("No space left"), "{text}");
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
    node.cni("bridge", Verb::Add, &pod, "eth0", &bridge()).unwrap().result().unwrap();
}

/// Whoever calls may have closed some: no file that is opened may get such a number, or it would get the answer too.
#[test]
fn standard_descriptors_that_are_closed() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let before = node.snapshot().unwrap();
    node.write("/mnt/config", bridge().to_string()).unwrap();
    let path = pod.netns.to_str().unwrap();
    let call = |verb: &str, files: &str| {
        node.sh(&format!(
            "export CNI_COMMAND={verb} CNI_CONTAINERID=pod-a CNI_NETNS={path} CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin;
            status=0; /opt/cni/bin/bridge {files} || status=$?; echo \"exit $status\""
        ))
        .unwrap()
    };
    for files in ["<&-", "2>&-", "<&- 2>&-"] {
        let text = call("VERSION", files);
        assert!(text.contains("supportedVersions") && text.contains("exit 0"), "{files}: {text}");
    }
    let text = call("ADD", "<&-");
    assert!(text.contains("\"code\": 6") && text.contains("exit 1"), "{text}");
    for files in ["</mnt/config 2>&-", "</mnt/config >&-", "</mnt/config >&- 2>&-"] {
        let text = call("ADD", files);
        let is_heard = !files.contains("g >&-");
        assert!(text.contains("exit 0") && text.contains("interfaces") == is_heard, "{files}: {text}");
        // An answer is printed over several lines, and nothing else is.
        assert_eq!(
            node.sh("grep -rlx '{' /run/sandwire /var/lib/cni /var/lib/sandwire/leases || true").unwrap(),
            "",
            "{files}"
        );
        let text = call("DEL", files);
        assert!(text.contains("exit 0"), "{files}: {text}");
        node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
    }
}

/// Rootless runtimes: what is wrong there is not who owns a file.
#[test]
fn in_a_user_namespace() {
    let node = Node::installed().unwrap();
    let text = node
        .sh("export CNI_COMMAND=ADD CNI_CONTAINERID=a CNI_NETNS=/proc/1/ns/net CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin
            echo '{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"type\":\"bridge\"}' >/mnt/config; chmod 644 /mnt/config; chmod 755 /mnt
            setpriv --reuid 65533 --regid 65533 --clear-groups unshare --user --map-root-user /opt/cni/bin/bridge </mnt/config || true")
        .unwrap();
    let error: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(error["code"], 113, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("runs in a user namespace"), "{error}");
}

/// A limit of the runtime's is no fault of the plugin.
#[test]
fn too_little_memory() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let before = node.snapshot().unwrap();
    for kib in [20_000, 50_000, 100_000] {
        let call = node.call("bridge", Verb::Add).pod(&pod).ifname("eth0").config(&bridge());
        let (command, stdin) = call.command().unwrap();
        let mut limited = Command::new("/bin/sh");
        limited.args(["-c", &format!("ulimit -v {kib}; exec \"$0\"")]).arg(command.get_program());
        limited.env_clear().envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let done = node.run(&Place::Host, limited, &stdin).unwrap();
        let error: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{kib}: {e}: {done:?}"));
        assert_eq!(error["code"], 116, "{kib}: {error}");
        assert!(error["details"].as_str().unwrap().contains("ulimit -v"), "{kib}: {error}");
        node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
    }
}

/// A runtime that keeps the pipe and reads no more: nobody else has to wait for its call, and that ends some time after its
/// deadline.
#[test]
fn standard_output_full() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let grant = "/var/lib/sandwire/active/bridge.json";
    node.sh(&format!("sed -i -E 's/\"deadline_ms\": *[0-9]+/\"deadline_ms\":8000/' {grant}; grep -q :8000 {grant}"))
        .unwrap();
    let before = node.snapshot().unwrap();
    let (command, stdin) = node.call("bridge", Verb::Add).pod(&pod).ifname("eth0").config(&bridge()).command().unwrap();
    let mut add = node.spawn(&Place::Host, command).unwrap();
    // Through /proc it is another open file: not blocking for us only.
    let mut full = OpenOptions::new();
    full.write(true).custom_flags(libc::O_NONBLOCK);
    let mut full = full.open(format!("/proc/{}/fd/1", add.id())).unwrap();
    while full.write(&[b' '; 4096]).is_ok() {}
    drop(full);
    add.stdin.take().unwrap().write_all(&stdin).unwrap();
    let started = Instant::now();
    while node.sh("grep -rqs '\"commit\"' /run/sandwire/journal/networks").is_err() {
        assert!(started.elapsed() < Duration::from_secs(7), "the ADD does not get to its end");
        std::thread::sleep(Duration::from_millis(5));
    }
    node.cni("bridge", Verb::Del, &pod, "eth0", &bridge()).unwrap().done().unwrap();
    assert!(started.elapsed() < Duration::from_secs(8) && add.try_wait().unwrap().is_none(), "the ADD has ended");
    let ended = loop {
        if let Some(status) = add.try_wait().unwrap() {
            break status;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "the ADD does not end");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(ended.code(), Some(1));
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
}

/// Nothing of a component is executable before no_new_privs is set, capabilities are dropped, and both walls are raised.
#[test]
fn privilege_goes_before_the_component_comes() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let (call, stdin) = node.call("bridge", Verb::Add).pod(&pod).ifname("eth0").config(&bridge()).command().unwrap();
    let mut strace = Command::new("strace");
    strace.args([
        "-f",
        "-y",
        "-o",
        "/mnt/trace",
        "-e",
        "trace=mmap,mprotect,prctl,capset,execve,seccomp,landlock_restrict_self",
        BRIDGE,
    ]);
    strace.env_clear().envs(call.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let finished = node.run(&Place::Host, strace, &stdin).unwrap();
    assert!(finished.status.success(), "{finished:?}");
    let trace = String::from_utf8(node.read("/mnt/trace").unwrap().unwrap()).unwrap();
    let first = |what: &str| {
        trace.lines().position(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what} in\n{trace}"))
    };
    let executable = first("PROT_EXEC");
    assert!(first("PR_SET_NO_NEW_PRIVS, 1") < executable && first("capset(") < executable, "{trace}");
    for wall in ["landlock_restrict_self(", "seccomp(SECCOMP_SET_MODE_FILTER"] {
        let raised = first(wall);
        assert!(raised < executable && trace.lines().nth(raised).unwrap().ends_with(" = 0"), "{trace}");
    }
    assert!(
        trace.lines().nth(executable).unwrap().contains("/var/lib/sandwire/generations/")
            || trace.contains("mprotect("),
        "{trace}"
    );
    // One process image: nothing was executed on the way.
    assert_eq!(trace.matches("execve(").count(), 1, "{trace}");
}

/// Kernels before 5.13, and nodes that are containers themselves, have no Landlock or no filters to give: pods are attached all the
/// same. Where the kernel has a wall and it can't be raised, nothing runs.
#[test]
fn without_walls_it_goes_on_and_with_half_a_wall_it_does_not() {
    let node = Node::installed().unwrap();
    let before = node.snapshot().unwrap();
    let traced = |verb, pod: &Pod, faults: &[&str]| {
        let (call, stdin) = node.call("bridge", verb).pod(pod).ifname("eth0").config(&bridge()).command().unwrap();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o", "/dev/null"]);
        for fault in faults {
            strace.args(["-e", &format!("inject={fault}")]);
        }
        strace.arg(BRIDGE).env_clear().envs(call.get_envs().filter_map(|(key, value)| Some((key, value?))));
        node.run(&Place::Host, strace, &stdin).unwrap()
    };
    for (n, faults) in [
        ["landlock_create_ruleset:error=ENOSYS", "seccomp:error=ENOSYS"],
        ["landlock_create_ruleset:error=EOPNOTSUPP", "seccomp:error=EINVAL"],
        ["landlock_create_ruleset:error=EPERM", "seccomp:error=EPERM"],
    ]
    .into_iter()
    .enumerate()
    {
        let pod = node.pod(&format!("pod{n}")).unwrap();
        for verb in [Verb::Add, Verb::Del] {
            let done = traced(verb, &pod, &faults);
            assert!(done.status.success(), "{faults:?}: {done:?}");
        }
        node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
    }
    let pod = node.pod("half").unwrap();
    for fault in ["landlock_restrict_self:error=E2BIG", "landlock_add_rule:error=ENOMEM", "seccomp:error=ENOMEM:when=1"]
    {
        let done = traced(Verb::Add, &pod, &[fault]);
        assert!(done.stdout.contains("could not confine this process") && !done.status.success(), "{fault}: {done:?}");
    }
    node.snapshot().unwrap().assert_same_attachments(&before).unwrap();
}
