//! PostgreSQL: for a broker whose data is not on its own machine, and for more than one broker.
//!
//! One connection writes, a few read, and one is made for each load. A commit is one statement: it checks epoch and
//! revision in the row of `meta`, writes all rows by `unnest`, and is its own transaction, so it costs one way to the
//! server and back and one flush there. See docs/adr/0014-postgresql.md.

mod connect;
mod election;
#[cfg(test)]
mod election_tests;
mod error;
mod feed;
mod migrate;
mod read;
mod restore;
mod rows;
mod sql;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
mod write;

use super::{Changes, CommitError, Epoch, EventQuery, PostgresSettings, Store, StoreError, StoredEvent, numbered};
use async_trait::async_trait;
use connect::{Purpose, Readers, Site};
use election::{Ballot, Clocks};
use error::Trouble;
use feed::Feed;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Mutex, watch};
use wharfinger_core::{Batch, Millis, Revision, Snapshot, Timestamp};
use write::{Plan, Writer};

/// A store in a schema of a PostgreSQL database.
#[derive(Clone)]
pub struct PostgresStore {
    inner: Arc<Inner>,
}

struct Inner {
    site: Arc<Site>,
    writer: Mutex<Writer>,
    readers: Readers,
    ballot: Ballot,
    /// The database's clock beside that of this machine.
    clocks: Clocks,
    feed: Feed,
    marks: Marks,
}

/// Marks of commits: no two are the same, over all servers.
struct Marks {
    hasher: RandomState,
    next: AtomicU64,
}

impl Marks {
    fn mark(&self) -> i64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.hasher.hash_one((std::process::id(), number)).cast_signed()
    }
}

impl PostgresStore {
    /// Connects, and brings the schema up to this version; makes it if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Configuration`] if the database does not let us in, is of a newer version, too old, or another
    /// program's; [`StoreError::Unavailable`] if it does not answer or can only be read.
    pub async fn open(settings: &PostgresSettings) -> Result<Self, StoreError> {
        let store = Self::new(settings)?;
        store.bring_up().await?;
        Ok(store)
    }

    /// Does not connect yet. Nothing can be asked before [`PostgresStore::bring_up`].
    ///
    /// # Errors
    /// [`StoreError::Configuration`] if the URL is none.
    pub fn new(settings: &PostgresSettings) -> Result<Self, StoreError> {
        let site = Arc::new(Site::new(settings.clone())?);
        Ok(PostgresStore {
            inner: Arc::new(Inner {
                writer: Mutex::new(Writer::new(site.clone())),
                readers: Readers::new(),
                ballot: Ballot::default(),
                clocks: Clocks::default(),
                feed: Feed::default(),
                marks: Marks { hasher: RandomState::new(), next: AtomicU64::new(0) },
                site,
            }),
        })
    }

    /// Connects, and brings the schema up to this version.
    ///
    /// # Errors
    /// As of [`PostgresStore::open`].
    pub async fn bring_up(&self) -> Result<(), StoreError> {
        migrate::migrate(&self.inner.site).await.map_err(|trouble| self.sorted(&trouble))
    }

    /// Whether the URL is one, as far as that can be said without connecting.
    ///
    /// # Errors
    /// [`StoreError::Configuration`] if it is not.
    pub fn understands(settings: &PostgresSettings) -> Result<(), StoreError> {
        Site::new(settings.clone()).map(drop)
    }

    fn sorted(&self, trouble: &Trouble) -> StoreError {
        trouble.sorted(&self.inner.site.place)
    }
}

/// Asks something over a connection that reads. One that was idle may be dead; then it is asked again over a new one.
macro_rules! reading {
    ($self:ident, $conn:ident => $work:expr) => {{
        let inner = &*$self.inner;
        loop {
            let mut reader = inner.readers.take(&inner.site).await.map_err(|trouble| $self.sorted(&trouble))?;
            let $conn = &mut reader.conn;
            match inner.site.within(Purpose::Read, $work).await {
                Ok(found) => {
                    inner.readers.give(reader);
                    break Ok(found);
                }
                Err(Trouble::Store(error)) => {
                    inner.readers.give(reader);
                    break Err(error);
                }
                Err(trouble) if reader.used && trouble.lost() => inner.readers.forget(),
                Err(trouble) => break Err($self.sorted(&trouble)),
            }
        }
    }};
}

#[async_trait]
impl Store for PostgresStore {
    async fn acquire(&self) -> Result<Epoch, StoreError> {
        self.inner.writer.lock().await.acquire().await.map_err(|trouble| self.sorted(&trouble))
    }

    async fn load(&self) -> Result<Snapshot, StoreError> {
        self.inner.writer.lock().await.settle().await.map_err(|trouble| self.sorted(&trouble))?;
        read::load(&self.inner.site).await.map_err(|trouble| self.sorted(&trouble))
    }

    async fn commit(&self, batch: &Batch, epoch: Epoch) -> Result<(), CommitError> {
        numbered(batch).map_err(CommitError::NotCommitted)?;
        let plan = Plan::new(batch, self.inner.marks.mark());
        self.inner.writer.lock().await.commit(&plan, epoch).await
    }

    async fn changes_since(&self, after: Revision, limit: usize) -> Result<Changes, StoreError> {
        let inner = &*self.inner;
        inner.feed.changes(&inner.site, after, limit).await.map_err(|trouble| self.sorted(&trouble))
    }

    fn hints(&self) -> Option<watch::Receiver<u64>> {
        Some(self.inner.feed.hints(&self.inner.site))
    }

    async fn current_epoch(&self) -> Result<Option<Epoch>, StoreError> {
        reading!(self, conn => read::epoch(conn))
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, StoreError> {
        reading!(self, conn => read::events(conn, query))
    }

    async fn trim_events(&self, before: Timestamp, most: usize) -> Result<usize, StoreError> {
        self.inner.writer.lock().await.trim(before, most).await.map_err(|trouble| self.sorted(&trouble))
    }

    async fn brand(&self, salt: u16) -> Result<(), StoreError> {
        self.inner.writer.lock().await.brand(salt).await.map_err(|trouble| self.sorted(&trouble))
    }

    fn clock_offset(&self) -> Option<Millis> {
        self.inner.clocks.offset()
    }

    async fn close(&self) {
        self.inner.readers.close().await;
        self.inner.writer.lock().await.close().await;
        self.inner.ballot.close().await;
        self.inner.feed.close().await;
    }
}
