//! What BaGPipe agents know against what the journal says. The calls are those of networking-bagpipe's REST API
//! (`bagpipe_bgp/api/controllers.py`), which the plugin makes too; an agent is one if policy lets a plugin detach at it.

use super::{Finding, Kind, Options, Remedy, in_time, journal_of};
use crate::endpoint::{self, Call, Reply};
use crate::session::is_a_pods_veth;
use crate::store::Generation;
use sandwire_kernel::LinkInfo;
use sandwire_policy::{Endpoint, paths};
use sandwire_state::Outcome;
use sandwire_state::journal::{self, Attachment, Entry, State, Summary, Undo};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const ATTACH: &str = "/attach_localport";
const DETACH: &str = "/detach_localport";
const INSTANCES: &str = "/looking-glass/vpns/instances";
/// One call of a few: nobody waits for a pod here.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn mend(options: &Options) -> Outcome<Vec<Finding>> {
    // Without a policy nobody says where an agent is.
    let Ok(generation) = Generation::active() else { return Ok(Vec::new()) };
    let mut findings = Vec::new();
    for agent in agents(&generation)? {
        findings.extend(agent.mend(options)?);
    }
    Ok(findings)
}

fn agents(generation: &Generation) -> Outcome<Vec<Agent>> {
    let mut agents: BTreeMap<String, Agent> = BTreeMap::new();
    for plugin in generation.plugins()? {
        let Ok(Some(grant)) = generation.grant(&plugin) else { continue };
        for (name, endpoint) in grant.endpoints {
            if endpoint::allowed(&endpoint, "POST", DETACH) && endpoint::allowed(&endpoint, "GET", INSTANCES) {
                agents.entry(endpoint.address.clone()).or_insert(Agent { name, endpoint });
            }
        }
    }
    Ok(agents.into_values().collect())
}

struct Agent {
    name: String,
    endpoint: Endpoint,
}

/// A port of a VPN instance, as the agent or as the journal has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    instance: String,
    port: String,
}

impl Place {
    /// From the body of an attach or detach.
    fn of(body: &str) -> Option<Self> {
        let body: Value = serde_json::from_str(body).ok()?;
        let instance = body.get("vpn_instance_id")?.as_str()?.to_owned();
        let port = body.get("local_port")?;
        let port = port.as_str().or_else(|| port.get("linuxif")?.as_str())?.to_owned();
        Some(Self { instance, port })
    }
}

impl Agent {
    fn mend(&self, options: &Options) -> Outcome<Vec<Finding>> {
        // First the agent, then the journal: an ADD writes there before it attaches.
        let registered = match self.registered() {
            Ok(registered) => registered,
            Err(why) => return self.unasked(&why),
        };
        let known = journal::list(Path::new(paths::JOURNAL), None)?;
        let journalled: Vec<Place> =
            known.iter().flat_map(|summary| &summary.pending).filter_map(|entry| self.place(entry)).collect();
        let is_unknown = |place: &Place| is_a_pods_veth(&place.port) && !journalled.contains(place);
        let mut unknown: Vec<(&Place, &Vec<Value>)> =
            registered.iter().filter(|(place, _)| is_unknown(place)).collect();
        let mut lost: Vec<(Attachment, Place)> = Vec::new();
        for summary in known.iter().filter(|summary| !summary.has_left_over()) {
            let places = self.attached(summary).into_iter().filter(|place| !registered.contains_key(place));
            lost.extend(places.map(|place| (summary.attachment.clone(), place)));
        }
        if unknown.is_empty() && lost.is_empty() {
            return Ok(Vec::new());
        }
        // A DEL or an ADD may have ended between the two looks.
        let Ok(now) = self.registered() else { return Ok(Vec::new()) };
        unknown.retain(|(place, _)| now.contains_key(place));
        lost.retain(|(_, place)| !now.contains_key(place));
        let links = super::attachments::host_links()?;
        let mut findings: Vec<Finding> =
            unknown.into_iter().map(|(place, endpoints)| self.unknown(options, place, endpoints, &links)).collect();
        for (attachment, place) in lost {
            findings.extend(self.lost(options, &attachment, &place, &links)?);
        }
        Ok(findings)
    }

    /// What the agent has that a call of this entry's would take back.
    fn place(&self, entry: &Entry) -> Option<Place> {
        match &entry.undo {
            Undo::Call { endpoint, path, body, .. } if *endpoint == self.name && path == DETACH => Place::of(body),
            _ => None,
        }
    }

    /// What an attachment has at the agent, by its journal.
    fn attached(&self, summary: &Summary) -> Vec<Place> {
        let done = summary.pending.iter().filter(|entry| entry.state == State::Done);
        done.filter_map(|entry| self.place(entry)).collect()
    }

    /// The agent does not tell, and somebody's registration depends on it.
    fn unasked(&self, why: &str) -> Outcome<Vec<Finding>> {
        let known = journal::list(Path::new(paths::JOURNAL), None)?;
        let count = known.iter().filter(|s| !s.has_left_over() && !self.attached(s).is_empty()).count();
        let text = format!(
            "whether it has the {count} attachments that the journal knows can't be compared: {why}; start it, then run repair again"
        );
        Ok(if count == 0 { Vec::new() } else { vec![self.finding(Kind::SilentAgent, text, Remedy::Told)] })
    }

    fn finding(&self, kind: Kind, text: String, remedy: Remedy) -> Finding {
        let text = format!("agent {:?} ({}): {text}", self.name, self.endpoint.address);
        Finding { kind, network: String::new(), container_id: None, interface: None, address: None, text, remedy }
    }

