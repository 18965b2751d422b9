//! What the kernel can do, tried out: a module that is not loaded, a feature that is not compiled in and a container that lacks
//! a capability look alike in lists of features, and different when used.

use super::Check;
use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;
use sandwire_kernel::linux::LinuxKernel;
use sandwire_kernel::{
    AddressSpec, BridgeSpec, DeviceSpec, Kernel, KernelError, LinkId, Netns, Outcome, RouteSpec, Rule, RuleOwner,
};
use sandwire_runtime::confine;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::process::Command;

/// The hidden subcommand.
pub(crate) const SUBCOMMAND: &str = "probe-kernel";

/// Every check of the kernel, done by a child in namespaces of its own, which go with it.
pub(super) fn checks() -> Vec<Check> {
    let mut checks = match run() {
        Ok(checks) => checks,
        Err(error) => vec![Check::fail(
            "network namespaces",
            format!("{error:#}"),
            "run doctor as root, outside of a container or with CAP_SYS_ADMIN and CAP_NET_ADMIN; the kernel needs CONFIG_NET_NS",
        )],
    };
    checks.push(sysctls());
    checks.extend(walls());
    checks.extend(legacy_tables());
    checks
}

/// Whether the node's own can be written: forwarding is one of them. (A container's, and a node that is one, may have them read-only.)
fn sysctls() -> Check {
    const KEY: &str = "/proc/sys/net/ipv4/ip_forward";
    match OpenOptions::new().write(true).open(KEY) {
        Ok(_) => Check::ok("sysctls of the node", "can be written"),
        Err(error) if error.kind() == ErrorKind::PermissionDenied && !Uid::effective().is_root() => {
            Check::note("sysctls of the node", "only root can tell", "run doctor as root")
        }
        Err(error) => Check::fail(
            "sysctls of the node",
            format!("{KEY} can't be written: {error}"),
            "plugins with \"isGateway\" can't turn forwarding on: look at  findmnt -T /proc/sys  and mount it writable (mount -o remount,rw,bind /proc/sys), or set net.ipv4.ip_forward=1 and net.ipv6.conf.all.forwarding=1 from outside",
        ),
    }
}

/// What confines a process that a component has broken out into. Without them the sandbox and the dropped capabilities remain.
fn walls() -> [Check; 2] {
    let (landlock, seccomp) = confine::possible();
    let check = |what: &str, is_there, without: &str, remedy: &str| match is_there {
        true => Check::ok(what, "works"),
        false => Check::note(what, format!("this kernel has none: a component that broke out could {without}"), remedy),
    };
    [
        check(
            "Landlock",
            landlock,
            "write root's files",
            "take Linux 5.13 or newer with CONFIG_SECURITY_LANDLOCK, and landlock in lsm= of its command line",
        ),
        check("seccomp", seccomp, "make any system call", "take a kernel with CONFIG_SECCOMP_FILTER"),
    ]
}

fn run() -> Result<Vec<Check>> {
    let done =
        Command::new("/proc/self/exe").arg(SUBCOMMAND).env_clear().output().context("could not start a probe")?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr).trim());
    serde_json::from_slice(&done.stdout).context("the probe's answer can't be read")
}

/// The child: makes what an attachment makes, and writes what came of it.
///
/// # Errors
/// When there can be no namespaces at all.
pub(crate) fn child() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("could not make a network namespace")?;
    let container = std::thread::spawn(|| -> Result<File> {
        unshare(CloneFlags::CLONE_NEWNET).context("could not make a network namespace")?;
        File::open("/proc/thread-self/ns/net").context("could not open a network namespace")
    });
    let container = container.join().map_err(|_| anyhow::anyhow!("a thread of the probe panicked"))??;
    let mut kernel = LinuxKernel::open(Some(container.as_fd())).context("could not open netlink sockets")?;
    let checks = serde_json::to_vec(&probe(&mut kernel)).context("could not write the answer")?;
    std::io::stdout().write_all(&checks).context("could not write the answer")
}

