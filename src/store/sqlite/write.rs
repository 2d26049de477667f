//! The one connection that writes.

use super::error::sorted;
use super::{open, sql};
use crate::store::row::{Sink, put_event, put_lease, put_pool, put_resource};
use crate::store::{CommitError, Epoch, FORGOTTEN_FOR_MS, StoreError, numbered};
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments, ConnectOptions, Connection, Row};
use std::path::PathBuf;
use std::sync::Arc;
use wharfinger_core::{Batch, Event, Revision, Timestamp};

/// The values of one statement.
#[derive(Default)]
struct Values {
    arguments: SqliteArguments,
    failed: Option<String>,
}

impl Values {
    fn add<'v, T: sqlx::Encode<'v, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(&mut self, value: T) {
        if let Err(error) = self.arguments.add(value) {
            self.failed = Some(error.to_string());
        }
    }
}

impl Sink for Values {
    fn int(&mut self, value: Option<i64>) {
        self.add(value);
    }
    fn text(&mut self, value: Option<&Arc<str>>) {
        self.add(value.cloned());
    }
    fn string(&mut self, value: Option<String>) {
        self.add(value);
    }
}

/// A batch as statements with their values: owns all it needs, so that it can be carried out by a task that nobody
/// waits for any more.
pub(super) struct Plan {
    base: Revision,
    advance: SqliteArguments,
    statements: Vec<(&'static str, SqliteArguments)>,
    rows: usize,
}

impl Plan {
    pub(super) fn new(batch: &Batch, epoch: Epoch) -> Result<Plan, StoreError> {
        let mut plan = Plan {
            base: batch.base,
            advance: SqliteArguments::default(),
            statements: Vec::new(),
            rows: batch.leases.len() + batch.resources.len() + batch.events.len(),
        };
        let mut advance = Values::default();
        for number in [batch.revision.0, batch.floor.0] {
            advance.int(Some(number.cast_signed()));
        }
        advance.int(Some(batch.now.0));
        for number in [batch.base.0, epoch.0] {
            advance.int(Some(number.cast_signed()));
        }
        plan.advance = checked(advance)?;

        plan.put(&sql::PUT_LEASES, &batch.leases, |lease, values| put_lease(lease, values))?;
        plan.put(&sql::PUT_RESOURCES, &batch.resources, |resource, values| put_resource(resource, values))?;
        for pool in &batch.pools {
            plan.one(sql::PUT_POOL, |values| put_pool(pool, values))?;
        }
        plan.forget(batch)?;
        plan.events(batch)?;
        Ok(plan)
    }

    fn forget(&mut self, batch: &Batch) -> Result<(), StoreError> {
        numbered(batch)?;
        if batch.forgotten_leases.is_empty() && batch.forgotten_resources.is_empty() {
            return Ok(());
        }
        let leases = id_list(batch.forgotten_leases.iter().map(ToString::to_string));
        let resources = id_list(batch.forgotten_resources.iter().map(ToString::to_string));
        self.one(sql::FORGET_LEASES, |values| values.string(Some(leases.clone())))?;
        self.one(sql::FORGET_RESOURCES, |values| values.string(Some(resources.clone())))?;
        let old = Some(batch.now.0 - FORGOTTEN_FOR_MS);
        self.one(sql::RAISE_FEED_FLOOR, |values| values.int(old))?;
        self.one(sql::PRUNE_FORGOTTEN, |values| values.int(old))?;
        self.one(sql::NOTE_FORGOTTEN, |values| {
            values.int(Some(batch.revision.0.cast_signed()));
            values.int(Some(batch.now.0));
            values.string(Some(leases));
            values.string(Some(resources));
        })
    }

    fn one(&mut self, text: &'static str, fill: impl FnOnce(&mut Values)) -> Result<(), StoreError> {
        let mut values = Values::default();
        fill(&mut values);
        self.statements.push((text, checked(values)?));
        Ok(())
    }

