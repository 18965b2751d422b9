//! Links on the real kernel: each operation, and the errors a plugin meets.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use sandwire_kernel::linux::LinuxKernel;
use sandwire_kernel::*;
use std::os::fd::AsFd;
use support::*;

fn not_found<T: std::fmt::Debug>(result: Outcome<T>) {
    assert!(matches!(result, Err(KernelError::NotFound(_))), "{result:?}");
}

/// As Go's `net.ParseMAC`, by which the reference reads them.
#[test]
fn macs_in_every_form() {
    for text in ["02:00:5e:10:00:ab", "02-00-5E-10-00-AB", "0200.5e10.00ab", "0200.5E10.00AB"] {
        assert_eq!(text.parse::<Mac>().unwrap().to_string(), "02:00:5e:10:00:ab", "{text}");
    }
    for text in [
        "",
        "02005e1000ab",
        "0200.5e10",
        "0200.5e10.00a",
        "0200.5e10.00ab.",
        "0200.5e10.00ab.0000",
        "02.00.5e.10.00.ab",
        "0200:5e10:00ab",
        "02:00:5e:10:00",
        "02:00:5e:10:00:ab:00:00",
        "+2:00:5e:10:00:ab",
        "02:00:5e:10:00:xy",
    ] {
        let error = text.parse::<Mac>().unwrap_err();
        assert!(
            matches!(&error, KernelError::Invalid(told) if told.contains("is no MAC address")),
            "{text}: {error:?}"
        );
    }
}

#[test]
fn a_pair_across_namespaces_is_made_whole() {
    with_kernel(|kernel, _| {
        let cni0 = bridge(kernel, "cni0");
        let mac: Mac = "0a:58:0a:01:02:03".parse().unwrap();
        let host = DeviceSpec { mtu: Some(1400), master: Some(cni0), ..up(Netns::Host, "veth0a1b2c3d") };
        let pod = DeviceSpec { mtu: Some(1400), mac: Some(mac), ..device(Netns::Container, "eth0") };
        let (a, b) = kernel.create_veth(&host, &pod).unwrap();
        let (a_info, b_info) = (kernel.link_info(a).unwrap(), kernel.link_info(b).unwrap());
        assert_eq!((a_info.name.as_str(), a_info.kind.as_str(), a_info.mtu), ("veth0a1b2c3d", "veth", 1400));
        assert_eq!((a_info.master, a_info.up, a_info.id), (Some(cni0.index), true, a));
        assert_eq!((b_info.name.as_str(), b_info.mac, b_info.mtu, b_info.up), ("eth0", Some(mac), 1400, false));
        assert_eq!(b_info.id.netns, Netns::Container);
        assert_eq!(kernel.veth_peer(a).unwrap().id, b);
        assert_eq!(kernel.veth_peer(b).unwrap().id, a);
        assert!(ip("-d link show veth0a1b2c3d").contains("numtxqueues 1"), "one queue each");
    });
}

#[test]
fn ends_may_be_given_in_either_order_and_place() {
    with_kernel(|kernel, _| {
        let cni0 = bridge(kernel, "cni0");
        // Container first, as the reference does it.
        let host = DeviceSpec { master: Some(cni0), ..up(Netns::Host, "veth1") };
        let (pod, host) = kernel.create_veth(&device(Netns::Container, "eth0"), &host).unwrap();
        assert_eq!((pod.netns, host.netns), (Netns::Container, Netns::Host));
        let info = kernel.link_info(host).unwrap();
        assert_eq!((info.name.as_str(), info.master, info.up), ("veth1", Some(cni0.index), true));

        // Both in the host, both up and ports: the second end gets that in a second message.
        let one = DeviceSpec { master: Some(cni0), ..up(Netns::Host, "one") };
        let two = DeviceSpec { master: Some(cni0), alias: Some("the other".into()), ..up(Netns::Host, "two") };
        let (one, two) = kernel.create_veth(&one, &two).unwrap();
        let (one, two) = (kernel.link_info(one).unwrap(), kernel.link_info(two).unwrap());
        assert_eq!((one.name.as_str(), one.up, one.master), ("one", true, Some(cni0.index)));
        assert_eq!((two.name.as_str(), two.up, two.master), ("two", true, Some(cni0.index)));
        assert_eq!(two.alias.as_deref(), Some("the other"));
        assert_eq!(kernel.veth_peer(one.id).unwrap().id, two.id);

        // Both in the container.
        let (a, b) = kernel.create_veth(&up(Netns::Container, "a"), &up(Netns::Container, "b")).unwrap();
        assert!(kernel.link_info(a).unwrap().up && kernel.link_info(b).unwrap().up);
        kernel.wait_link_up(b, std::time::Duration::from_secs(5)).unwrap();
    });
}

