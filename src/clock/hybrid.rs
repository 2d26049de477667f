//! The clocks of a server.

use super::wall;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};
use wharfinger_core::{HybridClock, Millis, Reading, Timestamp};

/// Maximum difference of the wall clock from the stored time or the database's clock without a warning to the operator.
pub(crate) const TOLERANCE: Millis = Millis::secs(5);

fn since_epoch() -> Duration {
    wall().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

/// The wall clock, in milliseconds since the Unix epoch.
pub(crate) fn wall_ms() -> i64 {
    i64::try_from(since_epoch().as_millis()).unwrap_or(i64::MAX)
}

/// Time since the start of this machine, including suspensions (`CLOCK_BOOTTIME`, see clock_gettime(2)). A process that was stopped,
/// or a laptop that was closed, detects the passed time when it wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Moment {
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    pub(crate) fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Moment(Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0)))
    }

    /// Time from the start of the machine to this.
    pub(crate) fn steady(self) -> Duration {
        self.0
    }

    /// Time since this moment.
    pub(crate) fn past(self) -> Duration {
        Moment::now().0.saturating_sub(self.0)
    }

    #[cfg(test)]
    pub(crate) fn ago(time: Duration) -> Self {
        Moment(Moment::now().0.saturating_sub(time))
    }
}

/// The time in which the core decides. Cheap to clone; all clones are one clock.
#[derive(Clone)]
pub struct Clock {
    hybrid: Arc<Mutex<HybridClock>>,
}

impl Default for Clock {
    /// A clock with the wall time, until a later stored time is read.
    fn default() -> Self {
        Clock { hybrid: Arc::new(Mutex::new(HybridClock::new(since_epoch(), Moment::now().steady()))) }
    }
}

impl Clock {
    /// Starts anew at the later of the stored time and the wall clock.
    pub(crate) fn start(&self, stored: Timestamp) {
        self.hybrid().start(stored, since_epoch(), Moment::now().steady());
    }

    /// Advances to a stored time that is later than its own.
    pub(crate) fn not_before(&self, stored: Timestamp) {
        self.hybrid().not_before(stored, Moment::now().steady());
    }

    /// The time now, and its distance from the wall clock.
    pub fn read(&self) -> Reading {
        let mut hybrid = self.hybrid();
        hybrid.read(since_epoch(), Moment::now().steady())
    }

    /// The time now.
    pub(crate) fn now(&self) -> Timestamp {
        self.read().now
    }

    fn hybrid(&self) -> MutexGuard<'_, HybridClock> {
        self.hybrid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Warnings about the clock of this server; none if it is right. `reading` is the core's time. `database` is the database's clock
/// minus the wall clock, if the store has a clock.
pub(crate) fn warnings(reading: Reading, database: Option<Millis>) -> Vec<String> {
    let mut found = Vec::new();
    let mend = "set it right, and let a time service keep it so";
    let apart = |by: i64, what: &str, other: &str| {
        let (way, by) = if by > 0 { ("behind", by) } else { ("ahead of", by.saturating_neg()) };
        format!("{what} is {} {way} {other}", Millis(by))
    };
    if let Some(by) = database.filter(|by| by.0.saturating_abs() > TOLERANCE.0) {
        found.push(format!("{}: {mend}", apart(by.0, "this server's wall clock", "the database's")));
    }
    if reading.ahead.0.saturating_abs() > TOLERANCE.0 {
        let apart = apart(reading.ahead.0, "this server's wall clock", "the time that the broker has stored");
        found.push(format!(
            "{apart}, so a clock was set: leases and retries go on by elapsed time, and the difference shrinks by 6 minutes an \
             hour (docs/adr/0020-clock.md)"
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_clones_are_one_clock_that_is_never_behind_what_is_stored() {
        let clock = Clock::default();
        assert_eq!(clock.read().offset(), Millis::ZERO);
        let other = clock.clone();
        let ahead = clock.now().after(Millis::secs(7200));
        other.start(ahead);
        let reading = clock.read();
        assert!(reading.now >= ahead && reading.now.since(ahead) < Millis::secs(60), "{reading:?}");
        assert!(clock.read().now >= reading.now);
        let later = ahead.after(Millis::secs(7200));
        other.not_before(later);
        assert!(clock.now() >= later);
        other.start(Timestamp(0));
        assert_eq!(clock.read().offset(), Millis::ZERO, "a server that takes over starts from what is stored then");
    }

    #[test]
    fn warnings_name_the_distance_and_its_direction() {
        let reading = |ahead| Reading { now: Timestamp(0), ahead: Millis::secs(ahead) };
        assert!(warnings(reading(4), Some(Millis::secs(-4))).is_empty());
        let found = warnings(reading(7200), None);
        assert!(found.len() == 1 && found[0].contains("wall clock is 2 h behind the time"), "{found:?}");
        let found = warnings(reading(-7200), Some(Millis::secs(-600)));
        assert!(found.len() == 2 && found[0].contains("is 10 min ahead of the database's"), "{found:?}");
        assert!(found[1].contains("2 h ahead of the time"), "{found:?}");
    }
}
