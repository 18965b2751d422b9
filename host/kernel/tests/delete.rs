//! Deleting: gone when it returns, in both namespaces, also when a helper process can't be had.
#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::panic)]

mod support;

use sandwire_kernel::linux::LinuxKernel;
use sandwire_kernel::*;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use support::*;

fn names(kernel: &mut LinuxKernel, netns: Netns) -> Vec<String> {
    kernel.links(netns).unwrap().into_iter().map(|link| link.name).collect()
}

#[test]
fn gone_in_both_namespaces_and_the_names_free_at_once() {
    with_kernel(|kernel, _| {
        let cni0 = bridge(kernel, "cni0");
        for round in 0..20 {
            let (host, pod) = pair(kernel, "veth1");
            kernel.set_master(host, Some(cni0)).unwrap();
            // From either end; the container's has one helper and then goes the slow way.
            kernel.delete_link(if round % 2 == 0 { host } else { pod }).unwrap();
            assert_eq!(names(kernel, Netns::Host), ["lo", "cni0"]);
            assert_eq!(names(kernel, Netns::Container), ["lo"]);
            kernel.delete_link(host).unwrap();
            kernel.delete_link(pod).unwrap();
        }
    });
}

#[test]
fn what_can_not_be_deleted_is_told() {
    with_kernel(|kernel, _| {
        for netns in [Netns::Host, Netns::Container] {
            let error = kernel.delete_link(LinkId { netns, index: 1 }).unwrap_err();
            assert!(matches!(&error, KernelError::Unsupported(text) if text.contains("\"lo\"")), "{error:?}");
        }
    });
}

#[test]
fn the_containers_namespace_is_gone() {
    with_privileged_kernel(|kernel, _| {
        let other = new_netns();
        let mut short = LinuxKernel::open(Some(other.as_fd())).unwrap();
        let (host, _) = pair(&mut short, "veth9");
        drop(short);
        drop(other);
        // The kernel takes the host's end away by itself, some time; before, meanwhile and after are all the same.
        kernel.delete_link(host).unwrap();
        assert_eq!(names(kernel, Netns::Host), ["lo"]);
        kernel.delete_link(host).unwrap();
    });
}

