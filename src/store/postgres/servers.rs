//! The reports of servers: a row each, which no epoch guards, since a server that follows writes its own.

use super::error::PgError;
use super::rows::{escaped, number};
use super::sql;
use crate::store::{REPORTS_KEPT, SeenServer, ServerReport};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use std::time::Duration;

/// Stores the report of a server in place of its earlier one, and removes old ones of others.
pub(super) async fn put(conn: &mut PgConnection, report: &ServerReport) -> Result<(), PgError> {
    sqlx::query(sql::PUT_SERVER)
        .bind(escaped(&report.address).into_owned())
        .bind(escaped(&report.version).into_owned())
        .bind(escaped(&report.configuration).into_owned())
        .bind(report.refused_since_unix_ms)
        .bind(report.leads_since_unix_ms)
        .bind(report.epoch.cast_signed())
        .bind(report.revision.cast_signed())
        .bind(report.age_ms)
        .bind(i64::try_from(REPORTS_KEPT.as_millis()).unwrap_or(i64::MAX))
        .execute(conn)
        .await?;
    Ok(())
}

/// The latest report of each server, by address.
pub(super) async fn all(conn: &mut PgConnection) -> Result<Vec<SeenServer>, PgError> {
    let found = sqlx::query(sql::SERVERS).fetch_all(conn).await?;
    let seen = |row: &PgRow| {
        let report = ServerReport {
            address: row.try_get(0)?,
            version: row.try_get(1)?,
            configuration: row.try_get(2)?,
            refused_since_unix_ms: row.try_get(3)?,
            leads_since_unix_ms: row.try_get(4)?,
            epoch: number(row, 5)?.cast_unsigned(),
            revision: number(row, 6)?.cast_unsigned(),
            age_ms: row.try_get(7)?,
        };
        let silent = Duration::from_millis(u64::try_from(number(row, 8)?).unwrap_or(0));
        Ok(SeenServer { report, silent })
    };
    found.iter().map(seen).collect()
}
