//! Token buckets: what is asked for, and whether one that is there is that.

use crate::config::Limit;
use sandwire_plugin::Failure;
use sandwire_plugin::host::shaping::Rate;

/// How long a packet may wait for its turn (the reference's `latencyInMillis`).
const LATENCY_US: u32 = 25_000;
/// The kernel keeps a burst as the nanoseconds it takes at its rate, in 32 bits (`tbf_change`): more is cut. Containerd
/// asks for more.
const LONGEST_US: u64 = u32::MAX as u64 / 1000;

/// What the host is to make of a limit.
pub(crate) fn of(limit: Limit) -> Rate {
    Rate { bits_per_second: limit.rate, burst_bits: limit.burst, latency_us: LATENCY_US }
}

/// What of a bucket is compared.
struct Facts {
    /// Bytes a second.
    rate: u64,
    /// The burst, as the time it takes.
    burst_us: u64,
    /// Bytes that may wait beside it.
    waiting: u64,
}

fn facts(rate: &Rate) -> Facts {
    let bytes = (rate.bits_per_second / 8).max(1);
    let burst = rate.burst_bits / 8;
    let burst_us = (burst.saturating_mul(1_000_000) / bytes).min(LONGEST_US);
    // What of the burst was cut is room for waiting.
    let beyond = burst.saturating_sub(burst_us.saturating_mul(bytes) / 1_000_000);
    let waiting = bytes.saturating_mul(u64::from(rate.latency_us)) / 1_000_000;
    Facts { rate: bytes, burst_us, waiting: waiting.saturating_add(beyond) }
}

/// Compares the bucket of a device with the limit it was made for.
///
/// # Errors
/// The reference's texts, with device and values.
pub(crate) fn compare(device: &str, present: Option<Rate>, wanted: Limit) -> Result<(), Failure> {
    let Some(present) = present else {
        return Err(Failure::internal(["Failed to find qdisc: the bandwidth of ", device, " is not limited"].concat()));
    };
    let (is, should) = (facts(&present), facts(&of(wanted)));
    let differs = |what: &str, is: u64, should: u64, unit: &str| {
        Err(Failure::internal(format!("{what} doesn't match: {device} has {is} {unit}, configured are {should}")))
    };
    if is.rate != should.rate {
        return differs("Rate", is.rate, should.rate, "bytes a second");
    }
    if is.burst_us.abs_diff(should.burst_us) > 1 {
        return differs("Buffer", is.burst_us, should.burst_us, "microseconds");
    }
    // The kernel has the sum of burst and waiting in bytes, the burst in microseconds: each is known to one of its own.
    let rounding = 4 + should.rate / 500_000;
    if present.latency_us != u32::MAX && is.waiting.abs_diff(should.waiting) > rounding {
        return differs("Limit", is.waiting, should.waiting, "bytes of room");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the host reads them back (host/kernel, `Bucket`).
    fn read_back(limit: Limit) -> Rate {
        let (bytes, burst) = (limit.rate / 8, limit.burst / 8);
        let ticks = (u128::from(burst * 1_000_000 / bytes) * 125 / 8).min(67_108_863);
        let kept = (ticks * 8).div_ceil(125) * u128::from(bytes);
        let kept = kept.div_ceil(1_000_000);
        let total = (u128::from(bytes) * 25_000 / 1_000_000 + u128::from(burst)).min(u128::from(u32::MAX));
        let latency = (total - kept.min(total)) * 1_000_000 / u128::from(bytes);
        Rate {
            bits_per_second: bytes * 8,
            burst_bits: kept as u64 * 8,
            latency_us: u32::try_from(latency).unwrap_or(u32::MAX),
        }
    }

    #[test]
    fn what_was_made_is_found_for_every_rate() {
        for rate in [8, 1_000, 64_000, 999_999, 8_000_000, 10_000_000, 333_333_333, 1_000_000_000, 400_000_000_000] {
            // The last is containerd's.
            for burst in [80, 12_000, 1_234_567, 100_000_000, 2_147_483_647, 4_294_967_295] {
                let limit = Limit { rate, burst };
                compare("veth0", Some(read_back(limit)), limit)
                    .unwrap_or_else(|failure| panic!("{limit:?}: {}", failure.msg));
            }
        }
    }

    #[test]
    fn each_difference_is_named() {
        let wanted = Limit { rate: 8_000_000, burst: 800_000 };
        let made = read_back(wanted);
        for (present, text) in [
            (None, "Failed to find qdisc: the bandwidth of veth0 is not limited"),
            (Some(Rate { bits_per_second: 8_000_080, ..made }), "Rate doesn't match: veth0 has 1000010 bytes a second"),
            (Some(Rate { burst_bits: 801_000, ..made }), "Buffer doesn't match: veth0 has 100125 microseconds"),
            (Some(Rate { latency_us: 26_000, ..made }), "Limit doesn't match: veth0 has 26000 bytes of room"),
        ] {
            let failure = compare("veth0", present, wanted).unwrap_err();
            assert!(failure.msg.starts_with(text), "{}", failure.msg);
        }
    }
}
