//! Every function once, in an order in which each finds what it needs.

use sandwire_plugin::bindings::imports::sandwire::cni::{
    addresses, bridging, configure, conntrack, container_netns, delegate, devices, dhcp, endpoint, files, firewall,
    host_netns, kv, leases, links, log, neighbours, random, routes, shaping, shared, sysctl, wait,
};
use sandwire_plugin::host::namespaces::{Link, Netns};
use sandwire_plugin::{Failure, HostError};

use addresses::Address;
use links::{Changes, Device};
use routes::Route;

/// What a call is about.
pub(crate) struct Subject<'a> {
    pub(crate) ifname: &'a str,
    pub(crate) config: &'a str,
}

impl Subject<'_> {
    /// Whether the configuration has this word somewhere: enough for a test, and no JSON reader is linked.
    fn says(&self, word: &str) -> bool {
        self.config.contains(word)
    }
}

/// `config` with `"end": "report"`: everything, then fail. `"stay"`: a veth, and succeed. `"leaf"`: nothing, and succeed.
pub(crate) fn add(subject: &Subject<'_>, sandbox: &str) -> Result<String, Failure> {
    if subject.says("\"leaf\"") {
        return Ok("{\"cniVersion\":\"1.1.0\"}".to_owned());
    }
    if subject.says("\"stay\"") {
        let (node, container) = (host_netns::get(), container_netns::get());
        let container = container.ok_or_else(|| Failure::internal("no container"))?;
        let (_, inside) = links::create_veth(&Device::new(&node).up(), &Device::new(&container).named(subject.ifname))?;
        configure::apply(&inside, &[Address::new("10.77.0.2/24").no_dad()], &[])?;
        let interface = ["{\"name\":\"", subject.ifname, "\",\"sandbox\":\"", sandbox, "\"}"].concat();
        return Ok(["{\"cniVersion\":\"1.1.0\",\"interfaces\":[", &interface, "]}"].concat());
    }
    run(subject).map(|()| String::new())
}

/// Calls everything and fails with what was answered. DEL of a `"stay"` and whatever of a `"leaf"` just succeed.
pub(crate) fn run(subject: &Subject<'_>) -> Result<(), Failure> {
    if subject.says("\"leaf\"") || (subject.says("\"stay\"") && !subject.says("\"report\"")) {
        return Ok(());
    }
    let mut seen = Seen(String::new());
    seen.everything(subject);
    Err(Failure::new(200, "outcomes").with_details(seen.0))
}

/// What was answered so far.
struct Seen(String);

impl Seen {
    fn line(&mut self, function: &str, outcome: &str) {
        for part in [function, " ", outcome, "\n"] {
            self.0.push_str(part);
        }
    }

    /// Notes a call's outcome: `ok`, or the case of `error`, a colon and its text.
    fn note<T>(&mut self, function: &str, answer: Result<T, HostError>) -> Option<T> {
        let (case, text) = match answer {
            Ok(value) => {
                self.line(function, "ok");
                return Some(value);
            }
            Err(HostError::NotFound(text)) => ("not-found", text),
            Err(HostError::Exists(text)) => ("exists", text),
            Err(HostError::Conflict(text)) => ("conflict", text),
            Err(HostError::Invalid(text)) => ("invalid", text),
            Err(HostError::Denied(text)) => ("denied", text),
            Err(HostError::Unsupported(text)) => ("unsupported", text),
            Err(HostError::Busy(text)) => ("busy", text),
            Err(HostError::Exhausted(text)) => ("exhausted", text),
            Err(HostError::Timeout(text)) => ("timeout", text),
            Err(HostError::Unreachable(text)) => ("unreachable", text),
            Err(HostError::Other(text)) => ("other", text),
        };
        self.line(function, &[case, ": ", &text].concat());
        None
    }

    /// The same for `delegate`, which answers with a CNI error object.
    fn note_failure<T>(&mut self, function: &str, answer: Result<T, Failure>) {
        match answer {
            Ok(_) => self.line(function, "ok"),
            Err(failure) => self.line(function, &["failed: ", &failure.msg].concat()),
        }
    }

