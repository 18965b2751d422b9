use super::*;
use crate::go_json::{self, Json};
use crate::{Family, Version};
use proptest::prelude::*;
use serde_json::{Value, json};

fn net(text: &str) -> IpNet {
    addr::parse_cidr(text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    addr::parse_ip(text).unwrap()
}

/// The result that the Go library's own tests convert (types/100/types_test.go).
fn reference() -> CniResult {
    let eth0 = Interface {
        socket_path: Some("/path/to/vhost/fd".to_owned()),
        pci_id: Some("8086:9a01".to_owned()),
        ..Interface::new("eth0").with_mac("00:11:22:33:44:55").with_mtu(1500).in_sandbox("/proc/3553/ns/net")
    };
    CniResult::default()
        .with_interface(eth0)
        .with_ip(IpConfig::new(net("1.2.3.30/24")).with_gateway(ip("1.2.3.1")).on_interface(0))
        .with_ip(IpConfig::new(net("abcd:1234:ffff::cdde/64")).with_gateway(ip("abcd:1234:ffff::1")).on_interface(0))
        .with_route(Route::new(net("15.5.6.0/24")).via(ip("15.5.6.8")))
        .with_route(Route::new(net("1111:dddd::/80")).via(ip("1111:dddd::aaaa")))
        .with_dns(Some(Dns {
            nameservers: vec!["1.2.3.4".to_owned(), "1::cafe".to_owned()],
            domain: "acompany.com".to_owned(),
            search: vec!["somedomain.com".to_owned(), "otherdomain.net".to_owned()],
            options: vec!["foo".to_owned(), "bar".to_owned()],
        }))
}

#[test]
fn an_empty_list_overrides_the_dns_of_address_management() {
    #[derive(Default, Deserialize)]
    #[serde(default, rename = "NetConf")]
    struct Config {
        #[serde(deserialize_with = "Dns::said")]
        dns: Option<Dns>,
    }
    let of = |dns: &str| reference().with_dns(go_json::from_str::<Config>(dns).unwrap().dns).dns;
    for silent in ["{}", r#"{"dns": null}"#, r#"{"dns": {}}"#, r#"{"dns": {"nameservers": null, "domain": ""}}"#] {
        assert_eq!(of(silent), reference().dns, "{silent}");
    }
    for empty in [r#"{"dns": {"nameservers": []}}"#, r#"{"dns": {"search": []}}"#, r#"{"DNS": {"Options": []}}"#] {
        assert_eq!(of(empty), Dns::default(), "{empty}");
    }
    assert_eq!(of(r#"{"dns": {"domain": "a.example"}}"#), Dns { domain: "a.example".to_owned(), ..Dns::default() });
    let error = go_json::from_str::<Config>(r#"{"dns": {"nameservers": "192.0.2.53"}}"#).err().unwrap();
    let text = "json: cannot unmarshal string into Go struct field DNS.dns.nameservers of type array";
    assert_eq!(error.to_string(), text);
}

#[test]
fn shapes_of_all_versions() {
    let result = reference();
    let dns = json!({"nameservers": ["1.2.3.4", "1::cafe"], "domain": "acompany.com",
        "search": ["somedomain.com", "otherdomain.net"], "options": ["foo", "bar"]});
    let routes = json!([{"dst": "15.5.6.0/24", "gw": "15.5.6.8"}, {"dst": "1111:dddd::/80", "gw": "1111:dddd::aaaa"}]);
    for version in Version::ALL {
        let expected = match version.family() {
            Family::V02x => json!({"cniVersion": version, "dns": dns,
                "ip4": {"ip": "1.2.3.30/24", "gateway": "1.2.3.1", "routes": [routes[0]]},
                "ip6": {"ip": "abcd:1234:ffff::cdde/64", "gateway": "abcd:1234:ffff::1", "routes": [routes[1]]}}),
            Family::V04x => json!({"cniVersion": version, "dns": dns, "routes": routes,
                "interfaces": [{"name": "eth0", "mac": "00:11:22:33:44:55", "sandbox": "/proc/3553/ns/net"}],
                "ips": [{"version": "4", "interface": 0, "address": "1.2.3.30/24", "gateway": "1.2.3.1"},
                    {"version": "6", "interface": 0, "address": "abcd:1234:ffff::cdde/64", "gateway": "abcd:1234:ffff::1"}]}),
            Family::V1x => json!({"cniVersion": version, "dns": dns, "routes": routes,
                "interfaces": [{"name": "eth0", "mac": "00:11:22:33:44:55", "mtu": 1500, "sandbox": "/proc/3553/ns/net",
                    "pciID": "8086:9a01", "socketPath": "/path/to/vhost/fd"}],
                "ips": [{"interface": 0, "address": "1.2.3.30/24", "gateway": "1.2.3.1"},
                    {"interface": 0, "address": "abcd:1234:ffff::cdde/64", "gateway": "abcd:1234:ffff::1"}]}),
        };
        let text = result.to_json(version).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
        assert!(!text.ends_with('\n'));
    }
}

#[test]
fn text_is_the_go_librarys() {
    let result = CniResult::default()
        .with_interface(Interface::new("eth0").with_mac("0a:58").in_sandbox("/run/netns/x"))
        .with_ip(IpConfig::new(net("10.1.2.3/24")).on_interface(0).with_gateway(ip("10.1.2.1")))
        .with_route(Route { scope: Some(0), priority: Some(5), ..Route::new(net("0.0.0.0/0")) });
    assert_eq!(
        result.to_json(Version::V040).unwrap(),
        r#"{
    "cniVersion": "0.4.0",
    "interfaces": [
        {
            "name": "eth0",
            "mac": "0a:58",
            "sandbox": "/run/netns/x"
        }
    ],
    "ips": [
        {
            "version": "4",
            "interface": 0,
            "address": "10.1.2.3/24",
            "gateway": "10.1.2.1"
        }
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0",
            "priority": 5,
            "scope": 0
        }
    ],
    "dns": {}
}"#
    );
    assert_eq!(
        result.to_json(Version::V110).unwrap(),
        r#"{
    "cniVersion": "1.1.0",
    "interfaces": [
        {
            "mac": "0a:58",
            "name": "eth0",
            "sandbox": "/run/netns/x"
        }
    ],
    "ips": [
        {
            "address": "10.1.2.3/24",
            "gateway": "10.1.2.1",
            "interface": 0
        }
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0",
            "priority": 5,
            "scope": 0
        }
    ]
}"#
    );
    assert_eq!(
        CniResult::default().to_json(Version::V031).unwrap(),
        "{\n    \"cniVersion\": \"0.3.1\",\n    \"dns\": {}\n}"
    );
    assert_eq!(CniResult::default().to_json(Version::V100).unwrap(), "{\n    \"cniVersion\": \"1.0.0\"\n}");
}

