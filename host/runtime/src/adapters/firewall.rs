//! `firewall`: the rules that a plugin wants for this attachment.

use super::parse;
use crate::bindings::firewall::{self, Ingress, PortForward, Protocol, RuleKind};
use crate::bindings::types;
use crate::guest::Guest;
use crate::handles::{LinkHandle, NetnsHandle, Right, RulesetHandle};
use crate::published;
use crate::refusal::{Answer, Refusal};
use crate::session::{Session, side};
use crate::undo::rule_owner;
use sandwire_kernel::{Kernel, Mac, Rule, RuleOwner};
use sandwire_state::journal::Undo;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wasmtime::component::Resource;

fn owner(session: &Session, plugin: &str) -> RuleOwner {
    rule_owner(&session.subject.attachment, plugin)
}

/// Rules of a kind, of addresses that nobody has (RFC 5737, RFC 3849) and of a port that is not there.
fn sample(kind: RuleKind) -> Vec<Rule> {
    const IPV4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    match kind {
        RuleKind::Masquerade => {
            let masquerade = |source: IpAddr| Rule::Masquerade { source, except: vec![source.into()] };
            vec![masquerade(IPV4), masquerade(IPV6)]
        }
        RuleKind::SpoofCheck => vec![Rule::SpoofCheck { port: "nobody".into(), mac: Mac([2, 0, 0, 0, 0, 1]) }],
        RuleKind::Forward => {
            vec![Rule::Forward { address: IPV4, ingress: sandwire_kernel::Ingress::Open, bridge: None }]
        }
        RuleKind::ForwardPort => vec![Rule::ForwardPort(sandwire_kernel::PortForward {
            protocol: 6,
            host_ip: None,
            host_port: 80,
            to: IPV4,
            to_port: 80,
            masquerade: true,
            extra: Vec::new(),
        })],
    }
}

/// IPPROTO_*.
pub(super) fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

/// What one call can need, with room for a pod that publishes thousands of ports.
const MOST_RULES: usize = 16_384;
/// The same of what one rule has in a list, and of the bytes of its conditions.
const MOST_PARTS: usize = 256;
const MOST_BYTES: usize = 4096;
/// More than anybody reads: faults, and letters of one.
const MOST_FAULTS: usize = 16;
const MOST_LETTERS: usize = 256;

impl Guest {
    /// Adds what `make` makes of the guest's words; what is wrong with them is told by `verify` or `commit`.
    fn collect(
        &mut self,
        this: &Resource<RulesetHandle>,
        make: impl FnOnce(&mut Self) -> Answer<Rule>,
    ) -> wasmtime::Result<()> {
        match make(self) {
            Ok(rule) => {
                let (session, table, _) = self.parts()?;
                session.ruled += 1;
                let set = table.get_mut(this)?;
                match session.ruled <= MOST_RULES {
                    true => set.rules.push(rule),
                    false => set.fault(format!("more than {MOST_RULES} rules in one call")),
                }
            }
            Err(Refusal::Trap(trap)) => return Err(trap),
            Err(refusal) => {
                let set = self.table.get_mut(this)?;
                set.denied |= matches!(refusal, Refusal::Guest(types::Error::Denied(_)));
                set.fault(refusal.text());
            }
        }
        Ok(())
    }

    fn ruleset(&mut self, this: &Resource<RulesetHandle>) -> Answer<RulesetHandle> {
        let ruleset = self.table.get(this)?.clone();
        match ruleset.faults.is_empty() {
            true => Ok(ruleset),
            false if ruleset.denied => Err(Refusal::denied(ruleset.faults.join("; "))),
            false => Err(Refusal::invalid(ruleset.faults.join("; "))),
        }
    }
}

impl RulesetHandle {
    fn fault(&mut self, mut text: String) {
        // It may quote what a guest wrote, as long as a host call may be.
        if let Some((end, _)) = text.char_indices().nth(MOST_LETTERS) {
            text.truncate(end);
        }
        if self.faults.len() < MOST_FAULTS && !self.faults.contains(&text) {
            self.faults.push(text);
        }
    }
}

impl firewall::Host for Guest {
    fn open(&mut self, ns: Resource<NetnsHandle>, label: String) -> Answer<Resource<RulesetHandle>> {
        let netns = parse::netns(&self.table, &ns)?.netns;
        if label.is_empty() || label.len() > 32 || !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(Refusal::invalid(format!("{label:?} is no label: up to 32 letters, digits and hyphens")));
        }
        Ok(self.table.push(RulesetHandle { netns, label, rules: Vec::new(), faults: Vec::new(), denied: false })?)
    }

    fn check_support(&mut self, ns: Resource<NetnsHandle>, kinds: Vec<RuleKind>) -> Answer<()> {
        let netns = parse::netns(&self.table, &ns)?.netns;
        let rules: Vec<Rule> = kinds.into_iter().flat_map(sample).collect();
        Ok(self.session()?.kernel()?.check_rules(netns, &rules)?)
    }

    fn clear(&mut self, ns: Resource<NetnsHandle>) -> Answer<()> {
        let plugin = self.grant.plugin.clone();
        let netns = parse::netns(&self.table, &ns)?.netns;
        let session = self.session()?;
        let owner = owner(session, &plugin);
        // An ADD that the journal knows, and that made no rules: there are none. Otherwise they may be from before the
        // last boot's journal, or the reference plugins'.
        if session.has_entries(&plugin) && !session.has_rules(&plugin) {
            return session.may_change();
        }
        let held = session.held().to_vec();
        session.change(|kernel| {
            kernel.clear_rules(netns, &owner)?;
            kernel.clear_reference_rules(netns, &owner, &held)
        })?;
        let is_one = |undo: &Undo| matches!(undo, Undo::ClearRules { side: at, plugin: whose, .. } if *whose == plugin && *at == side(netns));
        let free = session.entries_of(|entry| is_one(&entry.undo).then(|| published::taken(entry))).concat();
        session.taken_back(is_one)?;
        published::give_back(session, &free, None, &[]);
        Ok(())
    }
}

