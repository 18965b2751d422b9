//! JSON as Go's `encoding/json` reads and writes it.
//!
//! Configurations in the field rely on what the reference plugins' decoder accepts: keys in any case (`"isgateway"`, `runtimeConfig.bandWidth`
//! in the reference's own tests), `null` for "not set", the last of several equal keys. serde_json accepts none of these, and accepts what Go
//! refuses. So text is read into a tree that keeps order and repetitions, and types are read from that tree with Go's rules
//! and, as far as serde tells enough, with Go's error messages:
//!
//! - A struct's key matches without regard to case; a field of exactly that name is preferred. The last one wins; objects merge.
//! - `null` leaves a field as if it were absent, so fields need `#[serde(default)]`. In lists and maps it is the zero value.
//! - Whole numbers are whole in the text too: `1.0`, `1e3` and `"1"` are no integers.
//! - Structs with `#[serde(flatten)]` and enums with `#[serde(untagged)]` hide their fields' names from a
//!   deserializer: these names match with their exact case only.
//! - Error messages call a struct by its serde name. `#[serde(rename = "main.Net")]` gives it the name that the reference prints.
//!
//! Text nested deeper than [`MAX_DEPTH`] is refused, whatever its length.

mod de;
mod syntax;

use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Number, Value};
use std::fmt;

/// How deep lists and objects may be nested: serde_json's own limit, by which nothing that walks a tree here can exhaust
/// the stack. (Go's is 10,000.)
pub const MAX_DEPTH: usize = 127;

/// A JSON value with its members in the order, and as often, as they stand in the text.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number; whole ones beyond 64 bits become floating.
    Number(Number),
    /// A string.
    String(String),
    /// A list.
    Array(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
}

/// Why text is not JSON, or not the JSON that was wanted, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Complete as it stands.
    #[error("{0}")]
    Text(String),
    /// A value of another type than the wanted one.
    #[error("json: cannot unmarshal {value} into Go {} of type {wanted}", place(.owner, .path))]
    Type {
        /// What stands there: "string", "number 1.5".
        value: String,
        /// What was wanted there: "int".
        wanted: String,
        /// Innermost struct; none when the value is outside any.
        owner: Option<String>,
        /// Keys from the root to the value.
        path: Vec<String>,
    },
}

fn place(owner: &Option<String>, path: &[String]) -> String {
    match owner {
        Some(owner) => format!("struct field {owner}.{}", path.join(".")),
        None => "value".to_owned(),
    }
}

impl Json {
    /// Reads text.
    ///
    /// # Errors
    /// Go's message for the first byte that can't stand where it does; text after the value; too deep nesting.
    pub fn parse(text: &str) -> Result<Self, JsonError> {
        let error = match serde_json::from_str(text) {
            Ok(json) => return Ok(json),
            Err(error) => error,
        };
        match syntax::explain(text.as_bytes()) {
            Some(text) => Err(JsonError::Text(text)),
            // Nothing is wrong with it for Go.
            None => serde_json::from_str(&syntax::tolerated(text)).map_err(|_| JsonError::Text(error.to_string())),
        }
    }

    /// Reads text that may not be UTF-8: as in Go, each wrong byte becomes U+FFFD.
    ///
    /// # Errors
    /// As [`Json::parse`].
    pub fn parse_slice(text: &[u8]) -> Result<Self, JsonError> {
        Self::parse(&String::from_utf8_lossy(text))
    }

    /// The last member whose key is `key` but for case. None when this is no object.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().rev().find(|(k, _)| eq_fold(k, key)).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Reads a `T` from it.
    ///
    /// # Errors
    /// What does not fit, in Go's words.
    pub fn decode<T: DeserializeOwned>(self) -> Result<T, JsonError> {
        T::deserialize(self)
    }
}

/// Reads a `T` from text.
///
/// # Errors
/// As [`Json::parse`] and [`Json::decode`].
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, JsonError> {
    Json::parse(text)?.decode()
}

/// Reads a `T` from text that may not be UTF-8.
///
/// # Errors
/// As [`Json::parse_slice`] and [`Json::decode`].
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, JsonError> {
    Json::parse_slice(text)?.decode()
}

