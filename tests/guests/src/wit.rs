//! Whether a component that was built against an earlier text of the contract still runs with the present one.
//!
//! wasmtime compares an import's type with the host's field by field: a record with one more field, a variant or enum with
//! one more case, is another type, and every plugin built before stops to start. That a type "only grew" helps nobody.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::Path;
use wit_component::DecodedWasm;
use wit_parser::{
    Function, Handle, InterfaceId, Param, Resolve, Type, TypeDefKind, TypeId, TypeOwner, WorldId, WorldItem, WorldKey,
};

/// Package and interface without the version ("sandwire:cni/links"), function, signature spelled out to the last field.
type Functions = BTreeMap<(String, String), String>;

/// Compares a component with the contract in `folder`; one line for everything that would break it.
///
/// # Errors
/// When either can't be read.
pub fn broken_by(folder: &Path, component: &[u8]) -> Result<Vec<String>> {
    let contract = contract(folder)?;
    let DecodedWasm::Component(resolve, world) = wit_component::decode(component)? else { bail!("no component") };
    let mut broken = Vec::new();
    for ((interface, function), wanted) in functions(&resolve, world)? {
        let key = (interface.clone(), function.clone());
        match contract.get(&key) {
            None => broken.push(format!("{interface}: function {function} is gone")),
            Some(found) if *found != wanted => {
                broken.push(format!("{interface}: function {function} was\n    {wanted}\n  and is now\n    {found}"));
            }
            Some(_) => {}
        }
    }
    Ok(broken)
}

/// Every function of the contract in `folder`, exports included.
///
/// # Errors
/// When it is no WIT.
pub fn contract(folder: &Path) -> Result<Functions> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(folder).with_context(|| folder.display().to_string())?;
    let package = resolve.packages.get(package).context("no package")?;
    let mut all = Functions::new();
    for id in package.interfaces.values() {
        add(&resolve, *id, &mut all)?;
    }
    Ok(all)
}

/// Every function that a component imports or exports.
///
/// # Errors
/// When it is no component.
pub fn functions_of(component: &[u8]) -> Result<Functions> {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(component)? else { bail!("no component") };
    functions(&resolve, world)
}

fn functions(resolve: &Resolve, world: WorldId) -> Result<Functions> {
    let world = resolve.worlds.get(world).context("no world")?;
    let mut all = Functions::new();
    for (key, item) in world.imports.iter().chain(&world.exports) {
        match (key, item) {
            (_, WorldItem::Interface { id, .. }) => add(resolve, *id, &mut all)?,
            (WorldKey::Name(_), WorldItem::Type { .. }) => {}
            _ => bail!("it imports or exports {} outside of an interface", resolve.name_world_key(key)),
        }
    }
    Ok(all)
}

fn add(resolve: &Resolve, id: InterfaceId, all: &mut Functions) -> Result<()> {
    let interface = resolve.interfaces.get(id).context("no interface")?;
    let name = resolve.id_of(id).context("an interface without a name")?;
    let name = name.split('@').next().unwrap_or_default().to_owned();
    for (function, definition) in &interface.functions {
        // "[method]store.reserve" -> "store.reserve"
        let function = function.rsplit(']').next().unwrap_or_default().to_owned();
        all.insert((name.clone(), function), signature(resolve, definition));
    }
    Ok(())
}

fn signature(resolve: &Resolve, function: &Function) -> String {
    let parameter = |Param { name, ty, .. }: &Param| format!("{name}: {}", spell(resolve, ty));
    let parameters: Vec<String> = function.params.iter().map(parameter).collect();
    let result = function.result.as_ref().map_or_else(|| "()".to_owned(), |ty| spell(resolve, ty));
    format!("({}) -> {result}", parameters.join(", "))
}

/// A type without any name of its own but a resource's: what two sides compare.
fn spell(resolve: &Resolve, ty: &Type) -> String {
    match ty {
        Type::Id(id) => spell_definition(resolve, *id),
        Type::ErrorContext => "error-context".into(),
        simple => format!("{simple:?}").to_lowercase(),
    }
}

fn option(resolve: &Resolve, ty: Option<&Type>) -> String {
    ty.map_or_else(|| "_".to_owned(), |ty| spell(resolve, ty))
}

fn spell_definition(resolve: &Resolve, id: TypeId) -> String {
    let Some(definition) = resolve.types.get(id) else { return "?".into() };
    let list = |items: Vec<String>| items.join(", ");
    match &definition.kind {
        TypeDefKind::Type(ty) => spell(resolve, ty),
        TypeDefKind::Record(record) => {
            format!(
                "{{{}}}",
                list(record.fields.iter().map(|f| format!("{}: {}", f.name, spell(resolve, &f.ty))).collect())
            )
        }
        TypeDefKind::Variant(variant) => {
            let case = |c: &wit_parser::Case| format!("{}({})", c.name, option(resolve, c.ty.as_ref()));
            format!("variant[{}]", list(variant.cases.iter().map(case).collect()))
        }
        TypeDefKind::Enum(cases) => format!("enum[{}]", list(cases.cases.iter().map(|c| c.name.clone()).collect())),
        TypeDefKind::Flags(flags) => format!("flags[{}]", list(flags.flags.iter().map(|f| f.name.clone()).collect())),
        TypeDefKind::Tuple(tuple) => format!("({})", list(tuple.types.iter().map(|t| spell(resolve, t)).collect())),
        TypeDefKind::Option(ty) => format!("option<{}>", spell(resolve, ty)),
        TypeDefKind::List(ty) => format!("list<{}>", spell(resolve, ty)),
        TypeDefKind::Result(result) => {
            format!("result<{}, {}>", option(resolve, result.ok.as_ref()), option(resolve, result.err.as_ref()))
        }
        TypeDefKind::Handle(Handle::Own(id)) => resource(resolve, *id),
        TypeDefKind::Handle(Handle::Borrow(id)) => format!("borrow<{}>", resource(resolve, *id)),
        TypeDefKind::Resource => resource(resolve, id),
        // Nothing of the contract is of these kinds; a change to one would be seen as a change.
        other => format!("{other:?}"),
    }
}

/// A resource by the interface that defines it, through all `use`s.
fn resource(resolve: &Resolve, mut id: TypeId) -> String {
    while let Some(definition) = resolve.types.get(id) {
        match (&definition.kind, definition.owner) {
            (TypeDefKind::Type(Type::Id(next)), _) => id = *next,
            (_, TypeOwner::Interface(interface)) => {
                let interface = resolve.id_of(interface).unwrap_or_default();
                let interface = interface.split('@').next().unwrap_or_default().to_owned();
                return format!("{interface}.{}", definition.name.as_deref().unwrap_or_default());
            }
            _ => break,
        }
    }
    "?".into()
}
