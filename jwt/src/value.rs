//! Values of claims, and the claims of one caller that conditions may name.

use crate::escape::{escape, unescape};
use crate::json::Json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A value that can be compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scalar {
    /// A text.
    Text(Arc<str>),
    /// A whole number.
    Integer(i64),
    /// True or false.
    Flag(bool),
}

impl Scalar {
    fn of(json: &Json) -> Option<Self> {
        match json {
            Json::Text(text) => Some(Scalar::Text(text.as_str().into())),
            Json::Integer(number) => Some(Scalar::Integer(*number)),
            Json::Flag(flag) => Some(Scalar::Flag(*flag)),
            Json::Null | Json::Number | Json::List(_) | Json::Object(_) => None,
        }
    }

    /// Whether both are of one type.
    pub(crate) fn is_like(&self, other: &Scalar) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    fn encode(&self, into: &mut String) {
        match self {
            Scalar::Text(text) => {
                into.push('t');
                escape(text, into);
            }
            Scalar::Integer(number) => {
                into.push('i');
                into.push_str(&number.to_string());
            }
            Scalar::Flag(flag) => into.push_str(if *flag { "b1" } else { "b0" }),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        match text.split_at_checked(1)? {
            ("t", text) => Some(Scalar::Text(unescape(text)?.into())),
            ("i", number) => Some(Scalar::Integer(number.parse().ok()?)),
            ("b", "1") => Some(Scalar::Flag(true)),
            ("b", "0") => Some(Scalar::Flag(false)),
            _ => None,
        }
    }
}

/// The value of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The token does not have the claim.
    Absent,
    /// A text, a whole number, true or false.
    One(Scalar),
    /// A list of such.
    List(Vec<Scalar>),
    /// Another value, which equals none.
    Other,
}

impl Value {
    /// The value of a member.
    pub(crate) fn of(json: &Json) -> Self {
        match json {
            Json::List(list) => match list.iter().map(Scalar::of).collect() {
                Some(list) => Value::List(list),
                None => Value::Other,
            },
            other => Scalar::of(other).map_or(Value::Other, Value::One),
        }
    }

    fn encode(&self, into: &mut String) {
        match self {
            Value::Absent => into.push('n'),
            Value::One(scalar) => scalar.encode(into),
            Value::List(list) => {
                into.push('l');
                for scalar in list {
                    into.push('+');
                    scalar.encode(into);
                }
            }
            Value::Other => into.push('o'),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        match text {
            "n" => return Some(Value::Absent),
            "o" => return Some(Value::Other),
            "l" => return Some(Value::List(Vec::new())),
            _ => {}
        }
        match text.strip_prefix("l+") {
            Some(list) => list.split('+').map(Scalar::decode).collect::<Option<_>>().map(Value::List),
            None => Scalar::decode(text).map(Value::One),
        }
    }
}

/// The claims of one caller that its issuer's settings name, with their values. A claim that the token does not have is
/// [`Value::Absent`]: a server that is asked about another claim finds none, and knows that it was not looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(BTreeMap<Arc<str>, Value>);

impl Attributes {
    pub(crate) fn new(values: BTreeMap<Arc<str>, Value>) -> Self {
        Self(values)
    }

    /// The value of a claim. `None`: the claim was not looked for in the token.
    pub fn get(&self, claim: &str) -> Option<&Value> {
        self.0.get(claim)
    }

    /// Claims and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(claim, value)| (&**claim, value))
    }

    /// The only text of these claims: printable ASCII without white space.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        for (claim, value) in &self.0 {
            if !text.is_empty() {
                text.push('&');
            }
            escape(claim, &mut text);
            text.push('=');
            value.encode(&mut text);
        }
        text
    }

    /// Reads [`Attributes::encode`]. Another text than the only one is refused.
    pub fn decode(text: &str) -> Option<Self> {
        let mut values = BTreeMap::new();
        for part in text.split('&').filter(|_| !text.is_empty()) {
            let (claim, value) = part.split_once('=')?;
            values.insert(Arc::from(unescape(claim)?), Value::decode(value)?);
        }
        let found = Attributes(values);
        (found.encode() == text).then_some(found)
    }
}
