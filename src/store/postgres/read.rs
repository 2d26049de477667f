//! Reads of the store. Each result is the state of one revision.

use super::connect::{Database, Purpose};
use super::error::PgError;
use super::rows::{Cells, number};
use super::sql;
use super::write::as_stored;
use crate::store::page::{Trimmed, trim};
use crate::store::row::{
    Interner, corrupt, decode_event, decode_lease, decode_machine, decode_pool, decode_resource, decode_session,
};
use crate::store::{Changes, Epoch, EventQuery, Forgotten, StoreError, StoredEvent, TrailPlace};
use futures::TryStreamExt;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use std::str::FromStr;
use wharfinger_core::{Revision, Snapshot, Timestamp};

/// Loads all rows over a connection of its own.
pub(super) async fn load(database: &Database) -> Result<Snapshot, PgError> {
    let mut conn = database.connect(Purpose::Bulk).await?;
    database.within(Purpose::Read, sqlx::query(sql::BEGIN_READ).execute(&mut conn)).await?;
    let meta = database.within(Purpose::Read, sqlx::query(sql::META).fetch_one(&mut conn)).await?;
    let salt = number(&meta, 3)?;
    let mut interner = Interner::new();
    let snapshot = Snapshot {
        revision: Revision(number(&meta, 0)?.cast_unsigned()),
        floor: Revision(number(&meta, 1)?.cast_unsigned()),
        now: Timestamp(number(&meta, 2)?),
        salt: u16::try_from(salt).map_err(|_| corrupt("meta", "1", "salt", &format!("{salt} is out of range")))?,
        leases: each(database, &mut conn, sql::LEASES, |row| decode_lease(row, &mut interner)).await?,
        resources: each(database, &mut conn, sql::RESOURCES, |row| decode_resource(row, &mut interner)).await?,
        pools: each(database, &mut conn, sql::POOLS, |row| decode_pool(row, &mut interner)).await?,
        machines: each(database, &mut conn, sql::MACHINES, |row| decode_machine(row, &mut interner)).await?,
        sessions: each(database, &mut conn, sql::SESSIONS, |row| decode_session(row, &mut interner)).await?,
    };
    super::connect::part(conn).await;
    Ok(snapshot)
}

