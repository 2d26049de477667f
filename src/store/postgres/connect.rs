//! Connections. Each has all time limits, and is discarded after any error.
//!
//! The pool of sqlx is not used. A connection belongs to the future that uses it, and returns to the readers only after success. A
//! future that is dropped (a cancelled call, a timeout) closes its connection, so no transaction stays open and no answer reaches
//! the wrong reader (sqlx#4385).

use super::error::{PgError, sorted};
use super::sql;
use crate::store::{PostgresSettings, StoreError};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Row};
use std::future::Future;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The oldest version that has all features that the store uses.
const OLDEST: i64 = 140_000;

/// Maximum number of connections that only read.
const READERS: usize = 4;

/// The purpose of a connection, which sets the time limit of its statements.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Commits: each is one statement.
    Write,
    /// Small reads.
    Read,
    /// Loads of all rows, and migrations. The limit is for the progress, not for the whole.
    Bulk,
}

/// Maximum time of a bulk statement on the server. A million leases take about ten seconds.
const BULK: Duration = Duration::from_secs(600);

/// A database, and the settings of its connections.
pub(super) struct Database {
    settings: PostgresSettings,
    options: PgConnectOptions,
    /// The URL without its password.
    pub(super) place: String,
}

impl Database {
    pub(super) fn new(settings: PostgresSettings) -> Result<Self, StoreError> {
        let place = settings.to_string();
        let parsed = PgConnectOptions::from_str(&settings.url).map_err(|error| sorted(&place, &error))?;
        // A URL has an IPv6 address in brackets; the options have it without.
        let host = parsed.get_host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let mut options = parsed.host(&host);
        if options.get_application_name().is_none() {
            options = options.application_name("wharfinger");
        }
        // The start of a session sends no parameter that a pooler would refuse.
        let options = options.extra_float_digits(None).disable_statement_logging();
        Ok(Database { settings, options, place })
    }

    /// The schema, as a name in SQL.
    pub(super) fn schema(&self) -> &str {
        &self.settings.schema
    }

    /// Maximum time of a statement, with the round trip.
    pub(super) fn limit(&self, purpose: Purpose) -> Duration {
        self.on_server(purpose) + Duration::from_secs(1)
    }

    /// Maximum time for finishing a commit whose connection broke.
    pub(super) fn patience(&self) -> Duration {
        self.settings.statement_timeout
    }

    fn on_server(&self, purpose: Purpose) -> Duration {
        match purpose {
            Purpose::Write | Purpose::Read => self.settings.statement_timeout,
            Purpose::Bulk => BULK,
        }
    }

    /// A new connection with our settings.
    pub(super) async fn connect(&self, purpose: Purpose) -> Result<PgConnection, PgError> {
        let limit = self.settings.connect_timeout;
        let made = tokio::time::timeout(limit, self.try_connect(purpose)).await;
        made.unwrap_or_else(|_| {
            Err(PgError::Store(StoreError::Unavailable(format!(
                "the database {} accepted no connection within {limit:?} (`connect_timeout`): is it running, and below its maximum of \
                 connections?",
                self.place
            ))))
        })
    }

    /// The options for a new connection, with the current password.
    pub(super) async fn options(&self) -> Result<PgConnectOptions, StoreError> {
        let mut options = self.options.clone();
        if let Some(path) = &self.settings.password_file {
            // Read each time, so that a password can be changed under a running server.
            let text = tokio::fs::read_to_string(path).await.map_err(|error| {
                StoreError::Configuration(format!("the password file {} cannot be read: {error}", path.display()))
            })?;
            options = options.password(text.lines().next().unwrap_or_default());
        }
        Ok(options)
    }

    async fn try_connect(&self, purpose: Purpose) -> Result<PgConnection, PgError> {
        let mut conn = self.options().await?.connect().await?;
        let time = self.on_server(purpose).as_millis();
        // Shorter than the statement limit, so that the error names the lock.
        let lock = match purpose {
            Purpose::Write | Purpose::Read => time / 2,
            Purpose::Bulk => 60_000,
        };
        let row = sqlx::query(sql::SESSION)
            .bind(format!("\"{}\"", self.schema()))
            .bind(time.to_string())
            .bind(lock.to_string())
            .bind((time * 2).to_string())
            .bind(purpose == Purpose::Bulk)
            .fetch_one(&mut conn)
            .await?;
        let version: i64 = row.try_get(0)?;
        if version < OLDEST {
            return Err(PgError::Store(StoreError::Configuration(format!(
                "the database {} is PostgreSQL {}: use {} or newer",
                self.place,
                version / 10_000,
                OLDEST / 10_000
            ))));
        }
        Ok(conn)
    }

    /// Waits for one answer, not longer than the server may take and a second more.
    pub(super) async fn within<T, E: Into<PgError>>(
        &self,
        purpose: Purpose,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, PgError> {
        let limit = self.limit(purpose);
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done.map_err(Into::into),
            // As if the connection were lost, which it is: it is not used again.
            Err(_) => Err(PgError::Sql(sqlx::Error::Io(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                format!("no answer within {limit:?}"),
            )))),
        }
    }
}

/// Connections that read, a few at most.
pub(super) struct Readers {
    idle: Mutex<Vec<PgConnection>>,
    permits: Semaphore,
}

/// One of them. Dropped, it is closed.
pub(super) struct Reader<'p> {
    pub(super) conn: PgConnection,
    /// It has been idle, so it may be dead without our knowing.
    pub(super) used: bool,
    _permit: SemaphorePermit<'p>,
}

impl Readers {
    pub(super) fn new() -> Self {
        Readers { idle: Mutex::default(), permits: Semaphore::new(READERS) }
    }

    /// One that is idle, or a new one.
    pub(super) async fn take(&self, database: &Database) -> Result<Reader<'_>, PgError> {
        let limit = database.limit(Purpose::Read);
        let permit = match tokio::time::timeout(limit, self.permits.acquire()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(PgError::Store(StoreError::Unavailable("the store is closed".into()))),
            Err(_) => {
                return Err(PgError::Store(StoreError::Unavailable(format!(
                    "the database {} is asked too much: no connection was free within {limit:?}",
                    database.place
                ))));
            }
        };
        let idle = self.idle().pop();
        let used = idle.is_some();
        let conn = match idle {
            Some(conn) => conn,
            None => database.connect(Purpose::Read).await?,
        };
        Ok(Reader { conn, used, _permit: permit })
    }

    /// Gives one back after all went well.
    pub(super) fn give(&self, reader: Reader<'_>) {
        if !self.permits.is_closed() {
            self.idle().push(reader.conn);
        }
    }

    /// Throws the idle ones away: where one was dead, the others are.
    pub(super) fn forget(&self) {
        self.idle().clear();
    }

    /// Ends them all, and gives no more.
    pub(super) async fn close(&self) {
        self.permits.close();
        let all = std::mem::take(&mut *self.idle());
        for conn in all {
            part(conn).await;
        }
    }

    /// The processes at the other ends of those that are idle.
    #[cfg(test)]
    pub(super) async fn pids(&self) -> Vec<i32> {
        let mut all = std::mem::take(&mut *self.idle());
        let mut pids = Vec::new();
        for conn in &mut all {
            let row = sqlx::query("SELECT pg_backend_pid()").fetch_one(conn).await.unwrap();
            pids.push(row.get::<i32, _>(0));
        }
        self.idle().append(&mut all);
        pids
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<PgConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says good-bye, but does not insist on an answer.
pub(super) async fn part(conn: PgConnection) {
    let _ = tokio::time::timeout(Duration::from_secs(1), conn.close()).await;
}
