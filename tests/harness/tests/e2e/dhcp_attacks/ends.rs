//! Servers with which no attachment can be made, or kept, or that want more than that.

use super::*;

/// The lease is there, and means nothing: it goes back.
#[test]
fn leases_that_are_of_no_use() {
    let option = |code: u8, value: &'static [u8]| all(move |reply| reply.set(code, value));
    run(vec![
        Attack("over at once", option(51, &[0; 4]), Ends("DHCP")),
        Attack("no mask", all(|reply| reply.without(1)), GivesBack("Subnet Mask not found in DHCPACK")),
        Attack("a mask of 3 bytes", option(1, &[255, 255, 255]), GivesBack("Subnet Mask not found in DHCPACK")),
        Attack(
            "the mask 50 times",
            all(|reply| (0..50).fold(reply, |reply, _| reply.with(1, [255; 4]))),
            GivesBack("with one of 204 bytes"),
        ),
        Attack("a mask with holes", option(1, &[255, 0, 255, 0]), GivesBack("has a 1 after a 0")),
        Attack("a router of 3 bytes", option(3, &[10, 1, 2]), GivesBack("DHCP option 3 can't be read")),
        Attack("a router that is elsewhere", option(3, &[10, 77, 0, 1]), GivesBack("via 10.77.0.1")),
        // As with the reference.
        Attack("the router 0.0.0.0", option(3, &[0; 4]), Has(24)),
        Attack("the router 127.0.0.1", option(3, &[127, 0, 0, 1]), GivesBack("127.0.0.1")),
        Attack("the router 224.0.0.1", option(3, &[224, 0, 0, 1]), GivesBack("224.0.0.1")),
        Attack("the router 255.255.255.255", option(3, &[255; 4]), GivesBack("255.255.255.255")),
        Attack("the router is the pod", option(3, &GIVEN), Has(24)),
        Attack("nothing but itself on its network", option(1, &[255; 4]), GivesBack("10.1.2.1")),
        Attack("everything on its network", option(1, &[0; 4]), GivesBack("via 10.1.2.1")),
        Attack("option 121 is garbage", option(121, &[24, 10]), GivesBack("DHCP option 121 can't be read")),
        Attack("33 bits", option(121, &[33, 10, 9, 8, 7, 6, 10, 1, 2, 1]), GivesBack("33 bits; an address has 32")),
        Attack("255 bits", option(121, &[255; 64]), GivesBack("255 bits; an address has 32")),
        Attack("a route by somebody elsewhere", option(121, &[8, 10, 10, 77, 0, 1]), GivesBack("10.77.0.1")),
        Attack("one route twice", option(121, &[8, 11, 10, 1, 2, 1, 8, 11, 10, 1, 2, 1]), GivesBack("file exists")),
        Attack("a route to the pod's own addresses", option(121, &[8, 127, 10, 1, 2, 1]), Has(24)),
        Attack("a route to everybody", option(121, &[4, 224, 10, 1, 2, 1]), Has(24)),
        Attack("bits beyond the width", option(121, &[8, 11, 10, 1, 2, 1, 1, 255, 10, 1, 2, 1]), Has(24)),
        Attack(
            "200 routes",
            all(|reply| {
                reply
                    .with(121, (0..200).flat_map(|n| [16, 11, n, 10, 1, 2, 1]).collect::<Vec<u8>>().get(..252).unwrap())
            }),
            Has(24),
        ),
        Attack("old routes", option(33, &[0, 0, 0, 0, 10, 1, 2, 1, 127, 0, 0, 1, 10, 1, 2, 1, 9]), Has(24)),
    ]);
}

