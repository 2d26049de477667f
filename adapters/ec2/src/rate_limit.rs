//! Token buckets in front of EC2's own, and pauses after a throttle.
//!
//! EC2 has one bucket per account, region and API, which all callers of the account share. A failed call costs a token, too. The rates
//! here are well below EC2's (RunInstances: 2 a second, lists: 10 to 20). After a throttle all calls of the kind pause. Launches pause
//! longest, so that the lists, which find failed hosts, come first.

use crate::backoff::{Backoff, jitter};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Kinds of calls. Each has a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Read,
    Launch,
    Terminate,
}

/// Size of each bucket, and its tokens per second.
const RATES: [(f64, f64); 3] = [(20.0, 5.0), (5.0, 2.0), (10.0, 5.0)];

/// The pause of a kind after a throttle.
const PAUSES: [Backoff; 3] = [pause_from(1), pause_from(4), pause_from(1)];

const fn pause_from(seconds: u64) -> Backoff {
    Backoff { first: Duration::from_secs(seconds), most: Duration::from_secs(120) }
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
    /// No call before this time.
    paused: Option<Instant>,
    throttles: u32,
}

/// Rate limits of one account and region.
#[derive(Debug)]
pub(crate) struct RateLimits([Mutex<Bucket>; 3]);

impl RateLimits {
    pub(crate) fn new() -> Self {
        let full =
            |kind: usize| Mutex::new(Bucket { tokens: RATES[kind].0, at: Instant::now(), paused: None, throttles: 0 });
        Self([full(0), full(1), full(2)])
    }

    /// Takes a token, or returns the time until there is one.
    fn try_take(&self, kind: Kind) -> Result<(), Duration> {
        let (most, rate) = RATES[kind as usize];
        let mut bucket = self.0[kind as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        bucket.tokens = (bucket.tokens + now.duration_since(bucket.at).as_secs_f64() * rate).min(most);
        bucket.at = now;
        if let Some(until) = bucket.paused.filter(|until| *until > now) {
            return Err(until - now);
        }
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / rate));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }

    /// Waits for a token. A random part spreads the waiters.
    pub(crate) async fn take(&self, kind: Kind) {
        while let Err(wait) = self.try_take(kind) {
            tokio::time::sleep(wait + jitter(wait / 4 + Duration::from_millis(5))).await;
        }
    }

    /// Empties the bucket after a throttle of EC2, and pauses all calls of the kind.
    pub(crate) fn throttled(&self, kind: Kind) -> Duration {
        let mut bucket = self.0[kind as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        // Calls that were under way together are one throttle.
        if bucket.paused.is_none_or(|until| until <= now) {
            bucket.throttles += 1;
            let pause = PAUSES[kind as usize].after(bucket.throttles);
            bucket.tokens = 0.0;
            bucket.paused = Some(now + pause + jitter(pause / 2));
        }
        bucket.paused.map_or(Duration::ZERO, |until| until.duration_since(now))
    }

    /// Ends the growth of the pauses after a successful call.
    pub(crate) fn went_well(&self, kind: Kind) {
        self.0[kind as usize].lock().unwrap_or_else(PoisonError::into_inner).throttles = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn three_hundred_launches_keep_their_rate_and_lists_do_not_wait_for_them() {
        let rates = RateLimits::new();
        let begun = Instant::now();
        for _ in 0..300 {
            rates.take(Kind::Launch).await;
        }
        let took = begun.elapsed().as_secs();
        assert!((147..200).contains(&took), "{took}");
        assert!(rates.try_take(Kind::Read).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn each_throttle_pauses_longer_until_a_call_succeeds() {
        let rates = RateLimits::new();
        let first = rates.throttled(Kind::Launch);
        assert!(first >= Duration::from_secs(4), "{first:?}");
        let same = rates.throttled(Kind::Launch);
        assert!(same <= first, "calls under way at once are one throttle");
        let begun = Instant::now();
        rates.take(Kind::Launch).await;
        assert!(begun.elapsed() >= first);
        assert!(rates.throttled(Kind::Launch) >= Duration::from_secs(8));
        rates.take(Kind::Launch).await;
        rates.went_well(Kind::Launch);
        assert!(rates.throttled(Kind::Launch) < Duration::from_secs(8));
        assert!(rates.throttled(Kind::Read) < Duration::from_secs(2), "lists come back first");
    }
}
