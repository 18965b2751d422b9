//! Ports that have lost their bridge: somebody removed it, or took them out of it. The containers behind them are cut off, and
//! nothing else says so.

use super::attachments::host_links;
use super::{Finding, Kind, Remedy};
use sandwire_kernel::LinkInfo;
use sandwire_policy::paths;
use sandwire_state::Outcome;
use sandwire_state::journal::{self, Summary};
use serde_json::Value;
use std::path::Path;

pub(super) fn look() -> Outcome<Vec<Finding>> {
    // First the journal: a port that a DEL takes meanwhile is no link any more.
    let summaries = journal::list(Path::new(paths::JOURNAL), None)?;
    let links = if summaries.is_empty() { Vec::new() } else { host_links()? };
    let lost = summaries.iter().filter_map(|summary| Some((summary, unplugged(summary, &links)?)));
    let finding = |(summary, (port, bridge)): (&Summary, (&LinkInfo, String))| {
        let text = format!(
            "its port {0} is in no bridge, ADD had put it into {bridge}: the container is cut off; attach it again, or, when {bridge} is there with its addresses: ip link set {0} master {bridge} (a VLAN, isolation and hairpin mode of the port do not come back so)",
            port.name
        );
        Finding::about(Kind::LostPort, &summary.attachment, text, Remedy::Told)
    };
    Ok(lost.map(finding).collect())
}

/// The node's end of an attachment's veth, if it is in no bridge although its plugin answered with one; and that bridge's name.
///
/// Results of `bridge` name the bridge before its port, as the reference's do (`cmdAdd`: `brInterface, hostInterface, containerInterface`).
pub fn unplugged<'a>(summary: &Summary, links: &'a [LinkInfo]) -> Option<(&'a LinkInfo, String)> {
    let results = summary.facts.values().filter_map(|facts| facts.get("result"));
    let bridges: Vec<&str> = results.filter_map(|result| host_interfaces(result).next()).collect();
    let port = summary.pending.iter().filter_map(|entry| entry.undo.node_link()).find_map(|(index, name)| {
        links.iter().find(|link| link.id.index == index && link.name == name && link.kind == "veth")
    })?;
    let bridge = bridges.into_iter().find(|bridge| *bridge != port.name)?;
    (summary.uncommitted == 0 && port.master.is_none()).then(|| (port, bridge.to_owned()))
}

/// Names of a result's interfaces that are the node's.
pub fn host_interfaces(result: &Value) -> impl Iterator<Item = &str> {
    let interfaces = result.get("interfaces").and_then(Value::as_array).into_iter().flatten();
    interfaces
        .filter(|interface| interface.get("sandbox").and_then(Value::as_str).is_none_or(str::is_empty))
        .filter_map(|interface| interface.get("name")?.as_str())
}
