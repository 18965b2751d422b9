//! The real kernel, by netlink and /proc.
//!
//! [`LinuxKernel::open`] needs CAP_SYS_ADMIN for the one visit to the container's namespace; afterwards CAP_NET_ADMIN
//! is enough for everything, with no_new_privs: no setns(2), no program is executed.

mod addresses;
mod attributes;
mod bridge;
mod configure;
mod create;
mod delete;
mod devices;
mod dhcp;
mod links;
mod moving;
mod netns;
pub mod nftables;
mod routes;
mod rules;
mod shaping;
mod socket;
mod sysctl;
mod tap;
mod wait;

pub use netns::{OwnNetns, open_netns, open_own, same_netns};
pub use nftables::Nftables;

use crate::*;
use links::Seen;
use netns::Namespace;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// What is opened in the container's namespace beside the route socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Firewall rules in the container's namespace.
    pub container_firewall: bool,
    /// Sysctls of the container beyond those of `ipv4`, `ipv6` and `core`.
    pub all_sysctls: bool,
    /// A tap device of the container.
    pub tap: bool,
    /// Conversations with DHCP servers on the container's links.
    pub dhcp: bool,
}

/// [`Kernel`] on the namespaces of one attachment.
#[derive(Debug)]
pub struct LinuxKernel {
    host: Namespace,
    container: Option<Namespace>,
    /// /dev/null for helper processes, once one was needed.
    null: Option<OwnedFd>,
    /// Helper processes that have not been seen to end.
    helpers: Vec<Pid>,
    interrupted: fn() -> bool,
    host_firewall: Option<Nftables>,
    container_firewall: Option<Nftables>,
    /// For the one tap device that was asked for.
    tun: tap::Tun,
    packets: dhcp::Packets,
    /// Whether rules may have been deleted: only then is closing slow.
    rules_deleted: bool,
    /// What the kernel has just said of a link that was made, until anything else is asked of it.
    announced: Option<LinkInfo>,
    /// What the kernel said of the link that was looked up by its name last, and when, if nothing was asked for since.
    seen: Option<Seen>,
}

impl LinuxKernel {
    /// The current namespace of the thread is the host's; `container` the other, when there is one. Must be called by
    /// the thread that uses the result: namespaces belong to threads.
    ///
    /// # Errors
    /// When sockets can't be opened, or `container` can't be entered (CAP_SYS_ADMIN).
    pub fn open(container: Option<BorrowedFd<'_>>) -> Outcome<Self> {
        Self::open_with(open_own()?, container, Needs { all_sysctls: true, ..Needs::default() })
    }

    /// As [`LinuxKernel::open`], with the host's namespace, which must be the one that this thread is in, and with more than
    /// the usual in the container's.
    ///
    /// # Errors
    /// As [`LinuxKernel::open`].
    pub fn open_with(host: OwnNetns, container: Option<BorrowedFd<'_>>, needs: Needs) -> Outcome<Self> {
        let host = Namespace::host(host);
        let (container, (container_firewall, tun, packets)) = match container {
            Some(fd) => {
                let also = || {
                    let firewall = needs.container_firewall.then(Nftables::open).transpose()?;
                    let tun = if needs.tap { tap::Tun::open() } else { tap::Tun::unasked() };
                    let packets = if needs.dhcp { dhcp::Packets::open() } else { dhcp::Packets::unasked() };
                    Ok((firewall, tun, packets))
                };
                let (namespace, also) = Namespace::visit(&host.fd, fd, needs.all_sysctls, also)?;
                (Some(namespace), also)
            }
            None => (None, (None, tap::Tun::unasked(), dhcp::Packets::unasked())),
        };
        Ok(Self {
            host,
            container,
            null: None,
            helpers: Vec::new(),
            interrupted: || false,
            host_firewall: None,
            container_firewall,
            tun,
            packets,
            rules_deleted: false,
            announced: None,
            seen: None,
        })
    }

    /// Asked whenever a signal interrupts a wait: whether to give up (the deadline of the call has passed).
    pub fn set_interrupted(&mut self, interrupted: fn() -> bool) {
        self.interrupted = interrupted;
    }

