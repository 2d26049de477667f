//! Retention of the audit trail: old entries are removed, a few at a time.

use super::Store;
use crate::backoff::Backoff;
use crate::clock::Clock;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use wharfinger_core::Millis;

/// Maximum number of entries of one removal. A removal delays commits by some milliseconds.
const BATCH: usize = 1000;

/// Time between two removals while old entries are left.
const REMOVAL_GAP: Duration = Duration::from_millis(100);

/// Time between two searches for old entries.
const POLL_INTERVAL: Duration = Duration::from_secs(60);

/// Removes entries that are older than `keep`, until `stop`. Only the server that writes calls it.
pub async fn trim_trail(store: Arc<dyn Store>, clock: Clock, keep: Millis, stop: CancellationToken) {
    let mut failing = false;
    let mut backoff = Backoff::new(Duration::from_secs(1), POLL_INTERVAL);
    loop {
        let pause = match store.trim_events(clock.now().before(keep), BATCH).await {
            Ok(removed) => {
                failing = false;
                backoff.reset();
                if removed >= BATCH { REMOVAL_GAP } else { POLL_INTERVAL }
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "old entries of the audit trail cannot be removed now; trying again");
                }
                failing = true;
                backoff.wait(None)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::event;
    use crate::store::{EventQuery, MemoryStore};
    use wharfinger_core::{Batch, Revision, Subject};

    #[tokio::test]
    async fn all_that_is_too_old_goes_and_nothing_else() {
        let store = Arc::new(MemoryStore::new());
        let epoch = store.acquire().await.unwrap();
        let mut batch = Batch { revision: Revision(1), ..Batch::default() };
        let old = event(1, Subject::Pool("p".into()));
        let young = wharfinger_core::Event { at: Clock::default().now(), ..old.clone() };
        batch.events = vec![old; 2500];
        batch.events.push(young);
        store.commit(&batch, epoch).await.unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(trim_trail(store.clone(), Clock::default(), Millis::secs(3600), stop.clone()));
        let query = EventQuery { limit: 10, ..EventQuery::default() };
        tokio::time::timeout(Duration::from_secs(20), async {
            while store.events(&query).await.unwrap().len() > 1 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("they go");
        assert_eq!(store.events(&query).await.unwrap().len(), 1, "the one of now stays");
        stop.cancel();
        task.await.unwrap();
    }
}
