//! Rows as JSON arrays, as SQLite returns them and as a dump has them.
//!
//! sqlx copies each value of a row twice and passes rows one by one between threads: about 10 us for a lease. One `json_array(…)`
//! for each row, and a thousand of them in one text for bulk reads, cost a fifth of that.

use super::{Columns, Sink};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// One value of a row.
#[derive(Debug, PartialEq)]
enum Cell<'t> {
    Null,
    Int(i64),
    Text(Cow<'t, str>),
}

/// A row.
#[derive(Debug)]
pub(in crate::store) struct Cells<'t>(Vec<Cell<'t>>);

impl Columns for Cells<'_> {
    fn int(&self, column: usize) -> Result<Option<i64>, String> {
        match self.0.get(column) {
            Some(Cell::Null) => Ok(None),
            Some(Cell::Int(number)) => Ok(Some(*number)),
            Some(Cell::Text(text)) => Err(format!("{text:?} is not a number")),
            None => Err("is missing".to_owned()),
        }
    }

    fn text(&self, column: usize) -> Result<Option<&str>, String> {
        match self.0.get(column) {
            Some(Cell::Null) => Ok(None),
            Some(Cell::Text(text)) => Ok(Some(text)),
            Some(Cell::Int(number)) => Err(format!("{number} is not a text")),
            None => Err("is missing".to_owned()),
        }
    }
}

impl Cells<'_> {
    /// Adds NULL columns at the end, for a row that was written when the table had fewer columns.
    pub(in crate::store) fn padded(mut self, columns: usize) -> Self {
        while self.0.len() < columns {
            self.0.push(Cell::Null);
        }
        self
    }
}

/// A row that is being written as an array.
#[derive(Default)]
pub(in crate::store) struct Array(pub(in crate::store) Vec<serde_json::Value>);

impl Sink for Array {
    fn int(&mut self, value: Option<i64>) {
        self.0.push(value.into());
    }
    fn text(&mut self, value: Option<&Arc<str>>) {
        self.0.push(value.map(|text| &**text).into());
    }
    fn string(&mut self, value: Option<String>) {
        self.0.push(value.into());
    }
}

/// The rows in a text.
pub(in crate::store) fn rows(text: &str) -> impl Iterator<Item = Result<Cells<'_>, serde_json::Error>> {
    serde_json::Deserializer::from_str(text).into_iter()
}

struct CellVisitor;

impl<'de> Visitor<'de> for CellVisitor {
    type Value = Cell<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a text or null")
    }
    fn visit_unit<E>(self) -> Result<Cell<'de>, E> {
        Ok(Cell::Null)
    }
    fn visit_i64<E>(self, number: i64) -> Result<Cell<'de>, E> {
        Ok(Cell::Int(number))
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<Cell<'de>, E> {
        i64::try_from(number).map(Cell::Int).map_err(|_| E::custom("number out of range"))
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cell<'de>, E> {
        Ok(Cell::Text(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Cell<'de>, E> {
        Ok(Cell::Text(Cow::Owned(text.to_owned())))
    }
}

impl<'de> Deserialize<'de> for Cell<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

struct CellsVisitor;

impl<'de> Visitor<'de> for CellsVisitor {
    type Value = Cells<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Cells<'de>, A::Error> {
        let mut cells = Vec::with_capacity(40);
        while let Some(cell) = seq.next_element()? {
            cells.push(cell);
        }
        Ok(Cells(cells))
    }
}

impl<'de> Deserialize<'de> for Cells<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(CellsVisitor)
    }
}
