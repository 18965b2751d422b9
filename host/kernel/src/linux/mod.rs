//! The real kernel, by netlink and /proc.
//!
//! [`LinuxKernel::open`] needs CAP_SYS_ADMIN for the one visit to the container's namespace; afterwards CAP_NET_ADMIN
//! is enough for everything, with no_new_privs: no setns(2), no program is executed.

#![allow(dead_code)] // until every operation is in

mod netns;
mod socket;
mod sysctl;

pub use netns::{open_netns, same_netns};

use crate::*;
use netns::Namespace;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// What is opened in the container's namespace beside the route socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Firewall rules in the container's namespace.
    pub container_firewall: bool,
}

/// [`Kernel`] on the namespaces of one attachment.
#[derive(Debug)]
pub struct LinuxKernel {
    host: Namespace,
    container: Option<Namespace>,
    interrupted: fn() -> bool,
}

impl LinuxKernel {
    /// The current namespace of the thread is the host's; `container` the other, when there is one. Must be called by
    /// the thread that uses the result: namespaces belong to threads.
    ///
    /// # Errors
    /// When sockets can't be opened, or `container` can't be entered (CAP_SYS_ADMIN).
    pub fn open(container: Option<BorrowedFd<'_>>) -> Outcome<Self> {
        Self::open_with(container, Needs::default())
    }

    /// As [`LinuxKernel::open`], with more than the usual in the container's namespace.
    ///
    /// # Errors
    /// As [`LinuxKernel::open`].
    pub fn open_with(container: Option<BorrowedFd<'_>>, _needs: Needs) -> Outcome<Self> {
        let host = Namespace::host()?;
        let container = match container {
            Some(fd) => Some(Namespace::visit(&host.fd, fd, || Ok(()))?.0),
            None => None,
        };
        Ok(Self { host, container, interrupted: || false })
    }

    /// Asked whenever a signal interrupts a wait: whether to give up (the deadline of the call has passed).
    pub fn set_interrupted(&mut self, interrupted: fn() -> bool) {
        self.interrupted = interrupted;
    }

    /// At the very end: hands what is slow to close to a helper process, so that this one exits at once.
    pub fn finish(self) {}

    fn namespace(&mut self, netns: Netns) -> Outcome<&mut Namespace> {
        match netns {
            Netns::Host => Ok(&mut self.host),
            Netns::Container => self
                .container
                .as_mut()
                .ok_or_else(|| KernelError::NotFound("this attachment has no container namespace any more".into())),
        }
    }
}

impl Kernel for LinuxKernel {
    fn has_container(&self) -> bool {
        self.container.is_some()
    }

    fn link_by_name(&mut self, _netns: Netns, _name: &str) -> Outcome<LinkInfo> {
        Err(KernelError::unsupported("link_by_name"))
    }

    fn link_info(&mut self, _link: LinkId) -> Outcome<LinkInfo> {
        Err(KernelError::unsupported("link_info"))
    }

    fn links(&mut self, _netns: Netns) -> Outcome<Vec<LinkInfo>> {
        Err(KernelError::unsupported("links"))
    }

    fn veth_peer(&mut self, _link: LinkId) -> Outcome<LinkInfo> {
        Err(KernelError::unsupported("veth_peer"))
    }

    fn create_veth(&mut self, _a: &DeviceSpec, _b: &DeviceSpec) -> Outcome<(LinkId, LinkId)> {
        Err(KernelError::unsupported("create_veth"))
    }

    fn create_bridge(&mut self, _device: &DeviceSpec, _bridge: &BridgeSpec) -> Outcome<LinkId> {
        Err(KernelError::unsupported("create_bridge"))
    }

    fn change_link(&mut self, _link: LinkId, _changes: &LinkChanges) -> Outcome<()> {
        Err(KernelError::unsupported("change_link"))
    }

    fn set_master(&mut self, _link: LinkId, _master: Option<LinkId>) -> Outcome<()> {
        Err(KernelError::unsupported("set_master"))
    }

