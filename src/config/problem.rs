//! Mistakes in a configuration. They are collected and reported together, each with its file, line and caret.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use wharfinger_adapter::settings::closest;

/// Bytes of the file.
pub(crate) type Span = Range<usize>;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The bytes of the file at fault.
    pub span: Range<usize>,
    /// The fault.
    pub message: String,
    /// A few words at the caret; may be empty.
    pub label: String,
    /// The remedy; may be empty.
    pub remedy: String,
    /// Another place that is part of the mistake.
    pub also: Option<(Range<usize>, String)>,
}

/// The mistakes that were found so far.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    found: Vec<Problem>,
    /// Faults with which a server takes the file all the same.
    warned: Vec<Problem>,
    /// The keys of each table that was read, by its title.
    tables: BTreeMap<String, Vec<&'static str>>,
    /// Keys that their table does not know. The remedy depends on the other tables, so it is found last.
    unknown: Vec<UnknownKey>,
}

#[derive(Debug)]
struct UnknownKey {
    span: Span,
    name: String,
    title: String,
    /// The name of the pool's adapter, whose tables may have the key.
    adapter: Option<String>,
}

impl Problems {
    /// Adds a mistake. Its optional parts are set on the returned reference.
    pub(crate) fn add(&mut self, span: Span, message: impl Into<String>, remedy: impl Into<String>) -> &mut Problem {
        added(&mut self.found, span, message.into(), remedy.into())
    }

    /// Adds a warning: a server takes the file all the same.
    pub(crate) fn warn(&mut self, span: Span, message: impl Into<String>, remedy: impl Into<String>) -> &mut Problem {
        added(&mut self.warned, span, message.into(), remedy.into())
    }

    /// The warnings in the order of the file.
    pub(crate) fn into_warnings(mut self) -> Vec<Problem> {
        self.warned.sort_by_key(|problem| (problem.span.start, problem.span.end));
        self.warned
    }

    /// Stores the keys that a table knows, for the remedies of unknown keys in other tables.
    pub(crate) fn table(&mut self, title: &str, keys: &[&'static str]) {
        self.tables.insert(title.to_string(), keys.to_vec());
    }

    /// The tables of a pool that belong to no adapter.
    pub(crate) fn pool_tables(&self) -> impl Iterator<Item = (String, Vec<&'static str>)> {
        let pool = self.tables.iter().filter(|(title, _)| belongs_to_pool(title) && adapter_of(title).is_none());
        pool.map(|(title, keys)| (title.clone(), keys.clone()))
    }

    /// Adds a key that its table does not know.
    pub(crate) fn unknown_key(&mut self, span: Span, name: &str, title: &str, adapter: Option<&str>) {
        let (name, title, adapter) = (name.to_string(), title.to_string(), adapter.map(String::from));
        self.unknown.push(UnknownKey { span, name, title, adapter });
    }

    pub(crate) fn len(&self) -> usize {
        self.found.len() + self.unknown.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty() && self.unknown.is_empty()
    }

    /// All mistakes in the order of the file, each once.
    pub(crate) fn into_sorted(mut self) -> Vec<Problem> {
        for unknown in std::mem::take(&mut self.unknown) {
            let remedy = self.remedy(&unknown);
            let message = format!("unknown key `{}` in {}", unknown.name, unknown.title);
            self.add(unknown.span, message, remedy).label("not known here");
        }
        self.found.sort_by_key(|problem| (problem.span.start, problem.span.end));
        self.found.dedup();
        self.found
    }

    /// The place of a key that belongs in another table, or the nearest key of its own.
    fn remedy(&self, unknown: &UnknownKey) -> String {
        let name = unknown.name.as_str();
        let near = |title: &str| {
            let adapter = adapter_of(title).is_none_or(|adapter| unknown.adapter.as_deref() == Some(adapter));
            adapter && belongs_to_pool(title) == belongs_to_pool(&unknown.title)
        };
        let known = self.tables.get(&unknown.title).map(Vec::as_slice).unwrap_or_default();
        let others: Vec<&str> = self
            .tables
            .iter()
            .filter(|(title, keys)| **title != unknown.title && near(title) && keys.contains(&name))
            .map(|(title, _)| title.as_str())
            .collect();
        match closest(name, known) {
            _ if !others.is_empty() => format!("it belongs in {}", others.join(" or ")),
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", known.join(", ")),
        }
    }
}

impl Problem {
    /// Sets the words at the caret.
    pub(crate) fn label(&mut self, text: impl Into<String>) -> &mut Self {
        self.label = text.into();
        self
    }

    /// Sets another place that is part of the mistake.
    pub(crate) fn also(&mut self, span: Span, text: impl Into<String>) -> &mut Self {
        self.also = Some((span, text.into()));
        self
    }
}

fn added(list: &mut Vec<Problem>, span: Span, message: String, remedy: String) -> &mut Problem {
    list.push(Problem { span, message, label: String::new(), remedy, also: None });
    let last = list.len() - 1;
    &mut list[last]
}

/// Whether a table belongs to a pool.
fn belongs_to_pool(title: &str) -> bool {
    title.trim_start_matches('[').starts_with("pool")
}

/// The name of the adapter to which a table of a pool belongs.
fn adapter_of(title: &str) -> Option<&str> {
    let inner = title.trim_matches(['[', ']']).strip_prefix("pool.")?;
    let name = inner.split('.').next()?;
    crate::adapters::kind(name).map(|_| name)
}

/// The reason why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {} cannot be read: {error}", path.display())]
    Unreadable {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        error: std::io::Error,
    },
    /// The file has mistakes.
    #[error("{0}")]
    Invalid(Report),
}

