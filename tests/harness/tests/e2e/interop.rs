//! Ours and the reference plugins on one node: as each other's delegates, on each other's state, at the same time.

use crate::common::{Bench, bridge};
use sandwire_harness::{NATIVE, Node, OURS, Outcome, Place, Pod, Verb};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn bench() -> Bench {
    Bench::new("")
}

/// A call of `program`, whose delegates are looked up in `path`.
fn call(bench: &Bench, program: &str, path: &str, verb: Verb, prev: Option<&Value>) -> Outcome {
    let mut config = bridge();
    if let Some(prev) = prev {
        config["prevResult"] = prev.clone();
    }
    let call = bench.node.call("bridge", verb).pod(&bench.pod).ifname("eth0").config(&config);
    call.program(program).path(path).run().unwrap()
}

/// ADD, CHECK, ping of the gateway, DEL, DEL: whatever was mixed, it works and nothing is left.
fn life(bench: &Bench, program: &str, path: &str) {
    let result = call(bench, program, path, Verb::Add, None).result().unwrap();
    assert_eq!(result["ips"][0]["address"], "10.1.2.2/24", "{result}");
    let lease = bench.node.read("/var/lib/cni/networks/mynet/10.1.2.2").unwrap();
    assert_eq!(lease.as_deref(), Some(&b"pod-a\r\neth0"[..]));
    bench.node.sh_at(&bench.pod.place(), "ping -c 1 -W 5 10.1.2.1").unwrap();
    call(bench, program, path, Verb::Check, Some(&result)).done().unwrap();
    call(bench, program, path, Verb::Del, Some(&result)).done().unwrap();
    call(bench, program, path, Verb::Del, None).done().unwrap();
    bench.nothing_left();
}

/// A folder of CNI_PATH with nothing but host-local from `folder`, so that it is clear who runs.
fn only_host_local(node: &Node, folder: &str) -> String {
    node.sh(&format!("mkdir /mnt/only && ln -s {folder}/host-local /mnt/only/host-local")).unwrap();
    "/mnt/only".into()
}

#[test]
fn our_bridge_with_native_host_local() {
    let bench = bench();
    let path = only_host_local(&bench.node, NATIVE);
    life(&bench, &format!("{OURS}/bridge"), &path);
}

#[test]
fn native_bridge_with_our_host_local() {
    let bench = bench();
    let path = only_host_local(&bench.node, OURS);
    life(&bench, &format!("{NATIVE}/bridge"), &path);
}

#[test]
fn the_first_folder_of_cni_path_decides() {
    let bench = bench();
    // A host-local that can't be mistaken for another.
    bench
        .node
        .write(
            "/mnt/marked/host-local",
            "#!/bin/sh\n[ $CNI_COMMAND = DEL ] && exit 0\necho '{\"code\": 123, \"msg\": \"it is me\"}'; exit 1\n",
        )
        .unwrap();
    bench.node.sh("chmod 755 /mnt/marked/host-local").unwrap();
    let ours = format!("{OURS}/bridge");
    call(&bench, &ours, &format!("/mnt/marked:{OURS}"), Verb::Add, None).error_with(123, "it is me").unwrap();
    bench.nothing_left();
    call(&bench, &ours, &format!("/nowhere:{OURS}:/mnt/marked"), Verb::Add, None).result().unwrap();
}

#[test]
fn native_add_then_our_del() {
    let bench = bench();
    for masquerade in [false, true] {
        let mut config = bridge();
        config["ipMasq"] = masquerade.into();
        let base = |verb| bench.node.call("bridge", verb).pod(&bench.pod).ifname("eth0");
        let result = base(Verb::Add).native().config(&config).run().unwrap().result().unwrap();
        let rules = bench.node.sh("iptables-save -t nat").unwrap();
        assert_eq!(rules.contains("-s 10.1.2."), masquerade, "{rules}");
        config["prevResult"] = result.clone();
        base(Verb::Check).config(&config).run().unwrap().done().unwrap();
        base(Verb::Del).config(&config).run().unwrap().done().unwrap();
        bench.nothing_left();
    }
}

/// A point-to-point network, with masquerading or without.
fn ptp(masquerade: bool) -> Value {
    json!({"cniVersion": "1.0.0", "name": "mynet", "type": "ptp", "ipMasq": masquerade,
        "ipam": {"type": "host-local", "subnet": "10.1.2.0/24", "routes": [{"dst": "0.0.0.0/0"}]}})
}

