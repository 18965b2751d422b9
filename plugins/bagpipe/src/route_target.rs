//! Route targets as configurations write them and as the agent takes them.

use sandwire_plugin::Failure;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use std::collections::BTreeSet;
use std::fmt;

/// The texts of a key, not yet validated: a string, a comma-separated string or a list of strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given(Vec<String>);

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Given;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a route target (\"64512:90\"), several with commas between, or a list of them")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Given, E> {
                let parts = if text.trim().is_empty() {
                    Vec::new()
                } else {
                    text.split(',').map(|t| t.trim().to_owned()).collect()
                };
                Ok(Given(parts))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Given, A::Error> {
                let mut parts = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    parts.push(text.trim().to_owned());
                }
                Ok(Given(parts))
            }
        }
        deserializer.deserialize_any(Texts)
    }
}

/// Route targets of one direction, each `AS:number` with a two-octet AS, without repetition, in numeric order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RouteTargets(BTreeSet<(u16, u32)>);

impl RouteTargets {
    /// `key` is the configuration's, for the error.
    ///
    /// Only the two-octet form (RFC 4360, 4): the agent answers 500 for the others, whose BGP encoding it does not have,
    /// after it has made the instance.
    ///
    /// # Errors
    /// Code 7 for the first that is none.
    pub(crate) fn parse(key: &str, given: &Given) -> Result<Self, Failure> {
        given.0.iter().map(|text| one(text).ok_or_else(|| refuse(key, text))).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the agent takes them.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.0.iter().map(|(asn, number)| format!("{asn}:{number}")).collect()
    }
}

fn one(text: &str) -> Option<(u16, u32)> {
    let (asn, number) = text.split_once(':')?;
    // `parse` alone would take "+90".
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits(asn) && digits(number) { Some((asn.parse().ok()?, number.parse().ok()?)) } else { None }
}

fn refuse(key: &str, text: &str) -> Failure {
    Failure::config(format!("{key}: {text:?} is no route target")).with_details(
        "one looks like \"64512:90\": an AS number of two octets (0 to 65535), a colon, a number (0 to 4294967295); nothing was attached",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Vec<String>, Failure> {
        RouteTargets::parse("importrt", &serde_json::from_str(json).unwrap()).map(|targets| targets.texts())
    }

    #[test]
    fn a_string_a_comma_separated_string_and_a_list_say_the_same() {
        for json in [r#""64512:91,64512:90""#, r#"" 64512:91 , 64512:90 ""#, r#"["64512:91","64512:90","064512:90"]"#] {
            assert_eq!(parse(json).unwrap(), ["64512:90", "64512:91"], "{json}");
        }
        assert_eq!(parse(r#""64512:90""#).unwrap(), ["64512:90"]);
        assert_eq!(parse(r#""0:4294967295""#).unwrap(), ["0:4294967295"]);
        assert_eq!(parse("[]").unwrap(), parse(r#""""#).unwrap());
    }

    #[test]
    fn other_forms_are_refused_by_name() {
        for text in [
            "90",
            "a:b",
            "4200000000:1",
            "65536:1",
            "1:4294967296",
            "192.0.2.1:5",
            "+1:2",
            "1:-2",
            "1:2:3",
            ":",
            "1:",
            "1 :2",
            "64512:90,",
        ] {
            let failure = parse(&format!("{text:?}")).unwrap_err();
            assert_eq!(failure.code, 7, "{text}");
            assert!(failure.msg.starts_with("importrt: "), "{}", failure.msg);
        }
        assert_eq!(parse(r#""64512:90,x""#).unwrap_err().msg, r#"importrt: "x" is no route target"#);
        assert!(serde_json::from_str::<Given>("64512").is_err());
    }
}
