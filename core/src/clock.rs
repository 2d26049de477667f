//! The hybrid clock: the time in which the core decides. It follows the wall clock and never jumps with it.
//!
//! It starts at the later of the stored time and the wall clock. From then on it advances by a steady clock, at most a
//! tenth faster or slower than real time, towards the wall clock. So a wall clock that is set ahead expires no lease,
//! and one that was ahead once stops no timer (docs/adr/0020-clock.md). The clocks are parameters: this code reads
//! none.

use crate::{Millis, Timestamp};
use core::time::Duration;

/// The rate differs from real time by at most one part in this many.
const SLEW: i64 = 10;
/// Below this lead or lag, in microseconds, hybrid time and wall time count as equal.
const EQUAL_US: i64 = 1_000_000;
/// Shorter steps of the steady clock are added up before the rate is applied, so that rounding loses nothing.
const STEP_US: i64 = 1000;

/// A clock that never runs backwards and never jumps.
#[derive(Clone, Debug)]
pub struct HybridClock {
    /// Hybrid time, in microseconds since the Unix epoch.
    at: i64,
    /// The steady clock at that time, in microseconds.
    steady: i64,
    /// The latest time that was returned.
    latest: i64,
}

/// The hybrid time at one moment, and its distance from the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Hybrid time.
    pub now: Timestamp,
    /// Hybrid time minus wall time; negative if hybrid time is behind.
    pub ahead: Millis,
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX / 4)
}

impl HybridClock {
    /// A clock that starts at the wall clock. `wall`: time since the Unix epoch. `steady`: a clock that only goes
    /// forward, also while the machine is suspended.
    pub fn new(wall: Duration, steady: Duration) -> Self {
        let at = micros(wall);
        Self { at, steady: micros(steady), latest: at }
    }

    /// Starts anew at the later of the stored time and the wall clock: for a server that takes over.
    pub fn start(&mut self, stored: Timestamp, wall: Duration, steady: Duration) {
        *self = Self::new(wall, steady);
        self.not_before(stored, steady);
    }

    /// Advances to the stored time if it is behind that.
    pub fn not_before(&mut self, stored: Timestamp, steady: Duration) {
        let (stored, steady) = (stored.0.saturating_mul(1000), micros(steady));
        let own = self.at.saturating_add(steady.saturating_sub(self.steady).max(0));
        if stored > own {
            (self.at, self.steady) = (stored, steady);
            self.latest = self.latest.max(stored);
        }
    }

    /// The time now.
    pub fn read(&mut self, wall: Duration, steady: Duration) -> Reading {
        let (wall, steady) = (micros(wall), micros(steady));
        let passed = steady.saturating_sub(self.steady).max(0);
        let straight = self.at.saturating_add(passed);
        let slew = passed / SLEW;
        let now = straight.saturating_add(wall.saturating_sub(straight).clamp(-slew, slew));
        if passed >= STEP_US {
            (self.at, self.steady) = (now, steady);
        }
        self.latest = self.latest.max(now);
        let ahead = self.latest.saturating_sub(wall);
        Reading { now: Timestamp(self.latest.div_euclid(1000)), ahead: Millis(ahead / 1000) }
    }
}

impl Reading {
    /// Hybrid time minus wall time; zero if the two count as equal.
    pub fn offset(self) -> Millis {
        if self.ahead.0.saturating_abs() < EQUAL_US / 1000 { Millis::ZERO } else { self.ahead }
    }

    /// The hybrid time at which the wall clock will show `wall`, or showed it.
    pub fn from_wall(self, wall: Timestamp) -> Timestamp {
        let offset = self.offset().0;
        let shifted = wall.0.saturating_add(offset);
        // Until then the offset shrinks by a part of the time that is left.
        let left = shifted.saturating_sub(self.now.0).max(0);
        Timestamp(shifted.saturating_sub(shrinks(offset, left / SLEW)))
    }

    /// The wall time at which hybrid time will be `at`, or was it.
    pub fn to_wall(self, at: Timestamp) -> Timestamp {
        let offset = self.offset().0;
        let left = at.0.saturating_sub(self.now.0).max(0);
        // A tenth of real time is a ninth of what the slower clock shows, and an eleventh of what the faster one does.
        let part = if offset > 0 { left / (SLEW - 1) } else { left / (SLEW + 1) };
        Timestamp(at.0.saturating_sub(offset).saturating_add(shrinks(offset, part)))
    }

    /// Real time until hybrid time is `at`; zero if it is past.
    pub fn until(self, at: Timestamp) -> Duration {
        let wall_now = self.now.0.saturating_sub(self.offset().0);
        let left = if at <= self.now { 0 } else { self.to_wall(at).0.saturating_sub(wall_now).max(0) };
        Duration::from_millis(u64::try_from(left).unwrap_or(0))
    }
}

