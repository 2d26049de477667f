//! Rows: the core's types to and from columns, without loss and without a database.
//!
//! What an operator asks for is a column of its own; what nests or varies (labels, causes, how a lease ended) is JSON
//! text. The core has no serde, so what is JSON has a mirror struct here. Writing goes through [`Sink`], reading through
//! [`Columns`], so that a database needs to know only how to bind and fetch three kinds of values.

mod decode;
mod encode;
mod intern;
mod json;
mod json_rows;
#[cfg(test)]
mod tests;

pub(super) use decode::{take_event, take_lease, take_pool, take_resource};
pub(super) use encode::{put_event, put_lease, put_pool, put_resource};
pub(super) use intern::Shared;
pub(super) use json_rows::{Array, Cells, rows};

use super::StoreError;
use std::sync::Arc;
use wharfinger_core::{Event, LeaseId, ResourceId, Subject};

/// Takes the values of rows, column by column.
pub(super) trait Sink {
    /// A number, or nothing.
    fn int(&mut self, value: Option<i64>);
    /// A text that is at hand, or nothing.
    fn text(&mut self, value: Option<&Arc<str>>);
    /// A text made for this row, or nothing.
    fn string(&mut self, value: Option<String>);
}

/// Gives the values of a row, by column. `Err` says what is there instead.
pub(super) trait Columns {
    /// The number in this column.
    fn int(&self, column: usize) -> Result<Option<i64>, String>;
    /// The text in this column.
    fn text(&self, column: usize) -> Result<Option<&str>, String>;
}

/// Columns of the table of leases, in the order in which they are written and read.
pub(super) const LEASE: [&str; 41] = [
    "id",
    "revision",
    "state",
    "pool",
    "labels",
    "holder",
    "principal",
    "request_id",
    "fingerprint",
    "priority",
    "ttl_ms",
    "wait_until",
    "expected_ms",
    "params",
    "tags",
    "group_id",
    "group_index",
    "independent",
    "child",
    "successor",
    "replaces",
    "created_at",
    "seq",
    "expires_at",
    "attempts",
    "delays",
    "not_before",
    "served_by",
    "avoid",
    "trouble",
    "ends_at",
    "doubt",
    "resource",
    "slot",
    "token",
    "op",
    "since",
    "access",
    "ended_at",
    "ended",
    "work",
];

/// Columns of the table of resources.
pub(super) const RESOURCE: [&str; 30] = [
    "id",
    "revision",
    "state",
    "pool",
    "item",
    "labels",
    "slots",
    "parent_lease",
    "parent_host",
    "cordoned_by",
    "cordon_reason",
    "created_at",
    "ready_at",
    "idle_since",
    "uses",
    "handle",
    "access",
    "ends_at",
    "trouble",
    "op",
    "attempt",
    "retry_at",
    "since",
    "cause",
    "detail",
    "found",
    "at_risk",
    "kept",
    "failures",
    "announced",
];

/// Columns of the table of pools.
pub(super) const POOL: [&str; 4] = ["name", "revision", "cordoned_by", "cordon_reason"];

/// Columns of the audit trail.
pub(super) const EVENT: [&str; 10] =
    ["revision", "ordinal", "at", "kind", "actor", "subject", "pool", "resource", "lease", "detail"];

/// By what an entry of the audit trail is found: what it names, and its subject in any case.
pub(super) struct About<'e> {
    pub(super) pool: Option<&'e Arc<str>>,
    pub(super) resource: Option<ResourceId>,
    pub(super) lease: Option<LeaseId>,
}

impl<'e> About<'e> {
    pub(super) fn of(event: &'e Event) -> Self {
        let mut about = About { pool: event.pool.as_ref(), resource: event.resource, lease: event.lease };
        match &event.subject {
            Subject::Pool(name) => about.pool = about.pool.or(Some(name)),
            Subject::Resource(id) => about.resource = about.resource.or(Some(*id)),
            Subject::Lease(id) => about.lease = about.lease.or(Some(*id)),
        }
        about
    }
}

/// The error for a value that this version can't read.
pub(super) fn corrupt(table: &str, id: &str, column: &str, what: &str) -> StoreError {
    StoreError::Corrupt(format!(
        "the database holds a row that this version can't read: table {table}, row {id}, column {column}: {what}; \
         start the version that wrote it, or restore a backup"
    ))
}
