//! `sandwire-componentize IN.wasm OUT.wasm`: a plugin's core module to a component.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn run(input: &Path, output: &Path) -> Result<()> {
    let module = std::fs::read(input).context("could not be read")?;
    let component = sandwire_componentize::componentize(&module)?;
    // Beside the target and renamed, so that a build that was interrupted leaves no half component.
    let partial = output.with_extension("wasm.partial");
    std::fs::write(&partial, &component).with_context(|| format!("could not write {}", partial.display()))?;
    std::fs::rename(&partial, output).with_context(|| format!("could not write {}", output.display()))?;
    let surface = sandwire_componentize::surface(&component)?;
    println!("{}: {} bytes, imports {}", output.display(), component.len(), surface.imports.join(" "));
    Ok(())
}

fn arguments() -> Result<(PathBuf, PathBuf)> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(input), Some(output), None) => Ok((input, output)),
        _ => bail!("usage: sandwire-componentize IN.wasm OUT.wasm"),
    }
}

fn main() -> ExitCode {
    let outcome = arguments().and_then(|(input, output)| {
        run(&input, &output).with_context(|| format!("could not make a component of {}", input.display()))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sandwire-componentize: {error:#}");
            ExitCode::FAILURE
        }
    }
}
