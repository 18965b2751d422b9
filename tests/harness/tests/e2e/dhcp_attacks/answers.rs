//! Answers that are none, and odd ones that are.

use super::*;

#[test]
fn answers_that_are_none() {
    let mut attacks = vec![
        Attack("another conversation", first(|reply| Reply { xid: [9; 4], ..reply }.address([10, 1, 2, 66])), Has(24)),
        Attack("another client's", first(|reply| Reply { mac: [2; 6], ..reply }.address([10, 1, 2, 66])), Has(24)),
        Attack("a client's message", first(|reply| Reply { op: 1, ..reply }.address([10, 1, 2, 66])), Has(24)),
        Attack("BOOTP's", first(|reply| Reply { cookie: [0; 4], ..reply }.address([10, 1, 2, 66])), Has(24)),
        Attack("without a kind", first(|reply| reply.without(53).address([10, 1, 2, 66])), Has(24)),
        Attack("a kind twice", first(|reply| Reply::address(reply, [10, 1, 2, 66]).with(53, [6])), Has(24)),
        Attack("an ACK to DISCOVER", first_to(DISCOVER, |reply| reply.set(53, [ACK]).address([10, 1, 2, 66])), Has(24)),
        Attack("a NAK to DISCOVER", first_to(DISCOVER, |reply| reply.set(53, [NAK])), Has(24)),
        Attack("an offer to REQUEST", first_to(REQUEST, |reply| reply.set(53, [OFFER])), Has(24)),
        Attack(
            "offers without a server",
            first_to(DISCOVER, |reply| reply.without(54).address([10, 1, 2, 66])),
            Has(24),
        ),
        Attack(
            "an ACK of another server",
            first_to(REQUEST, |reply| reply.set(54, ANOTHER_SERVER).set(1, [255, 255, 0, 0])),
            Has(24),
        ),
        Attack(
            "a NAK of another server",
            first_to(REQUEST, |reply| reply.set(53, [NAK]).set(54, ANOTHER_SERVER)),
            Has(24),
        ),
        Attack("more than a frame, in pieces", first(|reply| padded(reply, 1400).address([10, 1, 2, 66])), Has(24)),
        Attack(
            "the kind once more where option 52 points",
            first(|reply| Reply { file: vec![53, 1, NAK, 52, 1, 3, 255], ..reply }.set(52, [3])),
            Has(24),
        ),
        Attack(
            "garbage, and a good answer at last",
            Box::new(|asked| {
                let flood = (0..if asked.before == 0 { 3000 } else { 10 }).map(|n: u32| {
                    // A good beginning, and nothing that is heard.
                    let mut bytes = Reply { op: 9, ..Reply::to(asked, OFFER) }.bytes();
                    let length = bytes.len();
                    bytes.truncate(if n.is_multiple_of(2) { n as usize % length } else { length });
                    bytes.iter_mut().skip(1 + n as usize % 300).for_each(|byte| *byte ^= n as u8);
                    bytes
                });
                flood.chain(good(asked).map(|reply| reply.bytes())).collect()
            }),
            Has(24),
        ),
    ];
    for kind in [vec![], vec![0], vec![1], vec![3], vec![4], vec![7], vec![8], vec![255], vec![OFFER, OFFER]] {
        attacks.push(Attack("another kind", first(move |reply| reply.set(53, &kind).address([10, 1, 2, 66])), Has(24)));
    }
    for address in [[0; 4], [127, 0, 0, 1], [224, 0, 0, 1], [239, 255, 255, 255], [255; 4]] {
        attacks.push(Attack("no host's address", first_to(DISCOVER, move |reply| reply.address(address)), Has(24)));
    }
    for server in [&[10, 1, 2][..], &[10, 1, 2, 1, 10, 1, 2, 1], &[]] {
        let bad = move |reply: Reply| reply.set(54, server).address([10, 1, 2, 66]);
        attacks.push(Attack("a server that is no address", first_to(DISCOVER, bad), Has(24)));
    }
    for length in [0, 1, 27, 44, 235, 236, 239, 240, 242] {
        let cut = move |reply: Reply| reply.bytes()[..length].to_vec();
        attacks.push(Attack("one that is cut off", first_bytes(cut), Has(24)));
    }
    run(attacks);
}

