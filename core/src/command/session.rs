//! An agent opens, resumes, keeps alive and closes its session.

use super::{reject, retry_in, unknown_lease};
use crate::{
    Caller, Core, LeaseId, Millis, Rejection, RejectionKind, Reply, Session, SessionId, SessionRequest, SessionStream,
};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Core {
    pub(crate) fn on_open_session(&mut self, request: &SessionRequest) -> Result<Reply, Rejection> {
        self.known_tenant(&request.caller.tenant)?;
        let (usual, longest) = self.limits().session_ttl;
        let ttl = request.ttl.unwrap_or(usual);
        let invalid = |reason, field: &str, message| Err(reject(RejectionKind::Invalid, reason, field, message));
        if ttl <= Millis::ZERO {
            return invalid("TTL_NOT_POSITIVE", "open.ttl", String::from("ttl must be longer than 0"));
        }
        if ttl > longest {
            let message = format!("ttl {ttl} is longer than {longest}, the longest of a session: ask for less");
            return invalid("TTL_TOO_LONG", "open.ttl", message);
        }
        let grace = request.grace.unwrap_or(ttl);
        if grace <= Millis::ZERO || grace > ttl {
            let message = format!("grace {grace} must be longer than 0 and at most the ttl, {ttl}");
            return invalid("GRACE_OUT_OF_RANGE", "open.grace", message);
        }
        let most = self.limits().sessions;
        if self.sessions_by(&request.caller.tenant, &request.caller.principal) >= most {
            let message = format!(
                "{:?} has {most} sessions, which is the limit: close those that are not needed",
                request.caller.principal
            );
            let rejection = reject(RejectionKind::Exhausted, "TOO_MANY_SESSIONS", "open", message);
            return Err(retry_in(rejection, ttl));
        }
        let id = self.open_session(request, ttl, grace);
        self.session_reply(id)
    }

    pub(crate) fn on_resume_session(&mut self, id: SessionId, caller: &Caller) -> Result<Reply, Rejection> {
        self.own_session(id, caller)?;
        self.resume_session(id, &caller.principal);
        self.session_reply(id)
    }

    pub(crate) fn on_beat(&mut self, stream: SessionStream) -> Result<Reply, Rejection> {
        self.present_stream(stream)?;
        self.heard_session(stream.session);
        Ok(Reply::Done)
    }

    /// The end of a stream that was replaced, or of a session that ended, changes nothing. A session that keeps no lease ends with
    /// its stream: there is nothing to lose.
    pub(crate) fn on_stream_ended(&mut self, stream: SessionStream) -> Reply {
        if let Ok(row) = self.present_stream(stream)
            && row.doubt.is_none()
        {
            if self.session_leases(row.id, None).next().is_none() {
                self.close_session(row.id, &row.principal);
            } else {
                self.doubt_session(row.id);
            }
        }
        Reply::Done
    }

    pub(crate) fn on_close_session(&mut self, stream: SessionStream, caller: &Caller) -> Result<Reply, Rejection> {
        self.own_stream(stream, caller)?;
        self.close_session(stream.session, &caller.principal);
        Ok(Reply::Done)
    }

    /// Takes each of several leases, with its group, into a session. One that is refused does not keep the others from it.
    pub(crate) fn on_keep_all(
        &mut self,
        ids: Vec<LeaseId>,
        caller: &Caller,
        stream: SessionStream,
    ) -> Result<Reply, Rejection> {
        let ttl = self.own_stream(stream, caller)?.ttl;
        self.heard_session(stream.session);
        let mut each = Vec::with_capacity(ids.len());
        for id in ids {
            let kept = self.may_renew(id, caller, Some(ttl)).map(|_| self.keep_group(id, stream.session));
            each.push(kept.and_then(|()| self.lease(id).cloned().ok_or_else(|| unknown_lease(id))));
        }
        Ok(Reply::Each(each))
    }

    /// A session keeps a lease and those that go with it.
    pub(super) fn keep_group(&mut self, id: LeaseId, session: SessionId) {
        let mut all = self.companions(id);
        all.insert(0, id);
        for member in all {
            self.keep_lease(member, Some(session));
        }
    }

    /// The session of a caller's stream, which is its latest one.
    pub(super) fn own_stream(&self, stream: SessionStream, caller: &Caller) -> Result<Arc<Session>, Rejection> {
        self.own_session(stream.session, caller)?;
        self.present_stream(stream)
    }

    fn own_session(&self, id: SessionId, caller: &Caller) -> Result<(), Rejection> {
        let own = self.session(id).is_some_and(|row| row.belongs_to(caller));
        if own { Ok(()) } else { Err(unknown_session(id)) }
    }

    fn present_stream(&self, stream: SessionStream) -> Result<Arc<Session>, Rejection> {
        let row = self.session(stream.session).ok_or_else(|| unknown_session(stream.session))?;
        if row.stream == stream.number {
            return Ok(row.clone());
        }
        let message = format!("another stream has resumed {}: this one is over", row.id);
        Err(reject(RejectionKind::Precondition, "SESSION_RESUMED", "", message))
    }

    fn session_reply(&self, id: SessionId) -> Result<Reply, Rejection> {
        self.session(id).cloned().map(Reply::Session).ok_or_else(|| unknown_session(id))
    }
}

/// One text for a session that never was, that ended, and that belongs to another principal.
fn unknown_session(id: SessionId) -> Rejection {
    let message = format!("no session {id}: it never was, or it ended: open a new one");
    reject(RejectionKind::NotFound, "UNKNOWN_SESSION", "open.session_id", message)
}
