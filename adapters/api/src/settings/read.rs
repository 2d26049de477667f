//! Reads a table into a settings type through serde, with typed errors.
//!
//! Serde's own errors are texts. This deserializer knows the type that was wanted and the path at which it was wanted, so
//! that each mistake is a [`ConfigProblem`] and no text is ever parsed. It does not stop at the first one: the value at
//! fault is left out, and the rest is read again.

use super::names::closest;
use super::problem::{ConfigProblem, Segment};
use super::value::Value;
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use std::collections::{BTreeMap, btree_map};
use std::fmt;

/// The names of a table, for messages about its keys.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The table's title without brackets: `pool.ssh`.
    pub title: String,
    /// Other tables by their titles with brackets, and their keys: a key that belongs there is sent there.
    pub elsewhere: Vec<(String, Vec<&'static str>)>,
}

/// Reads a table into a settings type.
///
/// # Errors
/// All mistakes that can be told apart: unknown and missing keys, values of a wrong type, numbers out of range.
pub fn read<T: DeserializeOwned>(table: &Value, scope: &Scope) -> Result<T, Vec<ConfigProblem>> {
    let mut table = Node::of(table);
    let mut problems = Vec::new();
    let mut left_out: Vec<Vec<Segment>> = Vec::new();
    loop {
        let fault = match T::deserialize(Reader { value: &table, map_key: None }) {
            Ok(settings) if problems.is_empty() => return Ok(settings),
            Ok(_) => return Err(problems),
            Err(fault) => fault,
        };
        let path = fault.path();
        // A value that was left out for a mistake is not missing as well.
        let excused = match &fault.what {
            What::MissingKey(key) => left_out.contains(&[path.as_slice(), &[Segment::from(*key)]].concat()),
            _ => false,
        };
        if !excused {
            problems.push(fault.clone().into_problem(path.clone(), scope));
        }
        // A missing key is mended by leaving its whole table out.
        if !remove(&mut table, &path) {
            return Err(problems);
        }
        left_out.push(path.into_iter().map(as_value).collect());
    }
}

fn as_value(segment: Segment) -> Segment {
    match segment {
        Segment::Name(key) => Segment::Key(key),
        other => other,
    }
}

/// A value whose parts can be left out. Entries of lists keep their numbers.
#[derive(Clone, Debug)]
enum Node {
    Leaf(Value),
    List(Vec<(usize, Node)>),
    Table(BTreeMap<String, Node>),
}

impl Node {
    fn of(value: &Value) -> Self {
        match value {
            Value::List(list) => Node::List(list.iter().map(Node::of).enumerate().collect()),
            Value::Table(table) => {
                Node::Table(table.iter().map(|(key, entry)| (key.clone(), Node::of(entry))).collect())
            }
            leaf => Node::Leaf(leaf.clone()),
        }
    }

    /// The value, without its parts, for messages.
    fn shape(&self) -> Value {
        match self {
            Node::Leaf(value) => value.clone(),
            Node::List(_) => Value::List(Vec::new()),
            Node::Table(_) => Value::table(),
        }
    }
}

/// Takes the value at a path out of its table or list.
fn remove(value: &mut Node, path: &[Segment]) -> bool {
    match (path, value) {
        ([Segment::Key(key) | Segment::Name(key)], Node::Table(table)) => table.remove(key).is_some(),
        ([Segment::Index(at)], Node::List(list)) => {
            let before = list.len();
            list.retain(|(index, _)| index != at);
            list.len() < before
        }
        ([Segment::Key(key), rest @ ..], Node::Table(table)) => {
            table.get_mut(key).is_some_and(|entry| remove(entry, rest))
        }
        ([Segment::Index(at), rest @ ..], Node::List(list)) => {
            list.iter_mut().find(|(index, _)| index == at).is_some_and(|(_, entry)| remove(entry, rest))
        }
        _ => false,
    }
}

/// A mistake under way from the value to the table: its path grows from the end.
#[derive(Clone, Debug)]
struct Fault {
    what: What,
    reversed: Vec<Segment>,
}

#[derive(Clone, Debug)]
enum What {
    UnknownKey { key: String, known: &'static [&'static str] },
    MissingKey(&'static str),
    WrongType { found: Value, wanted: Wanted },
    OutOfRange { found: i128, low: i128, high: i128 },
    UnknownWord { found: String, known: &'static [&'static str] },
    Other { message: String, remedy: String },
}

/// The type that was wanted.
#[derive(Clone, Debug)]
enum Wanted {
    Flag,
    Integer,
    Number,
    Text,
    List,
    Table,
    /// In the words of the settings type.
    Described(String),
}