impl firewall::HostRuleset for Guest {
    fn masquerade(
        &mut self,
        this: Resource<RulesetHandle>,
        source: String,
        except: Vec<String>,
    ) -> wasmtime::Result<()> {
        self.collect(&this, |guest| {
            let source = parse::ip(&source)?;
            guest.session()?.must_hold(source, "masquerading")?;
            if except.len() > MOST_PARTS {
                return Err(Refusal::invalid(format!(
                    "masquerading {source} except towards more than {MOST_PARTS} networks"
                )));
            }
            let except = except.iter().map(|text| Ok(parse::cidr(text)?.trunc())).collect::<Answer<Vec<_>>>()?;
            if except.iter().any(|net| net.addr().is_ipv4() != source.is_ipv4()) {
                return Err(Refusal::invalid(format!("masquerading {source} except towards the other address family")));
            }
            Ok(Rule::Masquerade { source, except })
        })
    }

    fn forward_port(&mut self, this: Resource<RulesetHandle>, p: PortForward) -> wasmtime::Result<()> {
        self.collect(&this, |guest| {
            let to = parse::ip(&p.to)?;
            guest.session()?.must_hold(to, "port forwarding")?;
            let host_ip = p.host_ip.as_deref().map(parse::ip).transpose()?;
            // The node's own ports, and other pods': whose a port is the runtime says, never a plugin.
            if !guest.session()?.given.maps_port(number(p.protocol), host_ip, p.host_port) {
                return Err(Refusal::denied(format!(
                    "may not forward port {} of the node: the runtime does not map it to the attachment (portMappings of runtimeConfig)",
                    p.host_port
                )));
            }
            if p.extra.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MOST_BYTES {
                return Err(Refusal::invalid(format!("port forwarding with conditions of more than {MOST_BYTES} bytes")));
            }
            Ok(Rule::ForwardPort(sandwire_kernel::PortForward {
                protocol: number(p.protocol),
                host_ip,
                host_port: p.host_port,
                to,
                to_port: p.to_port,
                masquerade: p.masquerade,
                extra: p.extra,
            }))
        })
    }

    fn forward(
        &mut self,
        this: Resource<RulesetHandle>,
        address: String,
        ingress: Ingress,
        bridge: Option<Resource<LinkHandle>>,
    ) -> wasmtime::Result<()> {
        self.collect(&this, |guest| {
            let address = parse::ip(&address)?;
            guest.session()?.must_hold(address, "forwarding")?;
            let bridge = match &bridge {
                Some(bridge) => Some(parse::link(&guest.table, bridge, Right::See, "look at")?.name),
                None => None,
            };
            let ingress = match ingress {
                Ingress::Open => sandwire_kernel::Ingress::Open,
                Ingress::SameBridge => sandwire_kernel::Ingress::SameBridge,
                Ingress::Isolated => sandwire_kernel::Ingress::Isolated,
            };
            Ok(Rule::Forward { address, ingress, bridge })
        })
    }

    fn spoof_check(
        &mut self,
        this: Resource<RulesetHandle>,
        port: Resource<LinkHandle>,
        mac: String,
    ) -> wasmtime::Result<()> {
        self.collect(&this, |guest| {
            let port = parse::link(&guest.table, &port, Right::Own, "check frames from")?.name;
            Ok(Rule::SpoofCheck { port, mac: parse::mac(&mac)? })
        })
    }

    fn verify(&mut self, this: Resource<RulesetHandle>) -> Answer<Vec<String>> {
        let plugin = self.grant.plugin.clone();
        let set = self.ruleset(&this)?;
        let session = self.session()?;
        // An ADD of the reference plugins, before ours took their place: its rules are where it put them.
        if !session.has_rules(&plugin) {
            return Ok(Vec::new());
        }
        let owner = owner(session, &plugin);
        Ok(session.kernel()?.verify_rules(set.netns, &owner, &set.label, &set.rules)?)
    }

    fn commit(&mut self, this: Resource<RulesetHandle>) -> Answer<()> {
        let plugin = self.grant.plugin.clone();
        let set = self.ruleset(&this)?;
        let session = self.session()?;
        let owner = owner(session, &plugin);
        // Written once more when something was taken, which is rare: no copy of thousands of rules for it.
        let undo = |taken| -> serde_json::Result<Undo> {
            Ok(Undo::ClearRules {
                side: side(set.netns),
                plugin: plugin.clone(),
                label: set.label.clone(),
                rules: serde_json::to_value(&set.rules)?,
                taken,
            })
        };
        let intent = undo(false).map_err(|e| Refusal::other(e.to_string()))?;
        let apply =
            |kernel: &mut (dyn Kernel + Send + 'static)| kernel.apply_rules(set.netns, &owner, &set.label, &set.rules);
        session.perform(&plugin, intent, apply, |taken| taken.then(|| undo(true).ok()).flatten()).map(drop)
    }

    fn drop(&mut self, this: Resource<RulesetHandle>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
