//! Scripts: what is done, as data that can be printed, cut and run again.

use crate::networks::{Attachment, NETWORKS, Net, PODS, network};
use crate::random::Random;
use crate::state::Model;
use anyhow::{Context, Result, bail};
use sandwire_harness::Verb;
use sandwire_harness::agent::Mode;
use std::fmt;

/// A call for an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// ADD, DEL or CHECK.
    pub verb: Verb,
    /// Whose.
    pub attachment: Attachment,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A call, to its end.
    Call(Call),
    /// A call that is killed after so many microseconds.
    Kill(Call, u64),
    /// Calls at the same time.
    Together(Vec<Call>),
    /// GC with these valid, killed after so many microseconds.
    KillGc(Net, Vec<Attachment>, u64),
    /// GC with these valid; with none, the runtime does not say what is valid.
    Gc(Net, Option<Vec<Attachment>>),
    /// STATUS.
    Status(Net),
    /// What the agent does from now on.
    Agent(Mode),
    /// The agent is started again: it knows nothing, its bridges are gone (networking-bagpipe: `reset_state`).
    AgentRestart,
    /// A pod's namespace goes.
    NetnsGone(&'static str),
    /// A new namespace at the same path.
    NetnsNew(&'static str),
    /// Somebody makes an interface of this name in the pod.
    Foreign(Attachment),
    /// Somebody breaks this of it.
    Tamper(Attachment, Part),
    /// Somebody takes all firewall rules away, as a restart of nftables does.
    Flush,
    /// The link that macvlans ride on goes.
    MasterGone,
    /// It comes back.
    MasterNew,
    /// Links, rules, namespaces, /run and the agent's memory are gone; it is another boot.
    Reboot,
}

const MODES: [(&str, Mode); 5] = [
    ("ok", Mode::Ok),
    ("refuse", Mode::Refuse),
    ("no-peers", Mode::NoPeers),
    ("half", Mode::Half),
    ("html", Mode::Html),
];

/// What somebody breaks of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its interface is deleted.
    Link,
    /// Its addresses are taken away.
    Addresses,
    /// One of its routes is.
    Route,
    /// One of its firewall rules is.
    Rule,
    /// The bucket at its host end is.
    Bucket,
    /// The device that it sends to is deleted.
    Ifb,
    /// Its MTU is another.
    Mtu,
    /// A sysctl of its interface is.
    Sysctl,
}

const PARTS: [(&str, Part); 8] = [
    ("link", Part::Link),
    ("addresses", Part::Addresses),
    ("route", Part::Route),
    ("rule", Part::Rule),
    ("bucket", Part::Bucket),
    ("ifb", Part::Ifb),
    ("mtu", Part::Mtu),
    ("sysctl", Part::Sysctl),
];

impl Part {
    /// Whether an attachment of this network has it, and CHECK looks at it.
    pub fn is_of(self, net: &Net) -> bool {
        match self {
            Self::Link => net.has_link(),
            Self::Addresses | Self::Route => net.has_link() && net.has_addresses(),
            Self::Rule => net.has_rules() && !net.has_agent(),
            Self::Bucket | Self::Ifb => net.has("bandwidth"),
            Self::Mtu | Self::Sysctl => net.has("tuning"),
        }
    }
}

fn mode_name(mode: &Mode) -> &str {
    MODES.iter().find(|(_, known)| known == mode).map_or("500", |(name, _)| name)
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb.name().to_lowercase(), self.attachment)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(call) => call.fmt(f),
            Self::Kill(call, after) => write!(f, "kill {call} after {after}"),
            Self::Together(calls) => {
                let texts: Vec<String> = calls.iter().map(Call::to_string).collect();
                write!(f, "together {}", texts.join(" + "))
            }
            Self::KillGc(net, valid, after) => {
                write!(f, "kill-gc {}", net.name)?;
                valid.iter().try_for_each(|attachment| write!(f, " {attachment}"))?;
                write!(f, " after {after}")
            }
            Self::Gc(net, None) => write!(f, "gc {} unsaid", net.name),
            Self::Gc(net, Some(valid)) => {
                write!(f, "gc {}", net.name)?;
                valid.iter().try_for_each(|attachment| write!(f, " {attachment}"))
            }
            Self::Status(net) => write!(f, "status {}", net.name),
            Self::Agent(mode) => write!(f, "agent {}", mode_name(mode)),
            Self::AgentRestart => f.write_str("agent restart"),
            Self::NetnsGone(pod) => write!(f, "netns-gone {pod}"),
            Self::NetnsNew(pod) => write!(f, "netns-new {pod}"),
            Self::Foreign(attachment) => write!(f, "foreign {attachment}"),
            Self::Tamper(attachment, part) => {
                let name = PARTS.iter().find(|(_, known)| known == part).map_or("", |(name, _)| name);
                write!(f, "tamper {attachment} {name}")
            }
            Self::Flush => f.write_str("flush"),
            Self::MasterGone => f.write_str("master gone"),
            Self::MasterNew => f.write_str("master new"),
            Self::Reboot => f.write_str("reboot"),
        }
    }
}

