//! Messages of sessions to inputs of the core, and back.

use super::from_proto::{DEFAULT_BOOKMARKS, MAX_HOLDER, Renewal, duration, lease, renew};
use super::to_proto::span;
use crate::pb;
use crate::rpc::status::RpcError;
use crate::rpc::validate::{Lines, Problems, Span};
use std::time::Duration;
use wharfinger_core::{
    Caller, Input, LeaseId, LeaseRequest, Revision, Session, SessionId, SessionRequest, SessionStream,
};

/// Maximum number of calls of a message.
pub(crate) const MAX_SESSION_CALLS: usize = 1000;

/// The first message of a session's stream.
#[derive(Debug)]
pub(crate) struct Opening {
    /// Opens or resumes the session.
    pub(crate) input: Input,
    /// The session is resumed.
    pub(crate) resumes: bool,
    /// Revision after which its events begin. 0: with the current state.
    pub(crate) from: Revision,
    pub(crate) bookmarks: Duration,
}

/// The first message of a stream: it opens or resumes a session.
pub(crate) fn opening(message: &pb::SessionRequest, caller: Caller) -> Result<Opening, RpcError> {
    let mut p = Problems::default();
    let Some(open) = &message.open else {
        p.add("open", "is required in the first message: it opens or resumes the session");
        return Err(p.finish(()).err().unwrap_or(RpcError::Bug("a problem is no problem")));
    };
    let session: Option<SessionId> = p.optional_id("open.session_id", &open.session_id);
    let ttl = p.span("open.ttl", open.ttl.as_ref(), &Span::LONG);
    let grace = p.span("open.grace", open.grace.as_ref(), &Span::LONG);
    let holder = p.text("open.holder", &open.holder, MAX_HOLDER, Lines::One);
    let bookmarks = p.span("open.bookmark_interval", open.bookmark_interval.as_ref(), &Span::BOOKMARK);
    if !open.session_id.is_empty() {
        for (field, set) in [("ttl", ttl.is_some()), ("grace", grace.is_some()), ("holder", !holder.is_empty())] {
            if set {
                p.add(format!("open.{field}"), "is that of a new session: leave it out to resume one");
            }
        }
    }
    calls(&mut p, message);
    let input = match session {
        Some(session) => Input::ResumeSession { session, caller },
        None => Input::OpenSession(SessionRequest { caller, holder, ttl, grace }),
    };
    let bookmarks = duration(bookmarks.unwrap_or(DEFAULT_BOOKMARKS));
    p.finish(Opening { input, resumes: session.is_some(), from: Revision(open.from_revision), bookmarks })
}

/// Checks a later message as a whole. Its calls are checked one by one.
pub(crate) fn message(message: &pb::SessionRequest) -> Result<(), RpcError> {
    let mut p = Problems::default();
    if message.open.is_some() {
        p.add("open", "belongs to the first message of a stream: open another stream for another session");
    }
    calls(&mut p, message);
    p.finish(())
}

fn calls(p: &mut Problems, message: &pb::SessionRequest) {
    if message.calls.len() > MAX_SESSION_CALLS {
        let text = format!(
            "has {} entries; at most {MAX_SESSION_CALLS} are taken: send several messages",
            message.calls.len()
        );
        p.add("calls", text);
    }
}

/// The refusal of a call that is none.
pub(crate) fn no_call() -> RpcError {
    let mut p = Problems::default();
    p.add("call", "is required: one of lease, release, renew and report, as this version of the API has them");
    p.finish(()).err().unwrap_or(RpcError::Bug("a problem is no problem"))
}

/// A request for leases over a session, which keeps them.
pub(crate) fn lease_kept(
    request: &pb::LeaseRequest,
    caller: Caller,
    stream: SessionStream,
) -> Result<LeaseRequest, RpcError> {
    let (wanted, _) = lease(request, caller)?;
    let mut p = Problems::default();
    if request.wait.is_some() {
        p.add("wait", "belongs to LeaseService.Lease: over a session, events report when the leases are ACTIVE");
    }
    p.finish(LeaseRequest { session: Some(stream), ..wanted })
}

