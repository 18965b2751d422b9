//! What is there: everything of attachments that a node can have, read in a millisecond but for the firewall's rules.

use crate::look::Network;
use crate::networks::{Attachment, NETWORKS, PODS};
use crate::rules::Ruleset;
use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use sandwire_harness::agent::Agent;
use sandwire_harness::{Node, Place};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;

/// A node at one moment.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The host's namespace.
    pub host: Network,
    /// Those of the pods that have one.
    pub pods: BTreeMap<&'static str, Network>,
    /// Network and address to what the lease file says.
    pub leases: BTreeMap<(String, IpAddr), String>,
    /// Files of the lease directories that are none of a lease's, a cursor's or the lock's.
    pub strange: Vec<String>,
    /// Whose journals there are: "network/pod-a/eth0"; or the path of one that does not say.
    pub journals: BTreeSet<String>,
    /// The firewall's rules.
    pub ruled: Option<Ruleset>,
    /// Ports that the agent knows, with their instance.
    pub registered: BTreeMap<String, String>,
}

impl Observed {
    /// Look at everything; at the firewall only if `rules`: that costs a program.
    ///
    /// # Errors
    /// When something can't be read.
    pub fn of(node: &Node, agent: Option<&Agent>, rules: bool) -> Result<Self> {
        let mut observed = node.within(Self::here)??;
        if rules {
            observed.ruled = Some(Ruleset::of(&node.view(&Place::Host, "nft")?));
        }
        let attached = agent.map(Agent::attached).unwrap_or_default();
        observed.registered = attached.into_iter().map(|(instance, port)| (port, instance)).collect();
        Ok(observed)
    }

    /// On the node's own thread.
    fn here() -> Result<Self> {
        let mut observed = Self { host: Network::here()?, ..Self::default() };
        for pod in PODS {
            let Ok(netns) = File::open(format!("/run/netns/pod-{pod}")) else { continue };
            let look = move || -> Result<Network> {
                setns(&netns, CloneFlags::CLONE_NEWNET)?;
                Network::here()
            };
            let network = std::thread::spawn(look).join().map_err(|_| anyhow!("looking into a pod panicked"))?;
            observed.pods.insert(pod, network.with_context(|| format!("pod {pod}"))?);
        }
        for net in NETWORKS.into_iter().filter(|net| !net.is_native()) {
            observed.leases_of(net.name)?;
        }
        observed.journals()?;
        Ok(observed)
    }

    fn leases_of(&mut self, net: &str) -> Result<()> {
        let folder = Path::new("/var/lib/cni/networks").join(net);
        for name in names(&folder)? {
            match name.parse::<IpAddr>() {
                Ok(address) => {
                    let content = std::fs::read_to_string(folder.join(&name))?;
                    self.leases.insert((net.to_owned(), address), content.replace("\r\n", "/"));
                }
                Err(_) if name == "lock" || name.starts_with("last_reserved_ip.") => {}
                Err(_) => self.strange.push(folder.join(name).display().to_string()),
            }
        }
        Ok(())
    }

    fn journals(&mut self) -> Result<()> {
        let root = Path::new("/run/sandwire/journal/networks");
        for net in names(root)? {
            for name in names(&root.join(&net))? {
                let path = root.join(&net).join(name);
                let text = std::fs::read_to_string(&path)?;
                let first: Option<Value> = text.lines().next().and_then(|line| serde_json::from_str(line).ok());
                let whose = first.as_ref().and_then(|line| {
                    let attachment = line.get("attachment")?;
                    let part = |key| attachment.get(key)?.as_str();
                    Some(format!("{}/{}/{}", part("network")?, part("container_id")?, part("ifname")?))
                });
                self.journals.insert(whose.unwrap_or_else(|| path.display().to_string()));
            }
        }
        Ok(())
    }

    /// How many lease files of a network have no owner.
    pub fn ownerless(&self, net: &str) -> usize {
        self.leases.iter().filter(|((name, _), holder)| name == net && holder.is_empty()).count()
    }

    /// A pod's interface.
    pub fn inside(&self, attachment: &Attachment) -> Option<&crate::look::Link> {
        self.pods.get(attachment.pod)?.links.get(attachment.ifname)
    }

    /// What the lease files of an attachment are named.
    pub fn leases_of_attachment(&self, attachment: &Attachment) -> BTreeSet<IpAddr> {
        let owner = format!("{}/{}", attachment.container_id(), attachment.ifname);
        let own = self.leases.iter().filter(|((net, _), holder)| net == attachment.net.name && **holder == owner);
        own.map(|((_, address), _)| *address).collect()
    }
}

/// None when there is no such folder.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| folder.display().to_string()),
    };
    Ok(entries.into_iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}
