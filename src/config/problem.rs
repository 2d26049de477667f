//! What is wrong with a configuration: collected, so that all of it can be told at once, with file, line and caret.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes of the file.
pub(crate) type Span = Range<usize>;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: bytes of the file.
    pub span: Range<usize>,
    /// What is the case.
    pub message: String,
    /// A few words at the caret; may be empty.
    pub label: String,
    /// How to mend it.
    pub remedy: String,
    /// Another place that has to do with it.
    pub also: Option<(Range<usize>, String)>,
}

/// Problems as they are found.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    /// Adds one; what follows are its optional parts.
    pub(crate) fn add(&mut self, span: Span, message: impl Into<String>, remedy: impl Into<String>) -> &mut Problem {
        let problem =
            Problem { span, message: message.into(), label: String::new(), remedy: remedy.into(), also: None };
        self.0.push(problem);
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order of the file; what was found twice is told once.
    pub(crate) fn into_sorted(mut self) -> Vec<Problem> {
        self.0.sort_by_key(|problem| (problem.span.start, problem.span.end));
        self.0.dedup();
        self.0
    }
}

impl Problem {
    /// Words at the caret.
    pub(crate) fn label(&mut self, text: impl Into<String>) -> &mut Self {
        self.label = text.into();
        self
    }

    /// Another place that has to do with it.
    pub(crate) fn also(&mut self, span: Span, text: impl Into<String>) -> &mut Self {
        self.also = Some((span, text.into()));
        self
    }
}

/// A configuration that is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("the configuration {} can not be read: {error}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// It was read and makes no sense.
    #[error("{0}")]
    Invalid(Report),
}

/// All that is wrong with a file.
#[derive(Debug)]
pub struct Report {
    path: PathBuf,
    source: String,
    problems: Vec<Problem>,
}

impl Report {
    pub(crate) fn new(path: &Path, source: &str, problems: Problems) -> Self {
        Self { path: path.to_path_buf(), source: without_passwords(source), problems: problems.into_sorted() }
    }

    /// What is wrong, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// For people: each problem with its place in the file and its remedy.
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
            let mut group: Group<'_> = Level::ERROR.primary_title(&problem.message).element(snippet);
            if !problem.remedy.is_empty() {
                group = group.element(Level::HELP.message(&problem.remedy));
            }
            text.push_str(&renderer.render(&[group]));
            text.push_str("\n\n");
        }
        let count = self.problems.len();
        text.push_str(&format!("{path}: {count} mistake{}", if count == 1 { "" } else { "s" }));
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
        // A caret under the first line says where; a table of forty lines in full says nothing more.
        let line_end = self.source[start..end].find('\n').map_or(end, |at| start + at);
        start..line_end
    }
}

/// The text with each password in a URL blackened, as long as it was: the lines at fault are shown, and end up in logs.
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
            // It does not belong there, which is about to be said.
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

fn mark<'a>(kind: AnnotationKind, span: Span, words: &'a str) -> annotate_snippets::Annotation<'a> {
    let annotation = kind.span(span);
    if words.is_empty() { annotation } else { annotation.label(words) }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}
