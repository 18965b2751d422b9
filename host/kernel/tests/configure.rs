//! Addresses, routes, and bringing a link into service.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use sandwire_kernel::*;
use std::time::Duration;
use support::*;

fn via(dst: &str, gateway: &str) -> RouteSpec {
    RouteSpec { via: Some(gateway.parse().unwrap()), ..RouteSpec::new(net(dst)) }
}

#[test]
fn both_families_with_default_routes() {
    with_kernel(|kernel, _| {
        let (host, pod) = pair(kernel, "veth1");
        kernel.configure(host, &[address("10.1.2.1/24"), address("fd00:1::1/64")], &[]).unwrap();
        let routes = [
            via("0.0.0.0/0", "10.1.2.1"),
            via("::/0", "fd00:1::1"),
            RouteSpec { mtu: Some(1400), advmss: Some(1300), priority: Some(5), ..via("192.168.7.9/16", "10.1.2.1") },
            RouteSpec::new(net("172.16.0.0/12")),
        ];
        kernel.configure(pod, &[address("10.1.2.3/24"), address("fd00:1::3/64")], &routes).unwrap();
        let info = kernel.link_info(pod).unwrap();
        assert!(info.up);
        let addresses = kernel.addresses(pod).unwrap();
        for wanted in ["10.1.2.3/24", "fd00:1::3/64"] {
            let found = addresses.iter().find(|a| a.address == net(wanted)).unwrap();
            assert!(found.permanent && !found.tentative && found.scope == 0 && found.peer.is_none(), "{found:?}");
        }
        let present = kernel.routes(Netns::Container, None).unwrap();
        let to = |dst: &str| {
            present.iter().find(|r| r.route.dst == net(dst)).unwrap_or_else(|| panic!("{dst}: {present:#?}"))
        };
        for (dst, gateway) in [("0.0.0.0/0", "10.1.2.1"), ("::/0", "fd00:1::1"), ("192.168.0.0/16", "10.1.2.1")] {
            let route = to(dst);
            assert_eq!((route.route.via, route.link), (Some(gateway.parse().unwrap()), Some(pod)), "{dst}");
            assert_eq!((route.route.table, route.route.protocol), (Some(254), Some(3)), "{dst}");
        }
        let metrics = &to("192.168.0.0/16").route;
        assert_eq!((metrics.mtu, metrics.advmss, metrics.priority), (Some(1400), Some(1300), Some(5)));
        assert_eq!(to("172.16.0.0/12").route.scope, Some(253), "on the link");
        assert!(present.iter().all(|r| r.route.table != Some(255)));
        assert_eq!(kernel.read_sysctl(Netns::Container, "ipv6/conf/eth0/keep_addr_on_down").unwrap(), "1");

        kernel.wait_addresses(pod, Duration::from_secs(5)).unwrap();
        kernel.wait_link_up(pod, Duration::from_secs(5)).unwrap();
        let lookup = kernel.lookup_route(Netns::Container, "8.8.8.8".parse().unwrap()).unwrap();
        assert_eq!(
            (lookup.route.via, lookup.link, lookup.route.table),
            (Some("10.1.2.1".parse().unwrap()), Some(pod), Some(254))
        );
        let lookup = kernel.lookup_route(Netns::Container, "fd00:1::77".parse().unwrap()).unwrap();
        assert_eq!((lookup.route.via, lookup.link), (None, Some(pod)));
        let none = kernel.lookup_route(Netns::Host, "8.8.8.8".parse().unwrap());
        assert!(matches!(none, Err(KernelError::NotFound(_))), "{none:?}");
    });
}

