//! Functions in another order: the same module.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use sandwire_componentize::{functions, ordered};
use wasmparser::{ElementItems, Operator, Parser, Payload, Validator};

const MODULE: &str = r#"(module
    (import "host" "f" (func $imported (param i32)))
    (table 2 funcref)
    (global $g (mut i32) (i32.const 0))
    (elem (i32.const 0) $a $c)
    (func $start (global.set $g (i32.const 7)))
    (func $a (export "a") (param i32) (call $imported (local.get 0)))
    (func $b (result i64) (i64.const 2))
    (func $c (export "c") (result i64) (call $a (i32.const 1)) (drop (ref.func $c)) (call $b))
    (export "f" (func $imported))
    (@custom "component-type:kept" "as it is") (@custom "linking" "by numbers")
    (start $start))"#;

/// What a module has, by numbers.
#[derive(Debug, Default, PartialEq)]
struct Shape {
    exports: Vec<(String, u32)>,
    elements: Vec<u32>,
    start: Option<u32>,
    types: Vec<u32>,
    /// Of each function those that it calls or refers to.
    calls: Vec<Vec<u32>>,
    custom: Vec<String>,
}

fn shape(module: &[u8]) -> Shape {
    Validator::new().validate_all(module).unwrap();
    let mut shape = Shape::default();
    for payload in Parser::new(0).parse_all(module) {
        match payload.unwrap() {
            Payload::FunctionSection(types) => shape.types = types.into_iter().map(Result::unwrap).collect(),
            Payload::ExportSection(exports) => {
                shape.exports =
                    exports.into_iter().map(|export| export.unwrap()).map(|e| (e.name.into(), e.index)).collect();
            }
            Payload::StartSection { func, .. } => shape.start = Some(func),
            Payload::ElementSection(elements) => {
                for element in elements {
                    let ElementItems::Functions(items) = element.unwrap().items else { panic!() };
                    shape.elements.extend(items.into_iter().map(Result::unwrap));
                }
            }
            Payload::CodeSectionEntry(body) => {
                let operators = body.get_operators_reader().unwrap().into_iter();
                shape.calls.push(
                    operators
                        .filter_map(|operator| match operator.unwrap() {
                            Operator::Call { function_index } | Operator::RefFunc { function_index } => {
                                Some(function_index)
                            }
                            _ => None,
                        })
                        .collect(),
                );
            }
            Payload::CustomSection(section) => shape.custom.push(section.name().to_owned()),
            _ => {}
        }
    }
    shape
}

#[test]
fn whatever_names_a_function_follows_it() {
    let module = wat::parse_str(MODULE).unwrap();
    assert_eq!(functions(&module).unwrap(), [(1, "start"), (2, "a"), (3, "b"), (4, "c")]);
    let before = shape(&module);
    let [start, a, b, c] = [before.types[0], before.types[1], before.types[2], before.types[3]];
    // One that it does not have, and one twice.
    let after = shape(&ordered(&module, &["c", "nowhere", "imported", "b", "c"]).unwrap());
    let named = |pairs: &[(&str, u32)]| pairs.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect::<Vec<_>>();
    assert_eq!(
        after,
        Shape {
            exports: named(&[("a", 4), ("c", 1), ("f", 0)]),
            elements: vec![4, 1],
            start: Some(3),
            types: vec![c, b, start, a],
            calls: vec![vec![4, 1, 2], vec![], vec![], vec![0]],
            custom: vec!["component-type:kept".to_owned()],
        }
    );
}

#[test]
fn without_names_all_stays_as_it_is() {
    let module = wat::parse_str(MODULE).unwrap();
    let shape_without_names = Shape { custom: vec!["component-type:kept".to_owned()], ..shape(&module) };
    assert_eq!(shape(&ordered(&module, &[]).unwrap()), shape_without_names);
    // Its names are gone.
    let once = ordered(&module, &["b"]).unwrap();
    assert_eq!(ordered(&once, &["c"]).unwrap(), once);
    assert!(ordered(b"not wasm", &[]).is_err() && functions(b"not wasm").is_err());
}
