//! `bridging`.

use super::parse;
use crate::bindings::bridging;
use crate::guest::Guest;
use crate::handles::{LinkHandle, Right};
use crate::refusal::{Answer, Refusal};
use sandwire_kernel::{BridgePort, PortVlan};
use wasmtime::component::Resource;

impl bridging::Host for Guest {
    fn set_port(
        &mut self,
        port: Resource<LinkHandle>,
        hairpin: bool,
        isolated: bool,
        extra: Vec<(String, String)>,
    ) -> Answer<()> {
        let link = parse::link(&self.table, &port, Right::Own, "set bridge port options of")?;
        let mut settings = BridgePort { hairpin, isolated, ..BridgePort::default() };
        for (key, value) in &extra {
            let value = match value.as_str() {
                "true" | "1" => true,
                "false" | "0" => false,
                other => return Err(Refusal::invalid(format!("{key} = {other:?} is neither true nor false"))),
            };
            match key.as_str() {
                "learning" => settings.learning = Some(value),
                "flood" => settings.flood = Some(value),
                "neigh-suppress" => settings.neigh_suppress = Some(value),
                other => return Err(Refusal::unsupported(&format!("set the bridge port option {other:?}"))),
            }
        }
        // Port options go with the port's master; they need no undo of their own.
        self.session()?.change(|kernel| kernel.set_bridge_port(link.id, &settings))
    }

    fn set_vlans(&mut self, port: Resource<LinkHandle>, vlans: Vec<bridging::Vlan>) -> Answer<()> {
        let link = parse::link(&self.table, &port, Right::Own, "set VLANs of")?;
        let mut list = Vec::with_capacity(vlans.len());
        for vlan in vlans {
            if vlan.first == 0 || vlan.last > 4094 || vlan.first > vlan.last {
                return Err(Refusal::invalid(format!("VLANs {}-{} are not within 1-4094", vlan.first, vlan.last)));
            }
            list.push(PortVlan { first: vlan.first, last: vlan.last, pvid: vlan.pvid, untagged: vlan.untagged });
        }
        self.session()?.change(|kernel| kernel.set_port_vlans(link.id, &list))
    }

    fn get_vlans(&mut self, port: Resource<LinkHandle>) -> Answer<Vec<bridging::Vlan>> {
        let link = parse::link(&self.table, &port, Right::See, "look at")?;
        let vlans = self.session()?.kernel()?.port_vlans(link.id)?;
        Ok(vlans
            .into_iter()
            .map(|v| bridging::Vlan { first: v.first, last: v.last, pvid: v.pvid, untagged: v.untagged })
            .collect())
    }
}
