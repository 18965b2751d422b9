//! What happens to a node that is no call.

use super::{BOOT_ID, World, boot_id};
use crate::configs::ports;
use crate::look::Network;
use crate::networks::{Attachment, MASTER, MASTERS_PEER, PODS};
use crate::observed::Observed;
use crate::rules::ifb_of;
use crate::script::Part;
use crate::state::{Damage, State, Up};
use anyhow::{Result, anyhow, bail};
use sandwire_harness::{Node, Place};
use std::time::{Duration, Instant};

/// The link that macvlans ride on: with addresses of its own, so that it is the same one each time.
pub(super) fn make_master(node: &Node) -> Result<()> {
    let script = format!(
        "ip link add {MASTER} address 02:00:00:00:0b:01 type veth peer name {MASTERS_PEER} address 02:00:00:00:0b:02
        ip link set {MASTER} up; ip link set {MASTERS_PEER} up"
    );
    node.sh(&script).map(drop)
}

impl World {
    pub(super) fn netns_gone(&mut self, pod: &'static str) -> Result<()> {
        if !self.model.is_there(pod) {
            return Ok(());
        }
        self.pod(pod)?.drop_netns(&self.node)?;
        let ends: Vec<String> = self
            .model
            .host_ends
            .iter()
            .filter(|(_, attachment)| attachment.pod == pod)
            .map(|(name, _)| name.clone())
            .collect();
        self.model.netns_gone(pod);
        self.wait_until(|host| !ends.iter().any(|name| host.links.contains_key(name)))
    }

    /// The kernel takes its time with a namespace and what is in it.
    fn wait_until(&self, done: impl Fn(&Network) -> bool) -> Result<()> {
        let started = Instant::now();
        while !done(&Observed::of(&self.node, None, false)?.host) {
            if started.elapsed() > Duration::from_secs(20) {
                bail!("the links of a namespace that is gone are still there");
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        Ok(())
    }

    pub(super) fn foreign(&mut self, attachment: &Attachment) -> Result<()> {
        let there = self.model.is_there(attachment.pod);
        if !attachment.net.has_link() || !there || Observed::of(&self.node, None, false)?.inside(attachment).is_some() {
            return Ok(());
        }
        let script = format!("ip link add {} type dummy || ip link add {0} type bridge", attachment.ifname);
        self.node.sh_at(&self.pod(attachment.pod)?.place(), &script)?;
        self.model.foreign.insert(*attachment);
        Ok(())
    }

    pub(super) fn master_gone(&mut self) -> Result<()> {
        if self.model.master {
            self.node.sh(&format!("ip link del {MASTER}"))?;
            self.model.master_gone();
        }
        Ok(())
    }

    pub(super) fn master_new(&mut self) -> Result<()> {
        if !self.model.master {
            make_master(&self.node)?;
            self.model.master = true;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.node.sh("nft flush ruleset")?;
        self.model.rules_flushed();
        Ok(())
    }

    /// Breaks something of an attachment that is whole; of no other.
    pub(super) fn tamper(&mut self, attachment: &Attachment, part: Part) -> Result<()> {
        let State::Up(up) = self.model.state(attachment) else { return Ok(()) };
        if up.damage.is_some() || !self.model.is_inside(attachment, up) || !part.is_of(&attachment.net) {
            return Ok(());
        }
        if part == Part::Route && up.routes.is_empty() {
            return Ok(());
        }
        let (place, script) = self.damage(attachment, up, part)?;
        self.node.sh_at(&place, &script)?;
        let damage = if part == Part::Link { Damage::Link } else { Damage::Part };
        self.model.damaged(attachment, damage);
        Ok(())
    }

    fn damage(&self, attachment: &Attachment, up: &Up, part: Part) -> Result<(Place, String)> {
        let ifname = attachment.ifname;
        let inside = self.pod(attachment.pod)?.place();
        let route = up.routes.first().cloned().unwrap_or_default();
        let address = up.addresses.iter().find(|address| address.contains('.')).cloned().unwrap_or_default();
        let address = address.split('/').next().unwrap_or_default().to_owned();
        let port = ports(attachment.pod).first().copied();
        let port = port.map(|port| format!("{} . {}", port.protocol, port.host)).unwrap_or_default();
        let masquerading = address.rsplit_once('.').map(|(network, _)| format!("masq4-{network}.0/24"));
        Ok(match part {
            Part::Link => (inside, format!("ip link del {ifname}")),
            Part::Addresses => (inside, format!("ip addr flush dev {ifname} scope global")),
            Part::Route => (inside, format!("ip route del {route}")),
            Part::Mtu => (inside, format!("ip link set {ifname} mtu 1300")),
            Part::Sysctl => (inside, format!("echo 0 >/proc/sys/net/ipv4/conf/{ifname}/arp_filter")),
            Part::Bucket => {
                let end = up.host_end.clone().unwrap_or_default();
                (Place::Host, format!("tc qdisc del dev {end} root"))
            }
            Part::Ifb => (Place::Host, format!("ip link del {}", ifb_of(attachment))),
            Part::Rule if attachment.net.has("portmap") => {
                (Place::Host, format!("nft delete element inet sandwire-ports ports4 '{{ {port} }}'"))
            }
            Part::Rule => {
                let group = masquerading.unwrap_or_default();
                (Place::Host, format!("nft delete element inet sandwire '{group}' '{{ {address} }}'"))
            }
        })
    }

    pub(super) fn reboot(&mut self) -> Result<()> {
        for pod in PODS {
            self.netns_gone(pod)?;
        }
        drop(self.agent.take());
        self.boots += 1;
        let id = boot_id(self.boots);
        self.node.sh(
            "ip -br link | sed -nE 's/^([^ @]+).*/\\1/p' | grep -vx lo | while read -r link; do ip link del \"$link\" || ! ip link show \"$link\"; done
            nft flush ruleset
            rm -rf /run/sandwire
            echo 0 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding",
        )?;
        make_master(&self.node)?;
        self.node.within(move || std::fs::write("/mnt/boot_id", id))?.map_err(|error| anyhow!("{BOOT_ID}: {error}"))?;
        self.model.rebooted();
        self.restart_agent()
    }
}
