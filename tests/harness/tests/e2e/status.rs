//! STATUS of plugins that have a delegate: what that says is what the runtime hears.

use crate::common::{bridge, mynet};
use sandwire_harness::agent::Agent;
use sandwire_harness::{Node, OURS, Outcome, Verb};
use serde_json::Value;

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
