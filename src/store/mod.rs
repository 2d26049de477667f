//! Where the truth is kept: one transaction per batch, real tables with real columns.
//!
//! A store knows transactions and nothing of gRPC, the engine or adapters. Three kinds: SQLite (embedded, the default),
//! PostgreSQL (feature `postgres`) and memory (for simulation and tests). The conformance suite in `conformance.rs` says
//! what each must do.

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
mod settings;
mod sqlite;

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
pub use settings::PostgresSettings;
pub use sqlite::SqliteStore;

use async_trait::async_trait;
use tokio::sync::watch;
use wharfinger_core::{Batch, Lease, LeaseId, Millis, PoolRow, Resource, ResourceId, Revision, Snapshot, Timestamp};

/// Which leader writes. A commit with another epoch than the store's is refused: a deposed leader can't write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Epoch(pub u64);

/// Holds what was committed. One writer, which awaits each commit before it starts the next.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Takes the store over: raises the epoch and returns it. Commits with an older one are refused from now on.
    async fn acquire(&self) -> Result<Epoch, StoreError>;

    /// All that is kept, as of one revision.
    async fn load(&self) -> Result<Snapshot, StoreError>;

    /// Stores a batch in one transaction, durably, if `batch.base` is the stored revision and the epoch is current. One that
    /// forgets rows has a revision after its base.
    async fn commit(&self, batch: &Batch, epoch: Epoch) -> Result<(), CommitError>;

    /// What changed after a revision, oldest first, each thing in its latest state; at most `limit` rows, unless a single
    /// revision has more: it is told whole, so that who resumes from [`Changes::revision`] misses nothing.
    /// Rows that were forgotten are told for some minutes ([`FORGOTTEN_FOR_MS`]). An error [`StoreError::Compacted`] if what
    /// was forgotten after `after` is no longer known: load again.
    async fn changes_since(&self, after: Revision, limit: usize) -> Result<Changes, StoreError>;

    /// Changes when there may be something new in [`Store::changes_since`], as soon as the store knows, also of what others
    /// have committed. A hint: it may come late or not at all. `None`: this kind of store gives none.
    fn hints(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// As whom one may write now; `None` if nobody else can take this kind of store over.
    async fn current_epoch(&self) -> Result<Option<Epoch>, StoreError> {
        Ok(None)
    }

    /// Entries of the audit trail, oldest first.
    async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, StoreError>;

    /// Removes entries of the audit trail that are older than this: the oldest ones, about `most` of them. Says how many
    /// were removed; fewer than `most`: there are no more.
    async fn trim_events(&self, _before: Timestamp, _most: usize) -> Result<usize, StoreError> {
        Ok(0)
    }

    /// Makes ids from now on as another deployment did, whose content is restored into this store.
    async fn brand(&self, _salt: u16) -> Result<(), StoreError> {
        Err(StoreError::Configuration("nothing can be restored into this kind of store".into()))
    }

    /// The database's clock minus the wall clock of this machine, when they were last compared; `None`: there is no other
    /// clock.
    fn clock_offset(&self) -> Option<Millis> {
        None
    }

    /// Waits for what is being written, and lets go of what is open. Without it nothing is lost.
    async fn close(&self) {}
}

/// For how long the store tells that rows were forgotten, by the time of its commits.
pub const FORGOTTEN_FOR_MS: i64 = 5 * 60 * 1000;

/// What changed since a revision.
///
/// Who has read until there is no `more` has the state of one commit. In between a row may be missing that changed again after
/// `revision`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Everything up to here is in these changes and those before.
    pub revision: Revision,
    /// There may be more after `revision`.
    pub more: bool,
    /// The oldest revision from which a watch can resume.
    pub floor: Revision,
    /// The time of the last committed step.
    pub now: Timestamp,
    /// Leases, by revision.
    pub leases: Vec<Lease>,
    /// Resources, by revision.
    pub resources: Vec<Resource>,
    /// Pools, by revision.
    pub pools: Vec<PoolRow>,
    /// What was forgotten, by revision.
    pub forgotten: Vec<Forgotten>,
}

/// Rows that a commit has forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// The revision after that commit.
    pub revision: Revision,
    /// Leases.
    pub leases: Vec<LeaseId>,
    /// Resources.
    pub resources: Vec<ResourceId>,
}

/// A batch that forgets is a change, or who follows the changes would not hear of it.
fn numbered(batch: &Batch) -> Result<(), StoreError> {
    let forgets = !batch.forgotten_leases.is_empty() || !batch.forgotten_resources.is_empty();
    if forgets && batch.revision <= batch.base {
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
    /// The change that it tells of.
    pub revision: u64,
    /// Its place among the entries of that revision.
    pub ordinal: u64,
    /// Milliseconds since the Unix epoch.
    pub at_unix_ms: i64,
    /// Stable name.
    pub kind: String,
    /// Who did it.
    pub actor: String,
    /// The id or name of what it happened to.
    pub subject: String,
    /// The pool.
    pub pool: Option<String>,
    /// The resource.
    pub resource: Option<ResourceId>,
    /// The lease.
    pub lease: Option<LeaseId>,
    /// In words.
    pub detail: String,
}

/// A store that does not do what it should.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is not a database of ours, or of a newer version. The operator must act.
    #[error("{0}")]
    Configuration(String),
    /// The disk is full, the file can't be read or written, the database is down.
    #[error("{0}")]
    Unavailable(String),
    /// What is stored makes no sense to this version.
    #[error("{0}")]
    Corrupt(String),
    /// The revision is older than what is kept.
    #[error("revision {after} is older than the oldest that is kept, {floor}")]
    Compacted {
        /// What was asked for.
        after: Revision,
        /// What is there.
        floor: Revision,
    },
    /// Another server leads now.
    #[error("another server took over with epoch {}", .current.0)]
    Deposed {
        /// The store's epoch.
        current: Epoch,
    },
}

/// A commit that did not work.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// Certainly nothing was stored.
    #[error("nothing was stored: {0}")]
    NotCommitted(#[source] StoreError),
    /// It may or may not have been stored.
    #[error("it is not known whether it was stored: {0}")]
    InDoubt(#[source] StoreError),
    /// Another server leads now.
    #[error("another server took over with epoch {}", .current.0)]
    Deposed {
        /// The store's epoch.
        current: Epoch,
    },
}
