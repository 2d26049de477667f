//! How long a host may be silent before its silence means something: suspicion accrues (phi) over what its answers took.
//!
//! The model is TCP's. An answer takes its usual time, or a packet of it is lost and TCP sends that again after a
//! time-out that doubles at each loss. With `q`, the share of answers that took longer than the time-out `r`, an answer
//! is missing after `r * 2^k` with probability `q^(k+1)`. Phi is the negative decimal logarithm of that: 5 means one in
//! 100,000. On a network that loses nothing `q` is small and a short silence says much. On one that loses packets, or on a
//! host that is slow, `q` grows with the first late answers, and the limits grow with it.
//!
//! One's own slowness and that of the neighbours count too (Lifeguard, arXiv 1707.00788): a broker that wakes late, and a
//! pool whose answers are late, are the first suspects.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Minimum of TCP's time-out on Linux, in milliseconds (TCP_RTO_MIN).
const TIMEOUT_MIN: f64 = 200.0;

/// Bounds of the share of late answers. Nothing is known better than the lower one.
const SHARE: (f64, f64) = (0.001, 0.9);

/// The share of a host that has not answered yet.
const SHARE_UNKNOWN: f64 = 0.01;

/// How much one answer counts in the short and in the long memory.
const MEMORY: (f64, f64) = (1.0 / 32.0, 1.0 / 1024.0);

/// Share of the longest silence that each further answer leaves: half after half an hour of a pulse.
const FADING: f64 = 0.999_81;

/// Answers before the limits of a host differ from those of the configuration.
const KNOWN_AFTER: u32 = 6;

/// At phi of this a further connection is tried, the host is in doubt, a question is missed.
const PHI: Phi = Phi { late: 3.0, doubt: 5.0, missed: 6.0 };

struct Phi {
    late: f64,
    doubt: f64,
    missed: f64,
}

/// How much longer than the configured time a question waits, at most, where answers are known to be late.
const TIMES_MAX: u32 = 3;

/// Times that the answers of one host took.
#[derive(Clone, Debug)]
struct Account {
    /// Smoothed time of the answers that were not late, and its deviation, in milliseconds.
    mean: f64,
    deviation: f64,
    /// Share of late answers, by the short and by the long memory.
    short: f64,
    long: f64,
    /// The longest silence that ended well, in milliseconds; it fades.
    worst: f64,
    /// Number of answers, as far as it matters.
    known: u32,
}

impl Default for Account {
    fn default() -> Self {
        Self { mean: 0.0, deviation: 0.0, short: SHARE_UNKNOWN, long: 0.0, worst: 0.0, known: 0 }
    }
}

impl Account {
    fn timeout(&self) -> f64 {
        TIMEOUT_MIN.max(self.mean + 4.0 * self.deviation)
    }

    /// Says whether this answer was late.
    fn note(&mut self, took: f64) -> bool {
        let late = self.known > 0 && took > self.timeout();
        if self.known == 0 {
            (self.mean, self.deviation) = (took.min(2.0 * TIMEOUT_MIN), took.min(2.0 * TIMEOUT_MIN) / 2.0);
        } else {
            // As in Karn's algorithm, a late answer says little of the usual time. It says a little, for a way that
            // became longer.
            let (gain, usual) = if late { (1.0 / 64.0, took.min(4.0 * self.timeout())) } else { (1.0 / 8.0, took) };
            self.deviation += gain * ((usual - self.mean).abs() - self.deviation);
            self.mean += gain * (usual - self.mean);
        }
        let one = if late { 1.0 } else { 0.0 };
        self.short += MEMORY.0 * (one - self.short);
        self.long += MEMORY.1 * (one - self.long);
        self.worst = took.max(self.worst * FADING);
        self.known = (self.known + 1).min(KNOWN_AFTER);
        late
    }

    /// The silence at which phi has this value, in milliseconds, with a share of at least so much.
    fn after(&self, phi: f64, at_least: f64) -> f64 {
        let share = self.short.max(self.long).max(at_least).clamp(SHARE.0, SHARE.1);
        let exponent = phi / -share.log10() - 1.0;
        // Beyond any limit.
        self.timeout() * exponent.min(16.0).exp2()
    }
}

