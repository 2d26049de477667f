//! Notices: reports of the outside world that no call asked for.

use tokio::sync::mpsc;
pub use wharfinger_types::WallTime;

/// The subject of a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoticeTarget {
    /// A resource, by its id (`res_…`).
    Resource(String),
    /// An inventory entry, by its name.
    Item(String),
}

/// The kind of a notice, with times by the wall clock.
pub type NoticeKind = wharfinger_types::NoticeKind<WallTime>;

/// One notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The name of its pool.
    pub pool: String,
    /// The resource or inventory entry.
    pub target: NoticeTarget,
    /// The event.
    pub kind: NoticeKind,
    /// The source of the report: `ssh connection`, `sqs`, `imds`.
    pub source: &'static str,
    /// The text of the source.
    pub detail: String,
}

/// The channel for notices. It is bounded: an adapter that finds it full waits, and no notice is lost.
pub type NoticeSink = mpsc::Sender<Notice>;
