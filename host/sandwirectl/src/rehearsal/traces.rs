//! What an attachment leaves in the kernel and in the state: to see what ADD made, and what DEL did not take away.

use super::node::Node;
use crate::output::Output;
use anyhow::Result;
use ipnet::IpNet;
use sandwire_kernel::linux::LinuxKernel;
use sandwire_kernel::{Kernel, Netns};
use sandwire_policy::paths;
use sandwire_state::journal;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

/// RT_TABLE_MAIN
const MAIN: u32 = 254;

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
        let mut lines = BTreeSet::new();
        let mut kernel = LinuxKernel::open(Some(node.container.as_fd()))?;
        for (netns, place) in [(Netns::Host, "node"), (Netns::Container, "pod ")] {
            let links = kernel.links(netns)?;
            // What is on a bridge is shared as the bridge is.
            let whose = |kind: &str| if kind == "bridge" { Whose::Shared } else { Whose::Attachment };
            for link in &links {
                let up = if link.up { "up" } else { "down" };
                let master = links.iter().find(|other| Some(other.id.index) == link.master);
                let on = master.map_or_else(String::new, |master| format!(" on {}", master.name));
                lines.insert((
                    whose(&link.kind),
                    format!("{place} link {} {}{on} {up} mtu {}", link.name, link.kind, link.mtu),
                ));
                for address in kernel.addresses(link.id)? {
                    if !is_kernels(address.address) {
                        lines.insert((whose(&link.kind), format!("{place} address {} {}", link.name, address.address)));
                    }
                }
            }
            for info in kernel.routes(netns, Some(MAIN))? {
                let Some(link) = links.iter().find(|link| Some(link.id) == info.link) else { continue };
                if is_kernels(info.route.dst) {
                    continue;
                }
                let via = info.route.via.map_or_else(String::new, |via| format!(" via {via}"));
                lines.insert((whose(&link.kind), format!("{place} route {}{via} dev {}", info.route.dst, link.name)));
            }
        }
        for holder in kernel.rule_holders()? {
            lines.insert((Whose::Attachment, format!("node firewall {} for {:?}", holder.text, holder.addresses)));
        }
        for summary in journal::list(Path::new(paths::JOURNAL), None)? {
            let attachment = &summary.attachment;
            lines.insert((
                Whose::Attachment,
                format!("node journal {} {} {}", attachment.network, attachment.container_id, attachment.ifname),
            ));
        }
        for network in fs::read_dir(paths::LEASES).into_iter().flatten().flatten() {
            for lease in fs::read_dir(network.path()).into_iter().flatten().flatten() {
                // The lock, and where the next search begins, are of the network.
                let name = lease.file_name().to_string_lossy().into_owned();
                if name != "lock" && !name.starts_with("last_reserved_ip") {
                    lines.insert((Whose::Attachment, format!("node lease {}", lease.path().display())));
                }
            }
        }
        Ok(Self(lines))
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
            let lines: Vec<&String> = self.0.iter().map(|(_, line)| line).collect();
            return output.json(&serde_json::json!({ what: lines }));
        }
        if !self.0.is_empty() {
            output.line(format_args!("{what}:"));
        }
        for (whose, line) in &self.0 {
            output.line(format_args!("  {line}{}", if *whose == Whose::Shared { "   (shared: stays)" } else { "" }));
        }
        Ok(())
    }
}

/// fe80:: and its network are on every link that is up.
fn is_kernels(network: IpNet) -> bool {
    matches!(network, IpNet::V6(network) if network.addr().is_unicast_link_local())
}
