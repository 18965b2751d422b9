//! `sandwirectl`: installs Sandwire on a node, puts its policy into force, and tells what is there.
//!
//! Exit codes: 0 as asked; 1 something failed, or is not as it should be; 2 the command line is wrong.

mod apply;
mod attachments;
mod call;
mod compile;
mod component;
mod doctor;
mod files;
mod firewall;
mod generation;
mod image;
mod inspect;
mod install;
mod leases;
mod output;
mod policy;
mod rehearsal;
mod repair;

use anyhow::Result;
use clap::{Parser, Subcommand};
use output::Output;
use sandwire_policy::paths;
use sandwire_runtime::engine::{TARGET, WASMTIME_VERSION};
use std::path::PathBuf;
use std::process::ExitCode;

/// Installs and looks after sandboxed CNI plugins on this node
#[derive(Parser)]
#[command(name = "sandwirectl", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    /// Answer in JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install the CNI binary, a link for each plugin, components and the first policy; or bring them up to date
    Install(install::Options),
    /// Remove what install made
    Uninstall(install::UninstallOptions),
    /// Put /etc/sandwire/policy.toml into force: check and compile the components, switch at once
    Apply,
    /// Go back to the generation before, or to one by its number
    Rollback {
        /// Generation to go back to
        generation: Option<u64>,
    },
    /// List plugins: what they are, whether they can run, what they import
    Plugins,
    /// Show what a component is and wants, with the policy lines that would allow it
    Inspect {
        /// A component (.wasm)
        file: PathBuf,
    },
    /// List what is attached on this node, with the host's end of each interface
    Attachments {
        /// Only those of this network
        #[arg(long, value_name = "NAME")]
        network: Option<String>,
    },
    /// List the addresses that are given on this node, show who holds one, or give one back
    Leases(leases::Options),
    /// Remove what is Sandwire's in the node's firewall, when the node goes back to other plugins
    Firewall(firewall::Options),
    /// Mend what is out of step between journal, kernel, leases and agents: what calls that were killed left
    Repair(repair::Options),
    /// Look for what keeps plugins from working on this node, and say what to do
    Doctor {
        /// Directory of CNI plugins [default: each that Sandwire was installed to]
        #[arg(long, value_name = "DIR")]
        bin_dir: Option<PathBuf>,
    },
    /// Try a plugin of your own, without root: on a node of namespaces that is made for it and goes with it
    Try(rehearsal::Options),
    /// Run one CNI verb, with flags in place of environment variables
    Call(call::Options),
    /// Print the releases of sandwirectl and of the sandbox
    Version,
    #[command(name = compile::SUBCOMMAND, hide = true)]
    CompileComponent,
    #[command(name = doctor::SUBCOMMAND, hide = true)]
    ProbeKernel,
}

fn main() -> ExitCode {
    // What install makes is read by runtimes of any user: root's own umask must not close it to them.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let cli = Cli::parse();
    let output = Output { json: cli.json };
    match run(&output, cli.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            output.error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Whether everything is as it should be.
fn run(output: &Output, command: Command) -> Result<bool> {
    match command {
        Command::Install(options) => install::install(output, &options),
        Command::Uninstall(options) => install::uninstall(output, &options),
        Command::Apply => {
            let mut applied = apply::apply(output)?;
            applied.warnings.extend(image::refresh());
            apply::report(output, &applied)
        }
        Command::Rollback { generation } => rollback(output, generation),
        Command::Plugins => inspect::plugins(output),
        Command::Inspect { file } => inspect::inspect(output, &file),
        Command::Attachments { network } => attachments::attachments(output, network.as_deref()),
        Command::Leases(options) => leases::leases(output, &options),
        Command::Firewall(options) => firewall::firewall(output, &options),
        Command::Repair(options) => repair::repair(output, &options),
        Command::Doctor { bin_dir } => doctor::doctor(output, bin_dir.as_deref()),
        Command::Try(options) => rehearsal::rehearse(output, &options),
        Command::Call(options) => call::call(output, &options),
        Command::Version => version(output),
        Command::CompileComponent => Ok(for_parent(compile::child())),
        Command::ProbeKernel => Ok(for_parent(doctor::child())),
    }
}

/// What a child says is for its parent, which puts it in its own words.
fn for_parent(done: Result<()>) -> bool {
    if let Err(error) = &done {
        eprintln!("{error:#}");
    }
    done.is_ok()
}

fn rollback(output: &Output, to: Option<u64>) -> Result<bool> {
    let (from, to) = generation::rollback(&generation::lock()?, to)?;
    image::refresh().into_iter().for_each(|warning| output.warn(warning));
    if output.json {
        output.json(&serde_json::json!({"generation": to.number, "before": from.number}))?;
    } else {
        output.line(format_args!("generation {} is in force, before: {}", to.number, from.number));
        output.line(format_args!("{} is as it was: the next apply puts it into force again", paths::POLICY));
    }
    Ok(true)
}

fn version(output: &Output) -> Result<bool> {
    let sandwire = env!("CARGO_PKG_VERSION");
    if output.json {
        output.json(&serde_json::json!({"sandwire": sandwire, "wasmtime": WASMTIME_VERSION, "target": TARGET}))?;
    } else {
        output.line(format_args!("sandwirectl {sandwire} (wasmtime {WASMTIME_VERSION}, {TARGET})"));
    }
    Ok(true)
}