#[test]
fn native_ptp_then_ours() {
    let bench = bench();
    for (masquerade, gone) in [(false, false), (true, false), (true, true)] {
        let mut config = ptp(masquerade);
        let base = |verb| bench.node.call("ptp", verb).pod(&bench.pod).ifname("eth0");
        let result = base(Verb::Add).native().config(&config).run().unwrap().result().unwrap();
        let rules = bench.node.sh("iptables-save -t nat").unwrap();
        assert_eq!(rules.contains("-s 10.1.2."), masquerade, "{rules}");
        config["prevResult"] = result.clone();
        base(Verb::Check).config(&config).run().unwrap().done().unwrap();
        if gone {
            bench.pod.drop_netns(&bench.node).unwrap();
            bench.node.sh(UNTIL_THE_VETH_IS_GONE).unwrap();
        }
        base(Verb::Del).config(&config).run().unwrap().done().unwrap();
        bench.nothing_left();
    }
}

/// The kernel takes what was in a namespace when it gets to it (cleanup_net).
const UNTIL_THE_VETH_IS_GONE: &str =
    "for i in $(seq 200); do ip -br link | grep -q ^veth || exit 0; sleep 0.05; done; exit 1";

/// What a native plugin attached and nobody deleted: lease and rules go with the GC that does not list it.
#[test]
fn native_ptp_then_our_gc() {
    let bench = bench();
    let mut config = ptp(true);
    bench
        .node
        .call("ptp", Verb::Add)
        .pod(&bench.pod)
        .ifname("eth0")
        .native()
        .config(&config)
        .run()
        .unwrap()
        .result()
        .unwrap();
    bench.pod.drop_netns(&bench.node).unwrap();
    bench.node.sh(UNTIL_THE_VETH_IS_GONE).unwrap();
    config["cniVersion"] = "1.1.0".into();
    let gc = |valid: Value| {
        let mut config = config.clone();
        config["cni.dev/valid-attachments"] = valid;
        bench.node.call("ptp", Verb::Gc).config(&config).run().unwrap().done().unwrap();
    };
    gc(json!([{"containerID": bench.pod.id, "ifname": "eth0"}]));
    assert!(bench.node.read("/var/lib/cni/networks/mynet/10.1.2.2").unwrap().is_some());
    gc(json!([]));
    bench.nothing_left();
}

#[test]
fn our_ptp_then_native() {
    let bench = bench();
    for masquerade in [false, true] {
        let mut config = ptp(masquerade);
        let base = |verb| bench.node.call("ptp", verb).pod(&bench.pod).ifname("eth0");
        let result = base(Verb::Add).config(&config).run().unwrap().result().unwrap();
        config["prevResult"] = result.clone();
        base(Verb::Check).native().config(&config).run().unwrap().done().unwrap();
        if masquerade {
            // It has deleted everything by the time when it misses the chain that it would have made.
            let error = base(Verb::Del).native().config(&config).run().unwrap().error().unwrap();
            assert!(error.text().contains("'CNI-f88d8102b118525b5ea2a0f3' does not exist"), "{error:?}");
        }
        base(Verb::Del).native().config(&config).run().unwrap().done().unwrap();
        let differences = bench.node.snapshot().unwrap().attachments_since(&bench.before);
        let ours = |line: &String| line.contains("/run/sandwire/journal/") || (masquerade && line.contains("nft"));
        assert!(differences.iter().all(ours), "{differences:?}");
        config.as_object_mut().unwrap().remove("prevResult");
        base(Verb::Add).config(&config).run().unwrap().result().unwrap();
        base(Verb::Del).config(&config).run().unwrap().done().unwrap();
        bench.nothing_left();
    }
}

/// Each pair of a main plugin and an address manager, one native and one ours.
#[test]
fn ptp_and_static_as_each_others_delegates() {
    let bench = bench();
    let config = json!({"cniVersion": "1.0.0", "name": "mynet", "type": "ptp", "ipam": {"type": "static",
        "addresses": [{"address": "10.1.2.9/24", "gateway": "10.1.2.1"}], "routes": [{"dst": "0.0.0.0/0"}]}});
    for (main, delegate) in [(OURS, NATIVE), (NATIVE, OURS)] {
        bench.node.sh(&format!("rm -rf /mnt/only; mkdir /mnt/only; ln -s {delegate}/static /mnt/only/static")).unwrap();
        let call = |verb, prev: Option<&Value>| {
            let mut config = config.clone();
            if let Some(prev) = prev {
                config["prevResult"] = prev.clone();
            }
            let call = bench.node.call("ptp", verb).pod(&bench.pod).ifname("eth0").config(&config);
            call.program(format!("{main}/ptp")).path("/mnt/only").run().unwrap()
        };
        let result = call(Verb::Add, None).result().unwrap();
        assert_eq!(result["ips"][0]["address"], "10.1.2.9/24", "{result}");
        bench.node.sh_at(&bench.pod.place(), "ping -c 1 -W 5 10.1.2.1").unwrap();
        call(Verb::Check, Some(&result)).done().unwrap();
        call(Verb::Del, Some(&result)).done().unwrap();
        call(Verb::Del, None).done().unwrap();
        bench.nothing_left();
    }
}

