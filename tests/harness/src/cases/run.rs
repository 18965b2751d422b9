//! One case at one version, on a node of its own.

use super::expect;
use super::steps::{Action, Expectation, Step, Subject};
use super::{Case, Implementation};
use crate::agent::{Agent, Mode};
use crate::matching::Bindings;
use crate::{Call, Installation, Node, Outcome, Place, Pod, Snapshot, Verb, run as programs, versions};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

/// Everything that the steps of one run share.
pub(super) struct Bench<'c> {
    pub(super) case: &'c Case,
    /// As in `versions`; "none" for a configuration without one.
    pub(super) version: &'c str,
    pub(super) names: Bindings,
    // Before the node: it must end first.
    pub(super) agent: Option<Agent>,
    implementation: Implementation,
    pods: BTreeMap<String, Pod>,
    netns_empty: BTreeSet<String>,
    /// What the runtime remembers of its ADDs.
    results: BTreeMap<Subject, Value>,
    /// Every attachment that was ever asked for, with the file of its configuration.
    known: BTreeMap<Subject, Option<String>>,
    before: Snapshot,
    node: Node,
}

/// Run all steps, then delete everything and look whether something stayed.
pub(super) fn run(case: &Case, version: &str, implementation: Implementation) -> Result<()> {
    let mut bench = Bench::new(case, version, implementation)?;
    for step in &case.steps {
        bench.step(step).with_context(|| format!("`{}`", step.text))?;
    }
    bench.finish().context("after the last step")
}

/// What is there once two looks see the same: the kernel makes some of what a script asks for from a work queue, such as the local
/// route of an IPv6 address, and later on a machine that is busy.
fn settled(node: &Node) -> Result<Snapshot> {
    let started = Instant::now();
    let mut seen = node.snapshot()?;
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let again = node.snapshot()?;
        if again == seen || started.elapsed() > Duration::from_secs(5) {
            return Ok(again);
        }
        seen = again;
    }
}

impl<'c> Bench<'c> {
    fn new(case: &'c Case, version: &'c str, implementation: Implementation) -> Result<Self> {
        let node = if implementation == Implementation::Sandwire { Node::installed()? } else { Node::new()? };
        if case.has("policy.toml") && implementation == Implementation::Sandwire {
            node.write("/etc/sandwire/policy.toml", case.file("policy.toml", version)?)?;
            let mut command = Command::new(Installation::sandwirectl());
            command.arg("apply").env_clear().env("PATH", programs::PATH);
            node.run(&Place::Host, command, b"")?.success().context("sandwirectl apply")?;
        }
        if case.has("before") {
            node.sh(&case.file("before", version)?).context("before")?;
        }
        let agent = if case.has("agent") { Some(Agent::tcp(&node, "127.0.0.1:8082")?) } else { None };
        let mut names = Bindings::default();
        let mut pods = BTreeMap::new();
        for name in case.steps.iter().filter_map(|step| pod_of(&step.action)) {
            if let Entry::Vacant(free) = pods.entry(name) {
                let pod = node.pod(free.key())?;
                names.set(&format!("netns:{}", free.key()), &pod.netns.to_string_lossy());
                free.insert(pod);
            }
        }
        if case.has("in-pods") {
            let script = case.file("in-pods", version)?;
            for pod in pods.values() {
                node.sh_at(&pod.place(), &script).context("in-pods")?;
            }
        }
        let is_set_up = case.has("before") || case.has("in-pods");
        let before = if is_set_up { settled(&node)? } else { node.snapshot()? };
        let (netns_empty, results, known) = Default::default();
        Ok(Self { case, version, names, agent, implementation, pods, netns_empty, results, known, before, node })
    }

    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    pub(super) fn pod(&self, name: &str) -> Result<Pod> {
        self.pods.get(name).cloned().with_context(|| format!("no pod {name:?}"))
    }

