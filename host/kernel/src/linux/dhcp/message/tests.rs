use super::super::lease;
use super::*;
use proptest::prelude::*;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

fn option(code: u8, value: &[u8]) -> DhcpOption {
    DhcpOption { code, value: value.to_vec() }
}

fn said(ask: &DhcpAsk, kind: Kind) -> Said<'_> {
    let (has, wants, server) = (Ipv4Addr::UNSPECIFIED, None, None);
    Said { kind, xid: 0x0102_0304, mac: MAC, largest: 1472, broadcast: true, has, wants, server, ask }
}

/// A server's message with these options, as they stand.
fn answer(options: &[u8]) -> Vec<u8> {
    let ask = DhcpAsk::default();
    let mut bytes = said(&ask, Kind::Discover).bytes(0);
    bytes[0] = BOOTREPLY;
    bytes[16..20].copy_from_slice(&[10, 1, 2, 50]);
    bytes.truncate(FIXED_BYTES + 4);
    bytes.extend(options);
    bytes
}

#[test]
fn a_clients_message() {
    let ask = DhcpAsk { client: b"\0a/b/c".to_vec(), send: vec![option(12, b"pod")], ask: vec![3, 1] };
    let wants = Some(Ipv4Addr::new(10, 1, 2, 3));
    let bytes = Said { wants, ..said(&ask, Kind::Request) }.bytes(7);
    assert_eq!(bytes[..12], [1, 1, 6, 0, 1, 2, 3, 4, 0, 7, 0x80, 0]);
    assert_eq!(bytes[28..34], MAC.0);
    assert_eq!(bytes.len(), 300);
    let mut options = Vec::new();
    gather(&bytes[240..], &mut options);
    let expected = [
        option(53, &[3]),
        option(61, b"\0a/b/c"),
        option(50, &[10, 1, 2, 3]),
        option(57, &[5, 192]),
        option(55, &[3, 1]),
        option(12, b"pod"),
    ];
    assert_eq!(options, expected);
}

#[test]
fn who_gives_back_says_only_who_it_is() {
    let ask = DhcpAsk { client: vec![0], send: vec![option(12, b"pod"), option(61, b"me")], ask: vec![3] };
    let bytes = said(&ask, Kind::Release).bytes(0);
    let mut options = Vec::new();
    gather(&bytes[240..], &mut options);
    assert_eq!(options, [option(53, &[7]), option(61, b"me")]);
}

/// All clients that said so would be one.
#[test]
fn an_identifier_without_a_byte_is_none() {
    let ask = DhcpAsk { client: b"\0a".to_vec(), send: vec![option(61, b"")], ask: Vec::new() };
    let mut options = Vec::new();
    gather(&said(&ask, Kind::Release).bytes(0)[240..], &mut options);
    assert_eq!(options, [option(53, &[7]), option(61, b"\0a")]);
}

#[test]
fn a_servers_message() {
    let parsed = Answer::parse(&answer(&[0, 53, 1, 2, 54, 4, 10, 1, 2, 1, 0, 51, 4, 0, 0, 1, 0, 255, 3, 4])).unwrap();
    assert_eq!((parsed.kind, parsed.xid, parsed.mac), (Kind::Offer, 0x0102_0304, MAC));
    assert_eq!(parsed.address, Ipv4Addr::new(10, 1, 2, 50));
    assert_eq!(parsed.address_of(code::SERVER), Some(Ipv4Addr::new(10, 1, 2, 1)));
    assert_eq!(parsed.seconds_of(code::LEASE_SECONDS), Some(256));
    assert_eq!(parsed.seconds_of(code::SERVER + 100), None);
    assert_eq!(parsed.options.len(), 3);
}

#[test]
fn options_in_pieces_and_in_other_fields() {
    let mut bytes = answer(&[53, 1, 5, 6, 1, 1, 52, 1, 3, 6, 2, 2, 3, 255]);
    bytes[108..112].copy_from_slice(&[6, 1, 4, 255]);
    bytes[44..48].copy_from_slice(&[3, 1, 9, 255]);
    let parsed = Answer::parse(&bytes).unwrap();
    assert_eq!(parsed.options, [option(53, &[5]), option(6, &[1, 2, 3, 4]), option(52, &[3]), option(3, &[9])]);
}

#[test]
fn no_answers() {
    let good = answer(&[53, 1, 2, 255]);
    assert!(Answer::parse(&good).is_some());
    for length in 0..good.len() - 1 {
        assert_eq!(Answer::parse(&good[..length]), None, "{length}");
    }
    let mut from_a_client = good.clone();
    from_a_client[0] = BOOTREQUEST;
    let mut no_cookie = good.clone();
    no_cookie[239] = 0;
    for bad in
        [from_a_client, no_cookie, answer(&[53, 1, 3, 255]), answer(&[53, 2, 2, 2, 255]), answer(&[255, 53, 1, 2])]
    {
        assert_eq!(Answer::parse(&bad), None);
    }
    // One that is cut off ends the list.
    assert_eq!(Answer::parse(&answer(&[53, 1, 2, 3, 200, 1])).unwrap().options.len(), 1);
}

