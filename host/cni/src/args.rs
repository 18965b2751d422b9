//! CNI_ARGS: `K=V;K2=V2`.
//!
//! Splitting and judging are apart because they happen apart: the host splits for every call, and only a plugin that reads
//! CNI_ARGS at all objects to what it finds there, as in the reference.

use crate::go_text::{quote, quote_list};
use crate::{Error, Result};

/// Splits CNI_ARGS. A part without `=` becomes a pair with an empty key, of which [`load`] complains.
pub fn split(text: &str) -> Vec<(String, String)> {
    if text.is_empty() {
        return Vec::new();
    }
    let pair = |part: &str| match part.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (String::new(), part.to_owned()),
    };
    text.split(';').map(pair).collect()
}

/// The text that [`split`] into `pairs`, for a delegate's environment.
pub fn join(pairs: &[(String, String)]) -> String {
    let parts: Vec<String> = pairs.iter().map(text_of).collect();
    parts.join(";")
}

/// The values of `known` in their order, the last occurrence of each; keys are compared with case. `IgnoreUnknown` is known
/// to everybody.
///
/// # Errors
/// Code 4 and the texts of `types.LoadArgs`: a pair without exactly one `=`, an `IgnoreUnknown` that is no boolean, and,
/// unless `IgnoreUnknown` is true, keys that are not in `known`.
pub fn load<'a, const N: usize>(pairs: &'a [(String, String)], known: [&str; N]) -> Result<[Option<&'a str>; N]> {
    let mut values = [None; N];
    let mut unknown = Vec::new();
    let mut ignore_unknown = false;
    for pair in pairs {
        let (key, value) = pair;
        if key.is_empty() || value.contains('=') {
            return Err(Error::invalid_environment(format!("ARGS: invalid pair {}", quote(&text_of(pair)))));
        }
        if key == "IgnoreUnknown" {
            ignore_unknown = match value.to_lowercase().as_str() {
                "1" | "true" => true,
                "0" | "false" => false,
                other => {
                    return Err(Error::invalid_environment(format!(
                        "ARGS: error parsing value of pair {}: boolean unmarshal error: invalid input {other}",
                        quote(&text_of(pair))
                    )));
                }
            };
        } else if let Some((_, slot)) = known.iter().zip(&mut values).find(|(name, _)| *name == key) {
            *slot = Some(value.as_str());
        } else {
            unknown.push(text_of(pair));
        }
    }
    if unknown.is_empty() || ignore_unknown {
        return Ok(values);
    }
    Err(Error::invalid_environment(format!("ARGS: unknown args {}", quote_list(&unknown))))
}

fn text_of((key, value): &(String, String)) -> String {
    if key.is_empty() { value.clone() } else { format!("{key}={value}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn loads_as_the_reference() {
        let loaded = |text: &str| {
            load(&split(text), ["IP", "MAC"])
                .map(|values| values.map(|value| value.map(str::to_owned)))
                .map_err(|error| error.to_string())
        };
        let values = |ip: Option<&str>, mac: Option<&str>| Ok([ip.map(str::to_owned), mac.map(str::to_owned)]);
        assert_eq!(loaded(""), values(None, None));
        assert_eq!(loaded("IP=10.0.0.1"), values(Some("10.0.0.1"), None));
        assert_eq!(loaded("IP=1;IP=2;MAC="), values(Some("2"), Some("")));
        assert_eq!(loaded("IgnoreUnknown=1;K8S_POD_NAME=foo;IP=1"), values(Some("1"), None));
        assert_eq!(loaded("K8S_POD_NAME=foo;IgnoreUnknown=TRUE"), values(None, None));
        for (text, error) in [
            ("K8S_POD_NAME=foo", r#"ARGS: unknown args ["K8S_POD_NAME=foo"]"#),
            ("ip=1;X=2;IgnoreUnknown=false", r#"ARGS: unknown args ["ip=1" "X=2"]"#),
            ("IP", r#"ARGS: invalid pair "IP""#),
            ("IP=1=2", r#"ARGS: invalid pair "IP=1=2""#),
            ("IP=1;", r#"ARGS: invalid pair """#),
            (
                "IgnoreUnknown=Yes",
                r#"ARGS: error parsing value of pair "IgnoreUnknown=Yes": boolean unmarshal error: invalid input yes"#,
            ),
        ] {
            assert_eq!(loaded(text), Err(error.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn join_undoes_split(text in "[A-Za-z0-9=;.:]{0,40}") {
            let pairs = split(&text);
            // A pair that begins with "=" has no key to keep the sign with; both are refused.
            if !text.split(';').any(|part| part.starts_with('=')) {
                prop_assert_eq!(join(&pairs), text);
            }
            let _ = load(&pairs, ["IP", "A"]);
        }
    }
}
