//! What no honest toolchain makes: crashes, answers that are no answers, handles that were never given.

// Handles and strings that lie can't be made without it; that they are unsound is what is proven to be harmless.
#![allow(unsafe_code)]

use crate::{Act, succeeded};
use sandwire_plugin::Failure;
use sandwire_plugin::host::{
    self,
    namespaces::{Link, Netns},
};
use serde_json::Value;

pub(crate) const ACTS: &[(&str, Act)] = &[
    ("unreachable", unreachable),
    ("panic", panic),
    ("panic-said", panic_said),
    ("out-of-bounds", out_of_bounds),
    ("garbage-result", garbage_result),
    ("wrong-result", wrong_result),
    ("huge-result", huge_result),
    ("huge-failure", huge_failure),
    ("code-zero", code_zero),
    ("forged-handle", forged_handle),
    ("foreign-handle", foreign_handle),
    ("dropped-handle", dropped_handle),
    ("broken-text", broken_text),
];

fn unreachable(_: &Value) -> Result<String, Failure> {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    succeeded("unreachable")
}

#[allow(clippy::panic, reason = "a panic is the act")]
fn panic(_: &Value) -> Result<String, Failure> {
    panic!("on purpose")
}

fn panic_said(config: &Value) -> Result<String, Failure> {
    sandwire_plugin::glue::say_panics();
    panic(config)
}

fn out_of_bounds(_: &Value) -> Result<String, Failure> {
    // SAFETY: there is none. The address is beyond any linear memory that policy allows; the sandbox has to notice.
    let byte = unsafe { std::ptr::read_volatile(0xffff_fff0_usize as *const u8) };
    succeeded(&format!("read byte {byte}"))
}

fn garbage_result(_: &Value) -> Result<String, Failure> {
    Ok("{\"cniVersion\": \"1.1.0\", \"ips\": [".to_owned())
}

fn wrong_result(_: &Value) -> Result<String, Failure> {
    Ok("{\"cniVersion\":\"1.1.0\",\"ips\":[{\"address\":\"999.1.1.1/24\"}]}".to_owned())
}

fn huge_result(_: &Value) -> Result<String, Failure> {
    Ok(format!("{{\"cniVersion\":\"1.1.0\",\"dns\":{{\"domain\":\"{}\"}}}}", "x".repeat(10 << 20)))
}

fn huge_failure(_: &Value) -> Result<String, Failure> {
    Err(Failure::new(202, "x".repeat(10 << 20)))
}

/// 0 is no error code: a runtime that looks at the code alone would think it went well.
fn code_zero(_: &Value) -> Result<String, Failure> {
    Err(Failure::new(0, "all is well"))
}

fn forged_handle(_: &Value) -> Result<String, Failure> {
    // SAFETY: no such handle was ever given.
    let netns = unsafe { Netns::from_handle(12_345) };
    netns.links()?;
    succeeded("a handle out of thin air")
}

fn foreign_handle(_: &Value) -> Result<String, Failure> {
    // SAFETY: the handle is one of a namespace, not of a link.
    let link = unsafe { Link::from_handle(host::netns().take_handle()) };
    link.info()?;
    succeeded("a namespace as a link")
}

fn dropped_handle(_: &Value) -> Result<String, Failure> {
    let number = {
        let netns = host::netns();
        netns.handle()
    };
    // SAFETY: the handle was given back two lines above.
    let netns = unsafe { Netns::from_handle(number) };
    netns.links()?;
    succeeded("a handle that was given back")
}

fn broken_text(_: &Value) -> Result<String, Failure> {
    // SAFETY: it is no UTF-8.
    let name = unsafe { String::from_utf8_unchecked(vec![b'l', 0xff, 0xfe]) };
    host::netns().link(&name)?;
    succeeded("text that is no UTF-8")
}
