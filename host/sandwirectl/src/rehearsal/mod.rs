//! `try`: a plugin on a node that is made for it and goes with it. The CNI binary, the policy, the kernel and the errors are the
//! real ones; the node is a few namespaces that any user can make (user_namespaces(7)), so that who writes a plugin needs neither
//! root nor a machine to spoil.

mod node;
mod policy;
mod traces;

use crate::call::{self, Verb, network::Network};
use crate::install::{Release, Source};
use crate::output::Output;
use crate::{compile, component};
use anyhow::{Context, Result, bail, ensure};
use node::{NETNS, Node};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
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
    /// What plugins may do; digests in it may be of any build [default: for yours all that they import, for others as shipped]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// CNI_IFNAME
    #[arg(long, value_name = "NAME", default_value = "eth0")]
    ifname: String,
    /// What a runtime offers: a JSON object by capability, such as {"portMappings": [...]}
    #[arg(long, value_name = "JSON", value_parser = call::parse_object)]
    runtime_config: Option<Value>,
    /// Run this by the shell before ADD, on the node: "ip link add br0 type bridge"
    #[arg(long, value_name = "COMMAND")]
    before: Option<String>,
    #[command(flatten)]
    release: Release,
    /// Run this between ADD and DEL, on the node; the pod is the namespace "pod" of ip(8)
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Tries it. Whether every verb succeeded and nothing was left.
pub(crate) fn rehearse(output: &Output, options: &Options) -> Result<bool> {
    let network = Network::read(&options.network)?;
    let content = content(options, &network)?;
    let node = Node::enter(&content)?;
    if let Some(command) = &options.before {
        run(Command::new("/bin/sh").args(["-c", command]))?;
    }
    let before = Traces::look(&node)?;
    let mut rehearsal = Rehearsal { output, options, good: true };
    // No plugin is asked for a verb that its version of the protocol does not have (SPEC.md, "Protocol version").
    if network.at_least(1, 1) {
        rehearsal.step(Verb::Status, "STATUS")?;
    }
    if rehearsal.step(Verb::Add, "ADD")? {
        Traces::look(&node)?.minus(&before).show(output, "made")?;
        if let Some((program, arguments)) = options.command.split_first() {
            rehearsal.good &=
                run(Command::new(program).args(arguments)).map_err(|error| output.warn(format!("{error:#}"))).is_ok();
        }
        if network.at_least(0, 4) {
            rehearsal.step(Verb::Check, "CHECK")?;
        }
    }
    rehearsal.step(Verb::Del, "DEL")?;
    // A runtime that does not know whether its DEL was done comes again (SPEC.md, "DEL").
    rehearsal.step(Verb::Del, "DEL once more")?;
    let left = Traces::look(&node)?.minus(&before);
    left.show(output, "left")?;
    if left.is_empty() && !output.json {
        output.line("nothing is left");
    }
    Ok(rehearsal.good && left.only_shared())
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
    let binary =
        std::fs::read(&source.binary).with_context(|| format!("could not read {}", source.binary.display()))?;
    let mut components: BTreeMap<String, Vec<u8>> =
        source.components.into_iter().map(|(plugin, shipment)| (plugin, shipment.bytes)).collect();
    let mut own = Vec::new();
    for file in &options.plugins {
        let bytes = component::read(file)?;
        let surface = component::surface(&bytes).with_context(|| file.display().to_string())?;
        ensure!(
            surface.contract().is_some(),
            "{} is a component, but no CNI plugin: it does not export sandwire:cni/attach",
            file.display()
        );
        let plugin = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        components.insert(plugin.clone(), bytes);
        own.push((plugin, surface));
    }
    let types = network.types();
    if let Some(missing) = types.iter().find(|kind| !components.contains_key(*kind)) {
        bail!(
            "the configuration names plugin {missing:?}; there are: {}\nname the component of it, {missing}.wasm, on the command line",
            components.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
        );
    }
    let policy = policy::text(options.policy.as_deref(), &components, &own)?;
    // Only what is called is compiled; delegates that are not named by "ipam" have to be given on the command line.
    components.retain(|plugin, _| types.contains(plugin) || own.iter().any(|(own, _)| own == plugin));
    let components = components.into_iter().map(|(plugin, bytes)| {
        let compiled = compile::compile(&bytes).with_context(|| format!("plugin {plugin:?} can't be compiled"))?;
        Ok((plugin, (bytes, compiled)))
    });
    Ok(Content { binary, components: components.collect::<Result<_>>()?, policy, network: network.text.clone() })
}

struct Rehearsal<'a> {
    output: &'a Output,
    options: &'a Options,
    good: bool,
}

impl Rehearsal<'_> {
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
        let done = call::call(self.output, &options)?;
        let took = started.elapsed().as_secs_f64() * 1e3;
        if self.output.json {
            self.output.json(&serde_json::json!({"verb": what, "good": done, "ms": took}))?;
        } else {
            self.output.line(format_args!("{} {what}, {took:.1} ms", if done { "ok  " } else { "FAIL" }));
        }
        self.good &= done;
        Ok(done)
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("could not start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
