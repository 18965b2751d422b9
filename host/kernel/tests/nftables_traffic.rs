//! What the rules do to packets: three namespaces, an address translated or not, a frame dropped or not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod nft;
#[path = "support/mod.rs"]
mod support;

use nft::{in_netns, ip, masquerade, owner, ruleset};
use sandwire_kernel::linux::Nftables;
use sandwire_kernel::{Mac, Rule};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;
use support::{inside, new_netns};

/// A pod behind this thread's namespace, and a machine outside that knows no way back to the pod's network.
struct Topology {
    pod: OwnedFd,
    outside: OwnedFd,
}

fn topology() -> Topology {
    let (pod, outside) = (new_netns(), new_netns());
    // Neighbour discovery of what is forwarded waits for the link-local address, two seconds of DAD.
    let no_dad = || sysctl("ipv6/conf/default/accept_dad", "0");
    no_dad();
    inside(&pod, no_dad);
    inside(&outside, no_dad);
    for (netns, near, far) in [(&pod, "hostpod", "eth0"), (&outside, "hostout", "out0")] {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd());
        ip(&format!("link add {near} type veth peer name {far} netns {path}"));
        ip(&format!("link set {near} up"));
        inside(netns, || {
            ip("link set lo up");
            ip(&format!("link set {far} up"))
        });
    }
    for (address, link) in [
        ("10.1.2.1/24", "hostpod"),
        ("fd00:1::1/64", "hostpod"),
        ("192.0.2.1/24", "hostout"),
        ("2001:db8::1/64", "hostout"),
    ] {
        ip(&format!("address add {address} dev {link}{}", nodad(address)));
    }
    sysctl("ipv4/ip_forward", "1");
    sysctl("ipv6/conf/all/forwarding", "1");
    inside(&pod, || {
        for address in ["10.1.2.3/24", "fd00:1::3/64"] {
            ip(&format!("address add {address} dev eth0{}", nodad(address)));
        }
        ip("route add default via 10.1.2.1");
        ip("route add default via fd00:1::1");
    });
    inside(&outside, || {
        for address in ["192.0.2.2/24", "198.51.100.2/32", "2001:db8::2/64", "2001:db8:f::2/128"] {
            ip(&format!("address add {address} dev out0{}", nodad(address)));
        }
        // Or else the reverse path filter drops what is not translated.
        ip("route add default via 192.0.2.1");
    });
    ip("route add 198.51.100.2/32 via 192.0.2.2");
    ip("route add 2001:db8:f::2/128 via 2001:db8::2");
    Topology { pod, outside }
}

/// Of the namespace of this thread.
fn sysctl(key: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{key}"), value).unwrap();
}

fn nodad(address: &str) -> &'static str {
    if address.contains(':') { " nodad" } else { "" }
}

/// The source that a datagram from the pod has when it arrives at `destination`; `None`: it does not arrive.
fn source_seen(from: &OwnedFd, at: &OwnedFd, destination: IpAddr) -> Option<IpAddr> {
    let bind = |address: IpAddr| UdpSocket::bind(SocketAddr::new(address, 0)).unwrap();
    let receiver = inside(at, || bind(destination));
    receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let any: IpAddr = if destination.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let sender = inside(from, || bind(any));
    sender.send_to(b"who am I?", receiver.local_addr().unwrap()).unwrap();
    receiver.recv_from(&mut [0; 16]).ok().map(|(_, source)| source.ip())
}

#[test]
fn the_far_side_sees_the_nodes_address() {
    in_netns(|| {
        let world = topology();
        let seen = |to: &str| source_seen(&world.pod, &world.outside, to.parse().unwrap()).map(|ip| ip.to_string());
        let mut nft = Nftables::open().unwrap();
        assert_eq!(seen("192.0.2.2").as_deref(), Some("10.1.2.3"));
        assert_eq!(seen("2001:db8::2").as_deref(), Some("fd00:1::3"));

        let rules = [
            masquerade("10.1.2.3", &["10.1.2.0/24", "198.51.100.0/29"]),
            masquerade("fd00:1::3", &["fd00:1::/64", "2001:db8:f::/61"]),
        ];
        nft.apply(&owner("c1"), "a", &rules).unwrap();
        assert_eq!(seen("192.0.2.2").as_deref(), Some("192.0.2.1"));
        assert_eq!(seen("2001:db8::2").as_deref(), Some("2001:db8::1"));
        // Excepted destinations keep the source.
        assert_eq!(seen("198.51.100.2").as_deref(), Some("10.1.2.3"));
        assert_eq!(seen("2001:db8:f::2").as_deref(), Some("fd00:1::3"));
        assert!(ruleset().contains("packets 1 "), "the counter of the group: {}", ruleset());

        // Another container's rules are not this one's.
        nft.apply(&owner("c2"), "a", &[masquerade("10.1.2.4", &["10.1.2.0/24"])]).unwrap();
        nft.clear(&owner("c1")).unwrap();
        assert_eq!(seen("192.0.2.2").as_deref(), Some("10.1.2.3"));
        nft.clear(&owner("c2")).unwrap();
        assert_eq!(ruleset(), "");
    });
}

/// Whether `from` reaches `to` in the same network by UDP.
fn reaches(from: &OwnedFd, at: &OwnedFd, destination: &str) -> bool {
    source_seen(from, at, destination.parse().unwrap()).is_some()
}

#[test]
fn frames_of_another_source_are_dropped() {
    in_netns(|| {
        use std::os::fd::AsRawFd;
        let (one, two) = (new_netns(), new_netns());
        ip("link add br0 type bridge");
        ip("link set br0 up");
        for (netns, port, address) in [(&one, "veth1", "10.1.2.3"), (&two, "veth2", "10.1.2.4")] {
            let path = format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd());
            ip(&format!("link add {port} type veth peer name eth0 netns {path}"));
            ip(&format!("link set {port} master br0 up"));
            inside(netns, || {
                ip("link set eth0 address 02:00:00:00:00:01 up");
                ip(&format!("address add {address}/24 dev eth0"));
            });
        }
        inside(&two, || ip("link set eth0 address 02:00:00:00:00:02"));
        let becomes = |netns: &OwnedFd, mac: &str| {
            inside(netns, || ip(&format!("link set eth0 address {mac}")));
            for netns in [&one, &two] {
                inside(netns, || ip("neigh flush all"));
            }
        };
        let mut nft = Nftables::open().unwrap();
        assert!(reaches(&one, &two, "10.1.2.4"));
        let rules = [Rule::SpoofCheck { port: "veth1".into(), mac: Mac([2, 0, 0, 0, 0, 1]) }];
        nft.apply(&owner("c1"), "spoof", &rules).unwrap();
        assert!(nft.verify(&owner("c1"), "spoof", &rules).unwrap().is_empty());
        becomes(&one, "02:00:00:00:00:01");
        assert!(reaches(&one, &two, "10.1.2.4"), "its own MAC passes");
        becomes(&one, "02:00:00:00:00:66");
        assert!(!reaches(&one, &two, "10.1.2.4"), "another MAC does not");
        assert!(!ruleset().contains("packets 0 "), "dropped frames are counted: {}", ruleset());
        becomes(&two, "02:00:00:00:00:77");
        becomes(&one, "02:00:00:00:00:01");
        assert!(reaches(&two, &one, "10.1.2.3"), "a port without a check may have any");
        becomes(&one, "02:00:00:00:00:66");
        nft.clear(&owner("c1")).unwrap();
        assert!(reaches(&one, &two, "10.1.2.4"), "after DEL nothing is checked");
        assert_eq!(ruleset(), "");
    });
}
