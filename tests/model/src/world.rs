//! A node on which scripts are run: each step is done, its outcome judged, the model changed, and both compared.

use crate::compare;
use crate::networks::{Attachment, NETWORKS, Net, PODS};
use crate::observed::Observed;
use crate::script::{Call, Step};
use crate::state::{Model, State, Wanted};
use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MsFlags, mount};
use sandwire_harness::agent::Agent;
use sandwire_harness::{Node, Outcome, Place, Pod, Snapshot, Verb};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

/// No call may take longer: the plugins' deadline, and what undoing may take.
const LONGEST: Duration = Duration::from_secs(30);
/// Looking at the firewall costs a program: after what can change it, and every so many steps.
const RULES_EVERY: usize = 16;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The node.
pub struct World {
    node: Node,
    agent: Option<Agent>,
    pods: BTreeMap<&'static str, Pod>,
    configs: BTreeMap<Net, Value>,
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
        let before = node.snapshot()?;
        let configs = NETWORKS.iter().map(|net| (*net, net.config())).collect();
        let (model, calls) = (Model::default(), BTreeMap::new());
        Ok(Self { node, agent, pods, configs, model, before, steps: 0, boots: 0, calls })
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
            Step::Call(call) | Step::Kill(call, _) => call.attachment.net.masquerades && call.verb != Verb::Check,
            Step::Together(calls) => calls.iter().any(|call| call.attachment.net.masquerades),
            Step::Gc(net, _) => net.masquerades,
            Step::Reboot => true,
            _ => false,
        };
        self.act(step)?;
        let observed = Observed::of(&self.node, self.agent.as_ref(), rules || self.steps.is_multiple_of(RULES_EVERY))?;
        let differences = compare::differences(&self.model, &observed);
        if !differences.is_empty() {
            let ruleset = if rules { self.node.sh("nft list ruleset")? } else { String::new() };
            bail!("{}\n{ruleset}", differences.join("\n"));
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
                let outcome = self.call(call)?;
                self.judge(call, &outcome, 0, 0)
            }
            Step::Kill(call, after) => self.kill(call, Duration::from_micros(*after)),
            Step::Together(calls) => self.together(calls),
            Step::Gc(net, valid) => self.gc(*net, valid.as_deref()),
            Step::Status(net) => {
                *self.calls.entry("STATUS").or_default() += 1;
                let outcome = self.node.call(net.plugin, Verb::Status).config(self.config(net)?).run()?;
                ended_as(self.model.status_wanted(net), &outcome)
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
            Step::Reboot => self.reboot(),
        }
    }

    fn pod(&self, name: &str) -> Result<&Pod> {
        self.pods.get(name).context("no such pod")
    }

    fn config(&self, net: &Net) -> Result<&Value> {
        self.configs.get(net).context("no such network")
    }

    /// The call as a runtime makes it: with the result of the last ADD in CHECK and DEL.
    fn described(&self, call: &Call) -> Result<sandwire_harness::Call<'_>> {
        let attachment = &call.attachment;
        let mut config = self.config(&attachment.net)?.clone();
        if let (Verb::Check | Verb::Del, State::Up(up), Some(members)) =
            (call.verb, self.model.state(attachment), config.as_object_mut())
        {
            members.insert("prevResult".into(), up.result.clone());
        }
        let described = match attachment.net.is_native() {
            true => self.node.call("host-local", call.verb).native(),
            false => self.node.call(attachment.net.plugin, call.verb),
        };
        Ok(described.pod(self.pod(attachment.pod)?).ifname(attachment.ifname).config(&config))
    }

    fn call(&mut self, call: &Call) -> Result<Outcome> {
        *self.calls.entry(call.verb.name()).or_default() += 1;
        let outcome = self.described(call)?.run()?;
        in_time(&outcome)?;
        Ok(outcome)
    }

    /// Whether a call ended as it must; then the model follows it. `adds` and `dels` of the same network ran beside it.
    fn judge(&mut self, call: &Call, outcome: &Outcome, adds: usize, dels: usize) -> Result<()> {
        let attachment = call.attachment;
        match call.verb {
            Verb::Add => {
                ended_as(self.model.add_wanted(&attachment, adds, dels), outcome)?;
                match outcome.exit {
                    Some(0) => self.model.added(attachment, &outcome.result()?),
                    _ => self.model.not_added(attachment),
                }
            }
            Verb::Del => {
                outcome.done()?;
                self.model.deleted(attachment);
            }
            _ => ended_as(self.model.check_wanted(&attachment), outcome)?,
        }
        Ok(())
    }

    fn kill(&mut self, call: &Call, after: Duration) -> Result<()> {
        let (command, stdin) = self.described(call)?.command()?;
        let mut child = self.node.spawn(&Place::Host, command)?;
        let started = Instant::now();
        // It may be dead already for a reason of its own, which its output then says.
        let _ = child.stdin.take().context("no stdin")?.write_all(&stdin);
        std::thread::sleep(after.saturating_sub(started.elapsed()));
        child.kill()?;
        let status = child.wait()?;
        if status.signal().is_none() {
            // It was faster.
            *self.calls.entry(call.verb.name()).or_default() += 1;
            let mut text = [String::new(), String::new()];
            let [stdout, stderr] = &mut text;
            child.stdout.take().context("no stdout")?.read_to_string(stdout)?;
            child.stderr.take().context("no stderr")?.read_to_string(stderr)?;
            let [stdout, stderr] = text;
            let outcome = Outcome { exit: status.code(), stdout, stderr, duration: started.elapsed() };
            return self.judge(call, &outcome, 0, 0);
        }
        *self.calls.entry("kill").or_default() += 1;
        match call.verb {
            Verb::Add => self.model.add_killed(call.attachment),
            _ => {
                self.model.del_killed(call.attachment);
                if self.model.foreign.contains(&call.attachment)
                    && Observed::of(&self.node, None, false)?.inside(&call.attachment).is_none()
                {
                    self.model.foreign.remove(&call.attachment);
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
        let outcomes: Vec<Outcome> = Result::<Vec<Outcome>>::from_iter::<Vec<Result<Outcome>>>(outcomes)?;
        drop(described);
        outcomes.iter().try_for_each(in_time)?;
        if let [first, second] = calls
            && first.attachment == second.attachment
        {
            return self.both_of_one([first, second], &outcomes);
        }
        let before = self.model.clone();
        for (call, outcome) in calls.iter().zip(&outcomes) {
            let beside = |verb| {
                let same = |other: &&Call| other.attachment.net.name == call.attachment.net.name && other.verb == verb;
                calls.iter().filter(same).count()
            };
            let others = beside(Verb::Add) - usize::from(call.verb == Verb::Add);
            // Judged by how things stood when all of them began.
            let mut then = before.clone();
            std::mem::swap(&mut then, &mut self.model);
            let wrong = self.judge(call, outcome, others, beside(Verb::Del));
            std::mem::swap(&mut then, &mut self.model);
            wrong.with_context(|| call.to_string())?;
            match (call.verb, outcome.exit) {
                (Verb::Add, Some(0)) => self.model.added(call.attachment, &outcome.result()?),
                (Verb::Add, _) => self.model.not_added(call.attachment),
                (Verb::Del, _) => self.model.deleted(call.attachment),
                _ => {}
            }
        }
        Ok(())
    }

    /// Two calls of one attachment at once: one waits for the other, nobody knows which.
    fn both_of_one(&mut self, calls: [&Call; 2], outcomes: &[Outcome]) -> Result<()> {
        let attachment = calls[0].attachment;
        let mut added = Vec::new();
        for (call, outcome) in calls.into_iter().zip(outcomes) {
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

    fn gc(&mut self, net: Net, valid: Option<&[Attachment]>) -> Result<()> {
        *self.calls.entry("GC").or_default() += 1;
        let mut config = self.config(&net)?.clone();
        if let (Some(valid), Some(members)) = (valid, config.as_object_mut()) {
            let list = valid.iter().map(|a| json!({"containerID": a.container_id(), "ifname": a.ifname})).collect();
            members.insert("cni.dev/valid-attachments".into(), list);
        }
        let outcome = self.node.call(net.plugin, Verb::Gc).config(&config).run()?;
        in_time(&outcome)?;
        let Some(valid) = valid else {
            self.model.collected_unsaid(&net);
            return outcome.done();
        };
        ended_as(self.model.gc_wanted(&net, valid), &outcome)?;
        self.model.collected(&net, valid);
        Ok(())
    }

    fn netns_gone(&mut self, pod: &'static str) -> Result<()> {
        if !self.model.is_there(pod) {
            return Ok(());
        }
        self.pod(pod)?.drop_netns(&self.node)?;
        let ends: Vec<String> = self
            .model
            .host_ends
            .iter()
            .filter(|(_, attachment)| attachment.pod == pod)
            .map(|(name, _)| name.clone())
            .collect();
        self.model.netns_gone(pod);
        self.wait_until(|host| !ends.iter().any(|name| host.links.contains_key(name)))
    }

    /// The kernel takes its time with a namespace and what is in it.
    fn wait_until(&self, done: impl Fn(&crate::look::Network) -> bool) -> Result<()> {
        let started = Instant::now();
        while !done(&Observed::of(&self.node, None, false)?.host) {
            if started.elapsed() > Duration::from_secs(20) {
                bail!("the links of a namespace that is gone are still there");
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        Ok(())
    }

    fn foreign(&mut self, attachment: &Attachment) -> Result<()> {
        let there = self.model.is_there(attachment.pod);
        if !attachment.net.has_link() || !there || Observed::of(&self.node, None, false)?.inside(attachment).is_some() {
            return Ok(());
        }
        let script = format!("ip link add {} type dummy || ip link add {0} type bridge", attachment.ifname);
        self.node.sh_at(&self.pod(attachment.pod)?.place(), &script)?;
        self.model.foreign.insert(*attachment);
        Ok(())
    }

    fn reboot(&mut self) -> Result<()> {
        for pod in PODS {
            self.netns_gone(pod)?;
        }
        drop(self.agent.take());
        self.boots += 1;
        let id = boot_id(self.boots);
        self.node.sh(
            "ip -br link | sed -nE 's/^([^ @]+).*/\\1/p' | grep -vx lo | while read -r link; do ip link del \"$link\" || ! ip link show \"$link\"; done
            nft flush ruleset
            rm -rf /run/sandwire
            echo 0 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding",
        )?;
        self.node.within(move || std::fs::write("/mnt/boot_id", id))?.map_err(|error| anyhow!("{BOOT_ID}: {error}"))?;
        self.model.rebooted();
        self.restart_agent()
    }
}

fn boot_id(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}\n")
}

fn in_time(outcome: &Outcome) -> Result<()> {
    if outcome.duration > LONGEST {
        bail!("it took {:?}: {outcome}", outcome.duration);
    }
    Ok(())
}

/// Exit 0 and 1 are the only ways to end; a failure tells what failed.
fn ended_as(wanted: Wanted, outcome: &Outcome) -> Result<()> {
    match (wanted, outcome.exit) {
        (Wanted::Succeeds | Wanted::Either, Some(0)) => Ok(()),
        (Wanted::Fails | Wanted::Either, _) => outcome.error().map(drop),
        (Wanted::Succeeds, _) => bail!("must succeed: {outcome}"),
    }
}
