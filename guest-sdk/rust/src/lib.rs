//! (being built)
#[doc(hidden)]
pub mod bindings;
