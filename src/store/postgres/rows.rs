//! Rows in columns: each column of a batch is one array, which the database expands with `unnest`.

use super::error::PgError;
use crate::store::StoreError;
use crate::store::row::{self, Columns, Sink, SqlType};
use sqlx::postgres::{PgArguments, PgRow, PgValueFormat};
use sqlx::{Arguments, Row, ValueRef};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::Arc;

/// The type of a column in SQL.
pub(super) fn type_of(sql: SqlType) -> &'static str {
    match sql {
        SqlType::Number => "bigint",
        SqlType::Text => "text",
    }
}

/// Marks an escaped character, see [`escaped`].
const ESCAPE: char = '\u{10}';

/// PostgreSQL has no text with a NUL in it (https://www.postgresql.org/docs/current/datatype-character.html).
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    if text.contains(['\0', ESCAPE]) {
        Cow::Owned(text.replace(ESCAPE, "\u{10}1").replace('\0', "\u{10}0"))
    } else {
        Cow::Borrowed(text)
    }
}

fn unescaped(text: &str) -> Option<String> {
    text.contains(ESCAPE).then(|| text.replace("\u{10}0", "\0").replace("\u{10}1", "\u{10}"))
}

enum Column {
    Numbers(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
}

/// The rows of a table, for a statement.
pub(super) struct Rows {
    columns: Vec<Column>,
    next: usize,
    misplaced: bool,
}

impl Rows {
    pub(super) fn new(columns: &[row::Column], room: usize) -> Self {
        let columns = columns.iter().map(|column| match column.sql {
            SqlType::Number => Column::Numbers(Vec::with_capacity(room)),
            SqlType::Text => Column::Texts(Vec::with_capacity(room)),
        });
        Rows { columns: columns.collect(), next: 0, misplaced: false }
    }

    /// Adds a row, which `fill` writes from its first to its last column.
    pub(super) fn add(&mut self, fill: impl FnOnce(&mut Self)) {
        self.next = 0;
        fill(self);
        self.misplaced |= self.next != self.columns.len();
    }

    /// Whether it has no rows.
    pub(super) fn is_empty(&self) -> bool {
        self.columns.first().is_none_or(|column| match column {
            Column::Numbers(values) => values.is_empty(),
            Column::Texts(values) => values.is_empty(),
        })
    }

    /// Adds the columns to the arguments of a statement, one argument for each.
    pub(super) fn bind(&self, arguments: &mut PgArguments) -> Result<(), StoreError> {
        let wrong = |what: String| StoreError::Corrupt(format!("a value cannot be stored: {what}; report it"));
        if self.misplaced {
            return Err(wrong("it is in the wrong column".into()));
        }
        for column in &self.columns {
            let added = match column {
                Column::Numbers(values) => arguments.add(values),
                Column::Texts(values) => arguments.add(values),
            };
            added.map_err(|error| wrong(error.to_string()))?;
        }
        Ok(())
    }

    fn put(&mut self, number: Option<i64>, text: Option<String>, is_text: bool) {
        match self.columns.get_mut(self.next) {
            Some(Column::Numbers(values)) if !is_text => values.push(number),
            Some(Column::Texts(values)) if is_text => values.push(text),
            Some(_) | None => self.misplaced = true,
        }
        self.next += 1;
    }
}

impl Sink for Rows {
    fn int(&mut self, value: Option<i64>) {
        self.put(value, None, false);
    }
    fn text(&mut self, value: Option<&Arc<str>>) {
        self.put(None, value.map(|text| escaped(text).into_owned()), true);
    }
    fn string(&mut self, value: Option<String>) {
        let value = value.map(|text| match escaped(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(other) => other,
        });
        self.put(None, value, true);
    }
}

/// The columns of the widest table.
const COLUMNS: usize = {
    let (leases, resources) = (row::LEASE.len(), row::RESOURCE.len());
    if leases > resources { leases } else { resources }
};

/// A row from the database.
pub(super) struct Cells<'r> {
    row: &'r PgRow,
    /// Texts after their escapes were removed.
    texts: [OnceCell<String>; COLUMNS],
}

impl<'r> Cells<'r> {
    pub(super) fn new(row: &'r PgRow) -> Self {
        Cells { row, texts: [const { OnceCell::new() }; COLUMNS] }
    }
}

impl Columns for Cells<'_> {
    fn int(&self, column: usize) -> Result<Option<i64>, String> {
        let value = self.row.try_get_raw(column).map_err(|_| "is missing".to_owned())?;
        if value.is_null() {
            return Ok(None);
        }
        let bytes = match value.format() {
            PgValueFormat::Binary => value.as_bytes().map_err(|error| error.to_string())?,
            PgValueFormat::Text => return Err("is a text".to_owned()),
        };
        let number: [u8; 8] = bytes.try_into().map_err(|_| format!("has {} bytes and is no bigint", bytes.len()))?;
        Ok(Some(i64::from_be_bytes(number)))
    }

    fn text(&self, column: usize) -> Result<Option<&str>, String> {
        let value = self.row.try_get_raw(column).map_err(|_| "is missing".to_owned())?;
        if value.is_null() {
            return Ok(None);
        }
        let text = value.as_str().map_err(|error| error.to_string())?;
        let Some(plain) = unescaped(text) else { return Ok(Some(text)) };
        let kept = self.texts.get(column).ok_or_else(|| "is one column too many".to_owned())?;
        Ok(Some(kept.get_or_init(|| plain)))
    }
}

/// A number that is not NULL.
pub(super) fn number(row: &PgRow, column: usize) -> Result<i64, PgError> {
    Ok(row.try_get::<i64, _>(column)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_comes_back_as_it_was() {
        for text in ["", "plain", "\0", "\u{10}", "\u{10}0", "\0\u{10}1\0", "\u{10}\0\u{10}\u{10}0"] {
            let stored = escaped(text).into_owned();
            assert!(!stored.contains('\0'));
            assert_eq!(unescaped(&stored).unwrap_or(stored), text, "{text:?}");
        }
    }
}