/// What is refused again and again ends, and soon: its server has answered.
#[test]
fn refused() {
    let text = "DHCP servers on link \"eth0\" have";
    let begin = Instant::now();
    run(vec![
        Attack("NAK", request(|_, reply| vec![reply.set(53, [NAK])]), Fails(text)),
        Attack("NAK, then ACK", request(|_, reply| vec![reply.clone().set(53, [NAK]), reply]), Fails(text)),
    ]);
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

/// None of these gets an answer that is one: the time that the policy gives is over, and what may have been given goes back.
#[test]
fn no_answer_in_time() {
    const TEXT: &str = "on link \"eth0\"";
    let attacks = [
        Attack(
            "offers that are none",
            Box::new(|asked| {
                let reply = Reply::to(asked, OFFER);
                let addresses = [[0; 4], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4]];
                let addresses = addresses.map(|address| reply.clone().address(address));
                let others =
                    [reply.clone().without(54), Reply { xid: [9; 4], ..reply.clone() }, Reply { mac: [2; 6], ..reply }];
                addresses.iter().chain(&others).map(Reply::bytes).collect()
            }),
            Fails("no DHCP server answered on link \"eth0\""),
        ),
        Attack(
            "garbage without end",
            Box::new(|asked| match asked.kind {
                DISCOVER => (0..60_000_u32).map(|n| [&n.to_be_bytes()[..], &[0; 300]].concat()).collect(),
                _ => Vec::new(),
            }),
            Fails("no DHCP server answered on link \"eth0\""),
        ),
        Attack("an offer and nothing more", request(|_, _| Vec::new()), GivesBack(TEXT)),
        Attack("ACKs of another server", request(|_, reply| vec![reply.set(54, ANOTHER_SERVER)]), GivesBack(TEXT)),
        // Refusals or silence: neither is an address.
        Attack("ACKs of another address", request(|_, reply| vec![reply.address([10, 1, 2, 51])]), Ends(TEXT)),
        Attack("ACKs of no address", request(|_, reply| vec![reply.address([0; 4])]), Ends(TEXT)),
        Attack("NAKs of nobody", request(|_, reply| vec![reply.set(53, [NAK]).without(54)]), Ends(TEXT)),
    ];
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let running = attacks.map(|attack| scope.spawn(|| attack.run(&bench()).err()));
        running.into_iter().filter_map(|one| one.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whoever offers first and then says nothing is not the only one who is asked.
#[test]
fn a_server_that_only_offers() {
    let bench = Bench::new(BRIDGED);
    let script = |asked: &Asked| match (asked.kind, asked.before) {
        (DISCOVER, 0) => vec![Reply::to(asked, OFFER).set(54, ANOTHER_SERVER).address([10, 1, 2, 66]).bytes()],
        (REQUEST, _) if asked.wants == Some([10, 1, 2, 66]) => Vec::new(),
        _ => good(asked).map(|reply| reply.bytes()).into_iter().collect(),
    };
    let server = Server::start(&bench.node, Box::new(script));
    let result = bench.call(false, Verb::Add, &network(), None).result().unwrap();
    assert_eq!(result["ips"][0]["address"], "10.1.2.50/24");
    // It may have given it all the same.
    server.hears_release_of([10, 1, 2, 66]).unwrap();
    bench.call(false, Verb::Del, &network(), Some(&result)).done().unwrap();
    server.hears_release_of(GIVEN).unwrap();
    bench.nothing_left();
}

/// However little time there is, a server that answers at once is heard.
#[test]
fn a_short_time() {
    for deadline in [1000, 4000, 7000] {
        Attack("an honest server", honest(), Has(24)).run(&bench_of(deadline)).unwrap();
    }
}

/// Ports and rules of the node are for the addresses that its pods have.
#[test]
fn the_nodes_own_address() {
    let mut bench = bench();
    for link in ["lo", "cni0"] {
        bench.node.sh(&format!("ip addr add 10.1.2.50/32 dev {link}")).unwrap();
        bench.before = bench.node.snapshot().unwrap();
        Attack("the node's own address", honest(), Ends("10.1.2.50")).run(&bench).unwrap();
        bench.node.sh(&format!("ip addr del 10.1.2.50/32 dev {link}")).unwrap();
    }
}

/// Who answers may be another pod: it says what the pod's gateway is, and not what the addresses and routes of the node are, also where
/// the bridge is to be the gateway.
#[test]
fn gateways_for_the_node() {
    // In place of a default route by the router, which the kernel would refuse.
    const ROUTED: &[u8] = &[16, 10, 9, 10, 1, 2, 7];
    const NET: [u8; 4] = [255, 255, 255, 0];
    let mut config = network();
    config["isGateway"] = true.into();
    config["ipMasq"] = true.into();
    let bench = bench();
    let mut wrong = Vec::new();
    for (address, mask, router, routes) in [
        (GIVEN, NET, &[8, 8, 8, 8][..], &[][..]),
        (GIVEN, NET, &[127, 0, 0, 1], &[]),
        (GIVEN, [0; 4], &[8, 8, 8, 8], ROUTED),
        (GIVEN, NET, &[0; 4], ROUTED),
        (GIVEN, NET, &[8, 8, 8, 8], ROUTED),
        (GIVEN, NET, &[127, 0, 0, 1], ROUTED),
        (GIVEN, NET, &[224, 0, 0, 1], ROUTED),
        (GIVEN, NET, &[255; 4], ROUTED),
        (GIVEN, NET, &GIVEN, &[]),
        ([200, 1, 1, 50], [128, 0, 0, 0], &[200, 1, 1, 1], &[]),
        ([200, 1, 1, 50], [128, 0, 0, 0], &[], &[]),
        ([10, 96, 0, 50], [255, 255, 0, 0], &[10, 96, 0, 1], &[]),
    ] {
        let script = all(move |reply| {
            let reply = reply.set(1, mask).set(3, router).address(address);
            if routes.is_empty() { reply } else { reply.set(121, routes) }
        });
        let _server = Server::start(&bench.node, script);
        let look = || bench.node.sh("ip -br -4 addr show dev cni0; ip route").unwrap();
        let before = look();
        let outcome = bench.call(false, Verb::Add, &config, None);
        let after = look();
        if before != after {
            wrong.push(format!("{address:?} {mask:?} {router:?} {routes:?}:\n{after}  {}", outcome.stdout));
        }
        bench.call(false, Verb::Del, &config, None).done().unwrap();
        bench.nothing_left();
        // It would stay: other attachments may use it.
        bench.node.sh("ip -4 addr flush dev cni0").unwrap();
    }
    // One that the operator has given it is its own.
    bench.node.sh("ip addr add 10.1.2.1/24 dev cni0").unwrap();
    let _server = Server::start(&bench.node, honest());
    bench.call(false, Verb::Add, &config, None).result().unwrap();
    bench.call(false, Verb::Del, &config, None).done().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What `sandwirectl repair` says of the one lease: its kind, its remedy and its text.
fn repair(node: &Node) -> [String; 3] {
    let found = crate::dhcp::renewed::repair(node, &[]);
    ["kind", "remedy", "text"].map(|key| found[0][key].as_str().unwrap_or_else(|| panic!("{found:?}")).to_owned())
}

/// What is answered in place of the good answer, or beside it.
type Lie = fn(Reply) -> Vec<Reply>;

/// A lease that is to be renewed at once, and is answered by somebody else than its server, or by nonsense.
#[test]
fn renewed_by_liars() {
    let bench = bench();
    let due = |reply: Reply| reply.set(58, [0; 4]).set(59, [0, 0, 14, 15]);
    let renewal = |asked: &Asked| asked.kind == REQUEST && asked.has != [0; 4];
    let mut wrong = Vec::new();
    let lies: Vec<(&str, Lie, bool)> = vec![
        ("good", |reply| vec![reply], true),
        ("another server's NAK", |reply| vec![reply.clone().set(53, [NAK]).set(54, ANOTHER_SERVER), reply], true),
        ("another client's NAK", |reply| vec![Reply { mac: [2; 6], ..reply.clone() }.set(53, [NAK]), reply], true),
        ("another talk's NAK", |reply| vec![Reply { xid: [9; 4], ..reply.clone() }.set(53, [NAK]), reply], true),
        ("an offer", |reply| vec![reply.clone().set(53, [OFFER]), reply], true),
        ("nothing of use", |reply| vec![reply.set(54, ANOTHER_SERVER)], false),
        // Then it is asked for anew, and given.
        ("NAK", |reply| vec![reply.set(53, [NAK])], true),
        ("another address", |reply| vec![reply.address([10, 1, 2, 51])], false),
        ("over at once", |reply| vec![reply.set(51, [0; 4])], true),
    ];
    for (name, lie, is_renewed) in lies {
        let script = move |asked: &Asked| match good(asked).map(due) {
            Some(reply) if renewal(asked) => lie(reply).iter().map(Reply::bytes).collect(),
            reply => reply.iter().map(Reply::bytes).collect::<Vec<_>>(),
        };
        let _server = Server::start(&bench.node, Box::new(script));
        let result = bench.call(false, Verb::Add, &network(), None).result().unwrap();
        let [kind, remedy, text] = repair(&bench.node);
        let check = bench.call(false, Verb::Check, &network(), Some(&result));
        let up = bench.node.sh_at(&bench.pod.place(), "ip -br link show up dev eth0").unwrap();
        // An interface that is up has an address that is its own, and CHECK says the same.
        if (remedy == "mended") != is_renewed
            || up.is_empty() == (check.exit == Some(0))
            || (is_renewed && up.is_empty())
        {
            wrong.push(format!("{name}: {kind} {remedy} {text}; up: {up:?}; CHECK: {check}"));
        }
        bench.call(false, Verb::Del, &network(), Some(&result)).done().unwrap();
        bench.nothing_left();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