    fn everything(&mut self, subject: &Subject<'_>) {
        self.line("log log", "ok");
        log::log(log::Level::Info, "conformance", "every function of the contract");
        self.line("random bytes", if random::bytes(16).len() == 16 { "ok" } else { "other: not 16 bytes" });
        self.notes();
        self.note("files read", files::read("allowed"));
        self.note("files read-own", files::read_own("/run/cni/conformance", ".json"));
        self.note("files remove-own", files::remove_own("/run/cni/conformance", ".json"));
        self.agent();
        self.note("devices driver", devices::driver("/sys/devices/virtual"));
        let leased = self.leases();
        self.delegates(subject);

        let node = host_netns::get();
        self.line("host-netns get", "ok");
        let container = container_netns::get();
        self.line("container-netns get", "ok");
        let place = container.as_ref().unwrap_or(&node);
        self.note("namespaces netns.link", place.link("lo"));
        self.note("namespaces netns.links", place.links());
        // There is no server to wait for.
        let foreign = dhcp::Setting { code: 61, value: b"somebody else".to_vec() };
        self.note("dhcp acquire", dhcp::acquire(&[foreign], &[]));
        self.note("dhcp held", dhcp::held());
        self.note("dhcp release", dhcp::release());
        self.note("devices find", devices::find(&node, "/sys/devices/virtual"));
        self.note("conntrack flush", conntrack::flush(&node, firewall::Protocol::Tcp, Some("10.77.0.9"), 80));
        let bridge = self.bridge(&node);

        // In CHECK and STATUS nothing can be made: then what is there is used.
        let made = self.note(
            "links create-veth",
            links::create_veth(&Device::new(&node).up(), &Device::new(place).named(subject.ifname)),
        );
        let inside = match made {
            Some((_, inside)) => Some(inside),
            None => place.link(subject.ifname).ok(),
        };
        self.kinds(&node, place, bridge.as_ref());
        let Some(inside) = inside else { return };
        let outside = self.note("namespaces link.peer", inside.peer());
        self.note("namespaces link.info", inside.info());
        self.inside(place, &inside, subject.ifname, leased.as_deref().unwrap_or("10.77.0.200"));
        if let Some(outside) = &outside {
            self.port(&node, outside, bridge.as_ref(), leased.as_deref().unwrap_or("10.77.0.200"));
        }
    }

    fn notes(&mut self) {
        let scope = kv::Scope::Attachment;
        self.note("kv set", kv::set(scope, "colour", "red"));
        self.note("kv get", kv::get(scope, "colour"));
        self.note("kv swap", kv::swap(scope, "colour", Some("red"), "blue"));
        self.note("kv keys", kv::keys(scope));
        self.note("kv remove", kv::remove(scope, "colour"));
    }

    fn agent(&mut self) {
        let call = |path: &str| endpoint::Call::new("POST", path);
        let undo = call("/detach_localport").as_undo(&[400, 404]);
        self.note("endpoint send", endpoint::send("agent", &call("/attach_localport"), Some(&undo)));
        self.note("endpoint undo-all", endpoint::undo_all("agent"));
    }

    /// An address that the attachment holds after it: what rules and routes of the host are possible for.
    fn leases(&mut self) -> Option<String> {
        let store = self.note("leases open", leases::open(None))?;
        let ranges = [leases::Range { first: "10.77.0.10".into(), last: "10.77.0.20".into() }];
        let leased = self.note("leases store.reserve-next", store.reserve_next(0, &ranges, &[]));
        self.note("leases store.reserve", store.reserve(1, "10.77.0.30"));
        self.note("leases store.held", store.held());
        self.note("leases store.available", store.available(&ranges));
        self.note("leases store.retain", store.retain(&[]));
        self.note("leases store.release", store.release());
        leased
    }

    fn delegates(&mut self, subject: &Subject<'_>) {
        let leaf = subject.config.replace("\"report\"", "\"leaf\"");
        self.note_failure("delegate add", delegate::add("conformance", &leaf, &[]));
        self.note_failure("delegate check", delegate::check("conformance", &leaf, &[]));
        self.note_failure("delegate gc", delegate::gc("conformance", &leaf, &[]));
        self.note_failure("delegate status", delegate::status("conformance", &leaf, &[]));
        self.note_failure("delegate del", delegate::del("conformance", &leaf, &[]));
    }