fn probe(kernel: &mut LinuxKernel) -> Vec<Check> {
    let mut checks = vec![Check::ok("network namespaces", "can be made and entered")];
    let bridge = bridge(kernel, "probe0", false);
    checks.push(verdict("bridge", &bridge, "load the module: modprobe bridge (CONFIG_BRIDGE)"));
    let veth = veth(kernel, bridge.as_ref().ok().copied());
    checks.push(verdict(
        "veth with its peer made in the container",
        &veth,
        "load the module: modprobe veth (CONFIG_VETH)",
    ));
    if let Ok((_, inside)) = &veth {
        let configured = configure(kernel, *inside);
        checks.push(verdict(
            "addresses and routes",
            &configured,
            "the kernel needs CONFIG_INET; IPv6 addresses CONFIG_IPV6",
        ));
    }
    let rules = masquerade(kernel);
    checks.push(verdict(
        "nf_tables with masquerading",
        &rules,
        "load the modules: modprobe -a nf_tables nft_chain_nat nft_masq (CONFIG_NF_TABLES, CONFIG_NFT_MASQ, CONFIG_NF_TABLES_INET); without them \"ipMasq\" can't work",
    ));
    checks.push(match self::bridge(kernel, "probe1", true) {
        Ok(_) => Check::ok("VLAN filtering of bridges", "works"),
        Err(error) => Check::note(
            "VLAN filtering of bridges",
            error.to_string(),
            "only the keys \"vlan\" and \"vlanTrunk\" of the bridge plugin need it (CONFIG_BRIDGE_VLAN_FILTERING)",
        ),
    });
    checks
}

fn verdict<T>(what: &str, outcome: &Outcome<T>, remedy: &str) -> Check {
    match outcome {
        Ok(_) => Check::ok(what, "works"),
        Err(error @ KernelError::Denied(_)) => Check::fail(
            what,
            error.to_string(),
            "it was refused, not missing: run doctor, and the runtime, as root with CAP_NET_ADMIN and CAP_SYS_ADMIN",
        ),
        Err(error) => Check::fail(what, error.to_string(), remedy),
    }
}

fn device(netns: Netns, name: &str) -> DeviceSpec {
    DeviceSpec { name: Some(name.to_owned()), ..DeviceSpec::new(netns) }
}

fn bridge(kernel: &mut LinuxKernel, name: &str, vlan_filtering: bool) -> Outcome<LinkId> {
    let id =
        kernel.create_bridge(&DeviceSpec { up: true, ..device(Netns::Host, name) }, &BridgeSpec { vlan_filtering })?;
    // A kernel without the feature ignores the attribute and makes a bridge all the same.
    if vlan_filtering && kernel.link_info(id)?.vlan_filtering != Some(true) {
        return Err(KernelError::Unsupported("this kernel has none".into()));
    }
    Ok(id)
}

fn veth(kernel: &mut LinuxKernel, master: Option<LinkId>) -> Outcome<(LinkId, LinkId)> {
    let outside = DeviceSpec { master, up: true, ..device(Netns::Host, "probe2") };
    kernel.create_veth(&outside, &device(Netns::Container, "eth0"))
}

fn configure(kernel: &mut LinuxKernel, inside: LinkId) -> Outcome<()> {
    let network = |text: &str| text.parse().map_err(|_| KernelError::Other(format!("{text} is no address")));
    let route =
        RouteSpec { via: Some(std::net::Ipv4Addr::new(192, 0, 2, 1).into()), ..RouteSpec::new(network("0.0.0.0/0")?) };
    kernel.configure(inside, &[AddressSpec::new(network("192.0.2.2/24")?)], &[route])
}

fn masquerade(kernel: &mut LinuxKernel) -> Outcome<()> {
    let owner = RuleOwner {
        plugin: "doctor".into(),
        network: "doctor".into(),
        container_id: "doctor".into(),
        ifname: "eth0".into(),
    };
    let source = std::net::Ipv4Addr::new(192, 0, 2, 2).into();
    let rules = [Rule::Masquerade { source, except: Vec::new() }];
    kernel.apply_rules(Netns::Host, &owner, "probe", &rules)?;
    let missing = kernel.verify_rules(Netns::Host, &owner, "probe", &rules)?;
    if missing.is_empty() {
        Ok(())
    } else {
        Err(KernelError::Other(format!("not there after it was made: {}", missing.join("; "))))
    }
}

/// The old iptables has hooks of its own, which see packets beside nftables': what one accepts the other may drop.
fn legacy_tables() -> Vec<Check> {
    let tables: Vec<String> = [("iptables", "/proc/net/ip_tables_names"), ("ip6tables", "/proc/net/ip6_tables_names")]
        .iter()
        .filter_map(|(program, path)| {
            let names = std::fs::read_to_string(path).ok()?;
            let names: Vec<&str> = names.lines().collect();
            (!names.is_empty()).then(|| format!("{program}-legacy has {}", names.join(", ")))
        })
        .collect();
    if tables.is_empty() {
        return vec![Check::ok("legacy iptables tables", "none")];
    }
    vec![Check::note(
        "legacy iptables tables",
        tables.join("; "),
        "their rules stand beside Sandwire's, and a FORWARD policy of DROP there drops what pods send: look with  iptables-legacy-save  and move to nftables:  update-alternatives --set iptables /usr/sbin/iptables-nft",
    )]
}
