//! Waiting between tries: longer each time, never all clients at once.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// Grows from `first` to `most`, each wait a random part of it between a half and all.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The next wait; not shorter than what the other side asked for, as far as `most` allows.
    pub(crate) fn wait(&mut self, asked: Option<Duration>) -> Duration {
        let wait = jittered(self.next, 0.5).max(asked.unwrap_or_default().min(self.most));
        self.next = (self.next * 2).min(self.most);
        wait
    }

    /// It works again.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A random part of a time, from `least` (0 to 1) of it to all.
pub(crate) fn jittered(time: Duration, least: f64) -> Duration {
    // 53 bits fit a double exactly.
    let unit = (random() >> 11) as f64 / (1u64 << 53) as f64;
    time.mul_f64(least + (1.0 - least) * unit)
}

/// The standard library's only source of randomness: each new state is seeded differently.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A request id that nobody else has.
pub(crate) fn request_id() -> String {
    format!("{:016x}{:016x}", random(), random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_most_and_start_again() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, most);
        let waits: Vec<_> = (0..8).map(|_| backoff.wait(None)).collect();
        assert!(waits[0] >= first / 2 && waits[0] <= first, "{waits:?}");
        assert!(waits[7] >= most / 2 && waits[7] <= most, "{waits:?}");
        backoff.reset();
        assert!(backoff.wait(None) <= first);
        assert_eq!(backoff.wait(Some(Duration::from_secs(60))), most);
    }

    #[test]
    fn request_ids_differ() {
        let ids: std::collections::BTreeSet<_> = (0..1000).map(|_| request_id()).collect();
        assert_eq!(ids.len(), 1000);
    }
}
