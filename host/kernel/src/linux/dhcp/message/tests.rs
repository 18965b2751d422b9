use super::*;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

fn option(code: u8, value: &[u8]) -> DhcpOption {
    DhcpOption { code, value: value.to_vec() }
}

fn said(ask: &DhcpAsk, kind: Kind) -> Said<'_> {
    let (has, wants, server) = (Ipv4Addr::UNSPECIFIED, None, None);
    Said { kind, xid: 0x0102_0304, mac: MAC, broadcast: true, has, wants, server, ask }
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
    assert!(check(&DhcpAsk { send: vec![option(12, &[0; 250]); 4], ..DhcpAsk::default() }).is_err());
    assert!(check(&DhcpAsk { ask: vec![1; 256], ..DhcpAsk::default() }).is_err());
    assert!(check(&DhcpAsk { send: vec![option(12, &[0; 255]), option(61, b"x")], ..DhcpAsk::default() }).is_ok());
}
