//! Losses one soon after the other, of a machine or of a pool that makes its hosts at will (ADR 72).

use crate::{Millis, Timestamp};
use alloc::sync::Arc;

/// A resource that was ready for this long stayed well: its loss is a first one again.
pub(crate) const WELL: Millis = Millis::secs(600);

/// Losses one soon after the other: each is that of a resource which had been ready for less than ten minutes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Losses {
    /// Their number, at least one. A single loss delays nothing.
    pub count: u32,
    /// When the first of them was.
    pub since: Timestamp,
    /// When the last of them was.
    pub last: Timestamp,
    /// No resource is made in its stead before this time.
    pub again_at: Timestamp,
    /// The reason of the last one, with its detail.
    pub why: Arc<str>,
}

impl Losses {
    /// Whether a rest is under way.
    pub fn rests(&self, now: Timestamp) -> bool {
        self.again_at > now
    }

    /// Whether there were several, and the place has not been well since.
    pub fn is_recent(&self, now: Timestamp) -> bool {
        self.count > 1 && self.again_at.after(WELL) > now
    }
}