/// Reads a `T` from a value of serde_json. Such a value has lost the order of its keys, so of several that differ in case
/// only the one that a field has exactly, or else any, wins: read from text where that matters.
///
/// # Errors
/// As [`Json::decode`].
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, JsonError> {
    Json::from(value).decode()
}

/// The member of `object` whose key is `key`, or else is `key` but for case.
pub fn get_fold<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).or_else(|| object.iter().rev().find(|(k, _)| eq_fold(k, key)).map(|(_, value)| value))
}

/// Whether two keys are equal but for case, by Unicode's simple folding.
pub fn eq_fold(a: &str, b: &str) -> bool {
    // Most pairs differ in their first letters. (ASCII folds into ASCII, but for the two below.)
    if let (Some(a), Some(b)) = (a.bytes().next(), b.bytes().next())
        && a.is_ascii()
        && b.is_ascii()
        && !a.eq_ignore_ascii_case(&b)
    {
        return false;
    }
    if a.is_ascii() && b.is_ascii() {
        return a.eq_ignore_ascii_case(b);
    }
    let fold = |c: char| match c {
        // The two characters outside ASCII that fold into it.
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_lowercase().next().unwrap_or(c),
    };
    a.chars().map(fold).eq(b.chars().map(fold))
}

/// Writes compact JSON with Go's escapes.
///
/// # Errors
/// A type whose JSON has keys that are no strings.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String, JsonError> {
    serde_json::to_string(value).map(escape).map_err(|error| JsonError::Text(error.to_string()))
}

/// Writes JSON indented by four spaces, without a newline at the end, as CNI plugins print it.
///
/// # Errors
/// As [`to_string`].
pub fn to_string_indent<T: Serialize + ?Sized>(value: &T) -> Result<String, JsonError> {
    let mut text = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut text, format))
        .map_err(|error| JsonError::Text(error.to_string()))?;
    Ok(escape(String::from_utf8_lossy(&text).into_owned()))
}

/// `encoding/json` escapes what is special in HTML and JavaScript. Outside strings JSON has none of these characters.
fn escape(text: String) -> String {
    const SPECIAL: [(char, &str); 5] =
        [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")];
    let mut escaped = text;
    for (special, escape) in SPECIAL {
        if escaped.contains(special) {
            escaped = escaped.replace(special, escape);
        }
    }
    escaped
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(b) => Self::Bool(*b),
            Value::Number(n) => Self::Number(n.clone()),
            Value::String(s) => Self::String(s.clone()),
            Value::Array(items) => Self::Array(items.iter().map(Self::from).collect()),
            Value::Object(members) => Self::Object(members.iter().map(|(k, v)| (k.clone(), v.into())).collect()),
        }
    }
}

impl From<Json> for Value {
    /// Of several equal keys the last one wins.
    fn from(json: Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(b) => Self::Bool(b),
            Json::Number(n) => Self::Number(n),
            Json::String(s) => Self::String(s),
            Json::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            Json::Object(members) => Self::Object(members.into_iter().map(|(k, v)| (k, v.into())).collect()),
        }
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(b) => serializer.serialize_bool(*b),
            Self::Number(n) => n.serialize(serializer),
            Self::String(s) => serializer.serialize_str(s),
            Self::Array(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                members.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tree;
        impl<'de> Visitor<'de> for Tree {
            type Value = Json;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }
            fn visit_bool<E>(self, b: bool) -> Result<Json, E> {
                Ok(Json::Bool(b))
            }
            fn visit_u64<E>(self, n: u64) -> Result<Json, E> {
                Ok(Json::Number(n.into()))
            }
            fn visit_i64<E>(self, n: i64) -> Result<Json, E> {
                Ok(Json::Number(n.into()))
            }
            fn visit_f64<E>(self, n: f64) -> Result<Json, E> {
                Ok(Number::from_f64(n).map_or(Json::Null, Json::Number))
            }
            fn visit_str<E>(self, s: &str) -> Result<Json, E> {
                Ok(Json::String(s.to_owned()))
            }
            fn visit_string<E>(self, s: String) -> Result<Json, E> {
                Ok(Json::String(s))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Json::Array(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Json::Object(members))
            }
        }
        deserializer.deserialize_any(Tree)
    }
}

#[cfg(test)]
mod tests;
