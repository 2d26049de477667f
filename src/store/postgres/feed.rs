//! What others have committed: asked for over a connection of its own, and a hint when there is something.
//!
//! Each commit notifies its schema's channel. That is heard within a millisecond or so, or not at all (a connection breaks, a
//! pooler stands between): who follows asks from time to time all the same.

use super::connect::{Purpose, Site, part};
use super::error::Trouble;
use super::read;
use crate::store::{Changes, StoreError};
use sqlx::postgres::{PgConnection, PgListener, PgPoolOptions};
use std::sync::{Arc, Mutex as Sync, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use wharfinger_core::Revision;

/// After a connection that listens broke.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// The way to the changes.
#[derive(Default)]
pub(super) struct Feed {
    conn: Mutex<Option<PgConnection>>,
    hints: Sync<Weak<watch::Sender<u64>>>,
}

impl Feed {
    /// The connection is kept only if it answered. One that was idle may be dead; then another is made.
    pub(super) async fn changes(&self, site: &Site, after: Revision, limit: usize) -> Result<Changes, Trouble> {
        let mut place = self.conn.lock().await;
        loop {
            let idle = place.take();
            let used = idle.is_some();
            let mut conn = match idle {
                Some(conn) => conn,
                None => site.connect(Purpose::Read).await?,
            };
            match site.within(Purpose::Read, read::changes(&mut conn, after, limit)).await {
                Err(trouble) if used && trouble.lost() => {}
                Err(trouble @ Trouble::Sql(_)) => return Err(trouble),
                other => {
                    *place = Some(conn);
                    return other;
                }
            }
        }
    }

    /// Listens for as long as somebody has what is returned.
    pub(super) fn hints(&self, site: &Arc<Site>) -> watch::Receiver<u64> {
        let mut known = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = known.upgrade() {
            return told.subscribe();
        }
        let told = Arc::new(watch::Sender::new(0));
        *known = Arc::downgrade(&told);
        let receiver = told.subscribe();
        tokio::spawn(listen(site.clone(), told));
        receiver
    }

    pub(super) async fn close(&self) {
        if let Some(conn) = self.conn.lock().await.take() {
            part(conn).await;
        }
    }
}

async fn listen(site: Arc<Site>, told: Arc<watch::Sender<u64>>) {
    let hear = async {
        loop {
            let error = match hear(&site, &told).await {
                Ok(()) => None,
                Err(trouble) => Some(trouble.sorted(&site.place)),
            };
            tracing::debug!(error = error.map(tracing::field::display), "nothing is heard of commits; asking goes on");
            // Something may have been missed.
            told.send_modify(|count| *count += 1);
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    };
    tokio::select! {
        () = told.closed() => {}
        () = hear => {}
    }
}

/// Until the connection breaks.
async fn hear(site: &Site, told: &watch::Sender<u64>) -> Result<(), Trouble> {
    let limit = site.limit(Purpose::Read);
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(limit)
        .test_before_acquire(false)
        .connect_lazy_with(site.options().await?);
    let mut listener = PgListener::connect_with(&pool).await?;
    tokio::time::timeout(limit, listener.listen(site.schema()))
        .await
        .map_err(|_| StoreError::Unavailable("no answer to LISTEN".into()))??;
    // What was committed before.
    told.send_modify(|count| *count += 1);
    while let Some(heard) = listener.try_recv().await? {
        let _ = heard;
        told.send_modify(|count| *count += 1);
    }
    Ok(())
}