impl Fault {
    fn new(what: What) -> Self {
        Self { what, reversed: Vec::new() }
    }

    fn at(mut self, segment: Segment) -> Self {
        self.reversed.push(segment);
        self
    }

    fn path(&self) -> Vec<Segment> {
        self.reversed.iter().rev().cloned().collect()
    }

    fn into_problem(self, path: Vec<Segment>, scope: &Scope) -> ConfigProblem {
        let (message, label, remedy) = match self.what {
            What::UnknownKey { key, known } => {
                let title = title(scope, &path);
                let others =
                    scope.elsewhere.iter().filter(|(other, keys)| *other != title && keys.contains(&key.as_str()));
                let others: Vec<&str> = others.map(|(other, _)| other.as_str()).collect();
                let remedy = match closest(&key, known) {
                    // The exact name elsewhere is likelier than a similar one here.
                    _ if !others.is_empty() => format!("it belongs in {}", others.join(" or ")),
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known here: {}", known.join(", ")),
                };
                (format!("unknown key `{key}` in {title}"), "not known here", remedy)
            }
            What::MissingKey(key) => {
                (format!("`{key}` is missing in {}", title(scope, &path)), "", format!("add {key} = …"))
            }
            What::WrongType { found, wanted } => {
                let name = name_of(&path);
                (format!("{name} is {}", found.type_name()), "wrong type", wanted.remedy(&found))
            }
            What::OutOfRange { found, low, high } => {
                let label = if found < low { "too small" } else { "too large" };
                (format!("{} is {found}", name_of(&path)), label, format!("use {low} to {high}"))
            }
            What::UnknownWord { found, known } => {
                let all = known.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
                let remedy = match closest(&found, known) {
                    Some(near) => format!("did you mean {near:?}? All values: {all}"),
                    None => format!("use one of {all}"),
                };
                (format!("{} is {found:?}", name_of(&path)), "not known", remedy)
            }
            What::Other { message, remedy } => (message, "", remedy),
        };
        ConfigProblem { path, label, ..ConfigProblem::new(message, remedy) }
    }
}

/// The title of the table in which a key stands, with brackets.
fn title(scope: &Scope, path: &[Segment]) -> String {
    let mut title = scope.title.clone();
    let mut listed = false;
    for segment in path {
        match segment {
            Segment::Key(key) => {
                title.push('.');
                title.push_str(key);
            }
            Segment::Index(_) => listed = true,
            Segment::Name(_) => {}
        }
    }
    if listed { format!("[[{title}]]") } else { format!("[{title}]") }
}

/// The value at a path, for messages.
fn name_of(path: &[Segment]) -> String {
    match path {
        [.., Segment::Key(key) | Segment::Name(key)] => format!("`{key}`"),
        [.., Segment::Key(key), Segment::Index(_)] => format!("an entry of `{key}`"),
        _ => "this".to_string(),
    }
}

impl Wanted {
    /// The instruction, with the value itself where it only has the wrong form.
    fn remedy(&self, found: &Value) -> String {
        match (self, found) {
            (Wanted::Integer | Wanted::Number, Value::Text(text)) if text.trim().parse::<i64>().is_ok() => {
                format!("write a number, without quotes: {}", text.trim())
            }
            (Wanted::Integer, _) => "write a whole number".into(),
            (Wanted::Number, _) => "write a number".into(),
            (Wanted::Flag, Value::Text(text)) if ["true", "false"].contains(&text.as_str()) => {
                format!("write it without quotes: {text}")
            }
            (Wanted::Flag, _) => "write true or false".into(),
            (Wanted::Text, Value::Integer(number)) => format!("write a string in quotes: \"{number}\""),
            (Wanted::Text, Value::Flag(flag)) => format!("write a string in quotes: \"{flag}\""),
            (Wanted::Text, _) => "write a string in quotes".into(),
            (Wanted::List, Value::Text(text)) => format!("write a list: [{text:?}]"),
            (Wanted::List, _) => "write a list in [ ]".into(),
            (Wanted::Table, _) => "write a table".into(),
            (Wanted::Described(text), _) => format!("write {text}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.what)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Fault::new(What::Other { message: message.to_string(), remedy: String::new() })
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match unexpected {
            Unexpected::Bool(flag) => Value::Flag(flag),
            Unexpected::Unsigned(number) => Value::Integer(number.into()),
            Unexpected::Signed(number) => Value::Integer(number.into()),
            Unexpected::Float(number) => Value::Float(number),
            Unexpected::Char(c) => Value::Text(c.into()),
            Unexpected::Str(text) => Value::Text(text.into()),
            Unexpected::Seq => Value::List(Vec::new()),
            Unexpected::Map => Value::table(),
            other => {
                let message = format!("this is {other}");
                return Fault::new(What::Other { message, remedy: format!("write {expected}") });
            }
        };
        Fault::new(What::WrongType { found, wanted: Wanted::Described(expected.to_string()) })
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Fault::new(What::Other { message: format!("this is {unexpected}"), remedy: format!("write {expected}") })
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Fault::new(What::UnknownWord { found: variant.to_string(), known: expected })
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Fault::new(What::UnknownKey { key: field.to_string(), known: expected }).at(Segment::Name(field.to_string()))
    }

    fn missing_field(field: &'static str) -> Self {
        Fault::new(What::MissingKey(field))
    }
}

/// Reads one value.
struct Reader<'a> {
    value: &'a Node,
    /// Set while the key of a map is read.
    map_key: Option<&'a str>,
}

impl<'a> Reader<'a> {
    fn wrong<T>(&self, wanted: Wanted) -> Result<T, Fault> {
        Err(Fault::new(What::WrongType { found: self.value.shape(), wanted }))
    }

