//! The store in PostgreSQL, for a broker whose data is on another machine, and for more than one server.
//!
//! One connection writes, a few read, and each load has one of its own. A commit is one statement and one transaction: it checks
//! epoch and revision in the row of `meta` and writes all rows by `unnest`. It costs one round trip and one flush. See
//! docs/adr/0014-postgresql.md.

mod commit_sql;
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
mod servers;
mod sql;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
mod write;

use super::{
    Changes, CommitError, Epoch, EventQuery, PostgresSettings, SeenServer, ServerReport, Store, StoreError,
    StoredEvent, TrailPlace, numbered,
};
use crate::random::random;
use async_trait::async_trait;
use connect::{Database, Purpose, Readers};
use election::{Clocks, ElectionConn};
use error::PgError;
use feed::Feed;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};
use wharfinger_core::{Batch, Millis, Revision, Snapshot, Timestamp};
use write::{Plan, Writer};

/// A store in a schema of a PostgreSQL database.
#[derive(Clone)]
pub struct PostgresStore {
    inner: Arc<Inner>,
}

struct Inner {
    database: Arc<Database>,
    writer: Mutex<Writer>,
    readers: Readers,
    election: ElectionConn,
    /// The database's clock, compared with that of this machine.
    clocks: Clocks,
    feed: Feed,
}

impl PostgresStore {
    /// Connects, and migrates the schema to this version. Makes the schema if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::Configuration`] if the database refuses the login, is too old, or its schema is of a newer version or another
    /// program. [`StoreError::Unavailable`] if it does not answer or is read-only.
    pub async fn open(settings: &PostgresSettings) -> Result<Self, StoreError> {
        let store = Self::new(settings)?;
        store.bring_up().await?;
        Ok(store)
    }

    /// Makes a store that is not connected. Call [`PostgresStore::bring_up`] before any other function.
    ///
    /// # Errors
    /// [`StoreError::Configuration`] if the URL is not valid.
    pub fn new(settings: &PostgresSettings) -> Result<Self, StoreError> {
        let database = Arc::new(Database::new(settings.clone())?);
        Ok(PostgresStore {
            inner: Arc::new(Inner {
                writer: Mutex::new(Writer::new(database.clone())),
                readers: Readers::new(),
                election: ElectionConn::default(),
                clocks: Clocks::default(),
                feed: Feed::default(),
                database,
            }),
        })
    }

    /// Connects, and migrates the schema to this version.
    ///
    /// # Errors
    /// As of [`PostgresStore::open`].
    pub async fn bring_up(&self) -> Result<(), StoreError> {
        migrate::migrate(&self.inner.database).await.map_err(|failure| self.sorted(&failure))
    }

    /// Checks the URL without connecting.
    ///
    /// # Errors
    /// [`StoreError::Configuration`] if it is not valid.
    pub fn understands(settings: &PostgresSettings) -> Result<(), StoreError> {
        Database::new(settings.clone()).map(drop)
    }

    fn sorted(&self, failure: &PgError) -> StoreError {
        failure.sorted(&self.inner.database.place)
    }
}

/// Reads over a connection of the readers. An idle connection may be dead; the read is then repeated over a new one.
macro_rules! reading {
    ($self:ident, $conn:ident => $work:expr) => {{
        let inner = &*$self.inner;
        loop {
            let mut reader = inner.readers.take(&inner.database).await.map_err(|failure| $self.sorted(&failure))?;
            let $conn = &mut reader.conn;
            match inner.database.within(Purpose::Read, $work).await {
                Ok(found) => {
                    inner.readers.give(reader);
                    break Ok(found);
                }
                Err(PgError::Store(error)) => {
                    inner.readers.give(reader);
                    break Err(error);
                }
                Err(failure) if reader.used && failure.lost() => inner.readers.forget(),
                Err(failure) => break Err($self.sorted(&failure)),
            }
        }
    }};
}

#[async_trait]
impl Store for PostgresStore {
    async fn acquire(&self) -> Result<Epoch, StoreError> {
        self.inner.writer.lock().await.acquire().await.map_err(|failure| self.sorted(&failure))
    }

    async fn load(&self) -> Result<Snapshot, StoreError> {
        self.inner.writer.lock().await.settle().await.map_err(|failure| self.sorted(&failure))?;
        read::load(&self.inner.database).await.map_err(|failure| self.sorted(&failure))
    }

    async fn commit(&self, batch: &Batch, epoch: Epoch) -> Result<(), CommitError> {
        numbered(batch).map_err(CommitError::NotCommitted)?;
        // The mark of a commit: no two commits of any server have the same.
        let plan = Plan::new(batch, random().cast_signed());
        self.inner.writer.lock().await.commit(&plan, epoch).await
    }

    async fn changes_since(&self, after: Revision, limit: usize) -> Result<Changes, StoreError> {
        let inner = &*self.inner;
        inner.feed.changes(&inner.database, after, limit).await.map_err(|failure| self.sorted(&failure))
    }

    fn hints(&self) -> Option<watch::Receiver<u64>> {
        Some(self.inner.feed.hints(&self.inner.database))
    }

    async fn current_epoch(&self) -> Result<Option<Epoch>, StoreError> {
        reading!(self, conn => read::epoch(conn))
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, StoreError> {
        reading!(self, conn => read::events(conn, query))
    }

    async fn trim_events(&self, before: Timestamp, most: usize) -> Result<usize, StoreError> {
        self.inner.writer.lock().await.trim(before, most).await.map_err(|failure| self.sorted(&failure))
    }

    async fn trail_places(&self) -> Result<Vec<TrailPlace>, StoreError> {
        reading!(self, conn => read::readers(conn))
    }

    async fn set_trail_place(&self, place: &TrailPlace) -> Result<(), StoreError> {
        self.inner.writer.lock().await.put_reader(place).await.map_err(|failure| self.sorted(&failure))
    }

    async fn forget_trail_place(&self, name: &str) -> Result<(), StoreError> {
        self.inner.writer.lock().await.forget_reader(name).await.map_err(|failure| self.sorted(&failure))
    }

    async fn report_server(&self, report: &ServerReport) -> Result<(), StoreError> {
        reading!(self, conn => servers::put(conn, report))
    }

    async fn servers(&self) -> Result<Vec<SeenServer>, StoreError> {
        reading!(self, conn => servers::all(conn))
    }

    async fn set_deployment_salt(&self, salt: u16) -> Result<(), StoreError> {
        self.inner.writer.lock().await.set_deployment_salt(salt).await.map_err(|failure| self.sorted(&failure))
    }

    fn clock_offset(&self) -> Option<Millis> {
        self.inner.clocks.offset()
    }

    async fn close(&self) {
        self.inner.readers.close().await;
        self.inner.writer.lock().await.close().await;
        self.inner.election.close().await;
        self.inner.feed.close().await;
    }
}