    fn bridge(&mut self, node: &Netns) -> Option<Link> {
        self.note("shared ensure-sysctl", shared::ensure_sysctl(node, "ipv4/ip_forward", "1"));
        let ensure = |filtering| shared::ensure_bridge(&Device::new(node).named("sw0").up(), filtering);
        self.note("shared check-bridge", shared::check_bridge(&Device::new(node).named("sw0").up(), true));
        // A kernel whose bridges can't filter VLANs says so; one without is as good for all but the VLANs.
        let bridge = match self.note("shared ensure-bridge", ensure(true)) {
            Some(bridge) => bridge,
            None => ensure(false).or_else(|_| node.link("sw0")).ok()?,
        };
        self.note("shared ensure-address", shared::ensure_address(&bridge, &Address::new("10.77.0.1/24"), false));
        self.note("shared ensure-promisc", shared::ensure_promisc(&bridge, true));
        self.note("shared ensure-mac", shared::ensure_mac(&bridge, "0a:58:0a:4d:00:01"));
        self.note("shared ensure-vlan-port", shared::ensure_vlan_port(&bridge, 7));
        Some(bridge)
    }

    /// Links of every kind.
    fn kinds(&mut self, node: &Netns, place: &Netns, bridge: Option<&Link>) {
        self.note("links create-dummy", links::create_dummy(&Device::new(node).named("sw1").up()));
        self.note(
            "links create-vxlan",
            links::create_vxlan(&Device::new(node).named("sw2"), 77, "127.0.0.1", 4789, false),
        );
        self.note("links create-vrf", links::create_vrf(&Device::new(node).named("sw3"), 7777));
        self.note("links create-tap", links::create_tap(&Device::new(place).named("sw4"), &[]));
        let device = |name| Device::new(node).named(name);
        let parents = links::create_veth(&device("sw9").up(), &device("sw10").up()).ok();
        let made = parents.is_some();
        let (parent, other) = match &parents {
            Some((one, other)) => (Some(one), Some(other)),
            None => (bridge, bridge),
        };
        let (Some(parent), Some(other)) = (parent, other) else { return };
        self.note("links create-vlan", links::create_vlan(&device("sw5"), parent, 7));
        let macvlan = links::create_macvlan(&device("sw6"), parent, links::MacvlanMode::Bridge);
        // A device carries either macvlans or ipvlans.
        if let Some(macvlan) = self.note("links create-macvlan", macvlan) {
            self.note("links remove", links::remove(&macvlan));
        }
        let ipvlan = links::create_ipvlan(&device("sw7"), parent, links::IpvlanMode::L2);
        self.note("links create-ipvlan", ipvlan);
        self.note("links move-to", links::move_to(other, place, "moved"));
        if !made {
            self.note("links remove", links::remove(parent));
        }
    }

