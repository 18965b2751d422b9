//! sysctl in both namespaces, and opening a namespace from what a runtime names.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use nix::sys::stat::Mode;
use sandwire_kernel::linux::{open_netns, open_own, same_netns};
use sandwire_kernel::*;
use std::os::fd::{AsFd, AsRawFd};
use support::*;

#[test]
fn each_namespace_has_its_own_values() {
    with_privileged_kernel(|kernel, world| {
        let key = "ipv4/ip_forward";
        let host = kernel.read_sysctl(Netns::Host, key).unwrap();
        let before = kernel.read_sysctl(Netns::Container, key).unwrap();
        let new = if before == "1" { "0" } else { "1" };
        assert_eq!(kernel.write_sysctl(Netns::Container, key, new).unwrap(), Some(before));
        assert_eq!(kernel.write_sysctl(Netns::Container, key, new).unwrap(), None, "nothing to take back");
        assert_eq!(kernel.read_sysctl(Netns::Host, key).unwrap(), host);
        let seen = inside(&world.container, || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap());
        assert_eq!(seen.trim(), new);
    });
}

#[test]
fn keys_of_links_made_later() {
    with_kernel(|kernel, _| {
        pair(kernel, "veth1");
        let key = |link: &str| format!("ipv6/conf/{link}/accept_dad");
        kernel.write_sysctl(Netns::Container, &key("eth0"), "0").unwrap();
        assert_eq!(kernel.read_sysctl(Netns::Container, &key("eth0")).unwrap(), "0");
        assert_eq!(kernel.read_sysctl(Netns::Host, &key("veth1")).unwrap(), "1");
        assert!(matches!(kernel.read_sysctl(Netns::Host, &key("eth0")), Err(KernelError::NotFound(_))));
        assert!(matches!(kernel.read_sysctl(Netns::Container, &key("veth1")), Err(KernelError::NotFound(_))));
        assert!(kernel.read_sysctl(Netns::Container, "core/somaxconn").unwrap().parse::<u32>().is_ok());
        let far = "unix/max_dgram_qlen";
        let of_the_host = kernel.read_sysctl(Netns::Host, far).unwrap();
        kernel.write_sysctl(Netns::Container, far, "77").unwrap();
        assert_eq!(kernel.read_sysctl(Netns::Container, far).unwrap(), "77");
        assert_eq!(kernel.read_sysctl(Netns::Host, far).unwrap(), of_the_host);
    });
}

#[test]
fn a_key_that_is_set_without_a_look_before() {
    with_kernel(|kernel, _| {
        pair(kernel, "veth1");
        for (netns, link) in [(Netns::Host, "veth1"), (Netns::Container, "eth0")] {
            let key = |link: &str| format!("ipv4/conf/{link}/arp_notify");
            let others = |kernel: &mut sandwire_kernel::linux::LinuxKernel| {
                ["all", "default", "lo"].map(|link| kernel.read_sysctl(netns, &key(link)).unwrap())
            };
            let others_before = others(kernel);
            for value in ["1", "0", "1"] {
                kernel.set_sysctl(netns, &key(link), value).unwrap();
                assert_eq!(kernel.read_sysctl(netns, &key(link)).unwrap(), value);
            }
            assert_eq!(others(kernel), others_before);
            let text = format!("{:?}", kernel.set_sysctl(netns, &key(link), "yes").unwrap_err());
            assert!(text.contains("Invalid") && text.contains("arp_notify"), "{text}");
            let text = format!("{:?}", kernel.set_sysctl(netns, &key("gone"), "1").unwrap_err());
            assert!(text.contains("NotFound") && text.contains("gone/arp_notify"), "{text}");
        }
    });
}

