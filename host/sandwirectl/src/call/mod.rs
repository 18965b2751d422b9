//! `call`: one CNI verb with flags in place of environment variables, a list run as libcni runs it.
//!
//! The order of plugins, what is put into their configurations and what is kept between ADD and DEL follow libcni 1.3
//! (libcni/api.go), the kept results in its own files: `cnitool` and runtimes see what this command attached, and the other way round.

mod cache;
pub(crate) mod network;

use crate::output::Output;
use anyhow::{Context, Result, bail, ensure};
use cache::{Cache, Key};
use network::Network;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// libcni's own directory (libcni/api.go, `CacheDir`).
const CACHE: &str = "/var/lib/cni/results";

/// A CNI verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Verb {
    /// Attach
    Add,
    /// Detach
    Del,
    /// Ask whether the attachment is as ADD left it
    Check,
    /// Ask whether the plugins could attach
    Status,
    /// Give back what attachments that are not to be kept hold
    Gc,
    /// Ask which versions of the protocol the plugins speak
    Version,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }

    fn has_attachment(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }
}

/// What to call.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The verb
    #[arg(value_enum, ignore_case = true)]
    verb: Verb,
    /// Network configuration: a file of one plugin or of a list
    #[arg(long, value_name = "FILE")]
    network: PathBuf,
    /// CNI_CONTAINERID
    #[arg(long, value_name = "ID")]
    container_id: Option<String>,
    /// CNI_NETNS: a path, or a name that `ip netns` knows
    #[arg(long, value_name = "PATH|NAME")]
    netns: Option<String>,
    /// CNI_IFNAME
    #[arg(long, value_name = "NAME", default_value = "eth0")]
    ifname: String,
    /// CNI_ARGS: "KEY=VALUE;KEY=VALUE"
    #[arg(long, value_name = "ARGS", default_value = "")]
    args: String,
    /// CNI_PATH: directories of plugins, separated by ":"
    #[arg(long, value_name = "DIRS", default_value = sandwire_policy::paths::BIN_DIR)]
    path: String,
    /// What a runtime offers: a JSON object by capability, such as {"portMappings": [...]}
    #[arg(long, value_name = "JSON", value_parser = parse_object)]
    runtime_config: Option<Value>,
    /// GC: an attachment to keep; may be given often. Without it the plugins are not told which there are
    #[arg(long, value_name = "ID/IFNAME")]
    keep: Vec<String>,
    /// GC: keep no attachment at all
    #[arg(long, conflicts_with = "keep")]
    keep_none: bool,
    /// Where results are kept between ADD and DEL
    #[arg(long, value_name = "DIR", default_value = CACHE)]
    cache_dir: PathBuf,
}

impl Options {
    /// A call for one container, with the usual directories.
    pub(crate) fn of(
        verb: Verb,
        network: &Path,
        container_id: &str,
        netns: &str,
        ifname: &str,
        runtime_config: Option<Value>,
    ) -> Self {
        Self {
            verb,
            network: network.to_owned(),
            container_id: Some(container_id.to_owned()),
            netns: Some(netns.to_owned()),
            ifname: ifname.to_owned(),
            args: String::new(),
            path: sandwire_policy::paths::BIN_DIR.to_owned(),
            runtime_config,
            keep: Vec::new(),
            keep_none: false,
            cache_dir: PathBuf::from(CACHE),
        }
    }
}

