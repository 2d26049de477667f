//! The one connection that writes.

use super::error::sorted;
use super::{open, sql};
use crate::store::row::{Sink, put_event, put_lease, put_pool, put_resource};
use crate::store::{CommitError, Epoch, FORGOTTEN_FOR_MS, StoreError, numbered};
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments, AssertSqlSafe, ConnectOptions, Connection, Row};
use std::borrow::Cow;
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

/// Rows of one kind up to which a batch is small: its statements go to the connection's thread in one text. A hop there and back
/// costs as much as four rows.
const SMALL: usize = 128;

/// A batch as statements with their values: owns all it needs, so that it can be carried out by a task that nobody
/// waits for any more.
pub(super) struct Plan {
    base: Revision,
    /// What opens the transaction and moves the revision on, and of a small batch all that is to be put.
    opening: (Cow<'static, str>, SqliteArguments),
    statements: Vec<(&'static str, SqliteArguments)>,
    rows: usize,
}

impl Plan {
    pub(super) fn new(batch: &Batch, epoch: Epoch) -> Result<Plan, StoreError> {
        let mut opening = Values::default();
        for number in [batch.revision.0, batch.floor.0] {
            opening.int(Some(number.cast_signed()));
        }
        opening.int(Some(batch.now.0));
        for number in [batch.base.0, epoch.0] {
            opening.int(Some(number.cast_signed()));
        }
        let mut plan = Plan {
            base: batch.base,
            opening: (Cow::Borrowed(sql::ADVANCE), SqliteArguments::default()),
            statements: Vec::new(),
            rows: batch.leases.len() + batch.resources.len() + batch.events.len(),
        };
        numbered(batch)?;
        let events = Events::of(batch);
        let put = [batch.leases.len(), batch.resources.len(), batch.events.len()];
        if put.iter().all(|rows| *rows <= SMALL) && events.late.is_empty() && rare(batch) == 0 {
            let mut text = String::from(sql::ADVANCE);
            put_all(&sql::LEASE_ROWS, &batch.leases, &mut text, &mut opening, |lease, values| put_lease(lease, values));
            put_all(&sql::RESOURCE_ROWS, &batch.resources, &mut text, &mut opening, |resource, values| {
                put_resource(resource, values);
            });
            put_all(&sql::EVENT_ROWS, &events.new, &mut text, &mut opening, events.numbers());
            plan.opening = (Cow::Owned(text), checked(opening)?);
            return Ok(plan);
        }
        plan.opening.1 = checked(opening)?;
        plan.put(&sql::PUT_LEASES, &batch.leases, |lease, values| put_lease(lease, values))?;
        plan.put(&sql::PUT_RESOURCES, &batch.resources, |resource, values| put_resource(resource, values))?;
        for pool in &batch.pools {
            plan.one(sql::PUT_POOL, |values| put_pool(pool, values))?;
        }
        plan.forget(batch)?;
        for event in &events.late {
            plan.one(sql::PUT_LATE_EVENT, |values| put_event(event, 0, values))?;
        }
        plan.put(&sql::PUT_EVENTS, &events.new, events.numbers())?;
        Ok(plan)
    }

    fn forget(&mut self, batch: &Batch) -> Result<(), StoreError> {
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
}

/// Changes that only come now and then.
fn rare(batch: &Batch) -> usize {
    batch.pools.len() + batch.forgotten_leases.len() + batch.forgotten_resources.len()
}

/// Adds the statement for these rows, and their values.
fn put_all<T>(
    put: &sql::Put,
    rows: &[T],
    text: &mut String,
    values: &mut Values,
    mut fill: impl FnMut(&T, &mut Values),
) {
    if rows.is_empty() {
        return;
    }
    let room = rows.len().next_power_of_two();
    put.append(room, text);
    rows.iter().for_each(|row| fill(row, values));
    for _ in 0..(room - rows.len()) * put.columns {
        values.int(None);
    }
}

/// The entries of a batch, in their order.
struct Events<'b> {
    base: Revision,
    /// Of a revision of an earlier batch: one that only forgets has the revision of the batch before it, which may have
    /// entries already.
    late: Vec<&'b Event>,
    new: Vec<&'b Event>,
}

impl<'b> Events<'b> {
    fn of(batch: &'b Batch) -> Self {
        let mut late: Vec<&Event> = batch.events.iter().collect();
        late.sort_by_key(|event| event.revision);
        let new = late.split_off(late.partition_point(|event| event.revision <= batch.base));
        Self { base: batch.base, late, new }
    }

    /// Puts each with its number within its revision.
    fn numbers(&self) -> impl FnMut(&&'b Event, &mut Values) + use<'b> {
        let (mut revision, mut ordinal) = (self.base, 0);
        move |event, values| {
            ordinal = if event.revision == revision { ordinal + 1 } else { 0 };
            revision = event.revision;
            put_event(event, ordinal, values);
        }
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
        let advance = match self.outcome(prepared).await {
            Ok(advance) => advance,
            // What another has committed may be in the way of our rows, and is found before it is seen that it counts.
            Err(error) => match self.standing().await {
                Ok(stands @ Advance::Stands { revision, epoch: current }) if (revision, current) != (base, epoch) => {
                    stands
                }
                Ok(_) | Err(_) => return Err(CommitError::NotCommitted(error)),
            },
        };
        match advance {
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

    async fn standing(&mut self) -> Result<Advance, StoreError> {
        let stands = stands(self.ready().await?).await;
        self.outcome(stands).await
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
    let (text, values) = plan.opening;
    // Our own text: no value is in it.
    let moved = sqlx::query_with(AssertSqlSafe(text), values).fetch_all(&mut *conn).await?;
    if moved.is_empty() {
        let stands = stands(conn).await?;
        sqlx::query(sql::ROLLBACK).execute(&mut *conn).await?;
        return Ok(stands);
    }
    for (text, arguments) in plan.statements {
        sqlx::query_with(text, arguments).execute(&mut *conn).await?;
    }
    Ok(Advance::Done)
}

async fn stands(conn: &mut SqliteConnection) -> Result<Advance, sqlx::Error> {
    let row = sqlx::query(sql::STANDING).fetch_one(conn).await?;
    let (revision, epoch): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Advance::Stands { revision: Revision(revision.cast_unsigned()), epoch: Epoch(epoch.cast_unsigned()) })
}
