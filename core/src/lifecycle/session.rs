//! Sessions: an agent keeps its leases by one stream.
//!
//! A heartbeat changes no row: what the core heard last is in memory, and a core that recovers starts the clock of each
//! session anew. Rows change when a session is opened, when its stream ends (doubt in the holder, in each of its leases) and
//! when another stream resumes it. Silence beyond its TTL, or beyond its grace after the end of the stream, ends the
//! session: each of its leases then has the TTL that it had by the session, counted from the last word of the session or
//! from when it became active, whatever was later. Most have run out by then, and expire in the same step.

use crate::state::outbox::SELF;
use crate::{Caller, Core, EventKind, Lease, LeaseId, LeaseState, Session, SessionId, SessionRequest, Subject};
use crate::{Millis, Revision, Timestamp};
use alloc::format;
use alloc::sync::Arc;

impl Core {
    /// Opens a session, with its first stream.
    pub(crate) fn open_session(&mut self, request: &SessionRequest, ttl: Millis, grace: Millis) -> SessionId {
        let Caller { tenant, principal, .. } = &request.caller;
        let (tenant, principal) = (self.intern().name(tenant), self.intern().name(principal));
        let id = SessionId::new(self.mint());
        let row = Session {
            id,
            revision: Revision(0),
            tenant,
            principal: principal.clone(),
            holder: request.holder.clone(),
            ttl,
            grace,
            opened_at: self.now(),
            stream: 1,
            doubt: None,
        };
        self.insert_session(row);
        let detail = format!("ttl {ttl}, grace {grace}{}", named(&request.holder));
        self.event(EventKind::SessionOpened, &principal, Subject::Session(id), detail);
        id
    }

    /// Another stream goes on with a session. The one before it counts no more.
    pub(crate) fn resume_session(&mut self, id: SessionId, actor: &Arc<str>) {
        let Some(doubt) = self.session(id).map(|row| row.doubt) else { return };
        self.edit_session(id, |row| {
            row.stream += 1;
            row.doubt = None;
        });
        self.heard_session(id);
        if doubt.is_some() {
            self.doubt_leases_of(id, None);
        }
        let detail = match doubt {
            Some(since) => format!("after {}", self.now().since(since)),
            None => alloc::string::String::from("by another stream"),
        };
        self.event(EventKind::SessionResumed, actor, Subject::Session(id), detail);
    }

    /// The stream of a session ended: its holder is in doubt.
    pub(crate) fn doubt_session(&mut self, id: SessionId) {
        let now = self.now();
        self.edit_session(id, |row| row.doubt = Some(now));
        self.heard_session(id);
        let leases = self.doubt_leases_of(id, Some(now));
        let Some(row) = self.session(id).cloned() else { return };
        let detail = format!(
            "its stream ended, and {leases} leases are in doubt{}: it ends in {} unless it is resumed",
            named(&row.holder),
            row.grace
        );
        self.own_event(EventKind::SessionDoubt, Subject::Session(id), detail);
    }

    /// Ends a session by its agent. Its leases go on by their own TTL, from now on.
    pub(crate) fn close_session(&mut self, id: SessionId, actor: &Arc<str>) {
        let Some((_, leases)) = self.remove_session(id) else { return };
        let now = self.now();
        for lease in &leases {
            self.edit_lease(*lease, |lease| {
                lease.session = None;
                lease.holder_doubt = None;
                let until = now.after(lease.spec.ttl);
                if matches!(lease.state, LeaseState::Active { .. }) {
                    lease.end_at(until);
                }
            });
        }
        let detail = format!("{} leases go on by their own TTL", leases.len());
        self.event(EventKind::SessionClosed, actor, Subject::Session(id), detail);
    }

    /// A timer of a session fired: it may have been silent for too long, or have been heard since.
    pub(crate) fn session_due(&mut self, id: SessionId) {
        if self.session_deadline(id).is_none_or(|at| at > self.now()) {
            return;
        }
        let heard = self.session_heard(id);
        let Some((row, leases)) = self.remove_session(id) else { return };
        let span = row.patience();
        for lease in &leases {
            // The row keeps the name of the session, for the story of its end.
            self.edit_lease(*lease, |lease| {
                lease.holder_doubt = None;
                if let LeaseState::Active { since, .. } = lease.state {
                    lease.end_at(heard.max(since).after(span));
                }
            });
        }
        let why = if row.doubt.is_some() { "its stream ended, and none resumed it" } else { "it was silent" };
        let detail = format!("{why} for {span}, with {} leases{}", leases.len(), named(&row.holder));
        self.event(EventKind::SessionLost, &Arc::from(SELF), Subject::Session(id), detail);
    }

    /// A session keeps a lease from now on, or none does.
    pub(crate) fn keep_lease(&mut self, id: LeaseId, session: Option<SessionId>) {
        if self.lease(id).is_none_or(|lease| lease.session == session) {
            return;
        }
        let doubt = session.and_then(|session| self.session(session)?.doubt);
        let now = self.now();
        self.edit_lease(id, |lease| {
            lease.session = session;
            lease.holder_doubt = doubt;
            match lease.state {
                LeaseState::Active { .. } if session.is_some() => lease.expires_at = lease.expires_at_most,
                LeaseState::Active { .. } => lease.end_at(now.after(lease.spec.ttl)),
                LeaseState::Queued | LeaseState::Preparing { .. } | LeaseState::Ended { .. } => {}
            }
        });
    }

    /// Whether a session that has not ended keeps a lease.
    pub(crate) fn is_kept(&self, lease: &Lease) -> bool {
        lease.session.is_some_and(|session| self.session(session).is_some())
    }

    /// All leases of a session show this doubt in their holder. Returns their number.
    fn doubt_leases_of(&mut self, id: SessionId, doubt: Option<Timestamp>) -> usize {
        let leases = self.leases_of_session(id);
        for lease in &leases {
            self.edit_lease(*lease, |lease| lease.holder_doubt = doubt);
        }
        leases.len()
    }
}

fn named(holder: &str) -> alloc::string::String {
    if holder.is_empty() { alloc::string::String::new() } else { format!(" ({holder})") }
}