    /// What a helper process has for its standard streams.
    fn null(&mut self) -> Option<RawFd> {
        if self.null.is_none() {
            self.null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).ok();
        }
        self.null.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn namespace(&mut self, netns: Netns) -> Outcome<&mut Namespace> {
        self.announced = None;
        self.seen = None;
        match netns {
            Netns::Host => Ok(&mut self.host),
            Netns::Container => self
                .container
                .as_mut()
                .ok_or_else(|| KernelError::NotFound("this attachment has no container namespace any more".into())),
        }
    }
}

impl LinuxKernel {
    /// The link that IFLA_LINK of one of these kinds names.
    fn linked(&mut self, link: LinkId, kinds: &[&str]) -> Outcome<LinkInfo> {
        let info = links::by_index(self.namespace(link.netns)?, link.index)?;
        let none = |why: &str| KernelError::NotFound(format!("link {:?} in {} {why}", info.name, link.netns));
        let is_one = || none(&format!("is no {}", kinds.join(" or ")));
        let index = info.parent.filter(|_| kinds.contains(&info.kind.as_str())).ok_or_else(is_one)?;
        let Some(id) = info.link_netnsid else {
            return links::by_index(self.namespace(link.netns)?, index);
        };
        let elsewhere = || none("has its other end in a namespace that is not this attachment's");
        let other = match link.netns {
            Netns::Host => Netns::Container,
            Netns::Container => Netns::Host,
        };
        let fd = match self.namespace(other) {
            Ok(namespace) => namespace.fd.as_raw_fd(),
            Err(_) => return Err(elsewhere()),
        };
        if links::nsid_of(self.namespace(link.netns)?, fd)? != Some(id) {
            return Err(elsewhere());
        }
        links::by_index(self.namespace(other)?, index)
    }

    fn connect(&mut self, link: LinkId, master: Option<LinkId>) -> Outcome<()> {
        match master {
            Some(master) if master.netns != link.netns => {
                Err(KernelError::Invalid(format!("a link of {} can't have a master in {}", link.netns, master.netns)))
            }
            _ => links::set_master(self.namespace(link.netns)?, link.index, master.map(|master| master.index)),
        }
    }

    fn delete_all(&mut self, links: &[LinkId]) -> Outcome<()> {
        for netns in [Netns::Host, Netns::Container] {
            let indexes: Vec<u32> = links.iter().filter(|link| link.netns == netns).map(|link| link.index).collect();
            let there = netns == Netns::Host || self.container.is_some();
            if there && !indexes.is_empty() {
                links::delete_many(self.namespace(netns)?, &indexes)?;
            }
        }
        Ok(())
    }

    /// The firewall of a namespace, opened when first needed: this process never leaves the host's namespace, and in the
    /// container's it must have been asked for ([`Needs`]).
    fn firewall(&mut self, netns: Netns) -> Outcome<&mut Nftables> {
        match netns {
            Netns::Host => {
                let open = match self.host_firewall.take() {
                    Some(open) => open,
                    None => Nftables::open()?,
                };
                Ok(self.host_firewall.insert(open))
            }
            Netns::Container => self.container_firewall.as_mut().ok_or_else(|| {
                KernelError::Unsupported(
                    "firewall rules in the container's namespace were not asked for when it was opened".into(),
                )
            }),
        }
    }
}

impl Kernel for LinuxKernel {
    fn has_container(&self) -> bool {
        self.container.is_some()
    }

    fn identity(&self, netns: Netns) -> Option<u64> {
        let namespace = match netns {
            Netns::Host => Some(&self.host),
            Netns::Container => self.container.as_ref(),
        };
        netns::cookie(namespace?.route.fd())
    }

    fn leave_container(&mut self) {
        (self.container, self.container_firewall) = (None, None);
        (self.tun, self.packets) = (tap::Tun::unasked(), dhcp::Packets::unasked());
    }

    fn finish(&mut self) {
        // Not left to the end of the process: who reads its answer may be slow, and a native delegate has copies of descriptors.
        for namespace in self.container.iter_mut().chain([&mut self.host]) {
            namespace.lock = None;
        }
        if !self.rules_deleted {
            return;
        }
        let socket = |firewall: Option<Nftables>| firewall.and_then(|firewall| firewall.into_fd().ok());
        let (node, container) = (socket(self.host_firewall.take()), socket(self.container_firewall.take()));
        delete::close_elsewhere(self, node, container);
    }

