//! `links`: making, changing and removing interfaces.

use super::parse;
use crate::bindings::links::{self, Changes, Device, IpvlanMode, MacvlanMode};
use crate::bindings::types::Error;
use crate::guest::Guest;
use crate::handles::{LinkHandle, NetnsHandle, Right};
use crate::host_end;
use crate::refusal::{Answer, Refusal};
use crate::session::taking::{self, Move};
use crate::session::{Session, side};
use sandwire_cni::Command;
use sandwire_kernel::{
    DeviceSpec, Kernel, KernelError, LinkChanges, LinkId, Netns, Outcome, TapSpec, VirtualKind, shared,
};
use sandwire_state::journal::Undo;
use wasmtime::component::{Resource, ResourceTable};

type Pair = (Resource<LinkHandle>, Resource<LinkHandle>);

/// A new device, checked.
pub(super) fn device(table: &ResourceTable, device: &Device) -> Answer<DeviceSpec> {
    let netns = parse::netns(table, &device.ns)?.netns;
    let mut spec = DeviceSpec::new(netns);
    spec.name = device.name.as_deref().map(parse::ifname).transpose()?;
    spec.mac = device.mac.as_deref().map(parse::mac).transpose()?;
    spec.mtu = device.mtu.filter(|mtu| *mtu != 0);
    if let Some(master) = &device.master {
        let master = parse::link(table, master, Right::Use, "make a port of")?;
        if master.id.netns != netns {
            return Err(Refusal::invalid(format!("{:?} is in another namespace than its port would be", master.name)));
        }
        spec.master = Some(master.id);
    }
    spec.up = device.up;
    let options = parse::link_options(&device.extra)?;
    spec.txqlen = options.txqlen;
    spec.alias = options.alias;
    spec.group = options.group;
    Ok(spec)
}

/// Whether the last attachment has left a VRF of the pod: whoever that was may remove it.
fn is_left_behind(session: &mut Session, link: LinkId) -> Answer<bool> {
    let verb = session.subject.verb;
    let kernel = session.kernel()?;
    let is_vrf = link.netns == Netns::Container && kernel.link_info(link)?.kind == "vrf";
    Ok(verb == Command::Del && is_vrf && !shared::is_vrf_in_use(kernel, link)?)
}

pub(super) fn delete_undo(device: &DeviceSpec, index: Option<u32>) -> Undo {
    Undo::DeleteLink { side: side(device.netns), name: device.name.clone().unwrap_or_default(), index }
}

impl Guest {
    fn create(&mut self, dev: &Device, kind: &VirtualKind) -> Answer<Resource<LinkHandle>> {
        self.create_by(dev, |kernel, spec| kernel.create_virtual(spec, kind))
    }

