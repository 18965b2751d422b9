//! What needs privilege: namespaces, links, addresses, routes, sysctls, firewall, shaping.
//!
//! Everything is behind the [`Kernel`] trait; [`linux`] is the real one. This crate knows nothing of
//! WebAssembly, plugins or policy: it is told what to do in terms of the two namespaces of one attachment.

pub mod error;
pub mod linux;
pub mod model;
pub mod shared;

pub use error::{KernelError, Outcome};
pub use model::*;

use std::time::Duration;

/// The operations of the contract (`wit/`) on the two namespaces of one attachment.
///
/// One blocking call each; nothing is remembered between calls except open sockets. Whoever calls records
/// beforehand how to take an operation back (`sandwire-runtime`, `perform`).
///
/// Operations that no plugin of this release needs answer [`KernelError::Unsupported`] by default;
/// `docs/contract.md` has the table.
pub trait Kernel {
    /// Whether the attachment still has a container namespace (none: DEL after the container died, GC, STATUS).
    fn has_container(&self) -> bool;
    /// What tells a namespace from every other of this boot, also from one that was at the same path before; none when the
    /// kernel does not say, and of a namespace that is gone.
    fn identity(&self, netns: Netns) -> Option<u64>;

    /// Goes on as if the attachment had no container's namespace.
    fn leave_container(&mut self);

    /// The end of the call: what blocks when it is closed is left to a helper process.
    fn finish(&mut self);

    // ---- links: looking

    /// The link of this name. `NotFound` when there is none.
    fn link_by_name(&mut self, netns: Netns, name: &str) -> Outcome<LinkInfo>;
    /// Fresh from the kernel. `NotFound` when the link is gone or has left the namespace.
    fn link_info(&mut self, link: LinkId) -> Outcome<LinkInfo>;
    /// All links of a namespace.
    fn links(&mut self, netns: Netns) -> Outcome<Vec<LinkInfo>>;
    /// The other end of a veth, in whichever of the two namespaces it lives. `NotFound` when in neither.
    fn veth_peer(&mut self, link: LinkId) -> Outcome<LinkInfo>;
    /// The link that a macvlan, ipvlan or VLAN rides on, in whichever of the two namespaces it lives. `NotFound` when in
    /// neither, or it rides on none.
    fn link_parent(&mut self, link: LinkId) -> Outcome<LinkInfo>;

    // ---- links: making and changing

    /// Makes a veth pair in one message, each end where it will stay, with its final name, MAC, MTU, master and,
    /// for the end that is in the host, state. A `DeviceSpec` without name gets `veth` and 8 hex digits.
    fn create_veth(&mut self, a: &DeviceSpec, b: &DeviceSpec) -> Outcome<(LinkId, LinkId)>;
    /// Makes a bridge. `Exists` when the name is taken (by whatever kind).
    fn create_bridge(&mut self, device: &DeviceSpec, bridge: &BridgeSpec) -> Outcome<LinkId>;
    /// Makes a virtual link of another kind (macvlan, ipvlan, vlan, dummy, vxlan, vrf).
    fn create_virtual(&mut self, _device: &DeviceSpec, _kind: &VirtualKind) -> Outcome<LinkId> {
        Err(KernelError::unsupported("create this kind of link"))
    }
    /// Makes a tap device in the container that stays when this process ends. `Exists` when the name is taken, `Conflict` for
    /// a second one.
    fn create_tap(&mut self, device: &DeviceSpec, tap: &TapSpec) -> Outcome<LinkId>;
    /// Changes what is `Some`.
    fn change_link(&mut self, link: LinkId, changes: &LinkChanges) -> Outcome<()>;
    /// Makes the link a port of `master` (same namespace), or of nothing.
    fn set_master(&mut self, link: LinkId, master: Option<LinkId>) -> Outcome<()>;
    /// Moves a link to another namespace, under a name and, if one is said, with an alias (empty for none): as it was, or all of
    /// it. It is down then, and without addresses. The answer is the link where it is now.
    fn move_link(&mut self, link: LinkId, to: Netns, name: &str, alias: Option<&str>) -> Outcome<LinkId>;
    /// The network interface of a device in the host's namespace: by its PCI address, its name on the auxiliary bus or its path
    /// below /sys/devices.
    fn device_link(&mut self, id: &str) -> Outcome<LinkInfo>;
    /// The driver that is bound to it. `NotFound` without one.
    fn device_driver(&mut self, id: &str) -> Outcome<String>;
    /// Returns when the link is gone from its namespace; the kernel's own freeing of it goes on behind
    /// (`linux/delete.rs` says how). A link that is gone already is success.
    fn delete_link(&mut self, link: LinkId) -> Outcome<()>;
    /// Deletes many links of one namespace (GC) in groups; gone ones are success.
    fn delete_links(&mut self, links: &[LinkId]) -> Outcome<()>;