/// The limits of one question to one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Silence {
    /// After this long a further connection is tried beside the one that is silent.
    pub(crate) late: Duration,
    /// After this long without any sign of life the host is in doubt.
    pub(crate) doubt: Duration,
    /// After this long without any sign of life the question is missed.
    pub(crate) missed: Duration,
}

impl Silence {
    /// The limits of a host of which nothing is known.
    pub(crate) fn fixed(answer: Duration) -> Self {
        Self { late: answer / 3, doubt: answer, missed: answer }
    }
}

/// Times that one host's answers took, and the limits that follow.
pub(crate) struct Answers(Mutex<Account>);

impl Default for Answers {
    fn default() -> Self {
        Self(Mutex::new(Account::default()))
    }
}

impl Answers {
    /// A host answered after this time.
    pub(crate) fn note(&self, took: Duration, around: &Surroundings) {
        let late = self.lock().note(took.as_secs_f64() * 1000.0);
        around.note(late);
    }

    /// Whether enough is known of the host for limits of its own.
    pub(crate) fn are_known(&self) -> bool {
        self.lock().known >= KNOWN_AFTER
    }

    /// The limits of a question asked now. `answer`: the time that the configuration gives it.
    pub(crate) fn silence(&self, answer: Duration, around: &Surroundings) -> Silence {
        let account = self.lock().clone();
        if account.known < KNOWN_AFTER {
            return Silence::fixed(answer);
        }
        let (share, own) = around.now();
        let worst = Duration::from_secs_f64(account.worst / 1000.0);
        let limit = |phi: f64, least: Duration, most: Duration| {
            let after = Duration::from_secs_f64(account.after(phi, share) / 1000.0);
            (after + own).clamp(least, most.max(least))
        };
        Silence {
            late: limit(PHI.late, answer / 12, answer / 3),
            doubt: limit(PHI.doubt, answer / 6, answer),
            // A host that came back after such a silence is not given up after the same again.
            missed: limit(PHI.missed, (answer / 2).max(worst), answer * TIMES_MAX),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Surroundings that the hosts of a pool have in common: the broker itself, and the network between.
#[derive(Debug, Default)]
pub(crate) struct Surroundings(Mutex<Common>);

#[derive(Debug, Default)]
struct Common {
    /// Share of late answers of all hosts.
    late: f64,
    /// By how much the broker itself woke late, and when.
    overslept: Option<(Duration, Instant)>,
}

/// The lateness of the broker itself counts half after this long.
const OWN_HALF_LIFE: Duration = Duration::from_secs(2);

/// Less is the usual work of a scheduler.
const OWN_MIN: Duration = Duration::from_millis(20);

/// Factor by which the lateness of the broker counts.
const OWN_TIMES: u32 = 4;

impl Surroundings {
    fn note(&self, late: bool) {
        let mut common = self.lock();
        let one = if late { 1.0 } else { 0.0 };
        common.late += (one - common.late) / 64.0;
    }

    /// The broker wanted to wake, and did so this much later.
    pub(crate) fn overslept(&self, by: Duration) {
        self.overslept_at(by, Instant::now());
    }

    fn overslept_at(&self, by: Duration, now: Instant) {
        if by < OWN_MIN {
            return;
        }
        let mut common = self.lock();
        if by > common.own(now) {
            common.overslept = Some((by, now));
        }
    }

    /// Share of late answers of all hosts; what the broker's own lateness adds to a limit.
    fn now(&self) -> (f64, Duration) {
        let common = self.lock();
        (common.late, common.own(Instant::now()).saturating_mul(OWN_TIMES))
    }

    fn lock(&self) -> MutexGuard<'_, Common> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Common {
    fn own(&self, now: Instant) -> Duration {
        let Some((by, at)) = self.overslept else { return Duration::ZERO };
        let halves = now.saturating_duration_since(at).as_secs_f64() / OWN_HALF_LIFE.as_secs_f64();
        by.mul_f64((-halves).exp2())
    }
}

#[cfg(test)]
mod farm;
#[cfg(test)]
mod tests;