    fn delete_link(&mut self, _link: LinkId) -> Outcome<()> {
        Err(KernelError::unsupported("delete_link"))
    }

    fn delete_links(&mut self, _links: &[LinkId]) -> Outcome<()> {
        Err(KernelError::unsupported("delete_links"))
    }

    fn set_bridge_port(&mut self, _port: LinkId, _settings: &BridgePort) -> Outcome<()> {
        Err(KernelError::unsupported("set_bridge_port"))
    }

    fn bridge_port(&mut self, _port: LinkId) -> Outcome<BridgePort> {
        Err(KernelError::unsupported("bridge_port"))
    }

    fn set_port_vlans(&mut self, _port: LinkId, _vlans: &[PortVlan]) -> Outcome<()> {
        Err(KernelError::unsupported("set_port_vlans"))
    }

    fn port_vlans(&mut self, _port: LinkId) -> Outcome<Vec<PortVlan>> {
        Err(KernelError::unsupported("port_vlans"))
    }

    fn add_address(&mut self, _link: LinkId, _address: &AddressSpec) -> Outcome<()> {
        Err(KernelError::unsupported("add_address"))
    }

    fn remove_address(&mut self, _link: LinkId, _address: ipnet::IpNet) -> Outcome<()> {
        Err(KernelError::unsupported("remove_address"))
    }

    fn addresses(&mut self, _link: LinkId) -> Outcome<Vec<AddressInfo>> {
        Err(KernelError::unsupported("addresses"))
    }

    fn add_route(&mut self, _link: LinkId, _route: &RouteSpec, _mode: RouteMode) -> Outcome<()> {
        Err(KernelError::unsupported("add_route"))
    }

    fn remove_route(&mut self, _link: LinkId, _route: &RouteSpec) -> Outcome<()> {
        Err(KernelError::unsupported("remove_route"))
    }

    fn routes(&mut self, _netns: Netns, _table: Option<u32>) -> Outcome<Vec<RouteInfo>> {
        Err(KernelError::unsupported("routes"))
    }

    fn lookup_route(&mut self, _netns: Netns, _destination: std::net::IpAddr) -> Outcome<RouteInfo> {
        Err(KernelError::unsupported("lookup_route"))
    }

    fn configure(&mut self, _link: LinkId, _addresses: &[AddressSpec], _routes: &[RouteSpec]) -> Outcome<()> {
        Err(KernelError::unsupported("configure"))
    }

    fn wait_link_up(&mut self, _link: LinkId, _timeout: Duration) -> Outcome<()> {
        Err(KernelError::unsupported("wait_link_up"))
    }

    fn wait_addresses(&mut self, _link: LinkId, _timeout: Duration) -> Outcome<()> {
        Err(KernelError::unsupported("wait_addresses"))
    }

    fn read_sysctl(&mut self, netns: Netns, key: &str) -> Outcome<String> {
        self.sysctl_read(netns, key)
    }

    fn write_sysctl(&mut self, netns: Netns, key: &str, value: &str) -> Outcome<Option<String>> {
        self.sysctl_write(netns, key, value)
    }

    fn apply_rules(&mut self, _netns: Netns, _owner: &RuleOwner, _label: &str, _rules: &[Rule]) -> Outcome<()> {
        Err(KernelError::unsupported("apply_rules"))
    }

    fn verify_rules(
        &mut self,
        _netns: Netns,
        _owner: &RuleOwner,
        _label: &str,
        _rules: &[Rule],
    ) -> Outcome<Vec<String>> {
        Err(KernelError::unsupported("verify_rules"))
    }

    fn clear_rules(&mut self, _netns: Netns, _owner: &RuleOwner) -> Outcome<()> {
        Err(KernelError::unsupported("clear_rules"))
    }

    fn retain_rules(&mut self, _netns: Netns, _network: &str, _valid: &[(String, String)]) -> Outcome<()> {
        Err(KernelError::unsupported("retain_rules"))
    }
}