/// Reads a whole table row by row. The time limit is for each row.
async fn each<T>(
    database: &Database,
    conn: &mut PgConnection,
    text: &'static str,
    mut take: impl FnMut(&Cells<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, PgError> {
    let mut rows = sqlx::query(text).fetch(conn);
    let mut all = Vec::new();
    while let Some(row) = database.within(Purpose::Read, rows.try_next()).await? {
        all.push(take(&Cells::new(&row))?);
    }
    Ok(all)
}

pub(super) async fn changes(conn: &mut PgConnection, after: Revision, limit: usize) -> Result<Changes, PgError> {
    // Most polls find no change, which one statement shows.
    let stands = Stands::read(&sqlx::query(sql::FEED).fetch_one(&mut *conn).await?)?;
    if stands.revision == after {
        return Ok(stands.changes());
    }
    sqlx::query(sql::BEGIN_READ).execute(&mut *conn).await?;
    let found = within_transaction(conn, after, limit).await;
    if matches!(found, Ok(_) | Err(PgError::Store(_))) {
        sqlx::query(sql::END).execute(&mut *conn).await?;
    }
    found
}

async fn within_transaction(conn: &mut PgConnection, after: Revision, limit: usize) -> Result<Changes, PgError> {
    let stands = Stands::read(&sqlx::query(sql::FEED).fetch_one(&mut *conn).await?)?;
    if after < stands.known {
        return Err(StoreError::Compacted { after, floor: stands.known }.into());
    }
    let limit = limit.max(1);
    let enough = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let mut changes = changed(conn, &stands, after, Revision(i64::MAX as u64), enough).await?;
    if let Trimmed::Whole(crowded) = trim(&mut changes, limit) {
        changes = changed(conn, &stands, after, crowded, i64::MAX).await?;
        changes.more = crowded < stands.revision;
        changes.revision = crowded;
    }
    Ok(changes)
}

/// The row of `meta`.
struct Stands {
    revision: Revision,
    floor: Revision,
    now: Timestamp,
    /// Forgotten rows are known after this revision.
    known: Revision,
}

impl Stands {
    fn read(row: &PgRow) -> Result<Self, PgError> {
        let revision = |column| Ok::<_, PgError>(Revision(number(row, column)?.cast_unsigned()));
        Ok(Stands { revision: revision(0)?, floor: revision(1)?, now: Timestamp(number(row, 2)?), known: revision(3)? })
    }

    /// No changes, up to this revision.
    fn changes(&self) -> Changes {
        Changes { revision: self.revision, floor: self.floor, now: self.now, ..Changes::default() }
    }
}

fn forgotten(row: &PgRow) -> Result<Forgotten, PgError> {
    fn ids<T: FromStr>(row: &PgRow, column: usize) -> Result<Vec<T>, PgError> {
        let texts: Vec<String> = row.try_get(column)?;
        let wrong = |id: &String| corrupt("forgotten", id, "leases, resources or sessions", "is no id");
        Ok(texts.iter().map(|id| id.parse().map_err(|_| wrong(id))).collect::<Result<_, StoreError>>()?)
    }
    Ok(Forgotten {
        revision: Revision(number(row, 0)?.cast_unsigned()),
        leases: ids(row, 1)?,
        resources: ids(row, 2)?,
        sessions: ids(row, 3)?,
    })
}

async fn changed(
    conn: &mut PgConnection,
    stands: &Stands,
    after: Revision,
    to: Revision,
    limit: i64,
) -> Result<Changes, PgError> {
    let mut interner = Interner::new();
    let mut rows = async |text: &'static str| {
        let query = sqlx::query(text).bind(after.0.cast_signed()).bind(to.0.cast_signed()).bind(limit);
        query.fetch_all(&mut *conn).await
    };
    Ok(Changes {
        leases: taken(&rows(sql::CHANGED_LEASES).await?, |row| decode_lease(row, &mut interner))?,
        resources: taken(&rows(sql::CHANGED_RESOURCES).await?, |row| decode_resource(row, &mut interner))?,
        pools: taken(&rows(sql::CHANGED_POOLS).await?, |row| decode_pool(row, &mut interner))?,
        machines: taken(&rows(sql::CHANGED_MACHINES).await?, |row| decode_machine(row, &mut interner))?,
        sessions: taken(&rows(sql::CHANGED_SESSIONS).await?, |row| decode_session(row, &mut interner))?,
        forgotten: rows(sql::CHANGED_FORGOTTEN).await?.iter().map(forgotten).collect::<Result<_, _>>()?,
        ..stands.changes()
    })
}

/// The epoch that may currently write.
pub(super) async fn epoch(conn: &mut PgConnection) -> Result<Option<Epoch>, PgError> {
    let row = sqlx::query(sql::STANDING).fetch_one(conn).await?;
    Ok(Some(Epoch(number(&row, 1)?.cast_unsigned())))
}

pub(super) async fn events(conn: &mut PgConnection, query: &EventQuery) -> Result<Vec<StoredEvent>, PgError> {
    let found = sqlx::query(query.statement(&sql::EVENTS))
        .bind(query.after.0.cast_signed())
        .bind(query.pool.as_deref().map(as_stored))
        .bind(query.resource.map(|id| id.to_string()))
        .bind(query.lease.map(|id| id.to_string()))
        .bind(i64::try_from(query.capped()).unwrap_or(i64::MAX))
        .bind(query.to.map_or(i64::MAX, |to| i64::try_from(to.0).unwrap_or(i64::MAX)))
        .fetch_all(conn)
        .await?;
    let mut interner = Interner::new();
    Ok(taken(&found, |row| decode_event(row, &mut interner))?)
}

pub(super) async fn readers(conn: &mut PgConnection) -> Result<Vec<TrailPlace>, PgError> {
    let found = sqlx::query(sql::READERS).fetch_all(conn).await?;
    let place = |row: &PgRow| {
        Ok(TrailPlace {
            name: row.try_get(0)?,
            revision: number(row, 1)?.cast_unsigned(),
            ordinal: number(row, 2)?.cast_unsigned(),
            at_unix_ms: number(row, 3)?,
            notes: row.try_get(4)?,
        })
    };
    found.iter().map(place).collect()
}

fn taken<T>(rows: &[PgRow], mut take: impl FnMut(&Cells<'_>) -> Result<T, StoreError>) -> Result<Vec<T>, StoreError> {
    rows.iter().map(|row| take(&Cells::new(row))).collect()
}
