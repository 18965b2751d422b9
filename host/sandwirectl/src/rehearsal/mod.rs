//! `try`: a plugin on a node that is made for it and goes with it. The CNI binary, the policy, the kernel and the errors are the
//! real ones; the node is a few namespaces that any user can make (user_namespaces(7)), so that who writes a plugin needs neither
//! root nor a machine to spoil.

mod apart;
mod node;
mod policy;
mod traces;

use crate::call::{self, Verb, network::Network};
use crate::install::{Release, Source};
use crate::output::Output;
use crate::{compile, component};
use anyhow::{Context, Result, anyhow, bail, ensure};
use node::{NETNS, Node};
use sandwire_policy::check_plugin;
use sandwire_runtime::verbs::FAILED_IN_DEL;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use traces::Traces;

/// The container's id in every call.
const CONTAINER: &str = "try";

/// What to try, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Components of your own; each is the plugin of its file's name. Other plugins come with the release
    #[arg(value_name = "FILE.wasm")]
    plugins: Vec<PathBuf>,
    /// Network configuration: a file of one plugin or of a list
    #[arg(long, value_name = "FILE")]
    network: PathBuf,
    /// What plugins may do; digests in it may be of any build, and plugins that it does not have are as shipped [default: yours may
    /// do all that they import, but read files]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// CNI_IFNAME
    #[arg(long, value_name = "NAME", default_value = "eth0")]
    ifname: String,
    /// What a runtime offers: a JSON object by capability, such as {"portMappings": [...]}
    #[arg(long, value_name = "JSON", value_parser = call::parse_object)]
    runtime_config: Option<Value>,
    /// Run this by the shell before ADD, on the node: "ip link add br0 up type bridge"
    #[arg(long, value_name = "COMMAND")]
    before: Option<String>,
    #[command(flatten)]
    release: Release,
    /// Run this between ADD and DEL, on the node, in this directory; the pod is the namespace "pod" of ip(8)
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Tries it. Whether every verb succeeded and nothing was left.
pub(crate) fn rehearse(output: &Output, options: &Options) -> Result<bool> {
    if !apart::is_apart() {
        return apart::run();
    }
    apart::end_with_parent()?;
    let network = Network::read(&options.network)?;
    let offered = options.runtime_config.as_ref().and_then(Value::as_object).into_iter().flatten();
    for (capability, _) in offered.filter(|(capability, _)| !network.wants(capability)) {
        output.warn(format!(
            "no plugin of the network has {{\"capabilities\": {{{capability:?}: true}}}}: it is not told"
        ));
    }
    let node = Node::enter(&content(options, &network)?)?;
    let mut rehearsal = Rehearsal { output, options, node, network, good: true };
    rehearsal.whole()?;
    if output.json {
        output.json(&json!({"good": rehearsal.good}))?;
    }
    Ok(rehearsal.good)
}

/// What the node has: program, components with what was compiled of them, policy.
struct Content {
    binary: Vec<u8>,
    /// By plugin: the component, and its compiled form.
    components: BTreeMap<String, (Vec<u8>, Vec<u8>)>,
    policy: String,
    network: Vec<u8>,
}

fn content(options: &Options, network: &Network) -> Result<Content> {
    let source = Source::at_hand(&options.release)?;
    let mut components: BTreeMap<String, Vec<u8>> =
        source.components.into_iter().map(|(plugin, shipment)| (plugin, shipment.bytes)).collect();
    let mut own = BTreeMap::new();
    for file in &options.plugins {
        let plugin = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        check_plugin(&plugin).map_err(|why| anyhow!("{} can't name a plugin: {why}", file.display()))?;
        let real = file.canonicalize().with_context(|| format!("could not open {}", file.display()))?;
        let bytes = component::read(&real)?;
        let surface = component::surface(&bytes).with_context(|| file.display().to_string())?;
        ensure!(
            surface.contract().is_some(),
            "{} is a component, but no CNI plugin: it does not export sandwire:cni/attach",
            file.display()
        );
        components.insert(plugin.clone(), bytes);
        ensure!(own.insert(plugin.clone(), surface).is_none(), "two of the components are plugin {plugin:?}");
    }
    let types = network.types();
    if let Some(missing) = types.iter().find(|kind| !components.contains_key(*kind)) {
        bail!(
            "the configuration names plugin {missing:?}; there are: {}\nname the component of it, {missing}.wasm, on the command line; native plugins can't be tried",
            components.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
        );
    }
    // Only what is called is there; delegates that are not named by "ipam" have to be given on the command line.
    components.retain(|plugin, _| types.contains(plugin) || own.contains_key(plugin));
    let policy = policy::text(options.policy.as_deref(), &components, &own)?;
    let components = components.into_iter().map(|(plugin, bytes)| {
        let compiled = compile::compile(&bytes).with_context(|| format!("plugin {plugin:?} can't be compiled"))?;
        Ok((plugin, (bytes, compiled)))
    });
    Ok(Content {
        binary: source.binary,
        components: components.collect::<Result<_>>()?,
        policy,
        network: network.text.clone(),
    })
}

