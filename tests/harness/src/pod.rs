//! A pod as CNI sees it: a container id and the path of a network namespace.

use crate::{Node, Place};
use anyhow::{Context, Result, anyhow};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Container id and network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// CNI_CONTAINERID.
    pub id: String,
    /// CNI_NETNS.
    pub netns: PathBuf,
}

impl Pod {
    pub(crate) fn make(node: &Node, name: &str) -> Result<Self> {
        let pod = Self { id: format!("pod-{name}"), netns: PathBuf::from(format!("/run/netns/pod-{name}")) };
        pod.make_netns(node)?;
        Ok(pod)
    }

    /// A new, empty namespace at the pod's path: what a pod finds after a reboot.
    ///
    /// # Errors
    /// When there is one already.
    pub fn make_netns(&self, node: &Node) -> Result<()> {
        let path = self.netns.clone();
        node.within(move || {
            std::thread::spawn(move || -> Result<()> {
                File::create_new(&path).with_context(|| path.display().to_string())?;
                unshare(CloneFlags::CLONE_NEWNET)?;
                let own = Path::new("/proc/thread-self/ns/net");
                Ok(mount(Some(own), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
            })
            .join()
            .map_err(|_| anyhow!("making a netns panicked"))?
        })?
    }

    /// Take the pod's namespace away, with everything in it; the path is gone too.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn drop_netns(&self, node: &Node) -> Result<()> {
        let path = self.netns.clone();
        node.within(move || {
            umount2(&path, MntFlags::MNT_DETACH).with_context(|| path.display().to_string())?;
            Ok(std::fs::remove_file(&path)?)
        })?
    }

    /// Where the pod's network is.
    pub fn place(&self) -> Place {
        Place::Netns(self.netns.clone())
    }
}
