//! One CNI call as a runtime makes it: environment, configuration on standard input, a result or an error on standard output.

use crate::run::Finished;
use crate::{NATIVE, Node, OURS, Place, Pod};
use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// CNI_COMMAND.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Attach.
    Add,
    /// Detach.
    Del,
    /// Is it still as ADD made it?
    Check,
    /// Collect what belongs to attachments that are no more.
    Gc,
    /// Could an ADD work now?
    Status,
    /// Which versions of the specification are known.
    Version,
}

impl Verb {
    /// As it stands in CNI_COMMAND.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

/// A call that is being described; `run` makes it.
#[derive(Clone)]
pub struct Call<'n> {
    node: &'n Node,
    plugin: String,
    env: BTreeMap<String, String>,
    stdin: Vec<u8>,
    program: Option<PathBuf>,
}

impl<'n> Call<'n> {
    pub(crate) fn new(node: &'n Node, plugin: &str, verb: Verb) -> Self {
        let env = [("CNI_COMMAND", verb.name()), ("CNI_PATH", OURS), ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")];
        Self {
            node,
            plugin: plugin.to_owned(),
            env: env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            stdin: Vec::new(),
            program: None,
        }
    }

    /// Container id and netns.
    #[must_use]
    pub fn pod(self, pod: &Pod) -> Self {
        self.env("CNI_CONTAINERID", &pod.id).env("CNI_NETNS", &pod.netns.to_string_lossy())
    }

    /// Interface name.
    #[must_use]
    pub fn ifname(self, name: &str) -> Self {
        self.env("CNI_IFNAME", name)
    }

    /// Set a variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Take a variable away.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.env.remove(key);
        self
    }

    /// The network configuration.
    #[must_use]
    pub fn config(self, config: &Value) -> Self {
        self.stdin(config.to_string())
    }

    /// What stands on standard input, be it a configuration or not.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// CNI_PATH. The plugin itself is looked up there too.
    #[must_use]
    pub fn path(self, path: &str) -> Self {
        self.env("CNI_PATH", path)
    }

    /// Debian's plugins in place of ours, and Debian's delegates.
    #[must_use]
    pub fn native(self) -> Self {
        self.path(NATIVE)
    }

    /// Execute this program, whatever CNI_PATH says.
    #[must_use]
    pub fn program(mut self, program: impl AsRef<Path>) -> Self {
        self.program = Some(program.as_ref().to_owned());
        self
    }

    /// The command, ready to be started; and what to feed it.
    ///
    /// # Errors
    /// When no folder of CNI_PATH has the plugin.
    pub fn command(&self) -> Result<(Command, Vec<u8>)> {
        let program = match &self.program {
            Some(program) => program.clone(),
            None => self.find()?,
        };
        let mut command = Command::new(program);
        command.env_clear().envs(&self.env).current_dir("/");
        Ok((command, self.stdin.clone()))
    }

    fn find(&self) -> Result<PathBuf> {
        let path = self.env.get("CNI_PATH").map_or(OURS, String::as_str);
        let candidates: Vec<PathBuf> = path.split(':').map(|folder| Path::new(folder).join(&self.plugin)).collect();
        self.node
            .within(move || candidates.into_iter().find(|file| file.is_file()))?
            .ok_or_else(|| anyhow!("no plugin {:?} in {path}", self.plugin))
    }

    /// Make the call and wait for its end.
    ///
    /// # Errors
    /// When it can't be started or hangs.
    pub fn run(&self) -> Result<Outcome> {
        let (command, stdin) = self.command()?;
        Ok(Outcome::of(self.node.run(&Place::Host, command, &stdin)?))
    }
}

/// The CNI error object (spec section 5, "Error").
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CniError {
    /// Code of the specification, or 100 and more.
    pub code: u32,
    /// What failed.
    pub msg: String,
    /// Why.
    #[serde(default)]
    pub details: String,
}

impl CniError {
    /// What users of the reference implementation see: `msg`, and `details` behind a semicolon when there are any.
    pub fn text(&self) -> String {
        if self.details.is_empty() { self.msg.clone() } else { format!("{}; {}", self.msg, self.details) }
    }
}

/// How a call ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Exit status; none when a signal ended it.
    pub exit: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error: log lines.
    pub stderr: String,
    /// From the start to the end of the output.
    pub duration: Duration,
}

impl Outcome {
    pub(crate) fn of(finished: Finished) -> Self {
        let Finished { status, stdout, stderr, duration } = finished;
        Self { exit: status.code(), stdout, stderr, duration }
    }

    /// The result of a successful ADD or VERSION.
    ///
    /// # Errors
    /// When it failed, or printed something else than one JSON object.
    pub fn result(&self) -> Result<Value> {
        if self.exit != Some(0) {
            bail!("failed: {self}");
        }
        let value: Value = serde_json::from_str(&self.stdout).with_context(|| format!("no JSON result: {self}"))?;
        if !value.is_object() {
            bail!("the result is no object: {self}");
        }
        Ok(value)
    }

    /// A successful call of a verb that has no result.
    ///
    /// # Errors
    /// When it failed, or printed something.
    pub fn done(&self) -> Result<()> {
        if self.exit != Some(0) {
            bail!("failed: {self}");
        }
        if !self.stdout.trim().is_empty() {
            bail!("must print nothing: {self}");
        }
        Ok(())
    }

    /// The one CNI error of a failed call.
    ///
    /// # Errors
    /// When it succeeded, ended with another status than 1, or printed anything else than one error object.
    pub fn error(&self) -> Result<CniError> {
        if self.exit != Some(1) {
            bail!("must fail with exit status 1: {self}");
        }
        let error: CniError =
            serde_json::from_str(&self.stdout).with_context(|| format!("no CNI error object: {self}"))?;
        if error.msg.is_empty() {
            bail!("an error without a text: {self}");
        }
        Ok(error)
    }

    /// The error of a failed call, which must have this code and contain this text (in `msg; details`).
    ///
    /// # Errors
    /// When it is another, or none.
    pub fn error_with(&self, code: u32, text: &str) -> Result<CniError> {
        let error = self.error()?;
        if error.code != code || !error.text().contains(text) {
            bail!("wanted code {code} with {text:?}, got {error:?}");
        }
        Ok(error)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.exit {
            Some(status) => write!(f, "exit {status}")?,
            None => write!(f, "ended by a signal")?,
        }
        write!(f, "\n  stdout: {}\n  stderr: {}", self.stdout.trim(), self.stderr.trim())
    }
}
