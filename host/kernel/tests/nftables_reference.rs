//! What the reference plugins made is removed with ours, and nothing else of theirs: with Debian's own binaries where they
//! can make it, and from their sources' description for what they don't yet do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod nft;
#[path = "support/mod.rs"]
mod support;

use nft::{in_netns, nft_script, owner, ruleset, run};
use sandwire_kernel::linux::Nftables;
use sha2::{Digest, Sha512};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use support::new_netns;

const PLUGINS: &str = "/usr/lib/cni";

/// Runs the reference's bridge plugin in the namespace of this thread.
fn native(command: &str, container_id: &str, netns: &OwnedFd, config: &str) {
    native_plugin("bridge", command, container_id, netns, config);
}

/// Another one.
fn native_plugin(plugin: &str, command: &str, container_id: &str, netns: &OwnedFd, config: &str) {
    let path = format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd());
    let mut child = Command::new(format!("{PLUGINS}/{plugin}"))
        .env_clear()
        .envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", container_id), ("CNI_NETNS", &path)])
        .envs([("CNI_IFNAME", "eth0"), ("CNI_PATH", PLUGINS), ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("these tests need the package containernetworking-plugins");
    child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn config(address: &str, more: &str) -> String {
    let version = if address.contains(':') { "fd00:1::1" } else { "10.1.2.1" };
    format!(
        r#"{{"cniVersion":"1.0.0","name":"net1","type":"bridge","bridge":"br0"{more},
            "ipam":{{"type":"static","addresses":[{{"address":"{address}","gateway":"{version}"}}]}}}}"#
    )
}

fn hash(text: &str, digits: usize) -> String {
    let hex: String = Sha512::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    hex[..digits].to_owned()
}

