//! Links of the node that the attachment takes into its container, and gives back.
//!
//! Which one it is the journal says: by its index in that very namespace, and on the node by its hardware. Names and aliases can be
//! changed by who is root in the container. (The alias is the former name, as the reference's host-device has it, so that either
//! can give back what the other has taken.)

use super::{Session, is_a_pods_veth};
use crate::handles::Right;
use crate::refusal::{Answer, Refusal};
use crate::undo::{self, Fate};
use sandwire_cni::Command;
use sandwire_kernel::{Kernel, LinkChanges, LinkId, LinkInfo, Netns, Outcome};
use sandwire_policy::{Grant, matches_any};
use sandwire_state::journal::{Entry, State, Taken, Undo};
use std::time::Duration;

/// What moving a link to another namespace comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Move {
    /// One of the attachment's own.
    Own,
    /// One of the node's into the container.
    Take(Taken),
    /// That one back; what the journal has of it, unless the reference has taken it.
    GiveBack(Option<Taken>),
}

/// How long DEL waits for the kernel to take a namespace down (`cleanup_net`), in steps of `STEP`.
const PATIENCE: u32 = 25;
const STEP: Duration = Duration::from_millis(20);

/// How a link of the node was that an entry says is taken: its former name, its index in the container and the rest.
fn taken(entry: &Entry) -> Option<(&str, Option<u32>, &Taken)> {
    match &entry.undo {
        Undo::MoveLink { former_name, index, taken: Some(taken), .. } if entry.state != State::Intended => {
            Some((former_name, *index, taken))
        }
        _ => None,
    }
}

impl Session {
    /// A link by which this plugin, by its policy, knows the hardware that it is on.
    pub(crate) fn remember_found(&mut self, plugin: &str, link: LinkId) {
        self.found.push((plugin.to_owned(), link));
    }

    /// Whether policy lets the attachment have this link of the node. What is on it is then the pod's, and no more the node's:
    /// so it is one that the configuration names, which is the operator's word.
    fn may_take(&self, info: &LinkInfo, grant: &Grant) -> bool {
        let is_found = self.found.iter().any(|(plugin, link)| *plugin == grant.plugin && *link == info.id);
        is_found || (matches_any(&grant.links.take, &info.name) && self.given.wants_link(info))
    }

    /// The links that the attachment has taken: most have none.
    fn all_taken(&self) -> impl Iterator<Item = (&str, Option<u32>, &Taken)> {
        self.journal.iter().flat_map(|journal| journal.pending()).filter_map(taken)
    }

    /// Of a link of the container that the attachment has taken there: its former name, and how it was.
    fn entry_of(&self, link: LinkId) -> Option<(&str, &Taken)> {
        let is_at = |index: Option<u32>| link.netns == Netns::Container && index == Some(link.index);
        let mut there = self.all_taken().filter(|(_, index, _)| is_at(*index)).peekable();
        there.peek()?;
        let now = self.container_identity();
        there.find(|(.., taken)| same_netns(taken, now)).map(|(former, _, taken)| (former, taken))
    }

    /// Whether the attachment has taken this link of the container.
    pub(crate) fn has_taken(&self, link: LinkId) -> bool {
        self.entry_of(link).is_some()
    }

    /// What a link of the container was called on the node, if the attachment has taken it there.
    pub(crate) fn former_name(&self, info: &LinkInfo, grant: &Grant) -> Option<String> {
        if self.all_taken().next().is_some() {
            // Who is root in the container can put another link there, at the same index.
            let noted = self.entry_of(info.id).filter(|(_, taken)| taken.hardware == info.hardware);
            return noted.map(|(former, _)| former.to_owned());
        }
        // Taken by the reference. The alias is the word of who is root in the container, within what the operator has said.
        let is_its_own = info.id.netns == Netns::Container && info.name == self.subject.attachment.ifname;
        let alias = info.alias.clone().filter(|_| is_its_own && self.subject.verb != Command::Add)?;
        let is_named = matches_any(&grant.links.take, &alias) && self.given.wants_name(&alias);
        let is_hardware = info.is_hardware() && self.given.names_hardware_of(&grant.devices);
        ((is_named || is_hardware) && !is_a_pods_veth(&alias)).then_some(alias)
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
            return match self.former_name(info, grant) {
                None => Ok(Move::Own),
                Some(former) if former == name && to == Netns::Host && self.subject.verb == Command::Del => {
                    Ok(Move::GiveBack(self.entry_of(info.id).map(|(_, taken)| taken.clone())))
                }
                Some(former) => Err(Refusal::denied(format!(
                    "may not move link {link:?} of the container: it was {former:?} on the node, where it goes back to under that name, in DEL"
                ))),
            };
        }
        let what = format!("take link {link:?} of the node into the container");
        if info.loopback || is_a_pods_veth(link) {
            return Err(Refusal::denied(format!("may not {what}: it is no link that can be taken")));
        }
        if name != self.subject.attachment.ifname {
            return Err(Refusal::denied(format!(
                "link {link:?} can get one name in the container, that of the attachment's interface, and not {name:?}"
            )));
        }
        if self.may_take(info, grant) {
            return Ok(Move::Take(Taken {
                up: info.up,
                alias: info.alias.clone().unwrap_or_default(),
                lasting: info.is_hardware(),
                hardware: info.hardware.clone(),
                netns: self.container_identity(),
            }));
        }
        match matches_any(&grant.links.take, link) {
            true => Err(Refusal::denied(format!("may not {what}: the configuration does not name it"))),
            false => Err(Refusal::not_granted(what, grant.to_allow(grant.with_taken(link)))),
        }
    }

    /// Before a link goes back: what the attachment has changed of it becomes what it was, and can't any more where it is then.
    pub(crate) fn restore_before_move(&mut self, link: LinkId) {
        let of_it =
            |undo: &Undo| undo.link().is_some_and(|(index, _)| index == link.index) && undo::is_in_container(undo);
        undo::sweep(self, |entry| {
            matches!(entry.undo, Undo::RestoreLink { .. } | Undo::SetMaster { .. }) && of_it(&entry.undo)
        });
    }
}

