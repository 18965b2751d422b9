//! Which MAC the runtime asked for, by the three ways that CNI has, and in the three forms that Go's `net.ParseMAC` reads.

use crate::{Call, Failure, HostError};
use serde::Deserialize;

/// The `args` key of a configuration, of which `args.cni.mac` is read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// `args.cni`: optional metadata.
    pub cni: Requested,
}

/// An object with a `mac`: the `runtimeConfig` key of a configuration, and `args.cni`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Requested {
    /// Empty when not asked for.
    pub mac: String,
}

/// The reference's order for interfaces: `runtimeConfig.mac`, then `args.cni.mac`, then `MAC` of CNI_ARGS (`arguments`).
pub fn choose<'a>(runtime: &'a Requested, metadata: &'a Metadata, arguments: Option<&'a str>) -> Option<&'a str> {
    first([runtime.mac.as_str(), metadata.cni.mac.as_str(), arguments.unwrap_or_default()])
}

/// The same for plugins that have a `mac` of their own (macvlan, tap): `runtimeConfig.mac`, then `MAC` of CNI_ARGS, then that.
///
/// # Errors
/// Code 4 for another key in CNI_ARGS ([`Call::args`]).
pub fn of_interface<'a>(call: &'a Call, runtime: &'a Requested, own: &'a str) -> Result<Option<&'a str>, Failure> {
    let [argument] = call.args(["MAC"])?;
    Ok(first([runtime.mac.as_str(), argument.unwrap_or_default(), own]))
}

/// Why an interface with this MAC could not be made, with the reference's text when it is for the MAC; else after `context`.
pub fn not_made(error: HostError, mac: Option<&str>, context: &str) -> Failure {
    match (error, mac) {
        (HostError::Invalid(text), Some(mac)) if text.contains(mac) => {
            Failure::config(["invalid args ", mac, " for MAC addr: ", &text].concat())
        }
        (error, _) => Failure::from(error).context(context),
    }
}

fn first(macs: [&str; 3]) -> Option<&str> {
    macs.into_iter().find(|mac| !mac.is_empty())
}

/// Whether two are the same address, in whatever form: `02:00:5e:10:00:ab`, `02-00-5E-10-00-AB`, `0200.5e10.00ab`.
pub fn same(one: &str, other: &str) -> bool {
    digits(one).eq(digits(other))
}

/// Whether it is a MAC at all, in one of those forms.
pub fn is_one(text: &str) -> bool {
    let separator = text.bytes().find(|byte| b":-.".contains(byte)).map_or(':', char::from);
    let (groups, length) = if separator == '.' { (3, 4) } else { (6, 2) };
    let hex = |group: &str| group.len() == length && group.bytes().all(|digit| digit.is_ascii_hexdigit());
    text.split(separator).count() == groups && text.split(separator).all(hex)
}

fn digits(mac: &str) -> impl Iterator<Item = u8> {
    mac.bytes().filter(|byte| !b":-.".contains(byte)).map(|byte| byte.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_wins_over_metadata_over_arguments() {
        let args = Some("02:00:00:00:00:03");
        let (mut runtime, mut metadata) = (Requested::default(), Metadata::default());
        assert_eq!(choose(&runtime, &metadata, args), Some("02:00:00:00:00:03"));
        metadata.cni.mac = "02:00:00:00:00:02".into();
        assert_eq!(choose(&runtime, &metadata, args), Some("02:00:00:00:00:02"));
        runtime.mac = "02:00:00:00:00:01".into();
        assert_eq!(choose(&runtime, &metadata, args), Some("02:00:00:00:00:01"));
        assert_eq!(choose(&Requested::default(), &Metadata::default(), None), None);
    }

    #[test]
    fn a_refused_mac_is_named_as_the_reference_does() {
        let invalid = |text: &str| HostError::Invalid(text.into());
        let named = not_made(invalid("\"x\" is no MAC address"), Some("x"), "failed to create tap");
        assert_eq!(named.msg, "invalid args x for MAC addr: \"x\" is no MAC address");
        for mac in [None, Some("02:00:00:00:00:01")] {
            assert_eq!(not_made(invalid("no name"), mac, "failed to create tap").msg, "failed to create tap: no name");
        }
    }

    #[test]
    fn what_is_none() {
        for text in
            ["", "02:00:5e:10:00", "02:00:5e:10:00:ab:cd", "02:00-5e:10:00:ab", "0200:5e10:00ab", "02:00:5e:10:00:gg"]
        {
            assert!(!is_one(text), "{text}");
        }
    }

    #[test]
    fn the_form_makes_no_difference() {
        for text in ["02:00:5e:10:00:ab", "02-00-5E-10-00-AB", "0200.5e10.00ab"] {
            assert!(is_one(text) && same(text, "02:00:5e:10:00:ab"), "{text}");
            assert!(!same(text, "02:00:5e:10:00:ac"), "{text}");
        }
    }
}
