//! What the outside world says unasked.

use tokio::sync::mpsc;

/// Which resource a notice is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoticeTarget {
    /// By the broker's resource id.
    Resource(String),
    /// By the inventory entry's name.
    Item(String),
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// It will be taken away at this time (milliseconds since the Unix epoch).
    Interruption { at_unix_ms: i64 },
    /// It may be taken away; no time is known.
    AtRisk,
    /// Planned work on it at this time (milliseconds since the Unix epoch).
    Maintenance { at_unix_ms: i64 },
    /// What was announced is called off.
    Cancelled,
    /// The kept connection to it broke. No verdict: the broker checks at once.
    ConnectionLost,
    /// The provider says that it exists no more.
    Gone,
}

/// One notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The pool that it belongs to.
    pub pool: String,
    /// About what.
    pub target: NoticeTarget,
    /// What.
    pub kind: NoticeKind,
    /// Which source spoke: `ssh connection`, `sqs`, `imds`.
    pub source: &'static str,
    /// In its own words.
    pub detail: String,
}

/// Where notices go. Bounded: an adapter that finds it full waits, and loses nothing.
pub type NoticeSink = mpsc::Sender<Notice>;