fn same_netns(taken: &Taken, now: Option<u64>) -> bool {
    taken.netns.is_none() || now.is_none() || taken.netns == now
}

/// Whether this is the link of the node that was taken, as far as its hardware says.
pub(crate) fn is_its_hardware(taken: &Taken, info: &LinkInfo) -> bool {
    taken.hardware.is_some() && taken.hardware == info.hardware
}

/// Gives a link back to the node, wherever it is by now.
pub(crate) fn give_back(session: &mut Session, former: &str, index: Option<u32>, taken: &Taken) -> Fate {
    let verb = session.subject.verb;
    let Some(kernel) = session.kernel_if_open() else {
        return Fate::Failed(format!("giving link {former:?} back: this call was opened without network namespaces"));
    };
    match find_and_give_back(kernel, verb, former, index, taken) {
        Ok(true) => Fate::Undone,
        Ok(false) => Fate::Later(format!(
            "link {former:?} has not come back to the node: some process still holds the network namespace that it is in (lsns --type net shows it); when that has ended, run: sandwirectl repair"
        )),
        Err(error) => Fate::Failed(format!("giving link {former:?} back: {error}")),
    }
}

/// False when it is nowhere.
fn find_and_give_back(
    kernel: &mut (dyn Kernel + Send),
    verb: Command,
    former: &str,
    index: Option<u32>,
    taken: &Taken,
) -> Outcome<bool> {
    // What a killed call did not come to note: the alias is then as that call set it, or the container's root.
    let is_it = |info: &LinkInfo| {
        let is_named = || info.alias.as_deref() == Some(former);
        info.hardware == taken.hardware && index.map_or_else(is_named, |index| index == info.id.index)
    };
    let now = kernel.identity(Netns::Container);
    if kernel.has_container()
        && same_netns(taken, now)
        && let Some(inside) = kernel.links(Netns::Container)?.into_iter().find(is_it)
    {
        let back = kernel.move_link(inside.id, Netns::Host, former, Some(&taken.alias))?;
        // An ADD that fails leaves what it found; after DEL it is down, as the reference leaves it.
        if taken.up && verb == Command::Add {
            kernel.change_link(back, &LinkChanges { up: Some(true), ..LinkChanges::default() })?;
        }
        return Ok(true);
    }
    // The kernel has destroyed it with its namespace.
    if !taken.lasting {
        return Ok(true);
    }
    // Or puts it into the initial one, under a name that is free there (`default_device_exit_net`).
    let waits = if verb == Command::Del && !kernel.has_container() { PATIENCE } else { 0 };
    for left in (0..=waits).rev() {
        let links = kernel.links(Netns::Host)?;
        let by_hardware = links.iter().find(|info| is_its_hardware(taken, info));
        // Before Linux 5.14 the kernel does not say of what hardware a link is.
        let by_alias = || links.iter().find(|info| info.is_hardware() && info.alias.as_deref() == Some(former));
        let found = by_hardware.or_else(|| if taken.hardware.is_none() { by_alias() } else { None });
        if let Some(back) = found {
            return rename(kernel, back, former, taken).map(|()| true);
        }
        if left > 0 {
            std::thread::sleep(STEP);
        }
    }
    Ok(false)
}

/// Its former name, if it has not got that already: somebody may use it by now.
fn rename(kernel: &mut (dyn Kernel + Send), link: &LinkInfo, former: &str, taken: &Taken) -> Outcome<()> {
    if link.name != former {
        // In messages of their own: `moving::rename` says why.
        kernel.change_link(link.id, &LinkChanges { up: Some(false), ..LinkChanges::default() })?;
        kernel.change_link(link.id, &LinkChanges { name: Some(former.to_owned()), ..LinkChanges::default() })?;
    }
    match link.name != former || link.alias.as_deref() == Some(former) {
        true => {
            kernel.change_link(link.id, &LinkChanges { alias: Some(taken.alias.clone()), ..LinkChanges::default() })
        }
        false => Ok(()),
    }
}

/// The entry that says how to move a link back.
pub(crate) fn undo(link: &LinkInfo, to: Netns, name: &str, index: Option<u32>, movement: &Move) -> Undo {
    Undo::MoveLink {
        side: super::side(to),
        name: name.to_owned(),
        to: super::side(link.id.netns),
        former_name: link.name.clone(),
        index,
        taken: match movement {
            Move::Take(taken) => Some(taken.clone()),
            Move::Own | Move::GiveBack(_) => None,
        },
    }
}

/// Whether an undo gives back this link of the container, that was so.
pub(crate) fn gives_back(undo: &Undo, link: LinkId, was: &Taken) -> bool {
    matches!(undo, Undo::MoveLink { index, taken: Some(taken), .. } if *index == Some(link.index) && taken == was)
}