impl ConfigError {
    /// The reason and its remedy in one sentence, without any part of the file's text.
    pub fn summary(&self) -> String {
        match self {
            Self::Unreadable { path, error } => {
                let path = path.display();
                format!("the configuration file {path} cannot be read ({}): mend that, and reload", error.kind())
            }
            Self::Invalid(report) => {
                let (path, count) = (report.path.display(), report.problems.len());
                let mistakes = if count == 1 { "mistake" } else { "mistakes" };
                let line = report.problems.first().map_or(1, |first| report.line(first));
                format!(
                    "the configuration file {path} has {count} {mistakes}, the first in line {line}: `wharfinger check-config {path}` shows them; mend them, and reload"
                )
            }
        }
    }
}

/// All mistakes in a file, or all warnings of one without mistakes.
#[derive(Clone, Debug)]
pub struct Report {
    path: PathBuf,
    source: String,
    problems: Vec<Problem>,
    /// The noun for one of them.
    what: &'static str,
}

impl Report {
    pub(crate) fn new(path: &Path, source: &str, problems: Problems) -> Self {
        Self {
            path: path.to_path_buf(),
            source: without_tokens(&without_passwords(source)),
            problems: problems.into_sorted(),
            what: "mistake",
        }
    }

    /// The warnings of a file without mistakes.
    pub(crate) fn warnings(path: &Path, source: &str, problems: Problems) -> Self {
        Self {
            path: path.to_path_buf(),
            source: without_tokens(&without_passwords(source)),
            problems: problems.into_warnings(),
            what: "warning",
        }
    }

    /// The mistakes or warnings, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The line of the file with a mistake, from 1.
    pub fn line(&self, problem: &Problem) -> usize {
        self.source[..self.within(&problem.span).start].matches('\n').count() + 1
    }

    /// The text for people: each mistake with its place in the file and its remedy.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let path = self.path.display().to_string();
        let mut text = String::new();
        for problem in &self.problems {
            let mut snippet = Snippet::source(&self.source).path(&path).annotation(mark(
                AnnotationKind::Primary,
                self.within(&problem.span),
                &problem.label,
            ));
            if let Some((span, words)) = &problem.also {
                snippet = snippet.annotation(mark(AnnotationKind::Context, self.within(span), words));
            }
            let level = if self.what == "warning" { Level::WARNING } else { Level::ERROR };
            let mut group: Group<'_> = level.primary_title(&problem.message).element(snippet);
            if !problem.remedy.is_empty() {
                group = group.element(Level::HELP.message(&problem.remedy));
            }
            text.push_str(&renderer.render(&[group]));
            text.push_str("\n\n");
        }
        let count = self.problems.len();
        text.push_str(&format!("{path}: {count} {}{}", self.what, if count == 1 { "" } else { "s" }));
        text
    }

    /// Keeps a span inside the text, and off the middle of a character.
    fn within(&self, span: &Span) -> Span {
        let mut start = span.start.min(self.source.len());
        while !self.source.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = span.end.clamp(start, self.source.len());
        while !self.source.is_char_boundary(end) {
            end += 1;
        }
        // The caret under the first line shows the place; the whole table would add nothing.
        let line_end = self.source[start..end].find('\n').map_or(end, |at| start + at);
        start..line_end
    }
}

/// The text with each password in a URL replaced by as many stars: lines at fault are shown, and end up in logs.
fn without_passwords(source: &str) -> String {
    let mut shown = String::with_capacity(source.len());
    for line in source.split_inclusive('\n') {
        let mut rest = line;
        while let Some(at) = rest.find("://") {
            let (before, after) = rest.split_at(at + 3);
            shown.push_str(before);
            let end = after.find(['"', '\'', ' ', '\t', '\n']).unwrap_or(after.len());
            let (url, behind) = after.split_at(end);
            let user = url.rfind('@').and_then(|at| url[..at].find(':').map(|colon| (colon + 1, at)));
            // A password as a parameter is refused, and shown in the refusal.
            let parameter = url.find("password=").map(|at| (at + 9, url.len()));
            match user.into_iter().chain(parameter).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) {
                Some((from, to)) => {
                    shown.push_str(&url[..from]);
                    shown.extend(std::iter::repeat_n('*', to - from));
                    shown.push_str(&url[to..]);
                }
                None => shown.push_str(url),
            }
            rest = behind;
        }
        shown.push_str(rest);
    }
    shown
}

/// The text with each token that was written in place of its hash replaced by as many stars.
fn without_tokens(source: &str) -> String {
    let mut shown = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("wfk_") {
        let (before, after) = rest.split_at(at + 4);
        shown.push_str(before);
        let end = after.find(['"', '\'', ' ', '\t', '\n']).unwrap_or(after.len());
        shown.extend(std::iter::repeat_n('*', end));
        rest = &after[end..];
    }
    shown.push_str(rest);
    shown
}

fn mark<'a>(kind: AnnotationKind, span: Span, words: &'a str) -> annotate_snippets::Annotation<'a> {
    let annotation = kind.span(span);
    if words.is_empty() { annotation } else { annotation.label(words) }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}
