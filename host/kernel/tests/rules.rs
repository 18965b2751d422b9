//! Policy rules, free tables and tap devices: what decides, and what a program opens, within the container.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::sys::stat::Mode;
use sandwire_kernel::linux::{LinuxKernel, Needs, open_own};
use sandwire_kernel::*;
use std::os::fd::{AsFd, AsRawFd};
use support::*;

#[test]
fn rules_of_both_families() {
    with_privileged_kernel(|kernel, world| {
        let at = Netns::Container;
        let mark = PolicyRule {
            dst: Some(net("10.7.0.0/16")),
            iif: Some("eth0".into()),
            fwmark: Some((7, 0xff)),
            not: true,
            priority: Some(9),
            ..PolicyRule::from(net("10.1.2.3/32"), 1000)
        };
        let rules =
            [PolicyRule::from(net("10.1.2.3/32"), 100), PolicyRule::from(net("fd00:1::3/128"), 101), mark.clone()];
        for rule in &rules {
            kernel.add_policy_rule(at, rule).unwrap();
        }
        let said = inside(&world.container, || ip("rule show") + &ip("-6 rule show"));
        for wanted in [
            "from 10.1.2.3 lookup 100",
            "from fd00:1::3 lookup 101",
            "9:\tnot from 10.1.2.3 to 10.7.0.0/16 fwmark 0x7/0xff iif eth0 [detached] lookup 1000",
        ] {
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
        let present = kernel.policy_rules(at).unwrap();
        assert!(present.contains(&mark), "{present:#?}");
        assert!(present.iter().any(|rule| rule.src == Some(net("::/0")) && rule.table == 254), "{present:#?}");
        // The same once more is the same; without a priority the kernel chooses another one.
        let again = kernel.add_policy_rule(at, &mark);
        assert!(matches!(again, Err(KernelError::Exists(_))), "{again:?}");
        // What is not given is no wildcard.
        let wide = kernel.remove_policy_rule(at, &PolicyRule { iif: None, ..mark.clone() });
        assert!(matches!(wide, Err(KernelError::NotFound(_))), "{wide:?}");
        for rule in &rules {
            kernel.remove_policy_rule(at, rule).unwrap();
            let gone = kernel.remove_policy_rule(at, rule);
            assert!(matches!(gone, Err(KernelError::NotFound(_))), "{gone:?}");
        }
        for (rule, why) in [
            (PolicyRule { src: None, ..mark.clone() }, None),
            (PolicyRule { src: None, dst: None, ..mark.clone() }, Some("needs a source or a destination")),
            (PolicyRule { dst: Some(net("fd00::/64")), ..mark.clone() }, Some("of two families")),
        ] {
            match (kernel.add_policy_rule(at, &rule), why) {
                (Ok(()), None) => {}
                (Err(KernelError::Invalid(text)), Some(why)) if text.contains(why) => {}
                (other, _) => panic!("{rule}: {other:?}"),
            }
        }
        assert_eq!(mark.to_string(), "policy rule \"not from 10.1.2.3/32 to 10.7.0.0/16 lookup 1000\"");
    });
}

#[test]
fn a_table_that_nobody_has_is_ours_alone_until_the_end() {
    with_privileged_kernel(|kernel, world| {
        let at = Netns::Container;
        let (_, pod) = pair(kernel, "veth1");
        kernel.configure(pod, &[address("10.1.2.3/24")], &[]).unwrap();
        assert_eq!(kernel.free_table(at, 100).unwrap(), 100);
        kernel.add_policy_rule(at, &PolicyRule::from(net("10.1.2.3/32"), 100)).unwrap();
        let route = RouteSpec { table: Some(101), ..RouteSpec::new(net("10.9.0.0/16")) };
        kernel.add_route(pod, &route, RouteMode::Add).unwrap();
        assert_eq!((kernel.free_table(at, 100).unwrap(), kernel.free_table(at, 100).unwrap()), (102, 103));
        assert_eq!(kernel.free_table(at, 0).unwrap(), 1);
        assert_eq!(kernel.free_table(at, 253).unwrap(), 256, "default, main and local are no tables of ours");
        // As a native sbr opens the file of the namespace.
        let path = format!("/proc/self/fd/{}", world.container.as_raw_fd());
        let other = || open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        assert!(Flock::lock(other(), FlockArg::LockExclusiveNonblock).is_err());
        kernel.finish();
        assert!(Flock::lock(other(), FlockArg::LockExclusiveNonblock).is_ok());
    });
}

#[test]
fn a_tap_device_stays_and_a_program_opens_it() {
    with_privileged_kernel(|_, world| {
        let needs = Needs { tap: true, ..Needs::default() };
        let mut kernel = LinuxKernel::open_with(open_own().unwrap(), Some(world.container.as_fd()), needs).unwrap();
        let spec = DeviceSpec {
            mac: Some("02:00:00:00:00:01".parse().unwrap()),
            mtu: Some(1400),
            alias: Some("vm".into()),
            ..up(Netns::Container, "tap0")
        };
        let taken = DeviceSpec { name: Some("lo".into()), ..spec.clone() };
        let node = DeviceSpec { netns: Netns::Host, ..spec.clone() };
        assert!(matches!(kernel.create_tap(&node, &TapSpec::default()), Err(KernelError::Unsupported(_))));
        let tap = TapSpec { owner: Some(4_000_001), group: Some(4_000_002), multi_queue: false };
        let id = kernel.create_tap(&spec, &tap).unwrap();
        let info = kernel.link_info(id).unwrap();
        assert_eq!((info.kind.as_str(), info.mtu, info.up, info.alias.as_deref()), ("tun", 1400, true, Some("vm")));
        assert_eq!(info.mac.unwrap().to_string(), "02:00:00:00:00:01");
        let again = kernel.create_tap(&taken, &tap);
        assert!(
            matches!(&again, Err(KernelError::Conflict(text)) if text.contains("one call can make one")),
            "{again:?}"
        );
        drop(kernel);
        let said = inside(&world.container, || ip("-d link show tap0"));
        for wanted in ["tun type tap pi off vnet_hdr off persist on user 4000001 group 4000002", "mtu 1400"] {
            assert!(said.split_whitespace().collect::<Vec<_>>().join(" ").contains(wanted), "{wanted}: {said}");
        }
    });
}

#[test]
fn a_name_that_is_taken_is_no_tap_device() {
    with_privileged_kernel(|_, world| {
        let needs = Needs { tap: true, ..Needs::default() };
        let mut kernel = LinuxKernel::open_with(open_own().unwrap(), Some(world.container.as_fd()), needs).unwrap();
        let taken = kernel.create_tap(&up(Netns::Container, "lo"), &TapSpec::default());
        assert!(matches!(taken, Err(KernelError::Exists(_))), "{taken:?}");
        let mut kernel = LinuxKernel::open(Some(world.container.as_fd())).unwrap();
        let unasked = kernel.create_tap(&up(Netns::Container, "tap0"), &TapSpec::default());
        assert!(unasked.is_err());
    });
}
