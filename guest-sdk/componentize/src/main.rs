//! `sandwire-componentize IN.wasm OUT.wasm [ORDER]`: a plugin's core module to a component; with the functions that the file ORDER
//! names, one a line, before all others.
//!
//! `sandwire-componentize --functions IN.wasm`: the names of a core module's functions, by their numbers.

use anyhow::{Context, Result, anyhow};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn run(input: &Path, output: &Path, order: Option<&Path>) -> Result<()> {
    let module = std::fs::read(input).context("could not be read")?;
    let names = match order {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?,
        None => String::new(),
    };
    let component = sandwire_componentize::componentize(&module, &names.lines().collect::<Vec<_>>())?;
    // Beside the target and renamed, so that a build that was interrupted leaves no half component.
    let partial = output.with_extension("wasm.partial");
    std::fs::write(&partial, &component).with_context(|| format!("could not write {}", partial.display()))?;
    std::fs::rename(&partial, output).with_context(|| format!("could not write {}", output.display()))?;
    let surface = sandwire_componentize::surface(&component)?;
    println!("{}: {} bytes, imports {}", output.display(), component.len(), surface.imports.join(" "));
    Ok(())
}

fn list(input: &Path) -> Result<()> {
    let module = std::fs::read(input).context("could not be read")?;
    let mut output = std::io::stdout().lock();
    for (number, name) in sandwire_componentize::functions(&module)? {
        writeln!(output, "{number} {name}")?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let outcome = match arguments.as_slice() {
        [option, input] if option.as_os_str() == "--functions" => {
            list(input).with_context(|| format!("could not list the functions of {}", input.display()))
        }
        [input, output] => run(input, output, None).with_context(|| failed(input)),
        [input, output, order] => run(input, output, Some(order)).with_context(|| failed(input)),
        _ => Err(anyhow!("usage: sandwire-componentize IN.wasm OUT.wasm [ORDER] | --functions IN.wasm")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sandwire-componentize: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn failed(input: &Path) -> String {
    format!("could not make a component of {}", input.display())
}
