//! A plugin that crashes, or answers and holds what it was never given: an error, and nothing else happens.

use sandwire_guests::Bench;
use serde_json::json;

#[test]
fn crashes() {
    let bench = Bench::new("hostile", "", "").unwrap();
    for (act, why) in
        [("unreachable", "unreachable"), ("panic", "unreachable"), ("recurse", ""), ("out-of-bounds", "out of bounds")]
    {
        let error = bench.stopped(act, &json!({}), 114, "\"hostile\" crashed").unwrap();
        assert!(error.details.contains(why), "{act}: {error:?}");
    }
}

/// What the Rust SDK writes for a plugin that has `SAYS_PANICS`; what has a hook is no less of a crash.
#[test]
fn crashes_that_say_where() {
    let bench = Bench::new("hostile", "", "").unwrap();
    let outcome = bench.act("panic-said", &json!({})).unwrap();
    outcome.error_with(114, "\"hostile\" crashed").unwrap();
    for part in ["critical: plugin=hostile ", " panic: panicked at ", "src/lies.rs:", " on purpose"] {
        assert!(outcome.stderr.contains(part), "{part:?} is not in {:?}", outcome.stderr);
    }
    bench.unchanged().unwrap();
}

#[test]
fn handles_that_were_never_given() {
    let bench = Bench::new("hostile", "", "").unwrap();
    for act in ["forged-handle", "foreign-handle", "dropped-handle"] {
        let error = bench.stopped(act, &json!({}), 114, "\"hostile\" crashed").unwrap();
        assert!(error.details.contains("handle"), "{act}: {error:?}");
    }
}

#[test]
fn text_that_is_none() {
    let bench = Bench::new("hostile", "", "").unwrap();
    let error = bench.stopped("broken-text", &json!({}), 114, "\"hostile\" crashed").unwrap();
    assert!(error.details.contains("utf-8") || error.details.contains("UTF-8"), "{error:?}");
}

#[test]
fn answers_that_are_none() {
    let bench = Bench::new("hostile", "", "").unwrap();
    for act in ["garbage-result", "wrong-result"] {
        bench.stopped(act, &json!({}), 999, "plugin \"hostile\" returned no valid result").unwrap();
    }
    // A failure that calls itself none is one.
    bench.stopped("code-zero", &json!({}), 999, "all is well").unwrap();
}