#[test]
fn what_the_kernel_tells_with_a_link_is_what_the_file_says() {
    with_kernel(|kernel, _| {
        pair(kernel, "veth1");
        for (key, values) in [("accept_ra", ["0", "2", "-1", "1"]), ("disable_ipv6", ["1", "0", "1", "0"])] {
            for (netns, link) in
                [(Netns::Host, "veth1"), (Netns::Host, "lo"), (Netns::Container, "eth0"), (Netns::Container, "lo")]
            {
                let key = format!("ipv6/conf/{link}/{key}");
                for value in values {
                    kernel.set_sysctl(netns, &key, value).unwrap();
                    assert_eq!(kernel.read_sysctl(netns, &key).unwrap(), value, "{netns} {key}");
                }
            }
            let gone = kernel.read_sysctl(Netns::Container, &format!("ipv6/conf/gone/{key}"));
            assert!(matches!(gone, Err(KernelError::NotFound(_))), "{gone:?}");
            let long = kernel.read_sysctl(Netns::Container, &format!("ipv6/conf/{}/{key}", "x".repeat(40)));
            assert!(matches!(long, Err(KernelError::NotFound(_))), "{long:?}");
        }
    });
}

#[test]
fn the_own_namespace_without_the_right_to_ask_a_socket_for_it() {
    with_kernel(|_, _| {
        let asked = open_own().unwrap();
        caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_NET_ADMIN).unwrap();
        let looked_up = open_own().unwrap();
        caps::raise(None, caps::CapSet::Effective, caps::Capability::CAP_NET_ADMIN).unwrap();
        assert!(same_netns(asked.as_fd(), looked_up.as_fd()).unwrap());
    });
}

#[test]
fn bad_keys_and_values() {
    with_kernel(|kernel, _| {
        for netns in [Netns::Host, Netns::Container] {
            for key in ["../kernel/hostname", "ipv4/../../kernel/hostname", "/etc/hostname", "", "ipv4//ip_forward"] {
                let result = kernel.read_sysctl(netns, key);
                assert!(matches!(result, Err(KernelError::Invalid(_))), "{key}: {result:?}");
                let result = kernel.write_sysctl(netns, key, "1");
                assert!(matches!(result, Err(KernelError::Invalid(_))), "{key}: {result:?}");
            }
            let result = kernel.write_sysctl(netns, "ipv4/ip_forward", "yes");
            assert!(matches!(result, Err(KernelError::Invalid(_))), "{result:?}");
            assert!(kernel.read_sysctl(netns, "ipv4").is_err());
            assert!(matches!(kernel.read_sysctl(netns, "ipv4/nope"), Err(KernelError::NotFound(_))));
        }
        let none = kernel.read_sysctl(Netns::Container, "nope/x");
        assert!(matches!(none, Err(KernelError::NotFound(_))), "{none:?}");
    });
}

#[test]
fn what_is_a_namespace() {
    with_kernel(|_, world| {
        let path = |fd: i32| format!("/proc/self/fd/{fd}");
        let container = open_netns(path(world.container.as_raw_fd())).unwrap();
        assert!(!same_netns(open_own().unwrap().as_fd(), container.as_fd()).unwrap());
        let host = open_netns("/proc/thread-self/ns/net").unwrap();
        assert!(same_netns(open_own().unwrap().as_fd(), host.as_fd()).unwrap());

        let text = |path: &str| open_netns(path).unwrap_err();
        assert_eq!(
            text("/run/netns/gone-4711"),
            KernelError::NotFound("failed to Statfs \"/run/netns/gone-4711\": no such file or directory".into())
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
        for path in [&file, &fifo] {
            let error = open_netns(path).unwrap_err();
            let start = format!("unknown FS magic on {path:?}: ");
            let KernelError::Invalid(text) = error else { panic!("{error:?}") };
            assert!(u64::from_str_radix(text.strip_prefix(&start).unwrap(), 16).is_ok(), "{text}");
        }
        for other in ["/proc/self/ns/mnt", "/proc/version"] {
            let error = text(other);
            assert!(matches!(&error, KernelError::Invalid(text) if text.contains("no network namespace")), "{error:?}");
        }
    });
}
