//! How each kind of column reads a value. The error is what the column holds instead.

use super::Columns;
use super::encode::{Access, Id, IdText, Int, Interned, Json, Map, Name, Named, Number, StateName, Tenant, Text};
use super::intern::Interner;
use super::json::{JsonColumn, unknown};
use super::table::Kind;
use std::str::FromStr;
use std::sync::Arc;
use wharfinger_adapter::access::CREDENTIALS;
use wharfinger_core::{Caller, IdError, Texts};

/// Reads a `T` from a column of this kind.
pub(super) trait Reads<T>: Kind {
    fn read(row: &impl Columns, column: usize, interner: &mut Interner) -> Result<T, String>;
}

fn present<T>(value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| "is NULL".to_owned())
}

impl<T: Number> Reads<T> for Int {
    fn read(row: &impl Columns, column: usize, _interner: &mut Interner) -> Result<T, String> {
        T::from_number(present(row.int(column)?)?)
    }
}

impl<T: Number> Reads<Option<T>> for Int {
    fn read(row: &impl Columns, column: usize, _interner: &mut Interner) -> Result<Option<T>, String> {
        row.int(column)?.map(T::from_number).transpose()
    }
}

impl Reads<Arc<str>> for Text {
    fn read(row: &impl Columns, column: usize, _interner: &mut Interner) -> Result<Arc<str>, String> {
        present(row.text(column)?).map(Arc::from)
    }
}

impl Reads<Option<Arc<str>>> for Text {
    fn read(row: &impl Columns, column: usize, _interner: &mut Interner) -> Result<Option<Arc<str>>, String> {
        Ok(row.text(column)?.map(Arc::from))
    }
}

impl Reads<String> for Text {
    fn read(row: &impl Columns, column: usize, _interner: &mut Interner) -> Result<String, String> {
        present(row.text(column)?).map(str::to_owned)
    }
}

impl Reads<Option<String>> for Text {
    fn read(row: &impl Columns, column: usize, _interner: &mut Interner) -> Result<Option<String>, String> {
        Ok(row.text(column)?.map(str::to_owned))
    }
}

impl Reads<Arc<str>> for Interned {
    fn read(row: &impl Columns, column: usize, interner: &mut Interner) -> Result<Arc<str>, String> {
        present(row.text(column)?).map(|text| interner.text(text))
    }
}

impl Reads<Option<Arc<str>>> for Interned {
    fn read(row: &impl Columns, column: usize, interner: &mut Interner) -> Result<Option<Arc<str>>, String> {
        Ok(row.text(column)?.map(|text| interner.text(text)))
    }
}

impl Reads<Arc<str>> for Tenant {
    fn read(row: &impl Columns, column: usize, interner: &mut Interner) -> Result<Arc<str>, String> {
        Ok(interner.text(row.text(column)?.unwrap_or(Caller::DEFAULT_TENANT)))
    }
}

impl<S: Named> Reads<StateName<S>> for Name {
    fn read(row: &impl Columns, column: usize, _interner: &mut Interner) -> Result<StateName<S>, String> {
        let text = present(row.text(column)?)?;
        StateName::find(text).ok_or_else(|| unknown(text))
    }
}

fn id<T: FromStr<Err = IdError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{text:?} is {error}"))
}

impl<T: IdText + FromStr<Err = IdError>> Reads<T> for Id {
    fn read(row: &impl Columns, column: usize, _interner: &mut Interner) -> Result<T, String> {
        id(present(row.text(column)?)?)
    }
}

impl<T: IdText + FromStr<Err = IdError>> Reads<Option<T>> for Id {
    fn read(row: &impl Columns, column: usize, _interner: &mut Interner) -> Result<Option<T>, String> {
        row.text(column)?.map(id).transpose()
    }
}

impl Reads<Arc<Texts>> for Map {
    fn read(row: &impl Columns, column: usize, interner: &mut Interner) -> Result<Arc<Texts>, String> {
        interner.map(row.text(column)?)
    }
}

impl Reads<Texts> for Map {
    fn read(row: &impl Columns, column: usize, _interner: &mut Interner) -> Result<Texts, String> {
        let Some(text) = row.text(column)? else { return Ok(Texts::new()) };
        serde_json::from_str(text).map_err(|error| not_expected(&error))
    }
}

impl Reads<Arc<Texts>> for Access {
    fn read(row: &impl Columns, column: usize, interner: &mut Interner) -> Result<Arc<Texts>, String> {
        interner.map(row.text(column)?).map(without_credentials)
    }
}

impl Reads<Option<Arc<Texts>>> for Access {
    fn read(row: &impl Columns, column: usize, interner: &mut Interner) -> Result<Option<Arc<Texts>>, String> {
        <Access as Reads<Arc<Texts>>>::read(row, column, interner).map(Some)
    }
}

impl<T: JsonColumn> Reads<T> for Json {
    fn read(row: &impl Columns, column: usize, _interner: &mut Interner) -> Result<T, String> {
        let json = row.text(column)?.map(|text| serde_json::from_str(text).map_err(|error| not_expected(&error)));
        T::from_json(json.transpose()?)
    }
}

fn not_expected(error: &serde_json::Error) -> String {
    format!("is not the JSON expected: {error}")
}

/// Rows of older versions (in a dump, or written by an older server while this one starts) may hold credentials.
fn without_credentials(access: Arc<Texts>) -> Arc<Texts> {
    if !CREDENTIALS.iter().any(|key| access.contains_key(*key)) {
        return access;
    }
    let mut access = Arc::unwrap_or_clone(access);
    CREDENTIALS.iter().for_each(|key| drop(access.remove(*key)));
    Arc::new(access)
}
