//! Names of plugins and agents: what they may be, and how a table of the policy is called after one.

/// Why a plugin type or an agent can't have this name. Types become file names, in the link's directory and in the generation.
///
/// # Errors
/// What to write instead.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    let good = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if good { Ok(()) } else { Err("use letters, digits, \"_\", \".\", \"-\", and begin with a letter or digit") }
}

/// As [`check_name`], for a plugin, whose name stands beside the CNI binary's.
///
/// # Errors
/// As [`check_name`].
pub fn check_plugin(name: &str) -> Result<(), &'static str> {
    check_name(name)?;
    if name == "sandwire" { Err("it is the host program itself") } else { Ok(()) }
}

/// `[plugins.NAME]`, as it stands in the file: a dot in a name would begin a table in a table (TOML 1.0, "Keys").
pub fn header(plugin: &str) -> String {
    let is_bare = !plugin.is_empty() && plugin.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if is_bare { format!("[plugins.{plugin}]") } else { format!("[plugins.{plugin:?}]") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_a_name() {
        for (name, wanted) in [
            ("host-local", true),
            ("x.y_2", true),
            ("0", true),
            ("", false),
            (".x", false),
            ("a b", false),
            ("a/b", false),
            ("sandwire", false),
        ] {
            assert_eq!(check_plugin(name).is_ok(), wanted, "{name:?}");
        }
        assert!(check_name("sandwire").is_ok());
        assert_eq!([header("host-local"), header("mine.v2")], ["[plugins.host-local]", "[plugins.\"mine.v2\"]"]);
    }
}
