//! The file of `policy test`: a table of callers and calls, each with the outcome that is expected.

use crate::auth::{Verb, Whose};
use crate::config::{ConfigError, Problems, Reader, Report, wrong_type};
use crate::pb;
use crate::rpc::Call;
use std::collections::HashMap;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use wharfinger_core::Millis;

/// The outcome of a call that is allowed.
pub(super) const ALLOWED: &str = "allowed";
/// Bounds of each length of time.
const SPAN: std::ops::RangeInclusive<Millis> = Millis::ZERO..=Millis::secs(365 * 86_400);

/// One `[[case]]`.
#[derive(Debug)]
pub(super) struct Case {
    /// The name, or the call in words.
    pub(super) name: String,
    /// The line of the file.
    pub(super) line: usize,
    pub(super) who: Who,
    pub(super) call: Call,
    /// [`ALLOWED`], or the reason of the refusal.
    pub(super) expect: String,
    /// The field that the refusal names.
    pub(super) field: Option<String>,
}

/// The caller of a case.
#[derive(Debug)]
pub(super) enum Who {
    /// A caller of the configuration, by its principal.
    Principal(String),
    /// A caller with these roles.
    Roles(Vec<String>),
}

/// Reads the cases of a file.
///
/// # Errors
/// [`ConfigError`] with all mistakes of the file.
pub(super) fn read(path: &Path) -> Result<Vec<Case>, ConfigError> {
    let source =
        std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable { path: path.to_path_buf(), error })?;
    let mut problems = Problems::default();
    let (document, errors) = DeTable::parse_recoverable(&source);
    for error in errors {
        problems.add(error.span().unwrap_or(0..0), error.message(), "").label("not TOML");
    }
    let mut cases = Vec::new();
    if problems.is_empty() {
        let mut reader = Reader::new(document.get_ref(), 0..0, "the file");
        for case in reader.tables("case", "[[case]]", &mut problems) {
            cases.extend(read_case(case, &source, &mut problems));
        }
        reader.finish(&mut problems);
        if cases.is_empty() && problems.is_empty() {
            problems.add(0..0, "the file has no case", "add [[case]] with caller, verb and expect");
        }
    }
    if problems.is_empty() { Ok(cases) } else { Err(ConfigError::Invalid(Report::new(path, &source, problems))) }
}

fn read_case(mut case: Reader<'_>, source: &str, problems: &mut Problems) -> Option<Case> {
    let span = case.span().unwrap_or(0..0);
    let before = problems.len();
    let name = case.text("name", problems);
    let (caller, roles) = (case.text("caller", problems), case.strings("roles", problems));
    let who = match (caller, roles) {
        (Some(caller), None) => Some(Who::Principal(caller.into_inner())),
        (None, Some(roles)) => Some(Who::Roles(roles.into_iter().map(Spanned::into_inner).collect())),
        (Some(_), Some(_)) | (None, None) => {
            let remedy = "write caller = \"token:ID\" or \"x509:URI\" of the configuration, or roles = [\"ci\"]";
            problems.add(span.clone(), "this case needs one of `caller` and `roles`", remedy);
            None
        }
    };
    let verb = case.text("verb", problems).and_then(|verb| {
        let found = Verb::parse(verb.get_ref());
        if found.is_none() {
            let message = format!("no verb has the name {:?}", verb.get_ref());
            problems.add(verb.span(), message, Verb::remedy(verb.get_ref()));
        }
        found
    });
    let expect = case.text("expect", problems);
    if problems.len() == before && (verb.is_none() || expect.is_none()) {
        let remedy = "add verb = \"lease\" and expect = \"allowed\", or the reason of the refusal, such as \"LIMIT\"";
        problems.add(span.clone(), "this case has no `verb` or no `expect`", remedy);
    }
    let pool = case.text("pool", problems).map(Spanned::into_inner);
    let lease = case.text("lease", problems);
    let whose = match lease.as_ref().map(|lease| lease.get_ref().as_str()) {
        None | Some("own") => Whose::Own,
        Some("tenant") => Whose::Tenant,
        Some("other") => Whose::Other,
        Some(text) => {
            let place = lease.as_ref().map_or(span.clone(), Spanned::span);
            problems.add(place, format!("`lease` is {text:?}"), "use \"own\", \"tenant\" or \"other\": whose it is");
            Whose::Own
        }
    };
    let outcome = case.text("outcome", problems);
    let (ttl, queue_for) = (case.duration("ttl", SPAN, problems), case.duration("queue_for", SPAN, problems));
    let hold = case.duration("hold", SPAN, problems);
    let request = pb::LeaseRequest {
        selector: Some(pb::Selector { pool: String::new(), labels: texts(&mut case, "labels", problems) }),
        count: case.number("count", 0..=64, problems).map_or(0, |count| i32::try_from(*count.get_ref()).unwrap_or(0)),
        ttl: ttl.as_ref().map(|span| length(*span.get_ref())),
        queue_for: queue_for.as_ref().map(|span| length(*span.get_ref())),
        no_queue: case.flag("no_queue", problems).is_some_and(Spanned::into_inner),
        priority: priority(&mut case, problems),
        replace: case.flag("replace", problems).is_some_and(Spanned::into_inner),
        params: texts(&mut case, "params", problems),
        tags: texts(&mut case, "tags", problems),
        ..pb::LeaseRequest::default()
    };
    let field = case.text("field", problems).map(Spanned::into_inner);
    case.finish(problems);
    let (verb, expect) = (verb?, expect?.into_inner());
    let call = Call {
        verb,
        pool,
        whose,
        request,
        ttl: ttl.map(Spanned::into_inner),
        hold: hold.map(Spanned::into_inner),
        tainted: outcome.is_some_and(|outcome| outcome.get_ref().eq_ignore_ascii_case("tainted")),
    };
    let words = call.pool.as_ref().map_or_else(|| verb.to_string(), |pool| format!("{verb} {pool}"));
    let line = source[..span.start.min(source.len())].lines().count() + 1;
    Some(Case { name: name.map_or(words, Spanned::into_inner), line, who: who?, call, expect, field })
}

fn length(span: Millis) -> prost_types::Duration {
    let nanos = i32::try_from(span.0 % 1000 * 1_000_000).unwrap_or(0);
    prost_types::Duration { seconds: span.0 / 1000, nanos }
}

fn priority(case: &mut Reader<'_>, problems: &mut Problems) -> i32 {
    let Some(value) = case.value("priority") else { return 0 };
    let number = value.get_ref().as_integer().and_then(|n| i32::from_str_radix(n.as_str(), n.radix()).ok());
    number.unwrap_or_else(|| {
        wrong_type(problems, "`priority`", value, "a whole number");
        0
    })
}

/// A table of strings.
fn texts(case: &mut Reader<'_>, key: &'static str, problems: &mut Problems) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let Some(value) = case.value(key) else { return found };
    let Some(table) = value.get_ref().as_table() else {
        wrong_type(problems, &format!("`{key}`"), value, "a table of strings, as in { branch = \"main\" }");
        return found;
    };
    for (name, entry) in table {
        match entry.get_ref() {
            DeValue::String(text) => drop(found.insert(name.get_ref().to_string(), text.to_string())),
            _ => wrong_type(problems, &format!("`{key}.{}`", name.get_ref()), entry, "a string in quotes"),
        }
    }
    found
}
