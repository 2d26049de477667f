//! The table of sessions.

use super::encode::{Id, Int, Interned, Tenant, Text};
use super::intern::Interner;
use super::{Columns, Sink};
use crate::store::StoreError;
use std::sync::Arc;
use wharfinger_core::{Caller, Millis, Revision, Session, SessionId, Timestamp};

table! {
    "sessions" as SESSION;
    text session_columns!, session_places!, session_update!;
    fn write(session: Session);
    fn read(session: Session);
    id: Id = session.id;
    revision: Int = session.revision;
    tenant: Tenant = session.tenant;
    principal: Interned = session.principal;
    holder: Text = session.holder;
    ttl_ms: Int = session.ttl;
    grace_ms: Int = session.grace;
    opened_at: Int = session.opened_at;
    stream: Int = session.stream;
    doubt: Int = session.doubt;
}

/// Writes a session, in the order of [`SESSION`].
pub(in crate::store) fn encode_session(session: &Session, sink: &mut impl Sink) {
    write(session, sink);
}

/// Reads a session.
pub(in crate::store) fn decode_session(row: &impl Columns, interner: &mut Interner) -> Result<Session, StoreError> {
    let mut session = Session {
        id: SessionId::new(1),
        revision: Revision(0),
        tenant: Arc::from(Caller::DEFAULT_TENANT),
        principal: Arc::default(),
        holder: Arc::default(),
        ttl: Millis::ZERO,
        grace: Millis::ZERO,
        opened_at: Timestamp(0),
        stream: 0,
        doubt: None,
    };
    read(&mut session, row, interner)?;
    Ok(session)
}
