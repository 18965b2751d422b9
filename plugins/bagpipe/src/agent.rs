//! The BaGPipe agent's REST calls. Where it is, the policy says, under the endpoint's name.

use crate::instance::Instance;
use crate::route_target::RouteTargets;
use ipnet::IpNet;
use sandwire_plugin::host::endpoint::{self, Reply};
use sandwire_plugin::{Call, Failure, HostError, OrFail, code};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The endpoint's name in the policy.
const AGENT: &str = "bagpipe";

/// A pod as the agent sees it.
pub(crate) struct Endpoint<'a> {
    pub(crate) instance: &'a Instance,
    pub(crate) import_rt: &'a RouteTargets,
    pub(crate) export_rt: &'a RouteTargets,
    pub(crate) vni: Option<u32>,
    /// The host end of the pod's veth.
    pub(crate) linuxif: &'a str,
    /// Of the pod's end.
    pub(crate) mac: &'a str,
    pub(crate) ip: IpNet,
    pub(crate) gateway: Option<IpAddr>,
}

impl Endpoint<'_> {
    /// The body of attach and of detach: the agents of 2016 want every field in both.
    fn body(&self) -> Value {
        let mut body = json!({
            "vpn_type": "evpn",
            "vpn_instance_id": self.instance.id,
            "import_rt": self.import_rt.texts(),
            "export_rt": self.export_rt.texts(),
            "ip_address": self.ip.to_string(),
            "mac_address": self.mac,
            "local_port": { "linuxif": self.linuxif },
            // A host's address in an EVPN can't stand for its subnet: `true` makes the agent fail an assertion.
            "advertise_subnet": false,
        });
        if let Some(fields) = body.as_object_mut() {
            // Absent, not empty: the plugin of 2016 sent "<nil>" for a missing gateway.
            if let Some(gateway) = self.gateway {
                fields.insert("gateway_ip".into(), gateway.to_string().into());
            }
            if let Some(vni) = self.vni {
                fields.insert("vni".into(), vni.into());
            }
        }
        body
    }
}

/// Plugs the pod into its VPN instance. The host has the detach in its journal before the attach is sent.
///
/// # Errors
/// What the agent answered unless it was 200; code 11 when it can't be reached or hangs.
pub(crate) fn attach(call: &Call, endpoint: &Endpoint<'_>) -> Result<(), Failure> {
    let body = endpoint.body();
    // 400: not plugged (yet, or any more), or no such instance. 500 is not "done": the agent may have withdrawn the route
    // and kept its device.
    let detach = request("POST", "/detach_localport").json(&body).as_undo(&[200, 400]);
    let what = format!(
        "could not attach {:?} of container {} to VPN instance {} at agent \"{AGENT}\"",
        call.ifname(),
        call.container_id(),
        endpoint.instance.id
    );
    let reply =
        endpoint::send(AGENT, &request("POST", "/attach_localport").json(&body), Some(&detach)).or_fail(&what)?;
    // An agent says `null`. A page with status 200 comes from something else on its port.
    if reply.status == 200 && serde_json::from_str::<serde::de::IgnoredAny>(&reply.body).is_ok() {
        Ok(())
    } else {
        Err(Failure::internal(what).with_details([&answer(&reply), "; nothing was left behind"].concat()))
    }
}

/// Takes back every attach of this attachment. An agent that is down or refuses is no reason to keep a pod: the host goes on
/// trying later.
///
/// # Errors
/// When the policy does not allow it.
pub(crate) fn detach() -> Result<(), Failure> {
    endpoint::undo_all(AGENT).or_fail("could not detach from the BGP agent")
}

