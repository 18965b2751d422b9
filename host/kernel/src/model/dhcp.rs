//! DHCP (RFC 2131) as the client's side sees it.

use crate::error::{KernelError, Outcome};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::net::Ipv4Addr;

/// One option (RFC 2132).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpOption {
    /// Its code, 1 to 254.
    pub code: u8,
    /// Its bytes, without the length.
    #[serde(with = "Hex")]
    pub value: Vec<u8>,
}

/// What a client says of itself and asks for, the same with every message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpAsk {
    /// Client identifier (option 61): its type, then its name.
    #[serde(with = "Hex")]
    pub client: Vec<u8>,
    /// Further options to send.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub send: Vec<DhcpOption>,
    /// Codes of the options that are asked for (option 55).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ask: Vec<u8>,
}

/// How a server is asked for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DhcpRequest {
    /// The one that it has offered.
    Offered,
    /// To keep it longer, the server that gave it.
    Renew,
    /// To keep it longer, whatever server hears it.
    Rebind,
}

/// An address that was offered or given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpLease {
    /// What was asked.
    pub ask: DhcpAsk,
    /// The address.
    pub address: Ipv4Addr,
    /// The server (option 54).
    pub server: Ipv4Addr,
    /// The hardware address that its answer came from: its own or its relay's.
    #[serde(with = "Hex")]
    pub via: Vec<u8>,
    /// Number of the conversation (RFC 2131, table 5: who asks for what was offered goes on with it).
    pub xid: u32,
    /// When it was given: seconds since the machine started, also while it slept (CLOCK_BOOTTIME).
    pub obtained: u64,
    /// For how long; 0 for what is only offered, the largest number for ever.
    pub seconds: u32,
    /// After how many seconds it is to be renewed (T1).
    pub renew: u32,
    /// After how many seconds any server may renew it (T2).
    pub rebind: u32,
    /// All options of the answer, each code once.
    pub options: Vec<DhcpOption>,
}

/// The time of [`DhcpLease::obtained`].
///
/// # Errors
/// When the kernel has no such clock.
pub fn boot_time() -> Outcome<u64> {
    let failed = |errno: nix::errno::Errno| KernelError::Other(format!("could not tell the time: {}", errno.desc()));
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_err(failed)?;
    Ok(u64::try_from(now.tv_sec()).unwrap_or(0))
}

impl DhcpLease {
    /// How many seconds it lasts from `now` on, the largest number for ever; none when its time is over, or it never was given.
    pub fn left(&self, now: u64) -> Option<u32> {
        if self.seconds == u32::MAX {
            return Some(u32::MAX);
        }
        let left = self.obtained.saturating_add(u64::from(self.seconds)).checked_sub(now).filter(|left| *left > 0)?;
        Some(u32::try_from(left).unwrap_or(u32::MAX))
    }

    /// Who is to be asked to keep it longer; nobody while it is young.
    pub fn due(&self, now: u64) -> Option<DhcpRequest> {
        let age = now.saturating_sub(self.obtained);
        if self.seconds == u32::MAX || age < u64::from(self.renew) {
            None
        } else if age < u64::from(self.rebind) {
            Some(DhcpRequest::Renew)
        } else {
            Some(DhcpRequest::Rebind)
        }
    }
}

/// Bytes as hexadecimal digits: a journal is read by people, too.
struct Hex;

impl Hex {
    fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(bytes))
    }

    fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let digits = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        hex::decode(digits.as_bytes()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(seconds: u32) -> DhcpLease {
        DhcpLease {
            ask: DhcpAsk { client: vec![0, b'a'], send: Vec::new(), ask: vec![1, 3] },
            address: Ipv4Addr::new(10, 1, 2, 50),
            server: Ipv4Addr::new(10, 1, 2, 1),
            via: vec![2, 0, 0, 0, 0, 255],
            xid: 7,
            obtained: 1000,
            seconds,
            renew: 50,
            rebind: 87,
            options: vec![DhcpOption { code: 1, value: vec![255, 255, 255, 0] }],
        }
    }

    #[test]
    fn how_long_it_lasts_and_who_is_asked() {
        use DhcpRequest::{Rebind, Renew};
        for (now, left, due) in [
            (900, Some(200), None),
            (1000, Some(100), None),
            (1049, Some(51), None),
            (1050, Some(50), Some(Renew)),
            (1086, Some(14), Some(Renew)),
            (1087, Some(13), Some(Rebind)),
            (1099, Some(1), Some(Rebind)),
            (1100, None, Some(Rebind)),
            (u64::MAX, None, Some(Rebind)),
        ] {
            assert_eq!((lease(100).left(now), lease(100).due(now)), (left, due), "{now}");
        }
        assert_eq!((lease(u32::MAX).left(u64::MAX), lease(u32::MAX).due(u64::MAX)), (Some(u32::MAX), None));
        assert_eq!(lease(0).left(1000), None);
    }

    #[test]
    fn the_journal_has_it_for_people() {
        let text = serde_json::to_string(&lease(100)).unwrap();
        assert!(text.contains(r#""client":"0061""#) && text.contains(r#""via":"0200000000ff""#), "{text}");
        assert_eq!(serde_json::from_str::<DhcpLease>(&text).unwrap(), lease(100));
        for bad in ["0g", "é", "0é"] {
            assert!(serde_json::from_str::<DhcpLease>(&text.replace("0061", bad)).is_err(), "{bad}");
        }
    }
}
