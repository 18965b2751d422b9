//! DEL succeeds whatever is gone, broken or changed since ADD, and leaves nothing: every plugin under every condition.

use sandwire_harness::agent::{Agent, Mode};
use sandwire_harness::{Installation, Node, Outcome, Place, Pod, Snapshot, Verb};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const ACTIVE: &str = "/var/lib/sandwire/active";

struct Bench {
    // Before the node: it must end first.
    agent: Agent,
    node: Node,
    pod: Pod,
    plugin: &'static str,
    ifname: &'static str,
    /// What DEL gets.
    config: Value,
    result: Option<Value>,
    netns: String,
    before: Snapshot,
}

fn ipam() -> Value {
    json!({"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1:2::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}]})
}

/// What an earlier plugin of a chain answered; any link of the node may stand for the bridge.
fn addresses() -> Value {
    json!({"cniVersion": "1.1.0", "interfaces": [{"name": "lo"}],
        "ips": [{"address": "10.1.2.3/24"}, {"address": "fd00:1:2::3/64"}]})
}

fn config(plugin: &str) -> Value {
    let mut config = match plugin {
        "bridge" => json!({"bridge": "br-t", "isGateway": true, "ipMasq": true, "macspoofchk": true, "ipam": ipam()}),
        "bagpipe" => {
            json!({"importrt": "64512:90", "exportrt": "64512:90", "isGateway": true, "ipMasq": true, "ipam": ipam()})
        }
        "host-local" => json!({"ipam": ipam()}),
        "macvlan" => json!({"master": "m0", "ipam": ipam()}),
        "ptp" => json!({"ipMasq": true, "ipam": ipam()}),
        "static" => {
            json!({"ipam": {"type": "static", "addresses": [{"address": "10.1.2.9/24", "gateway": "10.1.2.1"}]}})
        }
        "firewall" => json!({"ingressPolicy": "isolated", "prevResult": addresses()}),
        "portmap" => json!({"runtimeConfig": {"portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 8053, "containerPort": 53, "protocol": "udp"}]}, "prevResult": addresses()}),
        _ => json!({}),
    };
    for (key, value) in [("cniVersion", "1.1.0"), ("name", "mynet"), ("type", plugin)] {
        config[key] = value.into();
    }
    config
}

impl Bench {
    fn new(plugin: &'static str) -> Self {
        let node = Node::installed().unwrap();
        node.sh("ip link add m0 type veth peer name m0p; ip link set m0 up; ip link set m0p up").unwrap();
        let pod = node.pod("a").unwrap();
        let agent = Agent::tcp(&node, "127.0.0.1:8082").unwrap();
        let (ifname, netns) = (if plugin == "loopback" { "lo" } else { "eth0" }, pod.netns.display().to_string());
        let before = node.snapshot().unwrap();
        Self { agent, node, pod, plugin, ifname, config: config(plugin), result: None, netns, before }
    }

    fn add(&mut self) {
        let outcome = self.node.cni(self.plugin, Verb::Add, &self.pod, self.ifname, &config(self.plugin)).unwrap();
        self.result = Some(outcome.result().unwrap());
    }

    /// An ADD of bagpipe that has come as far as the agent, which does not answer.
    fn hanging_add(&self) -> Child {
        self.agent.set(Mode::HangOnPost).unwrap();
        let call = self.node.call("bagpipe", Verb::Add).pod(&self.pod).ifname("eth0").config(&self.config);
        let (command, stdin) = call.command().unwrap();
        let mut add = self.node.spawn(&Place::Host, command).unwrap();
        add.stdin.take().unwrap().write_all(&stdin).unwrap();
        eventually("the ADD comes to the agent", || {
            self.agent.take_calls().into_iter().any(|call| call.path == "/attach_localport")
        });
        add
    }

    fn del(&self) -> Outcome {
        let mut config = self.config.clone();
        if let Some(result) = &self.result {
            config["prevResult"] = result.clone();
        }
        let call = self.node.call(self.plugin, Verb::Del).pod(&self.pod).ifname(self.ifname).config(&config);
        call.env("CNI_NETNS", &self.netns).run().unwrap()
    }

    /// `$P` is the plugin, `$A` the active generation.
    fn host(&self, script: &str) {
        self.node.sh(&script.replace("$P", self.plugin).replace("$A", ACTIVE)).unwrap();
    }

    /// In the pod.
    fn inside(&self, script: &str) {
        self.node.sh_at(&self.pod.place(), script).unwrap();
    }

    fn apply(&self) {
        let mut apply = Command::new(Installation::sandwirectl());
        apply.arg("apply").env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        // What it refuses it says by its status too.
        self.node.run(&Place::Host, apply, b"").unwrap();
    }

    /// Whether there is nothing; that an unused `lo` is up or down is nobody's business.
    fn left(&self) -> Vec<String> {
        let mut left = self.node.snapshot().unwrap().attachments_since(&self.before);
        // What the conditions did to the installation is theirs.
        let not_its = [r#""ifname":"lo""#, "no netns", "/var/lib/sandwire/generations/"];
        left.retain(|line| !not_its.iter().any(|part| line.contains(part)));
        left.extend(self.agent.attached().into_iter().map(|port| format!("at the agent {port:?}")));
        left
    }
}

/// A thing that happens between ADD and DEL, and what is put right again afterwards.
struct Condition {
    name: &'static str,
    happens: fn(&mut Bench),
    mended: fn(&mut Bench),
    /// Something may be kept until it is mended: what the agent must be told.
    kept: bool,
}

const fn condition(name: &'static str, happens: fn(&mut Bench)) -> Condition {
    Condition { name, happens, mended: |_| (), kept: false }
}

impl Condition {
    const fn until(self, mended: fn(&mut Bench)) -> Self {
        Self { mended, ..self }
    }

    const fn kept(self) -> Self {
        Self { kept: true, ..self }
    }

    fn run(&self, plugin: &'static str) {
        let mut bench = Bench::new(plugin);
        bench.add();
        (self.happens)(&mut bench);
        for time in ["first", "second", "third"] {
            bench.del().done().unwrap_or_else(|e| panic!("{plugin}, {}, the {time} time: {e:#}", self.name));
        }
        // A macvlan has no end on the node: with the container it goes, or when DEL is told where that is.
        let told = bench.netns == bench.pod.netns.display().to_string();
        let kept = |line: &String| match plugin {
            "bagpipe" => self.kept && (line.contains("/run/sandwire/journal/") || line.starts_with("at the agent")),
            "macvlan" => !told && line.contains(" pod-a "),
            _ => false,
        };
        let mut left = bench.left();
        left.retain(|line| !kept(line));
        assert!(left.is_empty(), "{plugin}, {}: {left:#?}", self.name);
        (self.mended)(&mut bench);
        bench.config = config(plugin);
        bench.netns = bench.pod.netns.display().to_string();
        bench.del().done().unwrap();
        assert!(bench.left().is_empty(), "{plugin}, {}, mended: {:#?}", self.name, bench.left());
        // The attachment is as new.
        if bench.node.read(&bench.pod.netns).is_ok_and(|there| there.is_none()) {
            bench.pod.make_netns(&bench.node).unwrap();
        }
        bench.add();
        bench.del().done().unwrap();
        assert!(bench.left().is_empty(), "{plugin}, {}, another time: {:#?}", self.name, bench.left());
    }
}

fn every_plugin(conditions: &[Condition]) {
    for condition in conditions {
        ["bridge", "bagpipe", "firewall", "host-local", "loopback", "macvlan", "portmap", "ptp", "static"]
            .into_iter()
            .for_each(|plugin| condition.run(plugin));
    }
}

#[test]
fn namespace() {
    every_plugin(&[
        condition("nothing", |_| ()),
        condition("CNI_NETNS is empty", |b| b.netns.clear()).until(|b| b.inside("ip link set lo down")),
        condition("the namespace is gone", |b| b.pod.drop_netns(&b.node).unwrap()),
        condition("a path to nothing", |b| b.netns = "/run/netns/never".into()),
        condition("a path to no namespace", |b| {
            b.node.write("/mnt/file", "").unwrap();
            b.netns = "/mnt/file".into();
        }),
        condition("another namespace at its path", |b| {
            b.pod.drop_netns(&b.node).unwrap();
            b.pod.make_netns(&b.node).unwrap();
        }),
    ]);
}

#[test]
fn parts_that_are_gone() {
    every_plugin(&[
        condition("no interface", |b| b.inside("ip link del eth0 2>/dev/null || true")),
        condition("no bridge", |b| {
            b.host("ip -br link show type bridge | grep -oE '^(br-t|evpn---[0-9a-f]*)' | xargs -r -n 1 ip link del");
        }),
        condition("no port", |b| {
            b.host("ip -br link show type veth | grep -o '^veth[0-9a-f]*' | xargs -r -n 1 ip link set nomaster dev")
        }),
        condition("no lease", |b| b.host("rm -f /var/lib/cni/networks/mynet/*:* /var/lib/cni/networks/mynet/10.*")),
        condition("no store", |b| b.host("rm -rf /var/lib/cni/networks/mynet")),
        condition("no index of the store", |b| b.host("rm -rf /var/lib/sandwire/leases")),
        condition("no rules", |b| b.host("nft flush ruleset")),
        condition("rules of none", |b| {
            b.host("nft list tables | while read -r _ family name; do nft delete table $family $name; done")
        }),
        condition("nothing but the journal", |b| {
            b.host("nft flush ruleset; rm -rf /var/lib/cni/networks/mynet");
            b.inside("ip link del eth0 2>/dev/null || true");
        }),
    ]);
}

/// Without the journal DEL has what the runtime tells, and the attachment's name. (What an agent was told is in the journal
/// alone; an agent that was started with the node knows nothing.)
#[test]
fn journal() {
    let gone = condition("no journal", |b| b.host("rm -rf /run/sandwire"));
    let all_gone = condition("no journal and no namespace", |b| {
        b.host("rm -rf /run/sandwire");
        b.pod.drop_netns(&b.node).unwrap();
        b.host("for i in $(seq 200); do ip -br link | grep -q ^veth || exit 0; sleep 0.05; done; exit 1");
    });
    for plugin in ["bridge", "host-local", "loopback", "macvlan", "ptp", "static"] {
        gone.run(plugin);
        all_gone.run(plugin);
    }
}

#[test]
fn prev_result() {
    every_plugin(&[
        condition("no prevResult", |b| b.result = None),
        condition("a prevResult of the other family", |b| {
            b.result =
                Some(json!({"cniVersion": "1.1.0", "ips": [{"address": "2001:db8::7/64", "gateway": "2001:db8::1"}]}));
        }),
        condition("a prevResult of another version", |b| {
            b.result = Some(json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.99.0.7/24"}}));
        }),
        condition("an empty prevResult", |b| b.result = Some(json!({}))),
        condition("a prevResult that is none", |b| b.result = Some(json!({"cniVersion": "1.1.0", "ips": "none"}))),
        condition("a prevResult of somebody else", |b| {
            b.result = Some(
                json!({"cniVersion": "1.1.0", "interfaces": [{"name": "veth00000000"}, {"name": "eth7", "sandbox": "/elsewhere"}],
                "ips": [{"address": "10.1.2.77/24", "interface": 1}]}),
            );
        }),
    ]);
}

#[test]
fn plugin() {
    fn applied(b: &mut Bench) {
        b.host("cp -a /mnt/policy.toml /etc/sandwire/policy.toml");
        b.apply();
    }
    every_plugin(&[
        condition("no such plugin any more", |b| b.host("mv $A/$P.json /mnt/kept.json")).until(|b| b.host("mv /mnt/kept.json $A/$P.json")).kept(),
        condition("nothing is installed", |b| b.host("mv $A /mnt/active")).until(|b| b.host("mv /mnt/active $A")).kept(),
        condition("a stale component", |b| {
            b.host("cp -a $A/$P.json /mnt/kept.json; sed -i 's/\"wasmtime\": *\"[^\"]*\"/\"wasmtime\":\"47.0.1\"/' $A/$P.json; grep -q 47.0.1 $A/$P.json");
        })
        .until(|b| b.host("mv /mnt/kept.json $A/$P.json")),
        condition("a policy of another release", |b| b.host("cp -a $A/$P.json /mnt/kept.json; echo '{}' >$A/$P.json"))
            .until(|b| b.host("mv /mnt/kept.json $A/$P.json"))
            .kept(),
        condition("no component", |b| b.host("cd $A; mkdir /mnt/kept; mv $(sed -nE 's/.*\"compiled\": *\"([^\"]*)\".*/\\1/p' $P.json) /mnt/kept/"))
            .until(|b| b.host("mv /mnt/kept/* $A/")),
        condition("a component that others can write", |b| b.host("chmod o+w $A/$P.json")).until(|b| b.host("chmod o-w $A/$P.json")).kept(),
    ]);
    let refused = condition("a policy that refuses it", |b| {
        b.host("cp -a /etc/sandwire/policy.toml /mnt/policy.toml; sed -i '/^\\[plugins.$P\\]/,/^\\]/{/\"links\"\\|\"leases\"/d}' /etc/sandwire/policy.toml");
        b.host("! cmp -s /etc/sandwire/policy.toml /mnt/policy.toml");
        b.apply();
    });
    let refused = refused.until(applied).kept();
    // `static` needs nothing that a policy could refuse.
    ["bridge", "bagpipe", "host-local", "loopback", "ptp"].into_iter().for_each(|plugin| refused.run(plugin));
}

/// A path leads to another namespace sooner or later: `/proc/PID/ns/net` when the number is given again. What is in there is of the
/// container that has it now, also for a DEL that is repeated, of which no journal says anything.
#[test]
fn another_containers_namespace() {
    for plugin in ["bridge", "bagpipe", "macvlan", "ptp"] {
        let mut bench = Bench::new(plugin);
        let other = bench.node.pod("b").unwrap();
        bench.add();
        let of_other = |verb: Verb, result: Option<&Value>| {
            let mut config = config(plugin);
            if let Some(result) = result {
                config["prevResult"] = result.clone();
            }
            bench.node.cni(plugin, verb, &other, "eth0", &config).unwrap()
        };
        let result = of_other(Verb::Add, None).result().unwrap();
        let before = bench.node.sh_at(&other.place(), "ip -o addr show eth0 scope global").unwrap();
        bench.pod.drop_netns(&bench.node).unwrap();
        bench.netns = other.netns.display().to_string();
        for time in ["first", "second", "third"] {
            bench.del().done().unwrap_or_else(|e| panic!("{plugin}, the {time} time: {e:#}"));
            let now = bench.node.sh_at(&other.place(), "ip -o addr show eth0 scope global").unwrap();
            assert_eq!(now, before, "{plugin}, the {time} time");
            of_other(Verb::Check, Some(&result)).done().unwrap_or_else(|e| panic!("{plugin}: {e:#}"));
        }
        of_other(Verb::Del, Some(&result)).done().unwrap();
        assert!(bench.left().is_empty(), "{plugin}: {:#?}", bench.left());
    }
}

/// An ADD that was killed in one namespace is taken back by the next one, which has another: not what that has under the
/// same numbers.
#[test]
fn a_killed_add_in_a_namespace_that_is_gone() {
    let bench = Bench::new("bagpipe");
    let mut add = bench.hanging_add();
    add.kill().unwrap();
    add.wait_with_output().unwrap();
    bench.agent.set(Mode::Ok).unwrap();
    bench.pod.drop_netns(&bench.node).unwrap();
    bench.pod.make_netns(&bench.node).unwrap();
    // The same name, and the same index: it was the first link there too.
    bench.inside("ip link add eth0 type veth peer name other; ip addr add 192.0.2.7/24 dev eth0");
    let shown = || bench.node.sh_at(&bench.pod.place(), "ip -o addr show eth0 scope global").unwrap();
    let before = shown();
    assert!(before.contains("192.0.2.7"), "{before}");
    bench.del().done().unwrap();
    assert_eq!(shown(), before);
    bench.inside("ip link del eth0");
    assert!(bench.left().is_empty(), "{:#?}", bench.left());
}

/// An address is given back when the interface that has it is gone, not before: the next pod would get it, too.
#[test]
fn an_address_stays_with_its_interface() {
    let node = Node::installed().unwrap();
    let pod = node.pod("a").unwrap();
    let config = crate::common::bridge();
    node.cni("bridge", Verb::Add, &pod, "eth0", &config).unwrap().result().unwrap();
    // As after native plugins: there is no journal.
    node.sh("rm -r /run/sandwire; chmod o+w /var/lib/sandwire/active/bridge.json").unwrap();
    let del = || node.cni("bridge", Verb::Del, &pod, "eth0", &config).unwrap();
    let error = del().error_with(113, "bridge").unwrap();
    assert!(
        error.details.contains("/var/lib/sandwire/active/bridge.json") && error.details.contains("\"eth0\""),
        "{error:?}"
    );
    node.sh("test -e /var/lib/cni/networks/mynet/10.1.2.2").unwrap();
    pod.drop_netns(&node).unwrap();
    del().done().unwrap();
    node.sh("test ! -e /var/lib/cni/networks/mynet/10.1.2.2").unwrap();
}

#[test]
fn configuration() {
    every_plugin(&[
        condition("another bridge, other addresses, no rules", |b| {
            b.config["bridge"] = "br-other".into();
            b.config["ipMasq"] = false.into();
            b.config["macspoofchk"] = false.into();
            if b.plugin != "loopback" {
                b.config["ipam"]["ranges"] = json!([[{"subnet": "10.99.0.0/24"}]]);
            }
        }),
        condition("other route targets", |b| {
            b.config["importrt"] = "64512:7".into();
            b.config["exportrt"] = "64512:7".into();
        }),
        condition("no addresses any more", |b| drop(b.config.as_object_mut().unwrap().remove("ipam"))),
        condition("an address manager that nobody knows", |b| {
            if b.plugin != "loopback" {
                b.config["ipam"] = json!({"type": "no-such-plugin"});
            }
        }),
        condition("values that can't be", |b| {
            b.config["vlan"] = 9999.into();
            b.config["mtu"] = "many".into();
            b.config["importrt"] = "none".into();
        }),
        condition("an older version", |b| b.config["cniVersion"] = "0.3.1".into()),
    ]);
}

#[test]
fn agent() {
    fn well(b: &mut Bench) {
        b.agent.set(Mode::Ok).unwrap();
    }
    for condition in [
        condition("an agent that is down", |b| b.agent.set(Mode::Refuse).unwrap()),
        condition("an agent that fails", |b| b.agent.set(Mode::Status(500, "no".into())).unwrap()),
        condition("an agent that breaks off", |b| b.agent.set(Mode::Half).unwrap()),
        condition("another server on its port", |b| b.agent.set(Mode::Html).unwrap()),
    ] {
        condition.until(well).kept().run("bagpipe");
    }
}

#[test]
fn before_any_add() {
    for plugin in ["bridge", "bagpipe", "firewall", "host-local", "loopback", "macvlan", "portmap", "ptp", "static"] {
        let bench = Bench::new(plugin);
        for _ in 0..3 {
            bench.del().done().unwrap();
        }
        assert!(bench.left().is_empty(), "{plugin}: {:?}", bench.left());
    }
}

/// Waits until `done`.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A DEL that comes while the ADD runs waits for it, and takes back all that it did.
#[test]
fn beside_a_running_add() {
    let mut bench = Bench::new("bagpipe");
    let add = bench.hanging_add();
    let started = Instant::now();
    std::thread::scope(|scope| {
        let del = scope.spawn(|| bench.del());
        std::thread::sleep(Duration::from_millis(300));
        assert!(!del.is_finished(), "it did not wait");
        bench.agent.set(Mode::Ok).unwrap();
        del.join().unwrap().done().unwrap();
    });
    assert!(started.elapsed() >= Duration::from_millis(300));
    add.wait_with_output().unwrap();
    assert!(bench.left().is_empty(), "{:?}", bench.left());
    bench.add();
    bench.del().done().unwrap();
    assert!(bench.left().is_empty(), "{:?}", bench.left());
}

/// It waits no longer than its own deadline, and says for what. Once the ADD is over, or killed, the next DEL works.
#[test]
fn beside_an_add_that_never_ends() {
    for signal in ["CONT", "KILL"] {
        let bench = Bench::new("bagpipe");
        let add = bench.hanging_add();
        let send = |name: &str| {
            assert!(
                Command::new("kill").args([&format!("-{name}"), &add.id().to_string()]).status().unwrap().success()
            );
        };
        send("STOP");
        bench.host("sed -i -E 's/\"deadline_ms\": *[0-9]+/\"deadline_ms\":600/' $A/$P.json; grep -q '\"deadline_ms\":600' $A/$P.json");
        let waited = bench.del();
        let error = waited.error().unwrap();
        assert!(error.code == 11 && error.text().contains("waiting for another call of this attachment"), "{error:?}");
        assert!(waited.duration < Duration::from_secs(5), "{waited}");
        bench.agent.set(Mode::Ok).unwrap();
        send(signal);
        add.wait_with_output().unwrap();
        bench.del().done().unwrap();
        assert!(bench.left().is_empty(), "{signal}: {:?}", bench.left());
    }
}
