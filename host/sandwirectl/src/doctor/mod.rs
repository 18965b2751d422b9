//! `doctor`: whether this node can run plugins, and what to do where it can't.

mod agents;
mod configurations;
mod kernel;
mod leases;
mod places;

pub(crate) use kernel::{SUBCOMMAND, child};

use crate::output::Output;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing is broken by it.
    Note,
    /// Something does not work, or is not safe.
    Fail,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Check {
    what: String,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// What to do; empty when there is nothing to do.
    remedy: String,
}

impl Check {
    fn ok(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: Verdict::Ok, found: found.into(), remedy: String::new() }
    }

    fn note(what: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: Verdict::Note, found: found.into(), remedy: remedy.into() }
    }

    fn is_ok(&self) -> bool {
        self.verdict == Verdict::Ok
    }

    fn at_most_a_note(self) -> Self {
        match self.verdict {
            Verdict::Fail => Self { verdict: Verdict::Note, ..self },
            _ => self,
        }
    }

    fn fail(what: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: Verdict::Fail, found: found.into(), remedy: remedy.into() }
    }
}

/// Looks at everything. Whether nothing failed.
pub(crate) fn doctor(output: &Output, bin_dir: Option<&Path>) -> Result<bool> {
    let bin_dirs = crate::install::installed_in(bin_dir)?;
    let mut checks = kernel::checks();
    checks.extend(places::directories(&bin_dirs));
    checks.extend(places::policy());
    checks.extend(places::plugins());
    checks.extend(bin_dirs.iter().flat_map(|directory| places::links(directory)));
    checks.extend(configurations::checks(&bin_dirs));
    checks.extend(agents::checks());
    checks.extend(leases::checks());
    let good = checks.iter().all(|check| check.verdict != Verdict::Fail);
    if output.json {
        output.json(&checks)?;
        return Ok(good);
    }
    for check in &checks {
        let mark = match check.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Note => "note",
            Verdict::Fail => "FAIL",
        };
        output.line(format_args!("{mark}  {}: {}", check.what, check.found));
        if !check.remedy.is_empty() {
            output.line(format_args!("      -> {}", check.remedy));
        }
    }
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Fail).count();
    output.line(match failed {
        0 => format!("\n{} checks, nothing is wrong", checks.len()),
        failed => format!("\n{} checks, {failed} failed", checks.len()),
    });
    Ok(good)
}
