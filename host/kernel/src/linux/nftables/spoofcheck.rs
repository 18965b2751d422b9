//! `spoof-check`: frames from a bridge port whose Ethernet source is not the container's own are dropped.
//!
//! Same meaning as the reference's macspoofchk (pkg/link/spoofcheck.go), which adds two chains for each port.

use super::entry::{ALLOWED, Entry, GROUP_USE, GUARDED, Group, Table, Wanted};
use super::expression::{ETHER_SOURCE, Register, count_by, drop_packet, input_name, load, not_in};
use super::message::{FAMILY_BRIDGE, Hook, KeyType, Place};
use crate::{KernelError, Mac, Outcome};

pub(super) const TABLE: Table = Table {
    place: Place { family: FAMILY_BRIDGE, table: super::TABLE },
    chain: "prerouting",
    // NF_BR_PRE_ROUTING; before everything else, and before the reference's own (NF_BR_PRI_NAT_DST_BRIDGED).
    hook: Some(Hook { kind: "filter", number: 0, priority: -300 }),
    sets: &[(ALLOWED, KeyType::IFNAME.then(KeyType::ETHER))],
    gates: &[],
    group_use: GROUP_USE,
};

/// The entry for a port.
pub(super) fn wanted(port: &str, mac: Mac) -> Outcome<Wanted> {
    if port.is_empty() || port.len() > 15 || port.bytes().any(|b| b == 0 || b.is_ascii_whitespace()) {
        return Err(KernelError::Invalid(format!("{port:?} is no name of a bridge port")));
    }
    let rule = vec![
        input_name(Register::First),
        load(ETHER_SOURCE, Register::Second),
        not_in(ALLOWED),
        input_name(Register::First),
        count_by(GUARDED),
        drop_packet(),
    ];
    let group = Group { name: GUARDED.to_owned(), key: KeyType::IFNAME, target: None, rule: rule.into(), first: false };
    let meaning = format!("dropping of frames from port {port} whose source is not {mac}");
    Ok(Wanted { entry: Entry::Guard { port: port.to_owned(), mac }, group, meaning })
}
