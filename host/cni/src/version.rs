//! Versions of the specification, and what tells them apart.

use crate::go_json;
use crate::go_text::{quote, quote_list};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A released version of the specification. Membership is by its exact text, as in the reference: "1.0" and "1.0.1" are
/// none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Version {
    /// 0.1.0, also meant by a configuration that names none.
    #[serde(rename = "0.1.0")]
    V010,
    /// 0.2.0: VERSION.
    #[serde(rename = "0.2.0")]
    V020,
    /// 0.3.0: interfaces and several addresses in results, prevResult.
    #[serde(rename = "0.3.0")]
    V030,
    /// 0.3.1.
    #[serde(rename = "0.3.1")]
    V031,
    /// 0.4.0: CHECK, prevResult in DEL.
    #[serde(rename = "0.4.0")]
    V040,
    /// 1.0.0: no `version` beside an address, configurations are lists.
    #[serde(rename = "1.0.0")]
    V100,
    /// 1.1.0: GC, STATUS, more about interfaces and routes.
    #[serde(rename = "1.1.0")]
    V110,
}

/// Versions whose results have one shape, so that one can stand in the other's configuration as prevResult.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// 0.1.0 and 0.2.0: `ip4` and `ip6`.
    V02x,
    /// 0.3.0 to 0.4.0: lists, each address with its `version`.
    V04x,
    /// 1.0.0 and 1.1.0.
    V1x,
}

impl Version {
    /// All, oldest first.
    pub const ALL: [Self; 7] = [Self::V010, Self::V020, Self::V030, Self::V031, Self::V040, Self::V100, Self::V110];
    /// What a configuration means that names no version.
    pub const UNDECLARED: Self = Self::V010;
    /// The newest, in whose shape plugins compute.
    pub const NEWEST: Self = Self::V110;

    /// Its text, "1.1.0".
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V010 => "0.1.0",
            Self::V020 => "0.2.0",
            Self::V030 => "0.3.0",
            Self::V031 => "0.3.1",
            Self::V040 => "0.4.0",
            Self::V100 => "1.0.0",
            Self::V110 => "1.1.0",
        }
    }

    /// The version of exactly this text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// What the plugin of this name speaks: all, but for those of the reference's that begin later (the
    /// `VersionsStartingFrom` of their `main`).
    pub fn spoken_by(plugin: &str) -> &'static [Self] {
        let all: &'static [Self] = &Self::ALL;
        let oldest = match plugin {
            "bandwidth" => Self::V030,
            "firewall" => Self::V040,
            "vrf" => Self::V031,
            _ => return all,
        };
        all.iter().position(|version| *version == oldest).and_then(|at| all.get(at..)).unwrap_or(all)
    }

    /// Which results it understands.
    pub const fn family(self) -> Family {
        match self {
            Self::V010 | Self::V020 => Family::V02x,
            Self::V030 | Self::V031 | Self::V040 => Family::V04x,
            Self::V100 | Self::V110 => Family::V1x,
        }
    }

    /// The version that `declared` names (empty: [`Version::UNDECLARED`]) if a plugin that speaks `supported` speaks it.
    ///
    /// # Errors
    /// Code 1, `incompatible CNI versions`, with both sides in the details.
    pub fn check(declared: &str, supported: &[Self]) -> Result<Self> {
        let declared = if declared.is_empty() { Self::UNDECLARED.as_str() } else { declared };
        Self::parse(declared).filter(|version| supported.contains(version)).ok_or_else(|| {
            Error::incompatible_version("incompatible CNI versions").with_details(format!(
                "config is {}, plugin supports {}",
                quote(declared),
                quote_list(supported)
            ))
        })
    }
}

impl AsRef<str> for Version {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a plugin that speaks `supported` prints for VERSION, with the newline at its end. `cniVersion` is the newest
/// version, whatever stdin says: the reference does not read stdin here, and runtimes send it no name and no type.
pub fn version_answer(supported: &[Version]) -> String {
    #[derive(Serialize)]
    struct Answer<'a> {
        #[serde(rename = "cniVersion")]
        cni_version: Version,
        #[serde(rename = "supportedVersions", skip_serializing_if = "<[_]>::is_empty")]
        supported: &'a [Version],
    }
    let answer = Answer { cni_version: Version::NEWEST, supported };
    go_json::to_string(&answer).map(|text| text + "\n").unwrap_or_default()
}

