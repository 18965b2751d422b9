//! The compiled policy of one plugin: what the hot path reads, one small JSON file per plugin in the active generation.

use crate::header;
use crate::paths::POLICY;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// All that one plugin may do on this node. Written by `sandwirectl apply` from `policy.toml`, never by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Plugin type, the name of its link in the plugin directory.
    pub plugin: String,
    /// `sha256:` and 64 hex digits of the component's source (`.wasm`).
    pub digest: String,
    /// File name of the compiled component, beside this file.
    pub compiled: String,
    /// Release of wasmtime that compiled it; another one can't map it.
    pub wasmtime: String,
    /// Interfaces of `sandwire:cni` it may import, by their WIT name ("links", "host-netns").
    pub imports: BTreeSet<String>,
    /// Whether imports of WASI are linked: no files, no sockets, no environment, output to the log.
    pub wasi: bool,
    /// Limits of one call.
    pub limits: Limits,
    /// Links of the host's namespace that are not the attachment's own.
    pub links: LinkRules,
    /// Patterns of sysctl keys beyond those of its own interface, "ipv4/ip_forward"; "KEY=VALUE" for one value alone.
    pub sysctls: Vec<String>,
    /// Endpoints it may call, by name, with where they are.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// Patterns of plugin types it may run as delegates. A pattern stands for address managers only; others are named.
    pub delegates: Vec<String>,
    /// Patterns of native (not ours) plugin types among them that may be executed.
    pub native_delegates: Vec<String>,
    /// Whether addresses that it decides itself count as the attachment's: in its result, and by the configuration that it
    /// gives to a delegate.
    #[serde(default)]
    pub own_addresses: bool,
    /// Whether it may make tap devices of the container.
    #[serde(default)]
    pub tap: bool,
    /// Patterns of identities of hardware ("0000:03:00.0") whose interface it may find, and move into the container, if the
    /// configuration names it.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Patterns of directories that a configuration's `dataDir` may name beside the default.
    pub data_dirs: Vec<String>,
    /// Files it may read: policy's name, or the path itself, to path.
    pub files: BTreeMap<String, String>,
    /// Whether none of its code runs when it is started: no module of it has a start function. A memory image may have it started.
    #[serde(default)]
    pub no_start: bool,
    /// Why this plugin can't run although it has a policy entry (digest mismatch, component missing ...): told when
    /// it is called. Empty when it can.
    pub refused: Option<String>,
}

/// What a sysctl of the node may be set to when the policy says nothing else.
pub const ENABLED: &str = "1";

/// Where a line of a plugin goes in the policy, and how it takes effect, for the text of an error.
pub fn entry(plugin: &str, line: impl Display) -> String {
    format!("{line}  under {} in {POLICY}, then run: sandwirectl apply", header(plugin))
}

impl Grant {
    /// As [`entry`], for this plugin.
    pub fn entry(&self, line: impl Display) -> String {
        entry(&self.plugin, line)
    }

    /// What the operator of the node is told who might want to allow what was refused: the whole line (`with_...`).
    pub fn to_allow(&self, line: impl Display) -> String {
        format!("to allow it write  {}", self.entry(line))
    }

    /// Whether it may give a sysctl of the node this value. "all" and "default" belong to every link: a pattern is not meant to
    /// be them.
    pub fn may_ensure(&self, key: &str, value: &str) -> bool {
        let of_all = key.split('/').any(|part| part == "all" || part == "default");
        self.sysctls.iter().any(|entry| {
            let (pattern, allowed) = entry.split_once('=').unwrap_or((entry, ENABLED));
            allowed == value && (pattern == key || (!of_all && matches_any(&[pattern], key)))
        })
    }

    /// Whether it may give a sysctl of the container this value.
    pub fn may_write(&self, key: &str, value: &str) -> bool {
        self.sysctls.iter().any(|entry| {
            let (pattern, allowed) = entry.split_once('=').unwrap_or((entry, value));
            allowed == value && matches_any(&[pattern], key)
        })
    }

    /// Whether it may reach sysctls of other directories than ipv4, ipv6 and core, which are opened for everybody; a delegate that
    /// policy names is taken to.
    pub fn reaches_all_sysctls(&self) -> bool {
        let others = |pattern: &String| !["ipv4/", "ipv6/", "core/"].iter().any(|usual| pattern.starts_with(usual));
        self.sysctls.iter().any(others) || self.delegates.iter().any(|entry| !entry.contains(['*', '?']))
    }

    /// The directories that `data_dirs` names itself. With `patterns` also those that all of what a pattern allows is below: of
    /// "/run/cni/*" it is "/run/cni", of "/run/cni*" none, for /run has much else.
    pub fn whole_data_dirs(&self, patterns: bool) -> impl Iterator<Item = &str> {
        self.data_dirs.iter().filter_map(move |entry| match entry.split_once(['*', '?']) {
            None => Some(entry.as_str()),
            Some((before, _)) => before.strip_suffix('/').filter(|directory| patterns && !directory.is_empty()),
        })
    }

    /// Whether it may run a plugin as its delegate. `is_ipam`: the configuration names it as the address manager.
    pub fn may_delegate(&self, plugin: &str, is_ipam: bool) -> bool {
        self.delegates.iter().any(|entry| entry == plugin || (is_ipam && matches_any(&[entry], plugin)))
    }
}

