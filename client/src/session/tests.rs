use super::*;
use crate::Lost;
use crate::guard::{LeaseGuard, LeaseStatus};
use crate::testing::{AgentStream, Broker, lease, told};
use std::collections::HashMap;
use tonic_types::{ErrorDetails, StatusExt};

/// An active lease with a TTL that a pause of a busy machine does not reach.
fn active(revision: u64) -> pb::Lease {
    let ttl = prost_types::Duration { seconds: 1, nanos: 500_000_000 };
    pb::Lease { ttl: Some(ttl), ..lease(revision, pb::LeaseState::Active) }
}

/// A broker with sessions, and a guard over an active lease.
async fn held() -> (Broker, mpsc::Receiver<AgentStream>, LeaseGuard) {
    let (sessions, opened) = mpsc::channel(4);
    let broker = Broker::start().await;
    *broker.script.sessions.lock().unwrap() = Some(sessions);
    let guard = broker.client().await.keep(active(1));
    (broker, opened, guard)
}

/// Reads the first message of a stream, and opens the session.
async fn accepts(stream: &mut AgentStream, id: &str) -> pb::SessionOpen {
    let first = stream.0.message().await.unwrap().unwrap();
    let keeps = first.calls.iter().any(
        |call| matches!(&call.call, Some(Call::Renew(renew)) if call.id == KEEP && renew.lease_id == active(1).id),
    );
    assert!(keeps, "{first:?}");
    let opened = Some(pb::SessionOpened { session_id: id.into(), ..Default::default() });
    stream.1.send(Ok(pb::SessionResponse { opened, ..Default::default() })).await.unwrap();
    first.open.unwrap()
}

async fn answers(stream: &AgentStream, answer: Answer) {
    let answers = vec![pb::SessionAnswer { id: KEEP, answer: Some(answer) }];
    stream.1.send(Ok(pb::SessionResponse { answers, ..Default::default() })).await.unwrap();
}

async fn keeps(stream: &AgentStream, revision: u64) {
    let lease = Some(pb::Lease { session_id: "ses_1".into(), ..active(revision) });
    answers(stream, Answer::Renew(pb::RenewResponse { lease, results: Vec::new() })).await;
}

async fn event(stream: &AgentStream, lease: pb::Lease) {
    let events = vec![told(lease).unwrap()];
    stream.1.send(Ok(pb::SessionResponse { events, ..Default::default() })).await.unwrap();
}

/// Answers heartbeats, this many.
async fn beats(stream: &mut AgentStream, count: u64) {
    for _ in 0..count {
        let beat = stream.0.message().await.unwrap().unwrap().beat;
        assert!(beat > 0);
        let answer = pb::SessionResponse { beat, ..Default::default() };
        stream.1.send(Ok(answer)).await.unwrap();
    }
}

async fn until(guard: &LeaseGuard, wanted: impl FnMut(&LeaseStatus) -> bool) -> LeaseStatus {
    guard.status().wait_for(wanted).await.unwrap().clone()
}

#[tokio::test]
async fn heartbeats_keep_a_lease_without_renewals_and_events_reach_its_guard() {
    let (broker, mut sessions, guard) = held().await;
    let mut stream = sessions.recv().await.unwrap();
    let open = accepts(&mut stream, "ses_1").await;
    assert_eq!((open.session_id.as_str(), open.ttl), ("", active(1).ttl));
    keeps(&stream, 2).await;
    let begun = Instant::now();
    // Twice the TTL.
    while begun.elapsed() < Duration::from_secs(3) {
        beats(&mut stream, 1).await;
    }
    assert!(matches!(&*guard.status().borrow(), LeaseStatus::Active(_)));
    assert_eq!(*broker.script.renewals.lock().unwrap(), 0);
    let doubt = Some(pb::Doubt { detail: "a probe got no answer".into() });
    event(&stream, pb::Lease { doubt, ..active(3) }).await;
    until(&guard, |status| matches!(status, LeaseStatus::Doubt(_))).await;
    event(&stream, lease(4, pb::LeaseState::Broken)).await;
    assert!(matches!(guard.broken().await, Lost::Ended(lease) if lease.revision == 4));
}

