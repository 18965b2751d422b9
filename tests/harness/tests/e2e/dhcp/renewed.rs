//! `sandwirectl repair` renews leases, or says why not.

use super::*;
use crate::ctl::{self, ctl_status};
use sandwire_harness::Verb;

/// As if the attachment's lease had been given so many seconds earlier.
pub(super) fn age(node: &Node, seconds: u64) {
    let mut aged = 0;
    for (path, bytes) in node.files("/run/sandwire/journal/networks").unwrap() {
        let mut text = String::new();
        for line in String::from_utf8(bytes).unwrap().lines() {
            let mut line: Value = serde_json::from_str(line).unwrap();
            aged += older(&mut line, seconds);
            text += &format!("{line}\n");
        }
        node.write(path, text).unwrap();
    }
    assert!(aged > 0, "the journal has no lease");
}

/// How many leases it has. What was only offered has the time 0.
fn older(value: &mut Value, seconds: u64) -> usize {
    match value {
        Value::Object(map) => {
            let given = map.get("obtained").and_then(Value::as_u64).filter(|at| *at > 0);
            if let Some(at) = given {
                let then = at.checked_sub(seconds).expect("the machine was started a moment ago");
                map.insert("obtained".into(), then.into());
            }
            usize::from(given.is_some()) + map.values_mut().map(|value| older(value, seconds)).sum::<usize>()
        }
        Value::Array(list) => list.iter_mut().map(|value| older(value, seconds)).sum(),
        _ => 0,
    }
}

/// What `sandwirectl repair` says.
pub(crate) fn repair(node: &Node, args: &[&str]) -> Vec<Value> {
    let text = ctl_status(node, &[&["repair", "--json"], args].concat()).1;
    // Warnings may follow.
    let first = serde_json::Deserializer::from_str(&text).into_iter().next();
    first.and_then(Result::ok).unwrap_or_else(|| panic!("{text}"))
}

/// The one thing that it says is about the lease of the bench's pod: its kind, its remedy and its text.
fn about_the_lease(node: &Node, args: &[&str], result: &Value) -> [String; 3] {
    let found = repair(node, args);
    let [finding] = found.as_slice() else { panic!("{found:?}") };
    let whose = ["network", "container_id", "interface", "address"].map(|key| finding[key].as_str().unwrap());
    assert_eq!(whose, ["mynet", "pod-a", "eth0", &address(result)]);
    ["kind", "remedy", "text"].map(|key| finding[key].as_str().unwrap().to_owned())
}

#[test]
fn repair_renews_what_is_half_over() {
    let bench = Bench::new(BRIDGED);
    let _server = serve(&bench.node, &[]);
    let result = bench.call(false, Verb::Add, &bridge(), None).result().unwrap();
    let said = || ["DHCPDISCOVER", "DHCPREQUEST", "DHCPACK"].map(|kind| count(&bench.node, kind));
    let before = said();
    age(&bench.node, 50);
    assert_eq!(repair(&bench.node, &[]), Vec::<Value>::new());
    assert!((60..=70).contains(&ctl::json(&bench.node, &["attachments"])[0]["lease_seconds"].as_u64().unwrap()));
    assert!(ctl_status(&bench.node, &["doctor"]).1.contains("ok    leases of DHCP servers: 1, all in time"));
    age(&bench.node, 20);
    assert_eq!(about_the_lease(&bench.node, &["--dry-run"], &result)[..2], ["due-lease", "would-mend"]);
    assert_eq!(said(), before);
    assert_eq!(about_the_lease(&bench.node, &[], &result)[..2], ["due-lease", "mended"]);
    let after = said();
    assert!(after[0] == before[0] && after[1] > before[1] && after[2] > before[2], "{}", log(&bench.node));
    // From now on.
    assert_eq!(repair(&bench.node, &[]), Vec::<Value>::new());
    age(&bench.node, 50);
    assert_eq!(repair(&bench.node, &[]), Vec::<Value>::new());
    bench.call(false, Verb::Check, &bridge(), Some(&result)).done().unwrap();
    ping(&bench);
    bench.call(false, Verb::Del, &bridge(), Some(&result)).done().unwrap();
    given_back(&bench.node, &address(&result));
    bench.nothing_left();
}

/// The one that gave it does not answer any more, another one has its leases: it is asked when there is little time left.
#[test]
fn another_server_has_taken_over() {
    let bench = Bench::new(BRIDGED);
    let server = serve(&bench.node, &[]);
    let result = bench.call(false, Verb::Add, &bridge(), None).result().unwrap();
    drop(server);
    bench.node.sh("ip -n outside addr flush dev wire; ip -n outside addr add 10.1.2.2/24 dev wire").unwrap();
    let _server = serve(&bench.node, &["--dhcp-option=3,10.1.2.1"]);
    age(&bench.node, 110);
    assert_eq!(about_the_lease(&bench.node, &[], &result)[..2], ["due-lease", "mended"]);
    assert!(count(&bench.node, "DHCPACK") > 0, "{}", log(&bench.node));
    bench.call(false, Verb::Check, &bridge(), Some(&result)).done().unwrap();
    // And it is the one that gets it back.
    bench.call(false, Verb::Del, &bridge(), Some(&result)).done().unwrap();
    given_back(&bench.node, &address(&result));
    bench.node.sh("ip -n outside addr flush dev wire; ip -n outside addr add 10.1.2.1/24 dev wire").unwrap();
    bench.nothing_left();
}

