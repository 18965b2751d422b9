//! Lines of `policy.toml` as a refusal proposes them: whole, with what the key has already, so that each can take the place of the
//! one that is there. A second line of the same key would be refused, and one without the others would take them away.

use crate::{Grant, LinkRules};
use std::collections::BTreeSet;
use std::fmt::Write as _;

impl Grant {
    /// `imports = [...]` with these interfaces too.
    pub fn with_imports<'a>(&'a self, interfaces: &[&'a str]) -> String {
        let all: BTreeSet<&str> = self.imports.iter().map(String::as_str).chain(interfaces.iter().copied()).collect();
        format!("imports = [{}]", quoted(all))
    }

    /// `delegates = [...]` with one plugin type more.
    pub fn with_delegate(&self, plugin: &str) -> String {
        line("delegates", &self.delegates, plugin)
    }

    /// `native_delegates = [...]` with one plugin type more.
    pub fn with_native_delegate(&self, plugin: &str) -> String {
        line("native_delegates", &self.native_delegates, plugin)
    }

    /// `sysctls = [...]` with one entry more: "KEY", or "KEY=VALUE".
    pub fn with_sysctl(&self, entry: &str) -> String {
        line("sysctls", &self.sysctls, entry)
    }

    /// `endpoints = [...]` with one agent's name more.
    pub fn with_endpoint(&self, name: &str) -> String {
        line("endpoints", self.endpoints.keys(), name)
    }

    /// `data_dirs = [...]` with one directory more.
    pub fn with_data_dir(&self, directory: &str) -> String {
        line("data_dirs", &self.data_dirs, directory)
    }

    /// `links = { ... }` with one bridge more that may be changed.
    pub fn with_bridge(&self, name: &str) -> String {
        self.with_link("change", name)
    }

    /// `links = { ... }` with one link more that may be a master or parent.
    pub fn with_master(&self, name: &str) -> String {
        self.with_link("use", name)
    }

    /// `links = { ... }` with one link more that may be moved into the container.
    pub fn with_taken(&self, name: &str) -> String {
        self.with_link("take", name)
    }

    /// `devices = [...]` with one identity more.
    pub fn with_device(&self, id: &str) -> String {
        line("devices", &self.devices, id)
    }

    fn with_link(&self, wanted: &str, name: &str) -> String {
        let LinkRules { see, use_, change, take } = &self.links;
        let kinds = [("see", see), ("use", use_), ("change", change), ("take", take)];
        let kinds = kinds.into_iter().filter(|(kind, patterns)| *kind == wanted || !patterns.is_empty());
        let kinds = kinds.map(|(kind, patterns)| match kind == wanted {
            true => line(kind, patterns, name),
            false => format!("{kind} = [{}]", quoted(patterns)),
        });
        format!("links = {{ {} }}", kinds.collect::<Vec<_>>().join(", "))
    }

    /// `files = ...` with one file more: a list where each is asked for by its path, or a table of names and paths. What a plugin
    /// asks for by another name has its path from the operator alone.
    pub fn with_file(&self, name: &str) -> String {
        let is_path = name.starts_with('/');
        if is_path && self.files.iter().all(|(name, path)| name == path) {
            return line("files", self.files.keys(), name);
        }
        let path = if is_path { name } else { "/PATH/OF/IT" };
        let present = self.files.iter().fold(String::new(), |mut text, (name, path)| {
            // Writing to a string can't fail.
            let _ = write!(text, "{name:?} = {path:?}, ");
            text
        });
        format!("files = {{ {present}{name:?} = {path:?} }}")
    }
}

/// `key = [present..., new]`.
fn line<S: AsRef<str>>(key: &str, present: impl IntoIterator<Item = S>, new: &str) -> String {
    let all = present.into_iter().map(|entry| entry.as_ref().to_owned()).chain([new.to_owned()]);
    format!("{key} = [{}]", quoted(all))
}

fn quoted<S: AsRef<str>>(entries: impl IntoIterator<Item = S>) -> String {
    entries.into_iter().map(|entry| format!("{:?}", entry.as_ref())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[cfg(feature = "file")]
mod tests {
    use crate::Grant;

    fn grant() -> Grant {
        let text = serde_json::json!({"plugin": "p", "digest": "", "compiled": "", "wasmtime": "", "imports": ["log"], "wasi": false,
            "limits": {}, "links": {"use": ["eth*"], "change": ["cni0"]}, "sysctls": [], "endpoints": {}, "delegates": ["static"],
            "native_delegates": [], "data_dirs": [], "files": {"/etc/hosts": "/etc/hosts"}, "refused": null});
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn what_the_key_has_already_stays_in_the_line() {
        let mut grant = grant();
        for (line, wanted) in [
            (grant.with_imports(&["links", "addresses"]), r#"imports = ["addresses", "links", "log"]"#),
            (grant.with_delegate("dhcp"), r#"delegates = ["static", "dhcp"]"#),
            (grant.with_native_delegate("dhcp"), r#"native_delegates = ["dhcp"]"#),
            (grant.with_sysctl("ipv4/ip_forward=0"), r#"sysctls = ["ipv4/ip_forward=0"]"#),
            (grant.with_bridge("br0"), r#"links = { use = ["eth*"], change = ["cni0", "br0"] }"#),
            (grant.with_master("eth1"), r#"links = { use = ["eth*", "eth1"], change = ["cni0"] }"#),
            (grant.with_taken("eth2"), r#"links = { use = ["eth*"], change = ["cni0"], take = ["eth2"] }"#),
            (grant.with_device("0000:03:00.0"), r#"devices = ["0000:03:00.0"]"#),
            (grant.with_file("/etc/resolv.conf"), r#"files = ["/etc/hosts", "/etc/resolv.conf"]"#),
            (grant.with_file("subnet"), r#"files = { "/etc/hosts" = "/etc/hosts", "subnet" = "/PATH/OF/IT" }"#),
        ] {
            assert_eq!(line, wanted);
            toml::from_str::<toml::Table>(&line).unwrap();
        }
        grant.files = [("subnet".to_owned(), "/run/subnet.env".to_owned())].into();
        let line = grant.with_file("/etc/hosts");
        assert_eq!(line, r#"files = { "subnet" = "/run/subnet.env", "/etc/hosts" = "/etc/hosts" }"#);
    }
}
