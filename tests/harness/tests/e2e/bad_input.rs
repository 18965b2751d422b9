//! What a plugin can be given that can't work: one clear CNI error each, and the node as it was.

use crate::common::{BRIDGE, bridge, mynet};
use sandwire_harness::agent::{Agent, Mode};
use sandwire_harness::{CniError, Node, Pod, Verb};
use serde_json::{Value, json};
use std::time::Duration;

struct Bench {
    // Before the node: it must end first.
    agent: Option<Agent>,
    pod: Pod,
    node: Node,
}

impl Bench {
    fn new() -> Self {
        let node = Node::installed().unwrap();
        let pod = node.pod("a").unwrap();
        Self { agent: None, pod, node }
    }

    /// ADD must fail and change nothing at all; its error.
    fn refuses(&self, what: &str, call: sandwire_harness::Call<'_>) -> CniError {
        let before = self.node.snapshot().unwrap();
        let outcome = call.run().unwrap();
        let error = outcome.error().unwrap_or_else(|error| panic!("{what}: {error:#}"));
        assert!(!error.text().contains("panicked") && !error.text().contains("bug of sandwire"), "{what}: {error:?}");
        self.node
            .snapshot()
            .unwrap()
            .assert_same_attachments(&before)
            .unwrap_or_else(|e| panic!("{what}: {e:#}\n{error:?}"));
        error
    }

    fn add(&self) -> sandwire_harness::Call<'_> {
        self.node.call("bridge", Verb::Add).pod(&self.pod).ifname("eth0").config(&bridge())
    }

    fn refuses_config(&self, config: &Value, code: Option<u32>, text: &str) {
        let plugin = config["type"].as_str().unwrap_or("bridge");
        let error = self.refuses(text, self.node.call(plugin, Verb::Add).pod(&self.pod).ifname("eth0").config(config));
        assert!(error.text().contains(text), "wanted {text:?}: {error:?}\n{config}");
        assert!(code.is_none_or(|code| code == error.code), "wanted code {code:?}: {error:?}");
    }

    /// The same call works once the reason is gone: the error was about that, and nothing else.
    fn works(&self) {
        self.add().run().unwrap().result().unwrap();
        self.node
            .call("bridge", Verb::Del)
            .pod(&self.pod)
            .ifname("eth0")
            .config(&bridge())
            .run()
            .unwrap()
            .done()
            .unwrap();
    }
}

#[test]
fn text_that_is_no_configuration() {
    let bench = Bench::new();
    for (text, codes) in [
        ("", &[6][..]),
        ("   \n", &[6]),
        ("[1]", &[6]),
        ("17", &[6]),
        ("\"bridge\"", &[6]),
        ("null", &[6, 7]),
        ("{", &[6]),
        ("{\"name\": \"n\"", &[6]),
        ("{\"name\": \"n\", \"type\": \"bridge\"} x", &[6]),
        ("{\"name\": 5, \"type\": \"bridge\"}", &[6]),
        ("{\"cniVersion\": 5, \"name\": \"n\", \"type\": \"bridge\"}", &[6]),
        ("{\"cniVersion\": \"9.9.9\", \"name\": \"n\", \"type\": \"bridge\"}", &[1]),
        ("{\"name\": \"n\", \"type\": \"bridge\", \"prevResult\": 5, \"cniVersion\": \"1.0.0\"}", &[6, 7, 999]),
        ("\u{0}\u{1}\u{fffd}", &[6]),
        ("{}", &[7]),
    ] {
        let error = bench.refuses(text, bench.add().stdin(text));
        assert!(codes.contains(&error.code), "{text}: {error:?}");
    }
    bench.works();
}