    // ---- bridge ports

    /// hairpin and isolation of a bridge port.
    fn set_bridge_port(&mut self, port: LinkId, settings: &BridgePort) -> Outcome<()>;
    /// Whether hairpin and isolation are set on a bridge port. `NotFound` when it is no port.
    fn bridge_port(&mut self, port: LinkId) -> Outcome<BridgePort>;
    /// Replaces the whole VLAN list of a port (or of the bridge itself).
    fn set_port_vlans(&mut self, port: LinkId, vlans: &[PortVlan]) -> Outcome<()>;
    /// Whether bridges of this kernel can tell VLANs apart: `Unsupported` when they can't. A kernel that has not loaded its
    /// bridge module yet does not say.
    fn check_vlan_filtering(&mut self) -> Outcome<()>;
    /// The VLANs of a port.
    fn port_vlans(&mut self, port: LinkId) -> Outcome<Vec<PortVlan>>;

    // ---- addresses and routes

    /// `Exists` when the link has exactly this address and prefix.
    fn add_address(&mut self, link: LinkId, address: &AddressSpec) -> Outcome<()>;
    /// `NotFound` when it is not there.
    fn remove_address(&mut self, link: LinkId, address: ipnet::IpNet) -> Outcome<()>;
    /// The addresses of a link.
    fn addresses(&mut self, link: LinkId) -> Outcome<Vec<AddressInfo>>;
    /// Asks DHCP servers on a link of the container for an address, this one if they can give it: the first one that is offered.
    /// `Timeout` when none answers.
    fn dhcp_discover(
        &mut self,
        link: LinkId,
        ask: &DhcpAsk,
        wants: Option<std::net::Ipv4Addr>,
        patience: Duration,
    ) -> Outcome<DhcpLease>;
    /// Asks for what was offered, or to keep what was given; none when the server refuses. `Timeout` when it does not answer: it
    /// may have given it.
    fn dhcp_request(
        &mut self,
        link: LinkId,
        lease: &DhcpLease,
        how: DhcpRequest,
        patience: Duration,
    ) -> Outcome<Option<DhcpLease>>;
    /// Gives it back, which no server answers.
    fn dhcp_release(&mut self, link: LinkId, lease: &DhcpLease) -> Outcome<()>;
    /// Adds a route out of a link.
    fn add_route(&mut self, link: LinkId, route: &RouteSpec, mode: RouteMode) -> Outcome<()>;
    /// `NotFound` when it is not there.
    fn remove_route(&mut self, link: LinkId, route: &RouteSpec) -> Outcome<()>;
    /// The routes of a namespace: of one table, or of all but `local` (255).
    fn routes(&mut self, netns: Netns, table: Option<u32>) -> Outcome<Vec<RouteInfo>>;
    /// The route the kernel would take to `destination`.
    fn lookup_route(&mut self, netns: Netns, destination: std::net::IpAddr) -> Outcome<RouteInfo>;
    /// Adds a policy rule. `Exists` when there is the same with the same priority.
    fn add_policy_rule(&mut self, netns: Netns, rule: &PolicyRule) -> Outcome<()>;
    /// Removes the one that is equal, without a priority the first of these; `NotFound` when there is none.
    fn remove_policy_rule(&mut self, netns: Netns, rule: &PolicyRule) -> Outcome<()>;
    /// The rules of a namespace that lead to a table, of IPv4 and then of IPv6.
    fn policy_rules(&mut self, netns: Netns) -> Outcome<Vec<PolicyRule>>;
    /// The lowest number from `first` on of a table that no rule, route or VRF of the namespace has and that was not given yet.
    /// Until the end of the call nobody else who asks, a native sbr included, gets one of this namespace.
    fn free_table(&mut self, netns: Netns, first: u32) -> Outcome<u32>;
    /// Brings a link into service in one batch: IPv6 enabled if it gets such an address, addresses, up, routes.
    fn configure(&mut self, link: LinkId, addresses: &[AddressSpec], routes: &[RouteSpec]) -> Outcome<()>;

    // ---- bandwidth

