//! The table of the audit trail.

use super::encode::{Id, Int, Json, Text};
use super::intern::Interner;
use super::{Columns, Sink};
use crate::store::{StoreError, StoredEvent};
use std::sync::Arc;
use wharfinger_core::{Event, LeaseId, Provenance, ResourceId, Revision, Subject, Timestamp};

table! {
    "events" as EVENT;
    text event_columns!, event_places!, _event_update!;
    fn write(event: EventColumns<'_>);
    fn read(event: StoredEvent);
    revision: Int = event.revision;
    ordinal: Int = event.ordinal;
    at: Int = event.at_unix_ms;
    kind: Text = event.kind;
    actor: Text = event.actor;
    subject: Text = event.subject;
    pool: Text = event.pool;
    resource: Id = event.resource;
    lease: Id = event.lease;
    detail: Text = event.detail;
    caller: Json = event.caller;
}

/// An entry of the audit trail in columns.
struct EventColumns<'e> {
    revision: Revision,
    ordinal: i64,
    at_unix_ms: Timestamp,
    kind: &'static str,
    actor: &'e Arc<str>,
    subject: String,
    pool: Option<&'e Arc<str>>,
    resource: Option<ResourceId>,
    lease: Option<LeaseId>,
    detail: &'e Arc<str>,
    caller: Option<Arc<Provenance>>,
}

/// The pool, resource and lease by which an entry of the audit trail is found: those that it names, and its subject.
pub(in crate::store) struct About<'e> {
    pub(in crate::store) pool: Option<&'e Arc<str>>,
    pub(in crate::store) resource: Option<ResourceId>,
    pub(in crate::store) lease: Option<LeaseId>,
}

impl<'e> About<'e> {
    pub(in crate::store) fn of(event: &'e Event) -> Self {
        let mut about = About { pool: event.pool.as_ref(), resource: event.resource, lease: event.lease };
        match &event.subject {
            Subject::Pool(name) => about.pool = about.pool.or(Some(name)),
            Subject::Resource(id) => about.resource = about.resource.or(Some(*id)),
            Subject::Lease(id) => about.lease = about.lease.or(Some(*id)),
            Subject::Session(_) => {}
        }
        about
    }
}

/// Writes an entry of the audit trail, in the order of [`EVENT`]. `ordinal` counts the entries of one revision.
pub(in crate::store) fn encode_event(event: &Event, ordinal: i64, sink: &mut impl Sink) {
    let about = About::of(event);
    let columns = EventColumns {
        revision: event.revision,
        ordinal,
        at_unix_ms: event.at,
        kind: event.kind.as_str(),
        actor: &event.actor,
        subject: event.subject.key(),
        pool: about.pool,
        resource: about.resource,
        lease: about.lease,
        detail: &event.detail,
        caller: event.caller.clone(),
    };
    write(&columns, sink);
}

/// Reads an entry of the audit trail.
pub(in crate::store) fn decode_event(row: &impl Columns, interner: &mut Interner) -> Result<StoredEvent, StoreError> {
    let mut event = StoredEvent::default();
    read(&mut event, row, interner)?;
    Ok(event)
}