    fn put<T>(
        &mut self,
        by_size: &[sql::Sized],
        mut rows: &[T],
        mut fill: impl FnMut(&T, &mut Values),
    ) -> Result<(), StoreError> {
        for sized in by_size {
            while let Some((now, later)) = rows.split_at_checked(sized.rows) {
                self.one(sized.text, |values| now.iter().for_each(|row| fill(row, values)))?;
                rows = later;
            }
        }
        Ok(())
    }

    fn events(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let mut events: Vec<&Event> = batch.events.iter().collect();
        events.sort_by_key(|event| event.revision);
        // A batch that only forgets has the revision of the batch before it, which may have entries already.
        let (late, new) = events.split_at(events.partition_point(|event| event.revision <= batch.base));
        for event in late {
            self.one(sql::PUT_LATE_EVENT, |values| put_event(event, 0, values))?;
        }
        let (mut revision, mut ordinal) = (batch.base, 0);
        self.put(&sql::PUT_EVENTS, new, |event, values| {
            ordinal = if event.revision == revision { ordinal + 1 } else { 0 };
            revision = event.revision;
            put_event(event, ordinal, values);
        })
    }
}

fn checked(values: Values) -> Result<SqliteArguments, StoreError> {
    match values.failed {
        None => Ok(values.arguments),
        Some(what) => Err(StoreError::Corrupt(format!("a value can't be stored: {what}; report it"))),
    }
}

fn id_list(ids: impl Iterator<Item = String>) -> String {
    // Ids need no escaping.
    let mut text = String::from("[");
    for id in ids {
        if text.len() > 1 {
            text.push(',');
        }
        text.push('"');
        text.push_str(&id);
        text.push('"');
    }
    text.push(']');
    text
}

/// The connection that writes, made anew after a failure: whatever a failed transaction left behind is gone with it.
pub(super) struct Writer {
    path: PathBuf,
    conn: Option<SqliteConnection>,
    /// A commit failed on its way to the disk, and no write has followed it.
    pub(super) in_doubt: bool,
    /// Rows written since the last checkpoint.
    pub(super) unsaved: usize,
}

impl Writer {
    pub(super) async fn open(path: PathBuf) -> Result<Writer, StoreError> {
        let mut writer = Writer::beside(path);
        let conn = writer.ready().await?;
        let migrated = open::migrate(conn).await;
        writer.outcome(migrated).await?;
        Ok(writer)
    }

    /// Another connection to an open database; connects when it is first needed.
    pub(super) fn beside(path: PathBuf) -> Writer {
        Writer { path, conn: None, in_doubt: false, unsaved: 0 }
    }

    /// A connection without an open transaction, and no commit in doubt.
    async fn ready(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        if self.conn.is_none() {
            let opened = open::writer(&self.path).connect().await;
            let mut conn = opened.map_err(|e| sorted(&self.path, &e))?;
            if self.in_doubt {
                // A commit that failed on its way to the disk may be in the log without having counted, and would count
                // after a crash. The next commit writes over it, so there must be one before anybody is told.
                sqlx::query(sql::SETTLE).execute(&mut conn).await.map_err(|e| sorted(&self.path, &e))?;
                self.in_doubt = false;
            }
            self.conn = Some(conn);
        }
        self.conn.as_mut().ok_or_else(|| StoreError::Unavailable("the database connection is gone".to_owned()))
    }

