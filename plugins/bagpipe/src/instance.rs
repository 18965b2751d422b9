//! The VPN instance that a network is on every node, and the names that follow from it.

use crate::route_target::RouteTargets;
use sha2::{Digest, Sha256};

/// A network's VPN instance at the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    /// 8 hex digits. The agent names its devices `evpn---` and `vxlan--` and as much of the id as fits into 15 bytes, which is
    /// 8; two ids that agree in those share one bridge, and tenants see each other. So the id has no more, and all of it
    /// comes from a hash.
    pub(crate) id: String,
    mac: [u8; 4],
}

impl Instance {
    /// From the network's name and its route targets. One per network, not one per pod: pods of a node then talk over the
    /// bridge and not over VXLAN to the node itself. With other route targets it is another instance, because the agent
    /// can't change the export targets of a live one.
    pub(crate) fn of(network: &str, import_rt: &RouteTargets, export_rt: &RouteTargets) -> Self {
        let mut hash = Sha256::new();
        // Neither a network's name nor a route target can have a line end in it, so no two networks make the same text.
        for part in [[network].join(","), import_rt.texts().join(","), export_rt.texts().join(",")] {
            hash.update(part.as_bytes());
            hash.update(b"\n");
        }
        let mut bytes = hash.finalize().into_iter();
        let mut four = || [(); 4].map(|()| bytes.next().unwrap_or_default());
        let id = four().map(|byte| format!("{byte:02x}")).concat();
        Self { id, mac: four() }
    }

    /// The bridge that the agent makes for it.
    pub(crate) fn bridge(&self) -> String {
        ["evpn---", &self.id].concat()
    }

    /// The MAC of the gateway, the same on every node: 0a:58 (locally administered, unicast) and four bytes of the hash.
    pub(crate) fn gateway_mac(&self) -> String {
        let [a, b, c, d] = self.mac;
        format!("0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(text: &str) -> RouteTargets {
        RouteTargets::parse("importrt", &serde_json::from_value(text.into()).unwrap()).unwrap()
    }

    #[test]
    fn the_order_of_the_targets_does_not_matter_and_everything_else_does() {
        let base = Instance::of("mynet", &targets("64512:90,64512:91"), &targets("64512:90"));
        assert_eq!(base, Instance::of("mynet", &targets("64512:91,64512:90"), &targets("64512:90")));
        assert_eq!((base.id.len(), base.bridge().len()), (8, 15));
        for (name, import, export) in [
            ("mynet2", "64512:90,64512:91", "64512:90"),
            ("mynet", "64512:90", "64512:90"),
            ("mynet", "64512:90", "64512:90,64512:91"),
        ] {
            let other = Instance::of(name, &targets(import), &targets(export));
            assert_ne!(base.id, other.id);
            assert_ne!(base.gateway_mac(), other.gateway_mac());
        }
    }

    #[test]
    fn names_are_stable_across_releases() {
        let instance = Instance::of("mynet", &targets("64512:90"), &targets("64512:90"));
        // A changed hash would split a network whose nodes run different releases (other gateway MAC) and make CHECK fail.
        assert_eq!(
            (instance.bridge().as_str(), instance.gateway_mac().as_str()),
            ("evpn---1e36180e", "0a:58:f3:fc:1a:0d")
        );
    }
}
