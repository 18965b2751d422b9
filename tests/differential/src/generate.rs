//! Networks and calls from a seed: every key of every plugin comes up, alone and beside others, now and then with a value
//! that must be refused.

use sandwire_model::Random;
use serde_json::{Map, Value, json};

/// A call, or what happens to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Attach the pod.
    Add(&'static str),
    /// Check it.
    Check(&'static str),
    /// Detach it.
    Del(&'static str),
    /// Its network namespace is taken away.
    Gone(&'static str),
}

impl Step {
    /// The verb.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Check(_) => "CHECK",
            Self::Del(_) => "DEL",
            Self::Gone(_) => "netns gone",
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Add(pod) | Self::Check(pod) | Self::Del(pod) | Self::Gone(pod)) = self;
        write!(f, "{} {pod}", self.name())
    }
}

/// A network, an environment, calls.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// What it is made from.
    pub seed: u64,
    /// The network's name.
    pub name: String,
    /// The plugins in their order, each with its configuration.
    pub plugins: Vec<Value>,
    /// Of the specification, up to 1.0.0: Debian's plugins know no newer one.
    pub version: &'static str,
    /// CNI_IFNAME.
    pub ifname: &'static str,
    /// More variables.
    pub env: Vec<(&'static str, String)>,
    /// Shell script that is run on the node before.
    pub before: String,
    /// The calls.
    pub steps: Vec<Step>,
}

/// What Debian's plugins know.
const VERSIONS: [&str; 6] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"];

/// Another machine, and chains of the node that drop what nobody lets through.
const OUTSIDE: &str = "
    ip link add out0 address 02:00:00:00:0a:01 type veth peer name eth0 address 02:00:00:00:0a:02 netns pod-outside
    ip link set out0 up; ip addr add 192.0.2.1/24 dev out0; ip addr add 2001:db8::1/64 dev out0 nodad
    ip -n pod-outside link set eth0 up; ip -n pod-outside addr add 192.0.2.2/24 dev eth0; ip -n pod-outside route add default via 192.0.2.1
    ip -n pod-outside addr add 2001:db8::2/64 dev eth0 nodad; ip -n pod-outside route add default via 2001:db8::1
    iptables -P FORWARD DROP; ip6tables -P FORWARD DROP";

impl Sequence {
    /// Another machine's network namespace, and its addresses.
    pub(crate) const OUTSIDE: (&str, [&str; 2]) = ("/run/netns/pod-outside", ["192.0.2.2", "2001:db8::2"]);

    /// Whether one of its plugins is firewall: then there is another machine, and what it lets through is compared.
    pub(crate) fn has_firewall(&self) -> bool {
        self.plugins.iter().any(|plugin| kind(plugin) == "firewall")
    }

    /// The sequence of this seed.
    pub fn of(seed: u64) -> Self {
        let mut r = Random::new(seed);
        let mut version = pick(&mut r, &VERSIONS);
        let mut env = Vec::new();
        let mut before = String::new();
        let mut plugins = match r.below(20) {
            0..7 => vec![bridge(&mut r, version)],
            7..11 => vec![host_local(&mut r, version)],
            11..14 => vec![ptp(&mut r, version)],
            14..16 => {
                before =
                    "ip link add master0 type veth peer name wire0; ip link set master0 up; ip link set wire0 up\n\
                          ip addr add 192.0.2.1/24 dev master0; ip route add default via 192.0.2.2"
                        .into();
                vec![macvlan(&mut r)]
            }
            16..18 => vec![statics(&mut r)],
            _ => {
                // Debian's prints the shape of 1.0.0 at every version.
                version = "1.0.0";
                vec![json!({"type": "loopback"})]
            }
        };
        let first = plugins.first().map(kind).unwrap_or_default().to_owned();
        let ifname = if first == "loopback" { "lo" } else { pick(&mut r, &["eth0", "eth0", "net1"]) };
        // Chained plugins want the result of one that made an interface.
        if matches!(first.as_str(), "bridge" | "ptp") && r.percent(60) {
            // By a generator of its own: a chain that grows leaves the rest of its sequence as it was.
            let mut r = Random::new(!seed);
            if r.percent(60) {
                // Those that the firewall plugin knows.
                version = pick(&mut r, &["0.4.0", "1.0.0"]);
            }
            plugins.extend(chained(&mut r, version));
        }
        if plugins.iter().any(|plugin| kind(plugin) == "firewall") {
            before = OUTSIDE.into();
            if Random::new(!seed).percent(70)
                && let Some(Value::Object(main)) = plugins.first_mut()
            {
                with_a_way_out(main);
            }
        }
        arguments(&mut r, &mut env);
        let steps = steps(&mut r, version);
        let name = pick(&mut r, &["net", "net", "net-1", "a_b.c"]).to_owned();
        Self { seed, name, plugins, version, ifname, env, before, steps }
    }
}

fn pick(r: &mut Random, of: &[&'static str]) -> &'static str {
    r.one(of).copied().unwrap_or_default()
}

/// An object of these keys, each with its chance in a hundred and its values.
fn some(r: &mut Random, of: &[(&str, u64, Vec<Value>)]) -> Map<String, Value> {
    let mut object = Map::new();
    for (key, chance, values) in of {
        if r.percent(*chance) {
            let value = r.one(values).cloned().unwrap_or_default();
            object.insert((*key).to_owned(), value);
        }
    }
    object
}

/// The type of a plugin's configuration.
pub fn kind(plugin: &Value) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn yes_or_no() -> Vec<Value> {
    vec![true.into(), true.into(), false.into(), Value::Null]
}

fn of_type(kind: &str, mut keys: Map<String, Value>) -> Value {
    keys.insert("type".into(), kind.into());
    keys.into()
}

fn steps(r: &mut Random, version: &str) -> Vec<Step> {
    let checks = sandwire_harness::versions::has_check(version);
    let mut steps = vec![Step::Add("a")];
    let check = |steps: &mut Vec<Step>, pod| {
        if checks {
            steps.push(Step::Check(pod));
        }
    };
    check(&mut steps, "a");
    match r.below(8) {
        0 | 1 => {
            steps.push(Step::Add("b"));
            check(&mut steps, "b");
        }
        2 => steps.extend([Step::Add("a")]),
        3 => steps.extend([Step::Del("b")]),
        4 => steps.extend([Step::Gone("a")]),
        5 => {
            steps.push(Step::Add("b"));
            // Before another port goes and comes: the MAC of the reference's bridge is the lowest of its ports'.
            check(&mut steps, "b");
            steps.extend([Step::Del("a"), Step::Add("a")]);
        }
        _ => {}
    }
    steps.extend([Step::Del("a"), Step::Del("a"), Step::Del("b")]);
    steps
}

fn arguments(r: &mut Random, env: &mut Vec<(&'static str, String)>) {
    let of =
        ["IgnoreUnknown=1;K8S_POD_NAME=x", "MAC=02:00:00:00:00:11", "IgnoreUnknown=true;IP=10.1.2.9", "Unknown=1", "x"];
    if r.percent(20) {
        env.push(("CNI_ARGS", pick(r, &of).to_owned()));
    }
}

fn ipam(r: &mut Random, version: &str) -> Value {
    if r.percent(12) { statics_of(r) } else { host_local_ipam(r, version) }
}

fn host_local_ipam(r: &mut Random, version: &str) -> Value {
    let v4 = [
        json!({"subnet": "10.1.2.0/24"}),
        json!({"subnet": "10.1.2.0/24", "gateway": "10.1.2.254"}),
        json!({"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.20", "rangeEnd": "10.1.2.21"}),
        json!({"subnet": "10.1.2.0/29", "rangeStart": "10.1.2.6"}),
        json!({"subnet": "10.1.2.0/30"}),
        json!({"subnet": "10.1.2.1/24"}),
        json!({"subnet": "10.1.2.0/31"}),
        json!({"subnet": "10.1.2.0/24", "rangeStart": "10.1.3.1"}),
        json!({"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.30", "rangeEnd": "10.1.2.20"}),
        json!({"subnet": "10.1.2.0"}),
        json!({"subnet": "10.1.2.0/24", "gateway": "none"}),
    ];
    let good = v4.get(..5).unwrap_or_default();
    let v6 = [json!({"subnet": "fd00:1::/64"}), json!({"subnet": "fd00:1::/64", "gateway": "fd00:1::ff"})];
    let range = |r: &mut Random| {
        let of = if r.percent(88) { good } else { v4.as_slice() };
        r.one(of).cloned().unwrap_or_default()
    };
    let mut ipam = Map::new();
    match r.below(if version.starts_with("0.1") || version.starts_with("0.2") { 7 } else { 10 }) {
        0..4 => {
            if let Value::Object(members) = range(r) {
                ipam.extend(members);
            }
        }
        4..6 => drop(ipam.insert("ranges".into(), json!([[range(r)]]))),
        6..8 => drop(ipam.insert("ranges".into(), json!([[range(r)], [r.one(&v6).cloned().unwrap_or_default()]]))),
        8 => drop(ipam.insert("ranges".into(), json!([[range(r), {"subnet": "10.9.0.0/28"}]]))),
        _ => drop(ipam.insert("ranges".into(), json!([[r.one(&v6).cloned().unwrap_or_default()]]))),
    }
    let routes = vec![
        json!([{"dst": "0.0.0.0/0"}]),
        json!([{"dst": "10.77.0.0/16"}, {"dst": "10.78.0.0/16", "gw": "10.1.2.3"}]),
        json!([{"dst": "0.0.0.0/0"}, {"dst": "fd00:9::/64"}]),
        json!([]),
        json!([{"dst": "none"}]),
    ];
    ipam.extend(some(
        r,
        &[
            ("routes", 55, routes),
            ("dataDir", 10, vec!["/var/lib/cni/other".into()]),
            ("resolvConf", 6, vec!["/etc/resolv-not-there.conf".into()]),
        ],
    ));
    of_type("host-local", ipam)
}

fn statics_of(r: &mut Random) -> Value {
    let addresses = vec![
        json!([{"address": "10.1.2.8/24", "gateway": "10.1.2.1"}]),
        json!([{"address": "10.1.2.8/24"}]),
        json!([{"address": "10.1.2.8/24", "gateway": "10.1.2.1"}, {"address": "fd00:1::8/64", "gateway": "fd00:1::1"}]),
        json!([{"address": "10.1.2.8"}]),
        json!([]),
    ];
    let routes = vec![json!([{"dst": "0.0.0.0/0"}]), json!([{"dst": "10.5.0.0/16", "gw": "10.1.2.2"}])];
    let dns =
        vec![json!({"nameservers": ["192.0.2.53"], "domain": "x.example", "search": ["a", "b"], "options": ["c"]})];
    let keys = some(r, &[("addresses", 94, addresses), ("routes", 50, routes), ("dns", 25, dns)]);
    of_type("static", keys)
}

fn bridge(r: &mut Random, version: &str) -> Value {
    let mut keys = some(
        r,
        &[
            ("bridge", 40, vec!["br-a".into(), "cni0".into(), "".into(), "a-name-much-too-long".into()]),
            ("isGateway", 50, yes_or_no()),
            ("isDefaultGateway", 25, yes_or_no()),
            ("forceAddress", 15, yes_or_no()),
            ("ipMasq", 12, yes_or_no()),
            ("mtu", 25, vec![1400.into(), 9000.into(), 0.into(), "1500".into()]),
            ("hairpinMode", 20, yes_or_no()),
            ("promiscMode", 15, yes_or_no()),
            ("dns", 10, vec![json!({"nameservers": ["192.0.2.1"]}), json!({})]),
            ("runtimeConfig", 10, vec![json!({"mac": "02:00:00:00:00:22"}), json!({"Mac": "02:00:00:00:00:23"})]),
            ("args", 8, vec![json!({"cni": {"mac": "02:00:00:00:00:33"}}), json!({"cni": {"ips": ["10.1.2.7"]}})]),
            ("vlan", 4, vec![5000.into(), (-1).into()]),
        ],
    );
    if r.percent(85) {
        keys.insert("ipam".into(), ipam(r, version));
    } else if r.percent(50) {
        keys.insert("ipam".into(), json!({}));
    }
    of_type("bridge", keys)
}

fn host_local(r: &mut Random, version: &str) -> Value {
    let wanted = vec![json!({"ips": ["10.1.2.7/24"]}), json!({"ips": ["10.1.2.1"]}), json!({"ips": ["192.0.2.1"]})];
    let mut keys = some(
        r,
        &[
            ("runtimeConfig", 15, wanted.clone()),
            ("args", 15, wanted.into_iter().map(|ips| json!({"cni": ips})).collect()),
        ],
    );
    if keys.contains_key("runtimeConfig") {
        // Of addresses from both that can't be had, the reference's error tells in the order of a Go map.
        keys.remove("args");
    }
    keys.insert("ipam".into(), host_local_ipam(r, version));
    of_type("host-local", keys)
}

fn statics(r: &mut Random) -> Value {
    let wanted = vec![json!({"ips": ["10.1.2.7/24"]}), json!({"ips": ["10.1.2.7/24", "fd00:1::7/64"]})];
    let mut keys = some(
        r,
        &[
            ("runtimeConfig", 20, wanted.clone()),
            ("args", 20, wanted.into_iter().map(|ips| json!({"cni": ips})).collect()),
        ],
    );
    keys.insert("ipam".into(), statics_of(r));
    of_type("static", keys)
}

fn ptp(r: &mut Random, version: &str) -> Value {
    let mut keys = some(
        r,
        &[
            ("ipMasq", 12, yes_or_no()),
            ("mtu", 30, vec![1400.into(), 0.into(), "1500".into()]),
            ("dns", 15, vec![json!({"nameservers": ["192.0.2.1"]})]),
        ],
    );
    if r.percent(96) {
        keys.insert("ipam".into(), ipam(r, version));
    }
    of_type("ptp", keys)
}

fn macvlan(r: &mut Random) -> Value {
    let modes = ["bridge", "private", "vepa", "passthru", "", "other"].map(Value::from).to_vec();
    let mut keys = some(
        r,
        &[
            ("master", 75, vec!["master0".into(), "master0".into(), "not-there".into(), "".into()]),
            ("mode", 50, modes),
            ("mtu", 30, vec![1400.into(), 1500.into(), 9000.into(), (-1).into()]),
            ("mac", 10, vec!["02:00:00:00:00:44".into()]),
            ("runtimeConfig", 10, vec![json!({"mac": "02:00:00:00:00:22"})]),
        ],
    );
    if r.percent(85) {
        keys.insert("ipam".into(), host_local_ipam(r, "1.0.0"));
    }
    of_type("macvlan", keys)
}

/// With addresses and routes by which a firewall can be seen at work.
fn with_a_way_out(main: &mut Map<String, Value>) {
    main.insert("isGateway".into(), true.into());
    let ranges = json!([[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1::/64"}]]);
    let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    main.insert("ipam".into(), json!({"type": "host-local", "ranges": ranges, "routes": routes}));
}

fn chained(r: &mut Random, version: &str) -> Vec<Value> {
    let mut chain = Vec::new();
    if r.percent(50) {
        let sysctls = vec![
            json!({"net.ipv4.conf.IFNAME.arp_filter": "1"}),
            json!({"net.core.somaxconn": "500"}),
            json!({"net.ipv4.conf.all.log_martians": "1", "net.ipv6.conf.IFNAME.hop_limit": "40"}),
            json!({"kernel.panic": "1"}),
            json!({"net.ipv4.not_there": "1"}),
        ];
        let keys = some(
            r,
            &[
                ("sysctl", 50, sysctls),
                ("mac", 25, vec!["02:00:00:00:00:55".into(), "none".into()]),
                ("mtu", 30, vec![1300.into()]),
                ("promisc", 25, yes_or_no()),
                ("allmulti", 25, yes_or_no()),
                ("runtimeConfig", 10, vec![json!({"mac": "02:00:00:00:00:66"})]),
            ],
        );
        chain.push(of_type("tuning", keys));
    }
    if r.percent(55) {
        let mappings = [
            json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]),
            json!([{"HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": "192.0.2.1"}]),
            json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}, {"hostPort": 53, "containerPort": 53, "protocol": "udp"}]),
            json!([{"hostPort": 0, "containerPort": 80, "protocol": "tcp"}]),
            json!([{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]),
            json!([]),
        ];
        let good = mappings.get(..3).unwrap_or_default();
        let mappings = if r.percent(70) { good } else { mappings.as_slice() };
        let mut keys = some(
            r,
            &[
                ("snat", 40, yes_or_no()),
                ("markMasqBit", 20, vec![5.into(), 32.into()]),
                ("conditionsV4", 15, vec![json!(["!", "-d", "192.0.2.0/24"]), json!([])]),
            ],
        );
        keys.insert("runtimeConfig".into(), json!({"portMappings": r.one(mappings).cloned().unwrap_or_default()}));
        chain.push(of_type("portmap", keys));
    }
    if r.percent(70) && (version == "0.4.0" || version == "1.0.0") {
        let policies = vec!["open".into(), "same-bridge".into(), "same-bridge".into(), "closed".into()];
        let backends = vec!["iptables".into(), "".into()];
        let keys = some(r, &[("backend", 30, backends), ("ingressPolicy", 40, policies)]);
        chain.push(of_type("firewall", keys));
    }
    if r.percent(40) && !version.starts_with("0.1") && !version.starts_with("0.2") {
        let rates = [
            json!({"ingressRate": 8_000_000, "ingressBurst": 800_000}),
            json!({"egressRate": 8_000_000, "egressBurst": 800_000}),
            json!({"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 16_000_000, "egressBurst": 900_000}),
            json!({"ingressRate": 8_000_000}),
            json!({"runtimeConfig": {"bandwidth": {"IngressRate": 8_000_000, "ingressBurst": 800_000}}}),
            json!({}),
        ];
        let rates = r.one(&rates).cloned().unwrap_or_default();
        chain.push(of_type("bandwidth", rates.as_object().cloned().unwrap_or_default()));
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_one_sequence() {
        for seed in 0..500 {
            let [a, b] = [Sequence::of(seed), Sequence::of(seed)];
            assert_eq!((a.plugins.clone(), &a.steps, &a.env), (b.plugins.clone(), &b.steps, &b.env));
            assert!(a.steps.contains(&Step::Del("a")));
        }
    }
}
