//! What may be called what. The same rules hold for names that a plugin asks the host for.

use crate::{Error, Result};

/// Bytes of the longest interface name: IFNAMSIZ without the terminator.
pub const INTERFACE_NAME_MAX: usize = 15;

/// A container id: `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`.
///
/// # Errors
/// Code 4; the id in the details. Code 3 when it is empty.
pub fn check_container_id(id: &str) -> Result<()> {
    match id {
        "" => Err(Error::unknown_container("missing containerID")),
        id if is_identifier(id) => Ok(()),
        id => Err(Error::invalid_environment("invalid characters in containerID").with_details(id)),
    }
}

/// A network's name, by the rule of container ids: it becomes part of paths.
///
/// # Errors
/// Code 7; the name in the details.
pub fn check_network_name(name: &str) -> Result<()> {
    match name {
        "" => Err(Error::invalid_config("missing network name")),
        name if is_identifier(name) => Ok(()),
        name => Err(Error::invalid_config("invalid characters found in network name").with_details(name)),
    }
}

/// The name of a network interface, by the kernel's rule (`dev_valid_name`) and Unicode's idea of white space.
///
/// # Errors
/// Code 4.
pub fn check_interface_name(name: &str) -> Result<()> {
    let reason = match name {
        "" => "interface name is empty",
        name if name.len() > INTERFACE_NAME_MAX => {
            return Err(Error::invalid_environment("interface name is too long")
                .with_details(format!("interface name should be less than {} characters", INTERFACE_NAME_MAX + 1)));
        }
        "." | ".." => "interface name is . or ..",
        name if name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace()) => {
            "interface name contains / or : or whitespace characters"
        }
        _ => return Ok(()),
    };
    Err(Error::invalid_environment(reason))
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers() {
        for good in ["a", "0", "4d0e8a", "a_b.c-d", "A-"] {
            check_container_id(good).unwrap();
            check_network_name(good).unwrap();
        }
        for bad in ["-a", ".", "..", "_a", "a/b", "a b", "a\n", "é", "   dummy\n "] {
            let error = check_container_id(bad).unwrap_err();
            assert_eq!((error.code, error.to_string()), (4, format!("invalid characters in containerID; {bad}")));
            let error = check_network_name(bad).unwrap_err();
            assert_eq!(
                (error.code, error.to_string()),
                (7, format!("invalid characters found in network name; {bad}"))
            );
        }
        assert_eq!(check_container_id("").unwrap_err(), Error::unknown_container("missing containerID"));
        assert_eq!(check_network_name("").unwrap_err(), Error::invalid_config("missing network name"));
    }

    #[test]
    fn interface_names() {
        for good in ["eth0", "...", "a", "123456789012345", "br-0.1@x"] {
            check_interface_name(good).unwrap();
        }
        for (bad, text) in [
            ("", "interface name is empty"),
            ("1234567890123456", "interface name is too long; interface name should be less than 16 characters"),
            (".", "interface name is . or .."),
            ("..", "interface name is . or .."),
            ("a/b", "interface name contains / or : or whitespace characters"),
            ("a:b", "interface name contains / or : or whitespace characters"),
            ("a b", "interface name contains / or : or whitespace characters"),
            ("a\u{a0}b", "interface name contains / or : or whitespace characters"),
            ("a\u{2003}", "interface name contains / or : or whitespace characters"),
        ] {
            let error = check_interface_name(bad).unwrap_err();
            assert_eq!((error.code, error.to_string().as_str()), (4, text));
        }
    }
}
