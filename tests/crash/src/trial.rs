//! Trying a scenario's points: a node of its own, and for each point the same few steps.

use crate::scenario::{Scenario, Whose};
use crate::trace::{self, Fault, Point, Run};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use sandwire_harness::agent::Agent;
use sandwire_harness::dhcp::{self, Server};
use sandwire_harness::{Call, Node, Pod, Snapshot, Verb};
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

/// What a system call may fail with.
pub const ERRNOS: [Errno; 6] =
    [Errno::ENOBUFS, Errno::ENOSPC, Errno::EIO, Errno::EINTR, Errno::EPERM, Errno::ETIMEDOUT];

/// A call that is made in one run and not in the next (who is first, caller or helper) is waited for this often.
const ATTEMPTS: usize = 40;

/// How often, ten times a second, is looked again for what the kernel takes away behind everybody's back.
const LOOKS: usize = 20;

/// Which faults at each point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// SIGKILL.
    Kill,
    /// SIGKILL to all processes of the call.
    KillAll,
    /// One errno each, the next one at the next point.
    OneErrno,
    /// Every errno at every point.
    AllErrnos,
}

/// What is tried.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The plugin and its network.
    pub scenario: Scenario,
    /// Which call is disturbed.
    pub verb: Verb,
    /// By what.
    pub selection: Selection,
    /// The pod's namespace goes before the call that cleans up.
    pub netns_gone: bool,
    /// Clean up by DEL only, not by GC at every other point.
    pub only_del: bool,
}

impl Plan {
    /// The usual one.
    pub fn new(scenario: Scenario, verb: Verb, selection: Selection) -> Self {
        Self { scenario, verb, selection, netns_gone: false, only_del: false }
    }

    /// The pod's namespace is gone when DEL comes.
    #[must_use]
    pub fn netns_gone(self) -> Self {
        Self { netns_gone: true, ..self.only_del() }
    }

    /// DEL cleans up, and nothing else does.
    #[must_use]
    pub fn only_del(self) -> Self {
        Self { only_del: true, ..self }
    }
}

/// What one point led to.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Where.
    pub point: Point,
    /// What was done there.
    pub fault: Fault,
    /// Whether the point came up again; else nothing was tried.
    pub hit: bool,
    /// The one call that cleaned up.
    pub cleaned_by: &'static str,
    /// Why it failed.
    pub failed: Option<String>,
    /// What a failed ADD itself left, before the cleaning call. (None after SIGKILL: nobody could.)
    pub left_by_add: Vec<String>,
    /// What is left after the cleaning call.
    pub left: Vec<String>,
    /// What the disturbed call, or a later ADD, did that it must not.
    pub wrong: Option<String>,
}

impl Trial {
    /// Whether all is as it must be.
    pub fn good(&self) -> bool {
        self.hit && self.failed.is_none() && self.left.is_empty() && self.wrong.is_none()
    }
}

impl std::fmt::Display for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}, then {}", self.fault, self.point, self.cleaned_by)?;
        if !self.hit {
            f.write_str(": never came up again")?;
        }
        for text in self.failed.iter().chain(&self.wrong).chain(&self.left_by_add).chain(&self.left) {
            write!(f, "\n    {text}")?;
        }
        Ok(())
    }
}

/// All points of a plan.
#[derive(Debug)]
pub struct Report {
    /// What was tried.
    pub plan: Plan,
    /// The calls that an undisturbed run makes.
    pub points: Vec<Point>,
    /// One for each point and fault.
    pub trials: Vec<Trial>,
}

