//! Rows: the core's types to and from columns, without loss and without a database.
//!
//! A value that operators query has a column of its own. A value that nests or varies (labels, causes, the end of a lease) is
//! JSON text. [`Sink`] takes the values of a row and [`Columns`] returns them, so a database binds and fetches only numbers and
//! texts. `table.rs` has the macro with which each table declares its columns once.

#[macro_use]
mod table;
#[macro_use]
mod event;
#[macro_use]
mod lease;
#[macro_use]
mod machine;
#[macro_use]
mod pool;
#[macro_use]
mod resource;
#[macro_use]
mod session;

mod decode;
mod encode;
mod evidence;
mod intern;
mod json;
mod json_rows;
#[cfg(test)]
mod tests;

pub(super) use event::{About, EVENT, decode_event, encode_event};
pub(super) use intern::Interner;
pub(super) use json_rows::{Array, Cells, rows};
pub(super) use lease::{LEASE, decode_lease, encode_lease};
pub(super) use machine::{MACHINE, decode_machine, encode_machine};
pub(super) use pool::{POOL, decode_pool, encode_pool};
pub(super) use resource::{RESOURCE, decode_resource, encode_resource};
pub(super) use session::{SESSION, decode_session, encode_session};
pub(super) use table::Column;
#[cfg(any(test, feature = "postgres"))]
pub(super) use table::SqlType;

use super::StoreError;
use std::sync::Arc;

/// Takes the values of rows, column by column.
pub(super) trait Sink {
    /// Takes a number or NULL.
    fn int(&mut self, value: Option<i64>);
    /// Takes a shared text or NULL.
    fn text(&mut self, value: Option<&Arc<str>>);
    /// Takes a text that was made for this row, or NULL.
    fn string(&mut self, value: Option<String>);
}

/// Returns the values of a row by column. The error is what the column holds instead.
pub(super) trait Columns {
    /// The number in this column.
    fn int(&self, column: usize) -> Result<Option<i64>, String>;
    /// The text in this column.
    fn text(&self, column: usize) -> Result<Option<&str>, String>;
}

/// The error for a value that this version cannot read.
pub(super) fn corrupt(table: &str, id: &str, column: &str, what: &str) -> StoreError {
    StoreError::Corrupt(format!(
        "the database holds a row that this version cannot read: table {table}, row {id}, column {column}: {what}; \
         start the version that wrote it, or restore a backup"
    ))
}