    fn unknown(&self, options: &Options, place: &Place, endpoints: &[Value], links: &[LinkInfo]) -> Finding {
        let Place { instance, port } = place;
        let text = format!("it has port {port} in VPN instance {instance}, which no journal knows");
        let kind = Kind::UnknownRegistration;
        if links.iter().any(|link| link.name == *port) {
            let text = format!(
                "{text}; the link is there: another plugin attached it, or its journal is lost. When its container is gone, ip link del {port} and repair again"
            );
            return self.finding(kind, text, Remedy::Told);
        }
        let text = format!("{text}, and there is no such link: what it announces leads nowhere");
        if options.dry_run {
            return self.finding(kind, text, Remedy::WouldMend);
        }
        let failed = endpoints.iter().find_map(|at| {
            let part = |key: &str| at.get(key).cloned().unwrap_or_default();
            // Agents of 2016 want every field of an attach.
            let body = json!({"vpn_type": "evpn", "vpn_instance_id": instance, "import_rt": [], "export_rt": [],
                "ip_address": part("ip_address"), "mac_address": part("mac_address"), "local_port": {"linuxif": port},
                "advertise_subnet": false});
            self.post(DETACH, &body.to_string(), &[400]).err()
        });
        match failed {
            None => self.finding(kind, text, Remedy::Mended),
            Some(why) => self.finding(kind, format!("{text}; could not detach it: {why}"), Remedy::Left),
        }
    }

    /// An attachment that the agent has forgotten: it was started again. What the detach would say is what the attach
    /// said, and the host end is what it was.
    fn lost(
        &self,
        options: &Options,
        attachment: &Attachment,
        place: &Place,
        links: &[LinkInfo],
    ) -> Outcome<Option<Finding>> {
        let Place { instance, port } = place;
        let finding = |text: String, remedy| Finding {
            network: attachment.network.clone(),
            container_id: Some(attachment.container_id.clone()),
            interface: Some(attachment.ifname.clone()),
            ..self.finding(Kind::LostRegistration, text, remedy)
        };
        let text = format!("it has forgotten port {port} in VPN instance {instance}: it was started again");
        if !links.iter().any(|link| link.name == *port) {
            let text = format!("{text}; the link is gone too: start the pod again");
            return Ok(Some(finding(text, Remedy::Told)));
        }
        if options.dry_run {
            return Ok(Some(finding(text, Remedy::WouldMend)));
        }
        in_time(|| {
            let journal = match journal_of(attachment)? {
                Ok(journal) => journal,
                Err(busy) => return Ok(Some(busy)),
            };
            let pending = journal.pending();
            let mut entries = pending.iter().filter(|entry| entry.state == State::Done);
            let Some(entry) = entries.find(|entry| self.place(entry).as_ref() == Some(place)) else {
                // A DEL was faster.
                journal.remove_if_empty()?;
                return Ok(None);
            };
            let Undo::Call { body, .. } = &entry.undo else { return Ok(None) };
            Ok(Some(match self.post(ATTACH, body, &[]) {
                Ok(()) => finding(format!("{text}; attached again"), Remedy::Mended),
                Err(why) => finding(format!("{text}; could not attach it: {why}; start the pod again"), Remedy::Left),
            }))
        })
    }

    /// Every port of every instance, with the endpoints at it.
    fn registered(&self) -> Result<BTreeMap<Place, Vec<Value>>, String> {
        let mut found = BTreeMap::new();
        let instances = self.look(INSTANCES)?.ok_or("it has no list of VPN instances")?;
        let instances = instances.as_array().ok_or("its list of VPN instances is none")?;
        for instance in instances.iter().filter_map(|instance| instance.get("id")?.as_str()) {
            // None: detached meanwhile.
            let Some(ports) = self.look(&format!("{INSTANCES}/{instance}/ports"))? else { continue };
            let ports = ports.as_object().ok_or("its list of ports is none")?;
            for (port, told) in ports {
                let endpoints = told.get("endpoints").and_then(Value::as_array).cloned().unwrap_or_default();
                found.insert(Place { instance: instance.to_owned(), port: port.clone() }, endpoints);
            }
        }
        Ok(found)
    }

    fn look(&self, path: &str) -> Result<Option<Value>, String> {
        let reply = self.send("GET", path, "")?;
        match reply.status {
            200 => {
                serde_json::from_str(&reply.body).map(Some).map_err(|_| format!("GET {path}: the answer is no JSON"))
            }
            404 => Ok(None),
            status => Err(format!("GET {path}: it answered {status}")),
        }
    }

    fn post(&self, path: &str, body: &str, done: &[u16]) -> Result<(), String> {
        let reply = self.send("POST", path, body)?;
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(reply.body.trim()).is_ok();
        match reply.status {
            // A page with status 200 comes from something else on its port.
            200..300 if is_json || reply.body.trim().is_empty() => Ok(()),
            status if done.contains(&status) => Ok(()),
            status => Err(format!("POST {path}: it answered {status}")),
        }
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Result<Reply, String> {
        let mut headers = vec![("Accept".to_owned(), "application/json".to_owned())];
        if !body.is_empty() {
            headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
        }
        let call = Call { method, path, headers: &headers, body };
        endpoint::send(&self.name, &self.endpoint, &call, PATIENCE).map_err(|fault| fault.text().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_call_attaches() {
        let place = |body| Place::of(body).map(|place| (place.instance, place.port));
        let new = r#"{"vpn_instance_id": "ab", "local_port": {"linuxif": "veth01234567"}}"#;
        assert_eq!(place(new), Some(("ab".into(), "veth01234567".into())));
        assert_eq!(place(r#"{"vpn_instance_id": "ab", "local_port": "x"}"#), Some(("ab".into(), "x".into())));
        assert_eq!(place("null"), None);
    }
}
