//! Types out of a [`Json`] tree by Go's rules; they are listed in the module above.

use super::{Json, JsonError, eq_fold};
use serde::Deserializer;
use serde::de::value::StringDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use std::fmt::Display;
use std::vec;

type Result<T> = std::result::Result<T, JsonError>;

impl de::Error for JsonError {
    fn custom<T: Display>(text: T) -> Self {
        Self::Text(text.to_string())
    }
}

impl JsonError {
    /// The error, seen from the struct `name` whose member `key` it is about.
    fn within(mut self, name: &str, key: &str) -> Self {
        if let Self::Type { owner, path, .. } = &mut self {
            // Go prints "main.Net" where a type is wanted and "Net" for the owner of a field; anonymous structs have no name.
            owner.get_or_insert_with(|| match name {
                name if name.starts_with("struct {") => String::new(),
                name => name.rsplit('.').next().unwrap_or(name).to_owned(),
            });
            path.insert(0, key.to_owned());
        }
        self
    }
}

impl Json {
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    fn unfit<T>(&self, wanted: &str) -> Result<T> {
        Err(JsonError::Type { value: self.kind().to_owned(), wanted: wanted.to_owned(), owner: None, path: Vec::new() })
    }
}

/// A number of the right kind that is none of the wanted ones. Go names the literal here.
fn unfit_number<T>(number: &Number, wanted: &str) -> Result<T> {
    Err(JsonError::Type { value: format!("number {number}"), wanted: wanted.to_owned(), owner: None, path: Vec::new() })
}

macro_rules! integers {
    ($($method:ident $visit:ident $rust:ty, $go:literal;)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            match self {
                Self::Null => visitor.$visit(0),
                Self::Number(n) if n.is_f64() => unfit_number(&n, "int"),
                Self::Number(n) => {
                    let unsigned = n.as_u64().and_then(|n| <$rust>::try_from(n).ok());
                    match unsigned.or_else(|| n.as_i64().and_then(|n| <$rust>::try_from(n).ok())) {
                        Some(fits) => visitor.$visit(fits),
                        None => unfit_number(&n, $go),
                    }
                }
                // Nearly all integers of the reference's configurations are plain ints.
                other => other.unfit("int"),
            }
        }
    )* };
}

