//! A node on which scripts are run: each step is done, its outcome judged, the model changed, and both compared.

mod accidents;
mod job;

use crate::compare;
use crate::networks::{Attachment, NETWORKS, Net, PODS};
use crate::observed::Observed;
use crate::script::{Call, Step};
use crate::state::{Holder, Model, State, Wanted};
use accidents::make_master;
use anyhow::{Context, Result, bail};
use job::{Ended, Job};
use nix::mount::{MsFlags, mount};
use sandwire_harness::agent::Agent;
use sandwire_harness::{Node, Outcome, Pod, Snapshot, Verb};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Looking at the firewall costs a program: after what can change it, and every so many steps.
const RULES_EVERY: usize = 16;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The node.
pub struct World {
    node: Node,
    agent: Option<Agent>,
    pods: BTreeMap<&'static str, Pod>,
    /// What must be.
    pub model: Model,
    before: Snapshot,
    steps: usize,
    boots: u32,
    /// Calls made, by verb; kills that came in time as "kill".
    pub calls: BTreeMap<&'static str, usize>,
}

impl World {
    /// A fresh node with all pods, nothing attached.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn new() -> Result<Self> {
        let node = Node::installed()?;
        let pods = PODS.into_iter().map(|name| Ok((name, node.pod(name)?))).collect::<Result<BTreeMap<_, _>>>()?;
        node.within(|| -> Result<()> {
            std::fs::write("/mnt/boot_id", boot_id(0))?;
            mount(Some("/mnt/boot_id"), BOOT_ID, None::<&str>, MsFlags::MS_BIND, None::<&str>).context(BOOT_ID)
        })??;
        let agent = Some(Agent::tcp(&node, "127.0.0.1:8082")?);
        make_master(&node)?;
        let before = node.snapshot()?;
        let (model, calls) = (Model::default(), BTreeMap::new());
        Ok(Self { node, agent, pods, model, before, steps: 0, boots: 0, calls })
    }

    /// The node itself, to tamper with it.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// What the agent knows is forgotten, unknown to the model: to see that it is noticed.
    ///
    /// # Errors
    /// When the agent can't be started.
    pub fn restart_agent(&mut self) -> Result<()> {
        drop(self.agent.take());
        let started = Instant::now();
        // A program that another thread is just starting has our descriptors until it is executed, the old listener too.
        let agent = loop {
            match Agent::tcp(&self.node, "127.0.0.1:8082") {
                Err(_) if started.elapsed() < Duration::from_secs(5) => std::thread::sleep(Duration::from_millis(5)),
                agent => break agent?,
            }
        };
        if self.model.agent != sandwire_harness::agent::Mode::Ok {
            agent.set(self.model.agent.clone())?;
        }
        self.agent = Some(agent);
        Ok(())
    }

    /// Every difference between what is and what must be.
    ///
    /// # Errors
    /// When it can't be looked at.
    pub fn differences(&self, rules: bool) -> Result<Vec<String>> {
        Ok(compare::differences(&self.model, &Observed::of(&self.node, self.agent.as_ref(), rules)?))
    }

    /// Does one step and compares.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn step(&mut self, step: &Step) -> Result<()> {
        self.steps += 1;
        let rules = match step {
            Step::Call(call) | Step::Kill(call, _) => call.attachment.net.has_rules() && call.verb != Verb::Check,
            Step::Together(calls) => calls.iter().any(|call| call.attachment.net.has_rules()),
            Step::Gc(net, _) | Step::KillGc(net, ..) => net.has_rules(),
            Step::Reboot | Step::Flush => true,
            _ => false,
        };
        self.act(step)?;
        let observed = Observed::of(&self.node, self.agent.as_ref(), rules || self.steps.is_multiple_of(RULES_EVERY))?;
        let differences = compare::differences(&self.model, &observed);
        if !differences.is_empty() {
            bail!("{}", differences.join("\n"));
        }
        // Only another killed ADD of native host-local may add to them.
        self.model.ownerless = NETWORKS.iter().map(|net| (net.name, observed.ownerless(net.name))).collect();
        Ok(())
    }

    /// The end of a script: everything is mended and every attachment deleted once; then nothing may be left. Compared by the
    /// harness's snapshot, which looks at more than a step's comparison.
    ///
    /// # Errors
    /// With what is left.
    pub fn end(mut self) -> Result<BTreeMap<&'static str, usize>> {
        self.step(&Step::Agent(sandwire_harness::agent::Mode::Ok))?;
        self.step(&Step::MasterNew)?;
        for attachment in Attachment::all() {
            self.step(&Step::Call(Call { verb: Verb::Del, attachment }))
                .with_context(|| format!("del {attachment}"))?;
        }
        // Files without an owner, which no DEL is asked for.
        for net in NETWORKS.into_iter().filter(|net| !net.is_native() && net.has_leases()) {
            let step = Step::Gc(net, Some(Vec::new()));
            self.step(&step).with_context(|| step.to_string())?;
        }
        let differences = self.differences(true)?;
        let mut left = self.node.snapshot()?.attachments_since(&self.before);
        // Which boot it is, who was there first, and foreign interfaces are the script's.
        left.retain(|line| !line.contains(" pod-") && !line.contains("no netns"));
        if !differences.is_empty() || !left.is_empty() {
            bail!("left at the end:\n{}\n{}", differences.join("\n"), left.join("\n"));
        }
        Ok(self.calls)
    }

    fn act(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Call(call) => {
                let ended = self.call(call)?;
                self.judge(call, &ended, 0, 0)
            }
            Step::Kill(call, after) => self.kill(call, Duration::from_micros(*after)),
            Step::Together(calls) => self.together(calls),
            Step::Gc(net, valid) => self.gc(*net, valid.as_deref(), None),
            Step::KillGc(net, valid, after) => self.gc(*net, Some(valid), Some(Duration::from_micros(*after))),
            Step::Status(net) => {
                *self.calls.entry("STATUS").or_default() += 1;
                let ended = self.job(net, Verb::Status).run()?;
                ended_as(self.model.status_wanted(net), &ended.outcome)
            }
            Step::Agent(mode) => {
                self.model.agent = mode.clone();
                self.agent.as_ref().context("no agent")?.set(mode.clone())
            }
            Step::AgentRestart => {
                self.restart_agent()?;
                self.node
                    .sh("ip -br link show type bridge | grep -o '^evpn---[0-9a-f]*' | xargs -r -n 1 ip link del")?;
                self.model.agent_restarted();
                Ok(())
            }
            Step::NetnsGone(pod) => self.netns_gone(pod),
            Step::NetnsNew(pod) => {
                self.netns_gone(pod)?;
                self.pod(pod)?.make_netns(&self.node)?;
                self.model.netns_new(pod);
                Ok(())
            }
            Step::Foreign(attachment) => self.foreign(attachment),
            Step::Tamper(attachment, part) => self.tamper(attachment, *part),
            Step::Flush => self.flush(),
            Step::MasterGone => self.master_gone(),
            Step::MasterNew => self.master_new(),
            Step::Reboot => self.reboot(),
        }
    }

    fn pod(&self, name: &str) -> Result<&Pod> {
        self.pods.get(name).context("no such pod")
    }

    /// What a network as a whole is asked.
    fn job(&self, net: &Net, verb: Verb) -> Job<'_> {
        let plugins = net.configs(None);
        Job { node: &self.node, verb, plugins, is_native: net.is_native(), whose: None, previous: None }
    }

    /// The call as a runtime makes it: with the result of the last ADD in CHECK and DEL.
    fn described(&self, call: &Call) -> Result<Job<'_>> {
        let attachment = &call.attachment;
        let previous = match (call.verb, self.model.state(attachment)) {
            (Verb::Check | Verb::Del, State::Up(up)) => Some(up.result.clone()),
            _ => None,
        };
        Ok(Job {
            plugins: attachment.net.configs(Some(attachment.pod)),
            whose: Some((self.pod(attachment.pod)?, attachment.ifname)),
            previous,
            ..self.job(&attachment.net, call.verb)
        })
    }

    fn call(&mut self, call: &Call) -> Result<Ended> {
        *self.calls.entry(call.verb.name()).or_default() += 1;
        self.described(call)?.run()
    }

    /// Whether a call ended as it must; then the model follows it. `adds` and `dels` of the same network ran beside it.
    fn judge(&mut self, call: &Call, ended: &Ended, adds: usize, dels: usize) -> Result<()> {
        let attachment = call.attachment;
        match call.verb {
            Verb::Add => {
                ended_as(self.model.add_wanted(&attachment, adds, dels), &ended.outcome)?;
                self.follow_add(attachment, ended)?;
            }
            Verb::Del => {
                ended.outcome.done()?;
                self.model.deleted(attachment);
            }
            _ => ended_as(self.model.check_wanted(&attachment), &ended.outcome)?,
        }
        Ok(())
    }

    fn follow_add(&mut self, attachment: Attachment, ended: &Ended) -> Result<()> {
        match (ended.outcome.exit, ended.after) {
            (Some(0), _) => self.model.added(attachment, &ended.outcome.result()?),
            (_, 0) => self.model.not_added(attachment),
            // What the first plugins of the list made is there. Nothing but what a killed call left is a reason.
            _ if *self.model.state(&attachment) == State::Loose => {
                // Among them the port that others want.
                self.model.set(attachment, State::Loose);
            }
            (_, after) => bail!("plugin {after} of the list failed: {}", ended.outcome),
        }
        Ok(())
    }

    fn kill(&mut self, call: &Call, after: Duration) -> Result<()> {
        if let Some(ended) = self.described(call)?.run_until(Some(after))? {
            // It was faster.
            *self.calls.entry(call.verb.name()).or_default() += 1;
            return self.judge(call, &ended, 0, 0);
        }
        *self.calls.entry("kill").or_default() += 1;
        match call.verb {
            Verb::Add => self.model.add_killed(call.attachment),
            _ => {
                self.model.del_killed(call.attachment);
                // The helper that deletes a link goes on: it is gone now, or in a moment, or not.
                if self.model.foreign.remove(&call.attachment) | self.model.orphans.remove(&call.attachment) {
                    self.model.set(call.attachment, State::Loose);
                }
            }
        }
        Ok(())
    }

    fn together(&mut self, calls: &[Call]) -> Result<()> {
        for call in calls {
            *self.calls.entry(call.verb.name()).or_default() += 1;
        }
        let described = calls.iter().map(|call| self.described(call)).collect::<Result<Vec<_>>>()?;
        let outcomes = std::thread::scope(|scope| {
            let threads: Vec<_> = described.iter().map(|call| scope.spawn(|| call.run())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a call panicked"))).collect()
        });
        let outcomes: Vec<Ended> = Result::<Vec<Ended>>::from_iter::<Vec<Result<Ended>>>(outcomes)?;
        drop(described);
        if let [first, second] = calls
            && first.attachment == second.attachment
        {
            return self.both_of_one([first, second], &outcomes);
        }
        let contending = |call: &&Call| call.attachment.contends() && call.verb != Verb::Check;
        let before = self.model.clone();
        for (call, outcome) in calls.iter().zip(&outcomes) {
            let beside = |verb| {
                let same = |other: &&Call| other.attachment.net.name == call.attachment.net.name && other.verb == verb;
                calls.iter().filter(same).count()
            };
            let others = beside(Verb::Add) - usize::from(call.verb == Verb::Add);
            // Judged by how things stood when all of them began.
            let mut then = before.clone();
            if call.verb == Verb::Check && calls.iter().any(|other| contending(&other)) {
                then.holder = Holder::Unknown;
            }
            std::mem::swap(&mut then, &mut self.model);
            let wrong = self.judge(call, outcome, others, beside(Verb::Del));
            std::mem::swap(&mut then, &mut self.model);
            wrong.with_context(|| call.to_string())?;
            match call.verb {
                Verb::Add => self.follow_add(call.attachment, outcome)?,
                Verb::Del => self.model.deleted(call.attachment),
                _ => {}
            }
        }
        // Which was last nobody knows.
        if calls.iter().filter(contending).count() > 1 {
            self.model.holder = Holder::Unknown;
        }
        Ok(())
    }

    /// Two calls of one attachment at once: one waits for the other, nobody knows which.
    fn both_of_one(&mut self, calls: [&Call; 2], outcomes: &[Ended]) -> Result<()> {
        let attachment = calls[0].attachment;
        let mut added = Vec::new();
        // Their plugins ran in any order: part of what was added may have been deleted, and part not.
        if !attachment.net.chain.is_empty() {
            for (call, ended) in calls.into_iter().zip(outcomes) {
                match call.verb {
                    Verb::Del => ended.outcome.done()?,
                    _ => ended_as(Wanted::Either, &ended.outcome)?,
                }
            }
            let deleted = calls.iter().any(|call| call.verb == Verb::Del);
            if *self.model.state(&attachment) != State::Absent || calls.iter().any(|call| call.verb == Verb::Add) {
                self.model.set(attachment, State::Loose);
            }
            if deleted {
                self.model.foreign.remove(&attachment);
                self.model.orphans.remove(&attachment);
            }
            return Ok(());
        }
        for (call, Ended { outcome, .. }) in calls.into_iter().zip(outcomes) {
            match (call.verb, outcome.exit) {
                (Verb::Del, _) => outcome.done()?,
                (Verb::Add, Some(0)) => added.push(outcome.result()?),
                _ => ended_as(Wanted::Either, outcome)?,
            }
        }
        let deleted = calls.iter().any(|call| call.verb == Verb::Del);
        if attachment.net.plugin == "loopback" {
            self.model.set(attachment, State::Loose);
            return Ok(());
        }
        match (added.as_slice(), deleted) {
            // Which was first nobody knows; an ADD that the agent may have heard is owed after either.
            ([], true) => {
                self.model.not_added(attachment);
                self.model.deleted(attachment);
                self.model.not_added(attachment);
            }
            ([], false) => {
                if calls[0].verb == Verb::Add && self.model.add_wanted(&attachment, 0, 0) == Wanted::Succeeds {
                    bail!("one of two ADDs of {attachment} should have succeeded: {outcomes:?}");
                }
                self.model.not_added(attachment);
            }
            ([result], false) => self.model.added(attachment, result),
            ([result, ..], true) => {
                self.model.deleted(attachment);
                let owed = self.model.state(&attachment).clone();
                self.model.added(attachment, result);
                let observed = Observed::of(&self.node, self.agent.as_ref(), false)?;
                let inside = attachment.net.has_link() && observed.inside(&attachment).is_some();
                let host_end = matches!(self.model.state(&attachment),
                    State::Up(up) if up.host_end.as_ref().is_some_and(|name| observed.host.links.contains_key(name)));
                if !inside && !host_end && observed.leases_of_attachment(&attachment).is_empty() {
                    self.model.set(attachment, owed);
                }
            }
            (results, false) => bail!("{attachment} was added twice: {results:?}"),
        }
        Ok(())
    }

    /// What GC has forgotten, in namespaces that it does not enter: ours without another end, and others'.
    fn orphaned(&mut self, net: &Net) -> Result<()> {
        if !net.has_link() {
            return Ok(());
        }
        let observed = Observed::of(&self.node, None, false)?;
        for attachment in Attachment::all().into_iter().filter(|attachment| attachment.net == *net) {
            let kind = observed.inside(&attachment).map(|link| link.kind.as_str());
            match kind {
                _ if *self.model.state(&attachment) != State::Absent => {}
                Some("macvlan") => drop(self.model.orphans.insert(attachment)),
                Some("dummy" | "bridge") => drop(self.model.foreign.insert(attachment)),
                _ => {}
            }
        }
        Ok(())
    }

    fn gc(&mut self, net: Net, valid: Option<&[Attachment]>, limit: Option<Duration>) -> Result<()> {
        let mut job = self.job(&net, Verb::Gc);
        if let Some(valid) = valid {
            let list: Value =
                valid.iter().map(|a| json!({"containerID": a.container_id(), "ifname": a.ifname})).collect();
            for members in job.plugins.iter_mut().filter_map(|(_, config)| config.as_object_mut()) {
                members.insert("cni.dev/valid-attachments".into(), list.clone());
            }
        }
        let ended = job.run_until(limit)?;
        drop(job);
        *self.calls.entry(if ended.is_some() { "GC" } else { "kill" }).or_default() += 1;
        match (ended, valid) {
            (None, valid) => self.model.gc_killed(&net, valid.unwrap_or_default()),
            (Some(ended), None) => {
                self.model.collected_unsaid(&net);
                return ended.outcome.done();
            }
            (Some(ended), Some(valid)) => {
                ended_as(self.model.gc_wanted(&net, valid), &ended.outcome)?;
                self.model.collected(&net, valid);
                self.orphaned(&net)?;
            }
        }
        Ok(())
    }
}

fn boot_id(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}\n")
}

/// Exit 0 and 1 are the only ways to end; a failure tells what failed.
fn ended_as(wanted: Wanted, outcome: &Outcome) -> Result<()> {
    match (wanted, outcome.exit) {
        (Wanted::Succeeds | Wanted::Either, Some(0)) => Ok(()),
        (Wanted::Fails | Wanted::Either, _) => outcome.error().map(drop),
        (Wanted::Succeeds, _) => bail!("must succeed: {outcome}"),
    }
}
