//! The connection that writes.

use super::error::sorted;
use super::plan::Plan;
use super::{open, sql};
use crate::store::{CommitError, Epoch, StoreError, TrailPlace};
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use std::path::PathBuf;
use wharfinger_core::{Revision, Timestamp};

/// The connection that writes. A failure replaces it, which ends the failed transaction.
pub(super) struct Writer {
    path: PathBuf,
    conn: Option<SqliteConnection>,
    /// Whether a commit failed on its way to the disk and no write has followed it.
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
                // A commit that failed on its way to the disk may be in the log without being valid, and would be valid after a
                // crash. The next commit overwrites it, so there must be one before any answer.
                sqlx::query(sql::SETTLE).execute(&mut conn).await.map_err(|e| sorted(&self.path, &e))?;
                self.in_doubt = false;
            }
            self.conn = Some(conn);
        }
        self.conn.as_mut().ok_or_else(|| StoreError::Unavailable("the database connection is gone".to_owned()))
    }

    /// Discards the connection after an error.
    async fn outcome<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => {
                self.close().await;
                Err(sorted(&self.path, &error))
            }
        }
    }

    /// Ends a doubt, so that the stored state is final.
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

    /// Sets the salt of new ids.
    pub(super) async fn set_deployment_salt(&mut self, salt: u16) -> Result<(), StoreError> {
        let conn = self.ready().await?;
        let done = sqlx::query(sql::SET_SALT).bind(i64::from(salt)).execute(conn).await;
        self.outcome(done).await.map(drop)
    }

    /// Stores the place of a reader of the trail.
    pub(super) async fn put_reader(&mut self, place: &TrailPlace) -> Result<(), StoreError> {
        let conn = self.ready().await?;
        let query = sqlx::query(sql::PUT_READER)
            .bind(&place.name)
            .bind(place.revision.cast_signed())
            .bind(place.ordinal.cast_signed())
            .bind(place.at_unix_ms)
            .bind(&place.notes);
        let done = query.execute(conn).await;
        self.outcome(done).await.map(drop)
    }

    /// Removes the place of a reader of the trail.
    pub(super) async fn forget_reader(&mut self, name: &str) -> Result<(), StoreError> {
        let conn = self.ready().await?;
        let done = sqlx::query(sql::FORGET_READER).bind(name).execute(conn).await;
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

    /// Commits a plan.
    pub(super) async fn commit(&mut self, plan: Plan, epoch: Epoch) -> Result<(), CommitError> {
        let base = plan.base;
        let rows = plan.rows;
        let conn = self.ready().await.map_err(CommitError::NotCommitted)?;
        let prepared = prepare(conn, plan).await;
        let advance = match self.outcome(prepared).await {
            Ok(advance) => advance,
            // Rows of another server may conflict with these rows. The conflict shows before its commit does.
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

    /// Moves the log into the database, except pages that a reader still needs. Returns the number of moved pages.
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
    /// All rows are written; the transaction is still open.
    Done,
    /// Nothing is written and no transaction is open, since the store has another revision or epoch.
    Stands { revision: Revision, epoch: Epoch },
}

async fn prepare(conn: &mut SqliteConnection, plan: Plan) -> Result<Advance, sqlx::Error> {
    let (text, values) = plan.opening;
    // The texts are made from constants; they have no values.
    let moved = sqlx::query_with(AssertSqlSafe(text), values).fetch_all(&mut *conn).await?;
    if moved.is_empty() {
        let stands = stands(conn).await?;
        sqlx::query(sql::ROLLBACK).execute(&mut *conn).await?;
        return Ok(stands);
    }
    for (text, arguments) in plan.statements {
        sqlx::query_with(AssertSqlSafe(text), arguments).execute(&mut *conn).await?;
    }
    Ok(Advance::Done)
}

async fn stands(conn: &mut SqliteConnection) -> Result<Advance, sqlx::Error> {
    let row = sqlx::query(sql::STANDING).fetch_one(conn).await?;
    let (revision, epoch): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Advance::Stands { revision: Revision(revision.cast_unsigned()), epoch: Epoch(epoch.cast_unsigned()) })
}
