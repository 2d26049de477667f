//! The adapters' own tables: from the file to values without places, and from the paths of mistakes back to the file.

use super::problem::{Problems, Span};
use crate::adapters::{AdapterConfig, Kind};
use std::path::Path;
use toml::Spanned;
use toml::de::DeValue;
use wharfinger_adapter::settings::{ConfigProblem, Scope, Segment, Value};

/// Reads the adapter's own table. `None`: it has mistakes, which are noted.
pub(crate) fn read(
    kind: &'static dyn Kind,
    table: Option<&Spanned<DeValue<'_>>>,
    pool: &Span,
    folder: &Path,
    problems: &mut Problems,
) -> Option<AdapterConfig> {
    let scope = Scope { title: format!("pool.{}", kind.name()), elsewhere: elsewhere(kind, problems) };
    let value = table.map(|table| value_of(table.get_ref()));
    match kind.read(value.as_ref(), &scope, folder) {
        Ok(config) => Some(config),
        Err(found) => {
            for problem in found {
                note(problem, table, pool, problems);
            }
            None
        }
    }
}

/// The tables in which a key of this adapter may have been meant to stand: the pool's own and the adapter's others.
fn elsewhere(kind: &dyn Kind, problems: &Problems) -> Vec<(String, Vec<&'static str>)> {
    let own = kind.tables().into_iter().map(|(title, keys)| (title.to_string(), keys.to_vec()));
    own.chain(problems.pool_tables()).collect()
}

fn note(problem: ConfigProblem, table: Option<&Spanned<DeValue<'_>>>, pool: &Span, problems: &mut Problems) {
    let span = |path: &[Segment]| table.map_or_else(|| pool.clone(), |table| span_of(table, path));
    let also = problem.also.as_ref().map(|also| (span(&also.0), also.1));
    let noted = problems.add(span(&problem.path), problem.message, problem.remedy);
    noted.label(problem.label);
    if let Some((place, words)) = also {
        noted.also(place, words);
    }
}

/// The place of a value. A path that leads to nothing stops at the last value on it.
fn span_of(table: &Spanned<DeValue<'_>>, path: &[Segment]) -> Span {
    let mut value = table;
    for segment in path {
        let next = match segment {
            Segment::Key(key) => value.get_ref().as_table().and_then(|table| table.get(key.as_str())),
            Segment::Index(at) => value.get_ref().as_array().and_then(|list| list.get(*at)),
            Segment::Name(key) => {
                let keys = value.get_ref().as_table().into_iter().flat_map(|table| table.keys());
                let found = keys.into_iter().find(|known| known.get_ref() == key);
                return found.map_or_else(|| value.span(), Spanned::span);
            }
        };
        match next {
            Some(next) => value = next,
            None => break,
        }
    }
    value.span()
}

fn value_of(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        // Text of another radix is read as TOML has checked it; what has more than 128 bits is out of every range.
        DeValue::Integer(number) => {
            Value::Integer(i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX))
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Array(list) => Value::List(list.iter().map(|entry| value_of(entry.get_ref())).collect()),
        DeValue::Table(table) => Value::Table(
            table.iter().map(|(key, entry)| (key.get_ref().to_string(), value_of(entry.get_ref()))).collect(),
        ),
    }
}
