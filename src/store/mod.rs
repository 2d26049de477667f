//! The stores: each commits one batch in one transaction, in tables with a column for each value that operators query.
//!
//! A store knows transactions, but not gRPC, the engine or adapters. There are three: SQLite (embedded, the default), PostgreSQL
//! (feature `postgres`) and memory (for simulation and tests). The conformance suite in `conformance.rs` is their contract.

#[macro_use]
mod row;
#[macro_use]
mod event_query;
mod copy;
mod election;
mod event_retention;
mod leader_term;
mod memory;
mod page;
#[cfg(feature = "postgres")]
mod postgres;
mod server_report;
mod settings;
mod sqlite;
mod trail_reader;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod upgrade_tests;

pub use copy::{Age, Copied, CopyError, copy, dump, read_dump};
#[cfg(test)]
pub(crate) use election::lead_for_tests;
pub use election::{Candidate, Election, Lead, Leader};
pub use event_query::EventQuery;
pub use event_retention::trim_trail;
pub use leader_term::{Renewal, Term};
pub use memory::{Fault, MemoryStore};
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
pub use server_report::{REPORTS_KEPT, SeenServer, ServerReport};
pub use settings::PostgresSettings;
pub use sqlite::SqliteStore;
pub use trail_reader::{TrailPlace, TrailReader};

use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::watch;
use wharfinger_core::{
    Batch, Lease, LeaseId, Machine, Millis, PoolRow, Provenance, Resource, ResourceId, Revision, Session, SessionId,
    Snapshot, Timestamp,
};

/// Number of the leader that may write. The store refuses a commit with another epoch, so a deposed leader cannot write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Epoch(pub u64);

/// Stores committed batches. It has one writer, which awaits each commit before it starts the next.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Takes the store over: raises the epoch and returns it. The store refuses commits with an older epoch from then on.
    async fn acquire(&self) -> Result<Epoch, StoreError>;

    /// Returns all rows as of one revision.
    async fn load(&self) -> Result<Snapshot, StoreError>;

    /// Stores a batch durably in one transaction, if `batch.base` is the stored revision and the epoch is current. A batch that
    /// forgets rows has a revision after its base.
    async fn commit(&self, batch: &Batch, epoch: Epoch) -> Result<(), CommitError>;

    /// Returns the changes after a revision, oldest first, each row in its latest state. At most `limit` rows, unless a single
    /// revision has more: a revision is returned whole, so that a reader can resume from [`Changes::revision`].
    /// Forgotten rows are returned for some minutes ([`FORGOTTEN_FOR_MS`]). [`StoreError::Compacted`] if rows that were forgotten
    /// after `after` are no longer known: load again.
    async fn changes_since(&self, after: Revision, limit: usize) -> Result<Changes, StoreError>;

    /// Changes when [`Store::changes_since`] may return more, also for commits of other servers. A hint may come late or not at
    /// all. `None`: this kind of store has no hints.
    fn hints(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// The epoch that may currently write; `None` if no other server can take this kind of store over.
    async fn current_epoch(&self) -> Result<Option<Epoch>, StoreError> {
        Ok(None)
    }

    /// Returns entries of the audit trail, in the order of the query.
    async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, StoreError>;

    /// Removes entries of the audit trail that are older than this: the oldest ones, about `most` of them. Returns the number of
    /// removed entries. A number below `most` means that no older entries are left.
    async fn trim_events(&self, _before: Timestamp, _most: usize) -> Result<usize, StoreError> {
        Ok(0)
    }

    /// The places of the readers of the audit trail, by name.
    async fn trail_places(&self) -> Result<Vec<TrailPlace>, StoreError> {
        Ok(Vec::new())
    }

    /// Stores the place of a reader. An older place than the stored one changes nothing.
    async fn set_trail_place(&self, _place: &TrailPlace) -> Result<(), StoreError> {
        Err(StoreError::Configuration("this kind of store keeps no places in the audit trail".into()))
    }

    /// Forgets the place of a reader, if there is one.
    async fn forget_trail_place(&self, _name: &str) -> Result<(), StoreError> {
        Ok(())
    }

    /// Stores the report of a server in place of its earlier one.
    async fn report_server(&self, _report: &ServerReport) -> Result<(), StoreError> {
        Ok(())
    }

    /// The latest report of each server on the database, by address. None: this kind of store has one server.
    async fn servers(&self) -> Result<Vec<SeenServer>, StoreError> {
        Ok(Vec::new())
    }

    /// Sets the salt of new ids to that of the deployment whose rows are restored into this store.
    async fn set_deployment_salt(&self, _salt: u16) -> Result<(), StoreError> {
        Err(StoreError::Configuration("this kind of store cannot be restored into".into()))
    }

    /// The database's clock minus the wall clock of this machine at the latest comparison; `None`: the store has no clock of its
    /// own.
    fn clock_offset(&self) -> Option<Millis> {
        None
    }

    /// Waits for writes under way and closes the connections. No commit is lost without it.
    async fn close(&self) {}
}

