//! Whether the agents that plugins call answer.

use super::{Check, configurations};
use crate::generation::Generation;
use sandwire_policy::Endpoint;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// One check for each agent that a plugin in force may call.
pub(super) fn checks() -> Vec<Check> {
    let grants = Generation::active().ok().flatten().and_then(|active| active.grants().ok()).unwrap_or_default();
    let mut agents: BTreeMap<String, (Endpoint, Vec<String>)> = BTreeMap::new();
    for (plugin, grant) in &grants {
        for (name, endpoint) in &grant.endpoints {
            agents.entry(name.clone()).or_insert_with(|| (endpoint.clone(), Vec::new())).1.push(plugin.clone());
        }
    }
    let configured = configurations::types();
    agents
        .into_iter()
        .map(|(name, (endpoint, plugins))| {
            let what = format!("agent {name} at {}", endpoint.address);
            let needed = plugins.iter().any(|plugin| configured.contains(plugin));
            match reach(&endpoint) {
                Ok(()) => Check::ok(what, "answers"),
                Err(error) if needed => Check::fail(
                    what,
                    error,
                    format!("start it, or correct [endpoints.{name}]; {} need it", plugins.join(", ")),
                ),
                // The default policy names an agent that most nodes have not: that is no fault of theirs.
                Err(error) => Check::note(
                    what,
                    error,
                    format!(
                        "only {} would need it, and nothing in {} names them",
                        plugins.join(", "),
                        configurations::DIRECTORY
                    ),
                ),
            }
        })
        .collect()
}

fn reach(endpoint: &Endpoint) -> Result<(), String> {
    let patience = Duration::from_millis(endpoint.timeout_ms.min(2_000));
    if let Some(path) = endpoint.address.strip_prefix("unix:") {
        return UnixStream::connect(path).map(drop).map_err(|error| error.to_string());
    }
    let address = endpoint.address.strip_prefix("http://").and_then(|address| address.parse::<SocketAddr>().ok());
    let address = address.ok_or_else(|| "the address can't be read; run: sandwirectl apply".to_owned())?;
    TcpStream::connect_timeout(&address, patience).map(drop).map_err(|error| error.to_string())
}