    fn link_by_name(&mut self, netns: Netns, name: &str) -> Outcome<LinkInfo> {
        let (info, received) = links::seen_by_name(self.namespace(netns)?, name)?;
        self.seen = Some(Seen { netns, name: name.to_owned(), received, at: Instant::now() });
        Ok(info)
    }

    fn link_info(&mut self, link: LinkId) -> Outcome<LinkInfo> {
        // Asking again would cost what `create::make` avoids.
        match self.announced.take_if(|announced| announced.id == link) {
            Some(info) => Ok(info),
            None => links::by_index(self.namespace(link.netns)?, link.index),
        }
    }

    fn links(&mut self, netns: Netns) -> Outcome<Vec<LinkInfo>> {
        links::all(self.namespace(netns)?)
    }

    fn veth_peer(&mut self, link: LinkId) -> Outcome<LinkInfo> {
        self.linked(link, &["veth"])
    }

    fn link_parent(&mut self, link: LinkId) -> Outcome<LinkInfo> {
        self.linked(link, &LinkInfo::RIDERS)
    }

    fn create_veth(&mut self, a: &DeviceSpec, b: &DeviceSpec) -> Outcome<(LinkId, LinkId)> {
        create::veth(self, a, b)
    }

    fn create_bridge(&mut self, device: &DeviceSpec, bridge: &BridgeSpec) -> Outcome<LinkId> {
        create::bridge(self, device, bridge)
    }

    fn create_virtual(&mut self, device: &DeviceSpec, kind: &VirtualKind) -> Outcome<LinkId> {
        create::other(self, device, kind)
    }

    fn create_tap(&mut self, device: &DeviceSpec, tap: &TapSpec) -> Outcome<LinkId> {
        tap::create(self, device, tap)
    }

    fn change_link(&mut self, link: LinkId, changes: &LinkChanges) -> Outcome<()> {
        links::change(self.namespace(link.netns)?, link.index, changes)
    }

    fn set_master(&mut self, link: LinkId, master: Option<LinkId>) -> Outcome<()> {
        self.connect(link, master)
    }

    fn move_link(&mut self, link: LinkId, to: Netns, name: &str, alias: Option<&str>) -> Outcome<LinkId> {
        moving::link(self, link, to, name, alias)
    }

    fn device_link(&mut self, id: &str) -> Outcome<LinkInfo> {
        self.link_by_name(Netns::Host, &devices::interface(id)?)
    }

    fn device_driver(&mut self, id: &str) -> Outcome<String> {
        devices::driver(id)
    }

    fn delete_link(&mut self, link: LinkId) -> Outcome<()> {
        delete::link(self, link)
    }

    fn delete_links(&mut self, links: &[LinkId]) -> Outcome<()> {
        self.delete_all(links)
    }

    fn set_bridge_port(&mut self, port: LinkId, settings: &BridgePort) -> Outcome<()> {
        bridge::set_port(self.namespace(port.netns)?, port.index, settings)
    }

    fn bridge_port(&mut self, port: LinkId) -> Outcome<BridgePort> {
        bridge::port(self.namespace(port.netns)?, port.index)
    }

    fn set_port_vlans(&mut self, port: LinkId, vlans: &[PortVlan]) -> Outcome<()> {
        bridge::set_vlans(self.namespace(port.netns)?, port, vlans)
    }

    fn check_vlan_filtering(&mut self) -> Outcome<()> {
        bridge::check_vlan_filtering(&mut self.host)
    }

    fn port_vlans(&mut self, port: LinkId) -> Outcome<Vec<PortVlan>> {
        bridge::vlans(self.namespace(port.netns)?, port.index)
    }

    fn add_address(&mut self, link: LinkId, address: &AddressSpec) -> Outcome<()> {
        addresses::add(self.namespace(link.netns)?, link.index, address)
    }