impl Report {
    /// Counts an undisturbed run's calls and tries each, on `workers` nodes at once.
    ///
    /// # Errors
    /// When a node can't be made, or an undisturbed call fails.
    pub fn make(plan: &Plan, workers: usize) -> Result<Self> {
        let mut first = Bench::new(plan)?;
        let points = first.points()?;
        let cases: Vec<(Point, Fault)> = match plan.selection {
            Selection::Kill => points.iter().map(|point| (point.clone(), Fault::Kill)).collect(),
            Selection::KillAll => points.iter().map(|point| (point.clone(), Fault::KillAll)).collect(),
            Selection::OneErrno => {
                let errnos = ERRNOS.iter().cycle();
                points.iter().zip(errnos).map(|(point, errno)| (point.clone(), Fault::Error(*errno))).collect()
            }
            Selection::AllErrnos => {
                let each = |point: &Point| ERRNOS.map(|errno| (point.clone(), Fault::Error(errno)));
                points.iter().flat_map(each).collect()
            }
        };
        let results: Mutex<Vec<(usize, Trial)>> = Mutex::default();
        let next = Mutex::new(0..cases.len());
        let work = |mut bench: Bench| -> Result<()> {
            loop {
                let Some(number) = next.lock().ok().and_then(|mut next| next.next()) else { return Ok(()) };
                let Some((point, fault)) = cases.get(number) else { return Ok(()) };
                let by_gc = number % 2 == 1 && !plan.only_del;
                let trial = bench.attempt(point, *fault, by_gc).with_context(|| format!("{fault} at {point}"))?;
                let spoilt = !trial.good() || !trial.left_by_add.is_empty();
                if let Ok(mut results) = results.lock() {
                    results.push((number, trial));
                }
                if spoilt {
                    bench = Bench::new(plan)?;
                }
            }
        };
        std::thread::scope(|scope| -> Result<()> {
            let others: Vec<_> = (1..workers).map(|_| scope.spawn(|| work(Bench::new(plan)?))).collect();
            let mut done = work(first);
            for other in others {
                done = done.and(other.join().unwrap_or_else(|_| bail!("a worker panicked")));
            }
            done
        })?;
        let mut trials = results.into_inner().unwrap_or_default();
        trials.sort_by_key(|(number, _)| *number);
        Ok(Self { plan: plan.clone(), points, trials: trials.into_iter().map(|(_, trial)| trial).collect() })
    }

    /// Everything was tried and nothing was left.
    ///
    /// # Errors
    /// With each point where it was not so.
    pub fn assert_nothing_left(&self) -> Result<()> {
        let mut text = String::new();
        let faults = if self.plan.selection == Selection::AllErrnos { ERRNOS.len() } else { 1 };
        if self.trials.len() != self.points.len() * faults {
            writeln!(text, "{} calls counted, {} tried", self.points.len() * faults, self.trials.len())?;
        }
        for trial in self.trials.iter().filter(|trial| !trial.good()) {
            writeln!(text, "{trial}")?;
        }
        if !text.is_empty() {
            bail!("{} of {}:\n{text}", self.plan.verb.name(), self.plan.scenario.name);
        }
        Ok(())
    }
}

/// A node for one scenario, and what it was like before.
struct Bench {
    plan: Plan,
    node: Node,
    pod: Pod,
    agent: Option<Agent>,
    server: Option<Server>,
    /// Of another pod that must not be touched, in GC.
    bystander: Option<Pod>,
    before: Snapshot,
    attached: Vec<(String, String)>,
}

/// What is there once nothing more comes of what was made: the kernel tells IPv6 of a carrier from a work queue
/// (net/core/link_watch.c), and only then come the routes of an interface's addresses.
fn settled(node: &Node) -> Result<Snapshot> {
    let mut now = node.snapshot()?;
    for _ in 0..LOOKS {
        let before = now;
        std::thread::sleep(Duration::from_millis(200));
        now = node.snapshot()?;
        if now.attachments_since(&before).is_empty() {
            break;
        }
    }
    Ok(now)
}