/// Recursion on nesting must end before the stack does, for what is small enough to be read and for what is not.
#[test]
fn ten_megabytes_of_nesting() {
    let bench = Bench::new();
    for size in [20_000, 3_500_000, 10 << 20] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let times = size / open.len();
            let deep = |ends: bool| {
                let inside =
                    format!("{}1{}", open.repeat(times), if ends { close.repeat(times) } else { String::new() });
                format!("{{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"type\":\"bridge\",\"x\":{inside}}}")
            };
            for text in [deep(true), deep(false), open.repeat(times)] {
                let error = bench.refuses(&format!("{size} of {open}"), bench.add().stdin(text));
                assert!(error.code == 6 && error.text().len() < 2000, "{error:?}");
            }
        }
    }
    bench.works();
}

#[test]
fn names() {
    let bench = Bench::new();
    for (ifname, text) in [
        ("a/b", "interface name contains / or : or whitespace characters"),
        ("abcdefghijklmnop", "interface name is too long"),
        ("..", "interface name is . or .."),
        ("a:b", "interface name contains / or : or whitespace characters"),
        ("a b", "interface name contains / or : or whitespace characters"),
    ] {
        let error = bench.refuses(ifname, bench.add().ifname(ifname));
        assert_eq!((error.code, error.text().contains(text)), (4, true), "{ifname}: {error:?}");
    }
    for id in ["a/b", "../x", "a b", ".a", "ä"] {
        let error = bench.refuses(id, bench.add().env("CNI_CONTAINERID", id));
        assert_eq!(
            (error.code, error.msg.as_str(), error.details.as_str()),
            (4, "invalid characters in containerID", id)
        );
    }
    for name in ["a/b", "../../etc", "", "a\u{0}b", "-a"] {
        let mut config = bridge();
        config["name"] = name.into();
        bench.refuses_config(&config, Some(7), "network name");
    }
    for name in ["a/b", "abcdefghijklmnop", "..", "a b"] {
        let mut config = bridge();
        config["bridge"] = name.into();
        bench.refuses_config(&config, None, name);
    }
    bench.works();
}

#[test]
fn namespaces() {
    let bench = Bench::new();
    bench.node.sh("echo text > /run/netns/file; mkfifo /run/netns/fifo; ln -s /proc/self/ns/net /run/netns/own; mkdir /run/netns/folder").unwrap();
    bench.node.sh("ln -s loop /run/netns/loop").unwrap();
    for path in [
        "/run/netns/file",
        "/run/netns/fifo",
        "/run/netns/gone",
        "/run/netns/folder",
        "/run/netns/loop",
        "/dev/null",
        "/proc/self/ns/mnt",
        "relative",
    ] {
        let started = std::time::Instant::now();
        let error = bench.refuses(path, bench.add().env("CNI_NETNS", path));
        assert!(error.text().contains(path), "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(5), "{path} took {:?}", started.elapsed());
    }
    // The host's own namespace: before anything is done, so nothing shared is made either.
    for own in ["/run/netns/own", "/proc/self/ns/net"] {
        let before = bench.node.snapshot().unwrap();
        let outcome = bench.add().env("CNI_NETNS", own).run().unwrap();
        outcome.error_with(8, "plugin's netns and netns from CNI_NETNS should not be the same").unwrap();
        bench.node.snapshot().unwrap().assert_unchanged(&before).unwrap();
    }
    bench.node.sh("rm -r /run/netns/file /run/netns/fifo /run/netns/own /run/netns/folder /run/netns/loop").unwrap();
    bench.works();
}

#[test]
fn an_interface_that_exists() {
    let bench = Bench::new();
    let place = bench.pod.place();
    bench
        .node
        .sh_at(&place, "ip link add eth0 type veth peer name other && ip link set eth0 address 0a:00:00:00:00:01")
        .unwrap();
    let error = bench.refuses("exists", bench.add());
    assert!(error.text().contains("eth0") && error.text().contains("already exists"), "{error:?}");
    bench.node.sh_at(&place, "ip link show eth0 | grep -q 0a:00:00:00:00:01").unwrap();
    bench.node.sh_at(&place, "ip link del eth0").unwrap();
    bench.works();
}

fn with_ipam(ipam: Value) -> Value {
    let mut config = bridge();
    config["ipam"] = ipam;
    config
}

#[test]
fn addresses() {
    let bench = Bench::new();
    for (ipam, text) in [
        (json!({"subnet": "10.1.2.3/32"}), "too small to allocate from"),
        (json!({"subnet": "10.1.2.2/31"}), "too small to allocate from"),
        (json!({"subnet": "fd00::/127"}), "too small to allocate from"),
        (json!({"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.2.128/25"}]]}), "overlaps"),
        (json!({"ranges": [[{"subnet": "10.1.2.0/24"}, {"subnet": "10.1.0.0/16"}]]}), "overlap"),
        (json!({"subnet": "10.1.2.7/24"}), "host bits set"),
        (json!({"subnet": "10.1.2.0/33"}), "10.1.2.0/33"),
        (json!({"subnet": "10.1.2.0/24", "rangeStart": "10.9.9.9"}), "10.9.9.9"),
        (json!({"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.20", "rangeEnd": "10.1.2.10"}), "10.1.2."),
        (json!({"ranges": [[]]}), "range"),
        (json!({"ranges": [[{"subnet": "10.1.2.0/24"}, {"subnet": "fd00::/64"}]]}), ""),
        (json!({"subnet": "10.1.2.0/24", "dataDir": "../../../etc"}), ""),
    ] {
        let mut ipam = ipam;
        ipam["type"] = "host-local".into();
        bench.refuses_config(&with_ipam(ipam), None, text);
    }
    bench.refuses_config(&with_ipam(json!({"type": "no-such-plugin"})), None, "no-such-plugin");
    bench.refuses_config(&with_ipam(json!({"type": "../../bin/sh"})), None, "../../bin/sh");
    bench.works();
}