    /// What is done with the container's interface.
    fn inside(&mut self, place: &Netns, inside: &Link, ifname: &str, leased: &str) {
        let address = [leased, "/24"].concat();
        let changes = Changes { txqlen: Some(500), ..Changes::default() };
        self.note("links change", links::change(inside, &changes));
        let addresses = [Address::new(address.as_str()).no_dad()];
        let routes = [Route::new("10.78.0.0/24").via("10.77.0.1")];
        self.note("configure apply", configure::apply(inside, &addresses, &routes));
        self.note("addresses add", addresses::add(inside, &Address::new("10.77.1.2/24")));
        self.note("addresses get", addresses::get(inside));
        self.note("addresses remove", addresses::remove(inside, "10.77.1.2/24"));

        let route = Route::new("10.79.0.0/24").via("10.77.0.1");
        self.note("routes add", routes::add(inside, &route));
        self.note("routes append", routes::append(inside, &Route::new("10.79.0.0/24").via("10.77.0.3")));
        self.note("routes replace", routes::replace(inside, &Route::new("10.80.0.0/24").via("10.77.0.1")));
        self.note("routes get", routes::get(place, None));
        self.note("routes lookup", routes::lookup(place, "10.78.0.5"));
        self.note("routes remove", routes::remove(inside, &route));
        let source = Some([leased, "/32"].concat());
        let rule = routes::Rule { src: source, dst: None, table: 77, priority: None, extra: Vec::new() };
        self.note("routes add-rule", routes::add_rule(place, &rule));
        self.note("routes get-rules", routes::get_rules(place));
        self.note("routes remove-rule", routes::remove_rule(place, &rule));
        self.note("routes reserve-table", routes::reserve_table(place, 77));

        let key = ["ipv4/conf/", ifname, "/arp_notify"].concat();
        self.note("sysctl read", sysctl::read(place, &key));
        self.note("sysctl write", sysctl::write(place, &key, "1"));
        // Duplicate address detection begins after up to a second and takes one (`addrconf_dad_kick`).
        self.note("wait link-up", wait::link_up(inside, 5000));
        self.note("wait addresses", wait::addresses(inside, 5000));
        self.note("neighbours set", neighbours::set(inside, "10.77.0.1", "0a:58:0a:4d:00:01"));
        self.note("neighbours get", neighbours::get(inside));
        self.note("neighbours remove", neighbours::remove(inside, "10.77.0.1"));
        self.note("neighbours set-fdb", neighbours::set_fdb(inside, "0a:58:0a:4d:00:01", None, &[]));
        self.note("neighbours get-fdb", neighbours::get_fdb(inside));
        self.note("neighbours remove-fdb", neighbours::remove_fdb(inside, "0a:58:0a:4d:00:01", None));
    }

    /// What is done with the node's end of the veth, and with rules.
    fn port(&mut self, node: &Netns, outside: &Link, bridge: Option<&Link>, leased: &str) {
        self.note("links set-master", links::set_master(outside, bridge));
        self.note("bridging set-port", bridging::set_port(outside, true, false, &[]));
        let vlan = bridging::Vlan { first: 7, last: 7, pvid: true, untagged: true };
        self.note("bridging set-vlans", bridging::set_vlans(outside, &[vlan]));
        self.note("bridging get-vlans", bridging::get_vlans(outside));
        let rate = shaping::Rate { bits_per_second: 1_000_000, burst_bits: 100_000, latency_us: 25_000 };
        self.note("shaping limit-output", shaping::limit_output(outside, rate));
        self.note("shaping limit-input", shaping::limit_input(outside, "sw8", rate));
        self.note("shaping limits", shaping::limits(outside));
        self.note("shaping clear", shaping::clear(outside));

        let kinds = [firewall::RuleKind::Masquerade, firewall::RuleKind::SpoofCheck];
        self.note("firewall check-support", firewall::check_support(node, &kinds));
        let Some(rules) = self.note("firewall open", firewall::open(node, "masquerade")) else { return };
        rules.masquerade(leased, &["10.77.0.0/24".into()]);
        self.note("firewall ruleset.commit", rules.commit());
        self.note("firewall ruleset.verify", rules.verify());
        self.note("firewall ruleset.masquerade", rules.commit());
        self.rule(node, "firewall ruleset.spoof-check", |rules| rules.spoof_check(outside, "0a:58:0a:4d:00:0a"));
        self.rule(node, "firewall ruleset.forward", |rules| rules.forward(leased, firewall::Ingress::Open, None));
        let forward = firewall::PortForward {
            protocol: firewall::Protocol::Tcp,
            host_ip: None,
            host_port: 8080,
            to: leased.to_owned(),
            to_port: 80,
            masquerade: true,
            extra: Vec::new(),
        };
        self.rule(node, "firewall ruleset.forward-port", |rules| rules.forward_port(&forward));
        self.note("firewall clear", firewall::clear(node));
    }

    /// A kind of rule is told by the commit of a set that has nothing else.
    fn rule(&mut self, node: &Netns, function: &str, state: impl FnOnce(&firewall::Ruleset)) {
        let rules = firewall::open(node, "one");
        let answer = rules.and_then(|rules| {
            state(&rules);
            rules.commit()
        });
        self.note(function, answer);
    }
}