    fn integer(&self, low: i128, high: i128) -> Result<i128, Fault> {
        match self.value {
            Node::Leaf(Value::Integer(number)) if (low..=high).contains(number) => Ok(*number),
            Node::Leaf(Value::Integer(number)) => Err(Fault::new(What::OutOfRange { found: *number, low, high })),
            _ => self.wrong(Wanted::Integer),
        }
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let number = self.integer(<$type>::MIN.into(), <$type>::MAX.into())?;
            match <$type>::try_from(number) {
                Ok(number) => visitor.$visit(number),
                Err(_) => self.wrong(Wanted::Integer),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let value = match self.value {
            Node::List(list) => return visitor.visit_seq(List { entries: list.iter() }),
            Node::Table(table) => return visitor.visit_map(Entries { entries: table.iter(), value: None }),
            Node::Leaf(value) => value,
        };
        match value {
            Value::Flag(flag) => visitor.visit_bool(*flag),
            Value::Integer(number) => match i64::try_from(*number) {
                Ok(number) => visitor.visit_i64(number),
                Err(_) => visitor.visit_i128(*number),
            },
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Text(text) | Value::Date(text) => visitor.visit_str(text),
            Value::List(_) | Value::Table(_) => visitor.visit_unit(),
        }
    }

    integers! {
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
    }

    /// TOML has no integer above that of 64 bits with a sign.
    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let number = self.integer(0, i64::MAX.into())?;
        match u64::try_from(number) {
            Ok(number) => visitor.visit_u64(number),
            Err(_) => self.wrong(Wanted::Integer),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Node::Leaf(Value::Float(number)) => visitor.visit_f64(*number),
            Node::Leaf(Value::Integer(number)) => visitor.visit_f64(*number as f64),
            _ => self.wrong(Wanted::Number),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Node::Leaf(Value::Flag(flag)) => visitor.visit_bool(*flag),
            _ => self.wrong(Wanted::Flag),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match (self.map_key, self.value) {
            (Some(text), _) => visitor.visit_str(text),
            (None, Node::Leaf(Value::Text(text))) => visitor.visit_str(text),
            _ => self.wrong(Wanted::Text),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Node::List(list) => visitor.visit_seq(List { entries: list.iter() }),
            _ => self.wrong(Wanted::List),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Node::Table(table) => visitor.visit_map(Entries { entries: table.iter(), value: None }),
            _ => self.wrong(Wanted::Table),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.value {
            Node::Leaf(Value::Text(word)) => visitor.visit_enum(Word(word)),
            _ => self.wrong(Wanted::Text),
        }
    }

    serde::forward_to_deserialize_any! {
        i128 u128 bytes byte_buf unit unit_struct tuple tuple_struct ignored_any
    }
}

/// Reads a table key by key.
struct Entries<'a> {
    entries: btree_map::Iter<'a, String, Node>,
    value: Option<(&'a String, &'a Node)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.value = self.entries.next();
        let Some((key, value)) = self.value else { return Ok(None) };
        seed.deserialize(Reader { value, map_key: Some(key) }).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((key, value)) = self.value.take() else {
            return Err(serde::de::Error::custom("a value was read before its key"));
        };
        let read = seed.deserialize(Reader { value, map_key: None });
        read.map_err(|fault| fault.at(Segment::Key(key.clone())))
    }
}

/// Reads a list entry by entry.
struct List<'a> {
    entries: std::slice::Iter<'a, (usize, Node)>,
}

