//! Time as data: the core never asks for it.

use core::fmt;

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Timestamp(pub i64);

/// A length of time in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Millis(pub i64);

impl Millis {
    /// No time at all.
    pub const ZERO: Millis = Millis(0);

    /// A number of seconds.
    pub const fn secs(secs: i64) -> Self {
        Millis(secs * 1000)
    }
}

impl Timestamp {
    /// This much later.
    pub fn after(self, span: Millis) -> Timestamp {
        Timestamp(self.0.saturating_add(span.0))
    }

    /// This much earlier.
    pub fn before(self, span: Millis) -> Timestamp {
        Timestamp(self.0.saturating_sub(span.0))
    }

    /// The time from `earlier` to this; zero if it is not earlier.
    pub fn since(self, earlier: Timestamp) -> Millis {
        Millis(self.0.saturating_sub(earlier.0).max(0))
    }
}

impl fmt::Display for Millis {
    /// For people: `1.5 s`, `20 s`, `3 min`, `2 h`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0;
        if ms < 1000 {
            write!(f, "{ms} ms")
        } else if ms < 10_000 && ms % 1000 != 0 {
            write!(f, "{}.{} s", ms / 1000, ms % 1000 / 100)
        } else if ms < 120_000 {
            write!(f, "{} s", ms / 1000)
        } else if ms < 7_200_000 {
            write!(f, "{} min", ms / 60_000)
        } else {
            write!(f, "{} h", ms / 3_600_000)
        }
    }
}
