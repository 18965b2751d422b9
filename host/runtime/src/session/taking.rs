//! Links of the node that the attachment takes into its container, and gives back.
//!
//! The journal says what they were called. So does their alias, as the reference's host-device has it, so that either can give
//! back what the other has taken; but who is root in the container can change that.

use super::{Session, is_a_pods_veth, netns};
use crate::handles::Right;
use crate::refusal::{Answer, Refusal};
use crate::undo::Fate;
use sandwire_cni::Command;
use sandwire_kernel::{Kernel, KernelError, LinkChanges, LinkId, LinkInfo, Netns, Outcome};
use sandwire_policy::{Grant, matches_any};
use sandwire_state::journal::{State, Taken, Undo};
use std::time::Duration;

/// What moving a link to another namespace comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    /// One of the attachment's own.
    Own,
    /// One of the node's into the container.
    Take(Taken),
    /// That one back.
    GiveBack,
}

/// How long is waited for the kernel to take a namespace down (`cleanup_net`), in steps of `STEP`.
const PATIENCE: u32 = 25;
const STEP: Duration = Duration::from_millis(20);

impl Session {
    /// A link by which policy knows the hardware that it is on.
    pub(crate) fn remember_found(&mut self, link: LinkId) {
        self.found.push(link);
    }

    /// Whether policy lets the attachment have this link of the node. What is on it is then the pod's, and no more the node's:
    /// so it is one that the configuration names, which is the operator's word.
    pub(crate) fn may_take(&self, info: &LinkInfo, grant: &Grant) -> bool {
        info.id.netns == Netns::Host
            && !info.loopback
            && !is_a_pods_veth(&info.name)
            && (self.found.contains(&info.id)
                || (matches_any(&grant.links.take, &info.name) && self.given.wants_link(info)))
    }

    /// What a link of the container was called on the node, if the attachment has taken it there.
    pub(crate) fn former_name(&self, info: &LinkInfo, grant: &Grant) -> Option<String> {
        if info.id.netns != Netns::Container {
            return None;
        }
        let noted = self.taken().find(|(name, _)| *name == info.name).map(|(_, former)| former.to_owned());
        let by_the_reference = || info.alias.clone().filter(|alias| matches_any(&grant.links.take, alias));
        noted.or_else(by_the_reference)
    }

    /// Whether the attachment has taken this link of the container.
    pub(crate) fn has_taken(&self, name: &str) -> bool {
        self.taken().any(|(taken, _)| taken == name)
    }

    /// The links that the attachment has taken: what each is called in the container, and was on the node.
    fn taken(&self) -> impl Iterator<Item = (&str, &str)> {
        let entries = self.journal.iter().flat_map(|journal| journal.pending());
        entries.filter(|entry| entry.state != State::Intended).filter_map(|entry| match &entry.undo {
            Undo::MoveLink { name, former_name, taken: Some(_), .. } => Some((name.as_str(), former_name.as_str())),
            _ => None,
        })
    }

    /// What a guest must be allowed to do with a link that it moves: see it, where it could be one to take.
    pub(crate) fn needed_to_move(&self, from: Netns, to: Netns) -> Right {
        match (self.subject.verb, from, to) {
            (Command::Add, Netns::Host, Netns::Container) => Right::See,
            _ => Right::Own,
        }
    }

    /// What it would be to move this link to `to` as `name`, for a guest that has `right` to it.
    ///
    /// # Errors
    /// `denied`, with what to write into the policy where that would help.
    pub(crate) fn movement(&self, info: &LinkInfo, right: Right, to: Netns, name: &str, grant: &Grant) -> Answer<Move> {
        let link = &info.name;
        if right == Right::Own {
            return match self.former_name(info, grant).filter(|_| to == Netns::Host) {
                None => Ok(Move::Own),
                Some(former) if former == name => Ok(Move::GiveBack),
                Some(former) => Err(Refusal::denied(format!(
                    "link {link:?} of the container was {former:?} on the node, and goes back under that name, not as {name:?}"
                ))),
            };
        }
        if name != self.subject.attachment.ifname {
            return Err(Refusal::denied(format!(
                "link {link:?} can get one name in the container, that of the attachment's interface, and not {name:?}"
            )));
        }
        if self.may_take(info, grant) {
            return Ok(Move::Take(Taken { up: info.up, physical: info.kind.is_empty() }));
        }
        let what = format!("take link {link:?} of the node into the container");
        match matches_any(&grant.links.take, link) {
            true => Err(Refusal::denied(format!("may not {what}: the configuration does not name it"))),
            false => Err(Refusal::not_granted(what, grant.to_allow(grant.with_taken(link)))),
        }
    }
}

