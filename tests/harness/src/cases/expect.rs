//! Comparing what came of a step with the files that say what must.

use super::steps::Expectation;
use super::{Case, run::Bench};
use crate::matching::{self, Lists, glob};
use crate::snapshot::view;
use crate::{Outcome, Place, versions};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// Carrier and operstate follow a call: linkwatch works in the background, on what does not hurry once a second
/// (`linkwatch_schedule_work`).
const SETTLING: Duration = Duration::from_secs(3);

/// Whether these expectations are of an error.
pub(super) fn of_error(expected: &[Expectation]) -> bool {
    expected.iter().any(|e| matches!(e, Expectation::ErrorFile(_) | Expectation::Code(_) | Expectation::Text(_)))
}

/// What must come of a call, apart from the kernel.
pub(super) fn outcome(
    bench: &mut Bench<'_>,
    outcome: &Outcome,
    expected: &[Expectation],
    has_result: bool,
) -> Result<()> {
    if of_error(expected) {
        return error(bench, outcome, expected);
    }
    if !has_result {
        return outcome.done();
    }
    let result = outcome.result()?;
    for file in expected.iter().filter_map(|e| if let Expectation::Result(file) = e { Some(file) } else { None }) {
        let wanted: Value = parse(bench.case, file, bench.version)?;
        let wanted = versions::from_newest(&wanted, bench.spoken());
        matching::compare(&wanted, &result, Lists::Exact, &mut bench.names)
            .map_err(|difference| anyhow::anyhow!("{file}: {difference}\n  result: {result}"))?;
    }
    Ok(())
}

fn parse(case: &Case, file: &str, version: &str) -> Result<Value> {
    serde_json::from_str(&case.file(file, version)?).with_context(|| file.to_owned())
}

fn error(bench: &mut Bench<'_>, outcome: &Outcome, expected: &[Expectation]) -> Result<()> {
    let error = outcome.error()?;
    let mut wanted = Vec::new();
    for expectation in expected {
        match expectation {
            Expectation::Code(code) => wanted.push((Some(*code), String::new())),
            Expectation::Text(text) => wanted.push((None, text.clone())),
            Expectation::ErrorFile(file) => wanted.push(error_file(&bench.case.file(file, bench.version)?)?),
            _ => {}
        }
    }
    for (code, text) in wanted {
        if code.is_some_and(|code| code != error.code) || !text_fits(&bench.names.fill(&text), &error.text()) {
            bail!("wanted {code:?} {text:?}, got code {} {:?}", error.code, error.text());
        }
    }
    Ok(())
}

fn error_file(content: &str) -> Result<(Option<u32>, String)> {
    let mut lines: Vec<&str> = content.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let code = match lines.first().and_then(|line| line.strip_prefix("code ")) {
        Some(number) => Some(number.parse().context("code NUMBER")?),
        None => None,
    };
    if code.is_some() {
        lines.remove(0);
    }
    if code.is_none() && lines.is_empty() {
        bail!("an error file without code and text");
    }
    Ok((code, lines.join(" ")))
}

fn text_fits(wanted: &str, text: &str) -> bool {
    match wanted.strip_prefix("exactly ") {
        Some(wanted) => glob(wanted, text),
        None => glob(&format!("*{wanted}*"), text),
    }
}