#[test]
fn masquerading_by_iptables() {
    in_netns(|| {
        let chain = |container_id: &str| format!("CNI-{}", hash(&format!("net1{container_id}"), 24));
        let (one, two, three) = (new_netns(), new_netns(), new_netns());
        let pods = [("c1", &one, "10.1.2.3/24"), ("c2", &two, "10.1.2.4/24"), ("c3", &three, "fd00:1::3/64")];
        let config = |address: &str| config(address, r#","ipMasq":true"#);
        for (id, netns, address) in pods {
            native("ADD", id, netns, &config(address));
            assert!(ruleset().contains(&chain(id)), "the reference made no rules: {}", ruleset());
        }
        nft_script("add chain ip nat mine; add rule ip nat POSTROUTING jump mine comment \"not a plugin's\"");
        let mut nft = Nftables::open().unwrap();
        // Another network's container of the same id.
        nft.clear(&sandwire_kernel::RuleOwner { network: "net2".into(), ..owner("c1") }).unwrap();
        assert!(ruleset().contains(&chain("c1")));
        for (id, ..) in [&pods[0], &pods[2]] {
            nft.clear(&owner(id)).unwrap();
            assert!(!ruleset().contains(&chain(id)), "{}", ruleset());
        }
        assert!(ruleset().contains(&chain("c2")) && ruleset().contains("jump mine"), "{}", ruleset());
        // iptables can still read what is left.
        assert!(run("iptables", &["-t", "nat", "-S"]).contains(&chain("c2")));

        // Again, in namespaces without the interface.
        let again = [new_netns(), new_netns()];
        for ((id, _, address), netns) in [&pods[0], &pods[2]].into_iter().zip(&again) {
            native("ADD", id, netns, &config(address).replace("br0", "br1"));
            assert!(ruleset().contains(&chain(id)));
        }
        nft.retain("net2", &[]).unwrap();
        nft.retain("net1", &[("c2".into(), "eth0".into())]).unwrap();
        let text = ruleset();
        assert!(!text.contains(&chain("c1")) && !text.contains(&chain("c3")), "{text}");
        assert!(text.contains(&chain("c2")) && text.contains("jump mine"), "{text}");
        nft.retain("net1", &[]).unwrap();
        assert!(!ruleset().contains(&chain("c2")), "{}", ruleset());
        assert_eq!(run("iptables", &["-t", "nat", "-S"]).matches("-A ").count(), 1);
    });
}

#[test]
fn masquerading_by_nftables() {
    in_netns(|| {
        // pkg/ip/ipmasq_nftables_linux.go
        nft_script(
            "table inet cni_plugins_masquerade {
                chain masq_checks { comment \"Masquerade traffic\"; }
                chain postrouting {
                    type nat hook postrouting priority srcnat; policy accept;
                    ip daddr == 224.0.0.0/4 return
                    goto masq_checks
                }
            }",
        );
        let add = |network: &str, id: &str, address: &str| {
            let hashes = format!("{}-{}", hash(network, 16), hash(&format!("eth0:{id}"), 16));
            nft_script(&format!(
                "add rule inet cni_plugins_masquerade masq_checks ip saddr == {address} ip daddr != 10.1.2.0/24 \
                 masquerade comment \"{hashes}, net: {network}, if: eth0, id: {id}\""
            ));
        };
        let rest = ruleset();
        for (network, id, address) in [
            ("net1", "c1", "10.1.2.1"),
            ("net1", "c2", "10.1.2.2"),
            ("net1", "c3", "10.1.2.3"),
            ("net2", "c1", "10.1.2.4"),
        ] {
            add(network, id, address);
        }
        nft_script("add rule inet cni_plugins_masquerade masq_checks ip saddr 10.1.2.9 accept comment \"mine\"");
        let mut nft = Nftables::open().unwrap();
        let there = |last: u8| ruleset().contains(&format!("10.1.2.{last} "));
        nft.clear(&owner("c1")).unwrap();
        assert_eq!([1, 2, 3, 4, 9].map(there), [false, true, true, true, true]);
        nft.retain("net1", &[("c2".into(), "eth0".into())]).unwrap();
        assert_eq!([1, 2, 3, 4, 9].map(there), [false, true, false, true, true]);
        nft.retain("net1", &[]).unwrap();
        nft.retain("net2", &[]).unwrap();
        nft_script("flush chain inet cni_plugins_masquerade masq_checks");
        assert_eq!(ruleset(), rest, "tables and chains of the reference stay");
    });
}

#[test]
fn spoof_checks() {
    in_netns(|| {
        let (one, two) = (new_netns(), new_netns());
        let config = |address: &str| config(address, r#","macspoofchk":true"#);
        native("ADD", "c1", &one, &config("10.1.2.3/24"));
        native("ADD", "c2", &two, &config("10.1.2.4/24"));
        let chain = |id: &str| format!("cni-br-iface-{id}-eth0");
        assert!(ruleset().contains(&chain("c1")), "the reference made no rules: {}", ruleset());
        let mut nft = Nftables::open().unwrap();
        nft.clear(&owner("c1")).unwrap();
        let text = ruleset();
        assert!(!text.contains(&chain("c1")) && text.matches(&chain("c2")).count() >= 4, "{text}");
        nft.clear(&owner("c2")).unwrap();
        assert!(!ruleset().contains("cni-br-iface"), "{}", ruleset());
        native("DEL", "c2", &two, &config("10.1.2.4/24").replace(r#","macspoofchk":true"#, ""));
    });
}

#[test]
fn spoof_checks_of_later_releases() {
    in_netns(|| {
        // pkg/link/spoofcheck.go after 1.9.1
        for id in ["c1", "c2"] {
            let chain = format!("cni-br-iface-{id}-eth0");
            nft_script(&format!(
                "table bridge cni_spoofcheck {{
                    chain {chain}-mac {{
                        ether saddr == 02:00:00:00:00:01 return
                        drop
                    }}
                    chain {chain} {{
                        jump {chain}-mac
                    }}
                    chain prerouting {{
                        type filter hook prerouting priority -300
                        iifname == veth{id} jump {chain} comment \"macspoofchk-{id}-eth0\"
                    }}
                }}"
            ));
        }
        let mut nft = Nftables::open().unwrap();
        nft.clear(&owner("c1")).unwrap();
        let text = ruleset();
        assert!(!text.contains("c1-eth0") && text.matches("c2-eth0").count() >= 4, "{text}");
        nft.clear(&owner("c2")).unwrap();
        assert!(!ruleset().contains("eth0"), "{}", ruleset());
    });
}

fn portmap(container_id: &str) -> sandwire_kernel::RuleOwner {
    sandwire_kernel::RuleOwner { plugin: "portmap".into(), ..owner(container_id) }
}

/// Runs Debian's plugin of a chain for a container with these addresses.
fn native_of_a_chain(plugin: &str, container_id: &str, more: &str, addresses: &[&str]) {
    let ips: Vec<String> = addresses.iter().map(|address| format!(r#"{{"address":"{address}"}}"#)).collect();
    let config = format!(
        r#"{{"cniVersion":"1.0.0","name":"net1","type":"{plugin}"{more},"prevResult":{{"cniVersion":"1.0.0","ips":[{}]}}}}"#,
        ips.join(",")
    );
    let netns = new_netns();
    native_plugin(plugin, "ADD", container_id, &netns, &config);
}

#[test]
fn ports_by_iptables() {
    in_netns(|| {
        let chain = |id: &str| format!("CNI-DN-{}", hash(&format!("net1{id}"), 21));
        // More than 15 ports of one protocol are two jumps.
        let ports: Vec<String> = (0..20)
            .map(|n| format!(r#"{{"hostPort":{},"containerPort":80,"protocol":"tcp"}}"#, 8000 + n))
            .chain([r#"{"hostPort":8053,"containerPort":53,"protocol":"udp"}"#.to_owned()])
            .collect();
        let more = format!(r#","runtimeConfig":{{"portMappings":[{}]}}"#, ports.join(","));
        for id in ["c1", "c2"] {
            native_of_a_chain("portmap", id, &more, &["10.1.2.3/24", "fd00:1::3/64"]);
            assert!(ruleset().matches(&chain(id)).count() > 6, "the reference made no rules: {}", ruleset());
        }
        let mut nft = Nftables::open().unwrap();
        // Neither another network's, nor another plugin's DEL.
        nft.clear(&sandwire_kernel::RuleOwner { network: "net2".into(), ..portmap("c1") }).unwrap();
        nft.clear(&owner("c1")).unwrap();
        assert!(ruleset().contains(&chain("c1")));
        nft.clear(&portmap("c1")).unwrap();
        assert!(!ruleset().contains(&chain("c1")) && ruleset().contains(&chain("c2")), "{}", ruleset());
        for program in ["iptables", "ip6tables"] {
            assert!(run(program, &["-t", "nat", "-S"]).contains(&chain("c2")), "{program} can still read it");
        }
        nft.retain("net1", &[("c2".into(), "eth0".into())]).unwrap();
        nft.retain("net2", &[]).unwrap();
        assert!(ruleset().contains(&chain("c2")));
        nft.retain("net1", &[]).unwrap();
        assert!(!ruleset().contains("CNI-DN-"), "{}", ruleset());
    });
}

#[test]
fn ports_by_nftables() {
    in_netns(|| {
        // plugins/meta/portmap/portmap_nftables.go
        for (family, address) in [("ip", "10.1.2"), ("ip6", "fd00:1:")] {
            let rules = |chain: &str, rule: &str| -> String {
                let one = |id: u8| {
                    let to = if family == "ip" { format!("{address}.{id}") } else { format!("{address}:{id}") };
                    format!("add rule {family} cni_hostport {chain} {} comment \"c{id}\"\n", rule.replace("TO", &to))
                };
                (1..3).map(one).collect()
            };
            nft_script(&format!(
                "add table {family} cni_hostport {{ comment \"CNI portmap plugin\"; }}
                 add chain {family} cni_hostport hostports
                 add chain {family} cni_hostport hostip_hostports
                 add chain {family} cni_hostport masquerading {{ type nat hook postrouting priority 100; }}
                 add chain {family} cni_hostport prerouting {{ type nat hook prerouting priority -100; }}
                 add rule {family} cni_hostport prerouting fib daddr type local jump hostports\n{}{}",
                rules(
                    "hostports",
                    if family == "ip" { "tcp dport 8080 dnat to TO:80" } else { "tcp dport 8080 dnat to [TO]:80" }
                ),
                rules("masquerading", &format!("{family} saddr TO {family} daddr TO masquerade")),
            ));
        }
        let mut nft = Nftables::open().unwrap();
        let of = |id: &str| ruleset().matches(&format!("comment \"{id}\"")).count();
        assert_eq!((of("c1"), of("c2")), (4, 4), "{}", ruleset());
        nft.clear(&portmap("c1")).unwrap();
        assert_eq!((of("c1"), of("c2")), (0, 4), "{}", ruleset());
        nft.clear(&portmap("c2")).unwrap();
        assert_eq!(of("c2"), 0);
        assert!(ruleset().contains("jump hostports"), "chains of the reference stay");
    });
}

#[test]
fn forwarding_by_iptables() {
    in_netns(|| {
        for (id, addresses) in [("c1", ["10.1.2.3/24", "fd00:1::3/64"]), ("c2", ["10.1.2.4/24", "fd00:1::4/64"])] {
            native_of_a_chain("firewall", id, r#","backend":"iptables""#, &addresses);
        }
        let rules = || {
            let all = ["iptables", "ip6tables"].map(|program| run(program, &["-S", "CNI-FORWARD"]));
            ["10.1.2.3/32", "fd00:1::3/128", "10.1.2.4/32", "fd00:1::4/128"].map(|ip| all.join("").matches(ip).count())
        };
        assert_eq!(rules(), [2, 2, 2, 2], "{}", ruleset());
        let mut nft = Nftables::open().unwrap();
        let firewall = sandwire_kernel::RuleOwner { plugin: "firewall".into(), ..owner("c1") };
        let addresses: Vec<std::net::IpAddr> = ["10.1.2.3", "fd00:1::3"].map(|ip| ip.parse().unwrap()).to_vec();
        nft.clear_reference(&owner("c1"), &addresses).unwrap();
        assert_eq!(rules(), [2, 2, 2, 2], "another plugin has nothing there");
        nft.clear_reference(&firewall, &addresses).unwrap();
        assert_eq!(rules(), [0, 0, 2, 2], "{}", ruleset());
        nft.clear_reference(&firewall, &[]).unwrap();
        assert!(run("iptables", &["-S", "CNI-FORWARD"]).contains("CNI-ADMIN"), "what all share stays");
    });
}

/// Ports, forwarding and spoof checks don't say of which network they are: for GC they are those of given containers and addresses.
#[test]
fn thousands_that_say_no_network() {
    in_netns(|| {
        const COUNT: u16 = 4000;
        let address = |n: u16| std::net::Ipv4Addr::from(0x0a01_0002 + u32::from(n));
        nft_script(
            "add table ip cni_hostport; add chain ip cni_hostport hostports; add table ip filter; add chain ip filter CNI-FORWARD
             add table bridge nat; add chain bridge nat PREROUTING { type filter hook prerouting priority -300; }",
        );
        let rules = (0..COUNT).map(|n| {
            let (address, guard) = (address(n), format!("cni-br-iface-c{n}-eth0"));
            let checked = format!(
                "add chain bridge nat {guard}; add chain bridge nat {guard}-mac
                 add rule bridge nat {guard} jump {guard}-mac; add rule bridge nat PREROUTING iifname v{n} jump {guard}\n"
            );
            format!(
                "add rule ip cni_hostport hostports tcp dport {} accept comment \"c{n}\"
                 add rule ip filter CNI-FORWARD ip saddr {address} counter accept
                 {}",
                n + 1,
                if n < 20 { checked } else { String::new() }
            )
        });
        nft_script(&rules.collect::<String>());
        let gone = (0..COUNT).filter(|n| *n != 7).map(|n| (format!("c{n}"), "eth0".to_owned(), address(n).into()));
        Nftables::open().unwrap().collect_reference(&gone.collect::<Vec<_>>()).unwrap();
        let text = ruleset();
        let left = ["dport", "saddr", "iifname", "chain cni-br-iface"].map(|what| text.matches(what).count());
        assert_eq!(left, [1, 1, 1, 2], "{text}");
        assert!(text.contains("\"c7\"") && text.contains("10.1.0.9 ") && text.contains("v7"), "{text}");
    });
}

/// One container in two networks: GC of the first leaves what leads to its address in the second.
#[test]
fn ports_of_a_container_in_two_networks() {
    in_netns(|| {
        nft_script(
            "add table ip cni_hostport; add chain ip cni_hostport hostports; add chain ip cni_hostport hostip_hostports
             add chain ip cni_hostport masquerading { type nat hook postrouting priority 100; }
             add rule ip cni_hostport hostports tcp dport 8080 dnat to 10.1.2.3:80 comment \"c1\"
             add rule ip cni_hostport hostports tcp dport 8081 dnat to 10.9.9.9:80 comment \"c1\"
             add rule ip cni_hostport hostip_hostports ip daddr 192.0.2.1 tcp dport 8080 dnat to 10.1.2.3:80 comment \"c1\"
             add rule ip cni_hostport hostip_hostports ip daddr 192.0.2.1 tcp dport 8081 dnat to 10.9.9.9:80 comment \"c1\"
             add rule ip cni_hostport masquerading ip saddr 10.1.2.3 ip daddr 10.1.2.3 masquerade comment \"c1\"
             add rule ip cni_hostport masquerading ip saddr 10.9.9.9 ip daddr 10.9.9.9 masquerade comment \"c1\"
             add rule ip cni_hostport masquerading ip saddr 127.0.0.1 ip daddr 10.1.2.3 masquerade comment \"c1\"
             add rule ip cni_hostport masquerading ip saddr 127.0.0.1 ip daddr 10.9.9.9 masquerade comment \"c1\"",
        );
        let gone = [("c1".to_owned(), "eth0".to_owned(), "10.1.2.3".parse().unwrap())];
        Nftables::open().unwrap().collect_reference(&gone).unwrap();
        let text = ruleset();
        assert!(!text.contains("10.1.2.3"), "{text}");
        assert_eq!(text.matches("comment \"c1\"").count(), 4, "{text}");
    });
}
