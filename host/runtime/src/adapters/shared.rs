//! `shared`: what attachments of a node have in common.

use super::{links, parse};
use crate::bindings::{shared, types};
use crate::guest::Guest;
use crate::handles::{LinkHandle, NetnsHandle, Right};
use crate::refusal::{Answer, Refusal};
use crate::session::{Session, is_shared};
use sandwire_kernel::{BridgeSpec, DeviceSpec, LinkChanges, LinkInfo, Netns};
use sandwire_policy::ENABLED;
use sandwire_state::journal::{Held, Undo};
use wasmtime::component::Resource;

/// Notes what was made sure of: for people, and for `repair` what is held of a bridge that somebody else makes. It is never
/// undone for one attachment.
fn note(session: &mut Session, plugin: &str, what: String, held: Option<Held>) -> Answer<()> {
    let id = session.intend(plugin, &Undo::Shared { what, held })?;
    session.done(id, None)
}

/// What one attachment can need of links that stay: its bridge, and the port of a VLAN's gateway.
const MOST_SHARED: usize = 4;

/// Fails when this call has made more than that: nobody takes them back.
fn few(session: &Session) -> Answer<()> {
    match session.shared_links < MOST_SHARED {
        true => Ok(()),
        false => Err(Refusal::exhausted(format!("one call can make {MOST_SHARED} shared links"))),
    }
}

/// Whether somebody else makes the bridge (an agent), who may make another: then every attachment that relies on what it
/// was given notes it, and not only the first one.
fn is_foreign(session: &Session, info: &LinkInfo) -> bool {
    info.id.netns == Netns::Host && info.kind == "bridge" && session.ensured(info.id).is_none()
}

impl Guest {
    /// A bridge that policy lets the guest change, as it was when this call made sure of it or as it is now.
    fn shared_bridge(&mut self, l: &Resource<LinkHandle>, what: &str) -> Answer<LinkInfo> {
        let link = parse::link(&self.table, l, Right::Change, what)?;
        let session = self.session()?;
        session.may_make()?;
        if let Some(info) = session.ensured(link.id) {
            return Ok(info.clone());
        }
        let info = session.kernel()?.link_info(link.id)?;
        if link.right == Right::Change && !is_shared(&info) {
            return Err(Refusal::denied(format!("may not {what} {:?}: it is no bridge", info.name)));
        }
        Ok(info)
    }
}

impl Guest {
    /// Whether a key belongs to a bridge that the guest may change. "all" and "default" belong to every link, and a
    /// pattern of everything is not meant to be them, nor other pods' veths, nor the node's own interfaces.
    fn is_key_of_shared_link(&mut self, netns: Netns, key: &str) -> Answer<bool> {
        let (session, _, grant) = self.parts()?;
        let parts = parse::sysctl(key)?;
        let [_, "conf" | "neigh", name, _] = parts.as_slice() else { return Ok(false) };
        if session.has_ensured(netns, name) {
            return Ok(true);
        }
        match session.kernel()?.link_by_name(netns, name) {
            Ok(info) => Ok(is_shared(&info) && session.right(&info, grant) >= Some(Right::Change)),
            Err(_) => Ok(false),
        }
    }
}

impl Guest {
    /// A bridge that policy lets the guest make or use, and its name.
    fn bridge_wanted(&mut self, dev: &shared::Device) -> Answer<(DeviceSpec, String)> {
        let grant = std::sync::Arc::clone(&self.grant);
        let spec = links::device(&self.table, dev)?;
        let Some(name) = spec.name.clone() else { return Err(Refusal::invalid("a shared bridge needs a name")) };
        if spec.netns == Netns::Host && !self.session()?.may_change_bridge(&grant, &name) {
            let remedy = grant.to_allow(grant.with_bridge(&name));
            return Err(Refusal::not_granted(format!("make or use bridge {name:?}"), remedy));
        }
        Ok((spec, name))
    }
}

impl shared::Host for Guest {
    fn ensure_bridge(&mut self, dev: shared::Device, vlan_filtering: bool) -> Answer<Resource<LinkHandle>> {
        let plugin = self.grant.plugin.clone();
        let (spec, name) = self.bridge_wanted(&dev)?;
        let session = self.session()?;
        session.may_make()?;
        few(session)?;
        let (info, made) = session
            .change(|kernel| sandwire_kernel::shared::ensure_bridge(kernel, &spec, &BridgeSpec { vlan_filtering }))?;
        if made {
            session.shared_links += 1;
            note(session, &plugin, format!("bridge {name}"), None)?;
        }
        session.remember_ensured(info.clone());
        let right = if spec.netns == Netns::Host { Right::Change } else { Right::Own };
        Ok(self.table.push(LinkHandle { id: info.id, name: info.name, right })?)
    }