    fn remove_address(&mut self, link: LinkId, address: ipnet::IpNet) -> Outcome<()> {
        addresses::remove(self.namespace(link.netns)?, link.index, address)
    }

    fn addresses(&mut self, link: LinkId) -> Outcome<Vec<AddressInfo>> {
        addresses::all(self.namespace(link.netns)?, link.index)
    }

    fn dhcp_discover(
        &mut self,
        link: LinkId,
        ask: &DhcpAsk,
        wants: Option<Ipv4Addr>,
        patience: Duration,
    ) -> Outcome<DhcpLease> {
        dhcp::discover(self, link, ask, wants, patience)
    }

    fn dhcp_request(
        &mut self,
        link: LinkId,
        lease: &DhcpLease,
        how: DhcpRequest,
        patience: Duration,
    ) -> Outcome<Option<DhcpLease>> {
        dhcp::request(self, link, lease, how, patience)
    }

    fn dhcp_release(&mut self, link: LinkId, lease: &DhcpLease) -> Outcome<()> {
        dhcp::release(self, link, lease)
    }

    fn add_route(&mut self, link: LinkId, route: &RouteSpec, mode: RouteMode) -> Outcome<()> {
        routes::add(self.namespace(link.netns)?, link.index, route, mode)
    }

    fn remove_route(&mut self, link: LinkId, route: &RouteSpec) -> Outcome<()> {
        routes::remove(self.namespace(link.netns)?, link.index, route)
    }

    fn routes(&mut self, netns: Netns, table: Option<u32>) -> Outcome<Vec<RouteInfo>> {
        routes::all(self.namespace(netns)?, table)
    }

    fn lookup_route(&mut self, netns: Netns, destination: std::net::IpAddr) -> Outcome<RouteInfo> {
        routes::lookup(self.namespace(netns)?, destination)
    }

    fn add_policy_rule(&mut self, netns: Netns, rule: &PolicyRule) -> Outcome<()> {
        rules::add(self.namespace(netns)?, rule)
    }

    fn remove_policy_rule(&mut self, netns: Netns, rule: &PolicyRule) -> Outcome<()> {
        rules::remove(self.namespace(netns)?, rule)
    }

    fn policy_rules(&mut self, netns: Netns) -> Outcome<Vec<PolicyRule>> {
        rules::all(self.namespace(netns)?)
    }

    fn free_table(&mut self, netns: Netns, first: u32) -> Outcome<u32> {
        rules::free_table(self.namespace(netns)?, first)
    }

    fn configure(&mut self, link: LinkId, addresses: &[AddressSpec], routes: &[RouteSpec]) -> Outcome<()> {
        configure::apply(self, link, addresses, routes)
    }

    fn limit_output(&mut self, link: LinkId, rate: &Rate) -> Outcome<()> {
        shaping::limit(self.namespace(link.netns)?, link.index, rate)
    }

    fn redirect_input(&mut self, link: LinkId, to: LinkId) -> Outcome<()> {
        if link.netns != to.netns {
            return Err(KernelError::Invalid(format!(
                "a link of {} can't redirect to one of {}",
                link.netns, to.netns
            )));
        }
        shaping::redirect(self.namespace(link.netns)?, link.index, to.index)
    }

    fn output_limit(&mut self, link: LinkId) -> Outcome<Option<Rate>> {
        shaping::limited(self.namespace(link.netns)?, link.index)
    }

    fn input_redirect(&mut self, link: LinkId) -> Outcome<Option<u32>> {
        shaping::redirected(self.namespace(link.netns)?, link.index)
    }

    fn clear_limits(&mut self, link: LinkId, output: bool, input: bool) -> Outcome<()> {
        let namespace = self.namespace(link.netns)?;
        let output = if output { shaping::clear_output(namespace, link.index) } else { Ok(()) };
        let input = if input { shaping::clear_input(namespace, link.index) } else { Ok(()) };
        output.and(input)
    }

    fn wait_link_up(&mut self, link: LinkId, timeout: Duration) -> Outcome<()> {
        wait::link_up(self, link, timeout)
    }

    fn wait_addresses(&mut self, link: LinkId, timeout: Duration) -> Outcome<()> {
        wait::addresses(self, link, timeout)
    }

