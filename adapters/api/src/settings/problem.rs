//! One mistake in a configuration.

use crate::Failure;
use std::fmt;

/// One step from a table to a value in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// The value of a key.
    Key(String),
    /// An entry of a list.
    Index(usize),
    /// The key itself, where not its value is at fault. It is the last step.
    Name(String),
}

impl From<&str> for Segment {
    fn from(key: &str) -> Self {
        Segment::Key(key.to_string())
    }
}

impl From<&String> for Segment {
    fn from(key: &String) -> Self {
        Segment::Key(key.clone())
    }
}

impl From<usize> for Segment {
    fn from(index: usize) -> Self {
        Segment::Index(index)
    }
}

/// One mistake: the value at fault, the fault, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The path from the adapter's table to the value at fault. Empty: the table itself.
    pub path: Vec<Segment>,
    /// The fault.
    pub message: String,
    /// A few words at the caret; may be empty.
    pub label: &'static str,
    /// The remedy; may be empty.
    pub remedy: String,
    /// Another value that is part of the mistake, and a few words at it.
    pub also: Option<Box<(Vec<Segment>, &'static str)>>,
}

impl ConfigProblem {
    /// A mistake in the table itself, or in its whole.
    pub fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { path: Vec::new(), message: message.into(), label: "", remedy: remedy.into(), also: None }
    }

    /// Moves the mistake to a value: `problem.at(["host", "key"])`.
    pub fn at<S: Into<Segment>>(mut self, path: impl IntoIterator<Item = S>) -> Self {
        self.path = path.into_iter().map(Into::into).collect();
        self
    }

    /// Appends a step to the path.
    pub fn then(mut self, step: impl Into<Segment>) -> Self {
        self.path.push(step.into());
        self
    }

    /// Moves the mistake into a table inside: its path continues from there.
    pub fn within(mut self, step: impl Into<Segment>) -> Self {
        let step = step.into();
        if let Some(also) = &mut self.also {
            let (path, _) = &mut **also;
            path.insert(0, step.clone());
        }
        self.path.insert(0, step);
        self
    }

    /// Names another value that is part of the mistake.
    pub fn also(mut self, path: Vec<Segment>, words: &'static str) -> Self {
        self.also = Some(Box::new((path, words)));
        self
    }

    /// Sets the words at the caret.
    pub fn label(mut self, label: &'static str) -> Self {
        self.label = label;
        self
    }

    /// The mistake as a failure of a call, for adapters that are made without a configuration file.
    pub fn into_failure(self, reason: &'static str) -> Failure {
        Failure::configuration(reason, self.to_string())
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

impl std::error::Error for ConfigProblem {}
