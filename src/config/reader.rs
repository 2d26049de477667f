//! Reads one table of the file key by key. Every mistake is noted and read on from, so that a person is told of all of
//! them at once; serde would stop at the first.

use super::duration;
use super::problem::{Problems, Span};
use super::types::Drain;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use wharfinger_core::Millis;

/// A table under the reader's eyes.
pub(crate) struct Reader<'a> {
    table: &'a DeTable<'a>,
    span: Span,
    title: String,
    known: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(table: &'a DeTable<'a>, span: Span, title: impl Into<String>) -> Self {
        Self { table, span, title: title.into(), known: Vec::new() }
    }

    /// Where the table begins.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// The value of a key, if it is there. Whoever asks for a key makes it a known one.
    pub(crate) fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
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
            wrong_type(problems, &format!("`{key}`"), value, "a whole number");
            return None;
        };
        match i128::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if number >= i128::from(*bounds.start()) && number <= i128::from(*bounds.end()) => {
                u32::try_from(number).ok().map(|number| Spanned::new(value.span(), number))
            }
            Ok(_) | Err(_) => {
                let (low, high) = bounds.into_inner();
                problems.add(value.span(), format!("`{key}` is {integer}"), format!("use {low} to {high}")).label(
                    if integer.as_str().trim_start_matches('-').trim_matches('0').is_empty()
                        || integer.as_str().starts_with('-')
                    {
                        "too small"
                    } else {
                        "too large"
                    },
                );
                None
            }
        }
    }

    /// A length of time within bounds.
    pub(crate) fn duration(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<Millis>,
        problems: &mut Problems,
    ) -> Option<Spanned<Millis>> {
        let value = self.value(key)?;
        let Some(text) = value.get_ref().as_str() else {
            wrong_type(problems, &format!("`{key}`"), value, "a length of time in quotes, as in \"90s\"");
            return None;
        };
        match duration::parse(text) {
            Ok(span) if bounds.contains(&span) => Some(Spanned::new(value.span(), span)),
            Ok(span) => {
                let (low, high) = bounds.into_inner();
                problems
                    .add(
                        value.span(),
                        format!("`{key}` is {}", duration::format(span)),
                        format!("use {} to {}", duration::format(low), duration::format(high)),
                    )
                    .label(if span < low { "too short" } else { "too long" });
                None
            }
            Err(why) => {
                let (what, remedy) = why.split_once("; ").unwrap_or((&why, ""));
                problems.add(value.span(), format!("`{key}` {what}"), remedy);
                None
            }
        }
    }

    /// What becomes of live leases: `"wait"`, `"now"`, or a length of time within bounds.
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
                wrong_type(
                    problems,
                    &format!("`{key}`"),
                    value,
                    "\"wait\", \"now\", or a length of time in quotes, as in \"10m\"",
                );
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

    /// A table inside this one.
    pub(crate) fn table(&mut self, key: &'static str, title: &str, problems: &mut Problems) -> Option<Reader<'a>> {
        let value = self.value(key)?;
        match value.get_ref().as_table() {
            Some(table) => Some(Reader::new(table, value.span(), title)),
            None => {
                wrong_type(problems, &format!("`{key}`"), value, &format!("a table: {title}"));
                None
            }
        }
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

    /// Notes the keys that nobody asked for.
    pub(crate) fn finish(self, problems: &mut Problems) {
        for (key, _) in self.table {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let remedy = match closest(name, &self.known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            problems.add(key.span(), format!("unknown key `{name}` in {}", self.title), remedy).label("not known here");
        }
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
    let plain = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
        problems.add(
            span,
            format!("{name:?} is no name for a label"),
            "use 1 to 63 letters, digits and the signs . _ / -",
        );
    }
}

fn check_label(name: &str, name_span: Span, text: &str, text_span: Span, problems: &mut Problems) {
    check_label_name(name, name_span, problems);
    if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
        problems.add(
            text_span,
            format!("label `{name}` has a value that can not be matched"),
            "use 1 to 255 bytes without control characters",
        );
    }
}

/// Notes that a value is of another type.
pub(crate) fn wrong_type(problems: &mut Problems, what: &str, value: &Spanned<DeValue<'_>>, wanted: &str) {
    let found = value.get_ref().type_str();
    let article = if found.starts_with(['a', 'i', 'o', 'e']) { "an" } else { "a" };
    problems.add(value.span(), format!("{what} is {article} {found}"), format!("write {wanted}")).label("wrong type");
}

/// The known word that was probably meant.
pub(crate) fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, candidate)| {
            *distance <= 2.min(candidate.len() / 2) || candidate.starts_with(word) || word.starts_with(candidate)
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters to add, drop, change or swap with a neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1);
            best = best.min(rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]));
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn slips_of_the_pen_are_understood() {
        let known = ["slots", "max", "min_ready", "enabled"];
        assert_eq!(closest("slot", &known), Some("slots"));
        assert_eq!(closest("solts", &known), Some("slots"));
        assert_eq!(closest("enable", &known), Some("enabled"));
        assert_eq!(closest("minready", &known), Some("min_ready"));
        assert_eq!(closest("colour", &known), None);
    }
}
