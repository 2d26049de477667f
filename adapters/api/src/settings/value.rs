//! Values of the configuration file.

use std::collections::BTreeMap;

/// A value of the configuration file, without its place in it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Integer(i128),
    /// A number with a decimal point.
    Float(f64),
    /// A string.
    Text(String),
    /// A date or a time of day, as written.
    Date(String),
    /// A list.
    List(Vec<Value>),
    /// A table.
    Table(BTreeMap<String, Value>),
}

impl Value {
    /// An empty table.
    pub fn table() -> Self {
        Value::Table(BTreeMap::new())
    }

    /// The type with its article, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Flag(_) => "a boolean",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Text(_) => "a string",
            Value::Date(_) => "a date",
            Value::List(_) => "an array",
            Value::Table(_) => "a table",
        }
    }

    /// The value of a key of this table.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Table(table) => table.get(key),
            _ => None,
        }
    }
}
