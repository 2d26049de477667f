//! When a lead is over, when it is renewed, and when one that stands by looks again: decisions without a clock, so that the
//! simulator makes the very same ones with clocks that lie (docs/adr/0015-leadership.md).

use std::time::Duration;

/// How often one that stands by looks whether it could lead: a small question, and what a hand-over takes.
const LOOK: Duration = Duration::from_millis(200);
/// While the database does not answer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A lead in time, by one clock that only goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    until: Duration,
}

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The database took it.
    Done,
    /// The row is another server's.
    Taken,
    /// No answer.
    Failed,
}

impl Term {
    /// `sent`: from before the database was asked. It counts the time to live from later on. Over a tenth earlier than for
    /// others: two clocks need not run equally fast.
    pub fn new(sent: Duration, ttl: Duration) -> Self {
        Term { until: sent + (ttl - ttl / 10) }
    }

    /// Whether nobody else can lead at this time.
    pub fn holds(&self, now: Duration) -> bool {
        now < self.until
    }

    /// When it is over.
    pub fn until(&self) -> Duration {
        self.until
    }

    /// How long to wait before the next renewal; `None`: it is over.
    pub fn next_renewal(renewal: Renewal, ttl: Duration) -> Option<Duration> {
        match renewal {
            Renewal::Done => Some(Self::renewal_limit(ttl)),
            Renewal::Taken => None,
            Renewal::Failed => Some(ttl / 20),
        }
    }

    /// How long one renewal may take: a third, so that there is a second and a third try.
    pub fn renewal_limit(ttl: Duration) -> Duration {
        ttl / 3
    }

    /// How long an attempt to lead may take: what is answered later is not worth much, but a new connection takes its time.
    pub fn attempt_limit(ttl: Duration) -> Duration {
        ttl * 2 / 3
    }

    /// When one that stands by looks again. `left`: how long the leader has still, as far as it does not renew; an error: the
    /// database did not answer.
    pub fn next_look(left: Result<Option<Duration>, ()>) -> Duration {
        match left {
            Ok(left) => left.map_or(LOOK, |left| left.min(LOOK)).max(LOOK / 10),
            Err(()) => LOOK_AGAIN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    #[test]
    fn it_is_over_before_the_row_runs_out() {
        let term = Term::new(Duration::from_secs(100), TTL);
        assert!(term.holds(Duration::from_millis(104_499)));
        assert!(!term.holds(Duration::from_millis(104_500)));
    }

    #[test]
    fn there_is_time_for_more_than_one_renewal() {
        let first = Term::next_renewal(Renewal::Done, TTL).expect("it goes on");
        let again = Term::next_renewal(Renewal::Failed, TTL).expect("it is tried again");
        let second = first + Term::renewal_limit(TTL) + again;
        assert!(Term::new(Duration::ZERO, TTL).holds(second), "the second try begins before it is over");
        assert_eq!(Term::next_renewal(Renewal::Taken, TTL), None);
    }

    #[test]
    fn who_stands_by_looks_when_the_row_runs_out() {
        assert_eq!(Term::next_look(Ok(Some(Duration::from_millis(70)))), Duration::from_millis(70));
        assert_eq!(
            Term::next_look(Ok(Some(Duration::from_millis(1)))),
            Duration::from_millis(20),
            "not in a busy loop"
        );
        assert_eq!(Term::next_look(Ok(Some(Duration::from_secs(3)))), LOOK);
        assert_eq!(Term::next_look(Ok(None)), LOOK);
        assert_eq!(Term::next_look(Err(())), LOOK_AGAIN);
    }
}
