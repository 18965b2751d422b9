//! Turns the core module that `cargo build --target wasm32-unknown-unknown` makes of a plugin into a component.
//!
//! The module already carries its WIT (the SDK puts it into `component-type` sections); what is added here is the
//! component's own wrapping, in which only those imports remain that the code calls. That list is what an operator
//! reads and what the policy is compared with, so nothing may be in it that the plugin does not use.

mod order;

pub use order::{functions, ordered};

use anyhow::{Context, Result, bail, ensure};
use wit_component::{ComponentEncoder, DecodedWasm};
use wit_parser::{WorldItem, WorldKey};

/// The export that every plugin must have.
const ATTACH: &str = "sandwire:cni/attach@";

/// What a component takes and gives, by the names in its binary ("sandwire:cni/links@0.1.0"), sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surface {
    /// Interfaces it imports. Those of `types` alone (`sandwire:cni/types`) grant nothing.
    pub imports: Vec<String>,
    /// Interfaces it exports.
    pub exports: Vec<String>,
}

/// Makes a component of `module`, in which the functions of the names `first` stand before all others. The same bytes always give the
/// same component.
///
/// # Errors
/// When `module` is no core module with WIT inside, when the result does not validate, when it does not export
/// `attach`, and when it imports anything but `sandwire:cni`: code that reaches for WASI (a clock, random numbers,
/// `std::env`) is found when it is built, not on a node.
pub fn componentize(module: &[u8], first: &[&str]) -> Result<Vec<u8>> {
    let component = ComponentEncoder::default()
        .module(&ordered(module, first)?)
        .context("no core module with WIT inside (is sandwire_plugin::export! missing?)")?
        .validate(true)
        .encode()
        .context("could not make a component")?;
    let surface = surface(&component)?;
    let foreign: Vec<_> = surface.imports.iter().filter(|name| !name.starts_with("sandwire:cni/")).cloned().collect();
    ensure!(
        foreign.is_empty(),
        "it imports {}; a plugin built with this tool may import only sandwire:cni (find what needs the rest, often \
         a random number or the time, and use the SDK's own functions)",
        foreign.join(", ")
    );
    ensure!(
        surface.exports.iter().any(|name| name.starts_with(ATTACH)),
        "it does not export sandwire:cni/attach; add sandwire_plugin::export!(YourPlugin)"
    );
    Ok(component)
}

/// What a component imports and exports.
///
/// # Errors
/// When `component` is no component.
pub fn surface(component: &[u8]) -> Result<Surface> {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(component).context("could not be decoded")?
    else {
        bail!("a WIT package, not a component");
    };
    let world = resolve.worlds.get(world).context("a component without a world")?;
    let names = |items: &mut dyn Iterator<Item = (&WorldKey, &WorldItem)>| {
        let mut names: Vec<String> = items.map(|(key, _)| resolve.name_world_key(key)).collect();
        names.sort_unstable();
        names
    };
    Ok(Surface { imports: names(&mut world.imports.iter()), exports: names(&mut world.exports.iter()) })
}
