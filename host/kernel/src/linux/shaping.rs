//! Bandwidth limits: a token bucket for what leaves a link; what arrives is redirected to an IFB device that has one, because
//! the kernel can only queue what leaves.
//!
//! The objects are those of the reference plugin (plugins/meta/bandwidth), number by number, so that either side finds
//! and removes what the other made: `tbf 1:` at the root; `ingress ffff:` with a u32 filter of priority 1 that takes all.

use super::attributes::Attributes;
use super::links;
use super::netns::Namespace;
use super::socket::{Received, Refusal, i32_at, u32_at};
use crate::{KernelError, Outcome, Rate};
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcMessage};
use nix::errno::Errno;

/// `struct tcmsg` (linux/rtnetlink.h).
const TCMSG: usize = 20;
const RTM_NEWQDISC: u16 = 36;
const RTM_NEWTFILTER: u16 = 44;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
// linux/pkt_sched.h
const TC_H_ROOT: u32 = 0xFFFF_FFFF;
const TC_H_INGRESS: u32 = 0xFFFF_FFF1;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
// linux/pkt_cls.h
const TCA_U32_CLASSID: u16 = 1;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TC_U32_TERMINAL: u8 = 1;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TC_ACT_STOLEN: i32 = 4;
// linux/tc_act/tc_mirred.h
const TCA_MIRRED_PARMS: u16 = 2;
const TCA_EGRESS_REDIR: i32 = 1;

/// The reference's handles: 1: and ffff:.
const BUCKET: u32 = 0x0001_0000;
const INGRESS: u32 = 0xFFFF_0000;
const FIRST_CLASS: u32 = 0x0001_0001;
const PRIORITY: u32 = 1;

/// A bucket as the kernel keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    /// Bytes a second.
    rate: u64,
    /// The burst as the time it takes at that rate, in units of 64 ns (PSCHED_SHIFT).
    buffer: u32,
    /// Bytes that may wait.
    limit: u32,
}

const MICROSECONDS: u64 = 1_000_000;

impl Bucket {
    /// With the reference's roundings: whole bytes, whole microseconds.
    fn of(rate: &Rate) -> Outcome<Self> {
        let bytes = rate.bits_per_second / 8;
        let burst = rate.burst_bits / 8;
        if bytes == 0 {
            return Err(KernelError::Invalid(format!(
                "a rate of {} bits a second: 8 is the least",
                rate.bits_per_second
            )));
        }
        if burst == 0 || burst >= u64::from(u32::MAX) {
            return Err(KernelError::Invalid(format!(
                "a burst of {} bits: from 8 up to 4 GB are possible",
                rate.burst_bits
            )));
        }
        let time = burst * MICROSECONDS / bytes;
        let limit = u128::from(bytes) * u128::from(rate.latency_us) / u128::from(MICROSECONDS) + u128::from(burst);
        Ok(Self {
            rate: bytes,
            buffer: u32::try_from(u128::from(time) * 125 / 8).unwrap_or(u32::MAX),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
        })
    }

    fn rate(self) -> Rate {
        let time = (u64::from(self.buffer) * 8).div_ceil(125);
        let burst = (u128::from(time) * u128::from(self.rate)).div_ceil(u128::from(MICROSECONDS));
        let waiting = u128::from(self.limit).saturating_sub(burst);
        let latency = (waiting * u128::from(MICROSECONDS)).checked_div(u128::from(self.rate)).unwrap_or_default();
        Rate {
            bits_per_second: self.rate.saturating_mul(8),
            burst_bits: u64::try_from(burst.saturating_mul(8)).unwrap_or(u64::MAX),
            latency_us: u32::try_from(latency).unwrap_or(u32::MAX),
        }
    }

    /// `struct tc_tbf_qopt`: two `tc_ratespec` (the second is the peak rate: none), limit, buffer, mtu.
    fn options(self) -> Vec<u8> {
        let mut parms = [0; 36];
        let low = u32::try_from(self.rate).unwrap_or(u32::MAX);
        for (at, value) in [(8, low), (24, self.limit), (28, self.buffer)] {
            if let Some(room) = parms.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
                *room = value.to_ne_bytes();
            }
        }
        let mut options = Vec::new();
        attribute(&mut options, TCA_TBF_PARMS, &parms);
        if u32::try_from(self.rate).is_err() {
            attribute(&mut options, TCA_TBF_RATE64, &self.rate.to_ne_bytes());
        }
        options
    }

    fn parse(options: Attributes<'_>) -> Option<Self> {
        let parms = options.get(TCA_TBF_PARMS)?;
        let wide = options.get(TCA_TBF_RATE64).and_then(|value| value.first_chunk()).map(|v| u64::from_ne_bytes(*v));
        let rate = match wide {
            Some(rate) => rate,
            None => u64::from(u32_at(parms, 8)?),
        };
        Some(Self { rate, limit: u32_at(parms, 24)?, buffer: u32_at(parms, 28)? })
    }
}