/// By how much the offset shrinks, at most `part`: with the sign of the offset.
fn shrinks(offset: i64, part: i64) -> i64 {
    offset.clamp(-part, part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const START: i64 = 1_000_000_000_000;

    fn ms(time: i64) -> Duration {
        Duration::from_millis(u64::try_from(time).unwrap())
    }

    /// Reads once a second; `wall` is the wall clock minus the steady one.
    fn pass(clock: &mut HybridClock, wall: i64, from: i64, seconds: i64) -> Reading {
        let mut last = clock.read(ms(wall + from), ms(from));
        for second in 1..=seconds {
            let at = from + second * 1000;
            let next = clock.read(ms(wall + at), ms(at));
            let step = next.now.since(last.now).0;
            assert!((899..=1101).contains(&step), "{step} ms in a second");
            last = next;
        }
        last
    }

    #[test]
    fn a_wall_clock_that_is_right_is_followed() {
        let mut clock = HybridClock::new(ms(START), ms(0));
        let reading = pass(&mut clock, START, 0, 100);
        assert_eq!(reading, Reading { now: Timestamp(START + 100_000), ahead: Millis::ZERO });
        // A millisecond now and then, as a time service corrects it, is followed at once.
        let reading = clock.read(ms(START + 101_003), ms(101_000));
        assert_eq!((reading.now, reading.offset()), (Timestamp(START + 101_003), Millis::ZERO));
    }

    #[test]
    fn stored_time_that_is_ahead_is_left_at_the_stated_rate() {
        for ahead in [2 * HOUR, 24 * 365 * HOUR] {
            let mut clock = HybridClock::new(ms(START), ms(0));
            clock.start(Timestamp(START + ahead), ms(START), ms(0));
            let reading = pass(&mut clock, START, 0, 100);
            assert_eq!(reading.now, Timestamp(START + ahead + 90_000), "it advances, a tenth slower");
            assert_eq!(reading.ahead, Millis(ahead - 10_000));
        }
        let mut clock = HybridClock::new(ms(START), ms(0));
        clock.start(Timestamp(START + 2 * HOUR), ms(START), ms(0));
        let reading = pass(&mut clock, START, 0, 20 * 3600);
        assert_eq!(reading.ahead, Millis::ZERO, "two hours are gone after twenty");
    }

    #[test]
    fn a_wall_clock_that_is_set_either_way_makes_no_jump() {
        for set in [-2 * HOUR, 2 * HOUR] {
            let mut clock = HybridClock::new(ms(START), ms(0));
            pass(&mut clock, START, 0, 10);
            let reading = pass(&mut clock, START + set, 10_000, 100);
            let rate = if set < 0 { 90_000 } else { 110_000 };
            assert_eq!(reading.now, Timestamp(START + 10_000 + rate));
        }
    }

    #[test]
    fn a_suspended_machine_sees_that_time_has_passed() {
        let mut clock = HybridClock::new(ms(START), ms(0));
        let reading = clock.read(ms(START + HOUR), ms(HOUR));
        assert_eq!(reading, Reading { now: Timestamp(START + HOUR), ahead: Millis::ZERO });
    }

    #[test]
    fn many_short_steps_slew_as_few_long_ones() {
        let mut clock = HybridClock::new(ms(START), ms(0));
        clock.start(Timestamp(START + HOUR), ms(START), ms(0));
        let mut last = Timestamp(0);
        for step in 0..1_000_000 {
            let steady = Duration::from_micros(step * 7);
            let now = clock.read(ms(START) + steady, steady).now;
            assert!(now >= last);
            last = now;
        }
        let slept = 6_999_993 / 1000;
        assert!((last.0 - START - HOUR - slept * 9 / 10).abs() <= 1, "{}", last.0 - START - HOUR);
    }

    /// An end that is announced for a wall time happens when the wall clock shows it, and is shown as that time.
    #[test]
    fn wall_times_are_met_while_the_clock_slews() {
        for ahead in [2 * HOUR, 30_000, 3000, 400, -400, -3000, -30_000, -2 * HOUR] {
            for span in [-60_000, 0, 1000, 120_000, 10 * HOUR] {
                let mut clock = HybridClock::new(ms(START), ms(0));
                (clock.at, clock.latest) = ((START + ahead) * 1000, (START + ahead) * 1000);
                let reading = clock.read(ms(START), ms(0));
                let wall = Timestamp(START + span);
                let at = reading.from_wall(wall);
                assert!((reading.to_wall(at).0 - wall.0).abs() <= 2, "{ahead} {span}");
                let wait = i64::try_from(reading.until(at).as_millis()).unwrap();
                let off = if reading.offset() == Millis::ZERO { ahead.abs() } else { 2 };
                if span > 0 {
                    assert!((wait - span).abs() <= off, "{ahead} {span}: waits {wait}");
                    let then = pass(&mut clock, START, 0, span / 1000);
                    assert!((then.now.0 - at.0).abs() <= off.max(10), "{ahead} {span}: {} at {}", then.now.0, at.0);
                } else {
                    assert!(wait <= off, "{ahead} {span}: waits {wait}");
                }
            }
        }
    }

    #[test]
    fn a_later_time_stored_by_another_server_is_taken_over() {
        let mut clock = HybridClock::new(ms(START), ms(0));
        clock.not_before(Timestamp(START - 5), ms(10));
        assert_eq!(clock.read(ms(START + 10), ms(10)).now, Timestamp(START + 10));
        clock.not_before(Timestamp(START + HOUR), ms(20));
        assert_eq!(clock.read(ms(START + 20), ms(20)).now, Timestamp(START + HOUR));
    }
}
