//! Two network namespaces of a test's own, seen from a thread that has dropped everything but CAP_NET_ADMIN.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use caps::{CapSet, Capability, CapsHashSet};
use ipnet::IpNet;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use sandwire_kernel::linux::LinuxKernel;
use sandwire_kernel::{AddressSpec, BridgeSpec, DeviceSpec, Kernel, LinkId, Netns};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

/// The namespaces; they vanish with the last descriptor, thread and socket.
pub struct World {
    pub host: OwnedFd,
    pub container: OwnedFd,
}

/// The namespace of this thread.
pub fn own() -> OwnedFd {
    open("/proc/thread-self/ns/net", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).unwrap()
}

/// A new namespace; the thread stays where it is.
pub fn new_netns() -> OwnedFd {
    let before = own();
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let new = own();
    setns(&before, CloneFlags::CLONE_NEWNET).unwrap();
    new
}

/// As the CNI binary after it opened its namespaces.
pub fn drop_privilege() {
    let keep: CapsHashSet = [Capability::CAP_NET_ADMIN].into_iter().collect();
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &keep).unwrap();
    }
    caps::clear(None, CapSet::Inheritable).unwrap();
    nix::sys::prctl::set_no_new_privs().unwrap();
}

/// Runs `body` in a thread of its own, whose namespace is the host's of `kernel`, with no privilege but CAP_NET_ADMIN.
pub fn with_kernel(body: impl FnOnce(&mut LinuxKernel, &World) + Send + 'static) {
    with_privileged_kernel(|kernel, world| {
        drop_privilege();
        body(kernel, world);
    });
}

/// The same for tests that go on to make or enter namespaces themselves.
pub fn with_privileged_kernel(body: impl FnOnce(&mut LinuxKernel, &World) + Send + 'static) {
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        let world = World { host: own(), container: new_netns() };
        let mut kernel = LinuxKernel::open(Some(world.container.as_fd())).unwrap();
        body(&mut kernel, &world);
    })
    .join()
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

pub fn device(netns: Netns, name: &str) -> DeviceSpec {
    DeviceSpec { name: Some(name.into()), ..DeviceSpec::new(netns) }
}

pub fn up(netns: Netns, name: &str) -> DeviceSpec {
    DeviceSpec { up: true, ..device(netns, name) }
}

pub fn bridge(kernel: &mut LinuxKernel, name: &str) -> LinkId {
    kernel.create_bridge(&up(Netns::Host, name), &BridgeSpec::default()).unwrap()
}

/// (host end, container's `eth0`), the host end up.
pub fn pair(kernel: &mut LinuxKernel, host: &str) -> (LinkId, LinkId) {
    kernel.create_veth(&up(Netns::Host, host), &device(Netns::Container, "eth0")).unwrap()
}

pub fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub fn address(text: &str) -> AddressSpec {
    AddressSpec { no_dad: true, ..AddressSpec::new(net(text)) }
}

/// What iproute2 says, in the namespace of this thread.
pub fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

/// Runs `body` in a thread in `netns`, with the privileges this thread has.
pub fn inside<T: Send>(netns: &OwnedFd, body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
                body()
            })
            .join()
            .unwrap()
    })
}

/// `SANDWIRE_KERNEL=full` says that this kernel has everything (`tests/vm`): there nothing may be taken for lacking.
pub fn lacks(what: &str) {
    let full = std::env::var_os("SANDWIRE_KERNEL").is_some_and(|value| value == "full");
    assert!(!full, "SANDWIRE_KERNEL=full, but: {what}");
    println!("this kernel lacks something: {what}");
}
