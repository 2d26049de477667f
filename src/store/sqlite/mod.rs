//! The store in SQLite, embedded, the default. It has one file, one connection that writes, and a few that read.
//!
//! A statement costs a hop to the connection's thread and back, so few statements carry many rows. Medians on two cores with an
//! fsync of 0.6 ms, from the core's types to the end of COMMIT: for a batch of 256 leases with as many entries of the audit trail,
//! and for a single lease:
//!
//! | rows by                              | 256     | 1       |
//! |--------------------------------------|---------|---------|
//! | VALUES of 64 rows (here: and fewer)  | 3.6 ms  | 0.45 ms |
//! | VALUES of 256 rows                   | 4.3 ms  |         |
//! | VALUES of 16 rows                    | 4.7 ms  |         |
//! | one JSON text and `jsonb_each`       | 5.4 ms  | 0.50 ms |
//! | one JSON text and `json_each`        | 11.3 ms | 0.55 ms |
//!
//! With checkpoints a lease costs 17 us, about 60,000 a second. Pages of 8 KiB, `WITHOUT ROWID` and `INSERT OR REPLACE` gain
//! nothing. Random leases among a million cost three to five times as much as neighbours: each changes a page of the table and a
//! page of the index of revisions.

mod error;
mod open;
mod plan;
mod read;
mod restore;
mod sql;
#[cfg(test)]
mod tests;
mod write;

use super::{Changes, CommitError, Epoch, EventQuery, Store, StoreError, StoredEvent, TrailPlace};
use async_trait::async_trait;
use error::sorted;
use plan::Plan;
use read::Reading;
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use std::fs::File;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Mutex, OwnedMutexGuard};
use wharfinger_core::{Batch, Revision, Snapshot, Timestamp};
use write::Writer;

/// Number of rows after which the log is moved into the database: 15 to 100 MB, which a restart reads in a moment.
const CHECKPOINT_ROWS: usize = 8192;

/// Maximum number of pages of 4 KiB that are moved between two commits. It takes as long as a few commits.
const CHECKPOINT_PAGES: i64 = 1000;

/// Maximum number of attempts to get below that limit beside the commits.
const CHECKPOINT_PASSES: usize = 5;

/// Number of connections for reads. Each has a thread.
const READERS: u32 = 3;

/// A store in a SQLite file.
#[derive(Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    writer: Arc<Mutex<Writer>>,
    readers: SqlitePool,
    checkpointing: AtomicBool,
    /// Held while the store lives.
    _lock: File,
}

impl SqliteStore {
    /// Opens the database in this file and migrates its schema to this version. Creates the file if it does not exist, readable
    /// and writable by its owner only.
    ///
    /// # Errors
    /// [`StoreError::Configuration`] if the file is not a database of this program, is of a newer version, has no folder, or is
    /// served by another process. [`StoreError::Unavailable`] if it cannot be read or written.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let path = open::resolve(path)?;
        open::look(&path)?;
        let lock = open::lock(&path).await?;
        open::probe(&path).await?;
        let writer = Writer::open(path.clone()).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .min_connections(0)
            .test_before_acquire(false)
            .connect_lazy_with(open::reader(&path));
        let writer = Arc::new(Mutex::new(writer));
        Ok(SqliteStore {
            inner: Arc::new(Inner { path, writer, readers, checkpointing: AtomicBool::new(false), _lock: lock }),
        })
    }

    /// Runs to its end even if the caller is dropped, so that no transaction stays open.
    async fn write<T, F>(
        &self,
        work: impl FnOnce(OwnedMutexGuard<Writer>) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send,
    {
        let writer = self.inner.writer.clone();
        let task = tokio::spawn(async move { work(writer.lock_owned().await).await });
        task.await.map_err(|e| StoreError::Unavailable(format!("the task that writes to the database ended: {e}")))
    }

    /// Moves the log into the database beside the commits. A connection of its own moves most of it while commits go on. The rest is
    /// moved between two commits, so that the log starts from its beginning again.
    fn checkpoint(&self) {
        if self.inner.checkpointing.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = self.inner.clone();
        // Ends with the checkpoint.
        tokio::spawn(async move {
            let mut other = Writer::beside(inner.path.clone());
            let moved = async {
                let mut before = 0;
                for _ in 0..CHECKPOINT_PASSES {
                    let done = other.checkpoint().await?;
                    if done - before <= CHECKPOINT_PAGES {
                        break;
                    }
                    before = done;
                }
                inner.writer.lock().await.checkpoint().await
            };
            if let Err(error) = moved.await {
                tracing::warn!(%error, "the database's log could not be moved into the database; it grows meanwhile");
            }
            other.close().await;
            inner.checkpointing.store(false, Ordering::Release);
        });
    }
}

/// Runs reads in one transaction on one connection. If it is dropped, the transaction ends with the connection.
macro_rules! reading {
    ($self:ident, $reading:ident => $work:expr) => {{
        let path = &$self.inner.path;
        let mut transaction = $self.inner.readers.begin().await.map_err(|e| sorted(path, &e))?;
        let mut $reading = Reading { path, conn: &mut transaction };
        let found = $work?;
        transaction.rollback().await.map_err(|e| sorted(path, &e))?;
        Ok(found)
    }};
}

#[async_trait]
impl Store for SqliteStore {
    async fn acquire(&self) -> Result<Epoch, StoreError> {
        self.write(|mut writer| async move { writer.acquire().await }).await?
    }

    async fn load(&self) -> Result<Snapshot, StoreError> {
        self.write(|mut writer| async move { writer.settle().await }).await??;
        reading!(self, reading => reading.load().await)
    }

    async fn commit(&self, batch: &Batch, epoch: Epoch) -> Result<(), CommitError> {
        let plan = Plan::new(batch, epoch).map_err(CommitError::NotCommitted)?;
        let done = self.write(move |mut writer| async move {
            let done = writer.commit(plan, epoch).await;
            (done, writer.unsaved)
        });
        let (done, unsaved) = done.await.map_err(CommitError::InDoubt)?;
        if unsaved >= CHECKPOINT_ROWS {
            self.checkpoint();
        }
        done
    }

    async fn changes_since(&self, after: Revision, limit: usize) -> Result<Changes, StoreError> {
        reading!(self, reading => reading.changes(after, limit).await)
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, StoreError> {
        reading!(self, reading => reading.events(query).await)
    }

    async fn trim_events(&self, before: Timestamp, most: usize) -> Result<usize, StoreError> {
        let done = self.write(move |mut writer| async move { (writer.trim(before, most).await, writer.unsaved) });
        let (removed, unsaved) = done.await?;
        if unsaved >= CHECKPOINT_ROWS {
            self.checkpoint();
        }
        removed
    }

    async fn trail_places(&self) -> Result<Vec<TrailPlace>, StoreError> {
        reading!(self, reading => reading.readers().await)
    }

    async fn set_trail_place(&self, place: &TrailPlace) -> Result<(), StoreError> {
        let place = place.clone();
        self.write(move |mut writer| async move { writer.put_reader(&place).await }).await?
    }

    async fn forget_trail_place(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(move |mut writer| async move { writer.forget_reader(&name).await }).await?
    }

    async fn set_deployment_salt(&self, salt: u16) -> Result<(), StoreError> {
        self.write(move |mut writer| async move { writer.set_deployment_salt(salt).await }).await?
    }

    /// Moves the log into the database and closes it. No commit is lost without it, but the next start reads the log.
    async fn close(&self) {
        self.inner.readers.close().await;
        self.inner.writer.lock().await.close().await;
    }
}