#[test]
fn oldest_shape_needs_an_address() {
    let bridge_only = CniResult::default().with_interface(Interface::new("cni0"));
    for version in [Version::V010, Version::V020] {
        let error = bridge_only.to_json(version).unwrap_err();
        assert_eq!((error.code, error.to_string().as_str()), (999, "cannot convert: no valid IP addresses"));
    }
    for version in [Version::V030, Version::V031, Version::V040, Version::V100, Version::V110] {
        bridge_only.to_json(version).unwrap();
    }
}

#[test]
fn oldest_shape_takes_the_first_of_each_family() {
    let result = CniResult::default()
        .with_ip(IpConfig::new(net("10.0.0.5/24")))
        .with_ip(IpConfig::new(net("10.0.1.5/24")))
        .with_route(Route::new(net("::/0")))
        .with_route(Route { mtu: Some(1400), table: Some(7), ..Route::new(net("0.0.0.0/0")) });
    let value: Value = serde_json::from_str(&result.to_json(Version::V020).unwrap()).unwrap();
    let ip4 = json!({"ip": "10.0.0.5/24", "routes": [{"dst": "0.0.0.0/0"}]});
    assert_eq!(value, json!({"cniVersion": "0.2.0", "ip4": ip4, "dns": {}}));
}

#[test]
fn reads_old_shapes() {
    let text = r#"{"ip4": {"ip": "10.0.0.5/24", "gateway": "10.0.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": null}]},
        "IP6": {"ip": "fd00::5/64", "gateway": ""}, "dns": {"domain": "d"}}"#;
    let result = CniResult::parse(text, Version::V010).unwrap();
    assert_eq!(result.addresses().collect::<Vec<_>>(), [net("10.0.0.5/24"), net("fd00::5/64")]);
    assert_eq!(result.routes, [Route::new(net("0.0.0.0/0"))]);
    assert_eq!(result.ips[1].gateway, None);
    assert_eq!(result.dns.domain, "d");

    let text = r#"{"cniVersion": "0.4.0", "interfaces": [{"name": "a", "mac": "", "mtu": 5, "pciID": "x"}],
        "ips": [{"version": "6", "address": "10.0.0.5/24", "interface": 0}]}"#;
    // The declared version counts, not the configuration's.
    let result = CniResult::parse(text, Version::V110).unwrap();
    assert_eq!(result.interfaces, [Interface::new("a")]);
    assert_eq!(result.ips, [IpConfig::new(net("10.0.0.5/24")).on_interface(0)]);
}

