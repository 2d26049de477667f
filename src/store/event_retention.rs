//! The audit trail is kept for a while: what is older goes, little by little.

use super::Store;
use crate::clock::Clock;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use wharfinger_core::Millis;

/// Entries of one removal: it holds commits up for some milliseconds.
const AT_ONCE: usize = 1000;

/// Between two removals while there is more.
const BREATH: Duration = Duration::from_millis(100);

/// Between two looks.
const EVERY: Duration = Duration::from_secs(60);

/// Removes what is older than `keep`, until `stop`. For the one server that writes.
pub async fn trim_trail(store: Arc<dyn Store>, clock: Clock, keep: Millis, stop: CancellationToken) {
    let mut failing = false;
    loop {
        let pause = match store.trim_events(clock.now().before(keep), AT_ONCE).await {
            Ok(removed) => {
                failing = false;
                if removed >= AT_ONCE { BREATH } else { EVERY }
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "old entries of the audit trail cannot be removed now; it is tried again");
                }
                failing = true;
                EVERY
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