/// A neighbour that knows the address from the container that had it before. It takes no news of addresses that it does
/// not know (arp_accept is 0), and the link is new to it.
#[test]
fn the_neighbours_are_told_where_an_address_lives_now() {
    with_kernel(|kernel, _| {
        let (host, pod) = pair(kernel, "veth1");
        kernel.configure(host, &[address("10.1.2.1/24"), address("fd00:1::1/64")], &[]).unwrap();
        for wanted in ["10.1.2.3", "fd00:1::3"] {
            let text = ip(&format!("neigh replace {wanted} lladdr 02:00:00:00:00:99 dev veth1 nud stale"));
            assert_eq!(text, "");
        }
        for key in ["ipv4/conf/eth0/arp_notify", "ipv6/conf/eth0/ndisc_notify"] {
            kernel.write_sysctl(Netns::Container, key, "1").unwrap();
        }
        kernel.configure(pod, &[address("10.1.2.3/24"), address("fd00:1::3/64")], &[]).unwrap();
        let mac = kernel.link_info(pod).unwrap().mac.unwrap().to_string();
        for wanted in ["10.1.2.3", "fd00:1::3"] {
            let known = || ip(&format!("neigh show {wanted} dev veth1"));
            let told = (0..50).any(|_| {
                std::thread::sleep(Duration::from_millis(20));
                known().contains(&mac)
            });
            assert!(told, "{mac}: {}", known());
        }
    });
}

#[test]
fn ipv6_is_enabled_where_it_was_disabled() {
    with_kernel(|kernel, _| {
        let (_, pod) = pair(kernel, "veth1");
        for interface in ["lo", "eth0"] {
            let key = format!("ipv6/conf/{interface}/disable_ipv6");
            assert_eq!(kernel.write_sysctl(Netns::Container, &key, "1").unwrap().as_deref(), Some("0"));
        }
        let refused = kernel.add_address(pod, &address("fd00::3/64"));
        assert!(matches!(refused, Err(KernelError::Denied(_))), "{refused:?}");
        kernel.configure(pod, &[address("fd00::3/64")], &[]).unwrap();
        for interface in ["lo", "eth0"] {
            assert_eq!(
                kernel.read_sysctl(Netns::Container, &format!("ipv6/conf/{interface}/disable_ipv6")).unwrap(),
                "0"
            );
        }
        assert_eq!(kernel.read_sysctl(Netns::Host, "ipv6/conf/veth1/disable_ipv6").unwrap(), "0");
    });
}

#[test]
fn duplicate_address_detection_is_waited_for() {
    with_kernel(|kernel, _| {
        let (host, pod) = pair(kernel, "veth1");
        kernel.configure(host, &[AddressSpec::new(net("fd00::1/64"))], &[]).unwrap();
        kernel.configure(pod, &[AddressSpec::new(net("fd00::3/64"))], &[]).unwrap();
        assert!(kernel.addresses(pod).unwrap().iter().any(|a| a.tentative));
        let error = kernel.wait_addresses(pod, Duration::from_millis(50)).unwrap_err();
        assert!(
            matches!(&error, KernelError::Timeout(text) if text.contains("still has tentative addresses")),
            "{error}"
        );
        kernel.wait_addresses(pod, Duration::from_secs(10)).unwrap();
        kernel.wait_addresses(host, Duration::from_secs(10)).unwrap();
        // The same address on both ends: the second to come loses.
        kernel.add_address(pod, &AddressSpec::new(net("fd00::1/64"))).unwrap();
        let error = kernel.wait_addresses(pod, Duration::from_secs(10)).unwrap_err();
        assert!(matches!(&error, KernelError::Conflict(text) if text.contains("fd00::1")), "{error}");
    });
}

