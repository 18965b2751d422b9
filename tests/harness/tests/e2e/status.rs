//! STATUS: what a delegate says is what the runtime hears; what the host and the kernel lack is named.

use crate::common::{bridge, mynet};
use sandwire_harness::Place;
use sandwire_harness::agent::Agent;
use sandwire_harness::{Node, OURS, Outcome, Verb};
use serde_json::Value;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A native address manager that answers STATUS with `answer`.
fn delegate(node: &Node, answer: &str) {
    let script = format!(
        "#!/bin/sh\n[ \"$CNI_COMMAND\" = STATUS ] || exit 7\n[ -z '{answer}' ] && exit 0\necho '{answer}'; exit 1\n"
    );
    node.write("/mnt/ready/dhcp", script).unwrap();
    node.sh("chmod 755 /mnt/ready/dhcp").unwrap();
}

fn status(node: &Node, config: &Value) -> Outcome {
    let mut config = config.clone();
    config["cniVersion"] = "1.1.0".into();
    config["ipam"] = serde_json::json!({"type": "dhcp"});
    let program = format!("{OURS}/{}", config["type"].as_str().unwrap());
    node.call("dhcp", Verb::Status).config(&config).program(program).path("/mnt/ready").run().unwrap()
}

#[test]
fn a_delegate_that_is_not_ready() {
    let node = Node::installed().unwrap();
    let _agent = Agent::tcp(&node, "127.0.0.1:8082").unwrap();
    let before = node.snapshot().unwrap();
    for config in [bridge(), mynet()] {
        let kind = &config["type"];
        delegate(&node, "");
        status(&node, &config).done().unwrap();
        for (code, text) in [(50, "the lease daemon is down"), (51, "half of it"), (123, "it is me")] {
            delegate(&node, &format!(r#"{{"code": {code}, "msg": "{text}", "details": "since noon"}}"#));
            let error = status(&node, &config).error_with(code, text).unwrap();
            assert_eq!((error.msg.as_str(), error.details.as_str()), (text, "since noon"), "{kind}");
        }
        // What it is not is an answer.
        delegate(&node, "no JSON");
        status(&node, &config).error().unwrap();
    }
    node.sh("rm /mnt/ready/dhcp").unwrap();
    let error = status(&node, &bridge()).error().unwrap();
    assert!(error.text().contains("dhcp") && error.text().contains("/mnt/ready"), "{error:?}");
    node.sh("rmdir /mnt/ready").unwrap();
    node.snapshot().unwrap().assert_unchanged(&before).unwrap();
}

/// What keeps the host itself from running the plugin comes before what the plugin would say.
#[test]
fn the_host_comes_first() {
    let node = Node::installed().unwrap();
    let mut config = bridge();
    config["cniVersion"] = "1.1.0".into();
    config["ipam"] = serde_json::json!({"type": "host-local", "subnet": "10.1.2.0/30"});
    let status = || node.call("bridge", Verb::Status).config(&config).run().unwrap();
    status().done().unwrap();
    node.sh("printf 'x\\r\\neth0' | install -D /dev/stdin /var/lib/cni/networks/mynet/10.1.2.2").unwrap();
    status().error_with(50, "0 of 1 addresses are free").unwrap();
    node.sh("chmod 666 /var/lib/sandwire/active/bridge.json").unwrap();
    let error = status().error().unwrap();
    assert!(error.text().contains("can't be trusted"), "{error:?}");
}

/// On a kernel without nfnetlink `socket` answers EPROTONOSUPPORT (`netlink_create`). A seccomp filter answers so for it.
#[allow(unsafe_code)]
fn without_nfnetlink(command: &mut Command) {
    let load = |at| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: at };
    let unless = |value, skip| libc::sock_filter { code: 0x15, jt: 0, jf: skip, k: value };
    let answer = |value| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: value };
    // struct seccomp_data: the call's number at 0, arguments of 8 bytes from 16 on.
    let mut filter = [
        load(0),
        unless(libc::SYS_socket as u32, 5),
        load(16),
        unless(libc::AF_NETLINK as u32, 3),
        load(32),
        unless(libc::NETLINK_NETFILTER as u32, 1),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPROTONOSUPPORT as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: one system call, whose program lives until it returns.
        match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: async-signal-safe, between fork and exec.
    unsafe { command.pre_exec(install) };
}

#[test]
fn a_kernel_without_nftables() {
    let node = Node::installed().unwrap();
    let _agent = Agent::tcp(&node, "127.0.0.1:8082").unwrap();
    let before = node.snapshot().unwrap();
    let status = |config: &Value, lacking: bool| {
        let mut config = config.clone();
        config["cniVersion"] = "1.1.0".into();
        let call = node.call(config["type"].as_str().unwrap(), Verb::Status).config(&config);
        let (mut command, stdin) = call.command().unwrap();
        if lacking {
            without_nfnetlink(&mut command);
        }
        let run = node.run(&Place::Host, command, &stdin).unwrap();
        Outcome { exit: run.status.code(), stdout: run.stdout, stderr: run.stderr, duration: run.duration }
    };
    for (mut config, key) in [(bridge(), "ipMasq"), (bridge(), "macspoofchk"), (mynet(), "ipMasq")] {
        config["macspoofchk"] = false.into();
        config["ipMasq"] = false.into();
        // What needs no rules is not asked for them.
        status(&config, true).done().unwrap();
        config[key] = true.into();
        status(&config, false).done().unwrap();
        let error = status(&config, true).error_with(50, &format!("{key} is not possible here")).unwrap();
        assert!(
            error.details.contains("nftables") && error.details.contains(&format!("\"{key}\": false")),
            "{error:?}"
        );
    }
    node.snapshot().unwrap().assert_unchanged(&before).unwrap();
}