/// Time for which the store returns that rows were forgotten, by the time of its commits.
pub const FORGOTTEN_FOR_MS: i64 = 5 * 60 * 1000;

/// Changes since a revision.
///
/// A reader that has read until `more` is false has the state of one commit. Before that, a row that changed again after `revision`
/// may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// These changes and those before include every revision up to this one.
    pub revision: Revision,
    /// Whether there may be changes after `revision`.
    pub more: bool,
    /// The oldest revision from which a watch can resume.
    pub floor: Revision,
    /// Time of the latest commit.
    pub now: Timestamp,
    /// Leases, by revision.
    pub leases: Vec<Lease>,
    /// Resources, by revision.
    pub resources: Vec<Resource>,
    /// Pools, by revision.
    pub pools: Vec<PoolRow>,
    /// Machines, by revision.
    pub machines: Vec<Machine>,
    /// Sessions, by revision.
    pub sessions: Vec<Session>,
    /// Forgotten rows, by revision.
    pub forgotten: Vec<Forgotten>,
}

/// Rows that a commit has forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// The revision after that commit.
    pub revision: Revision,
    /// Ids of the leases.
    pub leases: Vec<LeaseId>,
    /// Ids of the resources.
    pub resources: Vec<ResourceId>,
    /// Ids of the sessions, which have ended.
    pub sessions: Vec<SessionId>,
}

/// Whether a batch removes rows.
fn forgets(batch: &Batch) -> bool {
    !batch.forgotten_leases.is_empty() || !batch.forgotten_resources.is_empty() || !batch.ended_sessions.is_empty()
}

/// Checks that a batch that forgets rows has a revision of its own. Otherwise a reader of the changes would miss it.
fn numbered(batch: &Batch) -> Result<(), StoreError> {
    if forgets(batch) && batch.revision <= batch.base {
        return Err(StoreError::Corrupt(format!(
            "rows are forgotten without a revision after {}: report it",
            batch.base
        )));
    }
    Ok(())
}

/// An entry of the audit trail as stored. `kind` is a stable name, see [`wharfinger_core::Event`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredEvent {
    /// The revision of the change.
    pub revision: u64,
    /// Its position among the entries of that revision.
    pub ordinal: u64,
    /// Milliseconds since the Unix epoch.
    pub at_unix_ms: i64,
    /// Stable name of the kind.
    pub kind: String,
    /// The source of the change, such as an operator or the policy.
    pub actor: String,
    /// Id or name of the subject.
    pub subject: String,
    /// The pool.
    pub pool: Option<String>,
    /// The resource.
    pub resource: Option<ResourceId>,
    /// The lease.
    pub lease: Option<LeaseId>,
    /// Free text.
    pub detail: String,
    /// How the principal proved who it is, and from where it called. `None`: the change is the broker's own, follows from an
    /// earlier one, or was stored by a version that kept none.
    pub caller: Option<Arc<Provenance>>,
}

/// An error of a store, by who must act.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database belongs to another program or a newer version, or the settings are wrong. The operator must act.
    #[error("{0}")]
    Configuration(String),
    /// The disk is full, the file cannot be read or written, or the database is down.
    #[error("{0}")]
    Unavailable(String),
    /// This version cannot read a stored value.
    #[error("{0}")]
    Corrupt(String),
    /// The revision is older than the oldest one that the store has.
    #[error("revision {after} is older than the oldest one in the store, {floor}")]
    Compacted {
        /// The requested revision.
        after: Revision,
        /// The oldest revision in the store.
        floor: Revision,
    },
    /// Another server leads now.
    #[error("another server took over with epoch {}", .current.0)]
    Deposed {
        /// The store's epoch.
        current: Epoch,
    },
}

/// The error of a commit.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The batch was not stored.
    #[error("nothing was stored: {0}")]
    NotCommitted(#[source] StoreError),
    /// The batch may have been stored.
    #[error("it is not known whether it was stored: {0}")]
    InDoubt(#[source] StoreError),
    /// Another server leads now.
    #[error("another server took over with epoch {}", .current.0)]
    Deposed {
        /// The store's epoch.
        current: Epoch,
    },
}
