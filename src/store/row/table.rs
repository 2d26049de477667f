//! The macro that declares the columns of a table once, for both databases.
//!
//! A line is `name: Kind = place;`. From the lines come the names and types ([`Column`]), the texts of the statements, and the
//! functions that write and read a row. A new column is one line here and one migration for each database. New columns stand
//! behind the others: a row of an older dump ends earlier.

use super::decode::Reads;
use super::intern::Interner;
use super::{Columns, corrupt};
use crate::store::StoreError;

/// The type of a column in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum SqlType {
    /// A signed number of 64 bits.
    Number,
    /// A text.
    Text,
}

/// Name and type of a column. SQLite needs no types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(any(test, feature = "postgres")), allow(dead_code))]
pub(in crate::store) struct Column {
    pub(in crate::store) name: &'static str,
    pub(in crate::store) sql: SqlType,
}

/// How a column represents values. [`super::encode::Writes`] and [`Reads`] convert them.
pub(super) trait Kind {
    /// The type of the column.
    const SQL: SqlType;
}

/// Reads a row from its first to its last column.
pub(super) struct Reader<'r, C: Columns> {
    table: &'static str,
    columns: &'static [Column],
    row: &'r C,
    interner: &'r mut Interner,
    next: usize,
}

impl<'r, C: Columns> Reader<'r, C> {
    pub(super) fn new(table: &'static str, columns: &'static [Column], row: &'r C, interner: &'r mut Interner) -> Self {
        Reader { table, columns, row, interner, next: 0 }
    }

    /// The value of the next column.
    pub(super) fn next<K: Reads<T>, T>(&mut self) -> Result<T, StoreError> {
        let index = self.next;
        self.next += 1;
        K::read(self.row, index, self.interner).map_err(|what| {
            let column = self.columns.get(index).map_or("?", |column| column.name);
            wrong(self.table, self.row, column, &what)
        })
    }
}

/// The error for a column of this row.
pub(super) fn wrong(table: &str, row: &impl Columns, column: &str, what: &str) -> StoreError {
    corrupt(table, row.text(0).ok().flatten().unwrap_or("?"), column, what)
}

/// Declares a table. The first column is its key.
///
/// `$names!`, `$places!` and `$update!` are texts for statements: `a, b`, `(?, ?)`, and the assignments of an upsert.
macro_rules! table {
    (
        $table:literal as $columns:ident;
        text $names:ident!, $places:ident!, $update:ident!;
        fn $write:ident($($from:ident: $from_type:ty),*);
        fn $read:ident($($into:ident: $into_type:ty),*);
        $key:ident: $key_kind:ident = $key_place:expr;
        $second:ident: $second_kind:ident = $second_place:expr;
        $($column:ident: $kind:ident = $place:expr;)*
    ) => {
        macro_rules! $names {
            () => { concat!(stringify!($key), ", ", stringify!($second) $(, ", ", stringify!($column))*) };
        }
        macro_rules! $places {
            () => { concat!("(?, ?" $(, place!($column))*, ")") };
        }
        macro_rules! $update {
            () => {
                concat!(
                    " ON CONFLICT (", stringify!($key), ") DO UPDATE SET ",
                    stringify!($second), " = excluded.", stringify!($second)
                    $(, ", ", stringify!($column), " = excluded.", stringify!($column))*
                )
            };
        }

        /// The columns, in the order in which they are written and read.
        pub(in crate::store) const $columns: &[crate::store::row::table::Column] = &[
            crate::store::row::table::Column {
                name: stringify!($key),
                sql: <$key_kind as crate::store::row::table::Kind>::SQL,
            },
            crate::store::row::table::Column {
                name: stringify!($second),
                sql: <$second_kind as crate::store::row::table::Kind>::SQL,
            },
            $(crate::store::row::table::Column {
                name: stringify!($column),
                sql: <$kind as crate::store::row::table::Kind>::SQL,
            },)*
        ];

        fn $write<S: crate::store::row::Sink>($($from: &$from_type,)* sink: &mut S) {
            <$key_kind as crate::store::row::encode::Writes<_>>::write(&$key_place, sink);
            <$second_kind as crate::store::row::encode::Writes<_>>::write(&$second_place, sink);
            $(<$kind as crate::store::row::encode::Writes<_>>::write(&$place, sink);)*
        }

        fn $read<C: crate::store::row::Columns>(
            $($into: &mut $into_type,)*
            row: &C,
            interner: &mut crate::store::row::Interner,
        ) -> Result<(), crate::store::StoreError> {
            let mut reader = crate::store::row::table::Reader::new($table, $columns, row, interner);
            $key_place = reader.next::<$key_kind, _>()?;
            $second_place = reader.next::<$second_kind, _>()?;
            $($place = reader.next::<$kind, _>()?;)*
            Ok(())
        }
    };
}

/// The place of a column in an INSERT.
macro_rules! place {
    ($column:ident) => {
        ", ?"
    };
}
