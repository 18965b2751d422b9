//! Imports are capabilities: which interfaces of the contract there are, what each lets a plugin do, and linking
//! exactly the ones that a component imports and its policy grants.

use crate::bindings as b;
use crate::guest::Guest;
use sandwire_cni::{Error, code};
use sandwire_policy::Grant;
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

/// The package of the contract, as it stands before an interface's name in an import.
pub const PACKAGE: &str = "sandwire:cni/";

/// The versions of the contract that are served: within 0.1.x functions are only added.
pub const VERSION: &str = "0.1.";

/// Interfaces that hold types and handles and no way to get one: they grant nothing.
pub const FREE: [&str; 2] = ["types", "namespaces"];

/// Every interface that a policy can grant, with what it lets a plugin do. The order is that of `wit/world.wit`.
pub const CAPABILITIES: [(&str, &str); 24] = [
    ("leases", "reserve and release addresses of its network, for the calling attachment only"),
    ("kv", "keep small notes of its own"),
    ("files", "read the text files that policy names"),
    ("endpoint", "call the agents that policy names"),
    ("log", "write log lines"),
    ("random", "get random bytes"),
    ("host-netns", "look into the node's network namespace, at links that policy lists or the attachment owns"),
    ("container-netns", "look into the container's network namespace"),
    ("shared", "make sure of what attachments share: bridges, gateway addresses, node sysctls"),
    ("links", "make, change and remove network interfaces of the attachment"),
    ("bridging", "set options and VLANs of bridge ports"),
    ("devices", "find hardware by the identities that policy lists"),
    ("addresses", "add and remove addresses of the attachment's links"),
    ("dhcp", "get the address of the attachment's interface from a DHCP server on its network"),
    ("routes", "add and remove routes of the attachment, policy rules"),
    ("configure", "bring an interface up with its addresses and routes"),
    ("neighbours", "set ARP, ND and forwarding entries"),
    ("sysctl", "read network sysctls, write those of its own interface"),
    ("firewall", "state firewall rules for the attachment's own addresses and ports"),
    ("shaping", "limit bandwidth of the attachment's links"),
    ("conntrack", "forget tracked connections"),
    ("wait", "wait for links and addresses to become ready"),
    ("delegate", "run the plugins that policy lists, for the same attachment"),
    ("wasi", "import WASI: linked without files, sockets and environment"),
];

/// Interfaces that reach a network namespace: a call without any of them opens none and keeps no capability.
const NETWORK: [&str; 15] = [
    "host-netns",
    "container-netns",
    "shared",
    "links",
    "bridging",
    "devices",
    "addresses",
    "dhcp",
    "routes",
    "configure",
    "neighbours",
    "sysctl",
    "firewall",
    "shaping",
    "conntrack",
];

/// The interfaces that give a first handle.
const NAMESPACES: [&str; 2] = ["host-netns", "container-netns"];

/// Whether a grant reaches the network itself. A delegate may reach it in its stead: the process then needs what the
/// delegate needs, so `delegate` counts. A plugin without a grant does not run, but what it has made is taken
/// back, and that may be anything.
pub fn reaches_network(grant: Option<&Grant>) -> bool {
    let Some(grant) = grant else { return true };
    grant.imports.contains("delegate") || NETWORK.iter().any(|name| grant.imports.contains(*name))
}

/// Whether a call needs its container's namespace: the plugin asks for it, or a delegate may.
pub(crate) fn needs_container(grant: &Grant) -> bool {
    ["container-netns", "delegate"].iter().any(|name| grant.imports.contains(*name))
}

/// Whether a grant reaches into a network namespace itself.
pub(crate) fn imports_namespace(grant: &Grant) -> bool {
    NAMESPACES.iter().any(|name| grant.imports.contains(*name))
}

/// The capability that an import stands for: an interface of the contract, or "wasi"; `None` for what this release does
/// not have, of this version or at all.
pub fn capability(import: &str) -> Option<&str> {
    if import.starts_with("wasi:") {
        return Some("wasi");
    }
    let (name, version) = import.strip_prefix(PACKAGE)?.split_once('@')?;
    let known = FREE.contains(&name) || CAPABILITIES.iter().any(|(known, _)| *known == name && name != "wasi");
    (known && version.starts_with(VERSION)).then_some(name)
}