/// Addresses by which the underlay can be found: the BGP peers, then where VXLAN comes from and the agent's own. Empty when
/// the agent does not tell.
///
/// # Errors
/// When it can't be reached.
pub(crate) fn underlay_addresses() -> Result<Vec<String>, Failure> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Bgp {
        local_address: Option<String>,
        peers: Vec<String>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Evpn {
        dataplane_local_address: Option<String>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Told {
        #[serde(rename = "BGP")]
        bgp: Bgp,
        #[serde(rename = "DATAPLANE_DRIVER_EVPN")]
        evpn: Evpn,
    }
    let reply = look("config").or_fail(format!("BGP agent \"{AGENT}\""))?;
    let told: Told =
        if reply.status == 200 { serde_json::from_str(&reply.body).unwrap_or_default() } else { Told::default() };
    Ok(told.bgp.peers.into_iter().chain(told.evpn.dataplane_local_address).chain(told.bgp.local_address).collect())
}

/// What an agent lacks that CHECK looks for. It keeps nothing on a disk.
const FORGOTTEN: &str = "the agent was started again and has forgotten its pods, or somebody else detached this one: run sandwirectl \
    repair, which attaches it again";

/// CHECK: whether the agent has the pod, on this port and with these addresses.
///
/// # Errors
/// What is different.
pub(crate) fn check(instance: &Instance, linuxif: &str, mac: &str, ip: IpNet) -> Result<(), Failure> {
    let reply = look(&format!("vpns/instances/{}/ports", instance.id)).or_fail(format!("BGP agent \"{AGENT}\""))?;
    match reply.status {
        200 => compare(&reply.body, instance, linuxif, mac, ip),
        404 => Err(Failure::internal(format!("BGP agent \"{AGENT}\" knows no VPN instance {}", instance.id))
            .with_details(FORGOTTEN)),
        _ => Err(Failure::internal(format!("BGP agent \"{AGENT}\" does not tell about VPN instance {}", instance.id))
            .with_details(answer(&reply))),
    }
}

#[derive(Deserialize)]
struct Port {
    #[serde(default)]
    endpoints: Vec<Plugged>,
}

#[derive(Deserialize)]
struct Plugged {
    #[serde(default)]
    mac_address: String,
    #[serde(default)]
    ip_address: Option<String>,
}

fn compare(ports: &str, instance: &Instance, linuxif: &str, mac: &str, ip: IpNet) -> Result<(), Failure> {
    let different =
        |what: String| Err(Failure::internal(format!("VPN instance {} at agent \"{AGENT}\" {what}", instance.id)));
    let Ok(ports) = serde_json::from_str::<BTreeMap<String, Port>>(ports) else {
        return different("has a list of ports that can't be read".into());
    };
    let Some(port) = ports.get(linuxif) else {
        return different(format!("has no port {linuxif}")).map_err(|failure| failure.with_details(FORGOTTEN));
    };
    let Some(plugged) = port.endpoints.iter().find(|plugged| plugged.mac_address.eq_ignore_ascii_case(mac)) else {
        let macs: Vec<&str> = port.endpoints.iter().map(|plugged| plugged.mac_address.as_str()).collect();
        return different(format!("has port {linuxif} with MAC {}, the pod has {mac}", list(&macs)));
    };
    let announced = plugged.ip_address.as_deref().unwrap_or("none");
    // An agent may show the address without the prefix length of the attach.
    if announced == ip.to_string() || announced == ip.addr().to_string() {
        Ok(())
    } else {
        different(format!("has port {linuxif} with address {announced}, the pod has {ip}"))
    }
}

fn list(items: &[&str]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

/// STATUS: whether the agent is there and has a BGP session.
///
/// # Errors
/// Code 50 and which of them is missing.
pub(crate) fn ready() -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Summary {
        #[serde(rename = "BGP_established_peers")]
        established: u64,
    }
    let unavailable = |msg: String, details: String| Err(Failure::new(code::NOT_AVAILABLE, msg).with_details(details));
    let reply = match look("summary") {
        Ok(reply) => reply,
        // Not for the operator of the agent but for the one of the policy.
        Err(error @ HostError::Denied(_)) => return Err(error.into()),
        Err(error) => return unavailable(format!("BGP agent \"{AGENT}\" is down"), Failure::from(error).msg),
    };
    if reply.status != 200 {
        return unavailable(format!("BGP agent \"{AGENT}\" is not ready"), answer(&reply));
    }
    match serde_json::from_str::<Summary>(&reply.body) {
        Ok(summary) if summary.established > 0 => Ok(()),
        Ok(_) => unavailable(
            format!("BGP agent \"{AGENT}\" has no established BGP peer"),
            "it is up, but its route reflector is not: pods would be attached and reach nobody on other nodes".into(),
        ),
        Err(_) => unavailable(format!("BGP agent \"{AGENT}\" does not tell of its BGP peers"), answer(&reply)),
    }
}

fn look(path: &str) -> Result<Reply, HostError> {
    endpoint::send(AGENT, &request("GET", &format!("/looking-glass/{path}")), None)
}

fn request(method: &str, path: &str) -> endpoint::Call {
    // Without it errors come as a page of HTML.
    endpoint::Call::new(method, path).header("Accept", "application/json")
}

/// What an agent answered that did not do what it was asked, for a line of text.
fn answer(reply: &Reply) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        description: String,
    }
    let text = match serde_json::from_str::<Refusal>(&reply.body) {
        Ok(refusal) => refusal.description,
        Err(_) => plain(&reply.body),
    };
    let text = text.trim().trim_start_matches("API error: ");
    format!("the agent answered {}{}{}", reply.status, if text.is_empty() { "" } else { ": " }, shorten(text))
}