    /// Throws the connection away after an error.
    async fn outcome<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => {
                self.close().await;
                Err(sorted(&self.path, &error))
            }
        }
    }

    /// Makes sure that what is stored now stays what is stored.
    pub(super) async fn settle(&mut self) -> Result<(), StoreError> {
        if self.in_doubt { self.ready().await.map(|_| ()) } else { Ok(()) }
    }

    /// Raises the epoch.
    pub(super) async fn acquire(&mut self) -> Result<Epoch, StoreError> {
        let conn = self.ready().await?;
        // One statement is one transaction.
        let row = sqlx::query(sql::ACQUIRE).fetch_all(conn).await;
        let epoch = row.and_then(|rows| rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get::<i64, _>(0));
        Ok(Epoch(self.outcome(epoch).await?.cast_unsigned()))
    }

    /// Takes the ids of another deployment over.
    pub(super) async fn brand(&mut self, salt: u16) -> Result<(), StoreError> {
        let conn = self.ready().await?;
        let done = sqlx::query(sql::BRAND).bind(i64::from(salt)).execute(conn).await;
        self.outcome(done).await.map(drop)
    }

    /// Removes old entries of the audit trail.
    pub(super) async fn trim(&mut self, before: Timestamp, most: usize) -> Result<usize, StoreError> {
        let conn = self.ready().await?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let done = sqlx::query(sql::TRIM_EVENTS).bind(most).bind(before.0).execute(conn).await;
        let removed = usize::try_from(self.outcome(done).await?.rows_affected()).unwrap_or(usize::MAX);
        self.unsaved += removed;
        Ok(removed)
    }

    /// Carries a plan out.
    pub(super) async fn commit(&mut self, plan: Plan, epoch: Epoch) -> Result<(), CommitError> {
        let base = plan.base;
        let rows = plan.rows;
        let conn = self.ready().await.map_err(CommitError::NotCommitted)?;
        let prepared = prepare(conn, plan).await;
        match self.outcome(prepared).await.map_err(CommitError::NotCommitted)? {
            Advance::Done => {}
            Advance::Stands { revision, epoch: current } if current != epoch => {
                tracing::debug!(%revision, "a commit with an older epoch was refused");
                return Err(CommitError::Deposed { current });
            }
            Advance::Stands { revision, .. } => {
                return Err(CommitError::NotCommitted(StoreError::Corrupt(format!(
                    "the database {} is at revision {revision}, but the change builds on {base}: something else writes \
                     to it; end that, and restart",
                    self.path.display()
                ))));
            }
        }
        let conn = self.ready().await.map_err(CommitError::NotCommitted)?;
        if let Err(error) = sqlx::query(sql::COMMIT).execute(conn).await {
            self.in_doubt = true;
            self.close().await;
            return Err(CommitError::InDoubt(sorted(&self.path, &error)));
        }
        self.unsaved += rows;
        Ok(())
    }

    /// Moves the log into the database, as far as no reader is in the way. Answers how many pages of the log are in the
    /// database now.
    pub(super) async fn checkpoint(&mut self) -> Result<i64, StoreError> {
        self.unsaved = 0;
        let conn = self.ready().await?;
        let done = sqlx::query(sql::CHECKPOINT).fetch_one(conn).await.and_then(|row| row.try_get(2));
        self.outcome(done).await
    }

    pub(super) async fn close(&mut self) {
        if let Some(conn) = self.conn.take()
            && let Err(error) = conn.close().await
        {
            tracing::warn!(%error, database = %self.path.display(), "could not close the database cleanly");
        }
    }
}

enum Advance {
    /// All is written but the end of the transaction.
    Done,
    /// Nothing is written and no transaction open, since the store stands elsewhere.
    Stands { revision: Revision, epoch: Epoch },
}

async fn prepare(conn: &mut SqliteConnection, plan: Plan) -> Result<Advance, sqlx::Error> {
    let moved = sqlx::query_with(sql::ADVANCE, plan.advance).fetch_all(&mut *conn).await?;
    if moved.is_empty() {
        let row = sqlx::query(sql::STANDING).fetch_one(&mut *conn).await?;
        let (revision, epoch): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        sqlx::query(sql::ROLLBACK).execute(&mut *conn).await?;
        return Ok(Advance::Stands {
            revision: Revision(revision.cast_unsigned()),
            epoch: Epoch(epoch.cast_unsigned()),
        });
    }
    for (text, arguments) in plan.statements {
        sqlx::query_with(text, arguments).execute(&mut *conn).await?;
    }
    Ok(Advance::Done)
}