#[test]
fn waiting_ends_in_time_and_when_told() {
    with_kernel(|kernel, _| {
        let (_, pod) = pair(kernel, "veth1");
        let start = std::time::Instant::now();
        let error = kernel.wait_link_up(pod, Duration::from_millis(120)).unwrap_err();
        assert!(
            matches!(&error, KernelError::Timeout(text) if text.contains("\"down\"") && text.contains("eth0")),
            "{error}"
        );
        assert!((100..1000).contains(&start.elapsed().as_millis()));
        kernel.set_interrupted(|| true);
        let start = std::time::Instant::now();
        assert!(matches!(kernel.wait_link_up(pod, Duration::from_secs(60)), Err(KernelError::Timeout(_))));
        assert!(start.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn the_first_refusal_is_told_in_the_words_of_the_reference() {
    with_kernel(|kernel, _| {
        let (_, pod) = pair(kernel, "veth1");
        kernel.configure(pod, &[address("10.1.2.3/24")], &[]).unwrap();
        let error = kernel.configure(pod, &[address("10.1.2.3/24")], &[]).unwrap_err();
        // What the kernel says beside the errno differs between releases.
        let text = "failed to add IP addr 10.1.2.3/24 to \"eth0\": file exists (EEXIST";
        assert!(matches!(&error, KernelError::Exists(told) if told.starts_with(text)), "{error:?}");
        let error = kernel.configure(pod, &[], &[via("0.0.0.0/0", "192.168.1.1")]).unwrap_err();
        assert!(
            matches!(&error, KernelError::Invalid(text) if text.starts_with("failed to add route '0.0.0.0/0 via 192.168.1.1 dev eth0': network is unreachable")),
            "{error:?}"
        );
        let error = kernel.configure(LinkId { netns: Netns::Container, index: 77 }, &[], &[]).unwrap_err();
        assert!(matches!(error, KernelError::NotFound(_)), "{error:?}");
        let mixed = kernel.configure(pod, &[], &[via("fd00::/64", "10.1.2.1")]);
        assert!(matches!(mixed, Err(KernelError::Invalid(_))), "{mixed:?}");
    });
}

#[test]
fn addresses_one_by_one() {
    with_kernel(|kernel, _| {
        let (_, pod) = pair(kernel, "veth1");
        kernel.add_address(pod, &address("10.0.0.9/30")).unwrap();
        assert!(matches!(kernel.add_address(pod, &address("10.0.0.9/30")), Err(KernelError::Exists(_))));
        kernel.add_address(pod, &address("fd00::9/64")).unwrap();
        assert!(matches!(kernel.add_address(pod, &address("fd00::9/64")), Err(KernelError::Exists(_))));
        let other = kernel.add_address(pod, &address("fd00::9/80"));
        assert!(matches!(other, Err(KernelError::Conflict(_))), "{other:?}");
        let peer = AddressSpec { peer: Some(net("10.9.9.9/32")), ..address("10.0.0.77/32") };
        kernel.add_address(pod, &peer).unwrap();
        let labelled = AddressSpec {
            label: Some("eth0:x".into()),
            scope: Some(253),
            no_prefix_route: true,
            metric: Some(9),
            ..address("10.5.0.1/24")
        };
        kernel.add_address(pod, &labelled).unwrap();
        let all = kernel.addresses(pod).unwrap();
        let find = |text: &str| all.iter().find(|a| a.address == net(text)).unwrap();
        assert_eq!(find("10.0.0.77/32").peer, Some("10.9.9.9".parse().unwrap()));
        assert_eq!(find("10.5.0.1/24").scope, 253);
        assert_eq!(all.len(), 4);
        for address in ["10.0.0.9/30", "fd00::9/64"] {
            kernel.remove_address(pod, net(address)).unwrap();
            let again = kernel.remove_address(pod, net(address));
            assert!(matches!(again, Err(KernelError::NotFound(_))), "{again:?}");
        }
        assert_eq!(kernel.addresses(pod).unwrap().len(), 2);
        let lo = LinkId { netns: Netns::Container, index: 1 };
        assert_eq!(kernel.addresses(lo).unwrap(), []);
    });
}

#[test]
fn routes_one_by_one() {
    with_kernel(|kernel, _| {
        let (_, pod) = pair(kernel, "veth1");
        kernel.configure(pod, &[address("10.1.2.3/24"), address("fd00::3/64")], &[]).unwrap();
        let route = via("10.9.0.0/16", "10.1.2.1");
        kernel.add_route(pod, &route, RouteMode::Add).unwrap();
        let twice = kernel.add_route(pod, &route, RouteMode::Add);
        assert!(matches!(twice, Err(KernelError::Exists(_))), "{twice:?}");
        kernel.add_route(pod, &via("10.9.0.0/16", "10.1.2.2"), RouteMode::Append).unwrap();
        let to = |kernel: &mut linux::LinuxKernel, table, dst: &str| -> Vec<_> {
            let all = kernel.routes(Netns::Container, table).unwrap();
            all.into_iter()
                .filter(|r| r.route.dst == net(dst))
                .filter_map(|r| r.route.via)
                .map(|v| v.to_string())
                .collect()
        };
        assert_eq!(to(kernel, None, "10.9.0.0/16").len(), 2);
        // IPv6 makes it one multipath route, told as two.
        kernel.add_route(pod, &via("fd09::/64", "fd00::1"), RouteMode::Append).unwrap();
        kernel.add_route(pod, &via("fd09::/64", "fd00::2"), RouteMode::Append).unwrap();
        let mut hops = to(kernel, Some(254), "fd09::/64");
        hops.sort();
        assert_eq!(hops, ["fd00::1", "fd00::2"]);
        kernel.add_route(pod, &via("10.9.0.0/16", "10.1.2.7"), RouteMode::Replace).unwrap();
        assert!(to(kernel, None, "10.9.0.0/16").contains(&"10.1.2.7".to_owned()));

        let far = RouteSpec { table: Some(4711), onlink: true, ..via("0.0.0.0/0", "198.51.100.1") };
        kernel.add_route(pod, &far, RouteMode::Add).unwrap();
        let table = kernel.routes(Netns::Container, Some(4711)).unwrap();
        assert_eq!(table.len(), 1);
        assert!(table[0].route.onlink && table[0].route.table == Some(4711));
        assert_eq!(kernel.routes(Netns::Container, Some(4712)).unwrap(), []);
        let ours = RouteSpec {
            src: Some("10.1.2.3".parse().unwrap()),
            protocol: Some(186),
            ..RouteSpec::new(net("10.77.0.0/16"))
        };
        kernel.add_route(pod, &ours, RouteMode::Add).unwrap();
        let found =
            kernel.routes(Netns::Container, None).unwrap().into_iter().find(|r| r.route.dst == ours.dst).unwrap();
        assert_eq!((found.route.src, found.route.protocol), (ours.src, Some(186)));
        let over6 = via("10.66.0.0/16", "fd00::1");
        kernel.add_route(pod, &over6, RouteMode::Add).unwrap();
        assert_eq!(to(kernel, None, "10.66.0.0/16"), ["fd00::1"]);
        for route in [&far, &ours, &over6, &via("fd09::/64", "fd00::1")] {
            kernel.remove_route(pod, route).unwrap();
            let again = kernel.remove_route(pod, route);
            assert!(matches!(again, Err(KernelError::NotFound(_))), "{again:?}");
        }
        assert_eq!(to(kernel, None, "fd09::/64"), ["fd00::2"]);
    });
}

#[test]
fn many_objects_are_all_listed() {
    with_kernel(|kernel, _| {
        let (_, pod) = pair(kernel, "veth1");
        let addresses: Vec<_> = (0..600).map(|n| address(&format!("10.{}.{}.1/32", n / 250, n % 250))).collect();
        kernel.configure(pod, &addresses, &[]).unwrap();
        let routes: Vec<_> =
            (0..600).map(|n| RouteSpec::new(net(&format!("11.{}.{}.0/24", n / 250, n % 250)))).collect();
        kernel.configure(pod, &[], &routes).unwrap();
        assert_eq!(kernel.addresses(pod).unwrap().iter().filter(|a| a.address.addr().is_ipv4()).count(), 600);
        let listed = kernel.routes(Netns::Container, Some(254)).unwrap();
        assert_eq!(listed.iter().filter(|r| r.route.dst.prefix_len() == 24).count(), 600);
    });
}