impl Bench {
    fn new(plan: &Plan) -> Result<Self> {
        let node = match plan.scenario.whose {
            Whose::Ours => Node::installed()?,
            Whose::Debians => Node::new()?,
        };
        let agent = plan.scenario.agent.then(|| Agent::tcp(&node, "127.0.0.1:8082")).transpose()?;
        let pod = node.pod("a")?;
        let bystander = if plan.verb == Verb::Gc { Some(node.pod("b")?) } else { None };
        node.sh(plan.scenario.before())?;
        let server = plan.scenario.needs_server().then(|| Server::start(&node, &[])).transpose()?;
        let before = node.snapshot()?;
        let mut bench = Self { plan: plan.clone(), node, pod, agent, server, bystander, before, attached: Vec::new() };
        if let Some(pod) = &bench.bystander {
            bench.call(Verb::Add, pod).run()?.result().context("the bystander's ADD")?;
            bench.before = settled(&bench.node)?;
            bench.attached = bench.attached();
        }
        Ok(bench)
    }

    fn attached(&self) -> Vec<(String, String)> {
        self.agent.as_ref().map(Agent::attached).unwrap_or_default()
    }

    fn call(&self, verb: Verb, pod: &Pod) -> Call<'_> {
        let scenario = &self.plan.scenario;
        let mut config = scenario.config_of(&pod.id);
        let call = self.node.call(scenario.plugin, verb);
        let call = if scenario.whose == Whose::Debians { call.native() } else { call };
        if verb == Verb::Gc {
            let valid = self.bystander.iter().map(|pod| json!({"containerID": pod.id, "ifname": scenario.ifname}));
            set(&mut config, "cniVersion", "1.1.0".into());
            set(&mut config, "cni.dev/valid-attachments", valid.collect());
            return call.config(&config);
        }
        call.pod(pod).ifname(scenario.ifname).config(&config)
    }

    /// Brings the node to where the disturbed call begins; the configuration's prevResult, if there is one.
    fn prepare(&self) -> Result<Option<Value>> {
        if self.bystander.is_none() {
            // As if the network had never been: its first attachment makes the most.
            self.node.sh(
                "ip -o link show type bridge | sed -nE 's/^[0-9]+: ([^:@]+).*/\\1/p' | xargs -r -n 1 ip link del
                nft flush ruleset
                rm -rf /run/sandwire /run/cni /var/lib/cni/* /var/lib/sandwire/leases /var/lib/sandwire/notes
                echo 0 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding",
            )?;
        }
        if self.plan.verb == Verb::Add {
            return Ok(None);
        }
        let result = self.call(Verb::Add, &self.pod).run()?.result().context("the ADD before it")?;
        Ok(Some(result))
    }

    fn disturbed(&self, prev_result: Option<Value>, at: Option<(Point, Fault)>) -> Result<Run> {
        let mut call = self.call(self.plan.verb, &self.pod);
        if let (Verb::Del, Some(result)) = (self.plan.verb, prev_result) {
            let mut config = self.plan.scenario.config.clone();
            set(&mut config, "prevResult", result);
            call = call.config(&config);
        }
        let (command, stdin): (Command, Vec<u8>) = call.command()?;
        self.node.within(move || {
            // A thread of its own: it traces, and must have no other children.
            let traced = move || trace::run(command, &stdin, at.as_ref().map(|(point, fault)| (point, *fault)));
            std::thread::spawn(traced).join().unwrap_or_else(|_| bail!("the tracer panicked"))
        })?
    }

    /// The calls of an undisturbed run.
    fn points(&mut self) -> Result<Vec<Point>> {
        let prev_result = self.prepare()?;
        let run = self.disturbed(prev_result, None)?;
        if run.exit != Some(0) {
            bail!("the undisturbed {} failed: {run:?}", self.plan.verb.name());
        }
        self.clean_up().context("after the undisturbed run")?;
        self.node.snapshot()?.assert_same_attachments(&self.before).context("after the undisturbed run")?;
        if run.points.is_empty() {
            bail!("the undisturbed {} changes nothing", self.plan.verb.name());
        }
        Ok(run.points)
    }

    /// DEL, of a pod whose namespace is gone by then if the plan says so.
    fn clean_up(&self) -> Result<()> {
        if !self.plan.netns_gone {
            return self.clean(false)?.done();
        }
        self.pod.drop_netns(&self.node)?;
        self.clean(false)?.done()?;
        self.pod.make_netns(&self.node)
    }

    fn clean(&self, by_gc: bool) -> Result<sandwire_harness::Outcome> {
        self.call(if by_gc { Verb::Gc } else { Verb::Del }, &self.pod).run()
    }

    fn attempt(&mut self, point: &Point, fault: Fault, by_gc: bool) -> Result<Trial> {
        let mut trial = Trial {
            point: point.clone(),
            fault,
            hit: false,
            cleaned_by: if by_gc { "GC" } else { "DEL" },
            failed: None,
            left_by_add: Vec::new(),
            left: Vec::new(),
            wrong: None,
        };
        for _ in 0..ATTEMPTS {
            let prev_result = self.prepare()?;
            let run = self.disturbed(prev_result, Some((point.clone(), fault)))?;
            if !run.hit {
                self.clean_up()?;
                continue;
            }
            trial.hit = true;
            self.judge(&run, fault, &mut trial)?;
            if self.plan.netns_gone {
                self.pod.drop_netns(&self.node)?;
            }
            let cleaned = self.clean(by_gc)?;
            trial.failed = cleaned.done().err().map(|error| format!("{error:#}"));
            if self.plan.netns_gone {
                self.pod.make_netns(&self.node)?;
            }
            trial.left = self.left(by_gc)?;
            for _ in 0..if self.plan.netns_gone { LOOKS } else { 0 } {
                if trial.left.is_empty() {
                    break;
                }
                // What went with the namespace goes when the kernel gets to it (`cleanup_net`).
                std::thread::sleep(Duration::from_millis(100));
                trial.left = self.left(by_gc)?;
            }
            let again = self.call(Verb::Add, &self.pod).run()?;
            if let Err(error) = again.result() {
                trial.wrong = Some(format!("the next ADD: {error:#}"));
            }
            if let (Err(error), None) = (self.clean(false)?.done(), &trial.wrong) {
                trial.wrong = Some(format!("the DEL after the next ADD: {error:#}"));
            }
            break;
        }
        Ok(trial)
    }

    /// What a call that was not killed did.
    fn judge(&self, run: &Run, fault: Fault, trial: &mut Trial) -> Result<()> {
        let Fault::Error(_) = fault else { return Ok(()) };
        match run.exit {
            Some(0) => {}
            Some(1) => {
                let error: Option<Value> = serde_json::from_str(&run.stdout).ok();
                let told = error.as_ref().is_some_and(|error| error["code"].is_u64() && error["msg"].is_string());
                // Where standard output itself fails, there is nothing to read.
                if !told && trial.point.about != "standard output" && self.plan.scenario.whose == Whose::Ours {
                    trial.wrong = Some(format!("it failed without an error object: {} {}", run.stdout, run.stderr));
                }
                if self.plan.verb == Verb::Add {
                    trial.left_by_add = self.left(false)?;
                }
            }
            // A process that was never told to end otherwise.
            _ => trial.wrong = Some(format!("it crashed: {run:?}")),
        }
        Ok(())
    }

    fn left(&self, after_gc: bool) -> Result<Vec<String>> {
        let mut left = self.node.snapshot()?.attachments_since(&self.before);
        if after_gc {
            // GC is not told of any container's namespace and enters none: that "lo" is up in there goes with it.
            left.retain(|line| !(line.contains(" pod-a ") && line.contains(r#""ifname":"lo""#)));
        }
        // A server gets to it when it does, and answers nobody who gives an address back.
        for _ in 0..if self.server.is_some() { LOOKS } else { 0 } {
            if dhcp::leases(&self.node)?.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        if self.server.is_some() {
            left.extend(dhcp::leases(&self.node)?.iter().map(|lease| format!("DHCP lease {lease:?}")));
        }
        let attached = self.attached();
        if attached != self.attached {
            left.push(format!("agent {attached:?}, before {:?}", self.attached));
        }
        Ok(left)
    }
}

/// Sets a key of a configuration, which is an object.
fn set(config: &mut Value, key: &str, value: Value) {
    if let Some(members) = config.as_object_mut() {
        members.insert(key.to_owned(), value);
    }
}