/// The kernel's announcement of a new link answers the first question about it, and no later one.
#[test]
fn a_new_link_is_what_it_is_now() {
    with_kernel(|kernel, _| {
        let looked_at = |kernel: &mut LinuxKernel, link: LinkId| {
            LinuxKernel::open(None).unwrap().link_info(link).map(|info| {
                assert_eq!(kernel.link_info(link).unwrap(), info);
                info
            })
        };
        let (plain, _) = kernel.create_veth(&device(Netns::Host, "plain"), &device(Netns::Container, "eth0")).unwrap();
        let first = kernel.link_info(plain).unwrap();
        assert_eq!(looked_at(kernel, plain), Ok(first.clone()));
        kernel.change_link(plain, &LinkChanges { mtu: Some(1300), ..LinkChanges::default() }).unwrap();
        assert_eq!(kernel.link_info(plain), Ok(LinkInfo { mtu: 1300, ..first }));

        // Changed before anything was asked.
        let (early, _) = kernel.create_veth(&device(Netns::Host, "early"), &device(Netns::Container, "eth1")).unwrap();
        kernel.change_link(early, &LinkChanges { mtu: Some(1300), ..LinkChanges::default() }).unwrap();
        assert_eq!(kernel.link_info(early).unwrap().mtu, 1300);

        // What is done to either end after the announcement.
        let named = DeviceSpec { alias: Some("a name".into()), ..device(Netns::Host, "named") };
        let (named, _) = kernel.create_veth(&named, &device(Netns::Container, "eth2")).unwrap();
        assert_eq!(kernel.link_info(named).unwrap().alias.as_deref(), Some("a name"));
        let (one, _) = kernel.create_veth(&up(Netns::Host, "one"), &up(Netns::Host, "two")).unwrap();
        // Seen by somebody else, so that this one has asked nothing yet. The state follows the carrier when the kernel comes
        // to it (`linkwatch_event`).
        let mut other = LinuxKernel::open(None).unwrap();
        let start = std::time::Instant::now();
        while other.link_info(one).unwrap().operstate != "up" {
            assert!(start.elapsed().as_secs() < 10, "it does not come up");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(kernel.link_info(one).unwrap().operstate, "up");
    });
}

#[test]
fn names_that_are_taken() {
    with_kernel(|kernel, _| {
        pair(kernel, "veth1");
        let pod = device(Netns::Container, "eth0");
        let error = kernel.create_veth(&DeviceSpec::new(Netns::Host), &pod).unwrap_err();
        let KernelError::Exists(text) = error else { panic!("{error:?}") };
        assert!(text.starts_with("container veth name (\"eth0\") peer provided (\"veth"), "{text}");
        assert!(text.contains("already exists (\"eth0\" in the container's namespace)"), "{text}");

        let error = kernel.create_veth(&device(Netns::Host, "veth1"), &device(Netns::Container, "eth1")).unwrap_err();
        assert_eq!(
            error,
            KernelError::Exists(
                "container veth name (\"eth1\") peer provided (\"veth1\") already exists (\"veth1\" in the host's namespace)"
                    .into()
            )
        );
        assert_eq!(kernel.links(Netns::Container).unwrap().len(), 2, "lo and eth0: nothing is left of the failures");
        assert_eq!(kernel.links(Netns::Host).unwrap().len(), 2);
        let again = kernel.create_bridge(&device(Netns::Host, "veth1"), &BridgeSpec::default());
        assert!(matches!(again, Err(KernelError::Exists(_))), "{again:?}");
    });
}

#[test]
fn a_name_is_generated() {
    with_kernel(|kernel, _| {
        let mut names = Vec::new();
        for number in 0..20 {
            let pod = device(Netns::Container, &format!("eth{number}"));
            let (host, _) = kernel.create_veth(&DeviceSpec::new(Netns::Host), &pod).unwrap();
            let name = kernel.link_info(host).unwrap().name;
            assert!(name.len() == 12 && name.starts_with("veth"), "{name}");
            assert!(!names.contains(&name));
            names.push(name);
        }
    });
}

#[test]
fn a_pair_that_cannot_be_finished_is_not_left_behind() {
    with_kernel(|kernel, _| {
        let missing = LinkId { netns: Netns::Host, index: 4711 };
        for (a, b) in [("x", "y"), ("y", "x")] {
            let port = DeviceSpec { master: Some(missing), ..device(Netns::Host, a) };
            assert!(kernel.create_veth(&port, &device(Netns::Host, b)).is_err());
            assert!(kernel.create_veth(&up(Netns::Host, b), &port).is_err());
        }
        assert_eq!(kernel.links(Netns::Host).unwrap().len(), 1);
        let wrong = DeviceSpec { master: Some(missing), ..device(Netns::Container, "eth0") };
        let wrong = kernel.create_veth(&device(Netns::Host, "x"), &wrong);
        assert!(matches!(wrong, Err(KernelError::Invalid(_))), "{wrong:?}");
    });
}

#[test]
fn looking() {
    with_kernel(|kernel, _| {
        not_found(kernel.link_by_name(Netns::Host, "nope"));
        not_found(kernel.link_info(LinkId { netns: Netns::Container, index: 99 }));
        let lo = kernel.link_by_name(Netns::Container, "lo").unwrap();
        assert!(lo.loopback && !lo.up && lo.kind.is_empty() && lo.id.index == 1);
        not_found(kernel.veth_peer(lo.id));
        let (host, _) = pair(kernel, "veth1");
        let names: Vec<_> = kernel.links(Netns::Host).unwrap().into_iter().map(|link| link.name).collect();
        assert_eq!(names, ["lo", "veth1"]);
        let text = kernel.link_by_name(Netns::Host, "nope").unwrap_err().to_string();
        assert_eq!(text, "link \"nope\" is not in the host's namespace");
        // Without the container the other end is nobody's.
        let mut alone = LinuxKernel::open(None).unwrap();
        assert!(!alone.has_container());
        not_found(alone.veth_peer(host));
        not_found(alone.links(Netns::Container));
        // The namespace is gone, and the link with it.
        alone.delete_link(LinkId { netns: Netns::Container, index: 2 }).unwrap();
        alone.delete_links(&[LinkId { netns: Netns::Container, index: 2 }]).unwrap();
        not_found(alone.create_veth(&device(Netns::Host, "x"), &device(Netns::Container, "y")));
    });
}

#[test]
fn the_peer_in_a_third_namespace_is_not_taken_for_the_containers() {
    with_privileged_kernel(|kernel, _| {
        // Indexes count from the same number in every namespace, so the container has a link of the foreign peer's
        // index: an index alone would deceive.
        let (_, pod) = pair(kernel, "veth1");
        let third = new_netns();
        let mut other = LinuxKernel::open(Some(third.as_fd())).unwrap();
        let (foreign, far) = pair(&mut other, "veth2");
        assert_eq!(far.index, pod.index);
        not_found(kernel.veth_peer(foreign));
        assert_eq!(other.veth_peer(foreign).unwrap().id, far);
    });
}

#[test]
fn changing() {
    with_kernel(|kernel, _| {
        let (host, pod) = pair(kernel, "veth1");
        let mac: Mac = "0a:00:00:00:00:07".parse().unwrap();
        let changes = LinkChanges {
            up: Some(true),
            mac: Some(mac),
            mtu: Some(1300),
            txqlen: Some(77),
            promisc: Some(true),
            allmulti: Some(true),
            alias: Some("net1".into()),
            group: Some(5),
            name: Some("eth7".into()),
        };
        kernel.change_link(pod, &changes).unwrap();
        let info = kernel.link_info(pod).unwrap();
        assert_eq!((info.name.as_str(), info.mac, info.mtu, info.txqlen), ("eth7", Some(mac), 1300, 77));
        assert_eq!((info.up, info.promisc, info.allmulti, info.group), (true, true, true, 5));
        assert_eq!(info.alias.as_deref(), Some("net1"));
        let back =
            LinkChanges { promisc: Some(false), up: Some(false), alias: Some(String::new()), ..LinkChanges::default() };
        kernel.change_link(pod, &back).unwrap();
        let info = kernel.link_info(pod).unwrap();
        assert_eq!((info.promisc, info.up, info.alias, info.mtu), (false, false, None, 1300));

        let error = kernel.change_link(host, &LinkChanges { mtu: Some(1), ..LinkChanges::default() }).unwrap_err();
        assert!(
            matches!(&error, KernelError::Invalid(text) if text.contains("veth1") && text.contains("mtu")),
            "{error:?}"
        );
        not_found(kernel.change_link(LinkId { netns: Netns::Host, index: 99 }, &back));
    });
}

#[test]
fn masters() {
    with_kernel(|kernel, _| {
        let (cni0, (host, pod)) = (bridge(kernel, "cni0"), pair(kernel, "veth1"));
        kernel.set_master(host, Some(cni0)).unwrap();
        assert_eq!(kernel.link_info(host).unwrap().master, Some(cni0.index));
        kernel.set_master(host, None).unwrap();
        assert_eq!(kernel.link_info(host).unwrap().master, None);
        assert!(matches!(kernel.set_master(pod, Some(cni0)), Err(KernelError::Invalid(_))));
        let error = kernel.set_master(cni0, Some(cni0)).unwrap_err().to_string();
        assert!(error.starts_with("failed to connect \"cni0\" to bridge \"cni0\""), "{error}");
    });
}

#[test]
fn bridges_and_other_kinds() {
    with_kernel(|kernel, _| {
        let spec = DeviceSpec { mtu: Some(1450), mac: Some(Mac([2, 0, 0, 0, 0, 1])), ..up(Netns::Host, "cni0") };
        let cni0 = kernel.create_bridge(&spec, &BridgeSpec::default()).unwrap();
        let info = kernel.link_info(cni0).unwrap();
        assert_eq!((info.kind.as_str(), info.mtu, info.up, info.mac), ("bridge", 1450, true, spec.mac));

        let dummy = kernel.create_virtual(&up(Netns::Host, "dummy0"), &VirtualKind::Dummy);
        let parent = match dummy {
            Ok(dummy) => dummy,
            // The module is not in every kernel; a veth serves as a parent too.
            Err(KernelError::Unsupported(text)) => {
                lacks(&text);
                pair(kernel, "veth9").0
            }
            Err(error) => panic!("{error}"),
        };
        // A link is either macvlan's or ipvlan's.
        let second = kernel.create_veth(&up(Netns::Host, "veth7"), &device(Netns::Host, "veth8")).unwrap().0;
        let kinds = [
            (
                "macvlan",
                VirtualKind::Macvlan { parent, mode: 4, broadcast_queue: None },
                Some(("macvlan.mode", "bridge")),
            ),
            ("ipvlan", VirtualKind::Ipvlan { parent: second, mode: 0 }, Some(("ipvlan.mode", "l2"))),
            ("vlan", VirtualKind::Vlan { parent, id: 7 }, Some(("vlan.id", "7"))),
            (
                "vxlan",
                VirtualKind::Vxlan { id: 42, local: "10.0.0.1".parse().unwrap(), port: 4789, learning: false },
                Some(("vxlan.id", "42")),
            ),
            ("vrf", VirtualKind::Vrf { table: 100 }, Some(("vrf.table", "100"))),
        ];
        for (name, kind, extra) in kinds {
            // macvlan and vlan: parent in the host, link in the container, in one message.
            match kernel.create_virtual(&device(Netns::Container, name), &kind) {
                Ok(link) => {
                    let info = kernel.link_info(link).unwrap();
                    assert_eq!((info.name.as_str(), info.kind.as_str()), (name, name));
                    let (key, value) = extra.unwrap();
                    assert!(info.extra.contains(&(key.to_owned(), value.to_owned())), "{:?}", info.extra);
                    kernel.delete_link(link).unwrap();
                    not_found(kernel.link_info(link));
                }
                Err(KernelError::Unsupported(text)) => lacks(&text),
                Err(error) => panic!("{name}: {error}"),
            }
        }
    });
}

#[test]
fn moving() {
    with_kernel(|kernel, _| {
        let (one, two) = kernel.create_veth(&device(Netns::Host, "one"), &device(Netns::Host, "two")).unwrap();
        let moved = kernel.move_link(two, Netns::Container, "net1", Some("two")).unwrap();
        let info = kernel.link_info(moved).unwrap();
        assert_eq!((info.name.as_str(), info.alias.as_deref()), ("net1", Some("two")));
        not_found(kernel.link_by_name(Netns::Host, "two"));
        assert_eq!(kernel.veth_peer(one).unwrap().id, moved);
        let back = kernel.move_link(moved, Netns::Host, "three", Some("")).unwrap();
        assert_eq!(kernel.veth_peer(one).unwrap().id, back);
        assert_eq!(kernel.link_info(back).unwrap().alias, None);
        // The kernel would have moved it by then, under the name that it has.
        assert!(matches!(kernel.move_link(back, Netns::Container, "lo", None), Err(KernelError::Exists(_))));
        assert_eq!(kernel.link_info(back).unwrap().name, "three");
        // A name that another link of the container has: it is given on the way.
        kernel.create_veth(&device(Netns::Container, "four"), &device(Netns::Container, "five")).unwrap();
        let moved = kernel.move_link(back, Netns::Container, "net1", None).unwrap();
        let back = kernel.move_link(moved, Netns::Host, "four", None).unwrap();
        assert_eq!(kernel.link_info(back).unwrap().name, "four");
    });
}

/// "eth0" of a container rides on "eth0" of the node: before Linux 6.14 the kernel looks for the name where it is asked.
#[test]
fn a_name_that_the_parents_namespace_has_too() {
    with_kernel(|kernel, _| {
        let parent = kernel.create_veth(&up(Netns::Host, "eth0"), &device(Netns::Host, "eth9")).unwrap().0;
        let kind = VirtualKind::Macvlan { parent, mode: 4, broadcast_queue: Some(50) };
        for name in ["eth0", "eth9", "eth7"] {
            let link = kernel.create_virtual(&device(Netns::Container, name), &kind).unwrap();
            let info = kernel.link_info(link).unwrap();
            assert_eq!((info.name.as_str(), info.kind.as_str()), (name, "macvlan"));
            assert!(info.extra.contains(&("macvlan.bcqueuelen".to_owned(), "50".to_owned())), "{:?}", info.extra);
            assert_eq!(kernel.link_parent(link).unwrap().id, parent);
            let again = kernel.create_virtual(&device(Netns::Container, name), &kind);
            assert!(matches!(again, Err(KernelError::Exists(_))), "{again:?}");
        }
        not_found(kernel.link_parent(parent));
    });
}
