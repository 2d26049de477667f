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

/// Waits for a future, however long that takes. Returns with its output how much of the limit has passed, by the same count:
/// steps in which we slept count for nothing.
pub(crate) async fn counted<F: Future>(limit: Duration, future: F) -> (F::Output, Duration) {
    let step = (limit / STEPS).max(Duration::from_millis(1));
    let mut passed = Duration::ZERO;
    tokio::pin!(future);
    loop {
        let begun = Instant::now();
        let output = timeout(step, &mut future).await;
        let took = begun.elapsed();
        if took <= step.saturating_mul(2) + Duration::from_millis(50) {
            passed = (passed + took.min(step)).min(limit);
        }
        if let Ok(output) = output {
            return (output, passed);
        }
    }
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
    async fn a_wait_without_end_says_what_has_passed() {
        let limit = Duration::from_millis(600);
        let (_, passed) = counted(limit, sleep(Duration::from_millis(100))).await;
        assert!(passed <= limit, "{passed:?}");
        let (_, passed) = counted(limit, async {
            for _ in 0..6 {
                // The only thread.
                std::thread::sleep(Duration::from_millis(200));
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        assert!(passed < limit / 2, "{passed:?} of a time that was slept through");
        let (_, passed) = counted(limit, sleep(Duration::from_secs(2))).await;
        assert!(passed > limit / 3, "{passed:?}");
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
