//! Kinds of notices: reports of the outside world about a resource.

/// A time by the wall clock, in milliseconds since the Unix epoch. The core translates it into its own time, which never
/// jumps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WallTime(pub i64);

/// The kind of a notice, with times of type `T`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NoticeKind<T> {
    /// The resource ends at this time.
    Interruption(T),
    /// The resource may end; the time is unknown.
    AtRisk,
    /// The resource ends for planned work at this time.
    Maintenance(T),
    /// An announced end is called off.
    Cancelled,
    /// The kept connection broke. It is no verdict: the broker checks at once.
    ConnectionLost,
    /// It has shown no sign of life for longer than its answers ever take. It is one miss: the broker checks at once.
    Silent,
    /// The provider reports that the resource exists no more.
    Gone,
}

impl<T> NoticeKind<T> {
    /// The same kind with its time translated.
    pub fn map_time<U>(self, translate: impl FnOnce(T) -> U) -> NoticeKind<U> {
        match self {
            NoticeKind::Interruption(at) => NoticeKind::Interruption(translate(at)),
            NoticeKind::AtRisk => NoticeKind::AtRisk,
            NoticeKind::Maintenance(at) => NoticeKind::Maintenance(translate(at)),
            NoticeKind::Cancelled => NoticeKind::Cancelled,
            NoticeKind::ConnectionLost => NoticeKind::ConnectionLost,
            NoticeKind::Silent => NoticeKind::Silent,
            NoticeKind::Gone => NoticeKind::Gone,
        }
    }
}