pub(crate) fn parse_object(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err("it is no JSON object".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs the verb. Whether every plugin succeeded; a plugin's error object is printed as it came.
pub(crate) fn call(output: &Output, options: &Options) -> Result<bool> {
    let mut said = Said::default();
    let done = answer(options, Stdio::inherit, &mut said);
    // GC goes on past errors: what came before the one that ends it is told too.
    said.lines.iter().for_each(|line| output.line(line));
    done.map(|()| !said.bad)
}

/// What came of a verb.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Whether a plugin failed.
    pub(crate) bad: bool,
    /// What plugins answered, as text: a result, or errors as they were printed.
    pub(crate) lines: Vec<String>,
    /// What plugins said to stderr, where that was to be kept.
    pub(crate) log: String,
}

/// Runs the verb, with the plugins' stderr there.
pub(crate) fn answer(options: &Options, stderr: fn() -> Stdio, said: &mut Said) -> Result<()> {
    let network = Network::read(&options.network)?;
    let key = match options.verb.has_attachment() {
        true => {
            let id = options.container_id.clone();
            let id = id.with_context(|| {
                format!("{} is about one container: name it with --container-id", options.verb.name())
            })?;
            Some(Key { network: network.name.clone(), container_id: id, ifname: options.ifname.clone() })
        }
        false => None,
    };
    let mut call = Call { options, network: &network, cache: Cache::new(&options.cache_dir), stderr, said };
    match (options.verb, key) {
        (Verb::Add, Some(key)) => call.add(&key),
        (Verb::Del, Some(key)) => call.del(&key),
        (Verb::Check, Some(key)) => call.check(&key),
        (Verb::Gc, _) => call.gc(),
        (verb, _) => call.each(verb),
    }
}

/// The answer of one plugin.
enum Answer {
    Success(Vec<u8>),
    /// The error object, as it was printed.
    Failure(Vec<u8>),
}

struct Call<'a> {
    options: &'a Options,
    network: &'a Network,
    cache: Cache,
    stderr: fn() -> Stdio,
    said: &'a mut Said,
}