#[test]
fn an_exhausted_pool() {
    let bench = Bench::new();
    // .1 is the gateway: two addresses are left.
    let config = with_ipam(json!({"type": "host-local", "subnet": "10.1.2.0/24", "rangeEnd": "10.1.2.3"}));
    let pods: Vec<Pod> = ["b", "c"].iter().map(|name| bench.node.pod(name).unwrap()).collect();
    for pod in &pods {
        bench.node.cni("bridge", Verb::Add, pod, "eth0", &config).unwrap().result().unwrap();
    }
    let error = bench.refuses("exhausted", bench.add().config(&config));
    assert!(error.code == 11 || error.text().contains("no IP addresses available in range set"), "{error:?}");
    assert!(error.text().contains("10.1.2.1-10.1.2.3"), "{error:?}");
    bench.node.cni("bridge", Verb::Del, &pods[0], "eth0", &config).unwrap().done().unwrap();
    bench.add().config(&config).run().unwrap().result().unwrap();
}

#[test]
fn route_targets() {
    let mut bench = Bench::new();
    bench.agent = Some(Agent::tcp(&bench.node, "127.0.0.1:8082").unwrap());
    for target in ["90", "a:b", "4200000000:1", "64512:", ":90", "64512:90:1", "64512:4294967296", "-1:90"] {
        for key in ["importrt", "exportrt"] {
            let mut config = mynet();
            config[key] = target.into();
            bench.refuses_config(&config, None, target);
        }
    }
    let calls = bench.agent.as_ref().unwrap().take_calls();
    assert!(calls.iter().all(|call| call.method == "GET"), "the agent must not see a wrong target: {calls:?}");
}

