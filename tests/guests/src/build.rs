//! From the guests' folders to components.

use anyhow::{Context, Result, anyhow, bail};
use sandwire_harness::repository;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{ManglingAndAbi, Resolve};

/// Guests whose standard library needs WASI are made for a target that has it.
const WASI: [&str; 1] = ["wasi"];

/// The component of a guest: `tests/guests/NAME`. All are built at the first call.
///
/// # Errors
/// With the compiler's output.
pub fn component(name: &str) -> Result<&'static [u8]> {
    static ALL: OnceLock<Result<BTreeMap<String, Vec<u8>>, String>> = OnceLock::new();
    let all = ALL.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    let all = all.as_ref().map_err(|error| anyhow!("{error}"))?;
    all.get(name).map(Vec::as_slice).with_context(|| format!("there is no guest {name:?}"))
}

fn build() -> Result<BTreeMap<String, Vec<u8>>> {
    let folder = repository().join("tests/guests");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    let (wasi, plain): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| WASI.contains(&name.as_str()));
    let mut built = BTreeMap::new();
    let modules = compile("wasm32-unknown-unknown", &plain)?;
    for name in plain {
        let module = read(&modules, &name)?;
        built.insert(name.clone(), sandwire_componentize::componentize(&module, &[]).with_context(|| name.clone())?);
    }
    // This target's linker makes components itself.
    let components = compile("wasm32-wasip2", &wasi)?;
    for name in wasi {
        built.insert(name.clone(), read(&components, &name)?);
    }
    Ok(built)
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let file = folder.join(format!("sandwire_guest_{}.wasm", name.replace('-', "_")));
    std::fs::read(&file).with_context(|| file.display().to_string())
}

fn compile(target: &str, names: &[String]) -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository()).args(["build", "--quiet", "--locked", "--profile", "plugin", "--target", target]);
    // Flags for the host's programs (crt-static) are none of the guests'.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    for name in names {
        cargo.args(["-p", &format!("sandwire-guest-{name}")]);
    }
    let done = cargo.output().context("could not run cargo")?;
    if !done.status.success() {
        bail!("building the guests for {target}:\n{}", String::from_utf8_lossy(&done.stderr));
    }
    let target_dir = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    Ok(target_dir.join(target).join("plugin"))
}

/// What a policy must list for a component, so that all of its imports are granted.
///
/// # Errors
/// When it is no component.
pub fn granted_by_all(component: &[u8]) -> Result<Vec<String>> {
    let surface = sandwire_componentize::surface(component)?;
    let names = surface.imports.iter().filter_map(|name| name.strip_prefix("sandwire:cni/"));
    let names = names.filter_map(|name| name.split('@').next());
    Ok(names.filter(|name| !["types", "namespaces"].contains(name)).map(str::to_owned).collect())
}

/// A component of a world that `wit` describes beside the contract: its functions do nothing but trap.
///
/// `contract` is the folder with the contract as that component knows it.
///
/// # Errors
/// When the text is no WIT, or no component can be made of it.
pub fn dummy(contract: &Path, wit: &str, world: &str) -> Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    resolve.push_dir(contract).context("the contract")?;
    let package = resolve.push_str("guest.wit", wit).context("the guest's WIT")?;
    let world = resolve.select_world(&[package], Some(world))?;
    let mut module = dummy_module(&resolve, world, ManglingAndAbi::Standard32);
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)?;
    ComponentEncoder::default().module(&module)?.validate(true).encode().context("could not make a component")
}
