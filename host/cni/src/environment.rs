//! The CNI_* environment variables.

use crate::{Error, Result, args, names};
use std::fmt;

/// What the runtime wants (CNI_COMMAND).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Attach the container.
    Add,
    /// Detach it.
    Del,
    /// Is the attachment still as ADD left it?
    Check,
    /// Drop what belongs to no listed attachment.
    Gc,
    /// Could ADD be served now?
    Status,
    /// Which versions are spoken?
    Version,
}

impl Command {
    /// As it stands in CNI_COMMAND.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The command of exactly this text.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];
        all.into_iter().find(|command| command.as_str() == text)
    }

    /// Whether it is about one attachment, and not a network or the plugin.
    pub const fn has_attachment(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The variables of one call, checked. What the command does not need is taken as it is, unchecked, as the reference does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// CNI_COMMAND.
    pub command: Command,
    /// CNI_CONTAINERID; empty in GC, STATUS and VERSION unless given.
    pub container_id: String,
    /// CNI_NETNS; none when unset or empty, which DEL allows.
    pub netns: Option<String>,
    /// CNI_IFNAME; empty in GC, STATUS and VERSION unless given.
    pub ifname: String,
    /// CNI_ARGS, split.
    pub args: Vec<(String, String)>,
    /// CNI_PATH, split at ':', without empty parts.
    pub path: Vec<String>,
    /// CNI_NETNS_OVERRIDE: the host's own namespace is allowed as CNI_NETNS.
    pub netns_override: bool,
}

impl Environment {
    /// Reads and checks the variables. `get` gives the value of one by its name.
    ///
    /// None when CNI_COMMAND is unset or empty: somebody runs the program by hand, and gets told on stderr what it is,
    /// with exit code 0.
    ///
    /// # Errors
    /// Code 4, in the reference's order and words: an id or interface name that the command needs and that is invalid, else all
    /// missing variables together, else an unknown command. (The reference looks at stdin before it objects to the
    /// command; a command that nobody knows is refused here whatever stdin says.)
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let value = |name: &str| get(name).unwrap_or_default();
        let name = value("CNI_COMMAND");
        if name.is_empty() {
            return Ok(None);
        }
        let command = Command::parse(&name);
        let attachment = command.is_some_and(Command::has_attachment);
        let container_id = value("CNI_CONTAINERID");
        let netns = value("CNI_NETNS");
        let ifname = value("CNI_IFNAME");
        let path = value("CNI_PATH");

        let mut missing = Vec::new();
        if attachment {
            match container_id.as_str() {
                "" => missing.push("CNI_CONTAINERID"),
                id => names::check_container_id(id)?,
            }
            if netns.is_empty() && command != Some(Command::Del) {
                missing.push("CNI_NETNS");
            }
            match ifname.as_str() {
                "" => missing.push("CNI_IFNAME"),
                name => names::check_interface_name(name)?,
            }
        }
        // SPEC.md calls CNI_PATH optional for some commands; the Go library has always asked for it.
        if path.is_empty() && command.is_some_and(|command| command != Command::Version) {
            missing.push("CNI_PATH");
        }
        if !missing.is_empty() {
            let missing = missing.join(",");
            return Err(Error::invalid_environment(format!("required env variables [{missing}] missing")));
        }
        let Some(command) = command else {
            return Err(Error::invalid_environment(format!("unknown CNI_COMMAND: {name}")));
        };
        Ok(Some(Self {
            command,
            container_id,
            netns: (!netns.is_empty()).then_some(netns),
            ifname,
            args: args::split(&value("CNI_ARGS")),
            path: path.split(':').filter(|dir| !dir.is_empty()).map(str::to_owned).collect(),
            netns_override: matches!(value("CNI_NETNS_OVERRIDE").to_uppercase().as_str(), "TRUE" | "1"),
        }))
    }
}

/// CNI_NETNS is the namespace this program runs in: the plugin would reconfigure the node as if it were a container.
pub fn same_netns_error() -> Error {
    Error::invalid_netns("plugin's netns and netns from CNI_NETNS should not be the same")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Variables<'a> = &'a [(&'a str, &'a str)];

    fn read(variables: Variables<'_>) -> Result<Option<Environment>> {
        Environment::read(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn without_command() {
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[("CNI_COMMAND", ""), ("CNI_PATH", "/x")]).unwrap(), None);
    }

    #[test]
    fn refused_as_by_the_reference() {
        const ID: (&str, &str) = ("CNI_CONTAINERID", "c1");
        const NETNS: (&str, &str) = ("CNI_NETNS", "/run/netns/x");
        const IFNAME: (&str, &str) = ("CNI_IFNAME", "eth0");
        const PATH: (&str, &str) = ("CNI_PATH", "/opt/cni/bin");
        let table: &[(&str, Variables<'_>, &str)] = &[
            ("ADD", &[], "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing"),
            ("CHECK", &[PATH], "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing"),
            ("DEL", &[], "required env variables [CNI_CONTAINERID,CNI_IFNAME,CNI_PATH] missing"),
            ("GC", &[ID, NETNS, IFNAME], "required env variables [CNI_PATH] missing"),
            ("STATUS", &[], "required env variables [CNI_PATH] missing"),
            ("ADD", &[ID, NETNS, ("CNI_IFNAME", ""), PATH], "required env variables [CNI_IFNAME] missing"),
            // A value that is wrong is told before values that are missing.
            ("ADD", &[("CNI_CONTAINERID", "a/b")], "invalid characters in containerID; a/b"),
            ("ADD", &[("CNI_IFNAME", "a/b")], "interface name contains / or : or whitespace characters"),
            ("ADD", &[ID, NETNS, ("CNI_IFNAME", ".."), PATH], "interface name is . or .."),
            ("FOO", &[], "unknown CNI_COMMAND: FOO"),
            ("add", &[ID, NETNS, IFNAME, PATH], "unknown CNI_COMMAND: add"),
        ];
        for (command, variables, text) in table {
            let mut all = variables.to_vec();
            all.push(("CNI_COMMAND", *command));
            let error = read(&all).unwrap_err();
            assert_eq!((error.code, error.to_string().as_str()), (4, *text), "{command}");
        }
    }

    #[test]
    fn accepted() {
        let env = read(&[
            ("CNI_COMMAND", "DEL"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", ""),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "A=1;B"),
            ("CNI_PATH", "/a::/b"),
            ("CNI_NETNS_OVERRIDE", "True"),
        ])
        .unwrap()
        .unwrap();
        assert_eq!(env.command, Command::Del);
        assert_eq!(env.netns, None);
        assert_eq!(env.path, ["/a", "/b"]);
        assert_eq!(env.args, [("A".to_owned(), "1".to_owned()), (String::new(), "B".to_owned())]);
        assert!(env.netns_override);

        let env = read(&[("CNI_COMMAND", "VERSION"), ("CNI_CONTAINERID", "a/b")]).unwrap().unwrap();
        assert_eq!(env.command, Command::Version);
        assert!(!env.netns_override);
        // What GC does not need is not judged.
        read(&[("CNI_COMMAND", "GC"), ("CNI_IFNAME", "a/b"), ("CNI_PATH", "/a")]).unwrap().unwrap();
    }
}