/// Options nobody knows, so many bytes in all.
fn padded(mut reply: Reply, bytes: usize) -> Reply {
    let mut left = bytes;
    for code in 224..=254 {
        let length = left.saturating_sub(2).min(255);
        if length > 0 {
            reply = reply.with(code, vec![code; length]);
            left -= length + 2;
        }
    }
    reply
}

#[test]
fn answers_that_are_odd() {
    let times = |lease: u32, renew: u32, rebind: u32| {
        all(move |reply| {
            let (lease, renew, rebind) = (lease.to_be_bytes(), renew.to_be_bytes(), rebind.to_be_bytes());
            reply.set(51, lease).set(58, renew).set(59, rebind)
        })
    };
    run(vec![
        Attack("for ever", all(|reply| reply.set(51, [255; 4])), Has(24)),
        Attack("for 30 s", all(|reply| reply.set(51, [0, 0, 0, 30])), Has(24)),
        Attack("T1 after T2 after the end", times(60, 1_000_000, 100_000), Has(24)),
        Attack("T1 and T2 at once", times(60, 0, 0), Has(24)),
        Attack("T2 before T1", times(60, 50, 10), Has(24)),
        Attack("times of other sizes", all(|reply| reply.set(51, [1, 2, 3]).set(58, [1]).set(59, [])), Has(24)),
        Attack("no time", all(|reply| reply.without(51)), Has(24)),
        Attack(
            "255 bytes in each",
            all(|reply| reply.with(43, [7; 255]).with(43, [8; 255]).with(12, [b'x'; 255])),
            Has(24),
        ),
        Attack("one frame full", all(|reply| padded(reply, 1190)), Has(24)),
        Attack("one option 50 times", all(|reply| (0..50).fold(reply, |reply, n| reply.with(12, [n; 10]))), Has(24)),
        Attack("the time 50 times", all(|reply| (0..50).fold(reply, |reply, _| reply.with(51, [0, 0, 0, 9]))), Has(24)),
        Attack(
            "every code",
            all(|reply| (60..=254).fold(reply, |reply, code| if code == 121 { reply } else { reply.with(code, []) })),
            Has(24),
        ),
        Attack("option 52 says what it can't", all(|reply| reply.with(52, [255, 3])), Has(24)),
        Attack(
            "option 52 in pieces of itself",
            all(|reply| Reply { file: [52, 1, 3].repeat(42), sname: [52, 1, 3].repeat(21), ..reply }.with(52, [3])),
            Has(24),
        ),
        Attack(
            "half of it where option 52 points",
            all(|reply| {
                let reply = reply.without(1).without(3).with(52, [3]);
                Reply { file: vec![1, 4, 255, 255, 255, 0], sname: vec![3, 4, 10, 1, 2, 1, 255], ..reply }
            }),
            Has(24),
        ),
        Attack("the last is cut off", all(|reply| Reply { tail: vec![12, 200, b'x'], ..reply }), Has(24)),
        Attack("a code and nothing more", all(|reply| Reply { tail: vec![12], ..reply }), Has(24)),
        Attack("no end", all(|reply| Reply { tail: Vec::new(), ..reply }), Has(24)),
        Attack("no router", all(|reply| reply.without(3)), Has(24)),
        Attack("an empty router", all(|reply| reply.set(3, [])), Has(24)),
        Attack("an empty option 121", all(|reply| reply.with(121, [])), Has(24)),
        Attack(
            "texts for terminals",
            all(|reply| reply.with(12, b"\x1b[2J\x1b]0;x\x07\0\n\xff\xfe").with(15, b"\"}\n{")),
            Has(24),
        ),
        Attack(
            "refused once",
            request(|asked, reply| vec![if asked.before == 0 { reply.set(53, [NAK]) } else { reply }]),
            Has(24),
        ),
        Attack(
            "RELEASE is answered",
            Box::new(|asked| match asked.kind {
                RELEASE => [ACK, NAK].map(|kind| Reply::to(asked, kind).bytes()).into(),
                _ => good(asked).map(|reply| reply.bytes()).into_iter().collect(),
            }),
            Has(24),
        ),
        Attack("an answer before it is asked for", first_to(DISCOVER, |reply| reply.set(53, [ACK])), Has(24)),
        Attack(
            "everything twice",
            Box::new(|asked| good(asked).map_or_else(Vec::new, |reply| vec![reply.bytes(), reply.bytes()])),
            Has(24),
        ),
    ]);
}
