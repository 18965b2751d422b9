//! A node with one shipped plugin, `loopback`, and variants of it: another digest, another version, no component at all.

use sandwire_harness::{Node, Place, repository};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const POLICY: &str = "/etc/sandwire/policy.toml";
pub(crate) const COMPONENT: &str = "/usr/lib/sandwire/plugins/loopback.wasm";
/// On the node only.
const FROM: &str = "/mnt/from";

pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn good(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        format!("{}{}", self.out, self.err)
    }

    pub(crate) fn bad(self) -> String {
        assert_eq!(self.code, 1, "{}{}", self.out, self.err);
        format!("{}{}", self.out, self.err)
    }
}

pub(crate) struct Desk {
    pub(crate) node: Node,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let desk = Self { node: Node::new().unwrap() };
        desk.ship(&component());
        desk
    }

    pub(crate) fn installed() -> Self {
        let desk = Self::new();
        desk.install().good();
        desk
    }

    /// What the next `install` brings.
    pub(crate) fn ship(&self, loopback: &[u8]) {
        self.node.write(format!("{FROM}/plugins/loopback.wasm"), loopback).unwrap();
    }

    pub(crate) fn install(&self) -> Said {
        let binary = binary();
        self.run(&["install", "--from", FROM, "--binary", binary.to_str().unwrap()])
    }

    pub(crate) fn run(&self, args: &[&str]) -> Said {
        self.run_with(args, b"")
    }

    pub(crate) fn run_with(&self, args: &[&str], input: &[u8]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandwirectl"));
        command.args(args).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let done = self.node.run(&Place::Host, command, input).unwrap();
        Said { code: done.status.code().unwrap_or(-1), out: done.stdout, err: done.stderr }
    }

    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let said = self.run(&[args, &["--json"]].concat());
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{args:?}: {error}: {}{}", said.out, said.err))
    }

    pub(crate) fn text(&self, path: &str) -> String {
        String::from_utf8(self.node.read(path).unwrap().unwrap()).unwrap()
    }

    pub(crate) fn edit(&self, path: &str, from: &str, to: &str) {
        let text = self.text(path);
        assert!(text.contains(from), "{from} is not in {text}");
        self.node.write(path, text.replace(from, to)).unwrap();
    }

    /// Where `active` leads.
    pub(crate) fn active(&self) -> String {
        self.node.sh("readlink /var/lib/sandwire/active").unwrap().trim().to_owned()
    }
}

fn built(path: &str) -> PathBuf {
    let path = repository().join(path);
    assert!(path.exists(), "{} is missing; run: make build", path.display());
    path
}

pub(crate) fn binary() -> PathBuf {
    built("target/x86_64-unknown-linux-musl/release/sandwire")
}

/// The shipped component.
pub(crate) fn component() -> Vec<u8> {
    std::fs::read(built("out/plugins/loopback.wasm")).unwrap()
}

/// The same with a custom section behind it (id 0, length, name with its length, content): another digest.
pub(crate) fn component_with(section: &str, content: &str) -> Vec<u8> {
    let length = u8::try_from(1 + section.len() + content.len()).unwrap();
    let mut bytes = component();
    bytes.extend([0, length, u8::try_from(section.len()).unwrap()]);
    bytes.extend(section.bytes().chain(content.bytes()));
    bytes
}

pub(crate) fn digest(desk: &Desk, path: &str) -> String {
    let sum = desk.node.sh(&format!("sha256sum {path}")).unwrap();
    format!("sha256:{}", sum.split(' ').next().unwrap())
}

pub(crate) fn exists(desk: &Desk, path: &str) -> bool {
    let path = Path::new(path).to_owned();
    desk.node.within(move || path.symlink_metadata().is_ok()).unwrap()
}