/// Limits of one call of one component. A delegate has its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Milliseconds from the start of the process to the error; whatever was done is undone after it.
    pub deadline_ms: u64,
    /// Bytes of all its linear memories together.
    pub memory_bytes: usize,
    /// Core instances, memories and tables of the component (componentize-py needs 64 instances or more).
    pub instances: usize,
    /// Entries of each table.
    pub table_elements: usize,
    /// Handles (netns, link, ruleset, store) alive at once.
    pub handles: usize,
    /// Bytes that host calls may copy out of the guest in one call.
    pub hostcall_bytes: usize,
    /// Bytes of log lines.
    pub log_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline_ms: 30_000,
            memory_bytes: 64 << 20,
            instances: 100,
            table_elements: 100_000,
            handles: 1024,
            hostcall_bytes: 1 << 20,
            log_bytes: 64 << 10,
        }
    }
}

/// Patterns of link names in the host's namespace. `*` stands for any run of characters, `?` for one.
/// `use` includes `see`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkRules {
    /// May be looked at.
    pub see: Vec<String>,
    /// May be a master or parent; also links of the container, which a plugin sees anyway.
    #[serde(rename = "use")]
    pub use_: Vec<String>,
    /// May be changed, if it is a bridge or the port of a bridge's VLAN; anything else of these names may be looked at.
    pub change: Vec<String>,
    /// May be moved into the container, if the configuration names it. Includes `see`.
    pub take: Vec<String>,
}

/// An agent that plugins call by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// `http://ADDRESS:PORT` (an IP address: no name is looked up on this path) or `unix:/PATH`.
    pub address: String,
    /// Milliseconds for one call, from connecting to the last byte.
    pub timeout_ms: u64,
    /// "METHOD /path" or "METHOD /prefix/*".
    pub allow: Vec<String>,
    /// Bytes of an answer that are read.
    pub answer_bytes: usize,
}

/// The file name of a compiled component. It says from which source, by which compiler and for which machine it was made,
/// so that a file can't be taken for another one's, and a file once written is never written again.
pub fn compiled_name(plugin: &str, digest: &str, wasmtime: &str, target: &str) -> String {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    format!("{plugin}-{}-{wasmtime}-{target}.cwasm", hex.get(..12).unwrap_or(hex))
}

/// Whether `name` matches one of `patterns`: `*` is any run of characters, `?` any one.
pub fn matches_any<S: AsRef<str>>(patterns: &[S], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern.as_ref().as_bytes(), name.as_bytes()))
}

/// Iterative glob match with one point to go back to, so that a hostile name can't make it exponential.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p, n));
                p += 1;
            }
            Some(b'?') => {
                p += 1;
                n += 1;
            }
            Some(c) if name.get(n) == Some(c) => {
                p += 1;
                n += 1;
            }
            _ => match back {
                Some((star, at)) => {
                    p = star + 1;
                    n = at + 1;
                    back = Some((star, at + 1));
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|c| *c == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(sysctls: &[&str], delegates: &[&str]) -> Grant {
        let text = serde_json::json!({"plugin": "p", "digest": "", "compiled": "", "wasmtime": "", "imports": [], "wasi": false,
            "limits": {}, "links": {}, "sysctls": sysctls, "endpoints": {}, "delegates": delegates, "native_delegates": [],
            "data_dirs": [], "files": {}, "refused": null});
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn sysctls_of_the_node_are_switched_on_unless_the_policy_says_more() {
        let grant = grant(&["ipv4/ip_forward", "ipv4/conf/*/route_localnet", "ipv4/conf/all/rp_filter=0"], &[]);
        for (key, value, wanted) in [
            ("ipv4/ip_forward", "1", true),
            ("ipv4/ip_forward", "0", false),
            ("ipv4/conf/cni0/route_localnet", "1", true),
            ("ipv4/conf/all/route_localnet", "1", false),
            ("ipv4/conf/default/route_localnet", "1", false),
            ("ipv4/conf/all/rp_filter", "0", true),
            ("ipv4/conf/all/rp_filter", "1", false),
        ] {
            assert_eq!(grant.may_ensure(key, value), wanted, "{key} = {value}");
        }
        assert!(grant.may_write("ipv4/ip_forward", "0") && !grant.may_write("ipv4/conf/all/rp_filter", "2"));
    }

    #[test]
    fn a_pattern_is_below_the_directory_that_it_names_whole() {
        let mut grant = grant(&[], &[]);
        grant.data_dirs = ["/srv/ipam", "/run/cni/*", "/run/cni*", "/var/?/x", "/*"].map(str::to_owned).into();
        assert_eq!(grant.whole_data_dirs(false).collect::<Vec<_>>(), ["/srv/ipam"]);
        assert_eq!(grant.whole_data_dirs(true).collect::<Vec<_>>(), ["/srv/ipam", "/run/cni", "/var"]);
    }

    #[test]
    fn a_pattern_of_delegates_stands_for_address_managers() {
        let grant = grant(&[], &["*", "tuning"]);
        assert!(grant.may_delegate("host-local", true) && grant.may_delegate("tuning", false));
        assert!(!grant.may_delegate("macvlan", false));
    }

    #[test]
    fn patterns() {
        for (pattern, name, wanted) in [
            ("cni0", "cni0", true),
            ("cni0", "cni01", false),
            ("evpn---*", "evpn---9f3c21aa", true),
            ("*", "", true),
            ("br-?", "br-1", true),
            ("br-?", "br-", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
        ] {
            assert_eq!(matches_any(&[pattern], name), wanted, "{pattern} {name}");
        }
    }
}
