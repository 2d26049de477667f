//! The terms of a lead: its end, its renewals, and the polls of a server that does not lead. No decision here reads a clock, so the
//! simulator makes the same decisions with clocks that are wrong (docs/adr/0015-leadership.md).

use std::time::Duration;

/// Time between two polls of a server that does not lead, and so the longest wait of a hand-over.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Time between two polls while the database does not answer.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The time of a lead, by one clock that only goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    until: Duration,
}

/// The result of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The database has renewed the lead.
    Done,
    /// Another server has the lead.
    Taken,
    /// No answer.
    Failed,
}

impl Term {
    /// `sent` is a time before the request. The database counts the time to live from a later time. The term ends a tenth earlier
    /// here than for other servers, since two clocks may run at different rates.
    pub fn new(sent: Duration, ttl: Duration) -> Self {
        Term { until: sent + (ttl - ttl / 10) }
    }

    /// Whether no other server can lead at this time.
    pub fn holds(&self, now: Duration) -> bool {
        now < self.until
    }

    /// The end of the term.
    pub fn until(&self) -> Duration {
        self.until
    }

    /// Time until the next renewal; `None`: the lead is over.
    pub fn next_renewal(renewal: Renewal, ttl: Duration) -> Option<Duration> {
        match renewal {
            Renewal::Done => Some(Self::renewal_limit(ttl)),
            Renewal::Taken => None,
            Renewal::Failed => Some(ttl / 20),
        }
    }

    /// Maximum time of one renewal: a third, so that there is time for a second and a third one.
    pub fn renewal_limit(ttl: Duration) -> Duration {
        ttl / 3
    }

    /// Maximum time of an attempt to lead. A later answer is worth little, but a new connection takes some time.
    pub fn attempt_limit(ttl: Duration) -> Duration {
        ttl * 2 / 3
    }

    /// Time until the next poll of a server that does not lead. `left` is the time until the lead ends, unless it is renewed. An
    /// error: the database did not answer.
    pub fn next_look(left: Result<Option<Duration>, ()>) -> Duration {
        match left {
            Ok(left) => left.map_or(POLL_INTERVAL, |left| left.min(POLL_INTERVAL)).max(POLL_INTERVAL / 10),
            Err(()) => RETRY_DELAY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    #[test]
    fn a_term_ends_before_the_row_runs_out() {
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
    fn a_server_polls_when_the_lead_runs_out() {
        assert_eq!(Term::next_look(Ok(Some(Duration::from_millis(70)))), Duration::from_millis(70));
        assert_eq!(
            Term::next_look(Ok(Some(Duration::from_millis(1)))),
            Duration::from_millis(20),
            "not in a busy loop"
        );
        assert_eq!(Term::next_look(Ok(Some(Duration::from_secs(3)))), POLL_INTERVAL);
        assert_eq!(Term::next_look(Ok(None)), POLL_INTERVAL);
        assert_eq!(Term::next_look(Err(())), RETRY_DELAY);
    }
}
