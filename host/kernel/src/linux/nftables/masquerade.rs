//! `masquerade`: what leaves from a container's address gets the node's, unless it stays in the container's network.
//!
//! Same meaning as the reference's ipMasq (pkg/ip/ipmasq_nftables_linux.go): not towards the excepted networks, not
//! towards multicast. Where the reference adds a rule for each address, here is one for each list of excepted networks.

use super::entry::{Entry, Expressions, GROUP_USE, Group, Table, Wanted};
use super::expression::{
    IPV4_SOURCE, IPV6_SOURCE, Register, count_by, destination_outside, load, masquerade, only_family,
};
use super::message::{FAMILY_INET, FAMILY_IPV4, FAMILY_IPV6, Hook, KeyType, Place};
use super::owner::hash;
use crate::{KernelError, Outcome};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const TABLE: Table = Table {
    place: Place { family: FAMILY_INET, table: super::TABLE },
    chain: "postrouting",
    // NF_INET_POST_ROUTING; NF_IP_PRI_NAT_SRC, which nft calls srcnat.
    hook: Some(Hook { kind: "nat", number: 4, priority: 100 }),
    sets: &[],
    gates: &[],
    group_use: GROUP_USE,
};

/// RFC 5771 and RFC 4291, 2.7: answers to multicast would not be translated back.
const MULTICAST_IPV4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4);
const MULTICAST_IPV6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8);

/// The expressions of one rule may take 4095 bytes in the kernel (`struct nft_rule`, dlen), and there may be 128
/// (NFT_RULE_MAXEXPRS).
const EXCEPT_MAX: usize = 24;
/// A name that is still easy to read.
const NAME_MAX: usize = 64;

/// The entry for `source`.
pub(super) fn wanted(source: IpAddr, except: &[IpNet]) -> Outcome<Wanted> {
    let same_family = except.iter().filter(|net| net.addr().is_ipv4() == source.is_ipv4()).copied().collect();
    let mut nets = IpNet::aggregate(&same_family);
    nets.sort();
    if nets.len() > EXCEPT_MAX {
        return Err(KernelError::Invalid(format!(
            "masquerading of {source} has {} excepted networks; {EXCEPT_MAX} are possible",
            nets.len()
        )));
    }
    let texts: Vec<String> = nets.iter().map(ToString::to_string).collect();
    let group = group(source, &nets, &texts);
    let except = if texts.is_empty() { "multicast".to_owned() } else { format!("{} and multicast", texts.join(", ")) };
    let meaning = format!("masquerading of {source} except to {except}");
    Ok(Wanted { entry: Entry::Address { group: group.name.clone(), address: source }, group, meaning })
}

fn group(source: IpAddr, nets: &[IpNet], texts: &[String]) -> Group {
    let (name, family, key, field, multicast) = match source {
        IpAddr::V4(_) => ("masq4", FAMILY_IPV4, KeyType::IPV4, IPV4_SOURCE, IpNet::V4(MULTICAST_IPV4)),
        IpAddr::V6(_) => ("masq6", FAMILY_IPV6, KeyType::IPV6, IPV6_SOURCE, IpNet::V6(MULTICAST_IPV6)),
    };
    let name = name_of(name, texts);
    let (nets, counter) = (nets.to_vec(), name.clone());
    let rule = Expressions::by(move || {
        let mut rule = only_family(family).to_vec();
        rule.extend(std::iter::once(&multicast).chain(&nets).flat_map(|net| destination_outside(*net)));
        rule.extend([load(field, Register::First), count_by(&counter), masquerade()]);
        rule
    });
    Group { name, key, target: None, rule, first: false }
}

/// "masq4-10.1.2.0/24". nft's names have no colons.
fn name_of(kind: &str, texts: &[String]) -> String {
    let all = texts.join("-").replace(':', "_");
    match all.len() {
        0 => kind.to_owned(),
        length if length < NAME_MAX => format!("{kind}-{all}"),
        _ => format!("{kind}-{}", hex::encode(hash::<12>(&all))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(source: &str, except: &[&str]) -> String {
        let except: Vec<IpNet> = except.iter().map(|n| n.parse().unwrap()).collect();
        wanted(source.parse().unwrap(), &except).unwrap().group.name
    }

    #[test]
    fn equal_exceptions_are_one_group() {
        assert_eq!(name("10.1.2.3", &["10.1.2.0/24"]), "masq4-10.1.2.0/24");
        assert_eq!(name("10.1.2.9", &["10.1.2.9/24", "fd00::/8", "10.1.2.128/25"]), "masq4-10.1.2.0/24");
        assert_eq!(name("fd00::1", &["fd00:0:0:1::/64"]), "masq6-fd00_0_0_1__/64");
        assert_eq!(name("fd00::1", &["10.0.0.0/8"]), "masq6");
        assert_eq!(
            name("10.1.2.3", &["10.4.0.0/16", "10.1.2.0/24"]),
            name("10.1.2.4", &["10.1.2.0/24", "10.4.0.0/16"])
        );
    }

    #[test]
    fn long_exceptions_have_a_hash() {
        let nets: Vec<String> = (0..20).map(|i| format!("10.{}.0.0/16", 2 * i)).collect();
        let name = name("10.1.2.3", &nets.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((name.len(), name.starts_with("masq4-")), (30, true), "{name}");
    }

    #[test]
    fn too_many_exceptions_are_refused() {
        let nets: Vec<IpNet> = (0..=EXCEPT_MAX).map(|i| format!("10.{}.0.0/16", 2 * i).parse().unwrap()).collect();
        assert!(matches!(wanted("10.1.2.3".parse().unwrap(), &nets), Err(KernelError::Invalid(_))));
    }
}
