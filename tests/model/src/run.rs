//! Running scripts: random ones until time or steps are used up, and given ones.

use crate::networks::Attachment;
use crate::random::Random;
use crate::script::Step;
use crate::shrink::shrink;
use crate::world::World;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Steps of one script: a node is used for so long, then everything on it must go.
const SCRIPT: usize = 250;
/// How long a failure is made shorter.
const SHRINKING: Duration = Duration::from_secs(400);
/// A failure that hangs on who was faster comes back after so many tries, or is taken for gone.
const TRIES: usize = 3;

/// What was run.
#[derive(Debug, Default)]
pub struct Report {
    /// Steps.
    pub steps: usize,
    /// Scripts.
    pub scripts: usize,
    /// Calls, by verb.
    pub calls: BTreeMap<&'static str, usize>,
}

/// Random scripts with these attachments from this seed, until `steps` were done or `time` is over.
///
/// # Errors
/// With the shortest script that fails, and how.
pub fn random(seed: u64, steps: usize, time: Duration, among: &[Attachment]) -> Result<Report> {
    let mut random = Random::new(seed);
    let (started, mut report) = (Instant::now(), Report::default());
    while report.steps < steps && started.elapsed() < time {
        let mut world = World::new()?;
        let mut script = Vec::new();
        while script.len() < SCRIPT && report.steps < steps && started.elapsed() < time {
            let step = Step::random(&mut random, &world.model, among);
            script.push(step);
            report.steps += 1;
            let Some(step) = script.last() else { break };
            if let Err(error) = world.step(step).with_context(|| step.to_string()) {
                drop(world);
                return Err(shorter(&script, &error))
                    .with_context(|| format!("MODEL_SEED={seed}, after {} steps", report.steps));
            }
        }
        report.scripts += 1;
        match world.end() {
            Ok(calls) => {
                calls.into_iter().for_each(|(verb, count)| *report.calls.entry(verb).or_default() += count);
            }
            Err(error) => {
                return Err(shorter(&script, &error))
                    .with_context(|| format!("MODEL_SEED={seed}, at the end of a script"));
            }
        }
    }
    Ok(report)
}

/// One script on a fresh node, and its end.
///
/// # Errors
/// With the step that fails, and how.
pub fn script(steps: &[Step]) -> Result<()> {
    let mut world = World::new()?;
    for (number, step) in steps.iter().enumerate() {
        world.step(step).with_context(|| format!("step {}: {step}", number + 1))?;
    }
    world.end().map(drop).context("the end")
}

/// What a failure is about, without names and numbers: a shorter script must fail for the same reason.
fn about(error: &anyhow::Error) -> String {
    let text = error.root_cause().to_string();
    let words =
        text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
    words.filter(|word| word.len() > 2).take(6).collect::<Vec<_>>().join(" ")
}

fn shorter(steps: &[Step], first: &anyhow::Error) -> anyhow::Error {
    // Whoever ends this in the meantime has it all the same.
    let seen: String = steps.iter().map(|step| format!("{step}\n")).collect();
    let _ = writeln!(std::io::stderr(), "a failure, to be made shorter: {first:#}\n{seen}");
    let until = Instant::now() + SHRINKING;
    let mut last = None;
    let short = shrink(
        steps,
        || Instant::now() < until,
        |steps| {
            let same = |error: &anyhow::Error| about(error) == about(first);
            let failed = (0..TRIES).find_map(|_| script(steps).err().filter(same));
            let fails = failed.is_some();
            last = failed.map(|error| format!("{error:#}")).or(last.take());
            fails
        },
    );
    let mut text = format!("it failed so:\n{first:#}\n");
    match last {
        Some(how) => {
            let _ = write!(text, "\nthe shortest script that fails ({} of {} steps):\n", short.len(), steps.len());
            short.iter().for_each(|step| text += &format!("{step}\n"));
            let _ = write!(text, "\nso:\n{how}");
        }
        None => {
            let _ = writeln!(text, "\nand never again in this script of {} steps:", steps.len());
            steps.iter().for_each(|step| text += &format!("{step}\n"));
        }
    }
    anyhow::anyhow!(text)
}

/// Every `*.steps` file of a folder.
///
/// # Errors
/// With each script that fails, and how.
pub fn folder(path: &std::path::Path) -> Result<usize> {
    let mut files = std::fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()?;
    files.retain(|file| file.path().extension().is_some_and(|ending| ending == "steps"));
    files.sort_by_key(std::fs::DirEntry::file_name);
    let mut wrong = Vec::new();
    for file in &files {
        let done = Step::parse_all(&std::fs::read_to_string(file.path())?).and_then(|steps| script(&steps));
        wrong.extend(done.err().map(|error| format!("{}: {error:#}", file.path().display())));
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(files.len())
}
