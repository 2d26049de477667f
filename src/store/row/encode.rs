//! The kinds of columns, and how each writes a value.

use super::Sink;
use super::json::JsonColumn;
use super::table::{Kind, SqlType};
use serde::Serialize;
use std::marker::PhantomData;
use std::sync::Arc;
use wharfinger_core::{
    Caller, GroupId, LeaseId, LeaseState, Millis, Op, ResourceId, ResourceState, Revision, SessionId, Texts, Timestamp,
};

/// A number. `None` is NULL.
pub(super) struct Int;
/// A text. `None` is NULL.
pub(super) struct Text;
/// A text that many rows share, in memory once.
pub(super) struct Interned;
/// The tenant of a lease, as [`Interned`]. NULL is the tenant `default`: that of all rows before there were others.
pub(super) struct Tenant;
/// The name of a state (see [`StateName`]).
pub(super) struct Name;
/// An id, as text.
pub(super) struct Id;
/// A map of texts, as JSON. An empty one is NULL: most are, and a NULL needs no space.
pub(super) struct Map;
/// As [`Map`]. Credentials are dropped when it is read.
pub(super) struct Access;
/// JSON, by a mirror struct (see [`JsonColumn`]).
pub(super) struct Json;

impl Kind for Int {
    const SQL: SqlType = SqlType::Number;
}

macro_rules! texts {
    ($($kind:ty),*) => {
        $(impl Kind for $kind {
            const SQL: SqlType = SqlType::Text;
        })*
    };
}
texts!(Text, Interned, Tenant, Name, Id, Map, Access, Json);

/// Writes a `T` into a column of this kind.
pub(super) trait Writes<T: ?Sized>: Kind {
    fn write(value: &T, sink: &mut impl Sink);
}

/// A value that fits a column of numbers.
pub(super) trait Number: Sized {
    fn to_number(&self) -> i64;
    /// The error is what the column holds instead.
    fn from_number(number: i64) -> Result<Self, String>;
}

/// Numbers of 64 bits: every bit pattern is a value.
macro_rules! wide {
    ($($type:ty: $value:ident => $to:expr, $number:ident => $from:expr;)*) => {
        $(impl Number for $type {
            fn to_number(&self) -> i64 {
                let $value = self;
                $to
            }
            fn from_number($number: i64) -> Result<Self, String> {
                Ok($from)
            }
        })*
    };
}
wide! {
    i64: value => *value, number => number;
    u64: value => value.cast_signed(), number => number.cast_unsigned();
    Timestamp: value => value.0, number => Timestamp(number);
    Millis: value => value.0, number => Millis(number);
    Revision: value => value.0.cast_signed(), number => Revision(number.cast_unsigned());
    Op: value => value.0.cast_signed(), number => Op(number.cast_unsigned());
}

macro_rules! narrow {
    ($($type:ty),*) => {
        $(impl Number for $type {
            fn to_number(&self) -> i64 {
                i64::from(*self)
            }
            fn from_number(number: i64) -> Result<Self, String> {
                Self::try_from(number).map_err(|_| format!("{number} is out of range"))
            }
        })*
    };
}
narrow!(i32, u32);

impl Number for bool {
    fn to_number(&self) -> i64 {
        i64::from(*self)
    }
    fn from_number(number: i64) -> Result<Self, String> {
        match number {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(format!("{other} is neither 0 nor 1")),
        }
    }
}

impl<T: Number> Writes<T> for Int {
    fn write(value: &T, sink: &mut impl Sink) {
        sink.int(Some(value.to_number()));
    }
}

impl<T: Number> Writes<Option<T>> for Int {
    fn write(value: &Option<T>, sink: &mut impl Sink) {
        sink.int(value.as_ref().map(Number::to_number));
    }
}

/// Both kinds of texts write the same.
macro_rules! plain {
    ($($kind:ty),*) => {
        $(impl Writes<Arc<str>> for $kind {
            fn write(value: &Arc<str>, sink: &mut impl Sink) {
                sink.text(Some(value));
            }
        }
        impl Writes<Option<Arc<str>>> for $kind {
            fn write(value: &Option<Arc<str>>, sink: &mut impl Sink) {
                sink.text(value.as_ref());
            }
        })*
    };
}
plain!(Text, Interned);

