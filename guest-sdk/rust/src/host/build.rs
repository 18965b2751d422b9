//! Short forms for the records of the contract.

use super::{endpoint, links, namespaces};
use crate::bindings::imports::sandwire::cni::types;
use namespaces::{Link, LinkInfo, Netns};

impl<'a> links::Device<'a> {
    /// A device of the kernel's defaults in `ns`, down, with a name that the host picks.
    pub fn new(ns: &'a Netns) -> Self {
        Self { ns, name: None, mac: None, mtu: None, master: None, up: false, extra: Vec::new() }
    }

    /// With this name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// With this MAC, or one that the kernel picks.
    #[must_use]
    pub fn mac(mut self, mac: Option<&str>) -> Self {
        self.mac = mac.map(Into::into);
        self
    }

    /// With this MTU in bytes, or the kernel's.
    #[must_use]
    pub fn mtu(mut self, mtu: Option<u32>) -> Self {
        self.mtu = mtu;
        self
    }

    /// As a port of `master` (a bridge, a VRF) from its first moment.
    #[must_use]
    pub fn master(mut self, master: &'a Link) -> Self {
        self.master = Some(master);
        self
    }

    /// Set up when it appears.
    #[must_use]
    pub fn up(mut self) -> Self {
        self.up = true;
        self
    }

    /// With a key that is documented beside the record.
    #[must_use]
    pub fn extra(mut self, key: &str, value: &str) -> Self {
        self.extra.push((key.into(), value.into()));
        self
    }
}

impl Default for links::Changes {
    /// Changes nothing.
    fn default() -> Self {
        Self { up: None, mac: None, mtu: None, txqlen: None, promisc: None, allmulti: None, extra: Vec::new() }
    }
}

impl links::Changes {
    /// Up or down, and nothing else.
    pub fn up(up: bool) -> Self {
        Self { up: Some(up), ..Self::default() }
    }
}

impl LinkInfo {
    /// A fact beyond the record's fields; the keys are documented beside `extra`.
    pub fn fact(&self, key: &str) -> Option<&str> {
        self.extra.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// As the CNI result shows it: name and MAC, and the container's sandbox or, for a link of the host, none.
    pub fn in_sandbox(&self, sandbox: &str) -> crate::Interface {
        crate::Interface::new(self.name.as_str()).with_mac(self.mac.as_str()).in_sandbox(sandbox)
    }
}

impl types::Address {
    /// This address with its prefix length ("10.1.2.3/24").
    pub fn new(cidr: impl Into<String>) -> Self {
        Self { cidr: cidr.into(), no_dad: false, no_prefix_route: false, extra: Vec::new() }
    }

    /// Usable at once, without duplicate address detection: for addresses that an address manager keeps unique.
    #[must_use]
    pub fn no_dad(mut self) -> Self {
        self.no_dad = true;
        self
    }
}

impl types::Route {
    /// A route to `dst` ("0.0.0.0/0", "10.0.0.0/8") with the kernel's defaults.
    pub fn new(dst: impl Into<String>) -> Self {
        Self { dst: dst.into(), via: None, src: None, scope: None, table: None, priority: None, extra: Vec::new() }
    }

    /// Through this gateway.
    #[must_use]
    pub fn via(mut self, gateway: impl Into<String>) -> Self {
        self.via = Some(gateway.into());
        self
    }
}

impl endpoint::Call {
    /// A call without headers and body.
    pub fn new(method: &str, path: impl Into<String>) -> Self {
        Self { method: method.into(), path: path.into(), headers: Vec::new(), body: String::new() }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a body of JSON and its content type.
    #[must_use]
    pub fn json(mut self, body: &serde_json::Value) -> Self {
        self.body = body.to_string();
        self.header("Content-Type", "application/json")
    }

    /// How to take a call back by this one: `done` are the statuses that say it is taken back, or was never there.
    pub fn as_undo(self, done: &[u16]) -> endpoint::Undo {
        endpoint::Undo { call: self, done: done.to_vec() }
    }
}

/// Logs a formatted line at a level of [`crate::host::log::Level`]. The host adds plugin, network and attachment.
#[macro_export]
macro_rules! log {
    ($level:ident, $($text:tt)+) => {
        $crate::host::log::log($crate::host::log::Level::$level, "", &::std::format!($($text)+))
    };
}
