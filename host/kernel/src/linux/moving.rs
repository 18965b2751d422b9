//! Links that change their namespace. Slow (see [`super::create::veth`]); for physical devices there is no other way.

use super::{LinuxKernel, RawFd, links};
use crate::{KernelError, LinkChanges, LinkId, LinkInfo, Netns, Outcome};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use rtnetlink::LinkUnspec;
use std::os::fd::AsRawFd;

/// Moves a link, with another name and, if it is said, another alias (empty for none), or leaves it as it was.
///
/// It gets its name in the container, also on its way back: on the node udev and its like look at every new name, and may give it
/// another one in between (containernetworking/plugins#771).
pub(super) fn link(
    kernel: &mut LinuxKernel,
    link: LinkId,
    to: Netns,
    name: &str,
    alias: Option<&str>,
) -> Outcome<LinkId> {
    let before = links::by_index(kernel.namespace(link.netns)?, link.index)?;
    match links::by_name(kernel.namespace(to)?, name) {
        Err(KernelError::NotFound(_)) => {}
        // The kernel moves it first, under its old name, and refuses the new one afterwards (`do_setlink`).
        Ok(_) => {
            let old = &before.name;
            return Err(KernelError::Exists(format!("could not move link {old:?} to {to}: {name:?} is there already")));
        }
        Err(error) => return Err(error),
    }
    if to == Netns::Host && before.name != name {
        // The name may be another link's there: then it gets it on its way.
        let _ = rename(kernel, link, name);
    }
    let context = format!("could not move link {:?} to {to} as {name:?}", before.name);
    // Not before: what ends this process in between leaves the alias.
    let alias = alias.map(links::alias);
    match send(kernel, link, to, name, alias, &context) {
        // The index is kept only if it was free there (`dev_index_reserve`).
        Ok(()) => Ok(links::by_name(kernel.namespace(to)?, name).map_err(KernelError::half_done)?.id),
        Err(error) if error.may_have_happened() => Err(error),
        Err(error) => match restore(kernel, &before, to, name) {
            Ok(()) => Err(error),
            Err(left) => Err(KernelError::half_done(error.context(left))),
        },
    }
}

/// The message that moves a link.
fn send(
    kernel: &mut LinuxKernel,
    link: LinkId,
    to: Netns,
    name: &str,
    alias: Option<LinkAttribute>,
    context: &str,
) -> Outcome<()> {
    let there: RawFd = kernel.namespace(to)?.fd.as_raw_fd();
    let mut message = LinkUnspec::new_with_index(link.index).setns_by_fd(there).name(name);
    if let Some(alias) = alias {
        message = message.append_extra_attribute(alias);
    }
    let from = kernel.namespace(link.netns)?;
    let sent = from.route.request(RouteNetlinkMessage::SetLink(message.build()), 0);
    sent.map(drop).map_err(|refusal| refusal.into_error(context))
}

/// Down first, in a message of its own: until Linux 6.2 the kernel renames no link that is up, and of one message it does the name
/// before the state (`do_setlink`).
fn rename(kernel: &mut LinuxKernel, link: LinkId, name: &str) -> Outcome<()> {
    let from = kernel.namespace(link.netns)?;
    links::change(from, link.index, &LinkChanges { up: Some(false), ..LinkChanges::default() })?;
    links::change(from, link.index, &LinkChanges { name: Some(name.to_owned()), ..LinkChanges::default() })
}

/// What was begun is taken back: the link may be here under its new name, or there under its old one.
fn restore(kernel: &mut LinuxKernel, before: &LinkInfo, to: Netns, name: &str) -> Outcome<()> {
    let id = before.id;
    let index = match links::by_index(kernel.namespace(id.netns)?, id.index) {
        Ok(_) => id.index,
        Err(KernelError::NotFound(_)) => {
            let there = kernel.namespace(to)?;
            let moved = links::by_name(there, &before.name).or_else(|_| links::by_name(there, name))?;
            let context = format!("could not move link {:?} back", before.name);
            send(kernel, moved.id, id.netns, &before.name, None, &context)?;
            links::by_name(kernel.namespace(id.netns)?, &before.name)?.id.index
        }
        Err(error) => return Err(error),
    };
    let now = links::by_index(kernel.namespace(id.netns)?, index)?;
    if now.name != before.name {
        rename(kernel, LinkId { netns: id.netns, index }, &before.name)?;
    }
    let changes = LinkChanges {
        up: Some(before.up),
        alias: Some(before.alias.clone().unwrap_or_default()),
        ..LinkChanges::default()
    };
    links::change(kernel.namespace(id.netns)?, index, &changes)
}