    fn check_bridge(&mut self, dev: shared::Device, vlan_filtering: bool) -> Answer<()> {
        let (spec, _) = self.bridge_wanted(&dev)?;
        let kernel = self.session()?.kernel()?;
        Ok(sandwire_kernel::shared::check_bridge(kernel, &spec, &BridgeSpec { vlan_filtering })?)
    }

    fn ensure_address(&mut self, l: Resource<LinkHandle>, a: types::Address, force: bool) -> Answer<()> {
        let plugin = self.grant.plugin.clone();
        let info = self.shared_bridge(&l, "give an address to")?;
        let spec = parse::address(&a)?;
        let session = self.session()?;
        session.must_be_shared_gateway(info.id, &spec)?;
        if force && !session.given.forces_address() {
            return Err(Refusal::denied(format!(
                "may not replace an address of {:?}: the configuration does not say \"forceAddress\": true",
                info.name
            )));
        }
        let added = session.change(|kernel| sandwire_kernel::shared::ensure_address(kernel, &info, &spec, force))?;
        let held = match is_foreign(session, &info) {
            true => Some(Held::Address {
                link: info.name.clone(),
                address: serde_json::to_value(&spec).map_err(|e| Refusal::other(e.to_string()))?,
            }),
            false => None,
        };
        if added || held.is_some() {
            note(session, &plugin, format!("address {} of {}", spec.address, info.name), held)?;
        }
        Ok(())
    }

    fn ensure_sysctl(&mut self, ns: Resource<NetnsHandle>, key: String, value: String) -> Answer<()> {
        let plugin = self.grant.plugin.clone();
        let netns = parse::netns(&self.table, &ns)?.netns;
        parse::sysctl(&key)?;
        if !self.grant.may_ensure(&key, &value) && !self.is_key_of_shared_link(netns, &key)? {
            let entry = if value == ENABLED { key } else { format!("{key}={value}") };
            let remedy = self.grant.to_allow(self.grant.with_sysctl(&entry));
            return Err(Refusal::not_granted(format!("set sysctl {entry}"), remedy));
        }
        let session = self.session()?;
        session.may_make()?;
        if session.change(|kernel| kernel.write_sysctl(netns, &key, &value))?.is_some() {
            note(session, &plugin, format!("sysctl {key} = {value}"), None)?;
        }
        Ok(())
    }

    fn ensure_promisc(&mut self, l: Resource<LinkHandle>, on: bool) -> Answer<()> {
        let info = self.shared_bridge(&l, "set promiscuous mode of")?;
        if info.promisc == on {
            return Ok(());
        }
        let changes = LinkChanges { promisc: Some(on), ..LinkChanges::default() };
        self.session()?.change(|kernel| kernel.change_link(info.id, &changes))
    }

    fn ensure_mac(&mut self, l: Resource<LinkHandle>, mac: String) -> Answer<()> {
        let plugin = self.grant.plugin.clone();
        let info = self.shared_bridge(&l, "set the MAC of")?;
        let mac = parse::mac(&mac)?;
        let session = self.session()?;
        // A bridge takes the lowest MAC of its ports until it is given one: what it was may be another by now.
        if session.kernel()?.link_info(info.id)?.mac != Some(mac) {
            session.change(|kernel| sandwire_kernel::shared::ensure_mac(kernel, &info, mac))?;
        }
        if is_foreign(session, &info) {
            let held = Held::Mac { link: info.name.clone(), mac: mac.to_string() };
            note(session, &plugin, format!("MAC {mac} of {}", info.name), Some(held))?;
        }
        Ok(())
    }

    fn ensure_vlan_port(&mut self, bridge: Resource<LinkHandle>, vlan: u16) -> Answer<Resource<LinkHandle>> {
        let plugin = self.grant.plugin.clone();
        let bridge = self.shared_bridge(&bridge, "make a VLAN port of")?;
        let name = parse::ifname(&format!("{}.{vlan}", bridge.name))?;
        let session = self.session()?;
        few(session)?;
        let (info, made) =
            session.change(|kernel| sandwire_kernel::shared::ensure_vlan_port(kernel, &bridge, &name, vlan))?;
        if made {
            session.shared_links += 1;
            note(session, &plugin, format!("port {name} of VLAN {vlan}"), None)?;
        }
        Ok(self.table.push(LinkHandle { id: info.id, name, right: Right::Change })?)
    }
}
