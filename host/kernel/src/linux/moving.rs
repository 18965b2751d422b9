//! Links that change their namespace. Slow (see [`super::create::veth`]); for physical devices there is no other way.

use super::links;
use super::socket::Refusal;
use super::{LinuxKernel, RawFd};
use crate::{KernelError, LinkChanges, LinkId, LinkInfo, Netns, Outcome};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};
use std::os::fd::AsRawFd;

/// The message that moves a link; it keeps its name where that is free.
fn message(index: u32, to: RawFd) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(index).setns_by_fd(to)
}

fn request(kernel: &mut LinuxKernel, from: Netns, message: LinkMessageBuilder<LinkUnspec>) -> Result<(), Refusal> {
    let from = match kernel.namespace(from) {
        Ok(from) => from,
        Err(_) => return Err(Refusal::new(nix::errno::Errno::ESRCH)),
    };
    from.route.request(RouteNetlinkMessage::SetLink(message.build()), 0).map(drop)
}

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
    let renamed = to == Netns::Host && rename(kernel, link, name);
    let fd = kernel.namespace(to)?.fd.as_raw_fd();
    let mut moving = message(link.index, fd);
    if !renamed {
        moving = moving.name(name);
    }
    // Not before: what ends this process in between leaves the alias, by which the link is found.
    if let Some(alias) = alias {
        moving = moving.append_extra_attribute(links::alias(alias));
    }
    match request(kernel, link.netns, moving) {
        // The index is kept only if it was free there (`dev_index_reserve`).
        Ok(()) => Ok(links::by_name(kernel.namespace(to)?, name).map_err(KernelError::half_done)?.id),
        Err(refusal) => {
            let context = format!("could not move link {:?} to {to} as {name:?}", before.name);
            let error = refusal.into_error(&context);
            if error.may_have_happened() {
                return Err(error);
            }
            match restore(kernel, &before, to, name) {
                Ok(()) => Err(error),
                Err(left) => Err(KernelError::half_done(error.context(left))),
            }
        }
    }
}

/// Down, for until Linux 6.2 the kernel renames no link that is up. False when the name is another link's there: then it gets
/// it on its way.
fn rename(kernel: &mut LinuxKernel, link: LinkId, name: &str) -> bool {
    let changes = LinkChanges { up: Some(false), name: Some(name.to_owned()), ..LinkChanges::default() };
    kernel.namespace(link.netns).and_then(|from| links::change(from, link.index, &changes)).is_ok()
}

/// What was begun is taken back: the link may be here under its new name, or there under its old one.
fn restore(kernel: &mut LinuxKernel, before: &LinkInfo, to: Netns, name: &str) -> Outcome<()> {
    let id = before.id;
    let changes = LinkChanges {
        up: Some(before.up),
        name: Some(before.name.clone()),
        alias: Some(before.alias.clone().unwrap_or_default()),
        ..LinkChanges::default()
    };
    match links::by_index(kernel.namespace(id.netns)?, id.index) {
        Ok(_) => return links::change(kernel.namespace(id.netns)?, id.index, &changes),
        Err(KernelError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    let there = kernel.namespace(to)?;
    let moved = links::by_name(there, &before.name).or_else(|_| links::by_name(there, name))?;
    let fd = kernel.namespace(id.netns)?.fd.as_raw_fd();
    let back = message(moved.id.index, fd).name(before.name.as_str());
    request(kernel, to, back)
        .map_err(|refusal| refusal.into_error(format_args!("could not move link {:?} back", before.name)))?;
    let here = kernel.namespace(id.netns)?;
    let index = links::by_name(here, &before.name)?.id.index;
    links::change(here, index, &changes)
}
