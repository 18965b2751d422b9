//! Meaning: from the file's shape to grants. A grant that could have no effect is a mistake, not a habit: an operator who
//! writes `sysctls` and forgets the import believes something that is not so.

use super::fault::{Fault, Faults, did_you_mean, line_of};
use super::{Contract, Plugin, shape};
use crate::{Endpoint, Grant, Limits, LinkRules, check_name, check_plugin, header};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use toml::Spanned;

/// The version of the file's shape that this release reads.
const VERSION: u64 = 1;
/// `sockaddr_un.sun_path` has 108 bytes with its final zero (unix(7)).
const UNIX_PATH_MAX: usize = 107;
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

struct Checker<'a> {
    text: &'a str,
    contract: Contract<'a>,
    faults: Vec<Fault>,
}

pub(super) fn check(text: &str, file: shape::File, contract: Contract<'_>) -> Result<BTreeMap<String, Plugin>, Faults> {
    let mut checker = Checker { text, contract, faults: Vec::new() };
    let found = *file.version.get_ref();
    if found != VERSION {
        checker.fault(
            &file.version,
            format!("version {found} is not known to this release, which reads version {VERSION}; upgrade sandwirectl, or write version = {VERSION}"),
        );
    }
    let endpoints: BTreeMap<String, Endpoint> = file
        .endpoints
        .into_iter()
        .map(|(name, endpoint)| (checker.name(&name, "an endpoint", check_name), checker.endpoint(endpoint)))
        .collect();
    let limits = checker.limits(&file.limits, &Limits::default());
    let mut plugins = BTreeMap::new();
    for (name, plugin) in file.plugins {
        let entry = checker.plugin(&name, plugin, &endpoints, &limits);
        plugins.insert(name.into_inner(), entry);
    }
    if checker.faults.is_empty() {
        return Ok(plugins);
    }
    checker.faults.sort_by_key(|fault| fault.line);
    Err(Faults(checker.faults))
}

