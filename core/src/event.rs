//! The audit trail.

use crate::{LeaseId, ResourceId, Revision, Subject, Timestamp};
use alloc::sync::Arc;

/// One entry: written in the transaction of what it tells of, never changed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Event {
    /// The change that it tells of.
    pub revision: Revision,
    /// When.
    pub at: Timestamp,
    /// Stable name: `lease.active`, `resource.suspect`, `pool.cordoned`.
    pub kind: &'static str,
    /// Who did it: a principal, or `wharfinger`.
    pub actor: Arc<str>,
    /// What it happened to.
    pub subject: Subject,
    /// The pool, as far as there is one.
    pub pool: Option<Arc<str>>,
    /// The resource, as far as there is one.
    pub resource: Option<ResourceId>,
    /// The lease, as far as there is one.
    pub lease: Option<LeaseId>,
    /// In words, with the evidence.
    pub detail: Arc<str>,
}
