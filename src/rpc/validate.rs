//! Validation of a request's fields. Each problem has the path of its field, and all problems are returned at once.

use crate::rpc::status::RpcError;
use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use wharfinger_core::{GroupId, LeaseId, Millis, ResourceId, SessionId, Texts};

/// Maximum number of entries of a map.
pub(crate) const MAX_ENTRIES: usize = 64;
/// Maximum length of a map's key in bytes.
pub(crate) const MAX_KEY: usize = 63;
/// Maximum length in bytes of a label's or tag's value, of a pool's name, and of the name of work.
pub(crate) const MAX_VALUE: usize = 256;
/// Maximum length in bytes of a parameter's value, of a note and of a reason.
pub(crate) const MAX_TEXT: usize = 4096;
/// Maximum number of values of a filter.
pub(crate) const MAX_FILTER: usize = 1000;

/// One problem of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field in the request's message.
    pub field: String,
    /// The problem, and the way to mend it.
    pub description: String,
}

/// All problems of a request.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Problem>);

/// The valid durations of a field.
pub(crate) struct Span {
    min: Millis,
    max: Millis,
    /// Both limits in words.
    text: &'static str,
}

const DAY: i64 = 24 * 3600;

impl Span {
    /// The longest valid duration.
    pub(crate) fn longest(&self) -> prost_types::Duration {
        let nanos = i32::try_from(self.max.0 % 1000 * 1_000_000).unwrap_or(0);
        prost_types::Duration { seconds: self.max.0 / 1000, nanos }
    }

    /// TTLs, holds and times in the queue.
    pub(crate) const LONG: Span =
        Span { min: Millis(1), max: Millis::secs(365 * DAY), text: "more than 0 and at most 365 days" };
    /// Deadlines that may be now.
    pub(crate) const FROM_NOW: Span =
        Span { min: Millis::ZERO, max: Millis::secs(365 * DAY), text: "from 0 to 365 days" };
    /// Waits of a call.
    pub(crate) const WAIT: Span = Span {
        min: Millis::ZERO,
        max: Millis::secs(600),
        text: "from 0 to 10 minutes; for longer, call again or watch",
    };
    /// Times between two bookmarks.
    pub(crate) const BOOKMARK: Span = Span { min: Millis(100), max: Millis::secs(60), text: "from 100 ms to 60 s" };
}

/// Valid characters of a text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    /// No control characters. The text is shown in tables and logs.
    One,
    /// Control characters: only line breaks and tabs.
    Many,
}

/// An id in the form of the API.
pub(crate) trait Id: FromStr {
    /// Noun of the thing that has the id.
    const WHAT: &'static str;
    /// Prefix of its text.
    const START: &'static str;
}

impl Id for LeaseId {
    const WHAT: &'static str = "lease";
    const START: &'static str = LeaseId::PREFIX;
}

impl Id for ResourceId {
    const WHAT: &'static str = "resource";
    const START: &'static str = ResourceId::PREFIX;
}

impl Id for GroupId {
    const WHAT: &'static str = "group";
    const START: &'static str = GroupId::PREFIX;
}

impl Id for SessionId {
    const WHAT: &'static str = "session";
    const START: &'static str = SessionId::PREFIX;
}

impl Problems {
    /// Adds a problem.
    pub(crate) fn add(&mut self, field: impl Display, description: impl Into<String>) {
        self.0.push(Problem { field: field.to_string(), description: description.into() });
    }

    /// Returns the value, if there is no problem.
    pub(crate) fn finish<T>(self, value: T) -> Result<T, RpcError> {
        if self.0.is_empty() { Ok(value) } else { Err(RpcError::Invalid(self.0)) }
    }

    /// Reads a required id.
    pub(crate) fn id<T: Id>(&mut self, field: impl Display, text: &str) -> Option<T> {
        match text.parse() {
            Ok(id) => Some(id),
            Err(_) if text.is_empty() => {
                self.add(field, format!("is required: {}", looks::<T>()));
                None
            }
            Err(_) => {
                self.add(field, format!("{} is not a {} id: {}", quoted(text), T::WHAT, looks::<T>()));
                None
            }
        }
    }

    /// Reads an optional id.
    pub(crate) fn optional_id<T: Id>(&mut self, field: impl Display, text: &str) -> Option<T> {
        if text.is_empty() { None } else { self.id(field, text) }
    }