impl<'de> SeqAccess<'de> for List<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((at, value)) = self.entries.next() else { return Ok(None) };
        let read = seed.deserialize(Reader { value, map_key: None });
        read.map(Some).map_err(|fault| fault.at(Segment::Index(*at)))
    }
}

/// A word that names a variant without data.
struct Word<'a>(&'a str);

impl<'de> EnumAccess<'de> for Word<'_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let name: StrDeserializer<'_, Fault> = self.0.into_deserializer();
        seed.deserialize(name).map(|variant| (variant, self))
    }
}

impl<'de> VariantAccess<'de> for Word<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Fault> {
        Err(serde::de::Error::custom("a variant with data is not a setting"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Fault> {
        Err(serde::de::Error::custom("a variant with data is not a setting"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Fault> {
        Err(serde::de::Error::custom("a variant with data is not a setting"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields;
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        user: String,
        #[serde(default)]
        port: Option<u16>,
        #[serde(default)]
        watch: bool,
        #[serde(default)]
        mode: Mode,
        #[serde(default, rename = "host")]
        hosts: Vec<Host>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Mode {
        #[default]
        Clean,
        Keep,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Host {
        name: String,
        #[serde(default)]
        labels: BTreeMap<String, String>,
    }

    fn table(entries: &[(&str, Value)]) -> Value {
        Value::Table(entries.iter().map(|(key, value)| (key.to_string(), value.clone())).collect())
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    fn scope() -> Scope {
        Scope {
            title: "pool.ssh".into(),
            elsewhere: vec![
                ("[[pool]]".into(), vec!["slots", "name"]),
                ("[[pool.ssh.host]]".into(), fields::<Host>().to_vec()),
            ],
        }
    }

    fn mistakes(value: &Value) -> Vec<(Vec<Segment>, String, String)> {
        let problems = read::<Settings>(value, &scope()).expect_err("it is refused");
        problems.into_iter().map(|problem| (problem.path, problem.message, problem.remedy)).collect()
    }

    #[test]
    fn a_good_table_is_read() {
        let host = table(&[("name", text("a")), ("labels", table(&[("os", text("linux"))]))]);
        let value = table(&[
            ("user", text("build")),
            ("port", Value::Integer(22)),
            ("mode", text("keep")),
            ("host", Value::List(vec![host])),
        ]);
        let hosts = vec![Host { name: "a".into(), labels: [("os".to_string(), "linux".to_string())].into() }];
        let wanted = Settings { user: "build".into(), port: Some(22), watch: false, mode: Mode::Keep, hosts };
        assert_eq!(read::<Settings>(&value, &scope()), Ok(wanted));
        assert_eq!(fields::<Settings>(), ["user", "port", "watch", "mode", "host"]);
    }

    #[test]
    fn all_mistakes_come_at_once_each_with_its_path_and_remedy() {
        let host = table(&[("nmae", text("a")), ("slots", Value::Integer(2))]);
        let value = table(&[
            ("mode", text("kepe")),
            ("port", text("2222")),
            ("user", Value::Integer(7)),
            ("watch", text("true")),
            ("host", Value::List(vec![host])),
        ]);
        let key = |key: &str| vec![Segment::Key(key.into())];
        let name = |name: &str| vec![Segment::Key("host".into()), Segment::Index(0), Segment::Name(name.into())];
        let found = mistakes(&value);
        for wanted in [
            (key("mode"), "`mode` is \"kepe\"", "did you mean \"keep\"? All values: \"clean\", \"keep\""),
            (key("port"), "`port` is a string", "write a number, without quotes: 2222"),
            (key("user"), "`user` is an integer", "write a string in quotes: \"7\""),
            (key("watch"), "`watch` is a string", "write it without quotes: true"),
            (name("nmae"), "unknown key `nmae` in [[pool.ssh.host]]", "did you mean `name`?"),
            (name("slots"), "unknown key `slots` in [[pool.ssh.host]]", "it belongs in [[pool]]"),
            (name("name")[..2].to_vec(), "`name` is missing in [[pool.ssh.host]]", "add name = …"),
        ] {
            let wanted = (wanted.0, wanted.1.to_string(), wanted.2.to_string());
            assert!(found.contains(&wanted), "{wanted:?} is not in {found:?}");
        }
        assert_eq!(found.len(), 7, "{found:?}");
    }

    #[test]
    fn a_number_out_of_range_names_the_range() {
        let value = table(&[("user", text("u")), ("port", Value::Integer(70_000))]);
        let (_, message, remedy) = mistakes(&value).remove(0);
        assert_eq!((message.as_str(), remedy.as_str()), ("`port` is 70000", "use 0 to 65535"));
    }
}
