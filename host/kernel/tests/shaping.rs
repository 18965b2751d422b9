//! Bandwidth limits on the real kernel.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use sandwire_kernel::linux::LinuxKernel;
use sandwire_kernel::*;
use std::process::Command;
use support::*;

const RATE: Rate = Rate { bits_per_second: 8_000_000, burst_bits: 800_000, latency_us: 25_000 };

fn tc(arguments: &str) -> String {
    let output = Command::new("/sbin/tc").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "tc {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn veth(kernel: &mut LinuxKernel) -> LinkId {
    kernel.create_veth(&up(Netns::Host, "veth1"), &up(Netns::Container, "eth0")).unwrap().0
}

fn ifb(kernel: &mut LinuxKernel) -> LinkId {
    let spec = DeviceSpec { txqlen: Some(0), ..up(Netns::Host, "ifb7") };
    kernel.create_virtual(&spec, &VirtualKind::Ifb).unwrap()
}

#[test]
fn both_ways_there_and_back() {
    with_kernel(|kernel, _| {
        let (link, ifb) = (veth(kernel), ifb(kernel));
        assert_eq!((kernel.output_limit(link), kernel.input_redirect(link)), (Ok(None), Ok(None)));

        kernel.limit_output(link, &RATE).unwrap();
        assert_eq!(kernel.output_limit(link), Ok(Some(RATE)));
        let seen = tc("qdisc show dev veth1");
        assert!(seen.contains("qdisc tbf 1: root") && seen.contains("rate 8Mbit burst 100000b lat 25ms"), "{seen}");
        assert!(matches!(kernel.limit_output(link, &RATE), Err(KernelError::Exists(_))));

        kernel.limit_output(ifb, &RATE).unwrap();
        kernel.redirect_input(link, ifb).unwrap();
        assert_eq!(kernel.input_redirect(link), Ok(Some(ifb.index)));
        let seen = tc("filter show dev veth1 ingress");
        assert!(seen.contains("pref 1 u32") && seen.contains("Egress Redirect to device ifb7"), "{seen}");
        assert!(matches!(kernel.redirect_input(link, ifb), Err(KernelError::Exists(_))));

        // A device that is gone is told from no redirection.
        kernel.delete_link(ifb).unwrap();
        assert_eq!(kernel.input_redirect(link), Ok(Some(0)));
        for _ in 0..2 {
            kernel.clear_limits(link, true, true).unwrap();
            assert_eq!((kernel.output_limit(link), kernel.input_redirect(link)), (Ok(None), Ok(None)));
        }
        assert!(!tc("qdisc show dev veth1").contains("ingress"));
    });
}

#[test]
fn somebody_elses_stays() {
    with_kernel(|kernel, _| {
        let (link, ifb) = (veth(kernel), ifb(kernel));
        tc("qdisc add dev veth1 root handle 7: pfifo limit 100");
        assert!(matches!(kernel.limit_output(link, &RATE), Err(KernelError::Exists(_))));
        kernel.clear_limits(link, true, true).unwrap();
        assert!(tc("qdisc show dev veth1").contains("pfifo 7: root"));
        assert_eq!(kernel.output_limit(link), Ok(None));
        // A redirection that does not come about leaves no half of itself.
        let gone = LinkId { index: 9999, ..ifb };
        assert!(kernel.redirect_input(link, gone).is_err());
        assert!(!tc("qdisc show dev veth1").contains("ingress"));
    });
}

#[test]
fn a_link_that_is_gone() {
    with_kernel(|kernel, _| {
        let gone = LinkId { netns: Netns::Host, index: 9999 };
        for outcome in [kernel.limit_output(gone, &RATE), kernel.clear_limits(gone, true, true)] {
            assert!(matches!(outcome, Err(KernelError::NotFound(_))), "{outcome:?}");
        }
        assert!(matches!(kernel.output_limit(gone), Err(KernelError::NotFound(_))));
    });
}
