//! Waits between attempts: each longer than the one before, and random, so that many do not try at the same time.

use crate::random::random;
use std::time::Duration;

/// Waits that grow from `first` to `longest`. Each is a random part of its span, between a half and all of it.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits between `first` and `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next wait: not shorter than what the other side asked for, but at most the longest.
    pub fn wait(&mut self, asked: Option<Duration>) -> Duration {
        let wait = jittered(self.next, 0.5).max(asked.unwrap_or_default().min(self.longest));
        self.next = (self.next * 2).min(self.longest);
        wait
    }

    /// Begins again with the first wait, after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A random part of a time, from `least` (0 to 1) of it to all.
pub fn jittered(time: Duration, least: f64) -> Duration {
    // 53 bits fit a double exactly.
    let unit = (random() >> 11) as f64 / (1u64 << 53) as f64;
    time.mul_f64(least + (1.0 - least) * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_start_again() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, longest);
        let waits: Vec<_> = (0..8).map(|_| backoff.wait(None)).collect();
        assert!(waits[0] >= first / 2 && waits[0] <= first, "{waits:?}");
        assert!(waits[7] >= longest / 2 && waits[7] <= longest, "{waits:?}");
        backoff.reset();
        assert!(backoff.wait(None) <= first);
        assert_eq!(backoff.wait(Some(Duration::from_secs(60))), longest);
    }
}
