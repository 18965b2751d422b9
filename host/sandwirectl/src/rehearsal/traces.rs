//! What an attachment leaves in the kernel and in the state: to see what ADD made, and what DEL did not take away.

use super::node::Node;
use crate::output::Output;
use anyhow::Result;
use ipnet::IpNet;
use sandwire_kernel::linux::LinuxKernel;
use sandwire_kernel::{Kernel, Netns};
use sandwire_policy::paths;
use sandwire_state::journal;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

/// RT_TABLE_MAIN, RT_TABLE_LOCAL
const MAIN: u32 = 254;
const LOCAL: u32 = 255;
const NODE: &str = "node";
const POD: &str = "pod ";

/// Whose something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    /// The attachment's: DEL has to take it away.
    Attachment,
    /// What attachments share, such as a bridge: it stays, as with the reference plugins.
    Shared,
}

/// Lines that can be compared.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Traces(BTreeSet<(Whose, String)>);

impl Traces {
    pub(super) fn look(node: &Node) -> Result<Self> {
        let mut traces = Self(BTreeSet::new());
        let mut kernel = LinuxKernel::open(node.container.as_ref().map(AsFd::as_fd))?;
        traces.network(&mut kernel, Netns::Host, NODE)?;
        if node.container.is_some() {
            traces.network(&mut kernel, Netns::Container, POD)?;
        }
        for holder in kernel.rule_holders()? {
            traces.add(Whose::Attachment, format!("{NODE} firewall {} for {:?}", holder.text, holder.addresses));
        }
        for summary in journal::list(Path::new(paths::JOURNAL), None)? {
            let attachment = &summary.attachment;
            let what = format!("{} {} {}", attachment.network, attachment.container_id, attachment.ifname);
            traces.add(Whose::Attachment, format!("{NODE} journal {what}"));
        }
        traces.files(Path::new("/var/lib/cni"));
        traces.files(Path::new(paths::NOTES));
        Ok(traces)
    }

    fn add(&mut self, whose: Whose, line: String) {
        self.0.insert((whose, line));
    }

    fn network(&mut self, kernel: &mut LinuxKernel, netns: Netns, place: &str) -> Result<()> {
        let links = kernel.links(netns)?;
        // What is on a bridge of the node is shared as the bridge is.
        let is_shared = |kind: &str| netns == Netns::Host && kind == "bridge";
        let whose = |kind: &str| if is_shared(kind) { Whose::Shared } else { Whose::Attachment };
        for link in &links {
            let kind = if link.loopback { "loopback" } else { link.kind.as_str() };
            let master = links.iter().find(|other| Some(other.id.index) == link.master);
            let mut line = format!("{place} link {} {kind}", link.name);
            if let Some(master) = master {
                line = format!("{line} on {}", master.name);
            }
            line.push_str(if link.up { " up" } else { " down" });
            line = format!("{line} mtu {}", link.mtu);
            line.push_str(if link.allmulti { " allmulti" } else { "" });
            if let Some(alias) = &link.alias {
                line = format!("{line} alias {alias:?}");
            }
            self.add(whose(kind), line);
            for address in kernel.addresses(link.id)? {
                if !is_kernels(address.address) {
                    self.add(whose(kind), format!("{place} address {} {}", link.name, address.address));
                }
            }
        }
        for info in kernel.routes(netns, None)? {
            let route = &info.route;
            // The local ones follow the addresses.
            if route.table == Some(LOCAL) || is_kernels(route.dst) || route.dst.addr().is_multicast() {
                continue;
            }
            let link = links.iter().find(|link| Some(link.id) == info.link);
            let via = route.via.map_or_else(String::new, |via| format!(" via {via}"));
            let dev = link.map_or_else(String::new, |link| format!(" dev {}", link.name));
            let table = route.table.filter(|table| *table != MAIN);
            let table = table.map_or_else(String::new, |table| format!(" table {table}"));
            let kind = link.map_or("", |link| link.kind.as_str());
            self.add(whose(kind), format!("{place} route {}{via}{dev}{table}", route.dst));
        }
        for rule in kernel.policy_rules(netns)? {
            self.add(Whose::Attachment, format!("{place} {rule}"));
        }
        Ok(())
    }

    /// Leases, and whatever plugins keep beside them.
    fn files(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            // The lock, and where the next search begins, are of the network; results are this tool's own.
            if name == "lock" || name.starts_with("last_reserved_ip") || path == Path::new("/var/lib/cni/results") {
                continue;
            }
            match path.is_dir() {
                true => self.files(&path),
                false => self.add(Whose::Attachment, format!("{NODE} file {}", path.display())),
            }
        }
    }

    /// What the pod's end does not take away.
    pub(super) fn of_node(&self) -> Self {
        Self(self.0.iter().filter(|(_, line)| line.starts_with(NODE)).cloned().collect())
    }

    /// What `before` does not have.
    pub(super) fn minus(&self, before: &Self) -> Self {
        Self(self.0.difference(&before.0).cloned().collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is nothing that DEL should have taken away.
    pub(super) fn only_shared(&self) -> bool {
        self.0.iter().all(|(whose, _)| *whose == Whose::Shared)
    }

    pub(super) fn show(&self, output: &Output, what: &str) -> Result<()> {
        if output.json {
            let lines = self.0.iter().map(|(whose, line)| json!({"what": line, "shared": *whose == Whose::Shared}));
            return output.json(&json!({ what: lines.collect::<Vec<_>>() }));
        }
        if !self.0.is_empty() {
            output.line(format_args!("{what}:"));
        }
        for (whose, line) in &self.0 {
            output.line(format_args!("     {line}{}", if *whose == Whose::Shared { "   (shared: stays)" } else { "" }));
        }
        Ok(())
    }
}

/// fe80:: and its network are on every link that is up, and these on lo.
fn is_kernels(network: IpNet) -> bool {
    match network {
        IpNet::V4(network) => network.addr().is_loopback(),
        IpNet::V6(network) => network.addr().is_unicast_link_local() || network.addr().is_loopback(),
    }
}