/// Appends one attribute, padded.
fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn message(index: u32, parent: u32, handle: u32, kind: &str, options: Vec<u8>) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = parent.into();
    message.header.handle = handle.into();
    if !kind.is_empty() {
        message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    }
    if !options.is_empty() {
        message.attributes.push(TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, options)));
    }
    message
}

/// A token bucket at the link's root. `Exists` when somebody has put another queueing discipline there.
pub(super) fn limit(namespace: &mut Namespace, index: u32, rate: &Rate) -> Outcome<()> {
    let message = message(index, TC_H_ROOT, BUCKET, "tbf", Bucket::of(rate)?.options());
    add(namespace, RouteNetlinkMessage::NewQueueDiscipline(message))
        .map_err(|refusal| failed(namespace, index, refusal, "create qdisc", "CONFIG_NET_SCH_TBF"))
}

/// Sends all that arrives at the link out of `to`, which puts it back behind the link.
pub(super) fn redirect(namespace: &mut Namespace, index: u32, to: u32) -> Outcome<()> {
    let qdisc = message(index, TC_H_INGRESS, INGRESS, "ingress", Vec::new());
    add(namespace, RouteNetlinkMessage::NewQueueDiscipline(qdisc))
        .map_err(|refusal| failed(namespace, index, refusal, "create ingress qdisc", "CONFIG_NET_SCH_INGRESS"))?;
    let mut filter = message(index, INGRESS, 0, "u32", everything_to(to));
    // Priority and protocol, the latter in network order: all of them.
    filter.header.info = PRIORITY << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
    let added = add(namespace, RouteNetlinkMessage::NewTrafficFilter(filter));
    added.map_err(|refusal| {
        let error = failed(namespace, index, refusal, "add filter", "CONFIG_NET_CLS_U32 and CONFIG_NET_ACT_MIRRED");
        // All or nothing.
        match clear_input(namespace, index) {
            Ok(()) => error.refused(),
            Err(_) => error.half_done(),
        }
    })
}

/// A u32 filter with one key that compares nothing, and one action: `mirred egress redirect`.
fn everything_to(index: u32) -> Vec<u8> {
    // `struct tc_gen` (index, capabilities, verdict, two counters), then what to do and where.
    let mut mirred = vec![0; 8];
    for value in [TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, index.cast_signed()] {
        mirred.extend_from_slice(&value.to_ne_bytes());
    }
    let (mut parms, mut action, mut actions, mut options) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    attribute(&mut parms, TCA_MIRRED_PARMS, &mirred);
    attribute(&mut action, TCA_ACT_KIND, b"mirred\0");
    attribute(&mut action, TCA_ACT_OPTIONS, &parms);
    attribute(&mut actions, 1, &action);
    // `struct tc_u32_sel` with one `tc_u32_key` of zeros.
    let mut selector = vec![0; 32];
    if let [flags, _, keys, ..] = selector.as_mut_slice() {
        (*flags, *keys) = (TC_U32_TERMINAL, 1);
    }
    attribute(&mut options, TCA_U32_CLASSID, &FIRST_CLASS.to_ne_bytes());
    attribute(&mut options, TCA_U32_SEL, &selector);
    attribute(&mut options, TCA_U32_ACT, &actions);
    options
}

fn add(namespace: &mut Namespace, message: RouteNetlinkMessage) -> Result<(), Refusal> {
    namespace.route.request(message, NLM_F_CREATE | NLM_F_EXCL).map(|_| ())
}

fn failed(namespace: &mut Namespace, index: u32, refusal: Refusal, what: &str, option: &str) -> KernelError {
    let name = links::name_of(namespace, index);
    // ENOENT of a new object: the kernel does not know its kind (`qdisc_create`, `tc_new_tfilter`).
    match refusal.errno {
        Errno::ENOENT if !refusal.unheard => KernelError::Unsupported(format!(
            "{what} of {name:?}: {refusal}; this kernel lacks {option}, or its module can't be loaded"
        )),
        _ => refusal.into_error(format_args!("{what} of {name:?}")),
    }
}

/// The bucket at the link's root; none when there is another queueing discipline.
pub(super) fn limited(namespace: &mut Namespace, index: u32) -> Outcome<Option<Rate>> {
    let message = message(index, TC_H_ROOT, 0, "", Vec::new());
    // The kernel answers by a notification (`qdisc_notify`), which only an echo brings here.
    let answer = namespace.route.request(RouteNetlinkMessage::GetQueueDiscipline(message), NLM_F_ECHO);
    let objects = match answer {
        Ok(objects) => objects,
        Err(refusal) if refusal.errno == Errno::ENOENT => Vec::new(),
        Err(refusal) => return Err(looked(namespace, index, refusal)),
    };
    Ok(objects.iter().find_map(|object| bucket(object, index)).map(Bucket::rate))
}

fn looked(namespace: &mut Namespace, index: u32, refusal: Refusal) -> KernelError {
    let name = links::name_of(namespace, index);
    refusal.into_error(format_args!("could not list the queueing disciplines of {name:?}"))
}