#[test]
fn many_at_once_and_only_those() {
    with_kernel(|kernel, _| {
        let mut links = Vec::new();
        for number in 0..150 {
            let (host, pod) = kernel
                .create_veth(
                    &device(Netns::Host, &format!("veth{number}")),
                    &device(Netns::Container, &format!("eth{number}")),
                )
                .unwrap();
            links.push(if number % 3 == 0 { pod } else { host });
        }
        let keep = kernel.create_veth(&device(Netns::Host, "keep"), &device(Netns::Container, "keep")).unwrap();
        links.push(LinkId { netns: Netns::Host, index: 99_999 });
        let start = Instant::now();
        kernel.delete_links(&links).unwrap();
        println!("150 pairs deleted in {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
        assert_eq!(names(kernel, Netns::Host), ["lo", "keep"]);
        assert_eq!(names(kernel, Netns::Container), ["lo", "keep"]);
        kernel.delete_links(&links).unwrap();
        kernel.delete_links(&[keep.0]).unwrap();
        assert_eq!(names(kernel, Netns::Container), ["lo"]);
    });
}

/// As with a full pids cgroup: fork(2) answers EAGAIN.
#[test]
fn without_a_process_to_be_had() {
    with_kernel(|kernel, _| {
        let (host, _) = pair(kernel, "veth1");
        forbid_fork();
        kernel.delete_link(host).unwrap();
        assert_eq!(names(kernel, Netns::Host), ["lo"]);
    });
}

/// A seccomp filter of this thread by which clone(2) and clone3(2) fail.
fn forbid_fork() {
    let load = |at| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: at };
    let skip_unless = |k, jf| libc::sock_filter { code: 0x15, jt: 0, jf, k };
    let answer = |k| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EAGAIN.cast_unsigned();
    let mut program = [
        load(0),
        skip_unless(libc::SYS_clone as u32, 1),
        answer(refuse),
        skip_unless(libc::SYS_clone3 as u32, 1),
        answer(refuse),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program is valid for the call, which copies it.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    assert_eq!(result, 0);
}

#[test]
fn two_containers_at_once() {
    with_privileged_kernel(|kernel, world| {
        let cni0 = bridge(kernel, "cni0");
        let host = &world.host;
        std::thread::scope(|scope| {
            for worker in 0..4 {
                scope.spawn(move || {
                    nix::sched::setns(host, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                    let container = new_netns();
                    let mut kernel = LinuxKernel::open(Some(container.as_fd())).unwrap();
                    drop_privilege();
                    for round in 0..10 {
                        let host = DeviceSpec { master: Some(cni0), up: true, ..DeviceSpec::new(Netns::Host) };
                        let (host, pod) = kernel.create_veth(&host, &device(Netns::Container, "eth0")).unwrap();
                        let own = address(&format!("10.1.{worker}.{}/24", round + 1));
                        kernel.configure(pod, std::slice::from_ref(&own), &[]).unwrap();
                        kernel.wait_link_up(pod, Duration::from_secs(10)).unwrap();
                        assert!(kernel.addresses(pod).unwrap().iter().any(|a| a.address == own.address));
                        kernel.delete_link(host).unwrap();
                        assert_eq!(names(&mut kernel, Netns::Container), ["lo"]);
                    }
                });
            }
        });
        assert_eq!(names(kernel, Netns::Host), ["lo", "cni0"]);
    });
}

#[test]
fn opening_is_quick_and_leaves_the_thread_where_it_was() {
    with_privileged_kernel(|_, world| {
        let mut times: Vec<Duration> = (0..50)
            .map(|_| {
                let start = Instant::now();
                let mut kernel = LinuxKernel::open(Some(world.container.as_fd())).unwrap();
                let time = start.elapsed();
                kernel.finish();
                time
            })
            .collect();
        times.sort();
        println!("open: median {:.3} ms", times[25].as_secs_f64() * 1e3);
        assert!(
            sandwire_kernel::linux::same_netns(sandwire_kernel::linux::open_own().unwrap().as_fd(), world.host.as_fd())
                .unwrap()
        );
    });
}

/// Closing the nfnetlink socket after a set element was deleted blocks about as long as a deletion does.
#[test]
fn finishing_does_not_wait_for_the_firewall() {
    for helper in [true, false] {
        let mut times: Vec<Duration> = (0..15).map(|_| finish_after_clearing(helper)).collect();
        times.sort();
        let how = if helper { "by a helper" } else { "directly" };
        println!("finish ({how}): median {:.2} ms", times[7].as_secs_f64() * 1e3);
    }
}

fn finish_after_clearing(helper: bool) -> Duration {
    let (tell, told) = std::sync::mpsc::channel();
    with_kernel(move |_, _| {
        let mut kernel = LinuxKernel::open(None).unwrap();
        let text = |text: &str| text.to_owned();
        let owner =
            RuleOwner { plugin: text("bridge"), network: text("n"), container_id: text("c"), ifname: text("eth0") };
        let rule = Rule::Masquerade { source: "10.1.2.3".parse().unwrap(), except: vec![net("10.1.2.0/24")] };
        kernel.apply_rules(Netns::Host, &owner, "masquerade", std::slice::from_ref(&rule)).unwrap();
        assert_eq!(kernel.verify_rules(Netns::Host, &owner, "masquerade", &[rule]).unwrap(), Vec::<String>::new());
        kernel.clear_rules(Netns::Host, &owner).unwrap();
        if !helper {
            forbid_fork();
        }
        let start = Instant::now();
        kernel.finish();
        drop(kernel);
        tell.send(start.elapsed()).unwrap();
    });
    told.recv().unwrap()
}

/// Not a limit, figures: what the design claims, on this machine, with and without the helper process.
#[test]
fn how_long_it_takes() {
    for helper in [true, false] {
        with_kernel(move |kernel, _| {
            if !helper {
                forbid_fork();
            }
            let cni0 = bridge(kernel, "cni0");
            kernel.configure(cni0, &[address("10.1.2.1/24")], &[]).unwrap();
            let default = RouteSpec { via: Some("10.1.2.1".parse().unwrap()), ..RouteSpec::new(net("0.0.0.0/0")) };
            let mut times = [const { Vec::new() }; 3];
            for _ in 0..50 {
                let start = Instant::now();
                let host = DeviceSpec { master: Some(cni0), up: true, ..DeviceSpec::new(Netns::Host) };
                let (host, pod) = kernel.create_veth(&host, &device(Netns::Container, "eth0")).unwrap();
                times[0].push(start.elapsed());
                let start = Instant::now();
                kernel.configure(pod, &[address("10.1.2.3/24")], std::slice::from_ref(&default)).unwrap();
                times[1].push(start.elapsed());
                let start = Instant::now();
                kernel.delete_link(host).unwrap();
                times[2].push(start.elapsed());
                // The kernel goes on freeing what was deleted; a CNI call comes long after the one before.
                std::thread::sleep(Duration::from_millis(25));
            }
            for (what, times) in ["create", "configure", "delete"].iter().zip(&mut times) {
                times.sort();
                let ms = |at: usize| times[at].as_secs_f64() * 1e3;
                let how = if helper { "by a helper" } else { "directly" };
                println!("{what} ({how}): median {:.2} ms, 10 % {:.2}, 90 % {:.2}", ms(25), ms(5), ms(45));
            }
            assert_eq!(names(kernel, Netns::Host), ["lo", "cni0"]);
        });
    }
}