/// What the kernel, the files and the agent must show now.
pub(super) fn kernel(bench: &mut Bench<'_>, file: &str) -> Result<()> {
    let wanted: Value = parse(bench.case, file, bench.version)?;
    let mut wanted = wanted.as_object().with_context(|| format!("{file} is no object"))?.clone();
    let calls = wanted.remove("agent");
    let started = Instant::now();
    loop {
        let mut names = bench.names.clone();
        std::mem::swap(&mut names, &mut bench.names);
        let looked = wanted.iter().try_for_each(|(place, wanted)| look(bench, place, wanted));
        match looked {
            Ok(()) => break,
            Err(_) if started.elapsed() < SETTLING => bench.names = names,
            Err(error) => return Err(error.context(file.to_owned())),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let Some(calls) = calls else { return Ok(()) };
    let agent = bench.agent.as_ref().with_context(|| format!("{file}: the case has no file `agent`"))?;
    let got: Value = agent.take_calls().iter().map(crate::agent::Received::as_json).collect();
    matching::compare(&calls, &got, Lists::Exact, &mut bench.names)
        .map_err(|difference| anyhow::anyhow!("{file}: agent: {difference}\n  calls: {got}"))
}

fn look(bench: &mut Bench<'_>, place: &str, wanted: &Value) -> Result<()> {
    let wanted = wanted.as_object().with_context(|| format!("{place:?} is no object"))?;
    if place == "files" {
        return wanted.iter().try_for_each(|(path, content)| look_at_file(bench, path, content));
    }
    let at = match place.strip_prefix("pod ") {
        Some(name) => bench.pod(name)?.place(),
        None if place == "host" => Place::Host,
        None => bail!("{place:?} is neither host, pod P, files nor agent"),
    };
    // What must not be there last: it may use names that what is there binds, and an unbound one is anything.
    let (absent, present): (Vec<_>, Vec<_>) = wanted.iter().partition(|(name, _)| name.starts_with('!'));
    for (name, wanted) in present.into_iter().chain(absent) {
        if name == "sysctl" {
            look_at_sysctls(bench, &at, wanted)?;
            continue;
        }
        let (absent, name) = name.strip_prefix('!').map_or((false, name.as_str()), |name| (true, name));
        let there = view(bench.node(), &at, name)?;
        let elements = wanted.as_array().with_context(|| format!("{place} {name}: no list"))?;
        for element in elements {
            let found = matching::some(element, &there, Lists::Some, &mut bench.names);
            match (found, absent) {
                (Some(found), true) => bail!("{place} {name}: {element} must not be there: {found}"),
                (None, false) => bail!("{place} {name}: no {element}\n  there is: {}", Value::from(there)),
                _ => {}
            }
        }
    }
    Ok(())
}

fn look_at_sysctls(bench: &mut Bench<'_>, at: &Place, wanted: &Value) -> Result<()> {
    for (key, value) in wanted.as_object().context("sysctl is no object")? {
        let key = bench.names.fill(key);
        let path = format!("/proc/sys/{key}");
        let there = bench.node().at(at, move || std::fs::read_to_string(path))?.with_context(|| key.clone())?;
        matching::compare(value, &there.trim().into(), Lists::Exact, &mut bench.names)
            .map_err(|difference| anyhow::anyhow!("sysctl {key}{difference}"))?;
    }
    Ok(())
}

fn look_at_file(bench: &mut Bench<'_>, path: &str, wanted: &Value) -> Result<()> {
    let path = bench.names.fill(path);
    let there = if path.ends_with('/') {
        let folder = path.clone();
        bench.node().within(move || names_in(Path::new(&folder)))?
    } else {
        match bench.node().read(&path)? {
            Some(content) => String::from_utf8_lossy(&content).into_owned().into(),
            None => Value::Null,
        }
    };
    matching::compare(wanted, &there, Lists::Exact, &mut bench.names)
        .map_err(|difference| anyhow::anyhow!("file {path}{difference}"))
}

/// The sorted names in a folder; null when there is no such folder.
fn names_in(folder: &Path) -> Value {
    let Ok(entries) = std::fs::read_dir(folder) else { return Value::Null };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_texts() {
        assert_eq!(error_file("code 7\n no  such\n thing\n").unwrap(), (Some(7), "no  such thing".into()));
        assert_eq!(error_file("plain").unwrap(), (None, "plain".into()));
        assert!(error_file("\n").is_err());
        assert!(text_fits("b*d", "abcde"));
        assert!(!text_fits("exactly b*d", "abcde"));
        assert!(text_fits("exactly a*e", "abcde"));
    }
}
