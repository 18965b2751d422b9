//! Puts the functions of a core module into another order.
//!
//! A node maps a plugin's code from a file, 64 KB for each page that is touched first (`do_fault_around`), and compiled code is in
//! the order of the functions. What a call uses is a fifth of it, and spread over all it is a page fault for nearly every 64 KB, for
//! every pod; side by side it is a few.

use anyhow::{Context, Result};
use std::collections::HashMap;
use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{CodeSection, FunctionSection, Module};
use wasmparser::{
    CodeSectionReader, CustomSectionReader, FunctionBody, FunctionSectionReader, KnownCustom, Name, Parser, Payload,
    TypeRef,
};

/// The same module with the functions of these names before all others, in this order. Names that it does not have are passed over. It
/// has no names afterwards, nor anything else that tools alone read.
///
/// # Errors
/// When `module` is no core module.
pub fn ordered(module: &[u8], names: &[&str]) -> Result<Vec<u8>> {
    let functions = Functions::read(module).context("no core module")?;
    let mut order: Vec<usize> = names.iter().filter_map(|name| functions.by_name.get(name).copied()).collect();
    let mut is_placed = vec![false; functions.count];
    order.retain(|function| is_placed.get_mut(*function).is_some_and(|is_placed| !std::mem::replace(is_placed, true)));
    order.extend(is_placed.iter().enumerate().filter(|(_, is_placed)| !**is_placed).map(|(function, _)| function));
    let mut places = vec![0; functions.count];
    for (place, function) in (0_u32..).zip(&order) {
        if let Some(its) = places.get_mut(*function) {
            *its = place;
        }
    }
    let mut encoded = Module::new();
    Order { imported: functions.imported, order, places }
        .parse_core_module(&mut encoded, Parser::new(0), module)
        .context("could not write its functions in another order")?;
    Ok(encoded.finish())
}

/// A core module's own functions that have names, with their numbers, which count what is imported too; sorted.
///
/// # Errors
/// When `module` is no core module.
pub fn functions(module: &[u8]) -> Result<Vec<(usize, &str)>> {
    let functions = Functions::read(module).context("no core module")?;
    let imported = usize::try_from(functions.imported)?;
    let mut named: Vec<_> = functions.by_name.into_iter().map(|(name, own)| (imported + own, name)).collect();
    named.sort_unstable();
    Ok(named)
}

/// What a module says of its functions.
struct Functions<'a> {
    /// How many are imported: their numbers come first.
    imported: u32,
    /// How many it has itself.
    count: usize,
    /// Which of its own has a name, from 0.
    by_name: HashMap<&'a str, usize>,
}

impl<'a> Functions<'a> {
    fn read(module: &'a [u8]) -> Result<Self> {
        let mut its = Self { imported: 0, count: 0, by_name: HashMap::new() };
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        its.imported += u32::from(matches!(import?.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)));
                    }
                }
                Payload::FunctionSection(functions) => its.count = usize::try_from(functions.count())?,
                Payload::CustomSection(section) => its.names(&section)?,
                _ => {}
            }
        }
        Ok(its)
    }

    /// It comes last (WebAssembly core specification, "Name Section"), so what is imported is known.
    fn names(&mut self, section: &CustomSectionReader<'a>) -> Result<()> {
        let KnownCustom::Name(names) = section.as_known() else { return Ok(()) };
        for name in names {
            let Name::Function(names) = name? else { continue };
            for naming in names {
                let naming = naming?;
                if let Some(number) = naming.index.checked_sub(self.imported) {
                    self.by_name.insert(naming.name, usize::try_from(number)?);
                }
            }
        }
        Ok(())
    }
}

struct Order {
    imported: u32,
    /// Which function is at each place.
    order: Vec<usize>,
    /// At which place each function is.
    places: Vec<u32>,
}

type Outcome<T = ()> = Result<T, reencode::Error>;

impl Order {
    /// `all` in this order.
    fn sort<T: Clone>(&self, all: &[T]) -> Outcome<Vec<T>> {
        let at = |function: &usize| all.get(*function).cloned();
        self.order.iter().map(at).collect::<Option<_>>().ok_or(reencode::Error::InvalidCodeSectionSize)
    }
}

impl Reencode for Order {
    type Error = std::convert::Infallible;

    fn function_index(&mut self, function: u32) -> Outcome<u32> {
        let Some(own) = function.checked_sub(self.imported) else { return Ok(function) };
        let place = usize::try_from(own).ok().and_then(|own| self.places.get(own));
        place.map(|place| self.imported + place).ok_or(reencode::Error::InvalidCodeSectionSize)
    }

    fn parse_function_section(&mut self, to: &mut FunctionSection, section: FunctionSectionReader<'_>) -> Outcome {
        let types = section.into_iter().collect::<Result<Vec<u32>, _>>()?;
        for its in self.sort(&types)? {
            to.function(self.type_index(its)?);
        }
        Ok(())
    }

    fn parse_code_section(&mut self, to: &mut CodeSection, section: CodeSectionReader<'_>) -> Outcome {
        let bodies = section.into_iter().collect::<Result<Vec<FunctionBody<'_>>, _>>()?;
        self.sort(&bodies)?.into_iter().try_for_each(|body| self.parse_function_body(to, body))
    }

    fn parse_custom_section(&mut self, to: &mut Module, section: CustomSectionReader<'_>) -> Outcome {
        // Others may name functions, or places in their code, by numbers that are wrong now (names, debug information, relocations, hints
        // for branches), and are of no use to a node.
        match section.name() {
            name if name.starts_with("component-type") => reencode::utils::parse_custom_section(self, to, section),
            "producers" | "target_features" => reencode::utils::parse_custom_section(self, to, section),
            _ => Ok(()),
        }
    }
}
