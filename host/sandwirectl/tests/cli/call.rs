//! `call`, against plugins that write down what they were given.

use crate::node::Desk;
use serde_json::{Value, json};

/// Writes its name, its environment and its input to /mnt/seen, answers ADD with a result; `TYPE-bad` fails.
const PLUGIN: &str = r#"#!/bin/sh
{ echo "$(basename "$0") $CNI_COMMAND id=$CNI_CONTAINERID if=$CNI_IFNAME netns=$CNI_NETNS args=$CNI_ARGS stray=$STRAY"; cat; echo; } >> /mnt/seen
case "$0" in *bad) echo '{"code": 77, "msg": "no"}'; exit 1;; esac
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}], "by": "'$(basename "$0")'"}'
"#;

fn desk() -> Desk {
    let desk = Desk { node: sandwire_harness::Node::new().unwrap() };
    for kind in ["one", "two", "bad"] {
        desk.node.write(format!("/opt/cni/bin/{kind}"), PLUGIN).unwrap();
    }
    desk.node.sh("chmod 755 /opt/cni/bin/*").unwrap();
    let list = json!({"cniVersion": "1.1.0", "name": "n", "plugins": [{"type": "one", "capabilities": {"ips": true}}, {"type": "two"}]});
    desk.node.write("/mnt/n.conflist", list.to_string()).unwrap();
    desk
}

/// What the plugins saw since the last look: first lines and inputs.
fn seen(desk: &Desk) -> Vec<(String, Value)> {
    let text = desk.node.sh("cat /mnt/seen 2>/dev/null; rm -f /mnt/seen").unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    lines.chunks(2).map(|pair| (pair[0].to_owned(), serde_json::from_str(pair[1]).unwrap())).collect()
}

const LIST: [&str; 6] = ["--network", "/mnt/n.conflist", "--container-id", "c1", "--netns", "blue"];

fn call(desk: &Desk, verb: &str, more: &[&str]) -> crate::node::Said {
    desk.run(&[&["call", verb], &LIST[..], more].concat())
}

#[test]
fn a_list_is_run_as_libcni_runs_it() {
    let desk = desk();
    let said =
        call(&desk, "add", &["--args", "A=1;B=2", "--runtime-config", r#"{"ips": ["10.0.0.2"], "mac": "x"}"#]).good();
    let result: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(result["by"], "two");
    let calls = seen(&desk);
    assert_eq!(calls[0].0, "one ADD id=c1 if=eth0 netns=/run/netns/blue args=A=1;B=2 stray=");
    assert_eq!(calls[0].1["runtimeConfig"], json!({"ips": ["10.0.0.2"]}));
    assert!(calls[0].1.get("prevResult").is_none());
    assert_eq!(calls[1].1["prevResult"]["by"], "one");
    assert!(calls[1].1.get("runtimeConfig").is_none(), "it has no such capability");

    let kept: Value = serde_json::from_str(&desk.text("/var/lib/cni/results/n-c1-eth0")).unwrap();
    assert_eq!(
        (&kept["kind"], &kept["netns"], &kept["cniArgs"], &kept["result"]["by"]),
        (&json!("cniCacheV1"), &json!("/run/netns/blue"), &json!([["A", "1"], ["B", "2"]]), &json!("two"))
    );

    call(&desk, "check", &[]).good();
    assert_eq!(
        seen(&desk).iter().map(|(_, input)| input["prevResult"]["by"].clone()).collect::<Vec<_>>(),
        ["two", "two"]
    );
    call(&desk, "del", &[]).good();
    let calls = seen(&desk);
    assert!(calls[0].0.starts_with("two DEL") && calls[1].0.starts_with("one DEL"), "{calls:?}");
    assert!(calls.iter().all(|(_, input)| input["prevResult"]["by"] == "two"), "{calls:?}");
    assert!(!crate::node::exists(&desk, "/var/lib/cni/results/n-c1-eth0"));
    call(&desk, "del", &[]).good();
    assert!(seen(&desk).iter().all(|(_, input)| input.get("prevResult").is_none()));
}

#[test]
fn a_failing_plugin_ends_the_call_with_its_error() {
    let desk = desk();
    desk.node
        .write(
            "/mnt/n.conflist",
            json!({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bad"}, {"type": "one"}]}).to_string(),
        )
        .unwrap();
    let said = call(&desk, "add", &[]);
    assert_eq!((said.code, serde_json::from_str::<Value>(&said.out).unwrap()["code"].clone()), (1, json!(77)));
    assert_eq!(seen(&desk).len(), 1);
    assert!(!crate::node::exists(&desk, "/var/lib/cni/results/n-c1-eth0"));
    let said = call(&desk, "status", &["--path", "/nowhere"]).bad();
    assert!(said.contains("failed to find plugin \"bad\" in path [/nowhere]"), "{said}");
    let said = desk.run(&["call", "add", "--network", "/mnt/n.conflist", "--netns", "blue"]).bad();
    assert!(said.contains("--container-id"), "{said}");
    let said = desk.run(&["call", "add", "--network", "/mnt/n.conflist", "--container-id", "c"]).bad();
    assert!(said.contains("--netns"), "{said}");
    assert_eq!(desk.run(&["call", "frobnicate"]).code, 2);
}

#[test]
fn gc_says_what_is_to_be_kept_and_detaches_the_rest() {
    let desk = desk();
    for id in ["c1", "c2"] {
        desk.run(&["call", "add", "--network", "/mnt/n.conflist", "--container-id", id, "--netns", "x"]).good();
    }
    seen(&desk);
    desk.run(&["call", "gc", "--network", "/mnt/n.conflist"]).good();
    let calls = seen(&desk);
    assert!(
        calls.len() == 2 && calls.iter().all(|(_, input)| input.get("cni.dev/valid-attachments").is_none()),
        "{calls:?}"
    );
    desk.run(&["call", "gc", "--network", "/mnt/n.conflist", "--keep", "c1/eth0"]).good();
    let calls = seen(&desk);
    let order: Vec<&str> = calls.iter().map(|(line, _)| line.split(" if").next().unwrap()).collect();
    assert_eq!(order, ["two DEL id=c2", "one DEL id=c2", "one GC id=", "two GC id="]);
    let valid = json!([{"containerID": "c1", "ifname": "eth0"}]);
    assert_eq!(calls[2].1["cni.dev/valid-attachments"], valid);
    assert_eq!(calls[2].1["cni.dev/attachments"], valid);
    assert!(crate::node::exists(&desk, "/var/lib/cni/results/n-c1-eth0"));
    desk.run(&["call", "gc", "--network", "/mnt/n.conflist", "--keep-none"]).good();
    assert_eq!(seen(&desk).last().unwrap().1["cni.dev/valid-attachments"], json!([]));
    assert!(!crate::node::exists(&desk, "/var/lib/cni/results/n-c1-eth0"));
}
