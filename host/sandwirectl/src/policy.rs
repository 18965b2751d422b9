//! The policy file, read against the contract that the runtime has.

use anyhow::Result;
use sandwire_policy::file::{Contract, PolicyFile};
use sandwire_runtime::imports::{CAPABILITIES, FREE};

/// Reads a policy file's text.
///
/// # Errors
/// Every mistake with its line.
pub(crate) fn parse(text: &str) -> Result<PolicyFile> {
    // "wasi" stands in that table for people; in the file it has a key of its own.
    let grantable: Vec<&str> = CAPABILITIES.iter().map(|(name, _)| *name).filter(|name| *name != "wasi").collect();
    Ok(PolicyFile::parse(text, Contract { grantable: &grantable, free: &FREE })?)
}