/// Gives a link back to the node, wherever it is by now.
pub(crate) fn give_back(session: &mut Session, name: &str, former: &str, index: Option<u32>, taken: Taken) -> Fate {
    let Some(kernel) = session.kernel_if_open() else {
        return Fate::Failed(format!("giving link {former:?} back: this call was opened without network namespaces"));
    };
    match find_and_give_back(kernel, name, former, index, taken) {
        Ok(true) => Fate::Undone,
        // What holds a namespace that has no name any more is some process in it.
        Ok(false) => Fate::Later(format!(
            "link {former:?} has not come back to the node: something holds the network namespace that it is in"
        )),
        Err(error) => Fate::Failed(format!("giving link {former:?} back: {error}")),
    }
}

/// False when it is nowhere.
fn find_and_give_back(
    kernel: &mut (dyn Kernel + Send),
    name: &str,
    former: &str,
    index: Option<u32>,
    taken: Taken,
) -> Outcome<bool> {
    let is_it =
        |info: &LinkInfo| info.alias.as_deref() == Some(former) || (info.name == name && index == Some(info.id.index));
    if kernel.has_container()
        && let Some(inside) = kernel.links(Netns::Container)?.into_iter().find(is_it)
    {
        let back = kernel.move_link(inside.id, Netns::Host, former, Some(""))?;
        return set_up(kernel, back, taken).map(|()| true);
    }
    // It leaves a namespace that ends for the initial one, under a name that is free there (`default_device_exit_net`).
    let waits = if taken.physical && !kernel.has_container() { PATIENCE } else { 0 };
    for left in (0..=waits).rev() {
        let links = kernel.links(Netns::Host)?;
        if let Some(back) = links.iter().find(|info| info.alias.as_deref() == Some(former)) {
            let changes = LinkChanges {
                up: Some(false),
                name: (back.name != former).then(|| former.to_owned()),
                alias: Some(String::new()),
                ..LinkChanges::default()
            };
            kernel.change_link(back.id, &changes)?;
            return set_up(kernel, back.id, taken).map(|()| true);
        }
        if !taken.physical || links.iter().any(|info| info.name == former) {
            return Ok(true);
        }
        if left > 0 {
            std::thread::sleep(STEP);
        }
    }
    Ok(false)
}

fn set_up(kernel: &mut (dyn Kernel + Send), link: LinkId, taken: Taken) -> Outcome<()> {
    if !taken.up {
        return Ok(());
    }
    match kernel.change_link(link, &LinkChanges { up: Some(true), ..LinkChanges::default() }) {
        Err(KernelError::NotFound(_)) => Ok(()),
        outcome => outcome,
    }
}

/// The entry that says how to move a link back.
pub(crate) fn undo(link: &LinkInfo, to: Netns, name: &str, index: Option<u32>, movement: Move) -> Undo {
    Undo::MoveLink {
        side: super::side(to),
        name: name.to_owned(),
        to: super::side(link.id.netns),
        former_name: link.name.clone(),
        index,
        taken: match movement {
            Move::Take(taken) => Some(taken),
            Move::Own | Move::GiveBack => None,
        },
    }
}

/// Whether an entry is of this link of the container, that was taken.
pub(crate) fn is_of(undo: &Undo, link: &LinkInfo) -> bool {
    matches!(undo, Undo::MoveLink { side, name, taken: Some(_), .. } if netns(*side) == link.id.netns && *name == link.name)
}