impl Call<'_> {
    fn add(&mut self, key: &Key) -> Result<()> {
        ensure!(self.options.netns.is_some(), "ADD needs the container's network namespace: name it with --netns");
        let mut result = None;
        for plugin in &self.network.plugins {
            let config = self.network.request(plugin, result.as_ref(), self.options.runtime_config.as_ref());
            match self.run(Verb::Add, plugin, &config, Some(key))? {
                Answer::Success(text) => {
                    let text: Value = serde_json::from_slice(&text).with_context(|| {
                        format!("plugin {} printed no result: {}", kind(plugin), String::from_utf8_lossy(&text))
                    })?;
                    result = Some(text);
                }
                Answer::Failure(text) => {
                    self.failed(&text);
                    return Ok(());
                }
            }
        }
        let result = result.unwrap_or(Value::Null);
        if let Err(error) = self.cache.keep(key, self.network, self.options, self.netns(), &result) {
            // Without it a later DEL has no prevResult. Whoever called is told that ADD failed, and may never call DEL.
            return Err(match self.del_with(key, Some(&result)) {
                Ok(true) => error.context("ADD's result can't be kept; what it had made was taken back"),
                Ok(false) => {
                    error.context("ADD's result can't be kept, and what it had made could not be taken back: call del")
                }
                Err(left) => {
                    left.context(format!("{error:#}; and what ADD had made could not be taken back: call del"))
                }
            });
        }
        self.said.lines.push(serde_json::to_string_pretty(&result).context("could not write the result")?);
        Ok(())
    }

    fn del(&mut self, key: &Key) -> Result<()> {
        let kept = self.cache.result(key)?;
        if self.del_with(key, kept.as_ref())? { self.cache.forget(key) } else { Ok(()) }
    }

    /// DEL of every plugin, the last first. Whether all succeeded.
    fn del_with(&mut self, key: &Key, result: Option<&Value>) -> Result<bool> {
        let result = result.filter(|_| self.network.at_least(0, 4));
        for plugin in self.network.plugins.iter().rev() {
            let config = self.network.request(plugin, result, self.options.runtime_config.as_ref());
            if let Answer::Failure(text) = self.run(Verb::Del, plugin, &config, Some(key))? {
                self.failed(&text);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn check(&mut self, key: &Key) -> Result<()> {
        let kept = self.cache.result(key)?;
        for plugin in &self.network.plugins {
            let config = self.network.request(plugin, kept.as_ref(), self.options.runtime_config.as_ref());
            if let Answer::Failure(text) = self.run(Verb::Check, plugin, &config, Some(key))? {
                self.failed(&text);
                break;
            }
        }
        Ok(())
    }

    /// First DEL for what was attached by a result that is kept and is not to be kept any longer, then GC of every plugin,
    /// going on past errors.
    fn gc(&mut self) -> Result<()> {
        let mut valid = None;
        if self.options.keep_none || !self.options.keep.is_empty() {
            let keep = self.options.keep.iter().map(|keep| {
                keep.split_once('/').with_context(|| format!("--keep {keep}: write CONTAINER-ID/INTERFACE"))
            });
            let keep = keep.collect::<Result<Vec<_>>>()?;
            for key in self.cache.attachments(&self.network.name)? {
                if !keep.contains(&(key.container_id.as_str(), key.ifname.as_str())) {
                    self.del(&key)?;
                }
            }
            let keep = keep.iter().map(|(id, ifname)| json!({"containerID": id, "ifname": ifname}));
            valid = Some(Value::Array(keep.collect()));
        }
        for plugin in &self.network.plugins {
            let mut config = self.network.request(plugin, None, self.options.runtime_config.as_ref());
            if let (Value::Object(config), Some(valid)) = (&mut config, &valid) {
                // The name of the specification, and of the draft that runtimes of 2024 send beside it.
                config.insert("cni.dev/valid-attachments".into(), valid.clone());
                config.insert("cni.dev/attachments".into(), valid.clone());
            }
            if let Answer::Failure(text) = self.run(Verb::Gc, plugin, &config, None)? {
                self.failed(&text);
            }
        }
        Ok(())
    }

    fn each(&mut self, verb: Verb) -> Result<()> {
        for plugin in &self.network.plugins {
            let config = self.network.request(plugin, None, self.options.runtime_config.as_ref());
            match self.run(verb, plugin, &config, None)? {
                Answer::Success(text) if text.is_empty() => {}
                Answer::Success(text) => self.said.lines.push(String::from_utf8_lossy(&text).trim_end().to_owned()),
                Answer::Failure(text) => {
                    self.failed(&text);
                    break;
                }
            }
        }
        Ok(())
    }

    fn failed(&mut self, text: &[u8]) {
        self.said.bad = true;
        self.said.lines.push(String::from_utf8_lossy(text).trim_end().to_owned());
    }

    fn run(&mut self, verb: Verb, plugin: &Value, config: &Value, key: Option<&Key>) -> Result<Answer> {
        let kind = kind(plugin);
        let program = find(&self.options.path, kind)?;
        let mut command = Command::new(&program);
        command.env_clear().env("CNI_COMMAND", verb.name()).env("CNI_PATH", &self.options.path);
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        if !self.options.args.is_empty() {
            command.env("CNI_ARGS", &self.options.args);
        }
        if let Some(key) = key {
            command.env("CNI_CONTAINERID", &key.container_id).env("CNI_IFNAME", &key.ifname);
            command.env("CNI_NETNS", self.netns());
        }
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr((self.stderr)()).spawn();
        let mut child = started.with_context(|| format!("could not start {}", program.display()))?;
        let input = serde_json::to_vec(config).context("could not write the configuration")?;
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin may answer without reading all of it (VERSION does): a broken pipe is its choice.
            stdin.write_all(&input).ok();
        }
        let done = child.wait_with_output().with_context(|| format!("could not wait for {}", program.display()))?;
        self.said.log.push_str(&String::from_utf8_lossy(&done.stderr));
        if done.status.success() {
            return Ok(Answer::Success(done.stdout));
        }
        if done.stdout.is_empty() {
            bail!("plugin {kind} ended with {} and printed no error", done.status);
        }
        Ok(Answer::Failure(done.stdout))
    }

    fn netns(&self) -> String {
        match self.options.netns.as_deref() {
            None => String::new(),
            Some(path) if path.contains('/') => path.to_owned(),
            Some(name) => format!("/run/netns/{name}"),
        }
    }
}

fn kind(plugin: &Value) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// The first regular file of this name in CNI_PATH, as libcni looks for it.
fn find(path: &str, kind: &str) -> Result<PathBuf> {
    let found = path.split(':').map(|directory| Path::new(directory).join(kind)).find(|program| program.is_file());
    found.with_context(|| format!("failed to find plugin {kind:?} in path [{}]", path.replace(':', " ")))
}