impl Writes<Arc<str>> for Tenant {
    fn write(value: &Arc<str>, sink: &mut impl Sink) {
        sink.text(Some(value).filter(|tenant| ***tenant != *Caller::DEFAULT_TENANT));
    }
}

impl Writes<&Arc<str>> for Text {
    fn write(value: &&Arc<str>, sink: &mut impl Sink) {
        sink.text(Some(value));
    }
}

impl Writes<Option<&Arc<str>>> for Text {
    fn write(value: &Option<&Arc<str>>, sink: &mut impl Sink) {
        sink.text(*value);
    }
}

impl Writes<&'static str> for Text {
    fn write(value: &&'static str, sink: &mut impl Sink) {
        sink.string(Some((*value).to_owned()));
    }
}

impl Writes<String> for Text {
    fn write(value: &String, sink: &mut impl Sink) {
        sink.string(Some(value.clone()));
    }
}

/// States with stable names.
pub(super) trait Named {
    /// The names of all states.
    const NAMES: &'static [&'static str];
}

impl Named for LeaseState {
    const NAMES: &'static [&'static str] = &LeaseState::NAMES;
}

impl Named for ResourceState {
    const NAMES: &'static [&'static str] = &ResourceState::NAMES;
}

/// The name of a state of this type, as it is stored.
pub(super) struct StateName<S> {
    name: &'static str,
    of: PhantomData<S>,
}

impl<S: Named> StateName<S> {
    /// `name` is one of [`Named::NAMES`].
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, of: PhantomData }
    }

    /// `None` if no state has this name.
    pub(super) fn find(text: &str) -> Option<Self> {
        S::NAMES.iter().find(|name| **name == text).map(|name| Self::new(name))
    }

    pub(super) fn as_str(&self) -> &'static str {
        self.name
    }
}

impl<S: Named> Writes<StateName<S>> for Name {
    fn write(value: &StateName<S>, sink: &mut impl Sink) {
        sink.string(Some(value.name.to_owned()));
    }
}

/// The ids of the core.
pub(super) trait IdText: ToString {}
impl IdText for LeaseId {}
impl IdText for ResourceId {}
impl IdText for GroupId {}
impl IdText for SessionId {}

impl<T: IdText> Writes<T> for Id {
    fn write(value: &T, sink: &mut impl Sink) {
        sink.string(Some(value.to_string()));
    }
}

impl<T: IdText> Writes<Option<T>> for Id {
    fn write(value: &Option<T>, sink: &mut impl Sink) {
        sink.string(value.as_ref().map(ToString::to_string));
    }
}

impl Writes<Texts> for Map {
    fn write(value: &Texts, sink: &mut impl Sink) {
        sink.string(if value.is_empty() { None } else { json(value) });
    }
}

impl Writes<Arc<Texts>> for Map {
    fn write(value: &Arc<Texts>, sink: &mut impl Sink) {
        <Map as Writes<Texts>>::write(value, sink);
    }
}

impl Writes<Arc<Texts>> for Access {
    fn write(value: &Arc<Texts>, sink: &mut impl Sink) {
        <Map as Writes<Texts>>::write(value, sink);
    }
}

impl Writes<Option<Arc<Texts>>> for Access {
    fn write(value: &Option<Arc<Texts>>, sink: &mut impl Sink) {
        match value {
            Some(access) => <Access as Writes<Arc<Texts>>>::write(access, sink),
            None => sink.string(None),
        }
    }
}

impl<T: JsonColumn> Writes<T> for Json {
    fn write(value: &T, sink: &mut impl Sink) {
        sink.string(value.to_json().as_ref().and_then(json));
    }
}

fn json<T: Serialize + ?Sized>(value: &T) -> Option<String> {
    // Fails only for maps whose keys are no strings and for writers that fail. Neither occurs here, and a NULL in place of
    // JSON is refused on load.
    serde_json::to_string(value).ok()
}
