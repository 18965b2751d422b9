//! Firewall rules on the real kernel, looked at with `nft` and with traffic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod nft;

use nft::*;
use sandwire_kernel::linux::Nftables;
use sandwire_kernel::{KernelError, Mac, Rule};

const GUARDED_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

#[test]
fn installed_rules_read_as_meant_and_leave_nothing() {
    in_netns(|| {
        let before = ruleset();
        let mut nft = Nftables::open().unwrap();
        let pod = owner("c1");
        let rules = [
            masquerade("10.1.2.3", &["10.1.2.0/24", "192.168.0.128/25"]),
            masquerade("fd00:1::3", &["fd00:1::/64"]),
            Rule::SpoofCheck { port: "veth1".into(), mac: GUARDED_MAC },
        ];
        nft.apply(&pod, "ipmasq", &rules).unwrap();
        let text = ruleset();
        for part in [
            "ip daddr != 224.0.0.0/4 ip daddr != 10.1.2.0/24 ip daddr != 192.168.0.128/25 counter name ip saddr map @masq4-10.1.2.0/24-192.168.0.128/25 masquerade",
            "ip6 daddr != ff00::/8 ip6 daddr != fd00:1::/64 counter name ip6 saddr map @masq6-fd00_1__/64 masquerade",
            "type nat hook postrouting priority srcnat; policy accept;",
            "type filter hook prerouting priority dstnat; policy accept;",
            "iifname . ether saddr != @allowed counter name iifname map @guarded drop",
            ", bridge/ipmasq, net: net1, if: eth0, id: c1\"",
            "\"veth1\" . 02:00:00:00:00:01 comment",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert_eq!(nft.verify(&pod, "ipmasq", &rules).unwrap(), Vec::<String>::new());
        // What is printed is what nft itself takes.
        nft_script(&format!("flush ruleset\n{text}"));
        nft.clear(&pod).unwrap();
        assert_eq!(ruleset(), before);
    });
}

#[test]
fn apply_replaces_what_stood_under_the_label_and_only_that() {
    in_netns(|| {
        let mut nft = Nftables::open().unwrap();
        let pod = owner("c1");
        nft.apply(&pod, "a", &[masquerade("10.1.2.3", &["10.1.2.0/24"])]).unwrap();
        let once = ruleset();
        nft.apply(&pod, "a", &[masquerade("10.1.2.3", &["10.1.2.0/24"])]).unwrap();
        assert_eq!(ruleset(), once);
        nft.apply(&pod, "b", &[masquerade("10.1.2.4", &["10.1.2.0/24"]), masquerade("10.1.2.5", &[])]).unwrap();
        nft.apply(&pod, "a", &[masquerade("10.1.2.6", &["10.1.2.0/24"])]).unwrap();
        let text = ruleset();
        assert!(!text.contains("10.1.2.3 comment"), "{text}");
        for address in ["10.1.2.4", "10.1.2.5", "10.1.2.6"] {
            assert!(text.contains(&format!("{address} comment")), "{text}");
        }
        // Everything of "b" goes, its second group with it.
        nft.apply(&pod, "b", &[]).unwrap();
        let text = ruleset();
        assert_eq!(text.matches("10.1.2.").count() - text.matches("10.1.2.0/24").count(), 2, "{text}");
        assert!(!text.contains("map masq4 {"), "{text}");
        assert!(nft.verify(&pod, "a", &[masquerade("10.1.2.6", &["10.1.2.0/24"])]).unwrap().is_empty());
        assert!(!nft.verify(&pod, "b", &[masquerade("10.1.2.6", &["10.1.2.0/24"])]).unwrap().is_empty());
        nft.apply(&pod, "a", &[]).unwrap();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn an_owner_may_have_many_rules() {
    in_netns(|| {
        let mut nft = Nftables::open().unwrap();
        let pod = owner("c1");
        let rules: Vec<Rule> = (1..=23).map(|i| masquerade(&format!("10.1.2.{i}"), &["10.1.2.0/24"])).collect();
        nft.apply(&pod, "a", &rules).unwrap();
        assert!(nft.verify(&pod, "a", &rules).unwrap().is_empty());
        nft.apply(&pod, "a", &rules[5..9]).unwrap();
        assert!(nft.verify(&pod, "a", &rules[5..9]).unwrap().is_empty());
        assert_eq!(ruleset().matches("bridge/a").count(), 4);
        nft.clear(&pod).unwrap();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn the_longest_rule_fits() {
    in_netns(|| {
        let mut nft = Nftables::open().unwrap();
        let nets: Vec<String> = (0..24).map(|i| format!("fd00:{:x}::/63", 2 * i)).collect();
        let nets: Vec<&str> = nets.iter().map(String::as_str).collect();
        let rules = [masquerade("fd00::1", &nets)];
        nft.apply(&owner("c1"), "a", &rules).unwrap();
        assert!(nft.verify(&owner("c1"), "a", &rules).unwrap().is_empty());
        nft.clear(&owner("c1")).unwrap();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn a_reused_address_belongs_to_who_has_it_now() {
    in_netns(|| {
        let mut nft = Nftables::open().unwrap();
        let (old, new) = (owner("old"), owner("new"));
        let address = masquerade("10.1.2.3", &["10.1.2.0/24"]);
        let guard = |last| Rule::SpoofCheck { port: "veth1".into(), mac: Mac([2, 0, 0, 0, 0, last]) };
        nft.apply(&old, "a", &[masquerade("10.1.2.2", &["10.1.2.0/24"]), address.clone(), guard(1)]).unwrap();
        nft.apply(&new, "a", &[address.clone(), guard(2)]).unwrap();
        assert!(nft.verify(&new, "a", &[address.clone(), guard(2)]).unwrap().is_empty());
        let missing = nft.verify(&old, "a", std::slice::from_ref(&address)).unwrap().join("\n");
        assert!(missing.contains("is another attachment's"), "{missing}");
        assert!(!ruleset().contains("02:00:00:00:00:01"), "{}", ruleset());
        // The late DEL of the old one takes nothing of the new one.
        nft.clear(&old).unwrap();
        assert!(nft.verify(&new, "a", &[address, guard(2)]).unwrap().is_empty());
        nft.clear(&new).unwrap();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn check_sees_what_was_taken_away_and_the_next_container_mends_it() {
    in_netns(|| {
        let mut nft = Nftables::open().unwrap();
        let pod = owner("c1");
        let rules = [masquerade("10.1.2.3", &["10.1.2.0/24"])];
        let missing = |nft: &mut Nftables| nft.verify(&pod, "a", &rules).unwrap().join("\n");
        let chain = "inet sandwire postrouting";

        assert!(missing(&mut nft).contains("element is missing"));
        nft.apply(&pod, "a", &rules).unwrap();
        nft_script("delete element inet sandwire masq4-10.1.2.0/24 { 10.1.2.3 }");
        assert!(missing(&mut nft).contains("element is missing"));
        nft.apply(&pod, "a", &rules).unwrap();
        assert_eq!(missing(&mut nft), "");

        nft_script(&format!("flush chain {chain}"));
        assert!(missing(&mut nft).contains("rule of map"));
        nft.apply(&owner("c2"), "a", &[masquerade("10.1.2.4", &["10.1.2.0/24"])]).unwrap();
        assert_eq!(missing(&mut nft), "");

        nft_script(&format!("flush chain {chain}; add rule {chain} accept comment \"masq4-10.1.2.0/24\""));
        assert!(missing(&mut nft).contains("or was changed"));

        nft_script("flush set inet sandwire owners");
        assert!(missing(&mut nft).contains("record is missing"));
        nft.apply(&pod, "a", &rules).unwrap();

        // Without the chain nothing of the table works: it is made anew.
        nft_script(&format!("flush chain {chain}; delete chain {chain}"));
        assert!(missing(&mut nft).contains("rule of map"));
        nft.apply(&pod, "a", &rules).unwrap();
        assert_eq!(missing(&mut nft), "");

        nft_script("flush ruleset");
        nft.apply(&pod, "a", &rules).unwrap();
        assert_eq!(missing(&mut nft), "");
        nft.clear(&pod).unwrap();
        nft.clear(&pod).unwrap();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn gc_removes_the_networks_stale_attachments_only() {
    in_netns(|| {
        let mut nft = Nftables::open().unwrap();
        let other_network = sandwire_kernel::RuleOwner { network: "net2".into(), ..owner("c1") };
        let other_plugin = sandwire_kernel::RuleOwner { plugin: "bagpipe".into(), ..owner("c1") };
        let guard = |port: &str| Rule::SpoofCheck { port: port.into(), mac: GUARDED_MAC };
        nft.apply(&owner("c1"), "a", &[masquerade("10.1.2.1", &["10.1.2.0/24"]), guard("veth1")]).unwrap();
        nft.apply(&owner("c2"), "a", &[masquerade("10.1.2.2", &[]), guard("veth2")]).unwrap();
        nft.apply(&owner("c3"), "a", &[masquerade("10.1.2.3", &["10.1.2.0/24"])]).unwrap();
        nft.apply(&other_network, "a", &[masquerade("10.1.2.4", &["10.1.2.0/24"])]).unwrap();
        nft.apply(&other_plugin, "a", &[masquerade("10.1.2.5", &["10.1.2.0/24"])]).unwrap();
        // c3's record is lost: its element is found all the same.
        nft_script("flush set inet sandwire owners");
        nft.apply(&owner("c2"), "a", &[masquerade("10.1.2.2", &[]), guard("veth2")]).unwrap();

        nft.retain("net1", &[("c1".into(), "eth0".into())]).unwrap();
        let text = ruleset();
        for (kept, part) in [
            (true, "10.1.2.1 comment"),
            (false, "10.1.2.2 comment"),
            (false, "10.1.2.3 comment"),
            (true, "10.1.2.4 comment"),
            (true, "10.1.2.5 comment"),
            (true, "veth1"),
            (false, "veth2"),
            (false, "masq4 {"),
        ] {
            assert_eq!(text.contains(part), kept, "{part} in\n{text}");
        }
        nft.retain("net2", &[]).unwrap();
        nft.retain("net1", &[]).unwrap();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn wrong_rules_change_nothing() {
    in_netns(|| {
        let mut nft = Nftables::open().unwrap();
        let guard = |port: &str, last| Rule::SpoofCheck { port: port.into(), mac: Mac([2, 0, 0, 0, 0, last]) };
        let forward = Rule::Forward {
            address: "10.1.2.3".parse().unwrap(),
            ingress: sandwire_kernel::Ingress::Isolated,
            bridge: None,
        };
        let first = masquerade("10.1.2.3", &[]);
        let invalid = |outcome| assert!(matches!(outcome, Err(KernelError::Invalid(_))), "{outcome:?}");
        invalid(nft.apply(&owner("c1"), "a", &[first.clone(), guard("a name that is too long", 1)]));
        invalid(nft.apply(&owner("c1"), "a", &[first.clone(), guard("veth1", 1), guard("veth1", 2)]));
        invalid(nft.apply(&owner("c1"), "a", &[first, forward]));
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn without_privilege_the_error_says_so() {
    in_netns(|| {
        caps::clear(None, caps::CapSet::Effective).unwrap();
        let denied = Nftables::open().and_then(|mut nft| nft.apply(&owner("c1"), "a", &[masquerade("10.1.2.3", &[])]));
        let Err(KernelError::Denied(text)) = denied else { panic!("{denied:?}") };
        assert!(text.contains("could not install the firewall rules of \"eth0\" of container c1"), "{text}");
    });
}