    /// Reads a text of at most `max` bytes.
    pub(crate) fn text(&mut self, field: impl Display, text: &str, max: usize, lines: Lines) -> Arc<str> {
        if text.len() > max {
            self.add(field, format!("has {} bytes; at most {max} are kept", text.len()));
            return Arc::from("");
        }
        let allowed = |c: char| !c.is_control() || (lines == Lines::Many && matches!(c, '\n' | '\r' | '\t'));
        if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
            self.add(field, format!("has the control character {}; remove it", bad.escape_default()));
        }
        Arc::from(text)
    }

    /// Reads a required text.
    pub(crate) fn required_text(&mut self, field: &str, text: &str, max: usize, lines: Lines, why: &str) -> Arc<str> {
        if text.trim().is_empty() {
            self.add(field, format!("is required: {why}"));
        }
        self.text(field, text, max, lines)
    }

    /// Reads a duration, rounded up to milliseconds.
    pub(crate) fn span(
        &mut self,
        field: impl Display,
        value: Option<&prost_types::Duration>,
        span: &Span,
    ) -> Option<Millis> {
        let value = value?;
        let Some(length) = millis(value) else {
            self.add(
                field,
                "is not a valid duration: seconds and nanos must have the same sign, nanos below one second",
            );
            return None;
        };
        if length < span.min || length > span.max {
            self.add(field, format!("must be {}; got {}", span.text, seconds(value)));
        }
        Some(length)
    }

    /// Reads a map of texts.
    pub(crate) fn texts(
        &mut self,
        field: &str,
        map: &HashMap<String, String>,
        max_value: usize,
        lines: Lines,
    ) -> Texts {
        if map.len() > MAX_ENTRIES {
            self.add(field, format!("has {} entries; at most {MAX_ENTRIES} are taken", map.len()));
            return Texts::new();
        }
        // Sorted, so that the same request has the same problems in the same order.
        let mut entries: Vec<_> = map.iter().collect();
        entries.sort_unstable();
        entries
            .into_iter()
            .map(|(key, value)| {
                let at = format!("{field}[{}]", shortened(key));
                if key.is_empty() || key.len() > MAX_KEY || key.chars().any(|c| c.is_control() || c.is_whitespace()) {
                    self.add(&at, format!("the key must have 1 to {MAX_KEY} bytes, without spaces"));
                }
                (Arc::from(key.as_str()), self.text(&at, value, max_value, lines))
            })
            .collect()
    }

    /// Reads the values of a filter.
    pub(crate) fn each<'a, T>(
        &mut self,
        field: &str,
        values: &'a [String],
        mut read: impl FnMut(&mut Self, String, &'a str) -> T,
    ) -> Vec<T> {
        if values.len() > MAX_FILTER {
            self.add(field, format!("has {} values; at most {MAX_FILTER} are taken", values.len()));
            return Vec::new();
        }
        values.iter().enumerate().map(|(i, value)| read(self, format!("{field}[{i}]"), value)).collect()
    }
}

/// The form of an id of this kind, with an example.
fn looks<T: Id>() -> String {
    format!(
        "a {} id is \"{}\" and 26 characters of 0-9 and A-Z without I, L, O and U, such as {}01JDEFG7T1000000000000002A",
        T::WHAT,
        T::START,
        T::START
    )
}

/// A text of the caller in quotes, escaped and shortened for a message.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", shortened(text))
}

/// The same without quotes, for a path.
fn shortened(text: &str) -> String {
    const MAX: usize = 48;
    let mut short: String = text.chars().take(MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short.escape_debug().to_string()
}

/// Milliseconds, rounded up so that the shortest positive duration is not 0. `None`: the duration is not valid.
fn millis(value: &prost_types::Duration) -> Option<Millis> {
    const NANOS: i32 = 1_000_000_000;
    let (seconds, nanos) = (value.seconds, value.nanos);
    let mixed = (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0);
    if mixed || nanos <= -NANOS || nanos >= NANOS {
        return None;
    }
    let nanos = i64::from(nanos);
    let part = if nanos > 0 { (nanos + 999_999) / 1_000_000 } else { nanos.div_euclid(1_000_000) };
    Some(Millis(seconds.saturating_mul(1000).saturating_add(part)))
}

/// The form of protobuf's JSON.
fn seconds(value: &prost_types::Duration) -> String {
    if value.nanos == 0 {
        return format!("{}s", value.seconds);
    }
    let sign = if value.seconds < 0 || value.nanos < 0 { "-" } else { "" };
    let fraction = format!("{:09}", value.nanos.unsigned_abs());
    format!("{sign}{}.{}s", value.seconds.unsigned_abs(), fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn duration(seconds: i64, nanos: i32) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos }
    }

    #[test]
    fn durations_are_rounded_up_and_nonsense_is_refused() {
        assert_eq!(millis(&duration(0, 1)), Some(Millis(1)));
        assert_eq!(millis(&duration(1, 999_000_001)), Some(Millis(2000)));
        assert_eq!(millis(&duration(0, -1)), Some(Millis(-1)));
        assert_eq!(millis(&duration(-1, -500_000_000)), Some(Millis(-1500)));
        assert_eq!(millis(&duration(1, -1)), None);
        assert_eq!(millis(&duration(0, i32::MAX)), None);
        assert_eq!(millis(&duration(i64::MAX, 0)), Some(Millis(i64::MAX)));
        assert_eq!(seconds(&duration(-1, -500_000_000)), "-1.5s");
        assert_eq!(seconds(&duration(0, 1)), "0.000000001s");
    }

    #[test]
    fn foreign_text_is_cut_and_escaped() {
        assert_eq!(quoted("a\u{1b}[2J\"b"), r#""a\u{1b}[2J\"b""#);
        assert_eq!(quoted(&"é".repeat(1000)).chars().count(), 51);
    }

    #[test]
    fn an_id_says_what_it_looks_like() {
        let mut problems = Problems::default();
        assert_eq!(problems.id::<LeaseId>("lease_id", "res_x"), None);
        assert_eq!(problems.id::<ResourceId>("resource_id", ""), None);
        assert_eq!(problems.optional_id::<LeaseId>("lease_id", ""), None);
        let [wrong, absent] = &problems.0[..] else { panic!("{problems:?}") };
        assert!(
            wrong.description.starts_with("\"res_x\" is not a lease id: a lease id is \"lse_\" and 26"),
            "{wrong:?}"
        );
        assert!(absent.description.starts_with("is required: a resource id is \"res_\" and 26"), "{absent:?}");
        // The example in the message is a valid id.
        let example = wrong.description.rsplit(' ').next().unwrap();
        assert!(example.parse::<LeaseId>().is_ok(), "{example}");
    }
}