/// One kind of failing agent: ADD says so and leaves nothing; DEL succeeds; once the agent is well, all is as before.
fn agent_that_fails(mode: Mode, text: &str) {
    let mut bench = Bench::new();
    bench.agent = Some(Agent::tcp(&bench.node, "127.0.0.1:8082").unwrap());
    let agent = bench.agent.as_ref().unwrap();
    let start = bench.node.snapshot().unwrap();
    let call = |verb| bench.node.call("bagpipe", verb).pod(&bench.pod).ifname("eth0").config(&mynet()).run().unwrap();
    agent.set(mode.clone()).unwrap();
    let outcome = call(Verb::Add);
    let error = outcome.error().unwrap_or_else(|error| panic!("{mode:?}: {error:#}"));
    assert!(error.text().contains(text), "{mode:?}: {error:?}");
    assert!(outcome.duration < Duration::from_secs(60), "{mode:?} took {:?}", outcome.duration);
    bench.node.snapshot().unwrap().assert_only_undo_left(&start).unwrap_or_else(|e| panic!("{mode:?}: {e:#}"));
    // The runtime's DEL after the failed ADD succeeds whatever the agent does.
    call(Verb::Del).done().unwrap_or_else(|error| panic!("DEL with {mode:?}: {error:#}"));
    agent.set(Mode::Ok).unwrap();
    call(Verb::Add).result().unwrap();
    assert_eq!(agent.attached().len(), 1);
    call(Verb::Del).done().unwrap();
    assert!(agent.attached().is_empty(), "{:?}", agent.attached());
    bench.node.snapshot().unwrap().assert_same_attachments(&start).unwrap();
}

#[test]
fn an_agent_that_refuses() {
    agent_that_fails(Mode::Refuse, "127.0.0.1:8082");
}

#[test]
fn an_agent_that_answers_500() {
    agent_that_fails(Mode::Status(500, "Malformed route target".into()), "Malformed route target");
}

#[test]
fn an_agent_that_answers_html() {
    agent_that_fails(Mode::Html, "agent \"bagpipe\"");
}

#[test]
fn an_agent_that_answers_by_half() {
    agent_that_fails(Mode::Half, "127.0.0.1:8082");
}

#[test]
fn an_agent_that_hangs() {
    agent_that_fails(Mode::Hang, "127.0.0.1:8082");
}

#[test]
fn an_agent_that_hangs_half_way() {
    agent_that_fails(Mode::HangOnPost, "127.0.0.1:8082");
}

#[test]
fn no_cni_path() {
    let bench = Bench::new();
    for call in [bench.add().without("CNI_PATH"), bench.add().env("CNI_PATH", "")] {
        let error = bench.refuses("CNI_PATH", call.program("/opt/cni/bin/bridge"));
        assert_eq!((error.code, error.msg.as_str()), (4, "required env variables [CNI_PATH] missing"));
    }
    let call = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"].iter().fold(bench.add(), |call, key| call.without(key));
    let error = bench.refuses("nothing", call);
    assert_eq!(
        (error.code, error.msg.as_str()),
        (4, "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing")
    );
    let error = bench.refuses("verb", bench.add().env("CNI_COMMAND", "FOO"));
    assert_eq!((error.code, error.msg.as_str()), (4, "unknown CNI_COMMAND: FOO"));
    let error = bench.refuses("no delegate there", bench.add().path("/nowhere").program(BRIDGE));
    assert!(error.text().contains("host-local") && error.text().contains("/nowhere"), "{error:?}");
    bench.works();
}

/// No room for a lease, none for the journal: neither may end in a lease or a link.
#[test]
fn a_full_disk() {
    let bench = Bench::new();
    for folder in ["/var/lib/cni", "/run/sandwire"] {
        bench.node.sh(&format!("mkdir -p {folder}; mount -t tmpfs -o size=64k,mode=755 full {folder}; ! cat /dev/zero > {folder}/fill 2>/dev/null")).unwrap();
        let error = bench.refuses(folder, bench.add());
        assert!(error.text().to_lowercase().contains("no space left on device"), "{folder}: {error:?}");
        bench.node.sh(&format!("rm {folder}/fill")).unwrap();
        bench.works();
        bench.node.sh(&format!("umount {folder}")).unwrap();
    }
}
