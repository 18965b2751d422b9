//! Whose an element is: hashes that can be computed from the attachment alone, so that DEL and GC find it without
//! state, and text for the operator who reads `nft list ruleset`.

use super::message::COMMENT_MAX;
use crate::RuleOwner;
use sha2::{Digest, Sha512};

/// The first bytes of a text's SHA-512.
pub(super) fn hash<const N: usize>(text: &str) -> [u8; N] {
    let digest = Sha512::digest(text.as_bytes());
    let mut first = [0; N];
    first.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
    first
}

/// A network as comments have it.
pub(super) fn network_hash(network: &str) -> [u8; 8] {
    hash(network)
}

/// An attachment in its network as comments have it. The reference plugins hash the same
/// (pkg/ip/ipmasq_nftables_linux.go, `hashForInstance`), so that one prefix finds theirs and ours.
pub(super) fn attachment_hash(container_id: &str, ifname: &str) -> [u8; 8] {
    hash(&format!("{ifname}:{container_id}"))
}

/// What a comment begins with: "<network>-<attachment>", 33 characters.
pub(super) fn prefix(network: &str, container_id: &str, ifname: &str) -> String {
    format!("{}-{}", hex::encode(network_hash(network)), hex::encode(attachment_hash(container_id, ifname)))
}

/// A label as records have it: 8 hex digits, whatever the plugin chose.
pub(super) fn label_hash(label: &str) -> String {
    hex::encode(hash::<4>(label))
}

/// (plugin, network, attachment) in 20 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) network: [u8; 8],
    pub(super) attachment: [u8; 8],
    plugin: [u8; 4],
}

impl Owner {
    pub(super) fn of(owner: &RuleOwner) -> Self {
        Self {
            network: network_hash(&owner.network),
            attachment: attachment_hash(&owner.container_id, &owner.ifname),
            plugin: hash(&owner.plugin),
        }
    }

    /// The key of one of its records in the set `owners`: the owner, and a number from 0 without gaps.
    pub(super) fn slot(&self, number: u32) -> Vec<u8> {
        [&self.network[..], &self.attachment, &self.plugin, &number.to_ne_bytes()].concat()
    }

    /// The owner in such a key.
    pub(super) fn of_slot(key: &[u8]) -> Option<Self> {
        let (network, rest) = key.split_first_chunk()?;
        let (attachment, rest) = rest.split_first_chunk()?;
        Some(Self { network: *network, attachment: *attachment, plugin: *rest.first_chunk()? })
    }

    /// The owner in the comment of an element.
    pub(super) fn of_comment(comment: &str) -> Option<Self> {
        let mut parts = comment.split(',').next()?.split('-');
        let owner =
            Self { network: unhex(parts.next()?)?, attachment: unhex(parts.next()?)?, plugin: unhex(parts.next()?)? };
        parts.next().is_none().then_some(owner)
    }
}

/// The comment of an element: the owner's hashes, then as much readable text as nft takes.
pub(super) fn comment(hashes: &Owner, owner: &RuleOwner, label: &str) -> String {
    let [whose, which, by] = [hex::encode(hashes.network), hex::encode(hashes.attachment), hex::encode(hashes.plugin)];
    let mut comment = [whose, which, by].join("-");
    let RuleOwner { plugin, network, container_id, ifname } = owner;
    for text in [", ", plugin, "/", label, ", net: ", network, ", if: ", ifname, ", id: ", container_id] {
        // What nft can't print between quotes would make `nft list ruleset` unreadable for nft itself.
        comment.extend(text.chars().map(|c| if matches!(c, ' '..='~') && c != '"' && c != '\\' { c } else { '?' }));
    }
    comment.truncate(COMMENT_MAX - 1);
    comment
}

pub(super) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok().map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> RuleOwner {
        RuleOwner {
            plugin: "bridge".into(),
            network: "my\"net".into(),
            container_id: "c".repeat(100),
            ifname: "eth0".into(),
        }
    }

    #[test]
    fn comment_has_the_owner_and_fits() {
        let comment = comment(&Owner::of(&owner()), &owner(), "ipmasq");
        assert_eq!(comment.len(), COMMENT_MAX - 1);
        assert!(comment.contains(", bridge/ipmasq, net: my?net, if: eth0, id: ccc"), "{comment}");
        assert_eq!(Owner::of_comment(&comment), Some(Owner::of(&owner())));
        assert!(comment.starts_with(&prefix("my\"net", &"c".repeat(100), "eth0")));
    }

    #[test]
    fn slot_has_the_owner() {
        assert_eq!(Owner::of_slot(&Owner::of(&owner()).slot(7)), Some(Owner::of(&owner())));
        assert_eq!(Owner::of_slot(&[0; 3]), None);
    }

    #[test]
    fn foreign_comments_have_no_owner() {
        for foreign in ["", "x", "0011223344556677-0011223344556677, net: a", "--", "é-é-é"] {
            assert_eq!(Owner::of_comment(foreign), None, "{foreign}");
        }
    }
}
