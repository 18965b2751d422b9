//! One verb as a runtime does it: the plugins of a network one after the other, DEL backwards, each with what came before.

use anyhow::{Context, Result, bail};
use sandwire_harness::{Call, Node, Outcome, Place, Pod, Verb};
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::time::{Duration, Instant};

/// No call may take longer: the plugins' deadline, and what undoing may take.
const LONGEST: Duration = Duration::from_secs(30);

/// What is to be called.
pub(super) struct Job<'n> {
    pub(super) node: &'n Node,
    pub(super) verb: Verb,
    pub(super) plugins: Vec<(&'static str, Value)>,
    pub(super) is_native: bool,
    /// Whose; nobody's in GC and STATUS.
    pub(super) whose: Option<(&'n Pod, &'static str)>,
    /// The result of the last ADD.
    pub(super) previous: Option<Value>,
}

/// How it ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Of the last call, or of the one that failed.
    pub(super) outcome: Outcome,
    /// How many plugins had done theirs before.
    pub(super) after: usize,
}

impl Job<'_> {
    fn call(&self, plugin: &str, config: &Value, previous: Option<&Value>) -> Call<'_> {
        let mut config = config.clone();
        if let (Some(previous), Some(members)) = (previous, config.as_object_mut()) {
            members.insert("prevResult".into(), previous.clone());
        }
        let mut call = self.node.call(plugin, self.verb).config(&config);
        if let Some((pod, ifname)) = self.whose {
            call = call.pod(pod).ifname(ifname);
        }
        if self.is_native { call.native() } else { call }
    }

    /// All of it.
    pub(super) fn run(&self) -> Result<Ended> {
        self.run_until(None)?.context("nobody was to be killed")
    }

    /// Killed after `limit`: then none, unless it was faster.
    pub(super) fn run_until(&self, limit: Option<Duration>) -> Result<Option<Ended>> {
        let mut plugins: Vec<&(&str, Value)> = self.plugins.iter().collect();
        if self.verb == Verb::Del {
            plugins.reverse();
        }
        let started = Instant::now();
        let mut previous = self.previous.clone();
        let mut failed = None;
        let mut last = None;
        for (after, (plugin, config)) in plugins.iter().enumerate() {
            let call = self.call(plugin, config, previous.as_ref());
            let outcome = match limit {
                None => call.run()?,
                Some(limit) => match killed(self.node, &call, started, limit)? {
                    Some(outcome) => outcome,
                    None => return Ok(None),
                },
            };
            if outcome.duration > LONGEST {
                bail!("it took {:?}: {outcome}", outcome.duration);
            }
            let done = outcome.exit == Some(0);
            if done && self.verb == Verb::Add {
                previous = Some(outcome.result()?);
            }
            let ended = Ended { outcome, after };
            match (done, self.verb) {
                (true, _) => last = Some(ended),
                // A runtime goes on, and says it in the end (libcni, GCNetworkList).
                (false, Verb::Gc) => failed = failed.or(Some(ended)),
                (false, _) => return Ok(Some(ended)),
            }
            if limit.is_some_and(|limit| started.elapsed() >= limit) && after + 1 < plugins.len() {
                return Ok(None);
            }
        }
        failed.or(last).context("a network without plugins").map(Some)
    }
}

/// Makes a call and kills it when its time is over; its outcome if it was faster.
fn killed(node: &Node, call: &Call<'_>, started: Instant, limit: Duration) -> Result<Option<Outcome>> {
    let (command, stdin) = call.command()?;
    let began = Instant::now();
    let mut child: Child = node.spawn(&Place::Host, command)?;
    // It may be dead already for a reason of its own, which its output then says.
    let _ = child.stdin.take().context("no stdin")?.write_all(&stdin);
    while started.elapsed() < limit && child.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_micros(200).min(limit.saturating_sub(started.elapsed())));
    }
    child.kill()?;
    let status = child.wait()?;
    if status.signal().is_some() {
        return Ok(None);
    }
    let mut text = [String::new(), String::new()];
    let [stdout, stderr] = &mut text;
    child.stdout.take().context("no stdout")?.read_to_string(stdout)?;
    child.stderr.take().context("no stderr")?.read_to_string(stderr)?;
    let [stdout, stderr] = text;
    Ok(Some(Outcome { exit: status.code(), stdout, stderr, duration: began.elapsed() }))
}
