//! The policy of a fresh node: the shipped plugins do what the native ones they stand in for could do, and no more.
//! One text file for each, because operators read these, not programs.

/// What stands before the plugins.
pub const HEAD: &str = include_str!("head.toml");

/// The plugins with an entry here.
pub const SHIPPED: [&str; 6] = ["bagpipe", "bridge", "firewall", "host-local", "loopback", "portmap"];

const ENTRIES: [(&str, &str); 6] = [
    ("bagpipe", include_str!("bagpipe.toml")),
    ("bridge", include_str!("bridge.toml")),
    ("firewall", include_str!("firewall.toml")),
    ("host-local", include_str!("host-local.toml")),
    ("loopback", include_str!("loopback.toml")),
    ("portmap", include_str!("portmap.toml")),
];

/// The entry of a shipped plugin, pinned to `digest`; `None` for others.
pub fn entry(plugin: &str, digest: &str) -> Option<String> {
    let (_, text) = ENTRIES.iter().find(|(name, _)| *name == plugin)?;
    Some(text.replace("DIGEST", digest))
}
