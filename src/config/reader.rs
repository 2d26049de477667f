//! Reads one table of the file key by key. It notes each mistake and reads on, so that all of them are reported at once.

use super::duration;
use super::problem::{Problems, Span};
use super::types::Drain;
use crate::size;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::LazyLock;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use wharfinger_adapter::settings::{closest, label_name_fault, label_value_fault};
use wharfinger_core::Millis;

/// Stands for a table that the file does not have.
static EMPTY: LazyLock<DeTable<'static>> = LazyLock::new(DeTable::new);

/// Reads one table, and learns from the questions which keys it knows.
pub(crate) struct Reader<'a> {
    table: &'a DeTable<'a>,
    /// `None`: the file does not have the table.
    span: Option<Span>,
    title: String,
    known: Vec<&'static str>,
    /// The name of the pool's adapter.
    adapter: Option<String>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(table: &'a DeTable<'a>, span: Span, title: impl Into<String>) -> Self {
        Self { table, span: Some(span), title: title.into(), known: Vec::new(), adapter: None }
    }

    /// The place of the table's header. `None`: the file does not have the table.
    pub(crate) fn span(&self) -> Option<Span> {
        self.span.clone()
    }

    /// Sets the adapter of the pool, whose tables may have a key that this one does not know.
    pub(crate) fn set_adapter(&mut self, adapter: Option<&str>) {
        self.adapter = adapter.map(String::from);
    }

    /// The value of a key, if it is there. The question makes the key a known one.
    pub(crate) fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.get(key)
    }

    fn typed<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        problems: &mut Problems,
        read: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<Spanned<T>> {
        let value = self.value(key)?;
        match read(value.get_ref()) {
            Some(read) => Some(Spanned::new(value.span(), read)),
            None => {
                wrong_type(problems, &format!("`{key}`"), value, wanted);
                None
            }
        }
    }

    pub(crate) fn text(&mut self, key: &'static str, problems: &mut Problems) -> Option<Spanned<String>> {
        self.typed(key, "a string in quotes", problems, |value| value.as_str().map(str::to_string))
    }

    pub(crate) fn flag(&mut self, key: &'static str, problems: &mut Problems) -> Option<Spanned<bool>> {
        self.typed(key, "true or false", problems, DeValue::as_bool)
    }

    /// A whole number within bounds.
    pub(crate) fn number(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<u32>,
        problems: &mut Problems,
    ) -> Option<Spanned<u32>> {
        let value = self.value(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            let text = value.get_ref().as_str().map(str::trim).filter(|text| text.parse::<i64>().is_ok());
            let wanted = text.map_or("a whole number".into(), |text| format!("a number, without quotes: {text}"));
            wrong_type(problems, &format!("`{key}`"), value, &wanted);
            return None;
        };
        match i128::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if number >= i128::from(*bounds.start()) && number <= i128::from(*bounds.end()) => {
                u32::try_from(number).ok().map(|number| Spanned::new(value.span(), number))
            }
            Ok(_) | Err(_) => {
                let digits = integer.as_str();
                let small = digits.starts_with('-') || digits.trim_matches('0').is_empty();
                let label = if small { "too small" } else { "too large" };
                out_of_bounds(problems, key, value.span(), integer, bounds, label);
                None
            }
        }
    }

    /// A frequency: `"one in 20,000 leases"`, the number alone, or `"never"`, which is 0.
    pub(crate) fn one_in(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<u32>,
        problems: &mut Problems,
    ) -> Option<Spanned<u32>> {
        let value = self.value(key)?;
        let Some(text) = value.get_ref().as_str() else { return self.number(key, bounds, problems) };
        if text.trim() == "never" {
            return Some(Spanned::new(value.span(), 0));
        }
        let rest = ["one in ", "1 in "].iter().find_map(|start| text.trim().strip_prefix(start));
        let digits = rest.map(|rest| rest.trim_end_matches("leases").trim().replace([',', '_', ' '], ""));
        let number = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_digit())).and_then(|d| d.parse().ok());
        match number {
            Some(number) if bounds.contains(&number) => Some(Spanned::new(value.span(), number)),
            Some(number) => {
                let (low, high) = bounds.into_inner();
                let remedy = format!("use {low} to {high}, or \"never\"");
                problems.add(value.span(), format!("`{key}` is one in {number}"), remedy).label(if number < low {
                    "too often"
                } else {
                    "too seldom"
                });
                None
            }
            None => {
                let remedy = "write it as in \"one in 20,000 leases\", or \"never\"";
                problems.add(value.span(), format!("`{key}` is {text:?}"), remedy).label("not understood");
                None
            }
        }
    }

    /// A key of earlier versions.
    pub(crate) fn replaced(&mut self, key: &'static str, remedy: &str, problems: &mut Problems) {
        if let Some(value) = self.value(key) {
            problems.add(value.span(), format!("`{key}` is no longer used"), remedy).label("replaced");
        }
    }

    /// A size of memory within bounds, in bytes.
    pub(crate) fn size(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<u64>,
        problems: &mut Problems,
    ) -> Option<Spanned<u64>> {
        let wanted = |_: &DeValue<'_>| "a size in quotes, as in \"512MiB\" or \"2GiB\"".to_string();
        let notation = Notation { parse: size::parse, format: size::format, below: "too small", above: "too large" };
        self.quantity(key, bounds, problems, wanted, notation)
    }

    /// A quantity with its unit, in quotes, within bounds. `wanted`: the instruction for a value of another type.
    fn quantity<T: PartialOrd + Copy>(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<T>,
        problems: &mut Problems,
        wanted: impl FnOnce(&DeValue<'_>) -> String,
        notation: Notation<T>,
    ) -> Option<Spanned<T>> {
        let value = self.value(key)?;
        let Some(text) = value.get_ref().as_str() else {
            wrong_type(problems, &format!("`{key}`"), value, &wanted(value.get_ref()));
            return None;
        };
        match (notation.parse)(text) {
            Ok(found) if bounds.contains(&found) => return Some(Spanned::new(value.span(), found)),
            Ok(found) => {
                let label = if found < *bounds.start() { notation.below } else { notation.above };
                let (low, high) = bounds.into_inner();
                let bounds = (notation.format)(low)..=(notation.format)(high);
                out_of_bounds(problems, key, value.span(), (notation.format)(found), bounds, label);
            }
            Err(fault) => {
                let (what, remedy) = fault.split_once("; ").unwrap_or((&fault, ""));
                problems.add(value.span(), format!("`{key}` {what}"), remedy);
            }
        }
        None
    }

    /// A number of processors within bounds, in thousandths: `2`, `1.5`.
    pub(crate) fn processors(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<u32>,
        problems: &mut Problems,
    ) -> Option<Spanned<u32>> {
        let value = self.value(key)?;
        let number = match value.get_ref() {
            DeValue::Integer(number) => number.as_str().parse::<f64>().ok(),
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            _ => None,
        };
        let Some(number) = number.filter(|number| number.is_finite()) else {
            wrong_type(problems, &format!("`{key}`"), value, "a number of processors without quotes, as in 2 or 1.5");
            return None;
        };
        let (low, high) = (f64::from(*bounds.start()) / 1000.0, f64::from(*bounds.end()) / 1000.0);
        if !(low..=high).contains(&number) {
            let label = if number < low { "too small" } else { "too large" };
            out_of_bounds(problems, key, value.span(), number, low..=high, label);
            return None;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within bounds of u32")]
        Some(Spanned::new(value.span(), (number * 1000.0).round() as u32))
    }

    /// A length of time within bounds.
    pub(crate) fn duration(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<Millis>,
        problems: &mut Problems,
    ) -> Option<Spanned<Millis>> {
        let wanted = |value: &DeValue<'_>| with_unit(value, "\"90s\"");
        let notation =
            Notation { parse: duration::parse, format: duration::format, below: "too short", above: "too long" };
        self.quantity(key, bounds, problems, wanted, notation)
    }

    /// The policy for live leases: `"wait"`, `"now"`, or a length of time within bounds.
    pub(crate) fn drain(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<Millis>,
        problems: &mut Problems,
    ) -> Option<Spanned<Drain>> {
        let value = self.value(key)?;
        match value.get_ref().as_str() {
            Some("wait") => return Some(Spanned::new(value.span(), Drain::Wait)),
            Some("now") => return Some(Spanned::new(value.span(), Drain::After(Millis::ZERO))),
            Some(text) if !text.starts_with(|c: char| c.is_ascii_digit()) => {
                let remedy = match closest(text, &["wait", "now"]) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => "write \"wait\", \"now\", or a length of time, as in \"10m\"".into(),
                };
                problems.add(value.span(), format!("`{key}` is {text:?}"), remedy).label("not known");
                return None;
            }
            Some(_) => {}
            None => {
                let wanted = format!("\"wait\", \"now\", or {}", with_unit(value.get_ref(), "\"10m\""));
                wrong_type(problems, &format!("`{key}`"), value, &wanted);
                return None;
            }
        }
        let span = self.duration(key, bounds, problems)?;
        Some(Spanned::new(span.span(), Drain::After(*span.get_ref())))
    }

    /// A string, or a list of strings.
    pub(crate) fn strings(&mut self, key: &'static str, problems: &mut Problems) -> Option<Vec<Spanned<String>>> {
        let value = self.value(key)?;
        let wanted = "a string, or a list of strings";
        if let Some(text) = value.get_ref().as_str() {
            return Some(vec![Spanned::new(value.span(), text.to_string())]);
        }
        let Some(list) = value.get_ref().as_array() else {
            wrong_type(problems, &format!("`{key}`"), value, wanted);
            return None;
        };
        let mut texts = Vec::new();
        for entry in list {
            match entry.get_ref().as_str() {
                Some(text) => texts.push(Spanned::new(entry.span(), text.to_string())),
                None => wrong_type(problems, &format!("an entry of `{key}`"), entry, "a string in quotes"),
            }
        }
        Some(texts)
    }

    /// A table of strings: labels.
    pub(crate) fn labels(&mut self, key: &'static str, problems: &mut Problems) -> BTreeMap<String, String> {
        let Some(value) = self.value(key) else { return BTreeMap::new() };
        read_labels(&format!("`{key}`"), value, problems)
    }

    /// A table inside this one. Without one in the file the reader knows no value, and still learns the keys.
    pub(crate) fn table(&mut self, key: &'static str, title: &str, problems: &mut Problems) -> Reader<'a> {
        let value = self.value(key);
        let table = value.and_then(|value| Some((value.get_ref().as_table()?, value.span())));
        if let (Some(value), None) = (value, &table) {
            wrong_type(problems, &format!("`{key}`"), value, &format!("a table: {title}"));
        }
        let (table, span) = table.map_or((&*EMPTY, None), |(table, span)| (table, Some(span)));
        Reader { table, span, title: title.into(), known: Vec::new(), adapter: self.adapter.clone() }
    }

    /// A list of tables inside this one.
    pub(crate) fn tables(&mut self, key: &'static str, title: &str, problems: &mut Problems) -> Vec<Reader<'a>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(list) = value.get_ref().as_array() else {
            let mut problem_title = format!("`{key}`");
            if value.get_ref().is_table() {
                problem_title = format!("[{key}]");
            }
            wrong_type(problems, &problem_title, value, &format!("a list of tables: write {title}, with two brackets"));
            return Vec::new();
        };
        let mut readers = Vec::new();
        for entry in list {
            match entry.get_ref().as_table() {
                Some(table) => readers.push(Reader::new(table, entry.span(), title)),
                None => wrong_type(problems, &format!("an entry of `{key}`"), entry, "a table"),
            }
        }
        readers
    }

    /// Notes the keys that no question was for.
    pub(crate) fn finish(self, problems: &mut Problems) {
        problems.table(&self.title, &self.known);
        for (key, _) in self.table {
            let name = key.get_ref().as_ref();
            if !self.known.contains(&name) {
                problems.unknown_key(key.span(), name, &self.title, self.adapter.as_deref());
            }
        }
    }
}

/// The notation of a quantity, and the labels of one outside of its bounds.
struct Notation<T> {
    /// The fault has what is wrong, `; ` and the remedy.
    parse: fn(&str) -> Result<T, String>,
    format: fn(T) -> String,
    below: &'static str,
    above: &'static str,
}

/// Notes that a number or a quantity is out of its bounds.
fn out_of_bounds<T: Display>(
    problems: &mut Problems,
    key: &str,
    span: Span,
    found: impl Display,
    bounds: RangeInclusive<T>,
    label: &'static str,
) {
    let (low, high) = bounds.into_inner();
    problems.add(span, format!("`{key}` is {found}"), format!("use {low} to {high}")).label(label);
}

/// The instruction to write a length of time; a bare number gets its unit.
fn with_unit(value: &DeValue<'_>, example: &str) -> String {
    let number =
        value.as_integer().map(|number| number.as_str()).filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match number {
        Some(number) => format!("\"{number}s\" for seconds, \"{number}m\" for minutes"),
        None => format!("a length of time in quotes, as in {example}"),
    }
}

/// Reads a table of strings.
pub(crate) fn read_labels(
    what: &str,
    value: &Spanned<DeValue<'_>>,
    problems: &mut Problems,
) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let Some(table) = value.get_ref().as_table() else {
        wrong_type(problems, what, value, "a table of strings, as in { os = \"linux\" }");
        return labels;
    };
    for (key, entry) in table {
        let name = key.get_ref().as_ref();
        match entry.get_ref().as_str() {
            Some(text) => {
                check_label(name, key.span(), text, entry.span(), problems);
                labels.insert(name.to_string(), text.to_string());
            }
            None => wrong_type(problems, &format!("label `{name}`"), entry, "a string in quotes"),
        }
    }
    labels
}

/// Checks the name of a label.
pub(crate) fn check_label_name(name: &str, span: Span, problems: &mut Problems) {
    if let Some((message, remedy)) = label_name_fault(name) {
        problems.add(span, message, remedy);
    }
}

fn check_label(name: &str, name_span: Span, text: &str, text_span: Span, problems: &mut Problems) {
    check_label_name(name, name_span, problems);
    if let Some((message, remedy)) = label_value_fault(name, text) {
        problems.add(text_span, message, remedy);
    }
}

/// Notes that a value has another type.
pub(crate) fn wrong_type(problems: &mut Problems, what: &str, value: &Spanned<DeValue<'_>>, wanted: &str) {
    let found = value.get_ref().type_str();
    let article = if found.starts_with(['a', 'i', 'o', 'e']) { "an" } else { "a" };
    problems.add(value.span(), format!("{what} is {article} {found}"), format!("write {wanted}")).label("wrong type");
}