impl<'de> Deserializer<'de> for Json {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(b) => visitor.visit_bool(b),
            Self::Number(n) => match (n.as_u64(), n.as_i64(), n.as_f64()) {
                (Some(n), _, _) => visitor.visit_u64(n),
                (_, Some(n), _) => visitor.visit_i64(n),
                (_, _, n) => visitor.visit_f64(n.unwrap_or(f64::NAN)),
            },
            Self::String(s) => visitor.visit_string(s),
            Self::Array(items) => visitor.visit_seq(Items(items.into_iter())),
            Self::Object(members) => visitor.visit_map(Members::of_map(members)),
        }
    }

    integers! {
        deserialize_i8 visit_i8 i8, "int8";
        deserialize_i16 visit_i16 i16, "int16";
        deserialize_i32 visit_i32 i32, "int32";
        deserialize_i64 visit_i64 i64, "int64";
        deserialize_u8 visit_u8 u8, "uint8";
        deserialize_u16 visit_u16 u16, "uint16";
        deserialize_u32 visit_u32 u32, "uint32";
        deserialize_u64 visit_u64 u64, "uint64";
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Self::Null => visitor.visit_f64(0.0),
            Self::Number(n) => visitor.visit_f64(n.as_f64().unwrap_or(f64::NAN)),
            other => other.unfit("float64"),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Self::Null => visitor.visit_bool(false),
            Self::Bool(b) => visitor.visit_bool(b),
            other => other.unfit("bool"),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Self::Null => visitor.visit_string(String::new()),
            Self::String(s) => visitor.visit_string(s),
            other => other.unfit("string"),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_string(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_string(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Self::Null => visitor.visit_none(),
            some => visitor.visit_some(some),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Self::Null => visitor.visit_seq(Items(Vec::new().into_iter())),
            Self::Array(items) => visitor.visit_seq(Items(items.into_iter())),
            other => other.unfit("array"),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Self::Null => visitor.visit_map(Members::of_map(Vec::new())),
            Self::Object(members) => visitor.visit_map(Members::of_map(members)),
            other => other.unfit("map"),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self {
            Self::Null => visitor.visit_map(Members::of_map(Vec::new())),
            Self::Object(members) => visitor.visit_map(Members::of_struct(name, fields, members)),
            other => other.unfit(name),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self {
            Self::String(s) => {
                let s: StringDeserializer<JsonError> = s.into_deserializer();
                visitor.visit_enum(s)
            }
            object @ Self::Object(_) => {
                Value::from(object).deserialize_enum(name, variants, visitor).map_err(de::Error::custom)
            }
            other => other.unfit("string"),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! { bytes byte_buf unit unit_struct }
}

struct Items(vec::IntoIter<Json>);

impl<'de> SeqAccess<'de> for Items {
    type Error = JsonError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        self.0.next().map(|item| seed.deserialize(item)).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Members {
    members: vec::IntoIter<(String, Json)>,
    /// Name of the struct that they belong to; none in a map.
    owner: Option<&'static str>,
    value: Option<(String, Json)>,
}

impl Members {
    fn of_map(members: Vec<(String, Json)>) -> Self {
        Self { members: members.into_iter(), owner: None, value: None }
    }

    /// Gives each member the name of its field, each field once. Others keep theirs: only the type knows whether they may
    /// be there.
    fn of_struct(name: &'static str, fields: &[&'static str], members: Vec<(String, Json)>) -> Self {
        let mut folded: Vec<(String, Json)> = Vec::with_capacity(members.len());
        // Where in `folded` a field is. Looked up by field and not among the members: their number is an attacker's choice.
        let mut places: Vec<Option<usize>> = vec![None; fields.len()];
        for (key, value) in members {
            if value == Json::Null {
                continue;
            }
            let exact = fields.iter().position(|field| *field == key);
            let field = exact.or_else(|| fields.iter().position(|field| eq_fold(field, &key)));
            let place = field.and_then(|field| places.get_mut(field));
            let earlier = place.as_ref().and_then(|place| **place).and_then(|place| folded.get_mut(place));
            match (earlier, place) {
                (Some((_, Json::Object(earlier))), _) if matches!(value, Json::Object(_)) => {
                    if let Json::Object(value) = value {
                        earlier.extend(value);
                    }
                }
                (Some((_, earlier)), _) => *earlier = value,
                (None, place) => {
                    if let Some(place) = place {
                        *place = Some(folded.len());
                    }
                    let name = field.and_then(|field| fields.get(field)).map_or(key, |name| (*name).to_owned());
                    folded.push((name, value));
                }
            }
        }
        Self { members: folded.into_iter(), owner: Some(name), value: None }
    }
}

impl<'de> MapAccess<'de> for Members {
    type Error = JsonError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let Some((key, value)) = self.members.next() else { return Ok(None) };
        let read = seed.deserialize(Key(key.clone()))?;
        self.value = Some((key, value));
        Ok(Some(read))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        let (key, value) = self.value.take().unwrap_or_else(|| (String::new(), Json::Null));
        seed.deserialize(value).map_err(|error| match self.owner {
            Some(owner) => error.within(owner, &key),
            None => error,
        })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.members.len())
    }
}

/// A key of an object. Go reads integer keys of maps out of their text.
struct Key(String);

macro_rules! integer_keys {
    ($($method:ident $visit:ident;)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            match self.0.parse() {
                Ok(number) => visitor.$visit(number),
                Err(_) => Err(JsonError::Type {
                    value: format!("number {}", self.0),
                    wanted: "int".to_owned(),
                    owner: None,
                    path: Vec::new(),
                }),
            }
        }
    )* };
}

impl<'de> Deserializer<'de> for Key {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_string(self.0)
    }

    integer_keys! {
        deserialize_i8 visit_i8;
        deserialize_i16 visit_i16;
        deserialize_i32 visit_i32;
        deserialize_i64 visit_i64;
        deserialize_u8 visit_u8;
        deserialize_u16 visit_u16;
        deserialize_u32 visit_u32;
        deserialize_u64 visit_u64;
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let key: StringDeserializer<JsonError> = self.0.into_deserializer();
        visitor.visit_enum(key)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_some(self)
    }

    serde::forward_to_deserialize_any! {
        bool f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
        ignored_any
    }
}