    fn create_by(
        &mut self,
        dev: &Device,
        make: impl FnOnce(&mut (dyn Kernel + Send + 'static), &DeviceSpec) -> Outcome<LinkId>,
    ) -> Answer<Resource<LinkHandle>> {
        let plugin = self.grant.plugin.clone();
        let spec = device(&self.table, dev)?;
        let Some(name) = spec.name.clone() else {
            return Err(Refusal::invalid("a link of this kind needs a name"));
        };
        let session = self.session()?;
        let id = session.perform(
            &plugin,
            delete_undo(&spec, None),
            |kernel| make(kernel, &spec),
            |id| Some(delete_undo(&spec, Some(id.index))),
        )?;
        session.remember_created(id, &name);
        Ok(self.table.push(LinkHandle { id, name, right: Right::Own })?)
    }

    fn own(&mut self, link: &Resource<LinkHandle>, what: &str) -> Answer<LinkHandle> {
        parse::link(&self.table, link, Right::Own, what)
    }

    fn parent(&self, link: &Resource<LinkHandle>) -> Answer<LinkId> {
        Ok(parse::link(&self.table, link, Right::Use, "ride on")?.id)
    }
}

impl links::Host for Guest {
    fn create_veth(&mut self, a: Device, b: Device) -> Answer<Pair> {
        let plugin = self.grant.plugin.clone();
        let mut a = device(&self.table, &a)?;
        let mut b = device(&self.table, &b)?;
        let session = self.session()?;
        let attachment = session.subject.attachment.clone();
        // Of a pair across namespaces the host end is what undo deletes: the container's may be gone by then.
        let unnamed_host = [&a, &b].iter().any(|end| end.netns == Netns::Host && end.name.is_none());
        let attempts = if unnamed_host { host_end::NAMES } else { 1 };
        let mut refused = None;
        for attempt in 0..attempts {
            if unnamed_host {
                let name = host_end::name(&attachment, attempt);
                // A name that is taken must not be in the journal as one that we are about to make.
                match session.kernel()?.link_by_name(Netns::Host, &name) {
                    Err(KernelError::NotFound(_)) => {}
                    Ok(_) => continue,
                    Err(error) => return Err(error.into()),
                }
                let end = if a.netns == Netns::Host { &mut a } else { &mut b };
                end.name = Some(name);
            }
            let undo_a = a.netns == Netns::Host || b.netns != Netns::Host;
            let marked = if undo_a { &a } else { &b };
            let made = session.perform(
                &plugin,
                delete_undo(marked, None),
                |kernel| kernel.create_veth(&a, &b),
                |(first, second)| Some(delete_undo(marked, Some(if undo_a { first.index } else { second.index }))),
            );
            let exists = match made {
                Ok((first, second)) => {
                    let name = |end: &DeviceSpec| end.name.clone().unwrap_or_default();
                    session.remember_created(first, &name(&a));
                    session.remember_created(second, &name(&b));
                    let first = self.table.push(LinkHandle { id: first, name: name(&a), right: Right::Own })?;
                    let second = self.table.push(LinkHandle { id: second, name: name(&b), right: Right::Own })?;
                    return Ok((first, second));
                }
                Err(refusal) => {
                    let exists = matches!(refusal, Refusal::Guest(Error::Exists(_)));
                    refused = Some(refusal);
                    exists
                }
            };
            // Only a host name that somebody took in between is worth another try.
            let taken = exists
                && unnamed_host
                && [&a, &b].iter().filter(|end| end.netns == Netns::Host).any(|end| {
                    let name = end.name.clone().unwrap_or_default();
                    session.kernel().is_ok_and(|kernel| kernel.link_by_name(Netns::Host, &name).is_ok())
                });
            if !taken {
                break;
            }
        }
        Err(refused.unwrap_or_else(|| Refusal::conflict("ten names for the host's end of the veth are all taken")))
    }

    fn create_dummy(&mut self, dev: Device) -> Answer<Resource<LinkHandle>> {
        self.create(&dev, &VirtualKind::Dummy)
    }

    fn create_macvlan(
        &mut self,
        mut dev: Device,
        parent: Resource<LinkHandle>,
        mode: MacvlanMode,
    ) -> Answer<Resource<LinkHandle>> {
        let parent = self.parent(&parent)?;
        // IFLA_MACVLAN_MODE, include/uapi/linux/if_link.h.
        let mode = match mode {
            MacvlanMode::Private => 1,
            MacvlanMode::Vepa => 2,
            MacvlanMode::Bridge => 4,
            MacvlanMode::Passthru => 8,
            MacvlanMode::Source => 16,
        };
        let mut broadcast_queue = None;
        for (key, value) in std::mem::take(&mut dev.extra) {
            match key.as_str() {
                "macvlan.bcqueuelen" => broadcast_queue = Some(parse::number(&key, &value)?),
                _ => dev.extra.push((key, value)),
            }
        }
        self.create(&dev, &VirtualKind::Macvlan { parent, mode, broadcast_queue })
    }

    fn create_ipvlan(
        &mut self,
        dev: Device,
        parent: Resource<LinkHandle>,
        mode: IpvlanMode,
    ) -> Answer<Resource<LinkHandle>> {
        let parent = self.parent(&parent)?;
        let mode = match mode {
            IpvlanMode::L2 => 0,
            IpvlanMode::L3 => 1,
            IpvlanMode::L3s => 2,
        };
        self.create(&dev, &VirtualKind::Ipvlan { parent, mode })
    }

    fn create_vlan(&mut self, dev: Device, parent: Resource<LinkHandle>, id: u16) -> Answer<Resource<LinkHandle>> {
        let parent = self.parent(&parent)?;
        if id > 4094 {
            return Err(Refusal::invalid(format!("VLAN {id} is not between 0 and 4094")));
        }
        self.create(&dev, &VirtualKind::Vlan { parent, id })
    }

    fn create_vxlan(
        &mut self,
        dev: Device,
        id: u32,
        local: String,
        port: u16,
        learning: bool,
    ) -> Answer<Resource<LinkHandle>> {
        if id >= 1 << 24 {
            return Err(Refusal::invalid(format!("VNI {id} has more than 24 bits")));
        }
        let local = parse::ip(&local)?;
        self.create(&dev, &VirtualKind::Vxlan { id, local, port, learning })
    }

    fn create_vrf(&mut self, dev: Device, table: u32) -> Answer<Resource<LinkHandle>> {
        self.create(&dev, &VirtualKind::Vrf { table })
    }

    fn create_tap(&mut self, dev: Device, options: Vec<(String, String)>) -> Answer<Resource<LinkHandle>> {
        if !self.grant.tap {
            return Err(Refusal::not_granted("make tap devices", self.grant.to_allow("tap = true")));
        }
        let mut tap = TapSpec::default();
        for (key, value) in &options {
            match key.as_str() {
                "owner" => tap.owner = Some(parse::number(key, value)?),
                "group" => tap.group = Some(parse::number(key, value)?),
                "multi-queue" => tap.multi_queue = value == "true" || value == "1",
                _ => return Err(parse::unknown(key)),
            }
        }
        self.create_by(&dev, |kernel, spec| kernel.create_tap(spec, &tap))
    }

    fn change(&mut self, l: Resource<LinkHandle>, c: Changes) -> Answer<()> {
        let plugin = self.grant.plugin.clone();
        let link = self.own(&l, "change")?;
        let options = parse::link_options(&c.extra)?;
        let changes = LinkChanges {
            up: c.up,
            mac: c.mac.as_deref().map(parse::mac).transpose()?,
            mtu: c.mtu,
            txqlen: c.txqlen.or(options.txqlen),
            promisc: c.promisc,
            allmulti: c.allmulti,
            alias: options.alias,
            group: options.group,
            name: None,
        };
        let session = self.session()?;
        if changes.alias.is_some() && session.has_taken(link.id) {
            return Err(Refusal::denied(format!(
                "may not change the alias of {:?}: it says what it is on the node",
                link.name
            )));
        }
        if session.was_created(link.id) {
            return session.change(|kernel| kernel.change_link(link.id, &changes));
        }
        let before = session.kernel()?.link_info(link.id)?;
        let undo = Undo::RestoreLink {
            side: side(link.id.netns),
            index: link.id.index,
            name: before.name.clone(),
            up: changes.up.filter(|up| *up != before.up).map(|_| before.up),
            mac: changes.mac.and(before.mac).map(|mac| mac.to_string()),
            mtu: changes.mtu.map(|_| before.mtu),
            txqlen: changes.txqlen.map(|_| before.txqlen),
            promisc: changes.promisc.map(|_| before.promisc),
            allmulti: changes.allmulti.map(|_| before.allmulti),
            alias: changes.alias.as_ref().map(|_| before.alias.clone().unwrap_or_default()),
            renamed_from: None,
        };
        session.perform(&plugin, undo, |kernel| kernel.change_link(link.id, &changes), |()| None)
    }

    fn set_master(&mut self, l: Resource<LinkHandle>, master: Option<Resource<LinkHandle>>) -> Answer<()> {
        let plugin = self.grant.plugin.clone();
        let link = self.own(&l, "give a master to")?;
        let master = match &master {
            Some(master) => Some(parse::link(&self.table, master, Right::Use, "make a port of")?.id),
            None => None,
        };
        let session = self.session()?;
        if session.was_created(link.id) {
            return session.change(|kernel| kernel.set_master(link.id, master));
        }
        let before = session.kernel()?.link_info(link.id)?;
        let undo = Undo::SetMaster {
            side: side(link.id.netns),
            index: link.id.index,
            name: before.name,
            master: before.master,
        };
        session.perform(&plugin, undo, |kernel| kernel.set_master(link.id, master), |()| None)
    }

    fn move_to(&mut self, l: Resource<LinkHandle>, to: Resource<NetnsHandle>, name: String) -> Answer<()> {
        let plugin = self.grant.plugin.clone();
        let to = parse::netns(&self.table, &to)?.netns;
        let name = parse::ifname(&name)?;
        let (session, table, grant) = self.parts()?;
        let link = parse::link(table, &l, session.needed_to_move(table.get(&l)?.id.netns, to), "move")?;
        let info = session.kernel()?.link_info(link.id)?;
        let movement = session.movement(&info, link.right, to, &name, grant)?;
        let undo = |index| taking::undo(&info, to, &name, index, &movement);
        let (id, right) = match &movement {
            Move::GiveBack(was) => {
                session.release_dhcp_on(info.id)?;
                session.restore_before_move(info.id);
                let alias = was.as_ref().map_or("", |was| was.alias.as_str());
                let id = session.change(|kernel| kernel.move_link(info.id, to, &name, Some(alias)))?;
                if let Some(was) = was {
                    session.taken_back(|undo| taking::gives_back(undo, info.id, was))?;
                }
                (id, Right::See)
            }
            _ => {
                let alias = matches!(movement, Move::Take(_)).then_some(info.name.as_str());
                let id = session.perform(
                    &plugin,
                    undo(None),
                    |kernel| kernel.move_link(info.id, to, &name, alias),
                    |id| Some(undo(Some(id.index))),
                )?;
                (id, Right::Own)
            }
        };
        session.forget_created(info.id);
        *self.table.get_mut(&l)? = LinkHandle { id, name, right };
        Ok(())
    }

    fn remove(&mut self, l: Resource<LinkHandle>) -> Answer<()> {
        let link = parse::link(&self.table, &l, Right::See, "remove")?;
        if link.right != Right::Change || !is_left_behind(self.session()?, link.id)? {
            self.own(&l, "remove")?;
        }
        let session = self.session()?;
        if link.id.netns == Netns::Container && session.has_taken(link.id) {
            return Err(Refusal::denied(format!("may not remove {:?}: it is the node's, and goes back", link.name)));
        }
        // The attachment's own interface is none, and every DEL removes that: not asked for it.
        let may_be_vrf = link.id.netns == Netns::Container && link.name != session.subject.attachment.ifname;
        if may_be_vrf && shared::is_vrf_in_use(session.kernel()?, link.id)? {
            return Err(Refusal::conflict(format!("interfaces are in VRF {:?}", link.name)));
        }
        if session.subject.verb == Command::Add && !session.was_created(link.id) {
            return Err(Refusal::denied(format!(
                "may not remove {:?}: in ADD only links that this ADD made can be",
                link.name
            )));
        }
        session.release_dhcp_on(link.id)?;
        session.change(|kernel| kernel.delete_link(link.id))?;
        session.forget_created(link.id);
        session.taken_back(|undo| match undo {
            Undo::DeleteLink { side: at, index, name } => {
                crate::session::netns(*at) == link.id.netns
                    && (*index == Some(link.id.index) || (index.is_none() && *name == link.name))
            }
            _ => false,
        })
    }
}
