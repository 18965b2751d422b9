//! `sysctl`: those of the attachment's own interfaces, and what policy lists in the container.

use super::parse;
use crate::bindings::sysctl;
use crate::guest::Guest;
use crate::handles::{NetnsHandle, Right};
use crate::refusal::{Answer, Refusal};
use crate::session::side;
use sandwire_kernel::{Kernel, Netns};
use sandwire_state::journal::Undo;
use wasmtime::component::Resource;

impl sysctl::Host for Guest {
    fn read(&mut self, ns: Resource<NetnsHandle>, key: String) -> Answer<String> {
        let netns = parse::netns(&self.table, &ns)?.netns;
        parse::sysctl(&key)?;
        Ok(self.session()?.kernel()?.read_sysctl(netns, &key)?)
    }

    fn write(&mut self, ns: Resource<NetnsHandle>, key: String, value: String) -> Answer<()> {
        let plugin = self.grant.plugin.clone();
        let netns = parse::netns(&self.table, &ns)?.netns;
        if value.len() > 128 || value.chars().any(char::is_control) {
            return Err(Refusal::invalid(format!("no value for sysctl {key}")));
        }
        let (session, _, grant) = self.parts()?;
        // FAMILY/conf/INTERFACE/KEY and FAMILY/neigh/INTERFACE/KEY belong to an interface.
        let interface = match parse::sysctl(&key)?.as_slice() {
            [_, "conf" | "neigh", interface, _] if *interface != "all" && *interface != "default" => Some(*interface),
            _ => None,
        };
        let mut made_here = false;
        let mut allowed = netns == Netns::Container && grant.may_write(&key, &value);
        if interface.is_some_and(|interface| session.has_created(netns, interface)) {
            (allowed, made_here) = (true, true);
        } else if let Some(interface) = interface
            && let Ok(info) = session.kernel()?.link_by_name(netns, interface)
        {
            allowed |= session.right(&info, grant) == Some(Right::Own);
            made_here = session.was_created(info.id);
        }
        if !allowed {
            let what = format!("write sysctl {key} in {netns}, which is no key of the attachment's own interface");
            return Err(match netns {
                Netns::Container => Refusal::not_granted(what, grant.to_allow(grant.with_sysctl(&key))),
                Netns::Host => Refusal::denied(format!("may not {what}: for those of the node there is ensure-sysctl")),
            });
        }
        if made_here {
            return session.change(|kernel| kernel.set_sysctl(netns, &key, &value));
        }
        let before = session.kernel()?.read_sysctl(netns, &key)?;
        if before == value {
            return Ok(());
        }
        let identity = session.kernel()?.identity(netns);
        let undo = |wrote| Undo::RestoreSysctl {
            side: side(netns),
            key: key.clone(),
            value: before.clone(),
            wrote,
            netns: identity,
        };
        let write = |kernel: &mut (dyn Kernel + Send + 'static)| {
            kernel.set_sysctl(netns, &key, &value)?;
            Ok(kernel.read_sysctl(netns, &key).ok())
        };
        session.perform(&plugin, undo(None), write, |wrote| Some(undo(wrote.clone()))).map(drop)
    }
}
