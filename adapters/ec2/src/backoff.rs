//! Pauses that grow with each failure, and random parts of pauses, so that waiters do not all return at the same time.

use std::time::Duration;

/// A pause that doubles with each failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    /// The pause after the first failure.
    pub(crate) first: Duration,
    /// Maximum pause.
    pub(crate) most: Duration,
}

impl Backoff {
    /// The pause after this many failures in a row, counted from 1.
    pub(crate) fn after(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(30);
        self.first.saturating_mul(1 << doublings).min(self.most)
    }
}

/// A random time of at most `most`.
pub(crate) fn jitter(most: Duration) -> Duration {
    most.mul_f64(share())
}

#[cfg(not(test))]
fn share() -> f64 {
    fastrand::f64()
}

/// Constant in tests, so that a seed repeats its run.
#[cfg(test)]
fn share() -> f64 {
    0.5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_its_maximum() {
        let backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(60) };
        let pauses: Vec<u64> = [0, 1, 2, 3, 6, 7, u32::MAX].map(|failures| backoff.after(failures).as_secs()).to_vec();
        assert_eq!(pauses, [1, 1, 2, 4, 32, 60, 60]);
    }
}