#[test]
fn refuses_what_is_no_result() {
    for (text, message) in [
        ("", "unexpected end of JSON input"),
        ("[]", "json: cannot unmarshal array into Go value of type types100.Result"),
        (r#"{"cniVersion": "9.9.9"}"#, r#"unsupported CNI result version "9.9.9""#),
        (r#"{"cniVersion": 1}"#, "json: cniVersion of a result is no string"),
        (r#"{"ips": [{"address": "10.0.0.300/24"}]}"#, "invalid CIDR address: 10.0.0.300/24"),
        (r#"{"ips": [{"address": "10.0.0.3/24", "gateway": "x"}]}"#, "invalid IP address: x"),
        (
            r#"{"ips": [{"address": 5}]}"#,
            "json: cannot unmarshal number into Go struct field IPConfig.ips.address of type string",
        ),
        (r#"{"ips": [{}]}"#, "missing field `address`"),
        (
            r#"{"ips": [{"address": "10.0.0.3/24", "interface": "1"}]}"#,
            "json: cannot unmarshal string into Go struct field IPConfig.ips.interface of type int",
        ),
    ] {
        let error = CniResult::parse(text, Version::V110).unwrap_err();
        assert_eq!((error.code, error.to_string().as_str()), (6, message), "{text}");
    }
}

/// What address managers write that mean none.
#[test]
fn no_interface_has_many_numbers() {
    for number in ["-1", "4294967296", "null"] {
        let text = format!(r#"{{"ips": [{{"address": "10.0.0.3/24", "interface": {number}}}]}}"#);
        assert_eq!(CniResult::parse(&text, Version::V110).unwrap().ips[0].interface, None, "{number}");
    }
}

#[test]
fn questions_about_a_result() {
    let result =
        reference().with_interfaces([Interface::new("eth0"), Interface::new("eth0").in_sandbox("/x")]).with_ips_on(1);
    assert_eq!(result.container_interface("eth0").map(|(place, _)| place), Some(1));
    assert_eq!(result.container_interface("eth1"), None);
    assert_eq!((result.ips_on(0).count(), result.ips_on(1).count()), (0, 2));
    assert_eq!(result.gateway_for(&Route::new(net("0.0.0.0/0"))), Some(ip("1.2.3.1")));
    assert_eq!(result.gateway_for(&Route::new(net("::/0"))), Some(ip("abcd:1234:ffff::1")));
    assert_eq!(result.gateway_for(&Route::new(net("::/0")).via(ip("fd00::1"))), Some(ip("fd00::1")));
    assert_eq!(
        CniResult::default().require_addresses().unwrap_err().to_string(),
        "IPAM plugin returned missing IP config"
    );
}

fn any_net() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<[u8; 4]>(), 0..=32u8).prop_map(|(ip, len)| IpNet::new(IpAddr::from(ip), len).unwrap()),
        (any::<[u8; 15]>(), 0..=128u8).prop_map(|(rest, len)| {
            // Not an IPv4 address inside IPv6, which is read as IPv4.
            let mut ip = [0xfd; 16];
            ip[1..].copy_from_slice(&rest);
            IpNet::new(IpAddr::from(ip), len).unwrap()
        }),
    ]
}

fn any_result() -> impl Strategy<Value = CniResult> {
    let text = || "[ -~]{1,12}";
    let size = || prop::option::of(1..=u32::MAX);
    let interface = (text(), prop::option::of(text()), size(), prop::option::of(text()), prop::option::of(text()))
        .prop_map(|(name, mac, mtu, sandbox, other)| Interface {
            name,
            mac,
            mtu,
            sandbox,
            pci_id: other.clone(),
            socket_path: other,
        });
    let address = (any_net(), prop::option::of(any_net()), any::<Option<u32>>())
        .prop_map(|(address, gateway, interface)| IpConfig { interface, address, gateway: gateway.map(|g| g.addr()) });
    let route = (any_net(), prop::option::of(any_net()), [size(), size(), size()], any::<[Option<u32>; 2]>()).prop_map(
        |(dst, gw, [mtu, advmss, priority], [table, scope])| Route {
            dst,
            gw: gw.map(|gw| gw.addr()),
            mtu,
            advmss,
            priority,
            table,
            scope,
        },
    );
    let words = || prop::collection::vec(text(), 0..3);
    let dns = (words(), ".{0,6}", words(), words()).prop_map(|(nameservers, domain, search, options)| Dns {
        nameservers,
        domain,
        search,
        options,
    });
    let list = 0..4usize;
    (
        prop::collection::vec(interface, list.clone()),
        prop::collection::vec(address, list.clone()),
        prop::collection::vec(route, list),
        dns,
    )
        .prop_map(|(interfaces, ips, routes, dns)| CniResult { interfaces, ips, routes, dns })
}

/// What is left of a result in the shape of 0.3.0 to 0.4.0.
fn without_interface_extras(mut result: CniResult) -> CniResult {
    for interface in &mut result.interfaces {
        (interface.mtu, interface.pci_id, interface.socket_path) = (None, None, None);
    }
    result
}

/// What is left of a result in the shape of 0.1.0 and 0.2.0.
fn without_lists(result: &CniResult) -> CniResult {
    let mut left = CniResult { dns: result.dns.clone(), ..CniResult::default() };
    for v4 in [true, false] {
        if let Some(ip) = result.ips.iter().find(|ip| ip.address.addr().is_ipv4() == v4) {
            left.ips.push(IpConfig { interface: None, ..ip.clone() });
            let routes = result.routes.iter().filter(|route| route.dst.addr().is_ipv4() == v4);
            left.routes.extend(routes.map(|route| Route { gw: route.gw, ..Route::new(route.dst) }));
        }
    }
    left
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_version_reads_what_it_wrote(result in any_result(), undeclared in prop::sample::select(&Version::ALL[..])) {
        for version in Version::ALL {
            let expected = match version.family() {
                Family::V1x => result.clone(),
                Family::V04x => without_interface_extras(result.clone()),
                Family::V02x if result.ips.is_empty() => {
                    prop_assert!(result.to_json(version).is_err());
                    continue;
                }
                Family::V02x => without_lists(&result),
            };
            let text = result.to_json(version).unwrap();
            prop_assert_eq!(&CniResult::parse(&text, undeclared).unwrap(), &expected);
            // Once in a version's shape, a result stays as it is in its whole family and in every newer one.
            for other in Version::ALL.into_iter().filter(|other| other.family() >= version.family()) {
                let text = expected.to_json(other).unwrap();
                prop_assert_eq!(&CniResult::parse(&text, undeclared).unwrap(), &expected);
            }
        }
    }

    #[test]
    fn own_json_is_the_newest_shape(result in any_result()) {
        let text = serde_json::to_string(&result).unwrap();
        prop_assert_eq!(&CniResult::parse(&text, Version::NEWEST).unwrap(), &result);
        prop_assert_eq!(&serde_json::from_str::<CniResult>(&text).unwrap(), &result);
        prop_assert_eq!(&go_json::from_str::<CniResult>(&text).unwrap(), &result);
    }

    /// As the Go library writes a map.
    #[test]
    fn since_1_0_keys_are_sorted(result in any_result()) {
        fn is_sorted(tree: &Json) -> bool {
            match tree {
                Json::Array(items) => items.iter().all(is_sorted),
                Json::Object(members) => {
                    members.is_sorted_by(|(a, _), (b, _)| a < b) && members.iter().all(|(_, value)| is_sorted(value))
                }
                _ => true,
            }
        }
        for version in [Version::V100, Version::V110] {
            prop_assert!(is_sorted(&Json::parse(&result.to_json(version).unwrap()).unwrap()));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..48)) {
        let _ = CniResult::parse_slice(&bytes, Version::NEWEST);
    }

    #[test]
    fn damaged_results_are_read_or_refused(
        result in any_result(),
        version in prop::sample::select(&Version::ALL[2..]),
        at in any::<prop::sample::Index>(),
        with in prop::sample::select(&["null", "[]", "{}", "-1", "1.5", "\"\"", "\"x\"", "true"][..]),
    ) {
        let mut tree = Json::parse(&result.to_json(version).unwrap()).unwrap();
        replace(&mut tree, &mut at.index(40), &Json::parse(with).unwrap());
        if let Ok(result) = CniResult::from_tree(tree, version) {
            result.to_json(version).unwrap();
        }
    }
}

/// Puts `with` in place of one of the values inside.
fn replace(tree: &mut Json, countdown: &mut usize, with: &Json) {
    let children: Vec<&mut Json> = match tree {
        Json::Array(items) => items.iter_mut().collect(),
        Json::Object(members) => members.iter_mut().map(|(_, value)| value).collect(),
        _ => Vec::new(),
    };
    for child in children {
        if *countdown == 0 {
            *child = with.clone();
            return;
        }
        *countdown -= 1;
        replace(child, countdown, with);
    }
}