    fn read_sysctl(&mut self, netns: Netns, key: &str) -> Outcome<String> {
        sysctl::read(self, netns, key)
    }

    fn write_sysctl(&mut self, netns: Netns, key: &str, value: &str) -> Outcome<Option<String>> {
        sysctl::write(self, netns, key, value)
    }

    fn set_sysctl(&mut self, netns: Netns, key: &str, value: &str) -> Outcome<()> {
        sysctl::set(self, netns, key, value)
    }

    fn apply_rules(&mut self, netns: Netns, owner: &RuleOwner, label: &str, rules: &[Rule]) -> Outcome<bool> {
        self.firewall(netns)?.apply(owner, label, rules)
    }

    fn offer_rules(&mut self, netns: Netns, owner: &RuleOwner, label: &str, rules: &[Rule]) -> Outcome<()> {
        self.firewall(netns)?.offer(owner, label, rules)
    }

    fn check_rules(&mut self, netns: Netns, rules: &[Rule]) -> Outcome<()> {
        let firewall = self.firewall(netns)?;
        let answer = firewall.check(rules);
        let changed = firewall.has_changed();
        self.rules_deleted |= changed;
        answer
    }

    fn verify_rules(&mut self, netns: Netns, owner: &RuleOwner, label: &str, rules: &[Rule]) -> Outcome<Vec<String>> {
        self.firewall(netns)?.verify(owner, label, rules)
    }

    fn clear_rules(&mut self, netns: Netns, owner: &RuleOwner) -> Outcome<()> {
        let firewall = self.firewall(netns)?;
        let cleared = firewall.clear(owner);
        let changed = firewall.has_changed();
        self.rules_deleted |= changed;
        cleared
    }

    fn clear_reference_rules(
        &mut self,
        netns: Netns,
        owner: &RuleOwner,
        addresses: &[std::net::IpAddr],
    ) -> Outcome<()> {
        let firewall = self.firewall(netns)?;
        let cleared = firewall.clear_reference(owner, addresses);
        let changed = firewall.has_changed();
        self.rules_deleted |= changed;
        cleared
    }

    fn collect_reference(&mut self, network: &str, gone: &[(String, String, std::net::IpAddr)]) -> Outcome<()> {
        let firewall = self.firewall(Netns::Host)?;
        let rules = firewall.collect_reference(gone);
        let changed = firewall.has_changed();
        self.rules_deleted |= changed;
        let names: BTreeSet<String> = gone.iter().map(|(id, ..)| nftables::limiter(network, id)).collect();
        let limiters = self.links(Netns::Host)?.into_iter();
        let limiters = limiters.filter(|link| link.kind == "ifb" && names.contains(&link.name));
        let limiters: Vec<LinkId> = limiters.map(|link| link.id).collect();
        if !limiters.is_empty() {
            self.delete_links(&limiters)?;
        }
        rules
    }

    fn flush_connections(
        &mut self,
        netns: Netns,
        protocol: u8,
        destination: Option<std::net::IpAddr>,
        ports: &BTreeSet<u16>,
    ) -> Outcome<BTreeMap<u16, u32>> {
        self.firewall(netns)?.flush(protocol, destination, ports)
    }

    fn retain_rules(&mut self, netns: Netns, network: &str, valid: &[(String, String)]) -> Outcome<()> {
        let firewall = self.firewall(netns)?;
        let retained = firewall.retain(network, valid);
        let changed = firewall.has_changed();
        self.rules_deleted |= changed;
        retained
    }

    fn rule_holders(&mut self) -> Outcome<Vec<RuleHolder>> {
        self.firewall(Netns::Host).and_then(Nftables::holders).or_else(nothing_without_nftables)
    }

    fn clear_rule_holders(&mut self, holders: &[RuleHolder]) -> Outcome<()> {
        self.rules_deleted = true;
        self.firewall(Netns::Host)?.clear_holders(holders)
    }
}

/// A kernel without nfnetlink has no rules.
fn nothing_without_nftables(error: KernelError) -> Outcome<Vec<RuleHolder>> {
    if matches!(error, KernelError::Unsupported(_)) { Ok(Vec::new()) } else { Err(error) }
}
