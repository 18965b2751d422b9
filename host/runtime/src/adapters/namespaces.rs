//! `namespaces`, `host-netns`, `container-netns`: what can be seen.

use super::parse;
use crate::bindings::{container_netns, host_netns, namespaces};
use crate::guest::Guest;
use crate::handles::{LinkHandle, NetnsHandle, Right};
use crate::refusal::{Answer, Refusal};
use crate::session::{bridge_of_vlan_port, is_a_pods_veth};
use sandwire_cni::Command;
use sandwire_kernel::{LinkInfo, Netns};
use wasmtime::component::Resource;

impl Guest {
    /// A handle for a link that the kernel showed, if the guest may know of it.
    pub(crate) fn link_handle(&mut self, info: &LinkInfo) -> Answer<Resource<LinkHandle>> {
        let (session, table, grant) = self.parts()?;
        let right = match session.right(info, grant) {
            Some(right) => right,
            // Who wrote the configuration knows of the link; that it is not there would send the operator looking for it. What
            // takes away goes on without it.
            None if !matches!(session.subject.verb, Command::Del | Command::Gc)
                && session.given.names(&info.name)
                && !is_a_pods_veth(&info.name) =>
            {
                let remedy = grant.to_allow(grant.with_master(&info.name));
                return Err(Refusal::not_granted(format!("use link {:?}", info.name), remedy));
            }
            None if session.subject.verb == Command::Add
                && session.given.names_device(&info.name)
                && !is_a_pods_veth(&info.name) =>
            {
                let remedy = grant.to_allow(grant.with_taken(&info.name));
                return Err(Refusal::not_granted(format!("take link {:?} of the node", info.name), remedy));
            }
            None => return Err(Refusal::not_found(format!("link {:?} not found", info.name))),
        };
        Ok(table.push(LinkHandle { id: info.id, name: info.name.clone(), right })?)
    }

    fn info_out(&mut self, info: &LinkInfo) -> Answer<namespaces::LinkInfo> {
        let (session, _, grant) = self.parts()?;
        session.remember_name(info.id, &info.name);
        let netns = info.id.netns;
        let master = info.master.and_then(|index| session.name_of(sandwire_kernel::LinkId { netns, index }));
        let mut extra = info.extra.clone();
        let mut put = |key: &str, value: String| extra.push((key.to_owned(), value));
        if info.rides()
            && let Ok(parent) = session.kernel()?.link_parent(info.id)
            && session.right(&parent, grant).is_some()
        {
            put("parent", parent.name);
        }
        put("promisc", info.promisc.to_string());
        put("allmulti", info.allmulti.to_string());
        put("txqlen", info.txqlen.to_string());
        if let Some(alias) = &info.alias {
            put("alias", alias.clone());
        }
        if let Some(former) = session.former_name(info, grant) {
            put("former-name", former);
        }
        if let Some(filtering) = info.vlan_filtering {
            put("bridge.vlan-filtering", filtering.to_string());
        }
        // RFC 4291: loopback has no Ethernet address; results show it as zeros.
        let mac = info.mac.map_or_else(|| "00:00:00:00:00:00".to_owned(), |mac| mac.to_string());
        Ok(namespaces::LinkInfo {
            name: info.name.clone(),
            kind: info.kind.clone(),
            mac,
            mtu: info.mtu,
            up: info.up,
            operstate: info.operstate.to_owned(),
            master,
            extra,
        })
    }
}

impl namespaces::Host for Guest {}

impl namespaces::HostNetns for Guest {
    fn link(&mut self, this: Resource<NetnsHandle>, name: String) -> Answer<Resource<LinkHandle>> {
        let name = parse::ifname(&name)?;
        let (session, table, _) = self.parts()?;
        let netns = parse::netns(table, &this)?.netns;
        let info = session.kernel()?.link_by_name(netns, &name)?;
        self.link_handle(&info)
    }

    fn links(&mut self, this: Resource<NetnsHandle>) -> Answer<Vec<namespaces::LinkInfo>> {
        let (session, table, grant) = self.parts()?;
        let netns = parse::netns(table, &this)?.netns;
        let mut all = session.kernel()?.links(netns)?;
        all.retain(|info| session.right(info, grant).is_some());
        all.iter().map(|info| self.info_out(info)).collect()
    }

    fn drop(&mut self, this: Resource<NetnsHandle>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl namespaces::HostLink for Guest {
    fn info(&mut self, this: Resource<LinkHandle>) -> Answer<namespaces::LinkInfo> {
        let (session, table, _) = self.parts()?;
        let link = parse::link(table, &this, Right::See, "look at")?;
        let info = session.kernel()?.link_info(link.id)?;
        self.info_out(&info)
    }

    fn peer(&mut self, this: Resource<LinkHandle>) -> Answer<Resource<LinkHandle>> {
        let (session, table, grant) = self.parts()?;
        let link = parse::link(table, &this, Right::See, "look at")?;
        let peer = session.kernel()?.veth_peer(link.id)?;
        let needed = match peer.id.netns {
            Netns::Host => "host-netns",
            Netns::Container => "container-netns",
        };
        if !grant.imports.contains(needed) {
            return Err(Refusal::denied(format!(
                "may not reach the peer of link {:?}: it is in a namespace that plugin {:?} is not granted ({needed})",
                link.name, grant.plugin
            )));
        }
        // The host end of the pod's own veth is the attachment's, whoever made the pair.
        let right = match (link.right, link.id.netns, peer.id.netns) {
            (Right::Own, Netns::Container, Netns::Host) if !session.has_taken(link.id) => Some(Right::Own),
            // So is the port of a VLAN's gateway the bridge's.
            (Right::Change, Netns::Host, Netns::Host) if bridge_of_vlan_port(&link.name).is_some() => {
                session.right(&peer, grant).or(Some(Right::See))
            }
            _ => session.right(&peer, grant),
        };
        let right = right.ok_or_else(|| Refusal::not_found(format!("the peer of link {:?} not found", link.name)))?;
        Ok(table.push(LinkHandle { id: peer.id, name: peer.name, right })?)
    }

    fn drop(&mut self, this: Resource<LinkHandle>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl host_netns::Host for Guest {
    fn get(&mut self) -> wasmtime::Result<Resource<NetnsHandle>> {
        Ok(self.table.push(NetnsHandle { netns: Netns::Host })?)
    }
}

impl container_netns::Host for Guest {
    fn get(&mut self) -> wasmtime::Result<Option<Resource<NetnsHandle>>> {
        let has = self.session()?.kernel_if_open().is_some_and(|kernel| kernel.has_container());
        Ok(match has {
            true => Some(self.table.push(NetnsHandle { netns: Netns::Container })?),
            false => None,
        })
    }
}