impl Checker<'_> {
    fn fault<T>(&mut self, at: &Spanned<T>, text: String) {
        self.faults.push(Fault { line: line_of(self.text, at.span().start), text });
    }

    fn name(&mut self, name: &Spanned<String>, what: &str, rule: fn(&str) -> Result<(), &'static str>) -> String {
        if let Err(why) = rule(name.get_ref()) {
            self.fault(name, format!("{:?} can't name {what}: {why}", name.get_ref()));
        }
        name.get_ref().clone()
    }

    fn endpoint(&mut self, endpoint: shape::Endpoint) -> Endpoint {
        let address = endpoint.address.get_ref();
        if let Some(path) = address.strip_prefix("unix:") {
            if !path.starts_with('/') || path.len() > UNIX_PATH_MAX {
                self.fault(&endpoint.address, format!("{address:?}: a unix socket is written \"unix:/run/bagpipe.sock\", with an absolute path of at most {UNIX_PATH_MAX} bytes"));
            }
        } else {
            let socket = address.strip_prefix("http://").and_then(|rest| rest.parse::<SocketAddr>().ok());
            if socket.is_none_or(|socket| socket.port() == 0) {
                self.fault(&endpoint.address, format!("{address:?} is no agent's address: write \"http://127.0.0.1:8082\", \"http://[::1]:8082\" (an IP address and a port, nothing after it: no name is looked up while a pod starts) or \"unix:/run/bagpipe.sock\""));
            }
        }
        if endpoint.allow.get_ref().is_empty() {
            self.fault(
                &endpoint.allow,
                "allow is empty, so that nothing could be called; list calls such as \"GET /ping\"".into(),
            );
        }
        for call in endpoint.allow.get_ref() {
            self.allowed_call(call);
        }
        Endpoint {
            address: address.clone(),
            timeout_ms: self.number(endpoint.timeout_ms.as_ref(), "timeout_ms", 1..=600_000, 10_000),
            allow: texts(endpoint.allow.get_ref()),
            answer_bytes: self.size(endpoint.answer_kib.as_ref(), "answer_kib", 1..=65_536, 1 << 20, 1 << 10),
        }
    }

    fn allowed_call(&mut self, call: &Spanned<String>) {
        let text = call.get_ref();
        let good = text.split_once(' ').is_some_and(|(method, path)| {
            let fixed = path.strip_suffix('*').unwrap_or(path);
            METHODS.contains(&method)
                && path.starts_with('/')
                && fixed.bytes().all(|b| b.is_ascii_graphic() && b != b'*')
                && !fixed.split('/').any(|segment| segment == "..")
        });
        if !good {
            self.fault(call, format!("{text:?} is no call: write \"GET /ping\" or \"GET /looking-glass/*\" (a method, one blank, a path; \"*\" only at its end)"));
        }
    }

    fn plugin(
        &mut self,
        name: &Spanned<String>,
        plugin: shape::Plugin,
        endpoints: &BTreeMap<String, Endpoint>,
        limits: &Limits,
    ) -> Plugin {
        let kind = self.name(name, "a plugin", check_plugin);
        self.digest(&plugin.component);
        let imports = self.imports(&kind, &plugin.imports);

        for (key, needs, at) in [
            ("endpoints", &["endpoint"][..], plugin.endpoints.as_ref().map(Spanned::span)),
            ("sysctls", &["sysctl", "shared"], plugin.sysctls.as_ref().map(Spanned::span)),
            ("delegates", &["delegate"], plugin.delegates.as_ref().map(Spanned::span)),
            ("native_delegates", &["delegate"], plugin.native_delegates.as_ref().map(Spanned::span)),
            ("data_dirs", &["leases", "files"], plugin.data_dirs.as_ref().map(Spanned::span)),
            ("files", &["files"], plugin.files.as_ref().map(Spanned::span)),
            ("links", &["host-netns", "shared", "links"], plugin.links.as_ref().map(Spanned::span)),
            ("tap", &["links"], plugin.tap.as_ref().map(Spanned::span)),
            ("devices", &["devices"], plugin.devices.as_ref().map(Spanned::span)),
        ] {
            if let Some(at) = at
                && !needs.iter().any(|interface| imports.contains(*interface))
            {
                let needed = needs.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" or ");
                let text = format!("{key} has no effect in {} without {needed} in its imports", header(&kind));
                self.faults.push(Fault { line: line_of(self.text, at.start), text });
            }
        }

        let mut granted = BTreeMap::new();
        for endpoint in list(&plugin.endpoints) {
            match endpoints.get(endpoint.get_ref()) {
                Some(definition) => {
                    granted.insert(endpoint.get_ref().clone(), definition.clone());
                }
                None => {
                    let known: Vec<&String> = endpoints.keys().collect();
                    let name = endpoint.get_ref();
                    self.fault(endpoint, format!("no [endpoints.{name}] in this file{}", did_you_mean(name, &known)));
                }
            }
        }
        let links = plugin.links.as_ref().map(Spanned::get_ref);
        let links = links.map_or_else(LinkRules::default, |links| LinkRules {
            see: self.patterns(&links.see, "link name", link_pattern),
            use_: self.patterns(&links.use_, "link name", link_pattern),
            change: self.patterns(&links.change, "link name", link_pattern),
            take: self.patterns(&links.take, "link name", link_pattern),
        });
        let native_delegates = self.patterns(list(&plugin.native_delegates), "plugin type", type_pattern);
        if let Some(native) = &plugin.native_delegates
            && plugin.delegates.is_none()
        {
            self.fault(native, "native_delegates says which of the delegates may be native programs; delegates is missing, so there is none".into());
        }
        Plugin {
            digest_at: plugin.component.span(),
            grant: Grant {
                plugin: kind,
                digest: plugin.component.into_inner(),
                compiled: String::new(),
                wasmtime: String::new(),
                imports,
                wasi: plugin.wasi,
                limits: self.limits(&plugin.limits, limits),
                links,
                sysctls: self.patterns(list(&plugin.sysctls), "sysctl below net", sysctl_pattern),
                endpoints: granted,
                delegates: self.patterns(list(&plugin.delegates), "plugin type", type_pattern),
                native_delegates,
                own_addresses: plugin.own_addresses,
                tap: plugin.tap.is_some_and(Spanned::into_inner),
                devices: self.patterns(list(&plugin.devices), "device", device_pattern),
                data_dirs: self.patterns(list(&plugin.data_dirs), "directory", absolute),
                files: self.files(plugin.files),
                // Its component says.
                no_start: false,
                refused: None,
            },
        }
    }

    fn digest(&mut self, digest: &Spanned<String>) {
        let text = digest.get_ref();
        let good = text.strip_prefix("sha256:").is_some_and(|hex| {
            hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        });
        if !good {
            self.fault(digest, format!("{text:?} is no digest: \"sha256:\" and 64 digits of 0-9a-f; sandwirectl inspect FILE.wasm prints a component's"));
        }
    }

    fn imports(&mut self, plugin: &str, imports: &[Spanned<String>]) -> BTreeSet<String> {
        for import in imports {
            let name = import.get_ref().as_str();
            if name == "wasi" || name.starts_with("wasi:") {
                self.fault(import, format!("WASI is granted as a whole: write  wasi = true  under {}", header(plugin)));
            } else if self.contract.free.contains(&name) {
                self.fault(import, format!("{name:?} grants nothing and needs no grant: leave it out"));
            } else if !self.contract.grantable.contains(&name) {
                let known = self.contract.grantable;
                self.fault(
                    import,
                    format!(
                        "no interface is named {name:?}{}; there are: {}",
                        did_you_mean(name, known),
                        known.join(", ")
                    ),
                );
            }
        }
        imports.iter().map(|import| import.get_ref().clone()).collect()
    }

    fn patterns(
        &mut self,
        patterns: &[Spanned<String>],
        what: &str,
        rule: fn(&str) -> Result<(), &'static str>,
    ) -> Vec<String> {
        for pattern in patterns {
            if let Err(why) = rule(pattern.get_ref()) {
                self.fault(pattern, format!("{:?} can't be a {what}: {why}", pattern.get_ref()));
            }
        }
        texts(patterns)
    }

    fn files(&mut self, files: Option<Spanned<shape::Files>>) -> BTreeMap<String, String> {
        let files = files.map(|files| files.into_inner().0).unwrap_or_default();
        for (_, path) in &files {
            let text = path.get_ref();
            if text.contains('*') {
                self.fault(path, format!("{text:?}: a file is named whole, without \"*\""));
            } else if let Err(why) = absolute(text) {
                self.fault(path, format!("{text:?} can't be a file: {why}"));
            }
        }
        files.into_iter().map(|(name, path)| (name, path.into_inner())).collect()
    }

    fn limits(&mut self, limits: &shape::Limits, default: &Limits) -> Limits {
        let shape::Limits { deadline_ms, memory_mib, instances, table_elements, handles, hostcall_kib, log_kib } =
            limits;
        Limits {
            deadline_ms: self.number(deadline_ms.as_ref(), "deadline_ms", 100..=600_000, default.deadline_ms),
            memory_bytes: self.size(memory_mib.as_ref(), "memory_mib", 1..=4_096, default.memory_bytes, 1 << 20),
            instances: self.size(instances.as_ref(), "instances", 1..=10_000, default.instances, 1),
            table_elements: self.size(
                table_elements.as_ref(),
                "table_elements",
                1..=10_000_000,
                default.table_elements,
                1,
            ),
            handles: self.size(handles.as_ref(), "handles", 1..=1_000_000, default.handles, 1),
            hostcall_bytes: self.size(
                hostcall_kib.as_ref(),
                "hostcall_kib",
                1..=1_048_576,
                default.hostcall_bytes,
                1 << 10,
            ),
            log_bytes: self.size(log_kib.as_ref(), "log_kib", 0..=1_048_576, default.log_bytes, 1 << 10),
        }
    }

    fn number(
        &mut self,
        value: Option<&Spanned<u64>>,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
        default: u64,
    ) -> u64 {
        let Some(value) = value else { return default };
        if !range.contains(value.get_ref()) {
            self.fault(
                value,
                format!("{key} = {} is out of range: from {} to {}", value.get_ref(), range.start(), range.end()),
            );
        }
        *value.get_ref()
    }

    fn size(
        &mut self,
        value: Option<&Spanned<u64>>,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
        default: usize,
        unit: usize,
    ) -> usize {
        if value.is_none() {
            return default;
        }
        usize::try_from(self.number(value, key, range, 0)).unwrap_or(usize::MAX).saturating_mul(unit)
    }
}

