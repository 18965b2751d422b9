//! `shaping`: bandwidth of the attachment's own links.

use super::links::delete_undo;
use super::parse;
use crate::bindings::shaping::{self, Rate};
use crate::guest::Guest;
use crate::handles::{LinkHandle, Right};
use crate::refusal::Answer;
use crate::session::side;
use sandwire_kernel::{DeviceSpec, LinkId, VirtualKind};
use sandwire_state::journal::Undo;
use wasmtime::component::Resource;

fn rate_in(rate: &Rate) -> sandwire_kernel::Rate {
    let Rate { bits_per_second, burst_bits, latency_us } = *rate;
    sandwire_kernel::Rate { bits_per_second, burst_bits, latency_us }
}

fn rate_out(rate: sandwire_kernel::Rate) -> Rate {
    let sandwire_kernel::Rate { bits_per_second, burst_bits, latency_us } = rate;
    Rate { bits_per_second, burst_bits, latency_us }
}

fn clear_undo(link: &LinkHandle, output: bool, input: bool) -> Undo {
    Undo::ClearLimits { side: side(link.id.netns), index: link.id.index, name: link.name.clone(), output, input }
}

impl shaping::Host for Guest {
    fn limit_output(&mut self, l: Resource<LinkHandle>, r: Rate) -> Answer<()> {
        let plugin = self.grant.plugin.clone();
        let link = parse::link(&self.table, &l, Right::Own, "limit the bandwidth of")?;
        let rate = rate_in(&r);
        let undo = clear_undo(&link, true, false);
        self.session()?.perform(&plugin, undo, |kernel| kernel.limit_output(link.id, &rate), |()| None)
    }

    fn limit_input(&mut self, l: Resource<LinkHandle>, ifb: String, r: Rate) -> Answer<Resource<LinkHandle>> {
        let plugin = self.grant.plugin.clone();
        let link = parse::link(&self.table, &l, Right::Own, "limit the bandwidth of")?;
        let rate = rate_in(&r);
        let session = self.session()?;
        session.may_make()?;
        let mut device = DeviceSpec::new(link.id.netns);
        device.mtu = Some(session.kernel()?.link_info(link.id)?.mtu);
        device.name = Some(parse::ifname(&ifb)?);
        // Its bucket has a limit of its own; this one would be the length of a queue that is never used.
        (device.up, device.txqlen) = (true, Some(0));
        let id = session.perform(
            &plugin,
            delete_undo(&device, None),
            |kernel| kernel.create_virtual(&device, &VirtualKind::Ifb),
            |id| Some(delete_undo(&device, Some(id.index))),
        )?;
        session.remember_created(id, &ifb);
        // Limited before anything is sent to it.
        session.change(|kernel| kernel.limit_output(id, &rate))?;
        let undo = clear_undo(&link, false, true);
        session.perform(&plugin, undo, |kernel| kernel.redirect_input(link.id, id), |()| None)?;
        Ok(self.table.push(LinkHandle { id, name: ifb, right: Right::Own })?)
    }

    fn limits(&mut self, l: Resource<LinkHandle>) -> Answer<(Option<Rate>, Option<Rate>)> {
        let link = parse::link(&self.table, &l, Right::See, "look at")?;
        let kernel = self.session()?.kernel()?;
        let output = kernel.output_limit(link.id)?;
        let input = match kernel.input_redirect(link.id)?.filter(|index| *index != 0) {
            Some(index) => kernel.output_limit(LinkId { netns: link.id.netns, index })?,
            None => None,
        };
        Ok((output.map(rate_out), input.map(rate_out)))
    }

    fn clear(&mut self, l: Resource<LinkHandle>) -> Answer<()> {
        let link = parse::link(&self.table, &l, Right::Own, "take the bandwidth limits from")?;
        let (session, _, grant) = self.parts()?;
        session.may_change()?;
        let redirected = session.kernel()?.input_redirect(link.id)?;
        let mut ifb = None;
        if let Some(index) = redirected.filter(|index| *index != 0) {
            let info = session.kernel()?.link_info(LinkId { netns: link.id.netns, index })?;
            ifb = (session.right(&info, grant) == Some(Right::Own)).then_some(info.id);
        }
        // A redirection to a device that is not the attachment's is somebody else's; to none, what is left of one.
        let input = redirected == Some(0) || ifb.is_some();
        session.change(|kernel| kernel.clear_limits(link.id, true, input))?;
        session.taken_back(|undo| match undo {
            // Not the redirection that was not found: an ADD that was killed in between has made the first half of it.
            Undo::ClearLimits { side: at, index, input: redirects, .. } => {
                (*at, *index) == (side(link.id.netns), link.id.index) && (input || !redirects)
            }
            _ => false,
        })?;
        let Some(ifb) = ifb else { return Ok(()) };
        session.change(|kernel| kernel.delete_link(ifb))?;
        session.forget_created(ifb);
        session.taken_back(|undo| match undo {
            Undo::DeleteLink { side: at, index, .. } => *at == side(ifb.netns) && *index == Some(ifb.index),
            _ => false,
        })
    }
}
