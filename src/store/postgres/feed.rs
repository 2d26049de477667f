//! The changes that other servers commit, read over a connection of its own, and a hint for each commit.
//!
//! Each commit notifies the channel of its schema. The notification comes within about a millisecond, or not at all (a connection
//! breaks, or a pooler is in between), so a follower also polls.

use super::connect::{Database, Purpose, part};
use super::error::PgError;
use super::read;
use crate::backoff::Backoff;
use crate::store::{Changes, StoreError};
use sqlx::postgres::{PgConnection, PgListener, PgPoolOptions};
use std::sync::{Arc, Mutex as Sync, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use wharfinger_core::Revision;

/// The first and the longest wait before a connection that listens is made again.
const RECONNECT_DELAY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The connection for changes, and the hints.
#[derive(Default)]
pub(super) struct Feed {
    conn: Mutex<Option<PgConnection>>,
    hints: Sync<Weak<watch::Sender<u64>>>,
}

impl Feed {
    /// Reads changes. The connection is kept only after an answer. An idle connection may be dead and is then replaced.
    pub(super) async fn changes(&self, database: &Database, after: Revision, limit: usize) -> Result<Changes, PgError> {
        let mut place = self.conn.lock().await;
        loop {
            let idle = place.take();
            let used = idle.is_some();
            let mut conn = match idle {
                Some(conn) => conn,
                None => database.connect(Purpose::Read).await?,
            };
            match database.within(Purpose::Read, read::changes(&mut conn, after, limit)).await {
                Err(failure) if used && failure.lost() => {}
                Err(failure @ PgError::Sql(_)) => return Err(failure),
                other => {
                    *place = Some(conn);
                    return other;
                }
            }
        }
    }

    /// Starts to listen, until the last receiver is dropped.
    pub(super) fn hints(&self, database: &Arc<Database>) -> watch::Receiver<u64> {
        let mut known = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hints) = known.upgrade() {
            return hints.subscribe();
        }
        let hints = Arc::new(watch::Sender::new(0));
        *known = Arc::downgrade(&hints);
        let receiver = hints.subscribe();
        // Ends with the last receiver.
        tokio::spawn(listen(database.clone(), hints));
        receiver
    }

    pub(super) async fn close(&self) {
        if let Some(conn) = self.conn.lock().await.take() {
            part(conn).await;
        }
    }
}

async fn listen(database: Arc<Database>, hints: Arc<watch::Sender<u64>>) {
    let listening = async {
        let mut backoff = Backoff::new(RECONNECT_DELAY.0, RECONNECT_DELAY.1);
        loop {
            let error = match listen_once(&database, &hints, &mut backoff).await {
                Ok(()) => None,
                Err(failure) => Some(failure.sorted(&database.place)),
            };
            tracing::debug!(error = error.map(tracing::field::display), "no notifications of commits; polling goes on");
            // A notification may have been missed.
            hints.send_modify(|count| *count += 1);
            tokio::time::sleep(backoff.wait(None)).await;
        }
    };
    tokio::select! {
        () = hints.closed() => {}
        () = listening => {}
    }
}

/// Listens until the connection breaks.
async fn listen_once(database: &Database, hints: &watch::Sender<u64>, backoff: &mut Backoff) -> Result<(), PgError> {
    let limit = database.limit(Purpose::Read);
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(limit)
        .test_before_acquire(false)
        .connect_lazy_with(database.options().await?);
    let mut listener = PgListener::connect_with(&pool).await?;
    tokio::time::timeout(limit, listener.listen(database.schema()))
        .await
        .map_err(|_| StoreError::Unavailable("no answer to LISTEN".into()))??;
    backoff.reset();
    // Commits before this moment had no listener.
    hints.send_modify(|count| *count += 1);
    while listener.try_recv().await?.is_some() {
        hints.send_modify(|count| *count += 1);
    }
    Ok(())
}
