//! The reports of the servers on one database: each writes its own every few seconds, and each reads all.

use std::time::Duration;

/// The time after which the report of a server that writes none any more is removed.
pub const REPORTS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// The report of a server on itself. Its address names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerReport {
    /// The address for clients and for other servers.
    pub address: String,
    /// The version of the program.
    pub version: String,
    /// The digest of its configuration file.
    pub configuration: String,
    /// When a later text of that file was refused, in milliseconds of the Unix epoch. `None`: it was not.
    pub refused_since_unix_ms: Option<i64>,
    /// Since when it leads, in milliseconds of the Unix epoch. `None`: it follows.
    pub leads_since_unix_ms: Option<i64>,
    /// The epoch of its lead. 0: it follows.
    pub epoch: u64,
    /// The revision of its data.
    pub revision: u64,
    /// The age of its data at the report, in milliseconds; zero if it leads. `None`: it has read nothing yet.
    pub age_ms: Option<i64>,
}

/// A report as another server reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenServer {
    /// The report.
    pub report: ServerReport,
    /// The time since the report, by the clock of the store.
    pub silent: Duration,
}