/// The leases that a session is to keep.
pub(crate) fn keep(request: &pb::RenewRequest) -> Result<(Renewal, Vec<LeaseId>), RpcError> {
    let (renewal, _) = renew(request)?;
    let mut p = Problems::default();
    if request.ttl.is_some() {
        p.add("ttl", "belongs to LeaseService.Renew: over a session, leases have its TTL");
    }
    let ids = match &renewal {
        Renewal::One(id) => vec![*id],
        Renewal::Several(ids) => ids.clone(),
    };
    p.finish((renewal, ids))
}

/// The session of a stream.
pub(crate) fn opened(session: &Session) -> pb::SessionOpened {
    pb::SessionOpened {
        session_id: session.id.to_string(),
        ttl: Some(span(session.ttl)),
        grace: Some(span(session.grace)),
        stream: session.stream,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharfinger_core::Millis;

    fn fields<T: std::fmt::Debug>(result: Result<T, RpcError>) -> Vec<String> {
        match result {
            Err(RpcError::Invalid(problems)) => problems.into_iter().map(|problem| problem.field).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn first(open: pb::SessionOpen) -> pb::SessionRequest {
        pb::SessionRequest { open: Some(open), ..Default::default() }
    }

    #[test]
    fn a_first_message_opens_or_resumes() {
        let caller = || Caller::sole_tenant("ann");
        assert_eq!(fields(opening(&pb::SessionRequest::default(), caller())), ["open"]);
        let new = opening(&first(pb::SessionOpen::default()), caller()).unwrap();
        assert!(matches!(new.input, Input::OpenSession(SessionRequest { ttl: None, grace: None, .. })), "{new:?}");
        assert_eq!((new.resumes, new.bookmarks), (false, duration(Millis::secs(5))));
        let id = SessionId::new(7);
        let open = pb::SessionOpen { session_id: id.to_string(), from_revision: 9, ..Default::default() };
        let resumed = opening(&first(open.clone()), caller()).unwrap();
        assert!(matches!(resumed.input, Input::ResumeSession { session, .. } if session == id), "{resumed:?}");
        assert_eq!((resumed.resumes, resumed.from), (true, Revision(9)));
        let second = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        let wrong = pb::SessionOpen { ttl: second, grace: second, holder: "x".into(), ..open };
        assert_eq!(fields(opening(&first(wrong), caller())), ["open.ttl", "open.grace", "open.holder"]);
        let wrong = pb::SessionOpen { session_id: "ses_1".into(), ..Default::default() };
        assert_eq!(fields(opening(&first(wrong), caller())), ["open.session_id"]);
    }

    #[test]
    fn a_later_message_opens_nothing_and_has_a_limit_of_calls() {
        let calls = |count| vec![pb::SessionCall::default(); count];
        message(&pb::SessionRequest { calls: calls(MAX_SESSION_CALLS), ..Default::default() }).unwrap();
        let wrong = pb::SessionRequest { calls: calls(MAX_SESSION_CALLS + 1), ..first(Default::default()) };
        assert_eq!(fields(message(&wrong)), ["open", "calls"]);
    }

    #[test]
    fn a_session_decides_ttl_and_answers_at_once() {
        let second = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        let stream = SessionStream { session: SessionId::new(1), number: 1 };
        let selector = Some(pb::Selector { pool: "p".into(), ..Default::default() });
        let request = pb::LeaseRequest { request_id: "r".into(), selector, ..Default::default() };
        let kept = lease_kept(&request, Caller::sole_tenant("ann"), stream).unwrap();
        assert_eq!(kept.session, Some(stream));
        let waits = pb::LeaseRequest { wait: second, ..request };
        assert_eq!(fields(lease_kept(&waits, Caller::sole_tenant("ann"), stream)), ["wait"]);
        let renew = pb::RenewRequest { lease_id: LeaseId::new(1).to_string(), ttl: second, ..Default::default() };
        assert_eq!(fields(keep(&renew)), ["ttl"]);
    }
}
