//! IPv4 and UDP around a DHCP message: an interface without an address has no socket that sends them, and none that hears what is
//! sent to an address that it does not have yet (`ip_route_input_slow`).

use std::net::Ipv4Addr;

const SERVER_PORT: u16 = 67;
pub(super) const CLIENT_PORT: u16 = 68;
pub(super) const UDP: u8 = 17;
const UDP_BYTES: u16 = 8;
const IP_BYTES: u16 = 20;
/// Of both.
pub(super) const HEADER_BYTES: usize = (IP_BYTES + UDP_BYTES) as usize;
/// RFC 791, RFC 1122 (section 3.2.1.7).
const VERSION_AND_LENGTH: u8 = 0x45;
const TTL: u8 = 64;
/// "More fragments", and which piece it is.
pub(super) const FRAGMENT: u16 = 0x3fff;

/// The sum of 16-bit words that IP and UDP have (RFC 1071).
fn checksum<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u16 {
    let mut sum = 0_u32;
    for pair in parts.into_iter().flat_map(|part| part.chunks(2)) {
        let word = match pair {
            [high, low] => u16::from_be_bytes([*high, *low]),
            [high] => u16::from_be_bytes([*high, 0]),
            _ => 0,
        };
        sum += u32::from(word);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The packet with a message from a client; none when it is too long for one.
pub(super) fn packet(from: Ipv4Addr, to: Ipv4Addr, message: &[u8]) -> Option<Vec<u8>> {
    let udp_bytes = u16::try_from(message.len()).ok()?.checked_add(UDP_BYTES)?;
    let all = udp_bytes.checked_add(IP_BYTES)?;
    let [all_high, all_low] = all.to_be_bytes();
    let head = |sum: u16| -> Vec<u8> {
        let mut head = vec![VERSION_AND_LENGTH, 0, all_high, all_low, 0, 0, 0, 0, TTL, UDP];
        head.extend(sum.to_be_bytes());
        head.extend(from.octets());
        head.extend(to.octets());
        head
    };
    let udp = |sum: u16| -> Vec<u8> {
        [CLIENT_PORT, SERVER_PORT, udp_bytes, sum].iter().flat_map(|field| field.to_be_bytes()).collect()
    };
    let [udp_high, udp_low] = udp_bytes.to_be_bytes();
    let pseudo: Vec<u8> = from.octets().into_iter().chain(to.octets()).chain([0, UDP, udp_high, udp_low]).collect();
    // 0 would mean that there is none (RFC 768).
    let sum = match checksum([pseudo.as_slice(), &udp(0), message]) {
        0 => 0xffff,
        sum => sum,
    };
    let ip_sum = checksum([head(0).as_slice()]);
    Some(head(ip_sum).into_iter().chain(udp(sum)).chain(message.iter().copied()).collect())
}

/// The message to a client in a packet.
///
/// UDP's sum is not looked at: between two ends of a veth nobody has made it yet (CHECKSUM_PARTIAL), and the kernel, which knows,
/// is not asked here.
pub(super) fn message(packet: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| packet.get(at..at + 2).and_then(|two| two.try_into().ok()).map(u16::from_be_bytes);
    let first = *packet.first()?;
    let head = usize::from(first & 0xf) * 4;
    if first >> 4 != 4 || head < usize::from(IP_BYTES) || packet.get(9) != Some(&UDP) || word(6)? & FRAGMENT != 0 {
        return None;
    }
    // Ethernet's padding is after it.
    let udp = packet.get(head..usize::from(word(2)?))?;
    let udp_word = |at: usize| udp.get(at..at + 2).and_then(|two| two.try_into().ok()).map(u16::from_be_bytes);
    match udp_word(2)? == CLIENT_PORT {
        true => udp.get(usize::from(UDP_BYTES)..usize::from(udp_word(4)?)),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_packed_is_unpacked_with_good_sums() {
        let (from, to) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        for text in [&b"odd"[..], b"even"] {
            let packet = packet(from, to, text).unwrap();
            assert_eq!(checksum([&packet[..20]]), 0);
            let mut pseudo = packet[12..20].to_vec();
            pseudo.extend([0, UDP]);
            pseudo.extend(&packet[24..26]);
            assert_eq!(checksum([pseudo.as_slice(), &packet[20..]]), 0);
            // It goes to a server: only the other way round it is a client's.
            assert_eq!(message(&packet), None);
            let mut back = packet.clone();
            back[20..24].copy_from_slice(&[0, 67, 0, 68]);
            back.extend([0; 18]);
            assert_eq!(message(&back), Some(text));
        }
    }

    #[test]
    fn nothing_else_is() {
        let mut good = packet(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, b"text").unwrap();
        good[20..24].copy_from_slice(&[0, 67, 0, 68]);
        assert_eq!(message(&good), Some(&b"text"[..]));
        for length in 0..good.len() {
            assert_eq!(message(&good[..length]), None, "{length}");
        }
        for (at, byte) in
            [(0, 0x65), (0, 0x44), (0, 0x4f), (6, 0x20), (7, 1), (9, 6), (23, 67), (2, 0xff), (3, 10), (24, 1), (25, 3)]
        {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(message(&bad), None, "{at}");
        }
        assert!(packet(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, &vec![0; 70_000]).is_none());
    }

    /// A packet to a client, as a good server sends it.
    fn to_client(text: &[u8]) -> Vec<u8> {
        let mut packet = packet(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, text).unwrap();
        packet[20..24].copy_from_slice(&[0, 67, 0, 68]);
        packet
    }

    proptest! {
        /// Whatever is on the network: no message, or one that is part of the packet.
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            if let Some(text) = message(&bytes) {
                prop_assert!(bytes.windows(text.len().max(1)).any(|part| part == text) || text.is_empty());
            }
        }

        /// What is almost good gets further than any bytes.
        #[test]
        fn any_change_of_a_good_one(
            text in prop::collection::vec(any::<u8>(), 0..64),
            changes in prop::collection::vec((0..28_usize, any::<u8>()), 0..6),
            length in 0..92_usize,
        ) {
            let mut bytes = to_client(&text);
            prop_assert_eq!(message(&bytes), Some(text.as_slice()));
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            bytes.truncate(length);
            if let Some(text) = message(&bytes) {
                prop_assert!(text.len() + 28 <= bytes.len());
            }
        }

        /// Options of IP are skipped, and padding of Ethernet is no part of it.
        #[test]
        fn a_longer_head(words in 0..=10_usize, padding in 0..46_usize, text in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut bytes = to_client(&text);
            bytes.splice(20..20, std::iter::repeat_n(1, words * 4));
            bytes[0] = 0x45 + words as u8;
            let all = u16::try_from(bytes.len()).unwrap();
            bytes[2..4].copy_from_slice(&all.to_be_bytes());
            bytes.extend(std::iter::repeat_n(0, padding));
            prop_assert_eq!(message(&bytes), Some(text.as_slice()));
        }
    }
}
