//! How much an entry of the trail asks of a person.

use std::fmt;
use wharfinger_core::EventKind;

/// The severity of an entry, by its kind alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The usual course.
    #[default]
    Info,
    /// A holder is hit, or a fault does not end by itself.
    Warning,
    /// Many are hit, or a person must act.
    Critical,
}

impl Severity {
    /// All of them, mildest first.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The severity with this word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.as_str() == text)
    }

    /// The severity of entries of a kind. A kind of another version is [`Severity::Info`].
    pub fn of(kind: &str) -> Self {
        EventKind::parse(kind).map_or(Self::Info, Self::of_kind)
    }

    fn of_kind(kind: EventKind) -> Self {
        match kind {
            EventKind::PoolBrakeOn | EventKind::PoolUnsettled | EventKind::ResourceOrphaned => Self::Critical,
            EventKind::LeaseBroken
            | EventKind::LeaseFailed
            | EventKind::LeaseExpired
            | EventKind::LeaseUnreached
            | EventKind::LeaseWorkBlamed
            | EventKind::PoolBrakeOff
            | EventKind::ResourceProvisionFailed
            | EventKind::ResourceHeldBack
            | EventKind::ResourceWouldEnd
            | EventKind::ResourceRepairFailed
            | EventKind::ResourceCheckBlind
            | EventKind::ResourceKept
            | EventKind::ResourceUnfit
            | EventKind::ResourceQuarantined
            | EventKind::ResourceDestroyFailed
            | EventKind::ResourceCleanFailed
            | EventKind::ResourceTainted => Self::Warning,
            _ => Self::Info,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