/// The capabilities that a component wants, in the order of its imports, without those that grant nothing.
pub fn wanted(engine: &Engine, component: &Component) -> Vec<String> {
    let mut wanted: Vec<String> = Vec::new();
    for (import, _) in component.component_type().imports(engine) {
        let name = capability(import).unwrap_or(import);
        if !FREE.contains(&name) && !wanted.iter().any(|have| have == name) {
            wanted.push(name.to_owned());
        }
    }
    wanted
}

/// Of these capabilities the interfaces that this release has and policy does not grant. WASI is granted by a key of its own.
pub fn missing<'a>(grant: &Grant, wanted: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let is_interface = |name: &str| name != "wasi" && CAPABILITIES.iter().any(|(known, _)| *known == name);
    wanted.filter(|name| is_interface(name) && !grant.imports.contains(*name)).collect()
}

/// A component with the interfaces that it imports and policy grants, and nothing else.
///
/// # Errors
/// Code `POLICY_DENIED`, naming plugin, interface and the line to write.
pub(crate) fn link(engine: &Engine, component: &Component, grant: &Grant) -> Result<InstancePre<Guest>, Error> {
    let mut linker: Linker<Guest> = Linker::new(engine);
    let broken = |e: wasmtime::Error| Error::internal(format!("could not link plugin {:?}: {e:#}", grant.plugin));
    let mut wasi_is_linked = false;
    for (import, _) in component.component_type().imports(engine) {
        let Some(name) = capability(import) else {
            return Err(Error {
                code: code::POLICY_DENIED,
                msg: format!("plugin {:?} imports {import:?}, which sandwire does not have", grant.plugin),
                details: "a component may import interfaces of sandwire:cni@0.1 and, if policy says so, of WASI 0.2"
                    .into(),
            });
        };
        if name == "wasi" {
            if !grant.wasi {
                return Err(denied(grant, import, "wasi = true".into()));
            }
            if !wasi_is_linked {
                wasmtime_wasi::p2::add_to_linker_sync(&mut linker).map_err(broken)?;
                wasi_is_linked = true;
            }
            continue;
        }
        if !FREE.contains(&name) && !grant.imports.contains(name) {
            let wanted = wanted(engine, component);
            let missing = missing(grant, wanted.iter().map(String::as_str));
            return Err(denied(grant, &missing.join(", "), grant.with_imports(&missing)));
        }
        add(&mut linker, name).map_err(broken)?;
    }
    linker.instantiate_pre(component).map_err(|e| Error {
        code: code::POLICY_DENIED,
        msg: format!("plugin {:?} was built for another release of sandwire", grant.plugin),
        details: format!("{e:#}; install the release that it was built for, or newer"),
    })
}

fn denied(grant: &Grant, import: &str, line: String) -> Error {
    let granted: Vec<&str> = grant.imports.iter().map(String::as_str).collect();
    Error {
        code: code::POLICY_DENIED,
        msg: format!("plugin {:?} may not use {import}", grant.plugin),
        details: format!(
            "its policy grants {}; {}",
            if granted.is_empty() { "nothing".to_owned() } else { granted.join(", ") },
            grant.to_allow(line),
        ),
    }
}

fn add(linker: &mut Linker<Guest>, name: &str) -> wasmtime::Result<()> {
    macro_rules! interfaces {
        ($($text:literal => $module:ident),* $(,)?) => {
            match name {
                $($text => b::$module::add_to_linker::<_, HasSelf<_>>(linker, |guest: &mut Guest| guest),)*
                // Not an interface of ours: instantiation says which import is missing.
                _ => Ok(()),
            }
        };
    }
    interfaces! {
        "types" => types, "namespaces" => namespaces, "host-netns" => host_netns, "container-netns" => container_netns,
        "shared" => shared, "links" => links, "bridging" => bridging, "devices" => devices, "addresses" => addresses, "dhcp" => dhcp,
        "routes" => routes, "configure" => configure, "neighbours" => neighbours, "sysctl" => sysctl,
        "firewall" => firewall, "shaping" => shaping, "conntrack" => conntrack, "wait" => wait, "delegate" => delegate,
        "leases" => leases, "kv" => kv, "files" => files, "endpoint" => endpoint, "log" => log, "random" => random,
    }
}
