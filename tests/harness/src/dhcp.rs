//! A real DHCP server, Debian's dnsmasq.

use crate::{Node, Place};
use anyhow::{Context, Result, anyhow, bail};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Where it writes, on the node.
const FOLDER: &str = "/run/dnsmasq";

/// One that serves 10.1.2.50 to 10.1.2.99 at the interface `wire` of the namespace `outside`; it ends with this value.
#[derive(Debug)]
pub struct Server(Child);

impl Server {
    /// `options` are more of dnsmasq's. It knows the leases that one before it has given.
    ///
    /// # Errors
    /// When it does not come to listen.
    pub fn start(node: &Node, options: &[&str]) -> Result<Self> {
        node.sh(&format!("mkdir -p {FOLDER}; rm -f {FOLDER}/log"))?;
        // By its path, as the harness starts its own programs. 2 minutes is the shortest lease that it gives; without --no-ping it
        // looks for 3 s whether somebody has the address already.
        let mut command = Command::new("/usr/sbin/dnsmasq");
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--group=root", "--pid-file"]);
        command.args(["--port=0", "--interface=wire", "--bind-interfaces", "--no-ping", "--dhcp-authoritative"]);
        command.args(["--dhcp-range=10.1.2.50,10.1.2.99,255.255.255.0,2m"]);
        command.arg(format!("--dhcp-leasefile={FOLDER}/leases"));
        command.args(["--log-dhcp", &format!("--log-facility={FOLDER}/log")]).args(options).env_clear();
        let server = Self(node.spawn(&Place::Netns("/run/netns/outside".into()), command)?);
        let end = Instant::now() + Duration::from_secs(10);
        while !log(node)?.contains("sockets bound") {
            if Instant::now() > end {
                bail!("dnsmasq does not listen; its log:\n{}", log(node)?);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only when it ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(node: &Node, name: &str) -> Result<String> {
    let bytes = node.read(format!("{FOLDER}/{name}"))?.unwrap_or_default();
    String::from_utf8(bytes).with_context(|| format!("{FOLDER}/{name}"))
}

/// What it says that it has done.
///
/// # Errors
/// When it can't be read.
pub fn log(node: &Node) -> Result<String> {
    text(node, "log")
}

/// What the server has given: hardware address, address, name (or `*`) and client identifier of each.
///
/// # Errors
/// When it can't be read.
pub fn leases(node: &Node) -> Result<Vec<[String; 4]>> {
    let row = |line: &str| {
        let words: Vec<String> = line.split(' ').skip(1).map(str::to_owned).collect();
        words.try_into().map_err(|_| anyhow!("no lease of dnsmasq: {line:?}"))
    };
    text(node, "leases")?.lines().map(row).collect()
}
