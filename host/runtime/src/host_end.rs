//! The name of a veth's host end that no one chose: a hash of the attachment, so that it can be found again without any
//! state, and known for the attachment's when the journal does not say what became of it.

use sandwire_kernel::LinkInfo;
use sandwire_state::journal::Attachment;
use sha2::{Digest, Sha256, Sha512};

/// How many names an attachment's host end may have: others may be taken.
pub(crate) const NAMES: u32 = 10;

/// The one that is tried at this attempt, from 0.
pub(crate) fn name(attachment: &Attachment, attempt: u32) -> String {
    let mut hash = Sha256::new();
    for part in [&attachment.network, &attachment.container_id, &attachment.ifname] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.update(attempt.to_be_bytes());
    let digest = hash.finalize();
    format!("veth{}", hex::encode(digest.first_chunk::<4>().unwrap_or(&[0; 4])))
}

/// Whether it is one of them.
pub(crate) fn is_of(attachment: &Attachment, name: &str) -> bool {
    (0..NAMES).any(|attempt| self::name(attachment, attempt) == name)
}

/// Whether a link is the IFB that the reference's bandwidth plugin, and ours, makes for the attachment's container: "bwp" and
/// 12 hex digits of a hash of network and container. Both make it before the journal can know its index, if it ever does.
pub(crate) fn is_ifb_of(attachment: &Attachment, info: &LinkInfo) -> bool {
    if info.kind != "ifb" {
        return false;
    }
    let Some(digits) = info.name.strip_prefix("bwp") else { return false };
    let hash = Sha512::new().chain_update(&attachment.network).chain_update(&attachment.container_id).finalize();
    let head = hex::encode(hash.first_chunk::<6>().unwrap_or(&[0; 6]));
    !attachment.container_id.is_empty() && digits == head
}
