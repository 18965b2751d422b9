//! What a hostile plugin can't do, and what an honest one can rely on: through the installed binary, on nodes of the harness.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod claims;
mod conformance;
mod dhcp;
mod fixtures;
mod imports;
mod lies;
mod limits;
mod reach;
mod roster;
mod undo;
mod wasi;