#[tokio::test]
async fn a_broken_stream_is_resumed_behind_the_last_event() {
    let (_broker, mut sessions, guard) = held().await;
    let mut stream = sessions.recv().await.unwrap();
    accepts(&mut stream, "ses_7").await;
    keeps(&stream, 2).await;
    event(&stream, active(9)).await;
    until(&guard, |status| matches!(status, LeaseStatus::Active(lease) if lease.revision == 9)).await;
    stream.1.send(Err(Status::unavailable("the server stops"))).await.unwrap();
    let mut stream = sessions.recv().await.unwrap();
    let open = accepts(&mut stream, "ses_7").await;
    assert_eq!((open.session_id.as_str(), open.from_revision, open.ttl), ("ses_7", 9, None));
    keeps(&stream, 10).await;
    beats(&mut stream, 6).await;
    assert!(matches!(&*guard.status().borrow(), LeaseStatus::Active(_)));
}

#[tokio::test]
async fn a_session_that_ended_is_replaced_by_a_new_one() {
    let (_broker, mut sessions, guard) = held().await;
    let mut stream = sessions.recv().await.unwrap();
    accepts(&mut stream, "ses_7").await;
    keeps(&stream, 2).await;
    let unknown = ErrorDetails::with_error_info("UNKNOWN_SESSION", "wharfinger", HashMap::new());
    let unknown = Status::with_error_details(Code::NotFound, "no session ses_7", unknown);
    stream.1.send(Err(unknown)).await.unwrap();
    let mut stream = sessions.recv().await.unwrap();
    let open = accepts(&mut stream, "ses_8").await;
    assert_eq!((open.session_id.as_str(), open.from_revision), ("", 0));
    keeps(&stream, 3).await;
    beats(&mut stream, 3).await;
    assert!(matches!(&*guard.status().borrow(), LeaseStatus::Active(_)));
}

/// The server of an older version answers UNIMPLEMENTED; others refuse the caller, or the lease.
#[tokio::test]
async fn a_guard_renews_where_no_session_keeps_its_lease() {
    let renewed = || Ok(pb::RenewResponse { lease: Some(active(1)), results: Vec::new() });
    for refused_lease in [false, true] {
        let (broker, mut sessions, guard) = held().await;
        broker.script.renew.lock().unwrap().push_back(renewed());
        let mut stream = sessions.recv().await.unwrap();
        if refused_lease {
            accepts(&mut stream, "ses_1").await;
            let refusal = pb::Refusal { code: Code::FailedPrecondition.into(), ..Default::default() };
            answers(&stream, Answer::Refusal(refusal)).await;
        } else {
            stream.1.send(Err(Status::permission_denied("the verb renew is missing"))).await.unwrap();
        }
        while *broker.script.renewals.lock().unwrap() < 6 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(&*guard.status().borrow(), LeaseStatus::Active(_)));
        assert!(sessions.try_recv().is_err(), "no other session is tried");
    }
}

#[tokio::test]
async fn heartbeats_that_no_server_answers_keep_nothing() {
    let (_broker, mut sessions, guard) = held().await;
    let mut stream = sessions.recv().await.unwrap();
    accepts(&mut stream, "ses_1").await;
    keeps(&stream, 2).await;
    let lost = guard.broken().await;
    assert!(matches!(lost, Lost::NoContact(_)), "{lost}");
    drop(stream);
}

#[tokio::test]
async fn a_release_ends_the_stream_after_the_lease() {
    let (broker, mut sessions, guard) = held().await;
    let mut stream = sessions.recv().await.unwrap();
    accepts(&mut stream, "ses_1").await;
    keeps(&stream, 2).await;
    guard.release(pb::Outcome::Ok, "").await.unwrap();
    assert_eq!(broker.script.releases.lock().unwrap().len(), 1);
    // The stream ends, and no other comes.
    while let Ok(Some(_)) = stream.0.message().await {}
    assert!(sessions.try_recv().is_err());
}
