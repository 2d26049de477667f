//! The keys of a settings type, from its own `Deserialize`.

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use std::fmt;

/// The keys that a settings type knows, in the order of its fields. Empty for a type that is not a struct.
pub fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    match T::deserialize(Fields) {
        Ok(_) | Err(Found(None)) => &[],
        Err(Found(Some(fields))) => fields,
    }
}

/// Answers the first question of a `Deserialize` with an error that carries the fields.
struct Fields;

#[derive(Debug)]
struct Found(Option<&'static [&'static str]>);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("only the fields were wanted")
    }
}

impl std::error::Error for Found {}

impl serde::de::Error for Found {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Found(None)
    }
}

impl<'de> Deserializer<'de> for Fields {
    type Error = Found;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Found> {
        Err(Found(None))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Found> {
        Err(Found(Some(fields)))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
