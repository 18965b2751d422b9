//! `attachments`: what is attached on this node, from the journal and from the kernel as it is now.

use crate::output::Output;
use anyhow::Result;
use nix::fcntl::OFlag;
use sandwire_kernel::linux::LinuxKernel;
use sandwire_kernel::{Kernel, KernelError, LinkInfo, Netns, boot_time};
use sandwire_policy::paths;
use sandwire_runtime::repair;
use sandwire_state::journal::{self, Side, State, Summary, Undo};
use serde::Serialize;
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// One interface of one container.
#[derive(Debug, Serialize)]
struct Row {
    network: String,
    container_id: String,
    interface: String,
    plugins: Vec<String>,
    /// As the runtime named it at ADD.
    netns: Option<String>,
    host_veth: Option<String>,
    host_index: Option<u32>,
    /// The interface index of the container's end, in the container: what `ethtool -S` calls peer_ifindex.
    peer_index: Option<u32>,
    bridge: Option<String>,
    addresses: Vec<String>,
    /// Whether `addresses` are the container's now; else they are what ADD answered.
    live: bool,
    /// How long the address that a DHCP server gave still lasts, 0 when its time is over; none of another address.
    lease_seconds: Option<u32>,
    /// Operations that the host would undo.
    pending: usize,
    state: &'static str,
}

/// Lists attachments.
pub(crate) fn attachments(output: &Output, network: Option<&str>) -> Result<bool> {
    let summaries = journal::list(Path::new(paths::JOURNAL), network)?;
    // Without links to look at there is nothing to look for: a node with no attachment needs no privilege to say so.
    let links = match summaries.is_empty() {
        true => Vec::new(),
        false => LinuxKernel::open(None)?.links(Netns::Host)?,
    };
    let rows: Vec<Row> = summaries.iter().map(|summary| row(summary, &links)).collect();
    if output.json {
        output.json(&rows)?;
        return Ok(true);
    }
    if rows.is_empty() {
        output.line("nothing is attached");
        return Ok(true);
    }
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
    let number = |value: &Option<u32>| value.map_or_else(|| "-".into(), |index| index.to_string());
    output.table(
        ["NETWORK", "CONTAINER", "INTERFACE", "HOST VETH", "PEER INDEX", "BRIDGE", "ADDRESSES", "STATE"],
        rows.iter().map(|row| {
            [
                row.network.clone(),
                row.container_id.clone(),
                row.interface.clone(),
                text(&row.host_veth),
                number(&row.peer_index),
                text(&row.bridge),
                if row.addresses.is_empty() { "-".to_owned() } else { row.addresses.join(" ") },
                row.state.to_owned(),
            ]
        }),
    );
    Ok(true)
}

fn row(summary: &Summary, links: &[LinkInfo]) -> Row {
    let attachment = &summary.attachment;
    let results: Vec<&Value> = summary.facts.values().filter_map(|facts| facts.get("result")).collect();
    let netns = summary.facts.values().find_map(|facts| facts.get("netns")?.as_str()).map(str::to_owned);
    let host_end = host_end(summary, &results, links);
    let bridge =
        host_end.and_then(|link| link.master).and_then(|master| links.iter().find(|link| link.id.index == master));
    let wants_host_end = results.iter().any(|result| repair::host_interfaces(result).next().is_some());
    // What has its name then is another's: a path may lead to the next container by now.
    let is_cut = wants_host_end && host_end.is_none();
    let now = match netns.as_deref() {
        Some(netns) if !is_cut => Now::look(netns, &attachment.ifname),
        _ => Now::Gone,
    };
    let then = results.iter().flat_map(|result| result.get("ips")?.as_array()).flatten();
    let then = then.filter_map(|ip| Some(ip.get("address")?.as_str()?.to_owned()));
    let only_kept = !summary.pending.is_empty() && summary.pending.iter().all(|entry| entry.state == State::Failed);
    let lease = lease_seconds(summary);
    Row {
        network: attachment.network.clone(),
        container_id: attachment.container_id.clone(),
        interface: attachment.ifname.clone(),
        plugins: summary.facts.keys().cloned().collect(),
        state: match () {
            // As `repair` has it: its call has ended.
            () if only_kept => "kept",
            () if summary.uncommitted > 0 => "unfinished",
            () if now == Now::Gone => "gone",
            () if now == Now::Hidden => "unknown",
            () if lease == Some(0) => "expired",
            () if repair::unplugged(summary, links).is_some() => "no bridge",
            () => "attached",
        },
        lease_seconds: lease,
        live: matches!(now, Now::There(_)),
        addresses: match now {
            Now::There(addresses) => addresses,
            Now::Gone | Now::Hidden => {
                let mut then: Vec<String> = then.collect();
                then.dedup();
                then
            }
        },
        netns,
        host_veth: host_end.map(|link| link.name.clone()),
        host_index: host_end.map(|link| link.id.index),
        peer_index: host_end.and_then(|link| link.parent),
        bridge: bridge.map(|link| link.name.clone()),
        pending: summary.pending.len(),
    }
}

fn lease_seconds(summary: &Summary) -> Option<u32> {
    let lease = repair::leased(summary).last()?;
    Some(lease.left(boot_time().ok()?).unwrap_or(0))
}

/// The node's end of the container's veth: among what this attachment made, and what its plugins said.
fn host_end<'a>(summary: &Summary, results: &[&Value], links: &'a [LinkInfo]) -> Option<&'a LinkInfo> {
    let made = summary.pending.iter().filter_map(|entry| match &entry.undo {
        Undo::DeleteLink { side: Side::Host, name, .. } => Some(name.as_str()),
        _ => None,
    });
    let said = results.iter().flat_map(|result| repair::host_interfaces(result));
    made.chain(said).find_map(|name| links.iter().find(|link| link.name == name && link.kind == "veth"))
}

/// What an interface in a container is now.
#[derive(Debug, PartialEq, Eq)]
enum Now {
    /// There, with these addresses.
    There(Vec<String>),
    /// Not there, nor may its namespace be.
    Gone,
    /// Who asks may not look (CAP_SYS_ADMIN).
    Hidden,
}

impl Now {
    fn look(netns: &str, interface: &str) -> Self {
        // The path is the runtime's; a fifo in its place must not hold this command.
        let flags = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(netns) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Self::Hidden,
            Err(_) => return Self::Gone,
        };
        let mut kernel = match LinuxKernel::open(Some(file.as_fd())) {
            Ok(kernel) => kernel,
            Err(KernelError::Denied(_)) => return Self::Hidden,
            Err(_) => return Self::Gone,
        };
        let link = kernel.link_by_name(Netns::Container, interface);
        let Ok(addresses) = link.and_then(|link| kernel.addresses(link.id)) else { return Self::Gone };
        // Link-local IPv6 addresses are the kernel's own, on every interface, and tell nobody anything.
        let own =
            |address: &std::net::IpAddr| matches!(address, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local());
        let told = addresses.iter().filter(|info| !own(&info.address.addr()));
        Self::There(told.map(|info| info.address.to_string()).collect())
    }
}