/// Its time is over, or the server says that it is: somebody else may have the address by now.
#[test]
fn a_lease_that_is_lost() {
    for taken in [false, true] {
        let bench = Bench::new(BRIDGED);
        let server = serve(&bench.node, &[]);
        let result = bench.call(false, Verb::Add, &bridge(), None).result().unwrap();
        let check = || bench.call(false, Verb::Check, &bridge(), Some(&result));
        let up = || bench.node.sh_at(&bench.pod.place(), "ip -br link show up dev eth0").unwrap();
        check().done().unwrap();
        drop(server);
        let other = "02:00:00:00:00:99";
        let _server = taken.then(|| {
            bench.node.sh(&format!("sed -i 's/ [^ ]* / {other} /; s/ [^ ]*$/ 00:99/' /run/dnsmasq/leases")).unwrap();
            serve(&bench.node, &[])
        });
        if taken {
            // While it lasts, no word of a server's takes it away.
            age(&bench.node, 70);
            let [kind, remedy, text] = about_the_lease(&bench.node, &[], &result);
            assert_eq!([&kind, &remedy], ["due-lease", "left"], "{text}");
            assert!(text.contains("refuses it, and offers 10.1.2."), "{text}");
            check().done().unwrap();
        }
        age(&bench.node, 121);
        let error = check().error().unwrap();
        assert!(error.text().contains("has no lease any more"), "{error:?}");
        about_the_lease(&bench.node, &["--dry-run"], &result);
        assert_ne!(up(), "");
        let [kind, remedy, text] = about_the_lease(&bench.node, &[], &result);
        assert_eq!([&kind, &remedy], ["expired-lease", "left"], "{text}");
        assert!(text.contains("set down") && text.contains("refuses") == taken, "{text}");
        assert_eq!((up().as_str(), count(&bench.node, "DHCPNAK") > 0), ("", taken), "{}", log(&bench.node));
        let error = check().error().unwrap();
        assert!(error.text().contains("has no lease any more"), "{error:?}");
        assert_eq!(ctl::json(&bench.node, &["attachments"])[0]["state"], "expired");
        let (_, doctor) = ctl_status(&bench.node, &["doctor"]);
        assert!(doctor.contains("FAIL  leases of DHCP servers: 1 of 1 should have been renewed"), "{doctor}");
        // There is no way back but a new attachment.
        repair(&bench.node, &[]);
        assert_eq!(up(), "");
        bench.call(false, Verb::Del, &bridge(), Some(&result)).done().unwrap();
        bench.nothing_left();
        // Whose it is now keeps it.
        assert!(!log(&bench.node).contains("DHCPRELEASE"));
        assert!(
            !taken
                || matches!(leases(&bench.node).as_slice(), [[mac, given, ..]] if mac == other && *given == address(&result))
        );
    }
}

/// Its disk was lost, or its leases.
#[test]
fn a_server_that_has_forgotten() {
    let bench = Bench::new(BRIDGED);
    let server = serve(&bench.node, &[]);
    let result = bench.call(false, Verb::Add, &bridge(), None).result().unwrap();
    drop(server);
    bench.node.sh("rm /run/dnsmasq/leases").unwrap();
    let _server = serve(&bench.node, &[]);
    age(&bench.node, 70);
    assert_eq!(about_the_lease(&bench.node, &[], &result)[..2], ["due-lease", "mended"]);
    assert_eq!(leases(&bench.node)[0][1], address(&result));
    ping(&bench);
    bench.call(false, Verb::Del, &bridge(), Some(&result)).done().unwrap();
    given_back(&bench.node, &address(&result));
    bench.nothing_left();
}

/// A pod that can't ask is no sign that its server is silent: the others are renewed, in whatever order.
#[test]
fn a_pod_that_has_set_its_interface_down() {
    let bench = Bench::new(BRIDGED);
    let _server = serve(&bench.node, &[]);
    let pods = ["b", "c", "d"].map(|name| bench.node.pod(name).unwrap());
    for pod in [&bench.pod].into_iter().chain(&pods) {
        bench.node.cni("bridge", Verb::Add, pod, "eth0", &bridge()).unwrap().result().unwrap();
    }
    for pod in [&bench.pod, &pods[1]] {
        bench.node.sh_at(&pod.place(), "ip link set eth0 down").unwrap();
    }
    age(&bench.node, 70);
    let found = repair(&bench.node, &[]);
    let remedies: Vec<_> = found.iter().map(|one| (one["container_id"].as_str(), one["remedy"].as_str())).collect();
    let [left, mended] = ["left", "mended"].map(Some);
    let expected = [("pod-a", left), ("pod-b", mended), ("pod-c", left), ("pod-d", mended)];
    assert_eq!(remedies, expected.map(|(pod, remedy)| (Some(pod), remedy)), "{found:?}");
    for pod in [&bench.pod].into_iter().chain(&pods) {
        bench.node.cni("bridge", Verb::Del, pod, "eth0", &bridge()).unwrap().done().unwrap();
    }
}

/// Whoever renews it came too late, and nobody has got the address meanwhile.
#[test]
fn a_lease_that_is_found_again() {
    let bench = Bench::new(BRIDGED);
    let _server = serve(&bench.node, &[]);
    let result = bench.call(false, Verb::Add, &bridge(), None).result().unwrap();
    age(&bench.node, 121);
    bench.call(false, Verb::Check, &bridge(), Some(&result)).error().unwrap();
    assert_eq!(about_the_lease(&bench.node, &[], &result)[..2], ["due-lease", "mended"]);
    bench.call(false, Verb::Check, &bridge(), Some(&result)).done().unwrap();
    ping(&bench);
    bench.call(false, Verb::Del, &bridge(), Some(&result)).done().unwrap();
    given_back(&bench.node, &address(&result));
    bench.nothing_left();
}