#[test]
fn our_add_then_native_del() {
    let bench = bench();
    let result = call(&bench, &format!("{OURS}/bridge"), OURS, Verb::Add, None).result().unwrap();
    call(&bench, &format!("{NATIVE}/bridge"), NATIVE, Verb::Check, Some(&result)).done().unwrap();
    call(&bench, &format!("{NATIVE}/bridge"), NATIVE, Verb::Del, Some(&result)).done().unwrap();
    // The runtime changed over while the pod lived; our journal still knows of it, and ours must cope.
    bench.only_a_journal_left();
    call(&bench, &format!("{OURS}/bridge"), OURS, Verb::Add, None).result().unwrap();
    call(&bench, &format!("{OURS}/bridge"), OURS, Verb::Del, None).done().unwrap();
    bench.nothing_left();
}

/// Both allocate from one directory at the same time: no address twice, none lost.
#[test]
fn one_directory_two_host_locals() {
    const EACH: usize = 60;
    let node = Node::installed().unwrap();
    let netns = node.pod("a").unwrap().netns;
    let mut config = bridge();
    config["ipam"]["subnet"] = "10.1.0.0/16".into();
    let worker = |folder: &str, name: &str| {
        (0..EACH)
            .map(|i| {
                let program = Path::new(folder).join("host-local");
                let pod = Pod { id: format!("{name}-{i}"), netns: netns.clone() };
                let call = node.call("host-local", Verb::Add).pod(&pod).ifname("eth0").config(&config).program(program);
                (pod, call.run().unwrap().result().unwrap()["ips"][0]["address"].as_str().unwrap().to_owned())
            })
            .collect::<Vec<_>>()
    };
    let given: Vec<(Pod, String)> = std::thread::scope(|scope| {
        let worker = &worker;
        let threads: Vec<_> = [(OURS, "o1"), (NATIVE, "n1"), (OURS, "o2"), (NATIVE, "n2")]
            .map(|(folder, name)| scope.spawn(move || worker(folder, name)))
            .into_iter()
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let addresses: BTreeSet<&String> = given.iter().map(|(_, address)| address).collect();
    assert_eq!(addresses.len(), 4 * EACH);
    for (pod, address) in &given {
        let file = format!("/var/lib/cni/networks/mynet/{}", address.split('/').next().unwrap());
        assert_eq!(node.read(file).unwrap().unwrap(), format!("{}\r\neth0", pod.id).into_bytes());
    }
    // Each gives back what the other gave out.
    for (i, (pod, _)) in given.iter().enumerate() {
        let folder = if i % 2 == 0 { OURS } else { NATIVE };
        let call = node.call("host-local", Verb::Del).pod(pod).ifname("eth0").config(&config);
        call.program(Path::new(folder).join("host-local")).run().unwrap().done().unwrap();
    }
    let mut left = node.files("/var/lib/cni/networks/mynet").unwrap();
    left.retain(|(path, _)| !path.ends_with("lock") && !path.to_string_lossy().contains("last_reserved_ip"));
    assert!(left.is_empty(), "{left:?}");
}

/// libcni asks every plugin of a list before it adds one. Some of the reference's begin with a later version.
#[test]
fn versions_are_announced() {
    let node = Node::installed().unwrap();
    for plugin in sandwire_harness::cases::plugins().unwrap() {
        // As libcni asks: with dummies in the environment.
        let answer = |program: PathBuf| {
            let call = ["CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]
                .iter()
                .fold(node.call(&plugin, Verb::Version), |c, key| c.env(key, "dummy"));
            call.program(program).config(&json!({"cniVersion": "1.1.0"})).run().unwrap().result().unwrap()
        };
        let native = Path::new(NATIVE).join(&plugin);
        let oldest = if native.exists() { answer(native)["supportedVersions"][0].clone() } else { json!("0.1.0") };
        let spoken: Vec<_> =
            sandwire_harness::versions::ALL.into_iter().skip_while(|version| oldest != *version).collect();
        let ours = answer(Path::new(OURS).join(&plugin));
        assert_eq!(ours["supportedVersions"], json!(spoken), "{plugin}");
        assert_eq!(ours["cniVersion"], "1.1.0");
    }
    // Without a verb it introduces itself on stderr, as the reference does.
    let mut command = std::process::Command::new(format!("{OURS}/bridge"));
    command.env_clear();
    let finished = node.run(&Place::Host, command, b"").unwrap();
    assert!(finished.status.success() && finished.stdout.is_empty(), "{finished:?}");
    assert!(finished.stderr.contains("CNI protocol versions supported: 0.1.0, 0.2.0"), "{finished:?}");
}
