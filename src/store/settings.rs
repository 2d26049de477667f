//! The settings of a store in PostgreSQL. A build without PostgreSQL has them too, so that it can check a configuration file.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The database, and the limits of its connections.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// `postgres://user:password@host:port/database?sslmode=…`; may have a password, so it is never shown whole.
    pub url: String,
    /// The password, if it is not in the URL: the first line of this file, read at each connect.
    pub password_file: Option<PathBuf>,
    /// The schema of the tables; made if it does not exist.
    pub schema: String,
    /// Maximum time of a connection attempt, with TLS and password.
    pub connect_timeout: Duration,
    /// Maximum time of a statement, and of the attempts to finish a commit whose connection broke.
    pub statement_timeout: Duration,
}

impl PostgresSettings {
    /// The default schema.
    pub const SCHEMA: &'static str = "wharfinger";
    /// The default of `connect_timeout`.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// The default of `statement_timeout`.
    pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

    /// The defaults, with this URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            password_file: None,
            schema: Self::SCHEMA.into(),
            connect_timeout: Self::CONNECT_TIMEOUT,
            statement_timeout: Self::STATEMENT_TIMEOUT,
        }
    }

    /// The URL without its password and without its parameters, one of which may be a password too.
    fn shown(&self) -> String {
        let url = self.url.split(['?', '#']).next().unwrap_or_default();
        let Some((scheme, rest)) = url.split_once("://") else { return "(no URL)".into() };
        // Up to the last @: a password may have one that should have been escaped.
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (user.split(':').next().unwrap_or_default(), place),
            None => ("", rest),
        };
        if user.is_empty() { format!("{scheme}://{place}") } else { format!("{scheme}://{user}@{place}") }
    }
}

impl fmt::Display for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (schema {})", self.shown(), self.schema)
    }
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSettings")
            .field("url", &self.shown())
            .field("password_file", &self.password_file)
            .field("schema", &self.schema)
            .field("connect_timeout", &self.connect_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        for (url, shown) in [
            ("postgres://w:geheim@db:5432/w?sslmode=require", "postgres://w@db:5432/w (schema wharfinger)"),
            ("postgres://w:ge@heim@db/w", "postgres://w@db/w (schema wharfinger)"),
            ("postgres://db/w?password=geheim", "postgres://db/w (schema wharfinger)"),
            ("postgres:///w?host=/run/postgresql", "postgres:///w (schema wharfinger)"),
            ("geheim", "(no URL) (schema wharfinger)"),
        ] {
            let settings = PostgresSettings::new(url);
            assert_eq!(settings.to_string(), shown);
            assert!(!format!("{settings:?}").contains("heim"));
        }
    }
}
