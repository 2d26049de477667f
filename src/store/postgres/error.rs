//! The meaning of PostgreSQL's errors for the operator, by their SQLSTATE
//! (https://www.postgresql.org/docs/current/errcodes-appendix.html).

use crate::store::StoreError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use std::io::ErrorKind;

/// An error of the database.
#[derive(Debug)]
pub(super) enum PgError {
    /// The database returned an error, or does not answer.
    Sql(sqlx::Error),
    /// The database returned a row that this version cannot read, or refuses the state that the caller needs.
    Store(StoreError),
}

impl From<sqlx::Error> for PgError {
    fn from(error: sqlx::Error) -> Self {
        PgError::Sql(error)
    }
}

impl From<StoreError> for PgError {
    fn from(error: StoreError) -> Self {
        PgError::Store(error)
    }
}

impl PgError {
    pub(super) fn sorted(&self, place: &str) -> StoreError {
        match self {
            PgError::Sql(error) => sorted(place, error),
            PgError::Store(error) => error.clone(),
        }
    }

    /// Whether the connection is broken and another one might work.
    pub(super) fn lost(&self) -> bool {
        matches!(self, PgError::Sql(error) if !refused(error))
    }
}

fn database(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

/// Whether the database has certainly not run the statement: it returned an ERROR and the session goes on. A FATAL error ends the
/// session and may come after a commit (an administrator ends a session that waits for a standby).
pub(super) fn refused(error: &sqlx::Error) -> bool {
    database(error).is_some_and(|error| error.severity() == PgSeverity::Error)
}

/// Sorts an error by who must act, with a remedy in its text. `place` is the URL without its password.
pub(super) fn sorted(place: &str, error: &sqlx::Error) -> StoreError {
    let Some(said) = database(error) else { return without_code(place, error) };
    let text = format!("{} (SQLSTATE {})", said.message(), said.code());
    let unavailable = |what: &str| StoreError::Unavailable(format!("the database {place} {what}: {text}"));
    let configuration = |what: &str| StoreError::Configuration(format!("the database {place} {what}: {text}"));
    match said.code() {
        "28P01" | "28000" => configuration(
            "does not let this user in: check the user and the password (password_file, or the URL), and pg_hba.conf",
        ),
        "3D000" => configuration("is not there: create it, as in createdb -O USER NAME"),
        "42501" => configuration(
            "does not allow this: its user needs CONNECT and CREATE on the database, or has to own the schema",
        ),
        "25006" => unavailable("can only be read: it is a standby, or set read-only; name the primary"),
        "53100" => unavailable("has no space left: free some"),
        "53200" => unavailable("has not enough memory"),
        "53300" => unavailable("has no connection left: raise max_connections, or end others"),
        "55P03" => unavailable("keeps a table locked: end who locks it, such as a shell with an open transaction"),
        "57014" => unavailable("took longer than `statement_timeout`"),
        code if code.starts_with("57P") || code.starts_with("08") => unavailable("is stopping or starting"),
        code if code.starts_with("40") || code.starts_with("53") || code.starts_with("58") => {
            unavailable("could not do it")
        }
        code if code.starts_with("XX") => {
            StoreError::Corrupt(format!("the database {place} is damaged: restore a backup: {text}"))
        }
        _ => StoreError::Corrupt(format!(
            "the database {place} does not have the shape that this version expects: restore a backup, or report it: \
             {text}"
        )),
    }
}

fn without_code(place: &str, error: &sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Tls(_) => no_tls(place, error),
        // An error of rustls: a message is not valid, or the certificate is not trusted.
        sqlx::Error::Io(io) if io.kind() == ErrorKind::InvalidData => no_tls(place, error),
        sqlx::Error::Configuration(_) => {
            StoreError::Configuration(format!("the database {place} cannot be named so: {error}"))
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnIndexOutOfBounds { .. } => {
            StoreError::Corrupt(format!("the database {place} gave a row that cannot be read: {error}"))
        }
        _ => StoreError::Unavailable(format!("the database {place} does not answer: {error}")),
    }
}

fn no_tls(place: &str, error: &sqlx::Error) -> StoreError {
    StoreError::Configuration(format!("no TLS with the database {place}: {error}; check `sslmode` and `sslrootcert`"))
}