    /// The version that counts for results and verbs.
    pub(super) fn spoken(&self) -> &'c str {
        if self.version == "none" { "0.1.0" } else { self.version }
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        let reference = self.implementation == Implementation::Reference;
        match &step.action {
            // Debian's plugins know neither.
            Action::Gc(..) | Action::Status(_) if reference => return Ok(()),
            Action::Call(verb, subject, file) => {
                self.attachment_call(*verb, subject, file.as_deref(), &step.expected)?
            }
            Action::Gc(valid, file) => {
                let mut config = self.case.config(file.as_deref(), self.version)?;
                if let Some(valid) = valid {
                    let list: Option<Vec<Value>> = valid.as_ref().map(|valid| {
                        valid
                            .iter()
                            .map(|s| json!({"containerID": format!("pod-{}", s.pod), "ifname": s.ifname}))
                            .collect()
                    });
                    // libcni sends the draft's name too.
                    config.insert("cni.dev/valid-attachments".into(), json!(list));
                    config.insert("cni.dev/attachments".into(), json!(list));
                }
                let allowed = versions::has_gc(self.spoken());
                let call = self.base(Verb::Gc).config(&config.into()).command()?;
                self.observed(call, &step.expected, allowed, Verb::Gc)?;
            }
            Action::Status(file) => {
                let config = self.case.config(file.as_deref(), self.version)?;
                // As containerd calls it.
                let call = self.base(Verb::Status).config(&config.into());
                let call = ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"]
                    .iter()
                    .fold(call, |c, key| c.env(key, ""))
                    .command()?;
                self.observed(call, &step.expected, versions::has_gc(self.spoken()), Verb::Status)?;
            }
            Action::Version => {
                let config = json!({"cniVersion": self.spoken()});
                let call = self.base(Verb::Version).config(&config).command()?;
                self.observed(call, &step.expected, true, Verb::Version)?;
            }
            Action::Prev(subject, None) => {
                self.results.remove(subject);
            }
            Action::Prev(subject, Some(file)) => {
                let text = self.names.fill(&self.case.file(file, self.version)?);
                let newest = serde_json::from_str(&text).with_context(|| file.clone())?;
                self.results.insert(subject.clone(), versions::from_newest(&newest, self.spoken()));
            }
            Action::NetnsGone(pod) => self.pod(pod)?.drop_netns(&self.node)?,
            Action::NetnsEmpty(pod) => {
                self.netns_empty.insert(pod.clone());
            }
            Action::NetnsNew(pod) => {
                // After `netns-gone` there is nothing to take away.
                let _ = self.pod(pod)?.drop_netns(&self.node);
                self.pod(pod)?.make_netns(&self.node)?;
            }
            Action::Shell(pod, script, succeeds) => {
                let place =
                    pod.as_ref().map_or(Ok(Place::Host), |pod| Ok::<_, anyhow::Error>(self.pod(pod)?.place()))?;
                let done = self.node.sh_at(&place, &self.names.fill(script));
                match (done, succeeds) {
                    (Err(error), true) => return Err(error),
                    (Ok(output), false) => bail!("must fail, but: {output}"),
                    _ => {}
                }
            }
            Action::Ping(from, to, arrives) => self.ping(from, to, *arrives)?,
            Action::Agent(mode) => self.agent.as_ref().context("the case has no file `agent`")?.set(mode.clone())?,
            Action::Kernel => {}
            Action::LeftNothing => self.left_nothing()?,
        }
        for expectation in &step.expected {
            if let Expectation::Kernel(file) = expectation {
                expect::kernel(self, file)?;
            }
        }
        Ok(())
    }

    fn base(&self, verb: Verb) -> Call<'_> {
        let call = self.node.call(&self.case.plugin, verb);
        let call = if self.implementation == Implementation::Reference { call.native() } else { call };
        self.case.env.iter().fold(call, |call, (key, value)| call.env(key, &self.names.fill(value)))
    }

    fn call(&self, verb: Verb, subject: &Subject, file: Option<&str>) -> Result<Call<'_>> {
        let mut config = self.case.config(file, self.version)?;
        let wants_result = match verb {
            Verb::Check => true,
            Verb::Del => versions::del_gets_result(self.spoken()),
            _ => false,
        };
        // What an earlier plugin of a chain answered, as the runtime gives it to this one.
        if let Some(given) = config.remove("prevResult") {
            let newest = serde_json::from_str(&self.names.fill(&given.to_string()))?;
            config.insert("prevResult".into(), versions::from_newest(&newest, self.spoken()));
        }
        if let Some(result) = self.results.get(subject).filter(|_| wants_result) {
            config.insert("prevResult".into(), result.clone());
        }
        let call = self.base(verb).pod(&self.pod(&subject.pod)?).ifname(&subject.ifname).config(&config.into());
        Ok(if self.netns_empty.contains(&subject.pod) { call.env("CNI_NETNS", "") } else { call })
    }

    fn attachment_call(
        &mut self,
        verb: Verb,
        subject: &Subject,
        file: Option<&str>,
        expected: &[Expectation],
    ) -> Result<()> {
        let pod = self.pod(&subject.pod)?;
        self.names.set("sandbox", &pod.netns.to_string_lossy());
        self.names.set("id", &pod.id);
        self.names.set("ifname", &subject.ifname);
        if verb == Verb::Add {
            self.known.insert(subject.clone(), file.map(str::to_owned));
        }
        let file = file.or_else(|| self.known.get(subject)?.as_deref()).map(str::to_owned);
        let allowed = verb != Verb::Check || versions::has_check(self.spoken());
        let call = self.call(verb, subject, file.as_deref())?.command()?;
        let outcome = self.observed(call, expected, allowed, verb)?;
        match verb {
            Verb::Add if !expect::of_error(expected) => {
                self.results.insert(subject.clone(), outcome.result()?);
                self.check_after_add(subject, file.as_deref())?;
            }
            Verb::Del if !expect::of_error(expected) => {
                self.results.remove(subject);
            }
            _ => {}
        }
        Ok(())
    }

    /// No ADD leaves what CHECK complains of, whatever the configuration and the version.
    fn check_after_add(&self, subject: &Subject, file: Option<&str>) -> Result<()> {
        // What the reference's CHECK makes of its own ADD is not ours to mend.
        if self.implementation == Implementation::Reference || !versions::has_check(self.spoken()) {
            return Ok(());
        }
        // The steps say which calls an agent gets; these are none of them.
        let calls = self.agent.as_ref().map(Agent::take_calls).unwrap_or_default();
        self.call(Verb::Check, subject, file)?.run()?.done().context("CHECK complains of what ADD has just left")?;
        if let Some(agent) = &self.agent {
            agent.remember_only(calls);
        }
        Ok(())
    }

    /// Make the call and hold it against what is expected; a call that must fail must change nothing.
    fn observed(
        &mut self,
        call: (Command, Vec<u8>),
        expected: &[Expectation],
        allowed: bool,
        verb: Verb,
    ) -> Result<Outcome> {
        let must_fail = !allowed || expect::of_error(expected);
        let before = if must_fail { Some(self.node.snapshot()?) } else { None };
        let outcome = Outcome::of(self.node.run(&Place::Host, call.0, &call.1)?);
        if allowed {
            expect::outcome(self, &outcome, expected, matches!(verb, Verb::Add | Verb::Version))?;
        } else {
            outcome.error_with(1, "config version does not allow")?;
        }
        if let Some(before) = before {
            let after = self.node.snapshot()?;
            // An unanswered call to an agent is taken back by a later DEL: `finish` sees that it was.
            let same = if self.agent.is_some() {
                after.assert_only_undo_left(&before)
            } else {
                after.assert_same_attachments(&before)
            };
            same.context("the failed call left something")?;
        }
        Ok(outcome)
    }

    fn ping(&self, from: &str, to: &str, arrives: bool) -> Result<()> {
        let address = if to.contains(['.', ':']) { to.to_owned() } else { self.address(to)? };
        let script = format!("ping -c 1 -W {} {address}", if arrives { 5 } else { 1 });
        match (self.node.sh_at(&self.pod(from)?.place(), &script), arrives) {
            (Err(error), true) => Err(error),
            (Ok(_), false) => bail!("{address} answers, but must not"),
            _ => Ok(()),
        }
    }

    /// The first address in the result of a pod's interface.
    fn address(&self, pod: &str) -> Result<String> {
        let (_, result) = self.results.iter().find(|(subject, _)| subject.pod == pod).context("no result")?;
        let cidr = ["/ips/0/address", "/ip4/ip", "/ip6/ip"].iter().find_map(|at| result.pointer(at)?.as_str());
        let address = cidr.and_then(|cidr| cidr.split('/').next()).context("no address in the result")?;
        Ok(address.to_owned())
    }

    fn left_nothing(&self) -> Result<()> {
        let mut left = self.node.snapshot()?.assert_same_attachments(&self.before);
        if self.implementation == Implementation::Reference {
            // It leaves a dead pod's veth to the kernel, which gets to it in its own time. Ours must be done when it says so.
            let started = Instant::now();
            while left.is_err() && started.elapsed() < Duration::from_secs(5) {
                left = self.node.snapshot()?.assert_same_attachments(&self.before);
            }
        }
        left?;
        let attached = self.agent.as_ref().map(Agent::attached).unwrap_or_default();
        if !attached.is_empty() {
            bail!("still attached at the agent: {attached:?}");
        }
        Ok(())
    }

    /// A DEL for everything that was ever asked for, deleted or not: it must succeed once more, and then nothing is there.
    fn finish(mut self) -> Result<()> {
        if let Some(agent) = &self.agent {
            agent.set(Mode::Ok)?;
        }
        for (subject, file) in std::mem::take(&mut self.known) {
            let call = self.call(Verb::Del, &subject, file.as_deref())?;
            call.run()?.done().with_context(|| format!("DEL of {}/{}", subject.pod, subject.ifname))?;
        }
        self.left_nothing()
    }
}

fn pod_of(action: &Action) -> Option<String> {
    match action {
        Action::Call(_, subject, _) | Action::Prev(subject, _) => Some(subject.pod.clone()),
        Action::NetnsGone(pod) | Action::NetnsEmpty(pod) | Action::NetnsNew(pod) | Action::Shell(Some(pod), ..) => {
            Some(pod.clone())
        }
        Action::Ping(from, ..) => Some(from.clone()),
        _ => None,
    }
}
