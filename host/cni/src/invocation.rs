//! One call of a plugin.

use crate::{Command, Environment, Error, NetworkConfig, Result, Version};

/// What the runtime asks for, checked as far as text alone can be: the environment and the configuration of one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Invocation {
    /// Any but VERSION.
    pub command: Command,
    /// Container id; empty in GC and STATUS.
    pub container_id: String,
    /// CNI_NETNS as it was given; none when unset or empty, which DEL allows.
    pub netns: Option<String>,
    /// Name of the interface in the container; empty in GC and STATUS.
    pub ifname: String,
    /// CNI_PATH, split: where delegates are.
    pub path: Vec<String>,
    /// CNI_ARGS, split; [`crate::args::load`] judges them.
    pub args: Vec<(String, String)>,
    /// What came on stdin.
    pub config: NetworkConfig,
    /// Whether CNI_NETNS may be the namespace that this program runs in (CNI_NETNS_OVERRIDE).
    pub netns_override: bool,
}

impl Invocation {
    /// Joins the environment with what came on stdin, for a plugin that speaks every version.
    ///
    /// # Errors
    /// As [`Invocation::read_for`].
    pub fn read(env: Environment, stdin: &[u8]) -> Result<Self> {
        Self::read_for(env, stdin, &Version::ALL)
    }

    /// Joins the environment with what came on stdin, for a plugin that speaks `supported`.
    ///
    /// # Errors
    /// Those of [`NetworkConfig::parse_for`]; code 999 for VERSION, which has no configuration and must not wait for stdin.
    pub fn read_for(env: Environment, stdin: &[u8], supported: &[Version]) -> Result<Self> {
        if env.command == Command::Version {
            return Err(Error::internal("VERSION has no network configuration"));
        }
        let config = NetworkConfig::parse_for(stdin, env.command, supported)?;
        let attachment = |text: String| if env.command.has_attachment() { text } else { String::new() };
        Ok(Self {
            command: env.command,
            container_id: attachment(env.container_id),
            netns: env.netns,
            ifname: attachment(env.ifname),
            path: env.path,
            args: env.args,
            config,
            netns_override: env.netns_override,
        })
    }
}
