//! Reads of the store. Each result is the state of one revision.

use super::error::sorted;
use super::sql;
use crate::store::page::{Trimmed, trim};
use crate::store::row::{
    Cells, Interner, decode_event, decode_lease, decode_machine, decode_pool, decode_resource, decode_session, rows,
};
use crate::store::{Changes, EventQuery, Forgotten, StoreError, StoredEvent, TrailPlace};
use futures::future::join;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use std::path::Path;
use std::str::FromStr;
use wharfinger_core::{Revision, Snapshot, Timestamp};

/// Reads within one transaction of a connection.
pub(super) struct Reading<'c> {
    pub(super) path: &'c Path,
    pub(super) conn: &'c mut SqliteConnection,
}

impl Reading<'_> {
    fn error(&self, error: &sqlx::Error) -> StoreError {
        sorted(self.path, error)
    }

    async fn one(&mut self, text: &'static str) -> Result<SqliteRow, StoreError> {
        let row = sqlx::query(text).fetch_one(&mut *self.conn).await;
        row.map_err(|e| self.error(&e))
    }

    fn number(&self, row: &SqliteRow, column: usize) -> Result<i64, StoreError> {
        row.try_get(column).map_err(|e| self.error(&e))
    }

    /// Reads a whole table. The next page is fetched while this one is decoded.
    async fn each<T>(
        &mut self,
        text: &'static str,
        room: i64,
        mut take: impl FnMut(&Cells<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut all = Vec::with_capacity(usize::try_from(room).unwrap_or(0));
        let mut page = self.page(text, i64::MIN).await?;
        while let (Some(last), Some(rows_as_text)) = page {
            let read = async {
                for row in rows(&rows_as_text) {
                    all.push(take(&row.map_err(|e| unreadable(&e))?)?);
                }
                Ok::<(), StoreError>(())
            };
            let (next, read) = join(self.page(text, last), read).await;
            read?;
            page = next?;
        }
        Ok(all)
    }

    async fn page(&mut self, text: &'static str, after: i64) -> Result<(Option<i64>, Option<String>), StoreError> {
        let row = sqlx::query(text).bind(after).fetch_one(&mut *self.conn).await.map_err(|e| self.error(&e))?;
        let parts = row.try_get(0).and_then(|last| Ok((last, row.try_get(1)?)));
        parts.map_err(|e| self.error(&e))
    }

    pub(super) async fn load(&mut self) -> Result<Snapshot, StoreError> {
        let meta = self.one(sql::META).await?;
        let counts = self.one(sql::COUNT).await?;
        let (leases, resources) = (self.number(&counts, 0)?, self.number(&counts, 1)?);
        let salt = self.number(&meta, 3)?;
        let mut interner = Interner::new();
        Ok(Snapshot {
            revision: Revision(self.number(&meta, 0)?.cast_unsigned()),
            floor: Revision(self.number(&meta, 1)?.cast_unsigned()),
            now: Timestamp(self.number(&meta, 2)?),
            salt: u16::try_from(salt)
                .map_err(|_| crate::store::row::corrupt("meta", "1", "salt", &format!("{salt} is out of range")))?,
            leases: self.each(sql::LEASES, leases, |row| decode_lease(row, &mut interner)).await?,
            resources: self.each(sql::RESOURCES, resources, |row| decode_resource(row, &mut interner)).await?,
            pools: self.each(sql::POOLS, 0, |row| decode_pool(row, &mut interner)).await?,
            machines: self.each(sql::MACHINES, 0, |row| decode_machine(row, &mut interner)).await?,
            sessions: self.each(sql::SESSIONS, 0, |row| decode_session(row, &mut interner)).await?,
        })
    }

    pub(super) async fn changes(&mut self, after: Revision, limit: usize) -> Result<Changes, StoreError> {
        let meta = self.one(sql::META).await?;
        let revision = Revision(self.number(&meta, 0)?.cast_unsigned());
        let floor = Revision(self.number(&meta, 1)?.cast_unsigned());
        let known = Revision(self.number(&meta, 4)?.cast_unsigned());
        if after < known {
            return Err(StoreError::Compacted { after, floor: known });
        }
        let limit = limit.max(1);
        let enough = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
        let mut changes = self.changed(after, Revision(i64::MAX as u64), enough).await?;
        changes.revision = revision;
        if let Trimmed::Whole(crowded) = trim(&mut changes, limit) {
            changes = self.changed(after, crowded, i64::MAX).await?;
            changes.more = crowded < revision;
            changes.revision = crowded;
        }
        (changes.floor, changes.now) = (floor, Timestamp(self.number(&meta, 2)?));
        Ok(changes)
    }

    async fn changed(&mut self, after: Revision, to: Revision, limit: i64) -> Result<Changes, StoreError> {
        let mut interner = Interner::new();
        Ok(Changes {
            leases: self.between(sql::CHANGED_LEASES, after, to, limit, |row| decode_lease(row, &mut interner)).await?,
            resources: self
                .between(sql::CHANGED_RESOURCES, after, to, limit, |row| decode_resource(row, &mut interner))
                .await?,
            pools: self.between(sql::CHANGED_POOLS, after, to, limit, |row| decode_pool(row, &mut interner)).await?,
            machines: self
                .between(sql::CHANGED_MACHINES, after, to, limit, |row| decode_machine(row, &mut interner))
                .await?,
            sessions: self
                .between(sql::CHANGED_SESSIONS, after, to, limit, |row| decode_session(row, &mut interner))
                .await?,
            forgotten: self.forgotten(after, to, limit).await?,
            ..Changes::default()
        })
    }

    async fn forgotten(&mut self, after: Revision, to: Revision, limit: i64) -> Result<Vec<Forgotten>, StoreError> {
        let query =
            sqlx::query(sql::CHANGED_FORGOTTEN).bind(after.0.cast_signed()).bind(to.0.cast_signed()).bind(limit);
        let found = query.fetch_all(&mut *self.conn).await.map_err(|e| self.error(&e))?;
        let text = |row: &SqliteRow, column| row.try_get::<String, _>(column).map_err(|e| self.error(&e));
        found
            .iter()
            .map(|row| {
                Ok(Forgotten {
                    revision: Revision(self.number(row, 0)?.cast_unsigned()),
                    leases: ids(&text(row, 1)?)?,
                    resources: ids(&text(row, 2)?)?,
                    sessions: ids(&text(row, 3)?)?,
                })
            })
            .collect()
    }

    async fn between<T>(
        &mut self,
        text: &'static str,
        after: Revision,
        to: Revision,
        limit: i64,
        take: impl FnMut(&Cells<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let query = sqlx::query(text).bind(after.0.cast_signed()).bind(to.0.cast_signed()).bind(limit);
        let found = query.fetch_all(&mut *self.conn).await.map_err(|e| self.error(&e))?;
        self.read_all(&found, take)
    }

    pub(super) async fn events(&mut self, query: &EventQuery) -> Result<Vec<StoredEvent>, StoreError> {
        let found = sqlx::query(query.statement(&sql::EVENTS))
            .bind(query.after.0.cast_signed())
            .bind(query.pool.as_deref())
            .bind(query.resource.map(|id| id.to_string()))
            .bind(query.lease.map(|id| id.to_string()))
            .bind(i64::try_from(query.capped()).unwrap_or(i64::MAX))
            .bind(query.to.map_or(i64::MAX, |to| i64::try_from(to.0).unwrap_or(i64::MAX)))
            .fetch_all(&mut *self.conn)
            .await
            .map_err(|e| self.error(&e))?;
        let mut interner = Interner::new();
        self.read_all(&found, |row| decode_event(row, &mut interner))
    }

    pub(super) async fn readers(&mut self) -> Result<Vec<TrailPlace>, StoreError> {
        let found = sqlx::query(sql::READERS).fetch_all(&mut *self.conn).await.map_err(|e| self.error(&e))?;
        let text = |row: &SqliteRow, column| row.try_get::<String, _>(column).map_err(|e| self.error(&e));
        let place = |row: &SqliteRow| {
            Ok(TrailPlace {
                name: text(row, 0)?,
                revision: self.number(row, 1)?.cast_unsigned(),
                ordinal: self.number(row, 2)?.cast_unsigned(),
                at_unix_ms: self.number(row, 3)?,
                notes: text(row, 4)?,
            })
        };
        found.iter().map(place).collect()
    }

    /// Decodes rows whose only column is the JSON array.
    fn read_all<T>(
        &self,
        found: &[SqliteRow],
        mut take: impl FnMut(&Cells<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut all = Vec::with_capacity(found.len());
        for row in found {
            let text: &str = row.try_get(0).map_err(|e| self.error(&e))?;
            for row in rows(text) {
                all.push(take(&row.map_err(|e| unreadable(&e))?)?);
            }
        }
        Ok(all)
    }
}

/// A JSON array of ids.
fn ids<T: FromStr>(text: &str) -> Result<Vec<T>, StoreError> {
    let texts: Vec<String> = serde_json::from_str(text).map_err(|error| unreadable(&error))?;
    let wrong = |id: &String| crate::store::row::corrupt("forgotten", id, "leases, resources or sessions", "is no id");
    texts.iter().map(|id| id.parse().map_err(|_| wrong(id))).collect()
}

fn unreadable(error: &serde_json::Error) -> StoreError {
    StoreError::Corrupt(format!("the database gave a row that cannot be read: {error}; restore a backup"))
}
