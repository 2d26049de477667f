//! Waiting for an answer without blaming the other side for our own pauses.

use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Into how many parts a wait is cut.
const STEPS: u32 = 12;

/// Waits so long for a future; `None`: not within the limit.
///
/// A process that was stopped (SIGSTOP, a suspended machine, a CPU that others have) finds on waking that all its timers
/// are over, while the answers lie in its sockets, not yet read. So the wait is counted in small steps, and a step that
/// took much longer than it should counts for nothing: the future gets its time to run first. At most twelve steps are
/// excused so, which bounds the wait on a machine that is always too slow.
pub(crate) async fn patiently<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let step = limit / STEPS;
    let (mut left, mut excused) = (STEPS, STEPS);
    tokio::pin!(future);
    while left > 0 {
        let begun = Instant::now();
        if let Ok(output) = timeout(step, &mut future).await {
            return Some(output);
        }
        let late = begun.elapsed() > step.saturating_mul(2) + Duration::from_millis(50);
        if late && excused > 0 {
            excused -= 1;
        } else {
            left -= 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    #[tokio::test]
    async fn a_wait_ends_at_its_limit() {
        let begun = Instant::now();
        assert_eq!(patiently(Duration::from_millis(600), sleep(Duration::from_secs(60))).await, None);
        assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
        assert_eq!(patiently(Duration::from_secs(60), sleep(Duration::from_millis(50))).await, Some(()));
    }

    #[tokio::test]
    async fn time_that_we_slept_through_does_not_count() {
        let answer = async {
            sleep(Duration::from_millis(150)).await;
            for _ in 0..11 {
                // The only thread: nothing runs meanwhile, no timer either.
                std::thread::sleep(Duration::from_millis(200));
                // As an event loop does that has to read what has come.
                sleep(Duration::from_millis(1)).await;
            }
        };
        assert_eq!(patiently(Duration::from_millis(600), answer).await, Some(()));
    }
}
