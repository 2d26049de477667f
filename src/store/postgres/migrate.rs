//! The migration of the schema, in one transaction, by one server at a time. It refuses a schema of another program or a newer
//! version.

use super::connect::{Database, Purpose, part};
use super::error::PgError;
use super::rows::number;
use super::sql;
use crate::random::random;
use crate::store::StoreError;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};

/// Migrates the schema to this version. Makes it if it does not exist.
pub(super) async fn migrate(database: &Database) -> Result<(), PgError> {
    let mut conn = database.connect(Purpose::Bulk).await?;
    database.within(Purpose::Bulk, bring_up(database, &mut conn)).await?;
    part(conn).await;
    Ok(())
}

fn configuration(message: String) -> PgError {
    PgError::Store(StoreError::Configuration(message))
}

async fn one(conn: &mut PgConnection, text: &'static str, schema: &str) -> Result<PgRow, sqlx::Error> {
    sqlx::query(text).bind(schema).fetch_one(conn).await
}

/// An error drops the connection, which ends the transaction.
async fn bring_up(database: &Database, conn: &mut PgConnection) -> Result<(), PgError> {
    let (place, schema) = (&database.place, database.schema());
    if look(database, conn).await?.ours && version(conn).await? == newest() {
        // The usual start: the schema is of this version, and no lock is needed.
        return Ok(());
    }
    sqlx::query(sql::BEGIN).execute(&mut *conn).await?;
    // Another server that starts at the same time waits here, and then finds the schema migrated.
    one(conn, sql::LOCK, schema).await?;
    let seen = look(database, conn).await?;
    if !seen.there {
        // The configuration allows only a to z, 0 to 9 and _ in the name.
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE SCHEMA \"{schema}\""))).execute(&mut *conn).await?;
    }
    if !seen.ours {
        if seen.tables > 0 {
            return Err(configuration(format!(
                "the schema {schema:?} of the database {place} holds tables of another program: set another `schema`"
            )));
        }
        sqlx::query(sql::CREATE_VERSION).execute(&mut *conn).await?;
        sqlx::query(sql::FIRST_VERSION).execute(&mut *conn).await?;
    }
    let version = version(conn).await?;
    if version > newest() {
        return Err(configuration(format!(
            "the schema {schema:?} of the database {place} is of version {version}, this wharfinger knows {} and older: \
             start the newer wharfinger, or restore a backup of before the upgrade",
            newest()
        )));
    }
    for script in sql::MIGRATIONS.iter().copied().skip(usize::try_from(version).unwrap_or(0)) {
        sqlx::raw_sql(script).execute(&mut *conn).await?;
    }
    if version == 0 {
        sqlx::query(sql::CREATE).bind(i64::from(salt())).execute(&mut *conn).await?;
    }
    sqlx::query(sql::SET_VERSION).bind(newest()).execute(&mut *conn).await?;
    sqlx::query(sql::END).execute(&mut *conn).await?;
    if (1..sql::WITHOUT_CREDENTIALS).contains(&version) {
        rewrite(database, conn).await;
    }
    tracing::info!(database = %place, from = version, to = newest(), "the schema was brought up to this version");
    Ok(())
}

/// Writes the tables anew that had credentials, since the files keep former versions of their rows until then. The server's log and
/// its backups keep them too, so a failure here is only a warning.
async fn rewrite(database: &Database, conn: &mut PgConnection) {
    for statement in sql::REWRITE {
        if let Err(error) = sqlx::raw_sql(statement).execute(&mut *conn).await {
            tracing::warn!(%error, database = %database.place, "old rows with private keys are in the files still: run {statement}");
        }
    }
    tracing::warn!(
        database = %database.place,
        "holder keys that older versions stored are erased from the tables; backups and the server's log (WAL) may hold them: \
         replace each holder_key that was in use"
    );
}

fn newest() -> i64 {
    sql::MIGRATIONS.len() as i64
}

async fn version(conn: &mut PgConnection) -> Result<i64, PgError> {
    number(&sqlx::query(sql::VERSION).fetch_one(conn).await?, 0)
}

struct Seen {
    there: bool,
    ours: bool,
    tables: i64,
}

async fn look(database: &Database, conn: &mut PgConnection) -> Result<Seen, PgError> {
    let row = one(conn, sql::LOOK, database.schema()).await?;
    if !row.try_get::<bool, _>(3)? {
        return Err(PgError::Store(StoreError::Unavailable(format!(
            "the database {} can only be read: it is a standby; name the primary",
            database.place
        ))));
    }
    if !row.try_get::<bool, _>(4)? {
        tracing::warn!(
            database = %database.place,
            "the database does not keep what it acknowledges through a loss of power: set fsync and full_page_writes to on"
        );
    }
    Ok(Seen { there: row.try_get(0)?, ours: row.try_get(1)?, tables: number(&row, 2)? })
}

/// A number that differs from one database to the next. It need not be secret.
fn salt() -> u16 {
    (random() & 0xffff) as u16
}