/// A page of HTML without its tags, and anything else with single blanks.
fn plain(body: &str) -> String {
    let mut text = String::new();
    let mut in_tag = false;
    for c in body.chars() {
        match c {
            '<' => in_tag = true,
            '>' if in_tag => {
                in_tag = false;
                text.push(' ');
            }
            _ if !in_tag => text.push(c),
            _ => {}
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn shorten(text: &str) -> String {
    const MOST: usize = 300;
    if text.chars().count() <= MOST { text.to_owned() } else { text.chars().take(MOST).chain("...".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(text: &str) -> RouteTargets {
        RouteTargets::parse("importrt", &serde_json::from_value(text.into()).unwrap()).unwrap()
    }

    fn instance() -> Instance {
        Instance::of("mynet", &targets("64512:90"), &targets("64512:90"))
    }

    #[test]
    fn the_body_has_what_the_agent_documents_and_nothing_more() {
        let (instance, rt) = (instance(), targets("64512:91,64512:90"));
        let mut endpoint = Endpoint {
            instance: &instance,
            import_rt: &rt,
            export_rt: &rt,
            vni: None,
            linuxif: "veth6eca8f26",
            mac: "4e:db:35:a4:19:cb",
            ip: "10.1.2.100/24".parse().unwrap(),
            gateway: Some("10.1.2.1".parse().unwrap()),
        };
        let wanted = json!({"vpn_type":"evpn","vpn_instance_id":instance.id,"import_rt":["64512:90","64512:91"],
            "export_rt":["64512:90","64512:91"],"ip_address":"10.1.2.100/24","mac_address":"4e:db:35:a4:19:cb",
            "local_port":{"linuxif":"veth6eca8f26"},"advertise_subnet":false,"gateway_ip":"10.1.2.1"});
        assert_eq!(endpoint.body(), wanted);
        endpoint.gateway = None;
        endpoint.vni = Some(5000);
        let body = endpoint.body();
        assert!(body.get("gateway_ip").is_none() && body["vni"] == 5000);
    }

    #[test]
    fn check_names_what_is_different() {
        // As the agent of the lab prints it.
        let ports = r#"{"veth11": {"endpoints": [{"label": 17, "mac_address": "0a:00:00:00:01:0A", "ip_address": "10.1.2.11/24",
            "local_pref": null, "rd": " rd 192.0.2.1:1", "description": null, "direction": "both"}]}}"#;
        let ask = |port: &str, mac: &str, ip: &str| compare(ports, &instance(), port, mac, ip.parse().unwrap());
        assert_eq!(ask("veth11", "0a:00:00:00:01:0a", "10.1.2.11/24"), Ok(()));
        for (port, mac, ip, text) in [
            ("veth12", "0a:00:00:00:01:0a", "10.1.2.11/24", "has no port veth12"),
            (
                "veth11",
                "0a:00:00:00:01:0b",
                "10.1.2.11/24",
                "with MAC 0a:00:00:00:01:0A, the pod has 0a:00:00:00:01:0b",
            ),
            ("veth11", "0a:00:00:00:01:0a", "10.1.2.12/24", "with address 10.1.2.11/24, the pod has 10.1.2.12/24"),
        ] {
            let failure = ask(port, mac, ip).unwrap_err();
            assert!(failure.msg.contains(text), "{}", failure.msg);
        }
        assert!(compare("null", &instance(), "x", "", "10.0.0.1/8".parse().unwrap()).is_err());
    }

    #[test]
    fn what_the_agent_answers_becomes_one_line() {
        let reply = |status, body: &str| Reply { status, headers: Vec::new(), body: body.into() };
        let json = reply(
            400,
            r#"{"code":400,"title":"Bad Request","description":"API error: A VPN instance using vni 5000 already exists."}"#,
        );
        assert_eq!(answer(&json), "the agent answered 400: A VPN instance using vni 5000 already exists.");
        let html = reply(500, "<html>\n <head><title>500</title></head><body>\n<h1>Oops</h1>\n</body></html>");
        assert_eq!(answer(&html), "the agent answered 500: 500 Oops");
        assert_eq!(answer(&reply(204, "")), "the agent answered 204");
        assert!(answer(&reply(500, &"x".repeat(10_000))).len() < 400);
    }
}