fn list(texts: &Option<Spanned<shape::Texts>>) -> &[Spanned<String>] {
    texts.as_ref().map(|texts| texts.get_ref().as_slice()).unwrap_or_default()
}

fn texts(texts: &[Spanned<String>]) -> Vec<String> {
    texts.iter().map(|text| text.get_ref().clone()).collect()
}

/// dev_valid_name (net/core/dev.c): at most 15 bytes, no "/", no ":", no blanks; here with `*` and `?`.
fn link_pattern(pattern: &str) -> Result<(), &'static str> {
    let fixed = pattern.bytes().filter(|b| *b != b'*').count();
    if pattern.is_empty() {
        Err("it is empty; \"*\" stands for all")
    } else if fixed > 15 {
        Err("the kernel's names have at most 15 bytes")
    } else if pattern.bytes().any(|b| b == b'/' || b == b':' || b.is_ascii_whitespace()) {
        Err("the kernel allows no \"/\", \":\" or blank in a name")
    } else {
        Ok(())
    }
}

/// A name on the bus of PCI or of auxiliary devices, or a path of sysfs.
fn device_pattern(pattern: &str) -> Result<(), &'static str> {
    if pattern.is_empty() {
        Err("it is empty; \"*\" stands for all")
    } else if pattern.contains('/') && !pattern.starts_with("/sys/devices/") {
        Err("write an address such as \"0000:03:00.0\", or a path that begins with /sys/devices/")
    } else if pattern.split('/').any(|segment| segment == "..") {
        Err("it has a \"..\" segment")
    } else {
        Ok(())
    }
}

fn type_pattern(pattern: &str) -> Result<(), &'static str> {
    if pattern.is_empty() {
        Err("it is empty; \"*\" stands for all")
    } else if pattern.contains('/') {
        Err("it is the name of a program in CNI_PATH, never a path")
    } else {
        Ok(())
    }
}

fn sysctl_pattern(pattern: &str) -> Result<(), &'static str> {
    if pattern.is_empty() {
        Err("it is empty")
    } else if pattern.starts_with('/') || pattern.starts_with("net/") || pattern.starts_with("net.") {
        Err("write what stands after /proc/sys/net/, as \"ipv4/ip_forward\"")
    } else if pattern.split('/').any(|segment| segment.is_empty() || segment == "..") {
        Err("it has an empty or \"..\" segment")
    } else if !pattern.contains('/') && pattern.contains('.') {
        Err("write it with slashes, as \"ipv4/ip_forward\": names of interfaces have dots too")
    } else {
        Ok(())
    }
}

fn absolute(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') {
        Err("it must be an absolute path")
    } else if path.split('/').any(|segment| segment == "..") {
        Err("it has a \"..\" segment")
    } else {
        Ok(())
    }
}