fn bucket(object: &Received, index: u32) -> Option<Bucket> {
    let attributes = of_kind(object, RTM_NEWQDISC, index, "tbf")?;
    Bucket::parse(attributes.nested(TCA_OPTIONS)?)
}

fn of_kind<'a>(object: &'a Received, message: u16, index: u32, kind: &str) -> Option<Attributes<'a>> {
    let attributes = Attributes::after(&object.payload, TCMSG);
    let is_it = object.kind == message
        && i32_at(&object.payload, 4) == Some(index.cast_signed())
        && attributes.text(TCA_KIND).as_deref() == Some(kind);
    is_it.then_some(attributes)
}

/// Where what arrives at the link goes: the index of a device, 0 if that is gone.
pub(super) fn redirected(namespace: &mut Namespace, index: u32) -> Outcome<Option<u32>> {
    let message = message(index, INGRESS, 0, "", Vec::new());
    let objects = match namespace.route.dump(&RouteNetlinkMessage::GetTrafficFilter(message)) {
        Ok(objects) => objects,
        Err(refusal) if matches!(refusal.errno, Errno::ENOENT | Errno::EINVAL) => Vec::new(),
        Err(refusal) => return Err(looked(namespace, index, refusal)),
    };
    Ok(objects.iter().find_map(|object| target(object, index)))
}

fn target(object: &Received, index: u32) -> Option<u32> {
    let actions = of_kind(object, RTM_NEWTFILTER, index, "u32")?.nested(TCA_OPTIONS)?.nested(TCA_U32_ACT)?;
    let action = actions.nested(1)?;
    if action.text(TCA_ACT_KIND).as_deref() != Some("mirred") {
        return None;
    }
    let parms = action.nested(TCA_ACT_OPTIONS)?.get(TCA_MIRRED_PARMS)?;
    (i32_at(parms, 20)? == TCA_EGRESS_REDIR).then(|| u32_at(parms, 24)).flatten()
}

/// Takes the bucket away. Another queueing discipline stays, and so does another link's.
pub(super) fn clear_output(namespace: &mut Namespace, index: u32) -> Outcome<()> {
    remove(namespace, index, message(index, TC_H_ROOT, BUCKET, "tbf", Vec::new()))
}

/// Takes the redirection away.
pub(super) fn clear_input(namespace: &mut Namespace, index: u32) -> Outcome<()> {
    remove(namespace, index, message(index, TC_H_INGRESS, INGRESS, "ingress", Vec::new()))
}

fn remove(namespace: &mut Namespace, index: u32, message: TcMessage) -> Outcome<()> {
    match namespace.route.request(RouteNetlinkMessage::DelQueueDiscipline(message), 0) {
        Ok(_) => Ok(()),
        // Nothing there; or something of another kind or handle (`tc_get_qdisc`), which is somebody else's.
        Err(refusal) if matches!(refusal.errno, Errno::ENOENT | Errno::EINVAL) && !refusal.unheard => Ok(()),
        Err(refusal) => {
            let name = links::name_of(namespace, index);
            Err(refusal.into_error(format_args!("could not remove the limit of {name:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(bits_per_second: u64, burst_bits: u64) -> Rate {
        Rate { bits_per_second, burst_bits, latency_us: 25_000 }
    }

    /// Seen from Debian's bandwidth 1.1.1 with `tc -s -d -raw`: buffer in ticks, limit in bytes.
    #[test]
    fn the_references_numbers() {
        for (given, bytes, buffer, limit) in [
            (rate(8_000_000, 8_000_000), 1_000_000, 15_625_000, 1_025_000),
            (rate(1_000, 80_000), 125, 1_250_000_000, 10_003),
            (rate(1_000_000_000, 1_000_000), 125_000_000, 15_625, 3_250_000),
        ] {
            assert_eq!(Bucket::of(&given).unwrap(), Bucket { rate: bytes, buffer, limit }, "{given:?}");
        }
        assert_eq!(Bucket::of(&rate(8, 34_359_738_000)).unwrap().buffer, u32::MAX);
    }

    #[test]
    fn what_was_asked_for_is_read_back() {
        for given in [rate(8_000_000, 8_000_000), rate(64_000, 800_000), rate(100_000_000_000, 1_000_000_000)] {
            assert_eq!(Bucket::of(&given).unwrap().rate(), given);
        }
        let bucket = Bucket::of(&rate(100_000_000_000, 1_000_000_000)).unwrap();
        let options = bucket.options();
        assert_eq!(Bucket::parse(Attributes::after(&options, 0)), Some(bucket));
    }

    #[test]
    fn impossible_rates_are_refused() {
        for (bits, burst) in [(7, 800), (800, 7), (800, 8 * u64::from(u32::MAX))] {
            assert!(matches!(Bucket::of(&rate(bits, burst)), Err(KernelError::Invalid(_))), "{bits} {burst}");
        }
    }
}