    /// Limits what leaves a link: a token bucket at its root. `Exists` when another queueing discipline was put there.
    fn limit_output(&mut self, link: LinkId, rate: &Rate) -> Outcome<()>;
    /// Sends all that arrives at a link out of `to`, an IFB of the same namespace. `Exists` when it is redirected already.
    fn redirect_input(&mut self, link: LinkId, to: LinkId) -> Outcome<()>;
    /// The limit of what leaves a link.
    fn output_limit(&mut self, link: LinkId) -> Outcome<Option<Rate>>;
    /// The index of the device to which all that arrives at a link is sent; 0 when that is gone.
    fn input_redirect(&mut self, link: LinkId) -> Outcome<Option<u32>>;
    /// Takes away what `limit_output` and `redirect_input` made. What is not there is success.
    fn clear_limits(&mut self, link: LinkId, output: bool, input: bool) -> Outcome<()>;

    // ---- waiting (kernel notifications with a deadline; no polling)

    /// Until the link's operstate is up. `Timeout` names the state it is in.
    fn wait_link_up(&mut self, link: LinkId, timeout: Duration) -> Outcome<()>;
    /// Until no address of the link is tentative. `Conflict` when duplicate address detection failed.
    fn wait_addresses(&mut self, link: LinkId, timeout: Duration) -> Outcome<()>;

    // ---- sysctl: keys below /proc/sys/net with slashes, already validated

    /// The value without its newline. `NotFound` when the kernel has no such key.
    fn read_sysctl(&mut self, netns: Netns, key: &str) -> Outcome<String>;
    /// Writes `value`; the answer is the value before, `None` when it was that already and nothing was written.
    fn write_sysctl(&mut self, netns: Netns, key: &str, value: &str) -> Outcome<Option<String>>;

    /// Writes a key of a link that was just made: its value before is the kernel's default and of no interest.
    fn set_sysctl(&mut self, netns: Netns, key: &str, value: &str) -> Outcome<()>;

    // ---- firewall: nftables in tables of ours

    /// Makes the rules under (owner, label) exactly `rules`, in one transaction. The answer: whether an address or a port was taken
    /// from another owner for it.
    fn apply_rules(&mut self, netns: Netns, owner: &RuleOwner, label: &str, rules: &[Rule]) -> Outcome<bool>;
    /// The same, but what another owner has stays theirs: of `rules` those whose address or port is free.
    fn offer_rules(&mut self, netns: Netns, owner: &RuleOwner, label: &str, rules: &[Rule]) -> Outcome<()>;
    /// Whether there can be rules like these, which nobody gets: `Unsupported` when this release or this kernel has not what
    /// they need.
    fn check_rules(&mut self, netns: Netns, rules: &[Rule]) -> Outcome<()>;
    /// The wanted rules that are not installed, as text. Empty is good.
    fn verify_rules(&mut self, netns: Netns, owner: &RuleOwner, label: &str, rules: &[Rule]) -> Outcome<Vec<String>>;
    /// Removes all that the owner has, under every label, including what either backend of the reference plugins
    /// made for this attachment; chains and tables of ours that are empty then go too.
    fn clear_rules(&mut self, netns: Netns, owner: &RuleOwner) -> Outcome<()>;
    /// Removes what the reference's firewall plugin made for these addresses, which doesn't say whose they are.
    fn clear_reference_rules(&mut self, netns: Netns, owner: &RuleOwner, addresses: &[std::net::IpAddr])
    -> Outcome<()>;
    /// GC: removes from the host what the reference plugins made for attachments of `network` that had these addresses and
    /// are no more: (container id, interface name, address).
    fn collect_reference(&mut self, network: &str, gone: &[(String, String, std::net::IpAddr)]) -> Outcome<()>;
    /// Forgets tracked connections of an IPPROTO_* that were first sent to one of these ports, of one address or of any; how
    /// many of each that had any.
    fn flush_connections(
        &mut self,
        netns: Netns,
        protocol: u8,
        destination: Option<std::net::IpAddr>,
        ports: &std::collections::BTreeSet<u16>,
    ) -> Outcome<std::collections::BTreeMap<u16, u32>>;
    /// GC: the same for every attachment of `owner.network` that is not in `valid`. `(container id, ifname)` pairs.
    fn retain_rules(&mut self, netns: Netns, network: &str, valid: &[(String, String)]) -> Outcome<()>;
    /// Everybody who has something in our tables of the host.
    fn rule_holders(&mut self) -> Outcome<Vec<RuleHolder>>;
    /// Removes all that these have in them.
    fn clear_rule_holders(&mut self, holders: &[RuleHolder]) -> Outcome<()>;
}