#[test]
fn what_a_plugin_may_not_send() {
    for code in [0, 50, 51, 52, 53, 54, 55, 57, 255] {
        assert!(check(&DhcpAsk { send: vec![option(code, b"x")], ..DhcpAsk::default() }).is_err(), "{code}");
    }
    assert!(check(&DhcpAsk { send: vec![option(12, &[0; 256])], ..DhcpAsk::default() }).is_err());
    let of = |codes: [u8; 4]| codes.map(|code| option(code, &[0; 250])).to_vec();
    assert!(check(&DhcpAsk { send: of([12, 60, 77, 93]), ..DhcpAsk::default() }).is_err());
    assert!(check(&DhcpAsk { send: vec![option(12, b"a"), option(12, b"b")], ..DhcpAsk::default() }).is_err());
    assert!(check(&DhcpAsk { ask: vec![1; 256], ..DhcpAsk::default() }).is_err());
    assert!(check(&DhcpAsk { send: vec![option(12, &[0; 255]), option(61, b"x")], ..DhcpAsk::default() }).is_ok());
}

/// Options as a server may send them, good or not: a code, a length that need not be true, and bytes.
fn any_options() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![0, 1, 3, 51, 52, 53, 54, 58, 59, 61, 121, 255]);
    let code = prop_oneof![4 => known, 1 => any::<u8>()];
    let value =
        prop_oneof![4 => prop::collection::vec(any::<u8>(), 0..9), 1 => prop::collection::vec(any::<u8>(), 0..255)];
    let lie = prop_oneof![9 => Just(None), 1 => any::<u8>().prop_map(Some)];
    let one = (code, value, lie).prop_map(|(code, value, lie)| {
        let length = lie.unwrap_or(value.len() as u8);
        [vec![code, length], value].concat()
    });
    prop::collection::vec(one, 0..24).prop_map(|all| all.concat())
}

/// A field of a message: any bytes, or options.
fn any_field(length: usize) -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop::collection::vec(any::<u8>(), length);
    let options = any_options().prop_map(move |mut options| {
        options.resize(length, 0);
        options
    });
    prop_oneof![bytes, options]
}

/// What everybody may rely on who gets an answer.
fn is_sound(bytes: &[u8], parsed: &Answer) -> Result<(), TestCaseError> {
    let mut codes: Vec<u8> = parsed.options.iter().map(|option| option.code).collect();
    codes.sort_unstable();
    let all = codes.len();
    codes.dedup();
    prop_assert_eq!(codes.len(), all, "a code twice");
    prop_assert!(!codes.contains(&code::PAD) && !codes.contains(&code::END));
    let bytes_in_all: usize = parsed.options.iter().map(|option| option.value.len()).sum();
    prop_assert!(bytes_in_all < bytes.len(), "more than was sent");
    prop_assert!(matches!(parsed.kind, Kind::Offer | Kind::Ack | Kind::Nak));
    let ask = DhcpAsk::default();
    for from in [None, Some(0), Some(u64::MAX)] {
        let lease = lease(&ask, Ipv4Addr::LOCALHOST, parsed, MAC, from);
        prop_assert!(lease.renew <= lease.rebind, "{lease:?}");
        prop_assert!(from.is_none() || lease.rebind <= lease.seconds, "{lease:?}");
        for now in [0, 1, u64::MAX] {
            let since = now.checked_sub(lease.obtained);
            prop_assert!(since.is_none() || lease.left(now).is_none_or(|left| left <= lease.seconds));
            lease.due(now);
        }
        prop_assert_eq!(&lease.options, &parsed.options);
        let text = serde_json::to_string(&lease).unwrap();
        prop_assert_eq!(serde_json::from_str::<crate::DhcpLease>(&text).unwrap(), lease);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..1600)) {
        prop_assert_eq!(Answer::parse(&bytes), None);
    }

    /// Behind a good beginning.
    #[test]
    fn any_options_of_an_answer(
        options in any_options(),
        kind in prop::sample::select(vec![2, 5, 6]),
        overload in 0..=4_u8,
        sname in any_field(64),
        file in any_field(128),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = answer(&[&[53, 1, kind, 52, 1, overload][..], &options].concat());
        bytes[44..108].copy_from_slice(&sname);
        bytes[108..236].copy_from_slice(&file);
        if let Some(parsed) = Answer::parse(&bytes) {
            is_sound(&bytes, &parsed)?;
        }
        bytes.truncate(cut.index(bytes.len()));
        if let Some(parsed) = Answer::parse(&bytes) {
            is_sound(&bytes, &parsed)?;
        }
    }

    /// What a plugin may send arrives as it is, in one frame; what is refused is no panic either.
    #[test]
    fn any_options_of_a_plugin(
        send in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..260)), 0..8),
        ask in prop::collection::vec(any::<u8>(), 0..260),
        client in prop::collection::vec(any::<u8>(), 0..=255),
        kind in prop::sample::select(vec![Kind::Discover, Kind::Request, Kind::Release]),
    ) {
        let send = send.iter().map(|(code, value)| option(*code, value)).collect();
        let ask = DhcpAsk { client, send, ask };
        let bytes = said(&ask, kind).bytes(u16::MAX);
        prop_assert!(bytes.len() >= LEAST_BYTES);
        if check(&ask).is_err() {
            return Ok(());
        }
        prop_assert!(bytes.len() + 28 <= 1600, "{} bytes", bytes.len());
        let mut found = Vec::new();
        gather(&bytes[FIXED_BYTES + 4..], &mut found);
        prop_assert_eq!(value(&found, code::MESSAGE), Some(&[kind as u8][..]));
        let is_none = |option: &&DhcpOption| option.code == code::CLIENT && option.value.is_empty();
        let sent = ask.send.iter().filter(|option| kind != Kind::Release || option.code == code::CLIENT);
        let sent = sent.filter(|option| !is_none(option));
        for one in sent {
            let whole: Vec<u8> =
                ask.send.iter().filter(|option| option.code == one.code).flat_map(|option| option.value.clone()).collect();
            prop_assert_eq!(value(&found, one.code), Some(whole.as_slice()));
        }
    }
}
