//! `sandwirectl` on nodes of its own: each test has its own mount and network namespaces, which go with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod apply;
mod call;
mod doctor;
mod install;
mod node;
mod rehearsal;