/// A version's numbers, for the two rules that compare instead of looking up ("does not allow CHECK"). The reference accepts any one
/// to three numbers there.
///
/// # Errors
/// Code 6 with the reference's text.
pub(crate) fn numbers(text: &str) -> Result<[i64; 3]> {
    if text.is_empty() {
        return Ok([0, 1, 0]);
    }
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() > 3 {
        return Err(Error::decode(format!("invalid version {}: too many parts", quote(text))));
    }
    let mut numbers = [0; 3];
    for ((number, part), name) in numbers.iter_mut().zip(&parts).zip(["major", "minor", "micro"]) {
        *number = part.parse().map_err(|_| {
            let reason = match part.strip_prefix(['+', '-']).unwrap_or(part) {
                digits if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => "value out of range",
                _ => "invalid syntax",
            };
            let part = quote(part);
            Error::decode(format!(
                "failed to convert {name} version part {part}: strconv.Atoi: parsing {part}: {reason}"
            ))
        })?;
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membership_is_exact() {
        for version in Version::ALL {
            assert_eq!(Version::parse(version.as_str()), Some(version));
            assert_eq!(serde_json::to_string(&version).unwrap(), format!("\"{version}\""));
        }
        for text in ["", "1.0", "1.0.1", "v1.0.0", "1.0.0 ", "01.0.0", "1.1.0-dev", "1.2.0"] {
            assert_eq!(Version::parse(text), None, "{text:?}");
        }
        assert!(Version::ALL.is_sorted());
    }

    #[test]
    fn unsupported_version_names_both_sides() {
        let error = Version::check("9.9.9", &Version::ALL).unwrap_err();
        assert_eq!(error.code, 1);
        assert_eq!(
            error.to_string(),
            r#"incompatible CNI versions; config is "9.9.9", plugin supports ["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]"#
        );
        let error = Version::check("", &[Version::V040, Version::V100]).unwrap_err();
        assert_eq!(error.details, r#"config is "0.1.0", plugin supports ["0.4.0" "1.0.0"]"#);
        assert_eq!(Version::check("", &Version::ALL).unwrap(), Version::V010);
    }

    #[test]
    fn some_plugins_begin_later() {
        assert_eq!(Version::spoken_by("bridge"), Version::ALL);
        assert_eq!(Version::spoken_by("bandwidth"), &Version::ALL[2..]);
        assert_eq!(Version::spoken_by("firewall"), [Version::V040, Version::V100, Version::V110]);
        assert_eq!(Version::spoken_by("vrf"), &Version::ALL[3..]);
        let error = Version::check("0.2.0", Version::spoken_by("bandwidth")).unwrap_err();
        let details = r#"config is "0.2.0", plugin supports ["0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]"#;
        assert_eq!((error.code, error.details.as_str()), (1, details));
    }

    #[test]
    fn answers_version() {
        assert_eq!(
            version_answer(&Version::ALL),
            "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n"
        );
    }

    #[test]
    fn compares_by_numbers() {
        assert_eq!(numbers("1").unwrap(), [1, 0, 0]);
        assert_eq!(numbers("").unwrap(), [0, 1, 0]);
        for (text, message) in [
            ("1.2.3.4", r#"invalid version "1.2.3.4": too many parts"#),
            ("x", r#"failed to convert major version part "x": strconv.Atoi: parsing "x": invalid syntax"#),
            ("1.", r#"failed to convert minor version part "": strconv.Atoi: parsing "": invalid syntax"#),
            (
                "1.1.99999999999999999999",
                r#"failed to convert micro version part "99999999999999999999": strconv.Atoi: parsing "99999999999999999999": value out of range"#,
            ),
        ] {
            let error = numbers(text).unwrap_err();
            assert_eq!((error.code, error.msg.as_str()), (6, message));
        }
    }
}
