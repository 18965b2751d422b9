//! Where everything is on a node. No flag and no environment variable moves any of it: a runtime passes its own
//! environment on to plugins, and a path that it could set would be a way around the policy. Tests use a mount namespace.

/// What each plugin may do: the operator's file.
pub const POLICY: &str = "/etc/sandwire/policy.toml";

/// Components as shipped or pulled, `<type>.wasm`.
pub const PLUGINS: &str = "/usr/lib/sandwire/plugins";

/// What `sandwirectl install` put into [`PLUGINS`], in the format of sha256sum: what differs from it is the operator's.
pub const SHIPPED: &str = "/usr/lib/sandwire/plugins/SHA256SUMS";

/// Where links to the CNI binary are unless `--bin-dir` says otherwise.
pub const BIN_DIR: &str = "/opt/cni/bin";

/// State of Sandwire that outlives a reboot.
pub const STATE: &str = "/var/lib/sandwire";

/// One directory per `sandwirectl apply`, named by a number that only grows.
pub const GENERATIONS: &str = "/var/lib/sandwire/generations";

/// The link to the generation that calls use.
pub const ACTIVE: &str = "/var/lib/sandwire/active";

/// The index that makes look-ups of leases flat; rebuilt from [`LEASES`] whenever it is missing.
pub const LEASE_INDEX: &str = "/var/lib/sandwire/leases";

/// Notes of plugins (`kv`).
pub const NOTES: &str = "/var/lib/sandwire/notes";

/// Leases in host-local's own format, unless a configuration's `dataDir` says otherwise.
pub const LEASES: &str = "/var/lib/cni/networks";

/// Privileged operations of each attachment. On a tmpfs: what a reboot undoes in the kernel it also forgets here.
pub const JOURNAL: &str = "/run/sandwire/journal";