struct Rehearsal<'a> {
    output: &'a Output,
    options: &'a Options,
    node: Node,
    network: Network,
    good: bool,
}

impl Rehearsal<'_> {
    /// A pod's life, and then one that dies without a DEL.
    fn whole(&mut self) -> Result<()> {
        if let Some(command) = &self.options.before {
            self.command(Command::new("/bin/sh").args(["-c", command]))?;
        }
        let before = Traces::look(&self.node)?;
        // No plugin is asked for a verb that its version of the protocol does not have (SPEC.md, "Protocol version").
        if self.network.at_least(1, 1) {
            self.step(Verb::Status, "STATUS")?;
        }
        let added = self.step(Verb::Add, "ADD")?;
        if added {
            Traces::look(&self.node)?.minus(&before).show(self.output, "made")?;
            if let Some((program, arguments)) = self.options.command.split_first() {
                let done = self.command(Command::new(program).args(arguments));
                if let Err(error) = done {
                    self.output.error(&error);
                    self.good = false;
                }
            }
            if self.network.at_least(0, 4) {
                self.step(Verb::Check, "CHECK")?;
            }
        }
        self.step(Verb::Del, "DEL")?;
        // A runtime that does not know whether its DEL was done comes again (SPEC.md, "DEL").
        self.step(Verb::Del, "DEL once more")?;
        self.compare(&before)?;
        if added && self.step(Verb::Add, "ADD of another")? {
            self.node.end_pod()?;
            self.step(Verb::Del, "DEL of a pod that is gone")?;
            self.compare(&before.of_node())?;
        }
        Ok(())
    }

    /// Whether all is as it was, but for what attachments share.
    fn compare(&mut self, before: &Traces) -> Result<()> {
        let now = Traces::look(&self.node)?;
        let (left, gone) = (now.minus(before), before.minus(&now));
        left.show(self.output, "left")?;
        gone.show(self.output, "gone")?;
        if left.is_empty() && !self.output.json {
            self.output.line("nothing is left");
        }
        self.good &= left.only_shared() && gone.is_empty();
        Ok(())
    }

    /// One verb, as a runtime calls it. Whether it succeeded.
    fn step(&mut self, verb: Verb, what: &str) -> Result<bool> {
        let options = call::Options::of(
            verb,
            Path::new(node::NETWORK),
            CONTAINER,
            NETNS,
            &self.options.ifname,
            self.options.runtime_config.clone(),
        );
        let started = Instant::now();
        let mut said = call::Said::default();
        call::answer(&options, Stdio::piped, &mut said)?;
        let took = (started.elapsed().as_secs_f64() * 1e4).round() / 10.0;
        // The host finishes what a plugin's DEL does not; a runtime is content with that, its author is not.
        let good = !said.bad && !said.log.contains(FAILED_IN_DEL);
        self.good &= good;
        if self.output.json {
            let answers: Vec<Value> = said.lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let log: Vec<&str> = said.log.lines().collect();
            self.output.json(&json!({"verb": what, "good": good, "ms": took, "answers": answers, "log": log}))?;
            return Ok(!said.bad);
        }
        self.output.line(format_args!("{} {what}, {took:.1} ms", if good { "ok  " } else { "FAIL" }));
        for line in said.lines.iter().flat_map(|text| text.lines()).chain(said.log.lines()) {
            self.output.line(format_args!("     {line}"));
        }
        if said.lines.iter().any(|line| line.contains(sandwire_policy::paths::POLICY)) {
            self.output.line("     (here that is a file of yours, for --policy)");
        }
        Ok(!said.bad)
    }

    fn command(&self, command: &mut Command) -> Result<()> {
        // What is written before must not come after it.
        std::io::stdout().flush().ok();
        if self.output.json {
            command.stdout(std::io::stderr().as_fd().try_clone_to_owned().context("could not use stderr")?);
        }
        let status = command.status().with_context(|| {
            format!(
                "could not start {command:?}; the node has what is in /usr and /bin, and the directory that you are in"
            )
        })?;
        ensure!(status.success(), "{command:?} ended with {status}");
        Ok(())
    }
}
