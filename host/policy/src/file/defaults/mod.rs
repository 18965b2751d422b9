//! The policy of a fresh node: the shipped plugins do what the native ones they stand in for could do, and no more.
//! One text file for each, because operators read these, not programs.

/// What stands before the plugins.
pub const HEAD: &str = include_str!("head.toml");

/// The plugins with an entry here.
pub const SHIPPED: [&str; 19] = [
    "bagpipe",
    "bandwidth",
    "bridge",
    "dhcp",
    "dummy",
    "firewall",
    "host-device",
    "host-local",
    "ipvlan",
    "loopback",
    "macvlan",
    "portmap",
    "ptp",
    "sbr",
    "static",
    "tap",
    "tuning",
    "vlan",
    "vrf",
];

const ENTRIES: [(&str, &str); 19] = [
    ("bagpipe", include_str!("bagpipe.toml")),
    ("bandwidth", include_str!("bandwidth.toml")),
    ("bridge", include_str!("bridge.toml")),
    ("dhcp", include_str!("dhcp.toml")),
    ("dummy", include_str!("dummy.toml")),
    ("firewall", include_str!("firewall.toml")),
    ("host-device", include_str!("host-device.toml")),
    ("host-local", include_str!("host-local.toml")),
    ("ipvlan", include_str!("ipvlan.toml")),
    ("loopback", include_str!("loopback.toml")),
    ("macvlan", include_str!("macvlan.toml")),
    ("portmap", include_str!("portmap.toml")),
    ("ptp", include_str!("ptp.toml")),
    ("sbr", include_str!("sbr.toml")),
    ("static", include_str!("static.toml")),
    ("tap", include_str!("tap.toml")),
    ("tuning", include_str!("tuning.toml")),
    ("vlan", include_str!("vlan.toml")),
    ("vrf", include_str!("vrf.toml")),
];

/// The entry of a shipped plugin, pinned to `digest`; `None` for others.
pub fn entry(plugin: &str, digest: &str) -> Option<String> {
    let (_, text) = ENTRIES.iter().find(|(name, _)| *name == plugin)?;
    Some(text.replace("DIGEST", digest))
}
