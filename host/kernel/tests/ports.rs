//! Ports of a bridge.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use sandwire_kernel::*;
use support::*;

#[test]
fn settings_of_a_port() {
    with_kernel(|kernel, _| {
        let (cni0, (host, pod)) = (bridge(kernel, "cni0"), pair(kernel, "veth1"));
        for result in [
            kernel.set_bridge_port(host, &BridgePort::default()),
            kernel.bridge_port(host).map(drop),
            kernel.bridge_port(pod).map(drop),
            kernel.bridge_port(cni0).map(drop),
            kernel.bridge_port(LinkId { netns: Netns::Host, index: 99 }).map(drop),
        ] {
            assert!(matches!(result, Err(KernelError::NotFound(_))), "{result:?}");
        }
        kernel.set_master(host, Some(cni0)).unwrap();
        let fresh = kernel.bridge_port(host).unwrap();
        assert_eq!(
            (fresh.hairpin, fresh.isolated, fresh.learning, fresh.flood),
            (false, false, Some(true), Some(true))
        );
        let wanted = BridgePort {
            hairpin: true,
            isolated: true,
            learning: Some(false),
            flood: Some(false),
            neigh_suppress: Some(true),
        };
        kernel.set_bridge_port(host, &wanted).unwrap();
        assert_eq!(kernel.bridge_port(host).unwrap(), wanted);
        let part = BridgePort { isolated: true, ..BridgePort::default() };
        kernel.set_bridge_port(host, &part).unwrap();
        assert_eq!(kernel.bridge_port(host).unwrap(), BridgePort { hairpin: false, ..wanted });
        let extra = kernel.link_info(host).unwrap().extra;
        assert!(extra.contains(&("port.isolated".into(), "true".into())), "{extra:?}");
    });
}

/// With CONFIG_BRIDGE_VLAN_FILTERING the lists are exact; without it wanting VLANs is `Unsupported`.
#[test]
fn vlans_of_a_port() {
    with_kernel(|kernel, _| {
        let vlan = |first, last, own| PortVlan { first, last, pvid: own, untagged: own };
        let device = up(Netns::Host, "br0");
        let br0 = match kernel.create_bridge(&device, &BridgeSpec { vlan_filtering: true }) {
            Ok(link) => link,
            Err(KernelError::Unsupported(text)) => {
                assert!(text.contains("CONFIG_BRIDGE_VLAN_FILTERING"), "{text}");
                lacks(&text);
                let br0 = kernel.create_bridge(&device, &BridgeSpec::default()).unwrap();
                let port = DeviceSpec { master: Some(br0), ..up(Netns::Host, "veth1") };
                let (port, _) = kernel.create_veth(&port, &support::device(Netns::Container, "eth0")).unwrap();
                assert_eq!(kernel.port_vlans(port).unwrap(), []);
                let result = kernel.set_port_vlans(port, &[vlan(7, 7, true)]);
                assert!(matches!(result, Err(KernelError::Unsupported(_))), "{result:?}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(kernel.link_info(br0).unwrap().vlan_filtering, Some(true));
        let port = DeviceSpec { master: Some(br0), ..up(Netns::Host, "veth1") };
        let (port, _) = kernel.create_veth(&port, &support::device(Netns::Container, "eth0")).unwrap();
        for link in [port, br0] {
            assert_eq!(kernel.port_vlans(link).unwrap(), [vlan(1, 1, true)]);
            for wanted in [
                vec![vlan(7, 7, true), vlan(100, 199, false)],
                vec![vlan(7, 7, true), vlan(150, 160, false), vlan(300, 300, false)],
                vec![vlan(7, 7, false)],
                vec![],
            ] {
                kernel.set_port_vlans(link, &wanted).unwrap();
                assert_eq!(kernel.port_vlans(link).unwrap(), wanted);
            }
        }
        let bad = kernel.set_port_vlans(port, &[vlan(0, 4095, false)]);
        assert!(matches!(bad, Err(KernelError::Invalid(_))), "{bad:?}");
    });
}

/// A bridge that filters VLANs, if this kernel has such.
fn filtering_bridge(kernel: &mut dyn Kernel) -> Option<LinkInfo> {
    match kernel.create_bridge(&up(Netns::Host, "br0"), &BridgeSpec { vlan_filtering: true }) {
        Ok(link) => Some(kernel.link_info(link).unwrap()),
        Err(KernelError::Unsupported(text)) => {
            lacks(&text);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn gateway_port_of_a_vlan() {
    with_kernel(|kernel, _| {
        let Some(br0) = filtering_bridge(kernel) else {
            // Nothing of it may stay: without its VLAN it would be a port of all that is untagged.
            let link = bridge(kernel, "br0");
            let br0 = kernel.link_info(link).unwrap();
            let result = shared::ensure_vlan_port(kernel, &br0, "br0.7", 7);
            assert!(matches!(result, Err(KernelError::Unsupported(_))), "{result:?}");
            assert_eq!(kernel.links(Netns::Host).unwrap().len(), 2, "lo and br0");
            return;
        };
        let (outer, made) = shared::ensure_vlan_port(kernel, &br0, "br0.7", 7).unwrap();
        assert!(made && outer.up);
        let port = kernel.veth_peer(outer.id).unwrap();
        assert_eq!(port.master, Some(br0.id.index));
        assert_eq!(kernel.port_vlans(port.id).unwrap(), [PortVlan { first: 7, last: 7, pvid: true, untagged: true }]);
        let (again, made) = shared::ensure_vlan_port(kernel, &br0, "br0.7", 7).unwrap();
        assert_eq!((again.id, made), (outer.id, false));
    });
}

/// What an ADD leaves that is killed between making the pair and giving its port the VLAN: a port of VLAN 1.
#[test]
fn gateway_port_that_was_half_made() {
    with_kernel(|kernel, _| {
        let Some(br0) = filtering_bridge(kernel) else { return };
        let port = DeviceSpec { master: Some(br0.id), ..up(Netns::Host, "other") };
        let (outer, port) = kernel.create_veth(&device(Netns::Host, "br0.7"), &port).unwrap();
        let (found, made) = shared::ensure_vlan_port(kernel, &br0, "br0.7", 7).unwrap();
        assert_eq!((found.id, found.up, made), (outer, true, false));
        assert_eq!(kernel.port_vlans(port).unwrap(), [PortVlan { first: 7, last: 7, pvid: true, untagged: true }]);
    });
}
