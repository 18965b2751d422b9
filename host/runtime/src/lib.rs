//! Runs a plugin component for one CNI call.

pub mod engine;