impl Call {
    fn parse(words: &[&str]) -> Result<Self> {
        let [verb, attachment] = words else { bail!("a call is a verb and an attachment, not {words:?}") };
        let verb = match *verb {
            "add" => Verb::Add,
            "del" => Verb::Del,
            "check" => Verb::Check,
            other => bail!("no verb: {other:?}"),
        };
        Ok(Self { verb, attachment: attachment_of(attachment)? })
    }
}

fn attachment_of(text: &str) -> Result<Attachment> {
    Attachment::parse(text).with_context(|| format!("no attachment: {text:?}"))
}

fn pod_of(text: &str) -> Result<&'static str> {
    PODS.into_iter().find(|pod| *pod == text).with_context(|| format!("no pod: {text:?}"))
}

impl Step {
    /// A line of a script.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let net = |name: &str| network(name).with_context(|| format!("no network: {name:?}"));
        Ok(match words.as_slice() {
            ["together", rest @ ..] => {
                Self::Together(rest.split(|word| *word == "+").map(Call::parse).collect::<Result<_>>()?)
            }
            ["kill", verb, attachment, "after", time] => Self::Kill(Call::parse(&[*verb, *attachment])?, time.parse()?),
            ["kill-gc", name, valid @ .., "after", time] => {
                let valid = valid.iter().map(|text| attachment_of(text)).collect::<Result<_>>()?;
                Self::KillGc(net(name)?, valid, time.parse()?)
            }
            ["gc", name, "unsaid"] => Self::Gc(net(name)?, None),
            ["gc", name, valid @ ..] => {
                Self::Gc(net(name)?, Some(valid.iter().map(|text| attachment_of(text)).collect::<Result<_>>()?))
            }
            ["status", name] => Self::Status(net(name)?),
            ["agent", "restart"] => Self::AgentRestart,
            ["agent", "500"] => Self::Agent(Mode::Status(500, "as scripted".into())),
            ["agent", mode] => {
                let known = MODES.iter().find(|(name, _)| name == mode);
                Self::Agent(known.with_context(|| format!("no mode: {mode:?}"))?.1.clone())
            }
            ["netns-gone", pod] => Self::NetnsGone(pod_of(pod)?),
            ["netns-new", pod] => Self::NetnsNew(pod_of(pod)?),
            ["foreign", attachment] => Self::Foreign(attachment_of(attachment)?),
            ["tamper", attachment, part] => {
                let known = PARTS.iter().find(|(name, _)| name == part);
                Self::Tamper(attachment_of(attachment)?, known.with_context(|| format!("no part: {part:?}"))?.1)
            }
            ["flush"] => Self::Flush,
            ["master", "gone"] => Self::MasterGone,
            ["master", "new"] => Self::MasterNew,
            ["reboot"] => Self::Reboot,
            words => Self::Call(Call::parse(words)?),
        })
    }

    /// A script: a step a line, `#` starts a comment.
    ///
    /// # Errors
    /// With the line that is no step.
    pub fn parse_all(text: &str) -> Result<Vec<Self>> {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        lines.filter(|line| !line.is_empty()).map(|line| Self::parse(line).with_context(|| line.to_owned())).collect()
    }

    /// The next step of a random script with these attachments. The model keeps it from doing mostly what can't be done.
    pub fn random(random: &mut Random, model: &Model, among: &[Attachment]) -> Self {
        let any = |random: &mut Random| *random.one(among).unwrap_or(&FIRST);
        let call = |random: &mut Random| {
            let attachment = any(random);
            let verb = match (model.is_up(&attachment), random.below(10)) {
                (true, 0..=4) | (false, 0) => Verb::Del,
                (true, 5..=8) | (false, 1) => Verb::Check,
                _ => Verb::Add,
            };
            Call { verb, attachment }
        };
        // Somebody mends what is broken, sooner or later.
        if model.agent != Mode::Ok && random.percent(12) {
            return Self::Agent(Mode::Ok);
        }
        if let Some(pod) = PODS.iter().find(|pod| !model.is_there(pod))
            && random.percent(15)
        {
            return Self::NetnsNew(pod);
        }
        if !model.master && random.percent(10) {
            return Self::MasterNew;
        }
        match random.below(100) {
            0..=57 => Self::Call(call(random)),
            58..=71 => {
                let mut call = call(random);
                if call.verb == Verb::Check {
                    call.verb = Verb::Del;
                }
                // Each plugin of a list takes its time.
                Self::Kill(call, random.below(7000 * call.attachment.net.plugins().count() as u64))
            }
            72..=79 => Self::together(random, call),
            80..=85 => {
                let net = any_of_ours(random, among);
                let all = Attachment::all().into_iter().filter(|attachment| attachment.net.name == net.name);
                match random.below(100) {
                    0..=14 => Self::Gc(net, None),
                    15..=29 => {
                        let valid = all.filter(|_| random.percent(40)).collect();
                        Self::KillGc(net, valid, random.below(7000 * net.plugins().count() as u64))
                    }
                    _ => Self::Gc(net, Some(all.filter(|_| random.percent(60)).collect())),
                }
            }
            86..=87 => Self::tamper(random, model, among),
            88..=90 => Self::Status(any_of_ours(random, among)),
            91..=93 => match random.below(6) {
                5 => Self::Agent(Mode::Status(500, "as scripted".into())),
                n => Self::Agent(MODES.into_iter().nth(n as usize).map_or(Mode::Ok, |(_, mode)| mode)),
            },
            94 => Self::AgentRestart,
            95..=96 => Self::NetnsGone(random.one(&PODS).copied().unwrap_or("a")),
            97 => Self::NetnsNew(random.one(&PODS).copied().unwrap_or("a")),
            98 => Self::Foreign(any(random)),
            _ => match random.below(100) {
                0..=39 => Self::Reboot,
                40..=59 => Self::Flush,
                60..=79 => Self::MasterGone,
                _ => Self::AgentRestart,
            },
        }
    }

    /// Of one that is up; without one, somebody looks.
    fn tamper(random: &mut Random, model: &Model, among: &[Attachment]) -> Self {
        let up: Vec<Attachment> = among.iter().filter(|a| !a.net.is_native() && model.is_up(a)).copied().collect();
        let Some(attachment) = random.one(&up).copied() else { return Self::Status(any_of_ours(random, among)) };
        let parts: Vec<Part> = PARTS.into_iter().map(|(_, part)| part).filter(|p| p.is_of(&attachment.net)).collect();
        match random.one(&parts) {
            Some(part) => Self::Tamper(attachment, *part),
            None => Self::Call(Call { verb: Verb::Check, attachment }),
        }
    }

    /// Two to four calls of different attachments, or two of one.
    fn together(random: &mut Random, call: impl Fn(&mut Random) -> Call) -> Self {
        let first = call(random);
        // Native host-local locks each range of an ADD by itself: a DEL between takes half of what the ADD then reports.
        if random.percent(30) && !first.attachment.net.is_native() {
            let second = Call { verb: if random.percent(70) { Verb::Del } else { Verb::Add }, ..first };
            return Self::Together(vec![first, second]);
        }
        let mut calls = vec![first];
        for _ in 0..random.below(3) + 1 {
            let next = call(random);
            if !calls.iter().any(|other| other.attachment == next.attachment) {
                calls.push(next);
            }
        }
        Self::Together(calls)
    }
}

/// Whom GC and STATUS can be asked of: native host-local of Debian knows neither.
fn any_of_ours(random: &mut Random, among: &[Attachment]) -> Net {
    // Each network as often as others, whatever the number of its interfaces.
    let nets: Vec<Net> = NETWORKS.into_iter().filter(|net| among.iter().any(|a| a.net == *net)).collect();
    let any = random.one(&nets).unwrap_or(&NETWORKS[0]);
    network(any.name).unwrap_or(NETWORKS[0])
}

const FIRST: Attachment = Attachment { net: NETWORKS[0], pod: "a", ifname: "eth0" };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_read() {
        let mut random = Random::new(7);
        let mut model = Model::default();
        model.netns_gone("b");
        for attachment in Attachment::all() {
            model.added(attachment, &serde_json::json!({}));
        }
        for _ in 0..4000 {
            let step = Step::random(&mut random, &model, &Attachment::all());
            assert_eq!(Step::parse(&step.to_string()).unwrap(), step);
        }
        assert!(Step::parse("add plain/x/eth0").is_err());
        assert_eq!(Step::parse_all("# nothing\n\nreboot # now\n").unwrap(), [Step::Reboot]);
    }
}
